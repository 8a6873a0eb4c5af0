"""What upstream's tools cannot do with a spiking or INT8 model, and a wrong setting of ours, said before they start, with what to do instead."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from sb_convert.constants import ARCH
from sb_convert.whole import NotWritten, target

from . import _core
from .grammar import LlamaGrammar
from .spiking import ENABLE, Spiking

MOST_MIB = 1 << 30  # as server-checkpoints.h
MOST = 2**31 - 1
MOST_THREADS = 512  # GGML_MAX_N_THREADS
MOST_SEQUENCES = 256  # LLAMA_MAX_SEQ
FLAGS = ("--leave-output-tensor", "--dry-run", "--allow-requantize", "--pure", "--keep-split")  # llama-quantize's options without a value

Bounds = dict[tuple[str, ...], tuple[int, int]]
THREADS: Bounds = {("-t", "--threads", "LLAMA_ARG_THREADS"): (-1, MOST_THREADS), ("-tb", "--threads-batch"): (-1, MOST_THREADS)}
BATCH: Bounds = {("-b", "--batch-size", "LLAMA_ARG_BATCH"): (1, MOST), ("-ub", "--ubatch-size", "LLAMA_ARG_UBATCH"): (0, MOST)}
CONTEXT: Bounds = {("-c", "--ctx-size", "LLAMA_ARG_CTX_SIZE"): (0, MOST)}
SAMPLING: Bounds = {("--mirostat",): (0, 2)}
COMMON = {**THREADS, **BATCH, **CONTEXT}
# command -> options (and the variable) -> the integers, or lists of them, that do not end, crash or mislead upstream's tool
NUMBERS: dict[str, Bounds] = {
    "sb-cli": {**COMMON, **SAMPLING},
    "sb-server": {**COMMON, **SAMPLING, ("--port", "LLAMA_ARG_PORT"): (0, 65535), ("-np", "--parallel", "LLAMA_ARG_N_PARALLEL"): (-1, MOST_SEQUENCES)},
    "sb-completion": {**COMMON, **SAMPLING, ("-np", "--parallel", "LLAMA_ARG_N_PARALLEL"): (1, MOST_SEQUENCES), ("-gan", "--grp-attn-n", "LLAMA_ARG_GRP_ATTN_N"): (1, MOST)},
    "sb-perplexity": {**COMMON, ("--ppl-stride",): (0, MOST)},
    "sb-imatrix": COMMON,
    "sb-batched-bench": {**COMMON, ("-npp",): (1, MOST), ("-ntg",): (0, MOST), ("-npl",): (1, MOST_SEQUENCES)},
    "sb-bench": {("-t", "--threads"): (1, MOST_THREADS), ("-b", "--batch-size"): (1, MOST), ("-ub", "--ubatch-size"): (1, MOST), ("-r", "--repetitions"): (1, MOST),
                 ("-pg",): (0, MOST)},
}


def numbers(command: str, argv: Sequence[str]) -> Optional[str]:
    """Upstream checks few of its integers: a batch of 0 ends in an assertion, 5000 threads never, no repetition in a speed of 0."""
    for options, (low, high) in NUMBERS[command].items():
        text = _setting(argv, options)
        for given in re.split("[,+*]|(?<=[0-9])-", text or ""):  # llama-bench knows ranges: 1-8, 1-8+2
            if re.fullmatch("-?[0-9]{1,20}", given) and not low <= int(given) <= high:  # what is no number the tool refuses
                expected = f"{low} to {high}" if high < MOST or int(given) > high else f"at least {low}"
                return f"{command}: {options[0]}: got {text}, expected {expected}; change it"
    return None


def self_extend(argv: Sequence[str]) -> Optional[str]:
    """llama-completion asserts that the one divides the other."""
    n, width = _setting(argv, ("-gan", "--grp-attn-n", "LLAMA_ARG_GRP_ATTN_N")) or "1", _setting(argv, ("-gaw", "--grp-attn-w", "LLAMA_ARG_GRP_ATTN_W")) or "512"
    if not (n.isdigit() and width.isdigit()) or int(n) == 0 or int(width) % int(n) == 0:
        return None
    return f"sb-completion: -gaw: got {width}, expected a multiple of -gan {n}; change either"


def context(argv: Sequence[str]) -> Optional[str]:
    """llama-batched-bench warms up with 16 tokens and asserts that they fit; a row of its table that does not fit is left out."""
    text = _setting(argv, ("-c", "--ctx-size", "LLAMA_ARG_CTX_SIZE"))
    if text is None or not text.isdigit() or not 0 < int(text) < 16:
        return None
    return f"sb-batched-bench: -c: got {text}, expected 0 (no bound) or at least 16; change it"


def grammar(command: str, argv: Sequence[str]) -> Optional[str]:
    """A grammar that cannot be parsed ends llama-cli, -completion and -server in an uncaught exception."""
    text, path = _setting(argv, ("--grammar",)), _setting(argv, ("--grammar-file",))
    try:
        with contextlib.suppress(OSError):  # the tool says so itself
            LlamaGrammar(Path(path).read_text(encoding="utf-8") if path else text or 'root ::= ""')
    except ValueError as error:
        return f"{command}: --grammar{'-file' if path else ''}: {error}"
    return None


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
        if "--repack" in argv and model.metadata().get("general.architecture") == ARCH:
            return "sb-imatrix: --repack: got it for a SpikingBrain model, expected none: interleaved weights multiply integers, importance is gathered from float inputs"
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
    if not _merges(argv):
        return None
    try:
        target(argv[-1], parts(argv[-2]))
    except NotWritten as error:
        return f"sb-gguf-split: {error}"
    return None


def _merges(argv: Sequence[str]) -> bool:
    return "--merge" in argv and len(argv) >= 3 and not {"-h", "--help", "--version"} & {*argv}


def deletes_parts(argv: Sequence[str]) -> bool:
    """Whether llama-gguf-split would merge, and delete what it merged."""
    return _merges(argv) and "--delete-splits" in argv and "--dry-run" not in argv


def parts(path: str) -> list[str]:
    """The files of a model by the name of its first, as llama.cpp names them."""
    found = re.fullmatch(r"(.*)-00001-of-(\d{5})\.gguf", path, re.DOTALL)
    return [path] if found is None else [f"{found[1]}-{i:05d}-of-{found[2]}.gguf" for i in range(1, int(found[2]) + 1)]


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


def _setting(argv: Sequence[str], names: Sequence[str]) -> Optional[str]:
    """Of an option, or of its variable, the name in capitals."""
    normal = [arg.replace("_", "-") if arg.startswith("--") else arg for arg in argv]
    found = _value(normal, names)
    return next((os.environ[name] for name in names if name in os.environ), None) if found is None else found
