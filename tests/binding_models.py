"""Models for the tests of the binding, each converted once per run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, shared, tiny_tensors, write_bpe, write_weights

from sb_convert.cli import main as sb_convert

N_GOLDEN = 96  # tokens of golden.npz
ONE = {"n_threads": 1, "n_threads_batch": 1}  # ggml's barriers spin: on a busy machine two threads take far longer


def convert(checkpoint: Path, out: Path, *options: str) -> Path:
    assert sb_convert([str(checkpoint), "-o", str(out), *options]) == 0
    return out


def make_tiny(folder: Path, outtype: str = "f32", seed: int = 0, gate_rank: int = 16, **config) -> Path:
    """A random model of conftest's TINY shape, but for `config`, as GGUF."""
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir(parents=True)
    c = {**TINY, **config}
    (checkpoint / "config.json").write_text(json.dumps(c))
    write_weights(checkpoint, tiny_tensors(c, gate_rank, seed), "safetensors", "BF16", 1)
    write_bpe(checkpoint)
    return convert(checkpoint, folder / f"tiny-{outtype}.gguf", "--outtype", outtype)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """Two layers, window 8, 288 tokens."""
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def golden(tmp_path_factory) -> Path:
    return convert(shared("golden-float"), tmp_path_factory.mktemp("golden") / "golden.gguf", "--outtype", "f32")


@pytest.fixture(scope="session")
def expected() -> tuple[np.ndarray, np.ndarray]:
    """tokens int32 [96], logits float32 [96, n_vocab]."""
    npz = np.load(shared("golden-float") / "golden.npz")
    return npz["tokens"].astype(np.int32), npz["logits"]


@pytest.fixture(scope="session")
def vocab_7b(tmp_path_factory) -> Path:
    return convert(shared("SpikingBrain-7B-W8ASpike"), tmp_path_factory.mktemp("vocab") / "vocab.gguf", "--vocab-only")


def tokens_of(n: int, n_vocab: int = 260, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, n_vocab, n, dtype=np.int32)


def logits_of(path: Path, tokens: np.ndarray, **options) -> np.ndarray:
    """float32 [n, n_vocab], from a fresh model in one call."""
    from spikingbrain_cpp import Llama
    with Llama(path, logits_all=True, **{**ONE, **options}) as llm:
        llm.eval(tokens)
        return llm.scores.copy()
