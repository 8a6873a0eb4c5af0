"""config.json of a checkpoint, with its own field names, and what of it the graph implements.

How a layer mixes tokens (`mixer`) and what its MLP is (`is_moe`) are independent of each other.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from .config_fields import check_each_layer, check_fields, check_layer_types, one_dtype, one_rope
from .errors import bad
from .files import read_json
from .rope import RopeScaling, plain

MAX_LAYERS = 512   # LLAMA_MAX_LAYERS of the fork
MAX_EXPERTS = 512  # LLAMA_MAX_EXPERTS
Q_ACTIVATIONS = ("relu", "sigmoid")
FIX = "correct config.json"
OTHER = "this program does not implement other values"
Rules = list[tuple[str, bool, str, str]]  # field, whether it is right, what is expected, what to do
AnyConfig = TypeVar("AnyConfig", bound="ModelConfig")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What every layout has."""
    ARCHITECTURE: ClassVar[str]
    MODEL_TYPES: ClassVar[tuple[Any, ...]]
    NULL_IS_ABSENT: ClassVar[tuple[str, ...]] = ("use_short_conv", "tie_word_embeddings", "initializer_range", "head_dim", "qkv_bias", "use_qk_norm")
    LAYER_LISTS: ClassVar[tuple[str, ...]] = ()                    # fields that name layers
    OURS: ClassVar[tuple[str, ...]] = ("more_eos_token_ids",)      # fields that no file has
    ALSO: ClassVar[tuple[str, ...]] = ()                           # fields that change nothing in this layout, or are checked against others
    SAME_AS: ClassVar[dict[str, str]] = {}                         # other projects' words for fields of this layout
    # what a layout may have as a field of its own
    qkv_bias: ClassVar[bool] = True
    use_qk_norm: ClassVar[bool] = False

    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int        # of a dense MLP, and of each routed expert
    vocab_size: int
    num_attention_heads: int
    num_key_value_heads: int
    sliding_window: int           # keys a query sees, its own included
    rope_theta: float
    norm_eps: float
    max_position_embeddings: int = 131072
    tie_word_embeddings: bool = False
    use_short_conv: bool = False
    hidden_act: str = "swish"
    torch_dtype: str = "bfloat16"
    initializer_range: float = 0.02
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    rope_scaling: RopeScaling | None = None
    head_dim: int = 0             # size of one head; 0: hidden_size / num_attention_heads
    more_eos_token_ids: tuple[int, ...] = ()  # of a list of ends, those after the first

    def __post_init__(self) -> None:
        if not self.head_dim and self._own_head_dim:
            object.__setattr__(self, "head_dim", self._own_head_dim)

    @property
    def _own_head_dim(self) -> int:  # 0: the heads do not divide the width
        d, rest = divmod(self.hidden_size, self.num_attention_heads) if self.num_attention_heads > 0 else (0, 1)
        return 0 if rest else d

    @property
    def q_size(self) -> int:
        """Width of all queries."""
        return self.num_attention_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Width of all keys, and of all values."""
        return self.num_key_value_heads * self.head_dim

    @property
    def n_sinks(self) -> int:
        """Learned tokens before every text."""
        return 0

    @property
    def rope_factors(self) -> np.ndarray | None:
        """What the rotary frequencies are divided by, float32 [head_dim / 2]; None: nothing."""
        return None if self.rope_scaling is None else self.rope_scaling.factors(self.rope_theta, self.head_dim)

    @property
    def rope_frequencies(self) -> np.ndarray:
        """Radians per token of each rotary pair, float64 [head_dim / 2]."""
        factors = self.rope_factors
        return plain(self.rope_theta, self.head_dim) / (1 if factors is None else factors.astype(np.float64))

    def mixer(self, il: int) -> str:
        """`gla`, `swa`, or `parallel`: softmax attention beside linear attention."""
        raise NotImplementedError

    def is_moe(self, il: int) -> bool:
        """Whether a layer's MLP is a mixture of experts."""
        return False

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """The layers with experts."""
        return tuple(il for il in range(self.num_hidden_layers) if self.is_moe(il))

    def truncated(self: AnyConfig, n_layer: int) -> AnyConfig:
        """The same model with its first n_layer layers only."""
        lists = {name: tuple(il for il in getattr(self, name) if il < n_layer) for name in self.LAYER_LISTS}
        return dataclasses.replace(self, num_hidden_layers=n_layer, **lists)

    def to_json(self) -> dict[str, Any]:
        """The object of a config.json that reads as this config."""
        fields = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items() if k not in self._unsaid()}
        if self.rope_scaling is not None:
            fields["rope_scaling"] = self.rope_scaling.to_json()
        if self.more_eos_token_ids:
            fields["eos_token_id"] = [self.eos_token_id, *self.more_eos_token_ids]
        return {"architectures": [self.ARCHITECTURE], **fields}

    def _unsaid(self) -> set[str]:
        """Fields that a config.json does without."""
        return {*self.OURS, "gate_low_rank_dim", *(() if self.head_dim != self._own_head_dim else ("head_dim",))}

    @classmethod
    def from_json(cls: type[AnyConfig], raw: dict[str, Any], where: str = "config.json") -> AnyConfig:
        """Of the layout that it is called on; on ModelConfig itself, of whichever the file says."""
        if cls is ModelConfig:
            return _layout(raw, where).from_json(raw, where)  # type: ignore[return-value]
        raw = one_dtype(one_rope(raw, where), where)
        known = {f.name: f for f in dataclasses.fields(cls)}
        check_fields(raw, set(known) - set(cls.OURS) | set(cls.ALSO), where, cls.SAME_AS)
        _check_architectures(raw, cls.ARCHITECTURE, where)
        if raw.get("head_dim") is not None:
            _check_head_dim(raw, where)
        given = {k: v for k, v in raw.items() if k not in cls.OURS and (v is not None or k not in cls.NULL_IS_ABSENT)}
        if isinstance(given.get("eos_token_id"), list):
            eos = _typed(given["eos_token_id"], "tuple[int, ...]", "eos_token_id", where)
            given |= {"eos_token_id": eos[0] if eos else None, "more_eos_token_ids": list(eos[1:])}
        values = {name: _typed(given[name], f.type, name, where) for name, f in known.items() if name in given}
        for name, f in known.items():
            if name not in values and f.default is dataclasses.MISSING:
                raise bad(where, name, "nothing", f"a value ({_kind(f.type)})", "add it as the model's authors publish it")
        config = cls(**values)
        config.validate(where)
        config.check_derived(raw, where)
        return config

    @staticmethod
    def load(folder: Path) -> "ModelConfig":
        """The config of a checkpoint folder, of whichever layout it is."""
        path = Path(folder) / "config.json"
        raw = read_json(path)
        cls = _layout(raw, str(path))
        if raw.get("model_type") not in cls.MODEL_TYPES:  # first, so that another model's config is told at once
            raise bad(path, "model_type", repr(raw.get("model_type")), repr(cls.MODEL_TYPES[0]), "give a SpikingBrain checkpoint")
        return cls.from_json(raw, str(path))

    def validate(self, where: str = "config.json") -> None:
        """Refuses what the graph does not implement."""
        for rules in (self._base_rules, self._rules):  # the second relies on the first
            for name, ok, expected, do in rules():
                if not ok:
                    raise bad(where, name, repr(getattr(self, name)), expected, do)

    def check_derived(self, raw: dict[str, Any], where: str) -> None:
        """Refuses fields of the file that say again, and otherwise, what those that are read say."""

    def _base_rules(self) -> Rules:
        positive = ("hidden_size", "intermediate_size", "vocab_size", "num_attention_heads", "num_key_value_heads",
                    "sliding_window", "max_position_embeddings")
        rules: Rules = [(name, 0 < getattr(self, name) < 2**31, "an integer from 1 to 2^31 - 1", FIX) for name in positive]
        rules += [
            ("num_hidden_layers", 0 < self.num_hidden_layers <= MAX_LAYERS, f"1 to {MAX_LAYERS}", FIX),
            ("use_short_conv", not self.use_short_conv, "false", "no published model uses it, and it is not implemented"),
            ("hidden_act", self.hidden_act in ("swish", "silu"), "'swish' or 'silu'", OTHER),
        ]
        return rules + [_float32(name, getattr(self, name)) for name in ("rope_theta", "norm_eps")]

    def _rules(self) -> Rules:
        n_head, n_kv, own = self.num_attention_heads, self.num_key_value_heads, self._own_head_dim
        return [
            ("num_attention_heads", self.head_dim > 0, f"a divisor of hidden_size = {self.hidden_size}", FIX + ", or give head_dim"),
            ("head_dim" if self.head_dim != own else "num_attention_heads", self.head_dim % 2 == 0, "an even head size (rotary pairs)", FIX),
            ("head_dim", n_head * self.head_dim < 2**31, "num_attention_heads * head_dim below 2^31", FIX),
            ("num_key_value_heads", n_head % n_kv == 0, f"a divisor of num_attention_heads = {n_head}", FIX),
            ("sliding_window", self.sliding_window <= self.max_position_embeddings, f"at most max_position_embeddings = {self.max_position_embeddings}",
             "no longer window was trained, and a longer one would be refused when the model is loaded"),
            *(rule for name in self.LAYER_LISTS for rule in self._layers(name)),
            ("bos_token_id", self._is_token(self.bos_token_id), f"null or 0 to {self.vocab_size - 1}", FIX),
            ("eos_token_id", self._is_token(self.eos_token_id), f"null or 0 to {self.vocab_size - 1}", FIX),
            ("more_eos_token_ids", all(map(self._is_token, self.more_eos_token_ids)), f"0 to {self.vocab_size - 1} (eos_token_id)", FIX),
        ]

    def _layers(self, name: str) -> Rules:
        layers = getattr(self, name)
        return [(name, all(0 <= il < self.num_hidden_layers for il in layers), f"indices from 0 to {self.num_hidden_layers - 1}", FIX),
                (name, len(set(layers)) == len(layers), "each layer once", FIX)]

    def _is_token(self, token: int | None) -> bool:
        return token is None or 0 <= token < self.vocab_size


@dataclass(frozen=True, kw_only=True)
class MoeConfig(ModelConfig):
    """MLPs that are a mixture of experts, for any layout: one routed expert of each token beside one that is always on."""
    ALSO = ("num_layer_experts",)
    SAME_AS = {"num_experts_per_tok": "num_experts_per_topk", "num_experts": "num_local_experts", "n_routed_experts": "num_local_experts",
               "moe_intermediate_size": "intermediate_size", "shared_expert_intermediate_size": "shared_intermediate_size"}
    LAYER_LISTS = ("dense_mlp_layers",)

    dense_mlp_layers: tuple[int, ...]   # zero-based; where there are experts, all others are MoE
    num_local_experts: int = 0
    num_experts_per_topk: int = 1
    shared_intermediate_size: int = 0
    norm_topk_prob: bool = False        # true: the routed expert's weight is 1, not its probability

    def is_moe(self, il: int) -> bool:
        return il not in self.dense_mlp_layers

    def check_derived(self, raw: dict[str, Any], where: str) -> None:
        super().check_derived(raw, where)
        experts = [self.num_local_experts if self.is_moe(il) else 1 for il in range(self.num_hidden_layers)]
        check_each_layer(raw, "num_layer_experts", experts, "num_local_experts and dense_mlp_layers", where)

    def _rules(self) -> Rules:
        some = bool(self.moe_layers)
        return super()._rules() + [
            ("num_experts_per_topk", self.num_experts_per_topk == 1, "1", "no model with more experts per token is published, and more are not implemented"),
            ("num_local_experts", not some or 0 < self.num_local_experts <= MAX_EXPERTS, f"1 to {MAX_EXPERTS}", FIX),
            ("shared_intermediate_size", not some or 0 < self.shared_intermediate_size < 2**31, "an integer from 1 to 2^31 - 1", FIX),
        ]


@dataclass(frozen=True, kw_only=True)
class Config(MoeConfig):
    """Gated linear attention and sliding-window attention, a layer each; 7B's layout. The fields from qkv_bias on are optional parts, which
    no published checkpoint has: those of the Transformers that one is made from, and experts."""
    ARCHITECTURE = "GLAswaForCausalLM"
    MODEL_TYPES = ("gla_swa",)
    LAYER_LISTS = ("attn_layers", "dense_mlp_layers")
    NULL_IS_ABSENT = MoeConfig.NULL_IS_ABSENT + ("dense_mlp_layers", "num_local_experts", "num_experts_per_topk", "shared_intermediate_size", "norm_topk_prob")

    attn_layers: tuple[int, ...]  # zero-based sliding-window layers; the others are gla
    elementwise_affine: bool = True
    model_type: str = "gla_swa"
    gate_logit_normalizer: float = 16.0
    gate_low_rank_dim: int = 16   # whatever the file says, gk_proj.0's shape decides; 0 = full matrix
    qkv_bias: bool = True         # type: ignore[misc]  # biases of q, k and v
    use_qk_norm: bool = False     # type: ignore[misc]  # RMSNorm of each head of q and k: before rotary, or before the gla's relu
    dense_mlp_layers: tuple[int, ...] = ()
    num_local_experts: int = 0    # 0: every MLP is dense

    def is_gla(self, il: int) -> bool:
        """Whether a layer is gated linear attention; else it has a window."""
        return il not in self.attn_layers

    def is_moe(self, il: int) -> bool:
        return self.num_local_experts != 0 and super().is_moe(il)

    def mixer(self, il: int) -> str:
        return "gla" if self.is_gla(il) else "swa"

    @property
    def gla_layers(self) -> tuple[int, ...]:
        """The layers of gated linear attention."""
        return tuple(il for il in range(self.num_hidden_layers) if self.is_gla(il))

    def check_derived(self, raw: dict[str, Any], where: str) -> None:
        super().check_derived(raw, where)
        check_layer_types(raw, where)

    def _unsaid(self) -> set[str]:
        neutral = {"qkv_bias": True, "use_qk_norm": False} | ({} if self.num_local_experts else {
            f.name: getattr(self, f.name) for f in dataclasses.fields(MoeConfig) if f.name not in {g.name for g in dataclasses.fields(ModelConfig)}})
        return super()._unsaid() | {name for name, value in neutral.items() if getattr(self, name) == value}

    def _base_rules(self) -> Rules:
        return super()._base_rules() + [
            ("model_type", self.model_type == "gla_swa", "'gla_swa'", "give a SpikingBrain checkpoint"),
            ("elementwise_affine", self.elementwise_affine, "true", OTHER),
            _float32("gate_logit_normalizer", self.gate_logit_normalizer),
        ]

    def _rules(self) -> Rules:
        none = self.num_local_experts == 0
        return super()._rules() + [
            ("num_local_experts", 0 <= self.num_local_experts <= MAX_EXPERTS, f"0 to {MAX_EXPERTS}", FIX),
            ("shared_intermediate_size", not none or self.shared_intermediate_size == 0, "0 where num_local_experts is 0", FIX),
            ("norm_topk_prob", not none or not self.norm_topk_prob, "false where num_local_experts is 0", FIX),
        ]


@dataclass(frozen=True, kw_only=True)
class ParallelConfig(MoeConfig):
    """Softmax attention beside linear attention in every layer, over text and learned sinks; 76B's layout."""
    ARCHITECTURE = "HymetaForCausalLM"
    MODEL_TYPES = ("hybrid", None)  # no distinctive word: architectures decides
    LAYER_LISTS = ("full_attn_layers", "dense_mlp_layers")
    OURS = ("more_eos_token_ids", "n_bounds")
    ALSO = ("num_layer_experts", "interleaved_sliding_window", "attn_type_list", "elementwise_affine")

    full_attn_layers: tuple[int, ...]  # zero-based layers whose softmax branch sees all text
    num_meta_tokens: int = 0           # sinks
    use_lower_bound: bool = True
    lower_bound_period: int = 7        # layers il with il % period == 0 have no lower bound
    k_clamp_max: float = 0.95          # of the linear branch's keys where there is no bound; 1: none
    linear_q_activation: str = "relu"
    model_type: str = "hybrid"
    n_bounds: int = 0                  # rows of model.lower_bounds, where a truncated model has fewer layers; 0: num_hidden_layers

    @property
    def n_sinks(self) -> int:
        return self.num_meta_tokens

    def mixer(self, il: int) -> str:
        return "parallel"

    def bound_row(self, il: int) -> int:
        """How many rows of softmax(model.lower_bounds), after the first, add up to this layer's bound; 0: it has none."""
        return il % self.lower_bound_period if self.use_lower_bound else 0

    def n_states(self, il: int) -> int:
        """Linear states: one per query head under a bound, where each has decays of its own, else one per key/value head."""
        return self.num_attention_heads if self.bound_row(il) else self.num_key_value_heads

    def window(self, il: int) -> int | None:
        """Text tokens that a query sees; None: all."""
        return None if il in self.full_attn_layers else self.sliding_window

    @property
    def bound_rows(self) -> int:
        """Rows of model.lower_bounds."""
        return (self.n_bounds or self.num_hidden_layers) if self.use_lower_bound else 0

    def _base_rules(self) -> Rules:
        return super()._base_rules() + [("rope_scaling", self.rope_scaling is None, "null", OTHER)]

    def truncated(self: "ParallelConfig", n_layer: int) -> "ParallelConfig":
        return dataclasses.replace(super().truncated(n_layer), n_bounds=self.bound_rows)

    def check_derived(self, raw: dict[str, Any], where: str) -> None:
        super().check_derived(raw, where)
        layers = range(self.num_hidden_layers)
        check_each_layer(raw, "interleaved_sliding_window", [self.window(il) or 0 for il in layers], "sliding_window and full_attn_layers", where)
        check_each_layer(raw, "layer_types", ["full_attention" if self.window(il) is None else "sliding_attention" for il in layers], "full_attn_layers", where)

    def _rules(self) -> Rules:
        return super()._rules() + [
            ("head_dim", self.head_dim == self._own_head_dim, "hidden_size / num_attention_heads", "other head sizes are not implemented here"),
            ("num_meta_tokens", 0 <= self.num_meta_tokens < 2**31, "an integer from 0 to 2^31 - 1", FIX),
            ("lower_bound_period", 0 < self.lower_bound_period < 2**31, "an integer from 1 to 2^31 - 1", FIX),
            ("k_clamp_max", 0 < self.k_clamp_max <= 1, "a number above 0, at most 1 (no clamp)", FIX),
            ("linear_q_activation", self.linear_q_activation in Q_ACTIVATIONS, " or ".join(map(repr, Q_ACTIVATIONS)), OTHER),
        ]


LAYOUTS: tuple[type[ModelConfig], ...] = (Config, ParallelConfig)


def _layout(raw: dict[str, Any], where: str) -> type[ModelConfig]:
    held = raw.get("architectures")
    for cls in LAYOUTS:
        if isinstance(held, list) and cls.ARCHITECTURE in held:
            return cls
    if raw.get("model_type") == ParallelConfig.MODEL_TYPES[0]:
        raise bad(where, "architectures", repr(held), f"['{ParallelConfig.ARCHITECTURE}'] where model_type is {raw['model_type']!r}", "give a SpikingBrain checkpoint")
    return Config


def _float32(name: str, value: float) -> tuple[str, bool, str, str]:
    return name, 1e-37 < value < 1e38, "a number above 0 that float32 holds" if value > 0 else "a number above 0", FIX


def _check_architectures(raw: dict[str, Any], ours: str, where: str) -> None:
    """A classifier or an encoder of the same layers is another model."""
    held = raw.get("architectures")
    if held and held != [ours]:
        raise bad(where, "architectures", repr(held), f"['{ours}']", "give a checkpoint of the language model")


def _check_head_dim(raw: dict[str, Any], where: str) -> None:
    d = raw["head_dim"]
    if not isinstance(d, int) or isinstance(d, bool) or not 0 < d < 2**31:
        raise bad(where, "head_dim", repr(d), "hidden_size / num_attention_heads", "or another even number; correct config.json, or leave it out")


def _kind(kind: str) -> str:
    return kind.replace("tuple[int, ...]", "a list of integers")


def _typed(value: Any, kind: str, name: str, where: str) -> Any:
    """A JSON value as the dataclass wants it; a string where a number belongs is an error, not a guess."""
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if kind == "int" and is_int or kind == "bool" and isinstance(value, bool) or kind == "str" and isinstance(value, str):
        return value
    if kind == "float" and (is_int and abs(value) < 2**63 or isinstance(value, float)):
        return float(value)
    if kind == "int | None" and (value is None or is_int) or kind == "RopeScaling | None" and (value is None or isinstance(value, RopeScaling)):
        return value
    if kind.startswith("tuple") and isinstance(value, list) and all(isinstance(v, int) and not isinstance(v, bool) for v in value):
        return tuple(value)
    raise bad(where, name, f"{value!r} ({type(value).__name__})", _kind(kind), FIX)
