"""What a shared library's ELF headers say, in Python alone: Gradle's build has no binutils."""

from __future__ import annotations

import struct
from dataclasses import dataclass

MACHINES = {183: "arm64-v8a", 62: "x86_64"}
LOAD, STRTAB, DYNSYM, DYNAMIC, NEEDED = 1, 3, 11, 6, 1
GLOBAL, WEAK = 1, 2
HIDDEN = (1, 2)  # STV_INTERNAL, STV_HIDDEN


@dataclass(frozen=True)
class Elf:
    abi: str                 # Android's name of the machine
    alignments: list[int]    # of the LOAD segments, bytes
    sections: list[str]
    needed: list[str]        # libraries, as DT_NEEDED names them
    exported: list[str]      # defined symbols that others may bind to


def text(strings: bytes, at: int) -> str:
    return strings[at:strings.index(b"\0", at)].decode()


def read(data: bytes) -> Elf:
    """ValueError: no 64-bit little-endian ELF file, or a damaged one."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("no 64-bit little-endian ELF file")
    try:
        return parse(data)
    except (struct.error, IndexError, UnicodeDecodeError) as e:
        raise ValueError(f"a damaged ELF file ({e})") from e


def parse(data: bytes) -> Elf:
    machine, = struct.unpack_from("<H", data, 18)
    programs, tables = struct.unpack_from("<QQ", data, 32)
    program_size, n_programs, table_size, n_tables, names = struct.unpack_from("<5H", data, 54)
    segments = [struct.unpack_from("<IIQQQQQQ", data, programs + i * program_size) for i in range(n_programs)]
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, tables + i * table_size) for i in range(n_tables)]

    def content(header: tuple[int, ...]) -> bytes:
        return data[header[4]:header[4] + header[5]]

    needed, exported = [], []
    for header in headers:
        if header[1] == DYNAMIC:
            strings = content(headers[header[6]])
            needed = [text(strings, value) for tag, value in struct.iter_unpack("<qQ", content(header)) if tag == NEEDED]
        elif header[1] == DYNSYM:
            strings = content(headers[header[6]])
            exported = [text(strings, name) for name, info, other, section, _, _ in struct.iter_unpack("<IBBHQQ", content(header))
                        if section != 0 and info >> 4 in (GLOBAL, WEAK) and other & 3 not in HIDDEN and name]
    sections = [text(content(headers[names]), h[0]) for h in headers]
    return Elf(MACHINES.get(machine, f"machine {machine}"), [s[7] for s in segments if s[0] == LOAD], sections, needed, sorted(exported))
