"""What can be told of files for macOS without a Mac: python desktop/check_macos.py arm64|x86_64 OLDEST FOLDER... (make macos-check runs it).

Every program and library in the folders: of that architecture, for macOS OLDEST or newer, found and finding each other wherever the folder lies, nothing asked of the
system but libSystem, each symbol in the library that is to have it. In the CPU libraries: each set of kernels has its instructions, and none that belong to a better set.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lief

# what run_table.py's table says of it: system -> parts that are compiled and linked
BUILT = {"macOS arm64": ("Python package", "programs", "integer kernels"), "macOS x86-64": ("Python package", "programs", "integer kernels")}

SYSTEM = "/usr/lib/libSystem.B.dylib"
CPU_LIBRARY_SHOWS = {"_ggml_backend_init", "_ggml_backend_score"}
ASKED_OF_PYTHON = re.compile(r"_?_Py[A-Z_]")  # found where it runs
MACH = re.compile(rb"\xcf\xfa\xed\xfe")
DEBUG, PRIVATE, KIND, EXTERNAL = 0xE0, 0x10, 0x0E, 0x01  # bits of a symbol's n_type (mach-o/nlist.h)
UNDEFINED, DEFINED = 0x00, 0x0E  # of those of KIND
LOOKED_UP = (0xFE, 0)  # the ordinal of a symbol that is taken wherever it is found; zig's linker writes 0


class Wrong(Exception):
    """One sentence: what a file has, and what it should have."""

    def __init__(self, what: str, got: object, expected: object) -> None:
        super().__init__(f"{what}: got {got}, expected {expected}")
        self.what, self.got, self.expected = what, got, expected

    def of(self, path: Path) -> Wrong:
        return Wrong(f"{path}: {self.what}", self.got, self.expected)


# --- instructions: words and masks on ARM, bytes on x86 ---------------------------------------------------------------


def word(value: int, mask: int) -> tuple[int, int]:
    return value, mask


def some(keep: int, want: int) -> bytes:
    """Of a regular expression: a byte whose bits `keep` are `want`."""
    return b"[" + b"".join(b"\\x%02x" % b for b in range(256) if b & keep == want) + b"]"


INSTRUCTIONS: dict[str, list[tuple[int, int]] | re.Pattern[bytes]] = {
    "sdot": [word(0x4E809400, 0xFFE0FC00), word(0x4F80E000, 0xFFC0F400)],  # of 16 bytes; by a vector, by an element
    "smmla": [word(0x4E80A400, 0xFFE0FC00)],
    "vpmaddubsw": re.compile(b"\\xc4" + some(0x1F, 0x02) + some(0x07, 0x05) + b"\\x04", re.DOTALL),  # of 32 bytes
    "vpdpbusd256": re.compile(b"\\xc4" + some(0x1F, 0x02) + some(0x07, 0x05) + b"\\x50", re.DOTALL),
    "vpdpbusd": re.compile(b"\\x62" + some(0x0F, 0x02) + some(0x87, 0x05) + some(0x60, 0x40) + b"\\x50", re.DOTALL),  # of 64 bytes
}
# set of kernels -> instructions it has, and those it must not have; x86's generic ones are what the compiler makes for each CPU library
KERNELS = {
    "arm64": {"generic": ((), ("smmla",)), "dotprod": (("sdot",), ("smmla",)), "i8mm": (("sdot", "smmla"), ())},
    "x86_64": {"generic": ((), ()), "avx2": (("vpmaddubsw",), ("vpdpbusd",)), "avxvnni": (("vpdpbusd256",), ("vpdpbusd",)), "avx512": (("vpdpbusd",), ()), "zen4": (("vpdpbusd",), ())},
}


def count(name: str, code: bytes) -> int:
    how = INSTRUCTIONS[name]
    if isinstance(how, re.Pattern):
        return len(how.findall(code))
    words = memoryview(code[:len(code) // 4 * 4]).cast("I")
    return sum(1 for w in words if any(w & mask == value for value, mask in how))


# --- one file ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class File:
    path: Path
    binary: lief.MachO.Binary

    def symbols(self, kind: int) -> Iterator[lief.MachO.Symbol]:
        return (s for s in self.binary.symbols if not s.raw_type & DEBUG and s.raw_type & KIND == kind)

    def shows(self) -> set[str]:
        """Symbols that other files may take from it."""
        return {str(s.name) for s in self.symbols(DEFINED) if s.raw_type & EXTERNAL and not s.raw_type & PRIVATE}

    def loads(self) -> list[str]:
        """Its libraries, in the order that symbols count them."""
        own = lief.MachO.LoadCommand.TYPE.ID_DYLIB
        return [str(lib.name) for lib in self.binary.libraries if lib.command != own]

    def code(self, kernels: str) -> bytes:
        """Of all functions in the namespace of a set of kernels."""
        text = self.binary.get_section("__text")
        begins = sorted((s.value, str(s.name)) for s in self.symbols(DEFINED) if text.virtual_address <= s.value < text.virtual_address + text.size)
        ends = [value for value, _ in begins[1:]] + [text.virtual_address + text.size]
        wanted = f"_GLOBAL__N_1{len(kernels)}{kernels}"
        content = bytes(text.content)
        return b"".join(content[begin - text.virtual_address:end - text.virtual_address] for (begin, name), end in zip(begins, ends) if wanted in name)


def check_commands(file: File, arch: str, oldest: str, names: set[str]) -> None:
    binary = file.binary
    cpu = {"arm64": "ARM64", "x86_64": "X86_64"}[arch]
    if binary.header.cpu_type.name != cpu:
        raise Wrong("architecture", binary.header.cpu_type.name, cpu)
    version = binary.build_version
    if not version or version.platform.name != "MACOS" or ".".join(map(str, version.minos[:2])) != oldest:
        raise Wrong("oldest system", f"{version.platform.name} {version.minos}" if version else "none", f"MACOS {oldest}")
    if arch == "arm64" and not binary.has_code_signature:
        raise Wrong("signature", "none", "one, if only by the linker: an M1 ends a program without")
    own = [str(lib.name) for lib in binary.libraries if lib.command == lief.MachO.LoadCommand.TYPE.ID_DYLIB]
    if file.path.suffix == ".dylib" and own != [f"@rpath/{file.path.name}"]:
        raise Wrong("install name", own, f"@rpath/{file.path.name}")
    for library in file.loads():
        if library != SYSTEM and not (library.startswith("@rpath/") and library[7:] in names):
            raise Wrong("library", library, f"{SYSTEM}, or @rpath/ and one of ours")
    wanted = ["@loader_path/lib" if file.path.name.startswith("_core.") else "@loader_path"]
    paths = [str(r.path) for r in binary.rpaths]
    if paths != wanted and any(library != SYSTEM for library in file.loads()):
        raise Wrong("run path", paths, wanted)


def check_symbols(file: File, ours: dict[str, set[str]]) -> None:
    loads = file.loads()
    for symbol in file.symbols(UNDEFINED):
        name, ordinal = str(symbol.name), symbol.description >> 8 & 0xFF
        if ordinal in LOOKED_UP and file.path.name.startswith("_core.") and ASKED_OF_PYTHON.match(name):
            continue
        if not 1 <= ordinal <= len(loads):
            raise Wrong(f"symbol {name}", "no library that has it", "one of those it loads")
        library = loads[ordinal - 1]
        if library != SYSTEM and name not in ours[library[7:]]:
            raise Wrong(f"symbol {name}", f"{library}, which does not show it", "a library that does")


def check_kernels(file: File, arch: str) -> dict[str, int]:
    """Sums of instructions, as SET: INSTRUCTION."""
    if not file.shows() >= CPU_LIBRARY_SHOWS:  # zig's linker shows more: it does not keep to cpu-library.exp
        raise Wrong("symbols shown", sorted(file.shows())[:3], " and ".join(sorted(CPU_LIBRARY_SHOWS)))
    sums = {}
    for kernels, (has, has_not) in KERNELS[arch].items():
        code = file.code(kernels)
        if not code:
            raise Wrong(f"kernels {kernels}", "no function", "some")
        for name in (*has, *has_not):
            n = count(name, code)
            if (n > 0) != (name in has):
                raise Wrong(f"kernels {kernels}", f"{n} {name}", "some" if name in has else "none")
            sums[f"{kernels} {name}"] = n
    return {key: n for key, n in sums.items() if n}


# --- all of them ------------------------------------------------------------------------------------------------------


def files(folders: list[Path]) -> list[File]:
    lief.logging.disable()  # it warns of an empty table
    found = []
    for path in sorted(p for folder in folders for p in folder.rglob("*") if p.is_file() and not p.is_symlink()):
        with path.open("rb") as f:
            if not MACH.match(f.read(4)):
                continue
        fat = lief.MachO.parse(str(path))
        if fat is None:
            raise Wrong(str(path), "a damaged file", "one of macOS")
        found.append(File(path, fat.at(0)))
    return found


def check(arch: str, oldest: str, folders: list[Path]) -> str:
    """What was found, in one line. Wrong: what is not as it should be."""
    found = files(folders)
    ours = {file.path.name: file.shows() for file in found}
    sums: dict[str, int] = {}
    for what, pattern in (("programs", r"llama-server"), ("libraries", r"libllama\.dylib"), ("CPU libraries", r"libggml-cpu-.*\.so"), ("Python modules", r"_core\..*\.so")):
        if not any(re.fullmatch(pattern, name) for name in ours):
            raise Wrong(what, "none", "some")
    for file in found:
        try:
            check_commands(file, arch, oldest, set(ours))
            check_symbols(file, ours)
            if file.path.name.startswith("libggml-cpu-"):
                sums = check_kernels(file, arch)
        except Wrong as wrong:
            raise wrong.of(file.path) from None
    return f"{arch}: {len(ours)} files compiled and linked for macOS {oldest}; " + ", ".join(f"{key} {n}" for key, n in sums.items())


if __name__ == "__main__":
    try:
        print(check(sys.argv[1], sys.argv[2], [Path(folder) for folder in sys.argv[3:]]))
    except Wrong as wrong:
        sys.exit(f"make: macos-check: {wrong}; do read build/desktop/macos/{sys.argv[1]}/build.log and desktop/README.md")
