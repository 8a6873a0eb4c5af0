"""Console scripts sb-*: become the tool of the same name that ships in spikingbrain_cpp/lib.

The tools are upstream's. What differs is passed as environment defaults, which an option on the command line or a
variable set by the user overrides:

- LLAMA_ARG_FIT=off: nothing to fit, memory does not depend on the context size; upstream's fitting would multiply
  the unbounded size by the number of slots (overflow with --no-kv-unified);
- LLAMA_ARG_CTX_CHECKPOINTS=4 (upstream 32): each checkpoint of a slot is a whole window (115 MiB for the 7B);
- LLAMA_ARG_CACHE_RAM=2048 (upstream 8192), MiB: the prompt cache holds whole windows, too;
- LLAMA_ARG_BATCH=512 (upstream 2048): between two batches a server cancels what nobody waits for and serves the other
  slots; 512 is one micro-batch, so larger batches gain nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from . import refusals

LIB = Path(__file__).resolve().parent / "lib"

FIT = {"LLAMA_ARG_FIT": ("off", ("-fit", "--fit"))}
CACHES = {
    "LLAMA_ARG_CTX_CHECKPOINTS": ("4", ("-ctxcp", "--ctx-checkpoints", "--swa-checkpoints")),
    "LLAMA_ARG_CACHE_RAM": ("2048", ("-cram", "--cache-ram")),
}
BATCH = {"LLAMA_ARG_BATCH": ("512", ("-b", "--batch-size", "-ub", "--ubatch-size", "LLAMA_ARG_UBATCH"))}


def run(tool: str, defaults: Mapping[str, tuple[str, tuple[str, ...]]] | None = None) -> NoReturn:
    """Exec lib/`tool` with this process's arguments; `defaults`: variable -> (value, options and variables that replace it)."""
    path = LIB / tool
    if not path.is_file():
        sys.exit(f"{tool}: {path}: got no such file, expected the tool shipped in the package; do reinstall spikingbrain-cpp")
    for name, (value, options) in (defaults or {}).items():
        if not set(options) & {*sys.argv[1:], *os.environ}:
            os.environ.setdefault(name, value)
    os.execv(path, sys.argv)


def cli() -> NoReturn:
    run("llama-cli", FIT | CACHES | BATCH)


def completion() -> NoReturn:
    run("llama-completion", FIT)


def server() -> NoReturn:
    run("llama-server", FIT | CACHES | BATCH)


def refuse(reason: str | None) -> None:
    if reason:
        sys.exit(reason)


def quantize() -> NoReturn:
    refuse(refusals.quantize(sys.argv[1:]))
    run("llama-quantize")


def perplexity() -> NoReturn:
    run("llama-perplexity", FIT)


def bench() -> NoReturn:
    run("llama-bench")


def batched_bench() -> NoReturn:
    run("llama-batched-bench", FIT)


def imatrix() -> NoReturn:
    refuse(refusals.imatrix(sys.argv[1:]))
    run("llama-imatrix", FIT)


def gguf_split() -> NoReturn:
    run("llama-gguf-split")
