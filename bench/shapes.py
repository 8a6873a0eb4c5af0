"""The models, by shape: dimensions, tensors and bytes. No weights exist here; make_model.py draws them.

Llama-3.2-1B and Qwen2.5-7B have the published dimensions. The paper gives no sizes for SpikingBrain-1B: it has those of
Llama-3.2-1B, GLA and sliding-window layers 1:1 (even layers GLA), window 4096. SpikingBrain-7B has those of Qwen2.5-7B.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .errors import BenchError

TYPES = ("q4_0", "q8_0", "int8", "int8-q8")  # int8-q8: INT8 with the embedding and the output in Q8_0
BYTES = {"F32": (4, 1), "F16": (2, 1), "BF16": (2, 1), "I8": (1, 1), "Q4_0": (18, 32), "Q8_0": (34, 32)}  # per block of values
OUTLIER = 64.0           # against ones
OUTLIERS = "-outliers"   # of a name
GROUP = 128  # inputs per scale of INT8


@dataclass(frozen=True)
class Shape:
    """Dimensions; `window` > 0: SpikingBrain, with GLA in even layers and a window in odd ones."""
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

    @property
    def head(self) -> int:
        return self.n_embd // self.n_head

    @property
    def recurrent(self) -> list[bool]:
        return [bool(self.window) and i % 2 == 0 for i in range(self.n_layer)]

    def kv_bytes_per_token(self) -> int:
        """F16 keys and values of all layers; 0 where nothing grows."""
        return 0 if self.window else 4 * self.head * self.n_head_kv * self.n_layer


@dataclass(frozen=True)
class Tensor:
    """`shape` in numpy order [out, in]; `stored` a key of BYTES; `n_in`: what the deviation of its values is 1/sqrt of, 0: ones."""
    name: str
    shape: tuple[int, ...]
    stored: str
    n_in: int

    @property
    def nbytes(self) -> int:
        size, block = BYTES[self.stored]
        n = 1
        for s in self.shape:
            n *= s
        return n // block * size


LLAMA_1B = Shape("Llama-3.2-1B", "llama", 16, 2048, 8192, 32, 8, 128256, True, 500000.0, 1e-5)
QWEN_7B = Shape("Qwen2.5-7B", "qwen2", 28, 3584, 18944, 28, 4, 152064, False, 1000000.0, 1e-6, qkv_bias=True)
SPIKING_1B = replace(LLAMA_1B, name="SpikingBrain-1B", arch="spikingbrain", qkv_bias=True, window=4096)
SPIKING_7B = replace(QWEN_7B, name="SpikingBrain-7B", arch="spikingbrain", window=4096)
EXAMPLE = Shape("example", "spikingbrain", 6, 256, 512, 4, 2, 4096, True, 10000.0, 1e-6, window=128, context=512)  # of examples/small
SHAPES = {s.name: s for s in (LLAMA_1B, SPIKING_1B, QWEN_7B, SPIKING_7B)}


def is_int8(type_: str) -> bool:
    return type_.startswith("int8")


def tiny(shape: Shape) -> Shape:
    """The same kind of model with two layers of a few hundred units: for tests and for trying a case out."""
    return replace(shape, name=shape.name + "-tiny", n_layer=2, n_embd=256, n_ff=512, n_head=4, n_head_kv=2,
                   n_vocab=512, window=min(shape.window, 128))


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
    block = GROUP if is_int8(type_) else 32
    for what, n in (("n_embd", shape.n_embd), ("n_ff", shape.n_ff)):
        if n < block or n % block:
            raise BenchError(f"{where}: {what}: got {n}, expected a multiple of {block}; do correct the shape")
    for what, n, of in (("n_head", shape.n_embd, shape.n_head), ("n_head_kv", shape.n_head, shape.n_head_kv)):
        if of < 1 or n % of:
            raise BenchError(f"{where}: {what}: got {of}, expected a divisor of {n}; do correct the shape")
    if shape.head % 2 or shape.n_layer < 1 or shape.n_vocab < 259:
        raise BenchError(f"{where}: got head size {shape.head}, {shape.n_layer} layers, {shape.n_vocab} tokens, expected an even head "
                         "size, at least 1 layer and 259 tokens; do correct the shape")


def tensors(shape: Shape, type_: str) -> list[Tensor]:
    """Names and shapes as upstream's and ours (converter/README.md) have them. Matrices: `type_` alone, the embedding and the
    output too, so that both sides read the same; with int8 these two are BF16 and F16, as sb-convert writes them."""
    embedding, output = {"int8": ("BF16", "F16"), "int8-q8": ("Q8_0", "Q8_0")}.get(type_, (type_.upper(), type_.upper()))
    e, ff, kv = shape.n_embd, shape.n_ff, shape.n_head_kv * shape.head
    out = [Tensor("token_embd.weight", (shape.n_vocab, e), embedding, e), Tensor("output_norm.weight", (e,), "F32", 0)]
    if not shape.tied:
        out.append(Tensor("output.weight", (shape.n_vocab, e), output, e))
    for i, gla in enumerate(shape.recurrent):
        b = f"blk.{i}."
        out += [Tensor(b + "attn_norm.weight", (e,), "F32", 0), Tensor(b + "ffn_norm.weight", (e,), "F32", 0)]
        for name, n_out, n_in in (("attn_q", e, e), ("attn_k", kv, e), ("attn_v", kv, e), ("attn_output", e, e),
                                  ("ffn_gate", ff, e), ("ffn_up", ff, e), ("ffn_down", e, ff)):
            if is_int8(type_):
                out += [Tensor(f"{b}{name}.weight", (n_out, n_in), "I8", n_in),
                        Tensor(f"{b}{name}.scales", (n_out, n_in // GROUP), "F32", n_in)]
            else:
                out.append(Tensor(f"{b}{name}.weight", (n_out, n_in), type_.upper(), n_in))
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
    """What decoding one token must read of the file: all of it, but for an embedding that is not the output, too (one row)."""
    return sum(t.nbytes for t in tensors(shape, type_) if shape.tied or t.name != "token_embd.weight")


def state_bytes_per_token(shape: Shape, depth: int, int8_window: bool = False, kv: str = "f16") -> int:
    """What decoding one token at `depth` must read of the context: keys and values of type `kv`; a GLA state is read and written."""
    if not shape.window:
        size, block = BYTES[kv.upper()]
        return shape.kv_bytes_per_token() // 2 * size // block * depth
    d, kv_heads = shape.head, shape.n_head_kv
    row = d + 4 if int8_window else 2 * d
    gla = sum(shape.recurrent)
    return gla * 2 * 4 * d * d * kv_heads + (shape.n_layer - gla) * 2 * row * kv_heads * min(depth, shape.window)


def products(shape: Shape) -> list[tuple[int, int, int]]:
    """(inputs, outputs, how often) of the matrix products of one decoded token."""
    e, ff, kv, n = shape.n_embd, shape.n_ff, shape.n_head_kv * shape.head, shape.n_layer
    return [(e, e, 2 * n), (e, kv, 2 * n), (e, ff, 2 * n), (ff, e, n), (e, shape.n_vocab, 1)]
