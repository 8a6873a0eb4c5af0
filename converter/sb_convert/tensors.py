"""The tensor map, as data: every tensor of a checkpoint, its name in the GGUF, its shape and how it may be stored."""

from __future__ import annotations

from dataclasses import dataclass

from .config import Config

# kind: how a tensor is stored.
#   projection  takes spikes in the spiking variant: the chosen type, under int8 codes and scales
#   down        the same, but ordinary and of a type of its own in scope `released`
#   embedding   the chosen type; under int8 the smallest that is exact (rounding it flips counts in every layer)
#   output      read once per token by the last product: Q8_0 under q4_0 (it decides single logits), F16 under int8
#   tied        embedding and output in one: as output, under int8 as embedding
#   f32         norms, biases and the low-rank gate: always F32


PROJECTIONS = ("projection", "down")


@dataclass(frozen=True)
class Row:
    gguf: str                # {i} is the layer
    checkpoint: str
    shape: tuple[str, ...]   # PyTorch order [out, in], in the words of dims()
    kind: str


TOP = (
    Row("token_embd.weight", "model.embeddings.weight", ("n_vocab", "n_embd"), "embedding"),
    Row("output_norm.weight", "model.norm.weight", ("n_embd",), "f32"),
)
TOP_UNTIED = (
    Row("output.weight", "lm_head.weight", ("n_vocab", "n_embd"), "output"),
)
LAYER = (
    Row("blk.{i}.attn_norm.weight", "model.layers.{i}.attn_norm.weight", ("n_embd",), "f32"),
    Row("blk.{i}.attn_q.weight", "model.layers.{i}.attn.q_proj.weight", ("n_embd", "n_embd"), "projection"),
    Row("blk.{i}.attn_q.bias", "model.layers.{i}.attn.q_proj.bias", ("n_embd",), "f32"),
    Row("blk.{i}.attn_k.weight", "model.layers.{i}.attn.k_proj.weight", ("n_embd_kv", "n_embd"), "projection"),
    Row("blk.{i}.attn_k.bias", "model.layers.{i}.attn.k_proj.bias", ("n_embd_kv",), "f32"),
    Row("blk.{i}.attn_v.weight", "model.layers.{i}.attn.v_proj.weight", ("n_embd_kv", "n_embd"), "projection"),
    Row("blk.{i}.attn_v.bias", "model.layers.{i}.attn.v_proj.bias", ("n_embd_kv",), "f32"),
    Row("blk.{i}.attn_output.weight", "model.layers.{i}.attn.o_proj.weight", ("n_embd", "n_embd"), "projection"),
    Row("blk.{i}.ffn_norm.weight", "model.layers.{i}.mlp_norm.weight", ("n_embd",), "f32"),
    Row("blk.{i}.ffn_gate.weight", "model.layers.{i}.mlp.gate_proj.weight", ("n_ff", "n_embd"), "projection"),
    Row("blk.{i}.ffn_up.weight", "model.layers.{i}.mlp.up_proj.weight", ("n_ff", "n_embd"), "projection"),
    Row("blk.{i}.ffn_down.weight", "model.layers.{i}.mlp.down_proj.weight", ("n_embd", "n_ff"), "down"),
)
GLA = (
    Row("blk.{i}.ssm_norm.weight", "model.layers.{i}.attn.g_norm.weight", ("n_embd_head",), "f32"),
)
GATE_LOW_RANK = (
    Row("blk.{i}.time_mix_decay_w1.weight", "model.layers.{i}.attn.gk_proj.0.weight", ("n_rank", "n_embd"), "f32"),
    Row("blk.{i}.time_mix_decay_w2.weight", "model.layers.{i}.attn.gk_proj.1.weight", ("n_embd_kv", "n_rank"), "f32"),
    Row("blk.{i}.time_mix_decay_w2.bias", "model.layers.{i}.attn.gk_proj.1.bias", ("n_embd_kv",), "f32"),
)
GATE_FULL = (
    Row("blk.{i}.attn_gate.weight", "model.layers.{i}.attn.gk_proj.weight", ("n_embd_kv", "n_embd"), "projection"),
    Row("blk.{i}.attn_gate.bias", "model.layers.{i}.attn.gk_proj.bias", ("n_embd_kv",), "f32"),
)


@dataclass(frozen=True)
class Target:
    """One tensor of one model: a row of the map with the layer and the sizes filled in. A projection's codes are
    several: kind `codes` (the weight), `scales`, `outliers`."""
    gguf: str
    checkpoint: str
    shape: tuple[int, ...]
    kind: str


def dims(c: Config) -> dict[str, int]:
    return {"n_vocab": c.vocab_size, "n_embd": c.hidden_size, "n_embd_head": c.head_dim, "n_embd_kv": c.kv_size,
            "n_ff": c.intermediate_size, "n_rank": c.gate_low_rank_dim}


def targets(c: Config) -> list[Target]:
    """Every tensor a checkpoint with this config has, in file order."""
    rows = [(row, 0) for row in TOP + (() if c.tie_word_embeddings else TOP_UNTIED)]
    for il in range(c.num_hidden_layers):
        gate = GATE_LOW_RANK if c.gate_low_rank_dim else GATE_FULL
        rows += [(row, il) for row in LAYER + (GLA + gate if c.is_gla(il) else ())]
    size = dims(c)
    out = [Target(r.gguf.format(i=il), r.checkpoint.format(i=il), tuple(size[d] for d in r.shape), r.kind) for r, il in rows]
    if c.tie_word_embeddings:  # the embedding is the output matrix too
        out[0] = Target(out[0].gguf, out[0].checkpoint, out[0].shape, "tied")
    return out
