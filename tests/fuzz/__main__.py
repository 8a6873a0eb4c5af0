"""python -m fuzz (in tests/) [TARGET ...] [--seconds S] [--inputs N] [--seed K]: figures per target, exit status 1 after a broken promise.

`make fuzz` runs all of them for FUZZ_SECONDS each with a seed of the clock; a pickle of the input that ended a target lies in build/fuzz.
--again FILE tries such an input once more, in this process.
"""

from __future__ import annotations

import argparse
import pickle
import sys
import tempfile
import time
from pathlib import Path

from . import targets
from .engine import child, run

KEPT = Path(__file__).resolve().parent.parent.parent / "build" / "fuzz"


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz")
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(targets.ALL)}; all of them where none is named")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--inputs", type=int, default=10**9)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--child")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--again", type=Path)
    a = parser.parse_args()
    if unknown := set(a.targets) - set(targets.ALL):
        parser.error(f"targets: got {sorted(unknown)}, expected of {', '.join(targets.ALL)}")
    if a.child:
        child(targets.ALL[a.child], a.seed, a.seconds, a.inputs, a.folder)
        return 0
    if a.again:
        with tempfile.TemporaryDirectory() as folder:
            print(targets.ALL[a.again.name.split("-")[0]](Path(folder))[1](pickle.loads(a.again.read_bytes())[1]))
        return 0
    first = int(time.time()) if a.seed is None else a.seed
    failed = False
    for name in a.targets or targets.ALL:
        found = run(name, first, a.seconds, a.inputs, KEPT)
        failed |= "failed" in found
        print(f"{name}, seed {first}: " + ", ".join(f"{value} {key}" for key, value in found.items() if key != "log") + found.get("log", ""), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
