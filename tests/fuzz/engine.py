"""Runs a target: hypothesis invents inputs, a child process tries them, the parent sees a crash or a hang and which input it was.

A target is a function target(folder) -> (strategy, check, describe): check(value) raises where the product broke its promise; it
may return "taken" or "refused", which are counted. The child notes the input before each check, so that what a crash leaves is its input.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

Target = Callable[[Path], "tuple[st.SearchStrategy[Any], Callable[[Any], str]]"]

SECONDS_EACH = 20        # one input may take
GROWTH = 256 << 20       # bytes that one input may add to the child's peak of resident memory
ROUND = 500              # inputs per hypothesis run


class Broken(AssertionError):
    """A promise that an input broke."""


@contextlib.contextmanager
def within_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    if grown > GROWTH:
        raise Broken(f"memory: got {grown >> 20} MiB more for one input, expected at most {GROWTH >> 20}")


def child(target: Target, first_seed: int, seconds: float, inputs: int, folder: Path) -> None:
    """Tries inputs until the time or their number is spent; prints one JSON line of counts."""
    strategy, check = target(folder)
    note, counts, begun = folder / "current", Counter(), time.monotonic()

    def one(value: Any) -> None:
        note.write_bytes(pickle.dumps((time.time(), value)))
        with within_memory():
            counts[check(value)] += 1

    round_ = 0
    while (done := sum(counts.values())) < inputs and time.monotonic() - begun < seconds:
        rounds = settings(max_examples=min(ROUND, inputs - done), deadline=None, database=None, print_blob=True, suppress_health_check=list(HealthCheck),
                          phases=[Phase.generate, Phase.shrink])
        seed(first_seed + round_)(rounds(given(strategy)(one)))()
        round_ += 1
    note.unlink(missing_ok=True)
    print(json.dumps({"inputs": sum(counts.values()), "seconds": round(time.monotonic() - begun, 1), **counts}), flush=True)


def run(name: str, first_seed: int, seconds: float, inputs: int, kept: Path) -> dict[str, Any]:
    """The counts of one target, or {"failed": why}; an input that ended or held the child is kept in `kept`."""
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as temp:
        folder = Path(temp)
        command = [sys.executable, "-m", "fuzz", "--child", name, "--seed", str(first_seed), "--seconds", str(seconds), "--inputs", str(inputs), "--folder", temp]
        log = folder / "log"
        with log.open("w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=Path(__file__).resolve().parent.parent, env={**os.environ, "PYTHONHASHSEED": "0"})
            why = wait(process, folder / "current")
        text = log.read_text(errors="replace")
        if why is None and process.returncode == 0:
            return json.loads(text.splitlines()[-1])
        note = folder / "current"
        if note.is_file():
            kept.mkdir(parents=True, exist_ok=True)
            (kept / f"{name}-{first_seed}.pickle").write_bytes(note.read_bytes())
        return {"failed": why or f"exit status {process.returncode}", "log": text[-4000:]}


def wait(process: subprocess.Popen, note: Path) -> str | None:
    """Why it had to be ended, None where it ended by itself."""
    while process.poll() is None:
        time.sleep(0.2)
        try:
            begun, _ = pickle.loads(note.read_bytes())
        except (OSError, EOFError, pickle.UnpicklingError, ValueError):
            continue
        if time.time() - begun > SECONDS_EACH:
            process.kill()
            process.wait()
            return f"no end within {SECONDS_EACH} s"
    return None
