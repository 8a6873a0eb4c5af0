"""Estimates of cycles: the inner loops of the kernels, as they lie in a driver, by llvm-mca's model of a processor. No cache misses, no other code."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from bench.checkout import RESULTS, commit, pin
from bench.errors import BenchError
from bench.report.tables import table
from bench.rows import Row, make_row

from .build import tool

# models that LLVM has, and what else has that design; those without I8MM
CPUS = {"cortex-a55": "Cortex-A55", "cortex-a510": "Cortex-A510", "neoverse-n1": "Neoverse N1 (A76)", "neoverse-n2": "Neoverse N2 (A710)", "neoverse-v1": "Neoverse V1 (X1)"}
WITHOUT_I8MM = ("cortex-a55", "neoverse-n1")
SVE_256 = ("neoverse-v1",)
WEIGHTS = {"q4_0": "4bit<false>", "q8_0": "q8_0", "i8": "i8"}  # by type: spk-weights.h's weights_...
# name: (function, instruction set); the functions are spk-kernels.h's
LOOPS = {f"{type_}, {name}": (rf"{isa}::{function}<.*weights_{weights}, false>", isa) for type_, weights in WEIGHTS.items() for name, isa, function in (
    ("one token", "dotprod", "tile_one"), ("16 tokens, dotprod", "dotprod", "batches_product"), ("16 tokens, i8mm", "i8mm", "batches_product"))}
SVE = "q4_0, one token, SVE of 256 bits (not shipped)"
ITERATIONS = 100
ROWS = RESULTS / "arm64-cycles.jsonl"
MACS = {"sdot": 16, "smmla": 32, "smlal": 8, "smlal2": 8, "smull": 8, "smull2": 8}  # multiplications of bytes by instruction
LINE = re.compile(r"^\s*([0-9a-f]+):\s+(\S+)\s*(.*?)(?:\s*//.*)?$")
TARGET = re.compile(r"\b([0-9a-f]+) <")
ADDRESS = re.compile(r"\b[0-9a-f]+ <.*>")


@dataclass(frozen=True)
class Loop:
    """Instructions of one turn; `macs` of it."""
    code: tuple[str, ...]
    macs: int


def mca() -> str:
    """llvm-mca, the newest there is: older ones have no models of newer processors."""
    found = [name for n in range(30, 16, -1) if shutil.which(name := f"llvm-mca-{n}")]
    if not found:
        raise BenchError("count: llvm-mca-19: got no such program, expected one of LLVM 17 or newer; do run `apt-get install llvm-19`")
    return found[0]


def functions(program: Path) -> dict[str, tuple[int, int]]:
    """{demangled name: (address, bytes)}"""
    said = subprocess.run([tool("aarch64-linux-gnu-nm"), "-SC", "--defined-only", str(program)], capture_output=True, text=True, check=True).stdout
    parts = (line.split(None, 3) for line in said.splitlines())
    return {p[3]: (int(p[0], 16), int(p[1], 16)) for p in parts if len(p) == 4 and p[2] in "tTw"}


def disassembled(program: Path, at: int, size: int) -> list[tuple[int, str, str]]:
    """(address, instruction, operands)"""
    said = subprocess.run([tool("aarch64-linux-gnu-objdump"), "-d", "--no-show-raw-insn", f"--start-address={at}", f"--stop-address={at + size}", str(program)],
                          capture_output=True, text=True, check=True).stdout
    return [(int(m[1], 16), m[2], m[3]) for m in map(LINE.match, said.splitlines()) if m]


def loops(code: list[tuple[int, str, str]]) -> Iterator[Loop]:
    """Innermost ones, without what lies between them and a jump around it."""
    place = {address: i for i, (address, _, _) in enumerate(code)}
    back = [(place[to], i) for i, (address, name, operands) in enumerate(code)
            if re.match(r"b\.|cb|tb", name) and (m := TARGET.search(operands)) and (to := int(m[1], 16)) <= address and to in place]
    for first, last in back:
        if any((a, b) != (first, last) and first <= a and b <= last for a, b in back):
            continue
        turn = code[first:last + 1]
        text = tuple(f"{name} {ADDRESS.sub('turn', operands)}" for _, name, operands in turn)
        yield Loop(text, sum(MACS.get(name, 0) for _, name, _ in turn))


def inner_loop(program: Path, wanted: str) -> Loop:
    """Of the function whose demangled name matches, the loop that multiplies most. Raises BenchError where there is none."""
    found = [loop for name, (at, size) in functions(program).items() if re.search(wanted, name) for loop in loops(disassembled(program, at, size))]
    best = max(found, key=lambda loop: loop.macs, default=Loop((), 0))
    if not best.macs:
        raise BenchError(f"count: {program.name}: got no loop of {wanted!r} that multiplies, expected one; do correct cycles.LOOPS")
    return best


def cycles(loop: Loop, cpu: str, sve: bool = False) -> float:
    """Of one turn. Raises BenchError where llvm-mca does not know an instruction or the processor."""
    text = "turn:\n" + "\n".join(loop.code) + "\n"
    done = subprocess.run([mca(), "-mtriple=aarch64", f"-mcpu={cpu}", f"-iterations={ITERATIONS}", f"-mattr=+dotprod,+i8mm{',+sve' * sve}"], input=text, capture_output=True, text=True)
    m = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    if not m or "error" in done.stderr:
        raise BenchError(f"count: llvm-mca: {cpu}: got {done.stderr.strip()[:300]}, expected an estimate")
    return int(m[1]) / ITERATIONS


def sve_loop() -> Loop:
    """What spk-one-neon.h does with two blocks of Q4_0, in vectors of 256 bits: written to be estimated."""
    code = [*(f"ld1rqb {{z{4 + i}.b}}, p0/z, [x1, #{16 * i}]" for i in range(4)), "add x1, x1, #64"]
    for block in range(2):
        a, b = 8 + 2 * block, 9 + 2 * block
        code += [f"ld1rw {{z{a}.s}}, p0/z, [x2, #{4 * block}]", f"mov z{b}.d, z{a}.d"]
        for i in range(8):  # 8 rows, two steps
            load, acc, x = 16 + i, a + i % 2, 4 + 2 * block + i // 4
            code += [f"ldr z{load}, [x0, #{8 * block + i}, mul vl]", f"and z28.d, z{load}.d, z0.d", f"lsr z{load}.b, z{load}.b, #4",
                     f"sdot z{acc}.s, z28.b, z{x}.b[{i // 2 % 2 * 2}]", f"sdot z{acc}.s, z{load}.b, z{x}.b[{i // 2 % 2 * 2 + 1}]"]
    code.append("addvl x0, x0, #16")
    for i in range(4):
        code += [f"ld1h {{z16.s}}, p0/z, [x0, #{i}, mul vl]", "fcvt z16.s, p0/m, z16.h", f"scvtf z{8 + i}.s, p0/m, z{8 + i}.s",
                 f"fmla z{12 + i % 2}.s, p0/m, z{8 + i}.s, z16.s"]
    return Loop((*code, "add x0, x0, #64", "add x2, x2, #8", "subs x3, x3, #1", "b.ne turn"), 1024)


def measured(program: Path) -> list[Row]:
    """A row for each loop and processor: cycles of a turn; `extra`: instructions and multiplications of it."""
    version = subprocess.run([mca(), "--version"], capture_output=True, text=True).stdout
    model = next(line.strip() for line in version.splitlines() if "LLVM version" in line)
    rows = []
    for name, loop, isa in [*((name, inner_loop(program, wanted), isa) for name, (wanted, isa) in LOOPS.items()), (SVE, sve_loop(), "sve")]:
        for cpu in CPUS:
            if (isa == "i8mm" and cpu in WITHOUT_I8MM) or (isa == "sve" and cpu not in SVE_256):
                continue
            rows.append(make_row(case=name, kind="loop", name=cpu, machine={"cpu": f"llvm-mca, {model}, -mcpu={cpu}", "arch": "aarch64", "cpus": 1}, cpu_features=[isa],
                                 pin=pin(), commit=commit(), build=hashlib.sha256("\n".join(loop.code).encode()).hexdigest()[:16], type=name.split(",")[0],
                                 spikes=True, threads=1, unit="cycles", values=[cycles(loop, cpu, isa == "sve")], fitted=True,
                                 date=datetime.now(timezone.utc).isoformat(timespec="seconds"), extra={"instructions": len(loop.code), "macs": loop.macs}))
    return rows


def shown(rows: list[Row]) -> str:
    """Instructions per multiplication in the loop alone, then multiplications per cycle."""
    body = []
    for name in dict.fromkeys(r["case"] for r in rows):
        its = {r["name"]: r for r in rows if r["case"] == name}
        extra = next(iter(its.values()))["extra"]
        body.append([name, f"{extra['instructions'] / extra['macs']:.3f}", *(f"{its[cpu]['extra']['macs'] / its[cpu]['median']:.1f}" if cpu in its else "-" for cpu in CPUS)])
    return table(["inner loop", "instructions", *CPUS.values()], body)
