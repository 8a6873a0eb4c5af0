"""config.json of a `gla_swa` checkpoint, with its own field names, and what of it the graph implements."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config_fields import check_fields, check_layer_types, one_dtype, plain_rope
from .errors import bad
from .files import read_json

ARCHITECTURE = "GLAswaForCausalLM"
MAX_LAYERS = 512  # LLAMA_MAX_LAYERS of the fork
NULL_IS_ABSENT = ("use_short_conv", "tie_word_embeddings", "initializer_range")


@dataclass(frozen=True)
class Config:
    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int
    vocab_size: int
    num_attention_heads: int
    num_key_value_heads: int
    attn_layers: tuple[int, ...]  # zero-based sliding-window layers; the others are gla
    sliding_window: int           # keys a query sees, its own included
    rope_theta: float
    norm_eps: float
    max_position_embeddings: int = 131072
    tie_word_embeddings: bool = False
    use_short_conv: bool = False
    elementwise_affine: bool = True
    hidden_act: str = "swish"
    model_type: str = "gla_swa"
    torch_dtype: str = "bfloat16"
    initializer_range: float = 0.02
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    rope_scaling: Any = None
    gate_logit_normalizer: float = 16.0
    more_eos_token_ids: tuple[int, ...] = ()  # of a list of ends, those after the first
    gate_low_rank_dim: int = 16   # whatever the file says, gk_proj.0's shape decides; 0 = full matrix

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def kv_size(self) -> int:
        return self.num_key_value_heads * self.head_dim

    def is_gla(self, il: int) -> bool:
        return il not in self.attn_layers

    @property
    def gla_layers(self) -> tuple[int, ...]:
        return tuple(il for il in range(self.num_hidden_layers) if self.is_gla(il))

    def truncated(self, n_layer: int) -> "Config":
        """The same model with its first n_layer layers only."""
        layers = tuple(il for il in self.attn_layers if il < n_layer)
        return dataclasses.replace(self, num_hidden_layers=n_layer, attn_layers=layers)

    def to_json(self) -> dict[str, Any]:
        fields = dataclasses.asdict(self)
        more = fields.pop("more_eos_token_ids")
        if more:
            fields["eos_token_id"] = [self.eos_token_id, *more]
        del fields["gate_low_rank_dim"]
        fields["attn_layers"] = list(self.attn_layers)
        return {"architectures": [ARCHITECTURE], **fields}

    @classmethod
    def from_json(cls, raw: dict[str, Any], where: str = "config.json") -> "Config":
        raw = one_dtype(plain_rope(raw, where), where)
        known = {f.name: f for f in dataclasses.fields(cls)}
        check_fields(raw, set(known), where)
        check_layer_types(raw, where)
        _check_architectures(raw, where)
        if raw.get("head_dim") is not None:
            _check_head_dim(raw, where)
        raw = {k: v for k, v in raw.items() if k != "more_eos_token_ids" and (v is not None or k not in NULL_IS_ABSENT)}
        if isinstance(raw.get("eos_token_id"), list):
            eos = _typed(raw["eos_token_id"], "tuple[int, ...]", "eos_token_id", where)
            raw |= {"eos_token_id": eos[0] if eos else None, "more_eos_token_ids": list(eos[1:])}
        values = {name: _typed(raw[name], f.type, name, where) for name, f in known.items() if name in raw}
        for name, f in known.items():
            if name not in values and f.default is dataclasses.MISSING:
                raise bad(where, name, "nothing", f"a value ({f.type})", "add it as the model's authors publish it")
        config = cls(**values)
        config.validate(where)
        return config

    @classmethod
    def load(cls, folder: Path) -> "Config":
        path = Path(folder) / "config.json"
        raw = read_json(path)
        if raw.get("model_type") != "gla_swa":  # first, so that another model's config is told at once
            raise bad(path, "model_type", repr(raw.get("model_type")), "'gla_swa'", "give a SpikingBrain checkpoint")
        return cls.from_json(raw, str(path))

    def validate(self, where: str = "config.json") -> None:
        """Refuses what the graph does not implement."""
        for name, ok, expected, do in self._rules():
            if not ok:
                raise bad(where, name, repr(getattr(self, name)), expected, do)

    def _rules(self) -> list[tuple[str, bool, str, str]]:
        n_layer, n_head, n_kv = self.num_hidden_layers, self.num_attention_heads, self.num_key_value_heads
        other = "this graph does not implement other values"
        fix = "correct config.json"
        positive = ("hidden_size", "intermediate_size", "vocab_size", "num_attention_heads", "num_key_value_heads",
                    "sliding_window", "max_position_embeddings")
        rules = [(name, 0 < getattr(self, name) < 2**31, "an integer from 1 to 2^31 - 1", fix) for name in positive]
        rules += [
            ("model_type", self.model_type == "gla_swa", "'gla_swa'", "give a SpikingBrain checkpoint"),
            ("num_hidden_layers", 0 < n_layer <= MAX_LAYERS, f"1 to {MAX_LAYERS}", fix),
            ("use_short_conv", not self.use_short_conv, "false", "no published model uses it, and the graph has no short convolution"),
            ("hidden_act", self.hidden_act in ("swish", "silu"), "'swish' or 'silu'", other),
            ("elementwise_affine", self.elementwise_affine, "true", other),
            ("rope_scaling", self.rope_scaling is None, "null", other),
        ]
        rules += [(name, 1e-37 < getattr(self, name) < 1e38, "a number above 0 that float32 holds" if getattr(self, name) > 0 else "a number above 0", fix)
                  for name in ("rope_theta", "norm_eps", "gate_logit_normalizer")]
        if not all(ok for _, ok, _, _ in rules):
            return rules
        d, rest = divmod(self.hidden_size, n_head)
        return rules + [
            ("num_attention_heads", rest == 0, f"a divisor of hidden_size = {self.hidden_size}", fix),
            ("num_attention_heads", d % 2 == 0, "an even head size (rotary pairs)", fix),
            ("num_key_value_heads", n_head % n_kv == 0, f"a divisor of num_attention_heads = {n_head}", fix),
            ("sliding_window", self.sliding_window <= self.max_position_embeddings, f"at most max_position_embeddings = {self.max_position_embeddings}",
             "no longer window was trained, and the fork refuses it"),
            ("attn_layers", all(0 <= il < n_layer for il in self.attn_layers), f"indices from 0 to {n_layer - 1}", fix),
            ("attn_layers", len(set(self.attn_layers)) == len(self.attn_layers), "each layer once", fix),
            ("bos_token_id", self._is_token(self.bos_token_id), f"null or 0 to {self.vocab_size - 1}", fix),
            ("eos_token_id", self._is_token(self.eos_token_id), f"null or 0 to {self.vocab_size - 1}", fix),
            ("more_eos_token_ids", all(map(self._is_token, self.more_eos_token_ids)), f"0 to {self.vocab_size - 1} (eos_token_id)", fix),
        ]

    def _is_token(self, token: int | None) -> bool:
        return token is None or 0 <= token < self.vocab_size


def _check_architectures(raw: dict[str, Any], where: str) -> None:
    """A classifier or an encoder of the same layers is another model."""
    held = raw.get("architectures")
    if held and held != [ARCHITECTURE]:
        raise bad(where, "architectures", repr(held), f"['{ARCHITECTURE}']", "give a checkpoint of the language model")


def _check_head_dim(raw: dict[str, Any], where: str) -> None:
    n_head, size = raw.get("num_attention_heads"), raw.get("hidden_size")
    if isinstance(n_head, int) and isinstance(size, int) and n_head > 0 and raw["head_dim"] != size / n_head:
        raise bad(where, "head_dim", raw["head_dim"], "hidden_size / num_attention_heads", "this graph has no other head size")


def _typed(value: Any, kind: str, name: str, where: str) -> Any:
    """A JSON value as the dataclass wants it; a string where a number belongs is an error, not a guess."""
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if kind == "int" and is_int or kind == "bool" and isinstance(value, bool) or kind == "str" and isinstance(value, str):
        return value
    if kind == "float" and (is_int and abs(value) < 2**63 or isinstance(value, float)):
        return float(value)
    if kind == "int | None" and (value is None or is_int) or kind == "Any":
        return value
    if kind.startswith("tuple") and isinstance(value, list) and all(isinstance(v, int) and not isinstance(v, bool) for v in value):
        return tuple(value)
    raise bad(where, name, f"{value!r} ({type(value).__name__})", kind.replace("tuple[int, ...]", "a list of integers"), "correct config.json")
