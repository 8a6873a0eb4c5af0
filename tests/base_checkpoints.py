"""Random Transformers as their authors publish them (Llama, Qwen2, Qwen3), of any shape, and what they compute: plain NumPy in float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from conftest import write_bpe, write_weights

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
COMMON = {"hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 96, "vocab_size": 288, "num_attention_heads": 4, "num_key_value_heads": 2,
          "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False,
          "bos_token_id": 262, "eos_token_id": 262, "torch_dtype": "float32", "initializer_range": 0.02, "use_cache": True, "attention_dropout": 0.0}
# as config.json of the real ones, but for sizes
BASES: dict[str, dict[str, Any]] = {
    "llama 3.2": COMMON | {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False, "mlp_bias": False, "head_dim": 16, "pretraining_tp": 1,
                           "rope_theta": 500.0, "rope_scaling": LLAMA3, "tie_word_embeddings": True, "transformers_version": "4.45.0.dev0"},
    "llama 5": {k: v for k, v in COMMON.items() if k not in ("rope_theta", "torch_dtype")} | {  # as transformers 5 writes it
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False, "mlp_bias": False, "head_dim": 16, "dtype": "float32", "pad_token_id": 263,
        "rope_parameters": LLAMA3 | {"rope_theta": 500.0}, "eos_token_id": [262, 264]},
    "llama 1": {k: v for k, v in COMMON.items() if k not in ("rope_theta", "num_key_value_heads", "tie_word_embeddings")} | {  # fields that were not there yet
        "architectures": ["LlamaForCausalLM"], "model_type": "llama"},
    "qwen2.5": COMMON | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "rope_theta": 1e6, "sliding_window": 128, "use_sliding_window": False,
                         "max_window_layers": 4, "use_mrope": False, "tie_word_embeddings": True},
    "qwen3": COMMON | {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 32, "attention_bias": False, "rope_scaling": None, "rope_theta": 1e6,
                       "sliding_window": None, "use_sliding_window": False, "max_window_layers": 4},
}


def base_tensors(c: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """float32, such that every part moves the logits."""
    e, ff, n_kv = c["hidden_size"], c["intermediate_size"], c.get("num_key_value_heads") or c["num_attention_heads"]
    d = c.get("head_dim") or e // c["num_attention_heads"]
    q, kv = c["num_attention_heads"] * d, n_kv * d
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (c["vocab_size"], e), "model.norm.weight": (e,)}
    shapes |= {} if c.get("tie_word_embeddings") else {"lm_head.weight": (c["vocab_size"], e)}
    for il in range(c["num_hidden_layers"]):
        layer: dict[str, tuple[int, ...]] = {"input_layernorm.weight": (e,), "post_attention_layernorm.weight": (e,), "self_attn.q_proj.weight": (q, e), "self_attn.k_proj.weight": (kv, e),
                                             "self_attn.v_proj.weight": (kv, e), "self_attn.o_proj.weight": (e, q), "mlp.gate_proj.weight": (ff, e), "mlp.up_proj.weight": (ff, e),
                                             "mlp.down_proj.weight": (e, ff)}
        if c["model_type"] == "qwen2":
            layer |= {"self_attn.q_proj.bias": (q,), "self_attn.k_proj.bias": (kv,), "self_attn.v_proj.bias": (kv,)}
        if c["model_type"] == "qwen3":
            layer |= {"self_attn.q_norm.weight": (d,), "self_attn.k_norm.weight": (d,)}
        shapes |= {f"model.layers.{il}.{name}": shape for name, shape in layer.items()}
    rng, out = np.random.default_rng(seed), {}
    for name, shape in shapes.items():
        x = rng.standard_normal(shape, np.float32)
        out[name] = (1 + 0.3 * x if "norm" in name else 0.5 * x if len(shape) == 1 else x * 1.3 / np.float32(shape[1] ** 0.5)).astype(np.float32)
    return out


def write_base(folder: Path, kind: str = "qwen2.5", dtype: str = "F32", n_shards: int = 1, tensors: Any = None, tokenizer: bool = True, **config: Any) -> Path:
    """A folder as it is downloaded. config: changes of BASES[kind], KeyError takes a field away (the tensors are those of the value it has there)."""
    folder.mkdir(exist_ok=True)
    c = BASES[kind] | {k: v for k, v in config.items() if v is not KeyError}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in c.items() if config.get(k) is not KeyError}))
    held = base_tensors(c)
    held = (tensors(held) or held) if tensors is not None else held
    write_weights(folder, held, "safetensors", dtype, n_shards)
    if tokenizer:
        write_bpe(folder)
    return folder


def frequencies(c: dict[str, Any], d: int) -> np.ndarray:
    """Of the rotary pairs, in Llama 3's own words: by wave length, smooth between two bounds."""
    rope = c.get("rope_parameters") or c.get("rope_scaling") or {}
    theta = c.get("rope_theta") or rope.get("rope_theta") or 10000.0
    out = []
    for i in range(d // 2):
        freq = theta ** (-2 * i / d)
        if rope.get("rope_type") == "llama3":
            wave, old = 2 * np.pi / freq, rope["original_max_position_embeddings"]
            smooth = (old / wave - rope["low_freq_factor"]) / (rope["high_freq_factor"] - rope["low_freq_factor"])
            slow = freq / rope["factor"]
            freq = freq if wave < old / rope["high_freq_factor"] else slow if wave > old / rope["low_freq_factor"] else (1 - smooth) * slow + smooth * freq
        out.append(freq)
    return np.array(out)


def transformer(tensors: dict[str, np.ndarray], c: dict[str, Any], tokens: np.ndarray) -> np.ndarray:
    """Logits [T, vocab]."""
    t = {name: x.astype(np.float64) for name, x in tensors.items()}
    n_head, n_kv = c["num_attention_heads"], c.get("num_key_value_heads") or c["num_attention_heads"]
    d, n = c.get("head_dim") or c["hidden_size"] // n_head, len(tokens)
    angle = np.arange(n)[:, None] * frequencies(c, d)
    cos, sin = np.tile(np.cos(angle), 2)[:, None], np.tile(np.sin(angle), 2)[:, None]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + c["rms_norm_eps"]) * t[name]

    def rotated(x: np.ndarray) -> np.ndarray:
        return x * cos + np.concatenate((-x[..., d // 2:], x[..., :d // 2]), -1) * sin
    x = t["model.embed_tokens.weight"][tokens]
    for il in range(c["num_hidden_layers"]):
        p = f"model.layers.{il}."
        h = norm(x, p + "input_layernorm.weight")
        q, k, v = ((h @ t[f"{p}self_attn.{w}_proj.weight"].T + t.get(f"{p}self_attn.{w}_proj.bias", 0)).reshape(n, -1, d) for w in "qkv")
        if p + "self_attn.q_norm.weight" in t:
            q, k = norm(q, p + "self_attn.q_norm.weight"), norm(k, p + "self_attn.k_norm.weight")
        q, k, v = rotated(q), np.repeat(rotated(k), n_head // n_kv, 1), np.repeat(v, n_head // n_kv, 1)
        scores = np.where(np.tri(n, dtype=bool), np.einsum("ihd,jhd->hij", q, k) / d ** 0.5, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        o = np.einsum("hij,jhd->ihd", weights / weights.sum(-1, keepdims=True), v).reshape(n, -1)
        x = x + o @ t[p + "self_attn.o_proj.weight"].T
        u = norm(x, p + "post_attention_layernorm.weight")
        gate, up = u @ t[p + "mlp.gate_proj.weight"].T, u @ t[p + "mlp.up_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ t[p + "mlp.down_proj.weight"].T
    return norm(x, "model.norm.weight") @ t.get("lm_head.weight", t["model.embed_tokens.weight"]).T
