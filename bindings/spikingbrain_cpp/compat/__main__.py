"""python -m spikingbrain_cpp.compat PROGRAM.py [ARGUMENTS], or -m MODULE: runs it with this package as its llama_cpp."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from . import install

_USAGE = "usage: python -m spikingbrain_cpp.compat PROGRAM.py [ARGUMENTS] | -m MODULE [ARGUMENTS]"


def main(argv: list[str]) -> None:
    """Runs a program as `python` would, with this package in llama_cpp's place; exits as it does, 2: there is none."""
    if not argv or argv[0] in ("-h", "--help") or argv == ["-m"]:
        print(_USAGE, file=sys.stdout if argv and argv != ["-m"] else sys.stderr)
        raise SystemExit(0 if argv and argv != ["-m"] else 2)
    install()
    if argv[0] == "-m":
        sys.argv = argv[1:]
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
        return
    if not Path(argv[0]).is_file():
        raise SystemExit(f"compat: {argv[0]}: got no such file, expected a program in Python; check the path")
    sys.argv = argv
    sys.path[0] = str(Path(argv[0]).resolve().parent)
    runpy.run_path(argv[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
