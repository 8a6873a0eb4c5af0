"""python -m spikingbrain_cpp: what the package has."""

from __future__ import annotations

import importlib.metadata

from . import Llama, _core
from .pipes import ends_with_the_reader
from .tools import COMMANDS


def main() -> None:
    print(f"spikingbrain-cpp {importlib.metadata.version('spikingbrain-cpp')}: SpikingBrain models on a CPU")
    print(f"\nCPU features in use: {_core.system_info()}")
    print("\nCommands (each has --help):")
    for name, what in COMMANDS.items():
        print(f"  {name:<17} {what}")
    print(f"  {'python -m spikingbrain_cpp.demo MODEL.gguf':<17}: text, speed, state")
    print(f"\nIn Python:\n  from spikingbrain_cpp import {Llama.__name__}\n  help({Llama.__name__})")


if __name__ == "__main__":
    with ends_with_the_reader():
        main()
