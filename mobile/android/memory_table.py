"""The memory table of README.md: python mobile/android/memory_table.py [--write]. From headers alone: no weight is drawn or read."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import gguf

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from bench.measure.make_model import add_keys, add_tokenizer, write_header  # noqa: E402
from bench.shapes import SPIKING_1B, SPIKING_7B, SPIKING_76B, Shape, tensors  # noqa: E402
from sb_convert.whole import write_whole  # noqa: E402
from spikingbrain_cpp import MemoryEstimate, memory_estimate  # noqa: E402

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- memory table: begin -->", "<!-- memory table: end -->"
ROWS = [(shape, type_, spikes) for shape in (SPIKING_1B, SPIKING_7B, SPIKING_76B)
        for type_, spikes in (("q4_0", False), ("q4_0", True), ("q8_0", False), ("q8_0", True), ("int8", True))]


def write_model_header(path: Path, shape: Shape, type_: str, spikes: bool) -> Path:
    """A GGUF of this shape that ends after its header."""
    w = gguf.GGUFWriter(path, shape.arch)
    add_keys(w, shape, type_, spikes)
    add_tokenizer(w, shape.n_vocab)
    n = write_header(w, tensors(shape, type_))
    w.write_padding(w.fout[0], n)
    w.close()
    return path


def estimate(shape: Shape, type_: str, spikes: bool, n_ubatch: int) -> MemoryEstimate:
    """Of a file of this shape that ends after its header."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_model_header(Path(folder) / "header.gguf", shape, type_, spikes)
        return memory_estimate(path, n_batch=n_ubatch, n_ubatch=n_ubatch)


def table() -> str:
    lines = ["| model | matrices | spikes | weights | state | work, 512 | work, 128 | in all, 512 | in all, 128 |", "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for shape, type_, spikes in ROWS:
        large, small = (estimate(shape, type_, spikes, n) for n in (512, 128))
        work = [e.compute + e.output for e in (large, small)]
        cells = [large.model, large.state, *work, large.total, small.total]
        lines.append(f"| {shape.name} | {type_} | {'yes' if spikes else 'no'} | " + " | ".join(f"{n / 2**20:,.0f}" for n in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    made = table()
    if sys.argv[1:] != ["--write"]:
        print(made)
        return
    text = README.read_text(encoding="utf-8")
    write_whole(README, re.sub(f"{BEGIN}.*{END}", f"{BEGIN}\n{made}\n{END}", text, flags=re.DOTALL).encode())


if __name__ == "__main__":
    main()
