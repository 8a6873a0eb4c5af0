"""python worker.py: runs pytest in a forked child for each JSON line of arguments, with the libraries that most tests import already read.

Answers with the child's process id, which is its session's, and then with its exit status. The two packages are read anew in each child.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys

import pytest

LIBRARIES = ("numpy", "gguf", "sentencepiece", "tokenizers", "safetensors", "torch", "jinja2", "tqdm", "unittest.mock")


def child(arguments: list[str]) -> None:
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    status = 3  # pytest's own for an internal error
    try:
        status = int(pytest.main(arguments))
    finally:
        os._exit(status)


def main() -> None:
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            child(json.loads(line))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
