"""adapter_config.json of a PEFT LoRA adapter: each field is meant, changes nothing here, or is refused by name."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import bad
from .files import read_json

MERGE = "merge the adapter into its model (PEFT's merge_and_unload), save that and convert it"
# read below
MEANT = ("peft_type", "init_lora_weights", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "target_modules", "exclude_modules",
         "layers_to_transform", "layers_pattern", "alora_invocation_tokens", "base_model_name_or_path")
# of the training, of the book-keeping, or without meaning beside a field of REFUSED
HARMLESS = ("auto_mapping", "peft_version", "task_type", "revision", "inference_mode", "lora_dropout", "runtime_config", "megatron_core", "qalora_group_size",
            "eva_config", "corda_config", "loftq_config", "lora_ga_config", "velora_config", "ensure_weight_tying")
# the value that changes nothing besides null, false and what is empty; what another one would need
REFUSED = {
    "bias": ("none", "trained biases, which a GGUF adapter has no place for"),
    "fan_in_fan_out": (False, "matrices stored [in, out], which this model has none of"),
    "modules_to_save": (None, "whole modules beside the low-rank matrices, which a GGUF adapter has no place for"),
    "use_dora": (False, "DoRA's magnitudes, which a GGUF adapter has no place for"),
    "lora_bias": (False, "a bias behind lora_B, which a GGUF adapter has no place for"),
    "trainable_token_indices": (None, "trained rows of the embedding, which a GGUF adapter has no place for"),
    "target_parameters": (None, "adapters of bare parameters, which are not implemented"),
    "layer_replication": (None, "a model with repeated layers, which is another one than the base"),
    "use_qalora": (False, "QALoRA's pooled inputs, which are not implemented"),
    "use_bdlora": (None, "block-diagonal matrices, which are not implemented"),
    "arrow_config": (None, "a choice between adapters for each token, which is not implemented"),
    "kasa_config": (None, "KaSA's singular values, which are not implemented"),
    "monteclora_config": (None, "sampled adapters, which are not implemented"),
    "megatron_config": (None, "Megatron's parallel layers, which are not implemented"),
}
# how the matrices began; all others (pissa, olora, corda, loftq, lora_ga) also changed the base that the adapter belongs to
BASE_UNCHANGED = (True, False, None, "gaussian", "eva", "orthogonal", "mica")


@dataclass(frozen=True)
class AdapterConfig:
    """Which matrices of the base have an adapter, of which rank and with which factor. Modules are named as in the base's
    checkpoint: `model.layers.0.attn.q_proj`."""
    where: Path
    r: int
    lora_alpha: float
    use_rslora: bool
    rank_pattern: dict[str, int]
    alpha_pattern: dict[str, float]
    target_modules: str | list[str]
    exclude_modules: str | list[str]
    layers_to_transform: list[int]
    layers_pattern: list[str]
    alora_invocation_tokens: list[int]
    base_model_name_or_path: str

    @classmethod
    def load(cls, folder: Path) -> "AdapterConfig":
        """ConvertError: a field that is missing, wrong or not implemented."""
        path = folder / "adapter_config.json"
        raw = read_json(path)
        check_fields(raw, path)
        held = {name: _checked(raw, name, path) for name in READ}
        if not held["target_modules"]:
            raise bad(path, "target_modules", "nothing", "the names of the modules that the adapter changes", "save the adapter with PEFT's save_pretrained")
        return cls(path, **held)

    def rank(self, module: str) -> int:
        """Rows of lora_A and columns of lora_B of a module."""
        return self._matched("rank_pattern", module, self.r)

    def scaling(self, module: str) -> float:
        """What B A is multiplied by before it is added to the module's matrix."""
        alpha, r = self._matched("alpha_pattern", module, self.lora_alpha), self.rank(module)
        return alpha / (math.sqrt(r) if self.use_rslora else r)

    def names(self, module: str) -> bool:
        """Whether target_modules, exclude_modules and layers_to_transform say that a module has an adapter, as PEFT reads them."""
        if self._listed("exclude_modules", module) or not self._listed("target_modules", module):
            return False
        if isinstance(self.target_modules, str) or not self.layers_to_transform:
            return True
        patterns = [rf"(?:^|.*?\.){p}\.(\d+)\." for p in self.layers_pattern] or [r".*?\.[^.]*\.(\d+)\."]
        found = next((m for p in patterns if (m := self._match("layers_pattern", p, module))), None)
        return found is not None and int(found[1]) in self.layers_to_transform

    def _listed(self, field: str, module: str) -> bool:
        names = getattr(self, field)
        if isinstance(names, str):
            return bool(names) and (names == "all-linear" or self._match(field, rf"(?:{names})\Z", module) is not None)
        return any(module == name or module.endswith(f".{name}") for name in names)

    def _matched(self, field: str, module: str, absent: Any) -> Any:
        """What the first key of a pattern says that matches the end of a module's name."""
        return next((value for key, value in getattr(self, field).items() if self._match(field, rf"(.*\.)?({key})$", module)), absent)

    def _match(self, field: str, pattern: str, module: str) -> "re.Match[str] | None":
        try:
            return re.match(pattern, module)
        except re.error as e:
            raise bad(self.where, field, f"{pattern!r} ({e})", "a regular expression", "correct adapter_config.json") from None


def check_fields(raw: dict[str, Any], where: Path) -> None:
    """Refuses by name what a GGUF adapter cannot hold, and what nobody here knows."""
    if raw.get("peft_type") != "LORA":
        raise bad(where, "peft_type", shown(raw.get("peft_type")), '"LORA"', MERGE)
    began = raw.get("init_lora_weights", True)
    if not any(began is known or isinstance(known, str) and began == known for known in BASE_UNCHANGED):
        raise bad(where, "init_lora_weights", shown(began), f"one of {', '.join(map(json.dumps, BASE_UNCHANGED))}; this one changed the base, too",
                  "save the adapter with path_initial_model_for_weight_conversion, which makes it one of the unchanged base")
    for name, value in raw.items():
        if name in MEANT or name in HARMLESS or value in (None, False, "") or isinstance(value, (list, dict)) and not value:
            continue
        neutral, needs = REFUSED.get(name, (None, "a meaning that is not known here"))
        if value != neutral:
            do = MERGE if name in REFUSED else "take the field out of adapter_config.json if it is of the training alone"
            raise bad(where, name, shown(value), f"{json.dumps(neutral)}: another value has {needs}", do)


def shown(value: Any) -> str:
    """As it stands in the file."""
    return "nothing" if value is None else json.dumps(value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return (_whole(value) or isinstance(value, float)) and abs(value) < 1e30  # in float32 with room for a rank


def _of(kind: Callable[[Any], bool], least: int | None = None) -> Callable[[Any], bool]:
    return lambda value: kind(value) and (least is None or value >= least)


def _list(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(kind, value))


def _dict(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(kind, value.values()))


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _texts(value: Any) -> bool:
    return _text(value) or _list(_text)(value)


# field: whether a value is right, what is expected, what null or no value means (None: there must be one)
READ: dict[str, tuple[Callable[[Any], bool], str, Any]] = {
    "r": (_of(_whole, 1), "an integer of 1 or more", None),
    "lora_alpha": (_number, "a number below 1e30", None),
    "use_rslora": (lambda value: isinstance(value, bool), "true or false", False),
    "rank_pattern": (_dict(_of(_whole, 1)), "an object of module names and integers of 1 or more", {}),
    "alpha_pattern": (_dict(_number), "an object of module names and numbers below 1e30", {}),
    "target_modules": (_texts, "a list of names, or a regular expression", ""),
    "exclude_modules": (_texts, "a list of names, or a regular expression", []),
    "layers_to_transform": (_list(_of(_whole, 0)), "a layer, or a list of layers", []),
    "layers_pattern": (_list(_text), "a name, or a list of names", []),
    "alora_invocation_tokens": (_list(_of(_whole, 0)), "a list of token ids", []),
    "base_model_name_or_path": (_text, "a name", ""),
}


def _checked(raw: dict[str, Any], name: str, where: Path) -> Any:
    right, expected, absent = READ[name]
    value = raw.get(name)
    if value is None and absent is not None:
        return absent
    if name == "layers_to_transform" and _whole(value) or name == "layers_pattern" and _text(value):
        value = [value] if value != "" else []
    if not right(value):
        raise bad(where, name, shown(value), expected, "correct adapter_config.json")
    return float(value) if name == "lora_alpha" else value
