#!/usr/bin/env python3
"""progress.py LOG COMMAND...: run a build, its output to LOG, ninja's count of steps (n of m) to the terminal.

On a terminal one line that moves, elsewhere a line for each tenth. Ends with the command's exit status; a failure shows the log's end.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

STEP = re.compile(r"^\s*\[(\d+)/(\d+)\] (.*)")
N_TAIL = 40


class Progress:
    """What is shown of a build's steps on `out`."""

    def __init__(self, out) -> None:
        self.out, self.begun, self.tenth, self.moving = out, time.monotonic(), 0, out.isatty()

    def step(self, n: int, of: int, what: str) -> None:
        if self.moving:
            self.out.write(f"\r\033[K{n} of {of}, {self.seconds()}: {what[-50:]}")
        elif (tenth := 10 * n // of) > self.tenth:
            self.tenth = tenth
            self.out.write(f"{n} of {of}, {self.seconds()}\n")
        self.out.flush()

    def seconds(self) -> str:
        return f"{time.monotonic() - self.begun:.0f} s"

    def end(self) -> None:
        if self.moving:
            self.out.write("\r\033[K")
            self.out.flush()


def follow(lines: Iterable[str], log, progress: Progress) -> None:
    for line in lines:
        log.write(line)
        log.flush()
        if step := STEP.match(line):
            progress.step(int(step[1]), int(step[2]), step[3].rstrip())


def main() -> int:
    path, command = Path(sys.argv[1]), sys.argv[2:]
    progress = Progress(sys.stdout)
    with path.open("w", encoding="utf-8") as log, subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as build:
        follow(build.stdout, log, progress)
    progress.end()
    if build.returncode:
        print("".join(path.read_text(encoding="utf-8").splitlines(True)[-N_TAIL:]), end="")
        print(f"make: build: got a failure, expected none; do read {path}", file=sys.stderr)
    return build.returncode if build.returncode >= 0 else 128 - build.returncode


if __name__ == "__main__":
    sys.exit(main())
