"""Models for the tests of the binding, each converted once per run."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from conftest import TINY, shared, tiny_tensors, write_bpe, write_weights

from sb_convert.cli import main as sb_convert
from sb_convert.constants import ARCH

N_GOLDEN = 96  # tokens of golden.npz
ONE = {"n_threads": 1, "n_threads_batch": 1}  # of so small a model two would only wait for one another


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


def write_adapter(path, base, rank: int = 4, alpha: float = 8.0, seed: int = 5, invocation: "list[int] | None" = None) -> dict[str, np.ndarray]:
    """A random adapter of every projection; returns what it adds to each weight. invocation: of an aLoRA, its tokens."""
    rng, added = np.random.default_rng(seed), {}
    writer = gguf.GGUFWriter(path, ARCH)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    if invocation:
        writer.add_key_value("adapter.alora.invocation_tokens", invocation, gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.UINT32)
    for t in gguf.GGUFReader(base).tensors:
        if any(part in t.name for part in ("attn_q.w", "attn_k.w", "attn_output.w", "ffn_gate.w", "ffn_down.w")):
            a = rng.standard_normal((rank, t.data.shape[1]), np.float32) * 0.1
            b = rng.standard_normal((t.data.shape[0], rank), np.float32) * 0.1
            writer.add_tensor(t.name + ".lora_a", a)
            writer.add_tensor(t.name + ".lora_b", b)
            added[t.name] = b @ a * alpha / rank
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return added
