"""Links a DLL with a module definition: python exports.py OUT.def COMMAND... (CMake starts each link so). It shows its own symbols, not those of the C++ runtime that is linked into each library
and that lld would export along with them. A symbol in no section that holds code is data."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

EXTERNAL, CODE = 2, 0x20
# of the standard library, of the compiler, and what is made anew wherever it is used
NOT_OURS = re.compile(r"_Z(N[KVR]*St|St|T[A-Z]+N?[KVR]*St|TINSt|GV|Z)|_Z[^N]*St\d|\.|__imp_|__real@|__xmm@|__ymm@|__zmm@|_ZTS|_Z(nw|na|dl|da)")


def symbols(blob: bytes) -> Iterator[tuple[str, int, bool]]:
    """(name, section, external) of a COFF object of either kind, and for each section whether it holds code."""
    big = blob[:4] == b"\0\0\xff\xff"
    if big:
        n_sections, at, n = struct.unpack_from("<III", blob, 44)
        head, size, form = 56, 20, "<8sIihBB"
    else:
        n_sections, _, at, n, optional, _ = struct.unpack_from("<HIIIHH", blob, 2)
        head, size, form = 20 + optional, 18, "<8sIhHBB"
    code = [bool(struct.unpack_from("<I", blob, head + 40*i + 36)[0] & CODE) for i in range(n_sections)]
    strings = at + n*size
    i = 0
    while i < n:
        name, _, section, _, kind, aux = struct.unpack_from(form, blob, at + i*size)
        if kind == EXTERNAL and section > 0:
            if name[:4] == b"\0\0\0\0":
                begin = strings + struct.unpack_from("<I", name, 4)[0]
                name = blob[begin:blob.index(b"\0", begin)]
            yield name.rstrip(b"\0").decode(), section, code[section - 1]
        i += 1 + aux


def objects(words: list[str]) -> Iterator[bytes]:
    """What a link command makes its library of; static libraries are linked into each that needs them."""
    for word in words:
        if word.startswith("@"):
            yield from objects(Path(word[1:]).read_text(encoding="utf-8").split())
        elif word.endswith((".obj", ".o")):
            yield Path(word).read_bytes()


def definition(made_of: Iterator[bytes]) -> str:
    found = {name: is_code for blob in made_of for name, _, is_code in symbols(blob) if not NOT_OURS.match(name)}
    return "EXPORTS\n" + "".join(f'    "{name}"{"" if is_code else " DATA"}\n' for name, is_code in sorted(found.items()))


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(definition(objects(sys.argv[2:])), encoding="utf-8")
    sys.exit(subprocess.run([*sys.argv[2:], sys.argv[1]]).returncode)
