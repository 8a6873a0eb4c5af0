"""A checkpoint folder to a GGUF: convert() is the table of contents."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .calibrate import calibrated, check_requirements
from .config import ModelConfig
from .errors import bad
from .formats import LARGEST, OUTTYPES, encode, rows_per_block
from .metadata import folder_name, read_metadata_file, read_sampling
from .output import Output, opened
from .plan import Plan, Planned, make_plan, n_threads
from .progress import Progress
from .sources import first_not_finite, open_checkpoint, refuse_adapter
from .spike import SpikeOptions
from .tokenizer import load_vocab
from .vocab_file import add_keys


@dataclass(frozen=True)
class Options:
    outfile: Path | None = None
    outtype: str = "auto"
    force: bool = False
    dry_run: bool = False
    split_max_bytes: int = 0
    metadata: Path | None = None
    model_name: str | None = None
    vocab_only: bool = False
    spike: SpikeOptions = SpikeOptions()
    n_layer: int | None = None  # the first layers only; used by --verify to find a wrong one


@dataclass(frozen=True)
class Result:
    files: list[Path]
    plan: Plan
    seconds: float
    options: Options

    def summary(self) -> str:
        """One line: file, type, size, bits per weight, seconds."""
        size = sum(f.stat().st_size for f in self.files)
        name = self.files[0].name if len(self.files) == 1 else f"{self.files[0].name} (and {len(self.files) - 1} more)"
        if not self.plan.tensors:
            return f"{name}: vocabulary only, {size / 1e6:.1f} MB, {self.seconds:.1f} s"
        kind = self.plan.outtype + (f", {self.plan.spike}" if self.plan.spike else "")
        return f"{name}: {kind}, {size / 1e6:.1f} MB, {8 * self.plan.nbytes / self.plan.n_params:.2f} bits per weight, {self.seconds:.1f} s"


def convert(folder: Path, options: Options, say=print) -> Result:
    """Converts a checkpoint folder; returns what was written (nothing under options.dry_run). ConvertError: what is wrong with the checkpoint,
    the options or the machine; then no file is left."""
    begun = time.monotonic()
    folder = Path(folder)
    if not folder.is_dir():
        raise bad(folder, "checkpoint", "no such folder", "one with config.json, weights and tokenizer", "check the name; ORG/NAME is looked up on the Hugging Face hub")
    refuse_adapter(folder)
    config = ModelConfig.load(folder)
    vocab = load_vocab(folder, config)
    override = read_metadata_file(options.metadata)
    read_sampling(folder)  # what is wrong with it is told before the tensors are read
    plan = plan_for(folder, config, options, say)
    inputs = [path for path in (folder, options.metadata, options.spike.calibrate) if path is not None]
    output = Output(outfile(folder, options, "vocab" if options.vocab_only else plan.outtype.upper()), options.force, options.split_max_bytes, inputs)
    for p in plan.tensors:
        output.add_tensor(p.target.gguf, p.target.shape, p.qtype, p.nbytes)
    for note in plan.notes():
        say(note)
    if options.dry_run:
        say(table(plan, output.finals))
        return Result([], plan, time.monotonic() - begun, options)
    output.check_free()
    file_type = OUTTYPES[plan.outtype].file_type
    add_keys(output.writer, folder, plan.config, vocab, file_type, override, options.model_name, plan.n_params, plan.spike, plan.experts)
    write_planned(output, plan.tensors, say)
    return Result(output.finals, plan, time.monotonic() - begun, options)


def write_planned(output: Output, tensors: list[Planned], say) -> None:
    """The whole file: its keys and tensors are known to output."""
    shards, total = [list(held) for held in output.writer.tensors], sum(p.nbytes for p in tensors)
    with opened(output, total), Progress(total, say) as progress, ThreadPoolExecutor(n_threads()) as pool:
        for p in tensors:
            shard = next(i for i, names in enumerate(shards) if p.target.gguf in names)
            progress.start(p.target.gguf)
            for n in output.write(shard, encoded(p, pool), p.nbytes):
                progress.add(n)


def plan_for(folder: Path, config: ModelConfig, options: Options, say) -> Plan:
    """The tensors to write, or none of a vocabulary alone."""
    if options.vocab_only:
        return Plan(config, "f32" if options.outtype == "auto" else options.outtype, [])
    if options.n_layer is not None:
        config = config.truncated(options.n_layer)
    calibrate = None
    if options.spike.calibrate is not None:
        check_requirements(options.spike.calibrate)

        def calibrate(*args):
            return calibrated(folder, options.spike.calibrate, *args, say)
    return make_plan(config, open_checkpoint(folder), options.outtype, folder, options.n_layer is not None, options.spike, say, calibrate)


def outfile(folder: Path, options: Options, kind: str) -> Path:
    """-o, or NAME-KIND.gguf in the folder that is converted (in -o, where that is a folder)."""
    path = options.outfile or folder
    if not path.is_dir():
        return path
    name = (options.model_name or folder_name(folder)).replace("/", "-")
    return path / f"{name}-{kind}.gguf"


def encoded(p: Planned, pool: ThreadPoolExecutor) -> Iterator[np.ndarray]:
    """The tensor's blocks, encoded by the pool a few ahead, in order."""
    step, rows = rows_per_block(p.source.shape), p.source.shape[0]
    ahead: deque = deque()
    for start in range(0, rows, step):
        ahead.append(pool.submit(encoded_block, p, start, min(start + step, rows)))
        if len(ahead) > n_threads():
            yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()


def encoded_block(p: Planned, start: int, stop: int) -> np.ndarray:
    """Rows start..stop of a tensor as its bytes are stored. ConvertError: a value that is not finite, or beyond its type."""
    rows = p.source.rows(start, stop)
    largest = float(np.abs(rows).max(initial=0.0))
    if not np.isfinite(largest):
        raise first_not_finite(p.source, rows_per_block(p.source.shape)) or AssertionError(p.source.name)
    if largest > LARGEST.get(p.qtype, np.inf):
        source, _ = p.source.member(start + int(np.abs(rows).reshape(len(rows), -1).max(1).argmax()))
        raise bad(source.file, source.name, f"a weight of {largest:g}", f"at most {LARGEST[p.qtype]:g} for {p.qtype.name}",
                  "choose --spike-down-type f32" if p.target.kind == "raw" else "choose --outtype bf16 or f32")
    return encode(rows, p.qtype)


def table(plan: Plan, files: list[Path]) -> str:
    """What --dry-run prints: every tensor with its shape in GGUF order, type and size."""
    lines = [f"{p.target.gguf:34} {'x'.join(map(str, reversed(p.target.shape))):>14} {p.qtype.name:5} {p.nbytes:>14,}" for p in plan.tensors]
    names = ", ".join(f.name for f in files)
    return "\n".join(lines + [f"{len(plan.tensors)} tensors, {plan.n_params:,} weights, {plan.nbytes:,} bytes of data -> {names}; nothing written"])
