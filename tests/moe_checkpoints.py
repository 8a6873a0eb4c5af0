"""Random checkpoints of the 76B's layout, of any shape, written with numpy alone: what conftest.write_checkpoint is for the 7B's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from conftest import add_scales, write_bpe, write_weights

# every part at once: bounded and unbounded layers, a window and full attention, dense and MoE layers, sinks
MOE = {"model_type": "hybrid", "architectures": ["HymetaForCausalLM"], "hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 128,
       "vocab_size": 288, "num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 6, "rope_theta": 1e6, "norm_eps": 1e-6,
       "max_position_embeddings": 512, "full_attn_layers": [2], "dense_mlp_layers": [0, 2], "num_local_experts": 3, "num_experts_per_topk": 1,
       "shared_intermediate_size": 256, "num_meta_tokens": 5, "use_lower_bound": True, "lower_bound_period": 2, "tie_word_embeddings": False,
       "use_short_conv": False, "hidden_act": "swish", "bos_token_id": 262, "eos_token_id": 262, "torch_dtype": "bfloat16"}
# another kind: linear q through sigmoid, no bounds, no clamp, one key/value head, a shared expert wider than the routed ones
OTHER = MOE | {"num_hidden_layers": 6, "full_attn_layers": [2, 5], "dense_mlp_layers": [0, 3], "num_local_experts": 6, "num_key_value_heads": 1,
               "sliding_window": 17, "use_lower_bound": False, "k_clamp_max": 1.0, "linear_q_activation": "sigmoid"}


def moe_shapes(c: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor of a checkpoint, by its published name."""
    e, ff, shared, d = c["hidden_size"], c["intermediate_size"], c["shared_intermediate_size"], c["hidden_size"] // c["num_attention_heads"]
    kv, n = c["num_key_value_heads"] * d, c["num_local_experts"]
    shapes: dict[str, tuple[int, ...]] = {"model.embeddings.weight": (c["vocab_size"], e), "model.norm.weight": (e,)}
    shapes |= {} if c["tie_word_embeddings"] else {"lm_head.weight": (c["vocab_size"], e)}
    shapes |= {"model.meta_tokens": (c["num_meta_tokens"], e)} if c["num_meta_tokens"] else {}
    shapes |= {"model.lower_bounds": (c["num_hidden_layers"], e)} if c["use_lower_bound"] else {}

    def mlp(name: str, width: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.gate_proj.weight": (width, e), f"{name}.up_proj.weight": (width, e), f"{name}.down_proj.weight": (e, width)}
    for il in range(c["num_hidden_layers"]):
        layer: dict[str, tuple[int, ...]] = {"attn_norm.weight": (e,), "mlp_norm.weight": (e,), "attn.norm1.weight": (e,), "attn.norm2.weight": (e,),
                                             "attn.out_proj.weight": (e, e)}
        for branch in ("attn.vanilla_attn", "attn.linear_attn"):
            for name, size in (("q_proj", e), ("k_proj", kv), ("v_proj", kv)):
                layer |= {f"{branch}.{name}.weight": (size, e), f"{branch}.{name}.bias": (size,)}
        if il in c["dense_mlp_layers"]:
            layer |= mlp("mlp", ff)
        else:
            layer |= {"block_sparse_moe.gate.weight": (n, e)} | mlp("shared_mlp", shared)
            for expert in range(n):
                layer |= mlp(f"block_sparse_moe.experts.{expert}", ff)
        shapes |= {f"model.layers.{il}.{name}": shape for name, shape in layer.items()}
    return shapes


def moe_tensors(c: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Random float32 tensors, such that every part moves the logits: keys of the linear branch mostly small, some 0 and 1 in float32;
    a channel of the norms with large weights, which what reads it takes with small ones; experts about equally often chosen."""
    rng, out = np.random.default_rng(seed), {}
    loud = int(rng.integers(c["hidden_size"]))
    for name, shape in moe_shapes(c).items():
        x = rng.standard_normal(shape, np.float32)
        if name.endswith("norm.weight") or ".norm1." in name or ".norm2." in name:
            x = 1 + 0.2 * x
            if name.endswith(("attn_norm.weight", "mlp_norm.weight")):
                x[loud] *= 60
        elif name.endswith("linear_attn.k_proj.bias"):
            x = 2 * x - 2
            x[:2] = 60, -60
        elif name.endswith(".bias"):
            x *= 0.5
        elif "layers" in name:
            x *= (2 if name.endswith(("q_proj.weight", "k_proj.weight", "moe.gate.weight")) else 1.3) / shape[1] ** 0.5
            if not name.endswith(("out_proj.weight", "down_proj.weight")):
                x[:, loud] /= 20
        elif name == "lm_head.weight":
            x *= 1.3 / shape[1] ** 0.5
        out[name] = x.astype(np.float32)
    return out


def write_moe(folder: Path, form: str = "safetensors", dtype: str = "BF16", n_shards: int = 1, tensors: Any = None, seed: int = 0,
              scales: bool = False, base: dict[str, Any] = MOE, **config: Any) -> Path:
    """A checkpoint folder. tensors: called with the tensors, changes them. scales: weight scales, float32. config: changes of `base`;
    a value of KeyError takes a field away from config.json (the tensors are those of the value in `base`)."""
    folder.mkdir(exist_ok=True)
    c = base | {k: v for k, v in config.items() if v is not KeyError} | ({"torch_dtype": "float32"} if scales else {})
    (folder / "config.json").write_text(json.dumps({k: v for k, v in c.items() if config.get(k) is not KeyError}))
    held = moe_tensors(c, seed)
    if scales:
        add_scales(held, seed)
    if tensors is not None:
        held = tensors(held) or held
    write_weights(folder, held, form, "F32" if scales else dtype, n_shards)
    write_bpe(folder)
    return folder
