"""GGUF files by shape: random blocks with sane scales, in seconds, without PyTorch. The same file for the same arguments.

A block is drawn once per type and input width and then repeated from changing places: its values do not matter to the time,
only that they are finite and that the output of a layer keeps its size.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from sb_convert.constants import DEFAULT_K
from sb_convert.metadata import add_hparams
from sb_convert.spike import SpikeKeys, add_sink_keys
from sb_convert.whole import NotWritten, target

from ..checkout import ROOT
from ..errors import BenchError
from ..shapes import OUTLIER, Shape, Tensor, check, config, tensors
from . import build

POOL = 1 << 21  # bytes drawn per type and width
CHUNK = 1 << 24
SEED = 20250905


def byte_tokens(n_vocab: int) -> tuple[list[str], list[int]]:
    """Smallest GPT-2 vocabulary that encodes any text: 256 bytes, one merge, an end token, then words. Types as in GGUF.

    Words, since the weights are random: a token without text, as unused ones are, would leave a stream waiting for ever."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    chars = {b: chr(b) for b in printable}
    chars.update({b: chr(256 + i) for i, b in enumerate(sorted(set(range(256)) - set(printable)))})
    tokens = [chars[b] for b in range(256)] + [chars[32] + chars[116], "<|end|>"]
    types = [gguf.TokenType.NORMAL] * 257 + [gguf.TokenType.CONTROL]
    n = n_vocab - len(tokens)
    return tokens + [f"word{i}" for i in range(n)], [int(t) for t in types + [gguf.TokenType.NORMAL] * n]


def add_tokenizer(w: gguf.GGUFWriter, n_vocab: int) -> None:
    tokens, types = byte_tokens(n_vocab)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("qwen2")
    w.add_token_list(tokens)
    w.add_token_types(types)
    w.add_token_merges([f"{tokens[32]} {tokens[116]}"])
    w.add_eos_token_id(257)
    w.add_add_bos_token(False)


def add_keys(w: gguf.GGUFWriter, shape: Shape, type_: str, spikes: bool) -> None:
    """Keys of upstream's llama and qwen2, and of ours (converter/README.md)."""
    w.add_name(shape.name)
    kinds = {"q4_0": "Q4_0", "q4_1": "Q4_1", "q4_k_m": "Q4_K_M", "iq4_xs": "IQ4_XS"}
    w.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kinds.get(type_, 'Q8_0')}"])
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    keys = SpikeKeys(True, DEFAULT_K, "paper") if spikes else None
    if keys:
        keys.add_to(w)
    if shape.parallel:
        add_hparams(w, config(shape))
        add_sink_keys(w, keys)
        return
    w.add_vocab_size(shape.n_vocab)
    w.add_context_length(shape.context)
    w.add_embedding_length(shape.n_embd)
    w.add_block_count(shape.n_layer)
    w.add_feed_forward_length(shape.n_ff)
    w.add_head_count(shape.n_head)
    w.add_head_count_kv(shape.n_head_kv)
    w.add_layer_norm_rms_eps(shape.eps)
    w.add_rope_freq_base(shape.rope_base)
    w.add_rope_dimension_count(shape.head)
    if shape.experts:
        w.add_expert_count(shape.experts.n)
        w.add_expert_used_count(shape.experts.used)
    if shape.window:
        w.add_key_length(shape.head)
        w.add_value_length(shape.head)
        w.add_sliding_window(shape.window)
        w.add_array(f"{shape.arch}.attention.recurrent_layers", shape.recurrent)
        w.add_float32(f"{shape.arch}.gla.gate_logit_normalizer", 16.0)
        w.add_uint32(f"{shape.arch}.gla.gate_low_rank_dim", shape.low_rank)


class Blocks:
    """Random bytes of tensors."""

    def __init__(self, outliers: int = 0) -> None:
        self.outliers = outliers
        self.rng = np.random.default_rng(SEED)
        self.pools: dict[tuple[str, int, bool], np.ndarray] = {}

    def pool(self, t: Tensor) -> np.ndarray:
        """uint8, a whole number of blocks, of a multiple of 64 values each."""
        is_scales = t.name.endswith(".scales")
        key = (t.stored, t.n_in, is_scales)
        if key not in self.pools:
            self.pools[key] = self.draw(t, is_scales)
        return self.pools[key]

    def draw(self, t: Tensor, is_scales: bool) -> np.ndarray:
        std = t.n_in ** -0.5 if t.n_in else 0.0
        if t.stored in ("Q4_0", "Q8_0"):
            size, unit = {"Q4_0": (18, 4.6), "Q8_0": (34, 73.9)}[t.stored]  # deviation of uniform codes
            blocks = self.rng.integers(0, 256, (POOL // size, size), np.uint8)
            blocks[:, :2] = (std / unit * self.rng.uniform(0.7, 1.3, len(blocks))).astype(np.float16).view(np.uint8).reshape(-1, 2)
            return blocks.reshape(-1)
        if t.stored in ("Q4_1", "Q4_K", "Q6_K", "IQ4_XS"):
            size, unit, at = {"Q4_1": (20, 4.6, 0), "Q4_K": (144, 258.0, 0), "Q6_K": (210, 1365.0, 208), "IQ4_XS": (136, 1350.0, 0)}[t.stored]
            blocks = self.rng.integers(0, 256, (POOL // size, size), np.uint8)
            d = std / unit * self.rng.uniform(0.7, 1.3, len(blocks))
            scales = {"Q4_1": [d, -7.5 * d], "Q4_K": [d, 7.5 * d]}.get(t.stored, [d])  # so much of the minimum that the mean is 0
            blocks[:, at:at + 2 * len(scales)] = np.stack(scales, 1).astype(np.float16).view(np.uint8)
            return blocks.reshape(-1)
        if t.stored == "I8":
            return self.rng.integers(-127, 128, POOL, np.int8).view(np.uint8)
        n = POOL // 4
        if is_scales:
            values = (std / 73.3 * self.rng.uniform(0.7, 1.3, n)).astype(np.float32)
        else:
            values = (self.rng.standard_normal(n) * std).astype(np.float32) if t.n_in else np.ones(n, np.float32)
        if t.stored == "BF16":
            return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
        return values.astype({"F32": np.float32, "F16": np.float16}[t.stored]).view(np.uint8)

    def write(self, t: Tensor, file: Any) -> None:
        """All bytes of t, from a random place of its pool on; of a layer's norm ones, and OUTLIER in channels far apart."""
        if self.outliers and t.name.endswith(("attn_norm.weight", "ffn_norm.weight")):
            values = np.ones(t.shape, np.float32)
            values[::-(-len(values) // self.outliers)] = OUTLIER
            file.write(values.tobytes())
            return
        pool = self.pool(t)
        unit = {"Q4_0": 18, "Q4_1": 20, "Q8_0": 34, "IQ4_XS": 136, "Q4_K": 144, "Q6_K": 210, "F32": 4, "F16": 2, "BF16": 2, "I8": 1}[t.stored]
        start = int(self.rng.integers(0, len(pool) // unit)) * unit
        rolled = np.concatenate([pool[start:], pool[:start]])
        big = np.tile(rolled, max(1, CHUNK // len(rolled))) if t.nbytes > len(rolled) else rolled
        left = t.nbytes
        while left:
            n = min(left, len(big))
            file.write(big[:n])
            left -= n


def header_hash(path: Path, n: int) -> str:
    """sha256 of a GGUF's first n bytes, keys (the shape's name tells outliers) and tensor infos, and of SEED: they say everything."""
    with path.open("rb") as f:
        return hashlib.sha256(f.read(n) + str(SEED).encode()).hexdigest()


def write_header(w: gguf.GGUFWriter, table: list[Tensor]) -> int:
    """Keys and tensor infos; returns their length."""
    for t in table:
        raw = gguf.GGMLQuantizationType[t.stored]
        plain = {"F32": np.float32, "F16": np.float16, "I8": np.int8, "BF16": np.uint16}.get(t.stored)
        shape, dtype = (t.shape, plain) if plain else (gguf.quant_shape_to_byte_shape(t.shape, raw), np.uint8)
        w.add_tensor_info(t.name, shape, np.dtype(dtype), t.nbytes, raw_dtype=raw)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    return int(w.fout[0].tell())


def write_tensors(w: gguf.GGUFWriter, shape: Shape, table: list[Tensor]) -> int:
    """Writes the whole file; returns the length of its header."""
    blocks = Blocks(shape.outliers)
    header = write_header(w, table)
    file = w.fout[0]
    for t in table:
        w.write_padding(file, file.tell())
        blocks.write(t, file)
        w.write_padding(file, t.nbytes)
    return header


def convert_model(checkpoint: str, type_: str, path: Path, spikes: bool) -> str:
    """Writes the GGUF file of a checkpoint of this repository, as `make demo` does; returns the file's sha256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [build.tool("sb-convert"), str(ROOT / checkpoint), "-o", str(path), "--outtype", type_, *["--spike"] * spikes]
    build.run(command, f"convert {checkpoint}", build.WORK / "convert.log")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_model(shape: Shape, type_: str, path: Path, spikes: bool = False) -> str:
    """Writes the GGUF file and returns header_hash(). Under a temporary name until it is whole.

    Raises BenchError for a shape or type that no model can have, or where the file cannot be written."""
    check(shape, type_, spikes)
    part = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path = target(path)
        part = path.with_name(part.name)
        w = gguf.GGUFWriter(part, shape.arch)
        try:
            add_keys(w, shape, type_, spikes)
            add_tokenizer(w, shape.n_vocab)
            header = write_tensors(w, shape, tensors(shape, type_))
        finally:
            w.close()
        digest = header_hash(part, header)
        os.replace(part, path)
    except NotWritten as e:
        raise BenchError(f"bench: {e}") from e
    except OSError as e:
        raise BenchError(f"bench: {path}: got {e.strerror or e}, expected to write a model; do check the space and rights there") from e
    finally:
        part.unlink(missing_ok=True)
    return digest
