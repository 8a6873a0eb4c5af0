"""The module definition of a DLL's names, for an import library: python desktop/import_library.py DLL OUT.def."""

from __future__ import annotations

import struct
import sys
from pathlib import Path


def exported(blob: bytes) -> list[str]:
    """The names that a 64-bit DLL shows. ValueError: it is none."""
    head = struct.unpack_from("<I", blob, 0x3C)[0]
    if blob[:2] != b"MZ" or blob[head:head + 4] != b"PE\0\0" or struct.unpack_from("<H", blob, head + 24)[0] != 0x20B:
        raise ValueError("got no 64-bit DLL, expected one")
    n_sections, size = struct.unpack_from("<H", blob, head + 6)[0], struct.unpack_from("<H", blob, head + 20)[0]
    sections = [struct.unpack_from("<IIII", blob, head + 24 + size + 40*i + 8) for i in range(n_sections)]

    def offset(address: int) -> int:
        """Where an address of the loaded DLL lies in the file."""
        for virtual_size, begin, _, at in sections:
            if begin <= address < begin + virtual_size:
                return int(at + address - begin)
        raise ValueError(f"address {address}: got no section of it, expected one")

    table = offset(struct.unpack_from("<I", blob, head + 24 + 112)[0])
    n, _, names = struct.unpack_from("<III", blob, table + 24)
    starts = [offset(a) for a in struct.unpack_from(f"<{n}I", blob, offset(names))]
    return [blob[at:blob.index(b"\0", at)].decode() for at in starts]


if __name__ == "__main__":
    dll = Path(sys.argv[1])
    Path(sys.argv[2]).write_text(f"LIBRARY {dll.name}\nEXPORTS\n" + "".join(f"    {name}\n" for name in exported(dll.read_bytes())))
