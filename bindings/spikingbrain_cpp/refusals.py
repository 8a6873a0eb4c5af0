"""What upstream's tools cannot do with a spiking or INT8 model, and a wrong setting of ours, said before they start, with what to do instead."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from sb_convert.whole import NotWritten, target

from . import _core
from .spiking import ENABLE, Spiking

MOST_MIB = 1 << 30  # as server-checkpoints.h
FLAGS = ("--leave-output-tensor", "--dry-run", "--allow-requantize", "--pure", "--keep-split")  # llama-quantize's options without a value


def imatrix(argv: Sequence[str]) -> Optional[str]:
    """Importance is gathered from float inputs of matrix products; spiking projections have integer ones."""
    path = _value(argv, ("-m", "--model")) or os.environ.get("LLAMA_ARG_MODEL")
    if path is None or not Path(path).is_file():
        return None
    settings = [item for i, arg in enumerate(argv) if arg == "--override-kv" for item in " ".join(argv[i + 1:i + 2]).split(",")]
    overrides = {ENABLE: item == f"{ENABLE}=bool:true" for item in settings if item.startswith(f"{ENABLE}=bool:")}
    with contextlib.suppress(RuntimeError, ValueError):  # no model: the tool says so itself
        model = _core.Model(path, vocab_only=True)
        if Spiking.of(model.metadata(), overrides).enabled:
            return (f"sb-imatrix: {path}: got a model whose projections read integer spikes, expected float inputs; "
                    f"do add --override-kv {ENABLE}=bool:false")
    return None


def perplexity(argv: Sequence[str]) -> Optional[str]:
    """A file of tasks begins with their number, a u32, and a u32 per task; the tool allocates and reads whatever number it finds."""
    path = _value(argv, ("-f", "--file"))
    if "--multiple-choice" not in argv or path is None or not Path(path).is_file():
        return None
    with open(path, "rb") as file:
        n = int.from_bytes(file.read(4), "little")
    size = os.path.getsize(path)
    if size < 4 + 4 * max(n, 1):
        return f"sb-perplexity: {path}: got {size} bytes and {n} tasks, expected a file of tasks for --multiple-choice; do convert them"
    return None


def quantize(argv: Sequence[str]) -> Optional[str]:
    """INT8 weights keep their codes, scales and outliers in several tensors: upstream knows no way from them to a type."""
    for option in ("--include-weights", "--exclude-weights"):
        if option in argv and "--imatrix" not in argv:
            return f"sb-quantize: {option}: got it without --imatrix, expected the file whose weights it chooses; do add --imatrix"
    for option, path in zip(["", *argv], argv):
        if option not in ("--imatrix", "--tensor-type-file") and Path(path).is_file():  # the first is read, the second written
            with contextlib.suppress(RuntimeError):
                if "i8" in _core.gguf_tensor_types(path):
                    return (f"sb-quantize: {path}: got INT8 weights, expected floats or upstream's own types; "
                            "do sb-convert the checkpoint again with --outtype q4_0, q8_0, f16, bf16 or f32")
            break
    return None


def quantize_output(argv: Sequence[str]) -> Optional[str]:
    """llama-quantize compares its output with the model only; the files that options name are read, too."""
    read: list[str] = []
    at = 0
    while at < len(argv) and argv[at].startswith("--"):
        if argv[at] in ("--imatrix", "--tensor-type-file"):
            read += argv[at + 1:at + 2]
        at += 1 if argv[at] in FLAGS else 2
    if len(argv) - at < 3 or {"--dry-run", "--keep-split"} & {*argv[:at]}:  # no output of that name; what is written has the tool's own checks
        return None
    try:
        target(argv[at + 1], read)
    except NotWritten as error:
        return f"sb-quantize: {error}"
    return None


def merge_output(argv: Sequence[str]) -> Optional[str]:
    """llama-gguf-split opens what has the output's name, to see whether it is there: a pipe would never answer."""
    if "--merge" not in argv or len(argv) < 3 or {"-h", "--help", "--version"} & {*argv}:
        return None
    try:
        target(argv[-1], argv[-2:-1])
    except NotWritten as error:
        return f"sb-gguf-split: {error}"
    return None


def checkpoint_ram(command: str) -> Optional[str]:
    """The server reads the variable at the first checkpoint only; a wrong one is better refused before a model is loaded."""
    text = os.environ.get("SPIKINGBRAIN_CHECKPOINT_RAM")
    if text is None or (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_MIB):
        return None
    return (f"{command}: SPIKINGBRAIN_CHECKPOINT_RAM: got {text!r}, expected MiB per slot from 1 to {MOST_MIB}; "
            "do set such a number or unset it")


def _value(argv: Sequence[str], names: Sequence[str]) -> Optional[str]:
    """The last one counts, as upstream reads them."""
    found = None
    for name, value in zip(argv, argv[1:]):
        found = value if name in names else found
    return found
