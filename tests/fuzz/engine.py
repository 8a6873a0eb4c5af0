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
import signal
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
LOOK = 0.2               # seconds between two looks at it
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
    note, counts, begun = (folder / "current").open("w+b", buffering=0), Counter(), time.monotonic()

    def one(value: Any) -> None:
        note.seek(0)  # what is longer stays behind: a pickle knows its end, and a file that is cut costs milliseconds
        note.write(pickle.dumps((sum(counts.values()), value)))
        with within_memory():
            counts[check(value)] += 1

    round_ = 0
    while (done := sum(counts.values())) < inputs and time.monotonic() - begun < seconds:
        rounds = settings(max_examples=min(ROUND, inputs - done), deadline=None, database=None, print_blob=True, suppress_health_check=list(HealthCheck),
                          phases=[Phase.generate, Phase.shrink])
        seed(first_seed + round_)(rounds(given(strategy)(one)))()
        round_ += 1
    (folder / "current").unlink(missing_ok=True)
    print(json.dumps({"inputs": sum(counts.values()), "seconds": round(time.monotonic() - begun, 1), **counts}), flush=True)


def run(name: str, first_seed: int, seconds: float, inputs: int, kept: Path) -> dict[str, Any]:
    """The counts of one target, or {"failed": why}; an input that ended or held the child is kept in `kept`."""
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as temp:
        folder = Path(temp)
        note, log = folder / "current", folder / "log"
        why, status = start(log, note, "--child", name, "--seed", str(first_seed), "--seconds", str(seconds), "--inputs", str(inputs), "--folder", temp)
        text = log.read_text(errors="replace")
        if why is None and status == 0:
            return json.loads(text.splitlines()[-1])
        if not note.is_file():
            return {"failed": why or f"exit status {status}", "log": text[-4000:]}
        kept.mkdir(parents=True, exist_ok=True)
        file = kept / f"{name}-{first_seed}.pickle"
        file.write_bytes(note.read_bytes())
        if why and start(log, note, "--again", str(file)) == (None, 0):  # other programs held it, not the input
            file.unlink()
            done = pickle.loads(note.read_bytes())[0]
            return {"inputs": done, "seconds": seconds, "late": 1}
        return {"failed": why or f"exit status {status}", "log": text[-4000:]}


def start(log: Path, note: Path, *arguments: str) -> tuple[str | None, int]:
    """(why it had to be ended, exit status) of python -m fuzz."""
    with log.open("w") as out:
        process = subprocess.Popen([sys.executable, "-m", "fuzz", *arguments], stdout=out, stderr=subprocess.STDOUT, cwd=Path(__file__).resolve().parent.parent,
                                   env={**os.environ, "PYTHONHASHSEED": "0"}, start_new_session=True)
        try:
            return wait(process, note, SECONDS_EACH * (6 if "--again" in arguments else 1)), process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # a server of its, too
            process.wait()


def wait(process: subprocess.Popen, note: Path, limit: float) -> str | None:
    """Why it had to be ended, None where it ended by itself. Looks are counted, not the clock: a machine that sleeps holds no input."""
    last, looks = b"", 0
    while process.poll() is None:
        time.sleep(LOOK)
        with contextlib.suppress(OSError):
            now = note.read_bytes()
            last, looks = now, looks + 1 if now and now == last else 0
        if looks * LOOK > limit:
            process.kill()
            process.wait()
            return f"no end within {limit:g} s"
    return None
