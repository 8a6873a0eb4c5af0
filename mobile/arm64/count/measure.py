"""Counts: the driver under qemu with the plugin, told what to do line by line; every command that is counted lies between two marks."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from bench.errors import BenchError

from .build import tool
from .cases import Case, Variant

Request = dict[str, Any]


def marks(program: Path, plugin: Path, stdin: str = "", env: dict[str, str] | None = None, cpu: str = "max") -> list[int]:
    """Instructions executed before each mark, and, last, before the end. Raises BenchError where the program fails."""
    done = subprocess.run([tool("qemu-aarch64"), "-cpu", cpu, "-plugin", str(plugin), str(program)], input=stdin, capture_output=True,
                          text=True, env={**os.environ, **(env or {})}, timeout=600)
    wrong = [line for line in done.stdout.splitlines() if '"error"' in line]
    if done.returncode or wrong:
        raise BenchError(f"count: {program.name}: got exit code {done.returncode} {' '.join(wrong)}, expected counts; {done.stderr[-500:]}")
    return [int(line.split()[1]) for line in done.stderr.splitlines() if line.startswith("insns ")]


def between(counts: list[int]) -> list[int]:
    """Of each marked command."""
    return [b - a for a, b in zip(counts[0:-1:2], counts[1:-1:2])]


def requests(case: Case, variant: Variant, model: Path | None) -> tuple[list[Request], int, int]:
    """Commands, the last two counted, n and m times the same work; and what of their difference is one call or token: (.., m - n)."""
    if case.kind in ("decode", "prefill"):
        start = [{"cmd": "load", "path": str(model)}, {"cmd": "context", "n_ctx": 512, "n_threads": 1, "n_batch": 64}]
        if case.kind == "decode":  # after a prompt of 64
            return [*start, {"cmd": "prefill", "n": 64}, {"cmd": "decode", "n": 1}, {"cmd": "decode", "n": 2}, {"cmd": "decode", "n": 6}], 2, 6
        return [*start, {"cmd": "prefill", "n": 64}, {"cmd": "prefill", "n": 64}, {"cmd": "prefill", "n": 128}], 64, 128
    build = {"cmd": "op_build", "n_threads": 1, **case.request}
    if case.kind == "product":
        build |= {"activations": "float" if variant.upstream else "spikes"}
    if variant.upstream:
        build |= {"weights_in": variant.weights_in, "type": {"i8": "q8_0"}.get(case.request["type"], case.request["type"])}
    return [build, *({"cmd": "op_time", "repeat": n} for n in (1, 1, 3))], 1, 3


def count(case: Case, variant: Variant, driver: Path, plugin: Path, model: Path | None = None) -> float:
    """Instructions of one call (product, operator) or of one token (decode, prefill), on one thread."""
    commands, n, m = requests(case, variant, model)
    for command in commands[-2:]:
        command["mark"] = True
    stdin = "".join(json.dumps(c) + "\n" for c in [*commands, {"cmd": "quit"}])
    small, large = between(marks(driver, plugin, stdin, {"SPIKINGBRAIN_ISA": variant.isa}, variant.cpu))
    return (large - small) / (m - n)
