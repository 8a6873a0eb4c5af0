"""Console scripts sb-*: replace this process by the tool of the same name that ships in spikingbrain_cpp/lib."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

LIB = Path(__file__).resolve().parent / "lib"


def run(tool: str, defaults: dict[str, str] | None = None) -> NoReturn:
    """Exec lib/`tool` with this process's arguments."""
    path = LIB / tool
    if not path.is_file():
        sys.exit(f"{tool}: {path}: got no such file, expected the tool shipped with the package; do reinstall spikingbrain-cpp")
    os.execv(path, [sys.argv[0], *sys.argv[1:]])


def cli() -> NoReturn:
    run("llama-cli")


def completion() -> NoReturn:
    run("llama-completion")


def server() -> NoReturn:
    run("llama-server")


def quantize() -> NoReturn:
    run("llama-quantize")


def perplexity() -> NoReturn:
    run("llama-perplexity")


def bench() -> NoReturn:
    run("llama-bench")


def batched_bench() -> NoReturn:
    run("llama-batched-bench")


def imatrix() -> NoReturn:
    run("llama-imatrix")


def gguf_split() -> NoReturn:
    run("llama-gguf-split")
