"""python -m spikingbrain_cpp: the first commands to type, and what else the package has."""

from __future__ import annotations

import argparse
from typing import Optional, Sequence

from sb_convert.version import NAME, add_version, version

from . import Llama, _core
from .pipes import ends_with_the_reader
from .tools import COMMANDS

FIRST = """\
A checkpoint folder (or ORG/NAME on the Hugging Face hub) becomes a model file, and you talk to it:

  sb-convert CHECKPOINT -o model.gguf --outtype q4_0
  sb-cli -m model.gguf
"""


def overview() -> str:
    """Everything that can be typed, the first commands first."""
    commands = "\n".join(f"  {name:<17} {what}" for name, what in COMMANDS.items())
    return f"""\
{NAME} {version()}: SpikingBrain models on a CPU

{FIRST}
In Python:

  from spikingbrain_cpp import {Llama.__name__}
  print({Llama.__name__}("model.gguf")("The default value is", max_tokens=32)["choices"][0]["text"])

All commands (each has --help and --version):
{commands}
  python -m spikingbrain_cpp.demo MODEL.gguf    text, speed and state of a model

CPU features in use: {_core.system_info()}"""


def main(argv: Optional[Sequence[str]] = None) -> None:
    """What `python -m spikingbrain_cpp` prints; --help and --version are all that it takes."""
    p = argparse.ArgumentParser(prog="python -m spikingbrain_cpp", description=FIRST, epilog="Without arguments: all commands.",
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    add_version(p)
    p.parse_args(argv)
    print(overview())


if __name__ == "__main__":
    with ends_with_the_reader():
        main()
