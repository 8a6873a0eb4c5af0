"""Checkpoints by shape, as training leaves them: random bfloat16 in one safetensors file, a byte vocabulary. No PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from .make_model import byte_tokens

# Qwen2.5-1.5B's published dimensions; ours has the same, with GLA and window layers 1:1
DIMENSIONS = {"hidden_size": 1536, "num_hidden_layers": 28, "intermediate_size": 8960, "num_attention_heads": 12, "num_key_value_heads": 2,
              "vocab_size": 151936, "max_position_embeddings": 32768, "rope_theta": 1e6, "tie_word_embeddings": True,
              "bos_token_id": 257, "eos_token_id": 257, "torch_dtype": "bfloat16"}
TINY = DIMENSIONS | {"hidden_size": 128, "num_hidden_layers": 2, "intermediate_size": 256, "num_attention_heads": 2, "num_key_value_heads": 1,
                     "vocab_size": 512}


def config(family: str, dims: dict[str, Any]) -> dict[str, Any]:
    """config.json of `qwen2` or `gla_swa` (ours)."""
    if family == "qwen2":
        return dims | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "rms_norm_eps": 1e-6, "hidden_act": "silu"}
    return dims | {"model_type": "gla_swa", "architectures": ["GLAswaForCausalLM"], "norm_eps": 1e-6, "hidden_act": "swish", "sliding_window": 4096,
                   "attn_layers": list(range(1, dims["num_hidden_layers"], 2)), "use_short_conv": False}


def qwen2_tensors(c: dict[str, Any]) -> list[tuple[str, tuple[int, ...]]]:
    e, ff, kv = c["hidden_size"], c["intermediate_size"], c["hidden_size"] // c["num_attention_heads"] * c["num_key_value_heads"]
    out: list[tuple[str, tuple[int, ...]]] = [("model.embed_tokens.weight", (c["vocab_size"], e)), ("model.norm.weight", (e,))]
    for i in range(c["num_hidden_layers"]):
        b = f"model.layers.{i}."
        out += [(b + "input_layernorm.weight", (e,)), (b + "post_attention_layernorm.weight", (e,)), (b + "self_attn.o_proj.weight", (e, e)),
                (b + "mlp.gate_proj.weight", (ff, e)), (b + "mlp.up_proj.weight", (ff, e)), (b + "mlp.down_proj.weight", (e, ff))]
        for name, n in (("q", e), ("k", kv), ("v", kv)):
            out += [(f"{b}self_attn.{name}_proj.weight", (n, e)), (f"{b}self_attn.{name}_proj.bias", (n,))]
    return out


def gla_swa_tensors(c: dict[str, Any]) -> list[tuple[str, tuple[int, ...]]]:
    """Those that our converter expects of this config."""
    from sb_convert.config import Config
    from sb_convert.tensors import targets

    return [(t.checkpoint, tuple(t.shape)) for t in targets(Config.from_json(c | {"gate_low_rank_dim": 16}))]


def write_weights(path: Path, tensors: list[tuple[str, tuple[int, ...]]]) -> None:
    """One safetensors file of bfloat16: a block of normal numbers, repeated."""
    header, at = {}, 0
    for name, shape in tensors:
        n = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header).encode()
    values = np.random.default_rng(1).standard_normal(1 << 22).astype(np.float32) * np.float32(0.02)
    block = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    with path.open("wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for done in range(0, at, len(block)):
            f.write(block[:at - done])


def write_tokenizer(folder: Path) -> None:
    """257 tokens and an end token in Qwen2's files; both converters fill up to vocab_size."""
    tokens, _ = byte_tokens(258)
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens[:257])}))
    (folder / "merges.txt").write_text(f"#version: 0.2\n{tokens[32]} {tokens[116]}\n")
    special = {"content": "<|end|>", "special": True, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|end|>", "pad_token": "<|end|>", "unk_token": None, "bos_token": None,
        "added_tokens_decoder": {"257": special}, "model_max_length": 32768}))


def write_checkpoint(folder: Path, family: str, small: bool = False) -> None:
    """A folder as a converter takes it; `family`: qwen2 or gla_swa. 3.1 GB, or a few hundred KB where `small`."""
    folder.mkdir(parents=True)
    c = config(family, TINY if small else DIMENSIONS)
    (folder / "config.json").write_text(json.dumps(c))
    write_tokenizer(folder)
    write_weights(folder / "model.safetensors", qwen2_tensors(c) if family == "qwen2" else gla_swa_tensors(c))
