"""The models, by shape: dimensions, tensors and bytes. No weights exist here; measure/make_model.py draws them.

Llama-3.2-1B and Qwen2.5-7B have the published dimensions. The paper gives no sizes for SpikingBrain-1B: it has those of
Llama-3.2-1B, GLA and sliding-window layers 1:1 (even layers GLA), window 4096. SpikingBrain-7B has those of Qwen2.5-7B.
SpikingBrain-76B is the published configuration; it fits no small machine, SpikingBrain-76B-small does: a quarter of every width, half the layers.
Beside that, with upstream's llama: dense, of as many weights per token; and with experts in every layer, two chosen where ours has one and a shared one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Optional

from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as T
from sb_convert.config import ParallelConfig
from sb_convert.constants import ARCH, GROUP
from sb_convert.formats import nbytes
from sb_convert.tensors import PROJECTIONS, targets

from .errors import BenchError

TYPES = ("q4_0", "q4_1", "q4_k_m", "iq4_xs", "q8_0", "int8", "int8-q8")  # int8-q8: INT8 with the embedding and the output in Q8_0
MORE_BITS = ("attn_v", "ffn_down")  # of q4_k_m Q6_K in half of the layers (stored)
OUTLIER = 64.0           # against ones
OUTLIERS = "-outliers"   # of a name


@dataclass(frozen=True)
class Experts:
    """MLPs of experts: `n` in all layers but `dense`, `used` of a token; `shared`: beside them one, as wide, that every token takes."""
    n: int
    used: int
    dense: tuple[int, ...] = ()
    shared: bool = False


@dataclass(frozen=True)
class Shape:
    """Dimensions; `window` > 0: SpikingBrain, with GLA in even layers and a window in odd ones, or both in all (`parallel`)."""
    name: str
    arch: str
    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    n_vocab: int
    tied: bool
    rope_base: float
    eps: float
    qkv_bias: bool = False
    window: int = 0
    low_rank: int = 16   # of the GLA layers' gate
    context: int = 131072
    outliers: int = 0    # channels whose norms weigh OUTLIER: their counts leave +-127, as some of a trained model's do
    experts: Optional[Experts] = None
    parallel: bool = False       # linear and softmax attention in every layer, over `sinks` and text; all of it in the layers `full`
    full: tuple[int, ...] = ()
    sinks: int = 0

    @property
    def head(self) -> int:
        return self.n_embd // self.n_head

    @property
    def recurrent(self) -> list[bool]:
        return [bool(self.window) and (self.parallel or i % 2 == 0) for i in range(self.n_layer)]

    def kv_bytes_per_token(self) -> int:
        """F16 keys and values of all layers that grow; 0 where none does."""
        return 4 * self.head * self.n_head_kv * (len(self.full) if self.window else self.n_layer)

    def layers(self, depth: int) -> list[tuple[int, int]]:
        """Of each layer of a SpikingBrain shape: heads with a recurrent state, and rows of text that attention sees at that depth; 0: it has none."""
        if self.parallel:
            c = config(self)
            return [(c.n_states(il), min(depth, c.window(il) or depth)) for il in range(self.n_layer)]
        return [(self.n_head_kv, 0) if gla else (0, min(depth, self.window)) for gla in self.recurrent]


@dataclass(frozen=True)
class Tensor:
    """`shape` in numpy order [out, in]; `stored` the name of a GGML type; `n_in`: what the deviation of its values is 1/sqrt of, 0: ones."""
    name: str
    shape: tuple[int, ...]
    stored: str
    n_in: int

    @property
    def nbytes(self) -> int:
        return nbytes(self.shape, T[self.stored])


LLAMA_1B = Shape("Llama-3.2-1B", "llama", 16, 2048, 8192, 32, 8, 128256, True, 500000.0, 1e-5)
QWEN_7B = Shape("Qwen2.5-7B", "qwen2", 28, 3584, 18944, 28, 4, 152064, False, 1000000.0, 1e-6, qkv_bias=True)
SPIKING_1B = replace(LLAMA_1B, name="SpikingBrain-1B", arch=ARCH, qkv_bias=True, window=4096)
SPIKING_7B = replace(QWEN_7B, name="SpikingBrain-7B", arch=ARCH, window=4096)
SPIKING_76B = replace(SPIKING_7B, name="SpikingBrain-76B", parallel=True, full=(3, 10, 17, 24), sinks=128,
                      experts=Experts(16, 1, dense=(0, 1, 2, 4, 6, 8, 10), shared=True))
SPIKING_76B_SMALL = replace(SPIKING_76B, name="SpikingBrain-76B-small", n_layer=14, n_embd=896, n_ff=4736, n_head=7, n_head_kv=1, full=(3, 10),
                            experts=Experts(16, 1, dense=(0, 1, 2, 4), shared=True))
LLAMA_MOE = replace(SPIKING_76B_SMALL, name="Mixtral-like-small", arch="llama", qkv_bias=False, window=0, parallel=False, full=(), sinks=0,
                    experts=Experts(16, 2))
LLAMA_DENSE = replace(LLAMA_MOE, name="Llama-like-small", n_ff=8448, experts=None)
EXAMPLE = Shape("example", ARCH, 6, 256, 512, 4, 2, 4096, True, 10000.0, 1e-6, window=128, context=512)  # of examples/small
SHAPES = {s.name: s for s in (LLAMA_1B, SPIKING_1B, QWEN_7B, SPIKING_7B, SPIKING_76B, SPIKING_76B_SMALL, LLAMA_MOE, LLAMA_DENSE)}


def is_int8(type_: str) -> bool:
    return type_.startswith("int8")


def tiny(shape: Shape) -> Shape:
    """The same kind of model with two layers (three of experts beside dense ones) of a few hundred units: for tests and for trying a case out."""
    parts = shape.experts and {"experts": replace(shape.experts, n=4, dense=shape.experts.dense[:1])}
    return replace(shape, name=shape.name + "-tiny", n_layer=3 if shape.parallel else 2, n_embd=256, n_ff=512, n_head=4, n_head_kv=2,
                   n_vocab=512, window=min(shape.window, 128), full=(1,) if shape.full else (), sinks=min(shape.sinks, 8), **(parts or {}))


@lru_cache
def config(shape: Shape) -> ParallelConfig:
    """Of a checkpoint with parallel layers: the converter's own, which says all names, shapes and keys."""
    assert shape.parallel and shape.experts and shape.experts.shared
    return ParallelConfig(
        vocab_size=shape.n_vocab, hidden_size=shape.n_embd, num_hidden_layers=shape.n_layer, intermediate_size=shape.n_ff,
        num_attention_heads=shape.n_head, num_key_value_heads=shape.n_head_kv, max_position_embeddings=shape.context, rope_theta=shape.rope_base,
        norm_eps=shape.eps, tie_word_embeddings=shape.tied, sliding_window=shape.window, full_attn_layers=shape.full, num_meta_tokens=shape.sinks,
        dense_mlp_layers=shape.experts.dense, num_local_experts=shape.experts.n, num_experts_per_topk=shape.experts.used,
        shared_intermediate_size=shape.n_ff)


def with_outliers(shape: Shape, n: int = 8) -> Shape:
    return replace(shape, name=shape.name + OUTLIERS, outliers=n)


def shape_named(name: str) -> Shape:
    """Raises BenchError for a name that is none of SHAPES, or one of them followed by `-outliers`, by `-tiny`, or by both."""
    base = name.removesuffix("-tiny").removesuffix(OUTLIERS)
    if base not in SHAPES:
        raise BenchError(f"bench: shape: got {name!r}, expected one of {', '.join(SHAPES)}; do name one of these")
    shape = with_outliers(SHAPES[base]) if OUTLIERS in name else SHAPES[base]
    return tiny(shape) if name.endswith("-tiny") else shape


def check(shape: Shape, type_: str, spikes: bool) -> None:
    """Refuses what no model can be made of."""
    where = f"bench: {shape.name} {type_}"
    if type_ not in TYPES:
        raise BenchError(f"{where}: type: got {type_!r}, expected one of {', '.join(TYPES)}; do name one of these")
    if (spikes or is_int8(type_)) and not shape.window:
        raise BenchError(f"{where}: got spikes or INT8 for {shape.arch}, expected a SpikingBrain shape; do use q4_0 or q8_0")
    block = GROUP if is_int8(type_) else 256 if type_ in ("q4_k_m", "iq4_xs") else 32
    for what, n in (("n_embd", shape.n_embd), ("n_ff", shape.n_ff)):
        if n < block or n % block:
            raise BenchError(f"{where}: {what}: got {n}, expected a multiple of {block}; do correct the shape")
    for what, n, of in (("n_head", shape.n_embd, shape.n_head), ("n_head_kv", shape.n_head, shape.n_head_kv)):
        if of < 1 or n % of:
            raise BenchError(f"{where}: {what}: got {of}, expected a divisor of {n}; do correct the shape")
    if shape.experts and not 1 <= shape.experts.used <= shape.experts.n:
        raise BenchError(f"{where}: experts: got {shape.experts.used} used of {shape.experts.n}, expected 1 or more, and no more than there are; do correct the shape")
    if shape.head % 2 or shape.n_layer < 1 or shape.n_vocab < 259:
        raise BenchError(f"{where}: got head size {shape.head}, {shape.n_layer} layers, {shape.n_vocab} tokens, expected an even head "
                         "size, at least 1 layer and 259 tokens; do correct the shape")


def stored(type_: str, name: str, layer: int, n_layer: int) -> str:
    """Of a matrix of a layer, as upstream's quantiser chooses it."""
    if type_ != "q4_k_m":
        return type_.upper()
    more = layer < n_layer // 8 or layer >= 7 * n_layer // 8 or (layer - n_layer // 8) % 3 == 2
    return "Q6_K" if more and name in MORE_BITS else "Q4_K"


def matrix(name: str, shape: tuple[int, ...], type_: str, n_layer: int) -> list[Tensor]:
    """One tensor, or INT8 codes and their scales; `shape` with the experts first, where they are stacked. name: blk.LAYER.PART"""
    n_in = shape[-1]
    _, layer, part = name.split(".")
    if is_int8(type_):
        return [Tensor(f"{name}.weight", shape, "I8", n_in), Tensor(f"{name}.scales", (*shape[:-1], n_in // GROUP), "F32", n_in)]
    return [Tensor(f"{name}.weight", shape, stored(type_, part.removesuffix("_exps"), int(layer), n_layer), n_in)]


def outer_types(type_: str) -> tuple[str, str]:
    """Of the embedding and the output."""
    return {"int8": ("BF16", "F16"), "int8-q8": ("Q8_0", "Q8_0"), **dict.fromkeys(("q4_1", "q4_k_m", "iq4_xs"), ("Q6_K", "Q6_K"))}.get(type_, (type_.upper(), type_.upper()))


def parallel_tensors(shape: Shape, type_: str) -> list[Tensor]:
    """Those that sb-convert writes of such a checkpoint."""
    embedding, output = outer_types(type_)
    out: list[Tensor] = []
    for t in targets(config(shape)):
        if t.kind in PROJECTIONS:
            out += matrix(t.gguf.removesuffix(".weight"), t.shape, type_, shape.n_layer)
        else:
            ones = t.gguf.endswith(("norm.weight", "time_mix_decay.weight"))
            stored = {"embedding": embedding, "output": output}.get(t.kind, "F32")
            out.append(Tensor(t.gguf, t.shape, stored, 0 if ones else shape.n_embd if len(t.shape) == 1 else t.shape[-1]))
    return out


def tensors(shape: Shape, type_: str) -> list[Tensor]:
    """Names and shapes as upstream's and ours (converter/README.md) have them. Matrices: `type_` alone, the embedding and the
    output too, so that both sides read the same; with int8 these two are BF16 and F16, as sb-convert writes them."""
    if shape.parallel:
        return parallel_tensors(shape, type_)
    embedding, output = outer_types(type_)
    e, ff, kv = shape.n_embd, shape.n_ff, shape.n_head_kv * shape.head
    out = [Tensor("token_embd.weight", (shape.n_vocab, e), embedding, e), Tensor("output_norm.weight", (e,), "F32", 0)]
    if not shape.tied:
        out.append(Tensor("output.weight", (shape.n_vocab, e), output, e))
    for i, gla in enumerate(shape.recurrent):
        b = f"blk.{i}."
        out += [Tensor(b + "attn_norm.weight", (e,), "F32", 0), Tensor(b + "ffn_norm.weight", (e,), "F32", 0)]
        stacked = (shape.experts.n,) if shape.experts else ()
        if stacked:
            out.append(Tensor(b + "ffn_gate_inp.weight", (*stacked, e), "F32", e))
        for name, n_out, n_in in (("attn_q", e, e), ("attn_k", kv, e), ("attn_v", kv, e), ("attn_output", e, e),
                                  ("ffn_gate", ff, e), ("ffn_up", ff, e), ("ffn_down", e, ff)):
            routed = bool(stacked) and name.startswith("ffn")
            out += matrix(b + name + "_exps" * routed, (*(stacked if routed else ()), n_out, n_in), type_, shape.n_layer)
            if shape.qkv_bias and name in ("attn_q", "attn_k", "attn_v"):
                out.append(Tensor(f"{b}{name}.bias", (n_out,), "F32", e))
        if gla:
            out += [Tensor(b + "time_mix_decay_w1.weight", (shape.low_rank, e), "F32", e),
                    Tensor(b + "time_mix_decay_w2.weight", (kv, shape.low_rank), "F32", shape.low_rank),
                    Tensor(b + "time_mix_decay_w2.bias", (kv,), "F32", e), Tensor(b + "ssm_norm.weight", (shape.head,), "F32", 0)]
    return out


def model_bytes(shape: Shape, type_: str) -> int:
    return sum(t.nbytes for t in tensors(shape, type_))


def weight_bytes_per_token(shape: Shape, type_: str) -> int:
    """What decoding one token must read of the file: all of it, but for an embedding that is not the output, too (one row), experts
    that are not chosen, and what a new sequence starts from."""
    n, used = (shape.experts.n, shape.experts.used) if shape.experts else (1, 1)
    return sum(t.nbytes * used // n if "_exps." in t.name else t.nbytes for t in tensors(shape, type_)
               if (shape.tied or t.name != "token_embd.weight") and not t.name.endswith((".sinks", ".state")))


def state_bytes_per_token(shape: Shape, depth: int, int8_window: bool = False, kv: str = "f16") -> int:
    """What decoding one token at `depth` must read of the context: keys and values of type `kv`; a GLA state is read and written."""
    if not shape.window:
        block, size = GGML_QUANT_SIZES[T[kv.upper()]]
        return shape.kv_bytes_per_token() // 2 * size // block * depth
    d, kv_heads = shape.head, shape.n_head_kv
    row = d + 4 if int8_window else 2 * d
    return sum(2 * 4 * d * d * states + 2 * row * kv_heads * (seen and seen + shape.sinks) for states, seen in shape.layers(depth))


def products(shape: Shape) -> list[tuple[int, int, int]]:
    """(inputs, outputs, how often) of the matrix products of one decoded token."""
    e, ff, kv, n = shape.n_embd, shape.n_ff, shape.n_head_kv * shape.head, shape.n_layer
    return [(e, e, 2 * n), (e, kv, 2 * n), (e, ff, 2 * n), (ff, e, n), (e, shape.n_vocab, 1)]
