"""Files are the same bytes on both machines: what sb-convert writes, and a snapshot that travels."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import ROOT, SHARED, Machine, Models

TINY, SMALL = ROOT / "examples" / "tiny", ROOT / "examples" / "small"
TYPES = [("--outtype", "f32"), ("--outtype", "f16"), ("--outtype", "bf16"), ("--outtype", "q8_0"), ("--outtype", "q4_0"), ("--outtype", "int8", "--spike"),
         ("--outtype", "q8_0", "--spike"), ("--outtype", "q4_0", "--spike")]
CONVERTED = [(c, t) for c in (TINY, SMALL) for t in TYPES] + [(SHARED / "golden-w8aspike", ())] * (SHARED / "golden-w8aspike").is_dir()
PROMPT = "To install a package from a local folder, give its path. " * 6  # longer than the example's window
N = 24


def test_a_checkpoint_becomes_the_same_gguf(any_arm: Machine, models: Models, tmp_path: Path) -> None:
    there = [tmp_path / f"{i}.gguf" for i in range(len(CONVERTED))]
    codes = any_arm.jobs(tmp_path, *({"do": "convert", "words": [str(c), "-o", str(out), *o]} for out, (c, o) in zip(there, CONVERTED)))
    assert codes == [0] * len(CONVERTED)
    for out, (checkpoint, options) in zip(there, CONVERTED):
        assert out.read_bytes() == models(checkpoint, *options).read_bytes(), (checkpoint.name, options)


def test_a_spiking_gguf_from_a_gguf_is_the_same(any_arm: Machine, here: Machine, models: Models, tmp_path: Path) -> None:
    source = models(TINY, "--outtype", "q4_0")
    job = {"do": "convert", "words": [str(source), "--spike", "--spike-k", "2.5", "-o"]}
    made = []
    for machine in (here, any_arm):
        made.append(tmp_path / f"{machine.name}.gguf")
        assert machine.jobs(tmp_path, {**job, "words": [*job["words"], str(made[-1])]}) == [0]
    assert made[0].read_bytes() == made[1].read_bytes()


@pytest.mark.parametrize("options", [("--outtype", "f32"), ("--outtype", "q8_0"), ("--outtype", "q4_0", "--spike")], ids=" ".join)
def test_a_snapshot_travels_both_ways(any_arm: Machine, here: Machine, models: Models, tmp_path: Path, options: tuple[str, ...]) -> None:
    """Restored with 0 tokens evaluated and the same greedy tokens next as on the machine that wrote it; saved again, the same bytes."""
    model = models(SMALL, *options)
    for writer, reader in ((here, any_arm), (any_arm, here)):
        first, again = tmp_path / f"{writer.name}.snap", tmp_path / f"{writer.name}-again.snap"
        wrote = writer.jobs(tmp_path, {"do": "save", "model": model, "prompt": PROMPT, "snapshot": first, "n": N})[0]
        read = reader.jobs(tmp_path, {"do": "restore", "model": model, "snapshot": first, "again": again, "n": N})[0]
        assert read == {"n_evaluated": 0, "n_tokens": wrote["n_tokens"], "tokens": wrote["tokens"]}
        assert again.read_bytes() == first.read_bytes()
