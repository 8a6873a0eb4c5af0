"""The tensor map, as data: every tensor of a checkpoint, its name in the GGUF, its shape and how it may be stored."""

from __future__ import annotations

from dataclasses import dataclass

from .config import Config, ModelConfig, MoeConfig, ParallelConfig

# kind: how a tensor is stored.
#   projection  takes spikes in the spiking variant: the chosen type, under int8 codes and scales
#   down        the same, but ordinary and of a type of its own in scope `released`
#   embedding   the chosen type; under int8 the smallest that is exact (rounding it flips counts in every layer)
#   output      read once per token by the last product: Q8_0 under q4_0 (it decides single logits), F16 under int8
#   tied        embedding and output in one: as output, under int8 as embedding
#   f32         norms, biases, the low-rank gate, the router: always F32
#   constant    computed from weights, no weight itself: F32
# made: what becomes of the checkpoint's tensor; derived.py has one class for each of these.
#   ""          nothing
#   half        divided by 2: the mean of two branches, folded into their norms
#   stack       one matrix of each expert ({e} in its name), one after the other
#   rope        what the rotary frequencies are divided by, from config.json
#   bound       1 - the layer's lower bound, from the rows of all layers
#   sinks.k, sinks.v, sinks.state   a layer's constants (sinks.py)

PROJECTIONS = ("projection", "down")
EMBEDDING, HEAD = "model.embeddings.weight", "lm_head.weight"
BOUNDS, SINKS = "model.lower_bounds", "model.meta_tokens"
ALIASES = {"mode.norm.weight": "model.norm.weight"}  # sic, in the one known file of the 76B


@dataclass(frozen=True)
class Row:
    gguf: str                # {i} is the layer
    checkpoint: str
    shape: tuple[str, ...]   # PyTorch order [out, in], in the words of dims()
    kind: str
    made: str = ""


TOP = (
    Row("token_embd.weight", EMBEDDING, ("n_vocab", "n_embd"), "embedding"),
    Row("output_norm.weight", "model.norm.weight", ("n_embd",), "f32"),
)
TOP_UNTIED = (
    Row("output.weight", HEAD, ("n_vocab", "n_embd"), "output"),
)
TOP_ROPE = (
    Row("rope_freqs.weight", "", ("n_rot_half",), "constant", "rope"),
)
TOP_SINKS = (
    Row("token_embd.sinks", SINKS, ("n_sinks", "n_embd"), "f32"),
)
ATTN_NORM = (
    Row("blk.{i}.attn_norm.weight", "model.layers.{i}.attn_norm.weight", ("n_embd",), "f32"),
)
ATTN = (
    Row("blk.{i}.attn_q.weight", "model.layers.{i}.attn.q_proj.weight", ("n_embd_q", "n_embd"), "projection"),
    Row("blk.{i}.attn_q.bias", "model.layers.{i}.attn.q_proj.bias", ("n_embd_q",), "f32"),
    Row("blk.{i}.attn_k.weight", "model.layers.{i}.attn.k_proj.weight", ("n_embd_kv", "n_embd"), "projection"),
    Row("blk.{i}.attn_k.bias", "model.layers.{i}.attn.k_proj.bias", ("n_embd_kv",), "f32"),
    Row("blk.{i}.attn_v.weight", "model.layers.{i}.attn.v_proj.weight", ("n_embd_kv", "n_embd"), "projection"),
    Row("blk.{i}.attn_v.bias", "model.layers.{i}.attn.v_proj.bias", ("n_embd_kv",), "f32"),
    Row("blk.{i}.attn_output.weight", "model.layers.{i}.attn.o_proj.weight", ("n_embd", "n_embd_q"), "projection"),
)
QK_NORM = (
    Row("blk.{i}.attn_q_norm.weight", "model.layers.{i}.attn.q_norm.weight", ("n_embd_head",), "f32"),
    Row("blk.{i}.attn_k_norm.weight", "model.layers.{i}.attn.k_norm.weight", ("n_embd_head",), "f32"),
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
PARALLEL = (
    Row("blk.{i}.attn_q.weight", "model.layers.{i}.attn.vanilla_attn.q_proj.weight", ("n_embd", "n_embd"), "projection"),
    Row("blk.{i}.attn_q.bias", "model.layers.{i}.attn.vanilla_attn.q_proj.bias", ("n_embd",), "f32"),
    Row("blk.{i}.attn_k.weight", "model.layers.{i}.attn.vanilla_attn.k_proj.weight", ("n_embd_kv", "n_embd"), "projection"),
    Row("blk.{i}.attn_k.bias", "model.layers.{i}.attn.vanilla_attn.k_proj.bias", ("n_embd_kv",), "f32"),
    Row("blk.{i}.attn_v.weight", "model.layers.{i}.attn.vanilla_attn.v_proj.weight", ("n_embd_kv", "n_embd"), "projection"),
    Row("blk.{i}.attn_v.bias", "model.layers.{i}.attn.vanilla_attn.v_proj.bias", ("n_embd_kv",), "f32"),
    Row("blk.{i}.time_mix_receptance.weight", "model.layers.{i}.attn.linear_attn.q_proj.weight", ("n_embd", "n_embd"), "projection"),
    Row("blk.{i}.time_mix_receptance.bias", "model.layers.{i}.attn.linear_attn.q_proj.bias", ("n_embd",), "f32"),
    Row("blk.{i}.time_mix_key.weight", "model.layers.{i}.attn.linear_attn.k_proj.weight", ("n_embd_kv", "n_embd"), "projection"),
    Row("blk.{i}.time_mix_key.bias", "model.layers.{i}.attn.linear_attn.k_proj.bias", ("n_embd_kv",), "f32"),
    Row("blk.{i}.time_mix_value.weight", "model.layers.{i}.attn.linear_attn.v_proj.weight", ("n_embd_kv", "n_embd"), "projection"),
    Row("blk.{i}.time_mix_value.bias", "model.layers.{i}.attn.linear_attn.v_proj.bias", ("n_embd_kv",), "f32"),
    Row("blk.{i}.attn_sub_norm.weight", "model.layers.{i}.attn.norm1.weight", ("n_embd",), "f32", "half"),
    Row("blk.{i}.ssm_norm.weight", "model.layers.{i}.attn.norm2.weight", ("n_embd",), "f32", "half"),
    Row("blk.{i}.attn_output.weight", "model.layers.{i}.attn.out_proj.weight", ("n_embd", "n_embd"), "projection"),
)
BOUND = (
    Row("blk.{i}.time_mix_decay.weight", BOUNDS, ("n_embd",), "f32", "bound"),
)
CONSTANTS = (  # behind a layer's weights: what they are computed from has been read, and checked, just before
    Row("blk.{i}.attn_k.sinks", SINKS, ("n_head_kv", "n_sinks", "n_embd_head"), "constant", "sinks.k"),
    Row("blk.{i}.attn_v.sinks", SINKS, ("n_head_kv", "n_sinks", "n_embd_head"), "constant", "sinks.v"),
    Row("blk.{i}.time_mix_key.state", SINKS, ("n_states", "n_embd_head", "n_embd_head"), "constant", "sinks.state"),
)
FFN_NORM = (
    Row("blk.{i}.ffn_norm.weight", "model.layers.{i}.mlp_norm.weight", ("n_embd",), "f32"),
)
DENSE = (
    Row("blk.{i}.ffn_gate.weight", "model.layers.{i}.mlp.gate_proj.weight", ("n_ff", "n_embd"), "projection"),
    Row("blk.{i}.ffn_up.weight", "model.layers.{i}.mlp.up_proj.weight", ("n_ff", "n_embd"), "projection"),
    Row("blk.{i}.ffn_down.weight", "model.layers.{i}.mlp.down_proj.weight", ("n_embd", "n_ff"), "down"),
)
EXPERTS = (
    Row("blk.{i}.ffn_gate_inp.weight", "model.layers.{i}.block_sparse_moe.gate.weight", ("n_expert", "n_embd"), "f32"),
    Row("blk.{i}.ffn_gate_exps.weight", "model.layers.{i}.block_sparse_moe.experts.{e}.gate_proj.weight", ("n_expert", "n_ff", "n_embd"), "projection", "stack"),
    Row("blk.{i}.ffn_up_exps.weight", "model.layers.{i}.block_sparse_moe.experts.{e}.up_proj.weight", ("n_expert", "n_ff", "n_embd"), "projection", "stack"),
    Row("blk.{i}.ffn_down_exps.weight", "model.layers.{i}.block_sparse_moe.experts.{e}.down_proj.weight", ("n_expert", "n_embd", "n_ff"), "down", "stack"),
    Row("blk.{i}.ffn_gate_shexp.weight", "model.layers.{i}.shared_mlp.gate_proj.weight", ("n_ff_shexp", "n_embd"), "projection"),
    Row("blk.{i}.ffn_up_shexp.weight", "model.layers.{i}.shared_mlp.up_proj.weight", ("n_ff_shexp", "n_embd"), "projection"),
    Row("blk.{i}.ffn_down_shexp.weight", "model.layers.{i}.shared_mlp.down_proj.weight", ("n_embd", "n_ff_shexp"), "down"),
)


@dataclass(frozen=True)
class Target:
    """One tensor of one model: a row of the map with the layer and the sizes filled in. A projection's codes are
    several: kind `codes` (the weight), `scales`, `outliers`."""
    gguf: str
    checkpoint: str          # {e} still in it where it is a stack
    shape: tuple[int, ...]
    kind: str
    made: str = ""
    layer: int = 0

    def sources(self) -> list[str]:
        """The checkpoint's tensors that it is made of, one after the other."""
        return [self.checkpoint.format(e=e) for e in range(self.shape[0])] if self.made == "stack" else [self.checkpoint]


def dims(c: ModelConfig, il: int = 0) -> dict[str, int]:
    """The sizes that the words in Row.shape stand for, in one layer."""
    size = {"n_vocab": c.vocab_size, "n_embd": c.hidden_size, "n_embd_head": c.head_dim, "n_rot_half": c.head_dim // 2, "n_embd_q": c.q_size, "n_embd_kv": c.kv_size, "n_head_kv": c.num_key_value_heads,
            "n_ff": c.intermediate_size, "n_sinks": c.n_sinks}
    if isinstance(c, Config):
        size["n_rank"] = c.gate_low_rank_dim
    if isinstance(c, MoeConfig):
        size |= {"n_expert": c.num_local_experts, "n_ff_shexp": c.shared_intermediate_size}
    if isinstance(c, ParallelConfig):
        size["n_states"] = c.n_states(il)
    return size


def layer_rows(c: ModelConfig, il: int) -> tuple[Row, ...]:
    """One layer's tensors, in file order."""
    mixer, before, after = c.mixer(il), tuple(r for r in ATTN if c.qkv_bias or not r.gguf.endswith(".bias")) + (QK_NORM if c.use_qk_norm else ()), ()
    if isinstance(c, Config) and mixer == "gla":
        after = GLA + (GATE_LOW_RANK if c.gate_low_rank_dim else GATE_FULL)
    if isinstance(c, ParallelConfig):
        before, after = PARALLEL + (BOUND if c.bound_row(il) else ()), CONSTANTS if c.n_sinks else ()
    return ATTN_NORM + before + FFN_NORM + (EXPERTS if c.is_moe(il) else DENSE) + after


def targets(c: ModelConfig) -> list[Target]:
    """Every tensor of the GGUF of a checkpoint with this config, in file order."""
    rows = [(row, 0) for row in TOP + (() if c.tie_word_embeddings else TOP_UNTIED) + (TOP_ROPE if c.rope_scaling else ()) + (TOP_SINKS if c.n_sinks else ())]
    for il in range(c.num_hidden_layers):
        rows += [(row, il) for row in layer_rows(c, il)]
    out = []
    for r, il in rows:
        size = dims(c, il)
        out.append(Target(r.gguf.format(i=il), r.checkpoint.format(i=il, e="{e}"), tuple(size[d] for d in r.shape), r.kind, r.made, il))
    if c.tie_word_embeddings:  # the embedding is the output matrix too
        out[0] = Target(out[0].gguf, out[0].checkpoint, out[0].shape, "tied")
    return out


def checkpoint_shapes(c: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor that a checkpoint with this config has, and its shape."""
    shapes: dict[str, tuple[int, ...]] = {}
    for t in targets(c):
        if t.made in ("", "half"):
            shapes[t.checkpoint] = t.shape
        elif t.made == "stack":
            shapes |= dict.fromkeys(t.sources(), t.shape[1:])
    if isinstance(c, ParallelConfig) and c.use_lower_bound:  # also where no layer takes a bound from it
        shapes[BOUNDS] = (c.bound_rows, c.hidden_size)
    return shapes
