"""Console scripts sb-*: become the tool of the same name that ships in spikingbrain_cpp/lib.

The tools are upstream's. What differs is passed as environment defaults, which an option on the command line or a
variable set by the user overrides:

- LLAMA_ARG_FIT=off: nothing to fit, memory does not depend on the context size; upstream's fitting would multiply
  the unbounded size by the number of slots (overflow with --no-kv-unified);
- LLAMA_ARG_CACHE_IDLE_SLOTS=off (upstream on): each request would move all idle slots to that cache, to free room that
  slots of constant size do not share, and a slot asked for by its number would read its prompt again;
- LLAMA_ARG_BATCH=512 (upstream 2048): between two batches a server cancels what nobody waits for and serves the other
  slots, and a bar moves; 512 is one micro-batch, so larger batches gain nothing;
- LLAMA_ARG_REPACK=off for sb-imatrix: importance is gathered from float inputs, interleaved weights multiply integers;
- LLAMA_ARG_THREADS (where the tool reads no variable: -t) if this process may not use the whole machine (a container, `taskset`,
  a batch system): upstream counts the cores of the machine.

SPIKINGBRAIN_CHECKPOINT_RAM (MiB, read by the fork's server; 512 if unset) bounds what the checkpoints of one slot hold:
each is up to a whole window (115 MiB for the 7B), and upstream bounds their number only.

Two defaults are the fork's own, since they need the loaded model: where a request ends that names no limit, and how much
the prompt cache holds (overlay/tools/server/server-limits.h).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NoReturn

from sb_convert import system
from sb_convert.version import version_line

from . import refusals, remote
from .pipes import ends_with_the_reader

Defaults = dict[str, tuple[str, tuple[str, ...]]]

LIB = Path(__file__).resolve().parent / "lib"
_exec: Callable[[Path, Sequence[str]], NoReturn] = system.become

FIT: Defaults = {"LLAMA_ARG_FIT": ("off", ("-fit", "--fit"))}
IDLE: Defaults = {"LLAMA_ARG_CACHE_IDLE_SLOTS": ("off", ("--cache-idle-slots", "--no-cache-idle-slots", "LLAMA_ARG_NO_CACHE_IDLE_SLOTS"))}
BATCH: Defaults = {"LLAMA_ARG_BATCH": ("512", ("-b", "--batch-size", "-ub", "--ubatch-size", "LLAMA_ARG_UBATCH"))}
REPACK: Defaults = {"LLAMA_ARG_REPACK": ("off", ("-nr", "--repack", "--no-repack", "LLAMA_ARG_NO_REPACK"))}
THREADS = ("-t", "--threads")
CHECKPOINTS = """\
One more environment variable:
  SPIKINGBRAIN_CHECKPOINT_RAM=512: MiB that the checkpoints of one slot may take; beyond that the oldest are dropped, never the newest
"""
LIMIT = """\
How long an answer may be without -n (or a limit in the request): until prompt and answer together have max(trained length, 32768) tokens,
but at least 4096 new ones; with -c N, until they have N. -n -1 is the same as no -n. To write without end: -c 1073741824.
"""
CACHE = """\
--cache-ram -2, the default: room for 8 slot states or a tenth of the memory available, whichever is less, but at least one state.
"""

# command -> what it does; the one list of them
COMMANDS = {
    "sb-convert": "a checkpoint folder (or a GGUF file, to make it spiking) to GGUF",
    "sb-init": "a Transformer's checkpoint (Llama, Qwen2, Qwen3) to a SpikingBrain's, to be trained on",
    "sb-train": "go on training a checkpoint on text, or distil a teacher into it",
    "sb-cli": "chat in a terminal",
    "sb-server": "serve OpenAI's endpoints over HTTP",
    "sb-completion": "continue one prompt and exit",
    "sb-quantize": "a GGUF file to a smaller type",
    "sb-perplexity": "measure the quality of a model on a text",
    "sb-bench": "measure tokens per second",
    "sb-batched-bench": "measure tokens per second of several sequences together",
    "sb-imatrix": "measure which weights matter on a text, for sb-quantize",
    "sb-gguf-split": "split a GGUF file, or join its parts",
    "sb-rpc-server": "compute layers of a model that another machine loads (--rpc, rpc_servers)",
    "sb-eval": "run the tasks of lm-evaluation-harness on a model",
    "sb-spikes": "count, draw and report a model's spikes on a text",
}


def help_text(command: str, defaults: Defaults, note: str = "") -> str:
    """What stands above the tool's own --help."""
    lines = [f"{command}: {COMMANDS[command]}. Below is the help of llama.cpp's tool, which this command runs."]
    if defaults:
        lines.append("Defaults that differ here, by environment variable (an option or a variable of yours wins):")
        lines += [f"  {name}={value:<6} ({', '.join(o for o in options if o.startswith('-'))})" for name, (value, options) in defaults.items()]
    return "\n".join([*lines, note])


def run(tool: str, defaults: Defaults | None = None, note: str = "") -> NoReturn:
    """Exec lib/`tool` with this process's arguments; `defaults`: variable -> (value, options and variables that replace it); `note`: for --help."""
    path = tool_path(tool)
    if note_of_layers := remote.without_effect(tool.replace("llama-", "sb-"), sys.argv[1:], os.environ):
        print(note_of_layers, file=sys.stderr, flush=True)
    for name, (value, options) in (defaults or {}).items():
        if not set(options) & {*sys.argv[1:], *os.environ}:
            os.environ.setdefault(name, value)
    with ends_with_the_reader():
        become(path, defaults or {}, note)


def thread_defaults() -> Defaults:
    """None where the tool itself counts right."""
    n = system.threads_if_limited()
    return {} if n is None else {"LLAMA_ARG_THREADS": (str(n), THREADS)}


def with_threads(argv: Sequence[str]) -> list[str]:
    """The arguments of a tool that has the option only. It stands first: a last option may lack its value."""
    n = system.threads_if_limited()
    return [*argv] if n is None or {*THREADS, "-h", "--help", "--version"} & {*argv[1:]} else [argv[0], "-t", str(n), *argv[1:]]


def tool_path(tool: str) -> Path:
    """Where a tool of llama.cpp lies. Exits with a sentence where it is not."""
    path: Path = system.program(LIB / tool)
    if not path.is_file():
        sys.exit(f"{tool.replace('llama-', 'sb-')}: {path}: got no such file, expected the tool shipped in the package; do make build (make demo builds no tools), or reinstall spikingbrain-cpp")
    return path


def become(path: Path, defaults: Defaults, note: str) -> NoReturn:
    """Replaces this process by the tool; of --help prints ours before the tool's own."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        command = path.name.removesuffix(".exe").replace("llama-", "sb-")
        print(help_text(command, defaults, note), flush=True)
        own = subprocess.run([command, "--help"], executable=path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, restore_signals=False).stdout
        print(renamed(own.decode(errors="replace")), end="", flush=True)
        sys.exit(0)  # some of the tools end with 1 here
    _exec(path, sys.argv)


def renamed(text: str) -> str:
    """A tool's text with the names that its commands have here."""
    names = "|".join(command.removeprefix("sb-") for command in TOOLS)
    return re.sub(rf"(?:\./|\S*/lib/)?\bllama-({names})\b", r"sb-\1", text)


@dataclass(frozen=True)
class Tool:
    """defaults: see run(); note: for --help; refused: reasons why the arguments must not reach the tool, or None of each;
    versioned: it has a --version of its own; threads: by what it is told their number, "variable", "option" or nothing."""

    defaults: Defaults = field(default_factory=dict)
    note: str = ""
    refused: tuple[Callable[[Sequence[str]], str | None], ...] = ()
    versioned: bool = True
    threads: str = ""


def _common(command: str) -> tuple[Callable[[Sequence[str]], str | None], ...]:
    return partial(refusals.numbers, command), partial(refusals.grammar, command)


CHAT = LIMIT + CACHE + CHECKPOINTS
TOOLS = {
    "sb-cli": Tool(FIT | BATCH, CHAT, (lambda _: refusals.checkpoint_ram("sb-cli"), *_common("sb-cli")), threads="variable"),
    "sb-server": Tool(FIT | IDLE | BATCH, CHAT, (lambda _: refusals.checkpoint_ram("sb-server"), *_common("sb-server")), threads="variable"),
    "sb-completion": Tool(FIT | BATCH, LIMIT, (*_common("sb-completion"), refusals.self_extend), threads="variable"),
    "sb-quantize": Tool(refused=(refusals.quantize, refusals.quantize_output), versioned=False),
    "sb-perplexity": Tool(FIT, refused=(partial(refusals.numbers, "sb-perplexity"), refusals.perplexity), threads="variable"),
    "sb-bench": Tool(refused=(partial(refusals.numbers, "sb-bench"),), threads="option"),
    "sb-batched-bench": Tool(FIT, refused=(partial(refusals.numbers, "sb-batched-bench"), refusals.context), threads="variable"),
    "sb-imatrix": Tool(FIT | REPACK, refused=(partial(refusals.numbers, "sb-imatrix"), refusals.imatrix), threads="variable"),
    "sb-gguf-split": Tool(refused=(refusals.merge_output,)),
}


def start(command: str) -> NoReturn:
    """Become the command's tool, or say why not."""
    tool, argv = TOOLS[command], sys.argv[1:]
    tell_version(command, tool.versioned)
    for refused in tool.refused:
        if reason := refused(argv):
            sys.exit(reason)
    if tool.threads == "option":
        sys.argv = with_threads(sys.argv)
    name = command.replace("sb-", "llama-")
    if command == "sb-gguf-split" and refusals.deletes_parts(argv):
        merge_and_delete(tool_path(name), argv)
    run(name, tool.defaults | (thread_defaults() if tool.threads == "variable" else {}), tool.note)


def tell_version(command: str, versioned: bool) -> None:
    """To --version alone: the package's, then what the tool itself says of llama.cpp."""
    if sys.argv[1:] == ["--version"]:
        with ends_with_the_reader():
            print(version_line(command), flush=True)
            sys.exit(subprocess.run([command, "--version"], executable=tool_path(command.replace("sb-", "llama-")), stderr=subprocess.STDOUT).returncode if versioned else 0)


def merge_and_delete(path: Path, argv: Sequence[str]) -> NoReturn:
    """The parts go when the merged file is in place; upstream deletes each as it is read."""
    with ends_with_the_reader():
        status = subprocess.run([path, *(a for a in argv if a != "--delete-splits")], restore_signals=False).returncode
        for part in refusals.parts(argv[-2]) if status == 0 else []:
            os.remove(part)
            print(f"deleted file {part}", file=sys.stderr)
    sys.exit(abs(status))


# the entry points of pyproject.toml
cli = partial(start, "sb-cli")
completion = partial(start, "sb-completion")
server = partial(start, "sb-server")
quantize = partial(start, "sb-quantize")
perplexity = partial(start, "sb-perplexity")
bench = partial(start, "sb-bench")
batched_bench = partial(start, "sb-batched-bench")
imatrix = partial(start, "sb-imatrix")
gguf_split = partial(start, "sb-gguf-split")


def rpc_server() -> NoReturn:
    """The entry point sb-rpc-server."""
    tell_version("sb-rpc-server", True)
    _exec(tool_path("llama-rpc-server"), with_threads(sys.argv))
