"""llama-cpp-python's constructor arguments that have no meaning here: accepted at their neutral values, refused by name otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_GPU = "this build computes on CPUs"
_ROPE = "positions are exact at any length; set the model's keys with kv_overrides"
_MODEL = "the model's memory decides"

# argument: (values that change nothing, why another cannot be had)
NEUTRAL: dict[str, tuple[tuple[Any, ...], str]] = {
    "split_mode": ((0, 1, 2), _GPU),
    "main_gpu": ((0,), _GPU),
    "tensor_split": ((None,), _GPU),
    "offload_kqv": ((True, False), _GPU),
    "op_offload": ((None, True, False), _GPU),
    "rope_scaling_type": ((None, -1), _ROPE),
    "rope_freq_base": ((0, None), _ROPE),
    "rope_freq_scale": ((0, None), _ROPE),
    "yarn_ext_factor": ((-1, None), _ROPE),
    "yarn_attn_factor": ((1, None), _ROPE),
    "yarn_beta_fast": ((32, None), _ROPE),
    "yarn_beta_slow": ((1, None), _ROPE),
    "yarn_orig_ctx": ((0, None), _ROPE),
    "attention_type": ((-1, 0), "the models are causal"),
    "swa_full": ((None, False), _MODEL),
    "no_perf": ((True, False), "times are not measured here"),
    "numa": ((False, 0, None), "start the program under numactl"),
    "lora_base": ((None,), "adapters are applied to the model as it is"),
    "draft_model": ((None,), "a recurrent state cannot take drafted tokens back"),
    "tokenizer": ((None,), "the file's own is used"),
    "spm_infill": ((False,), "no model here fills in the middle"),
}


def check_neutral(given: Mapping[str, Any]) -> None:
    """ValueError: an argument of NEUTRAL with a meaning that cannot be had. TypeError: one that nobody knows."""
    for name, value in given.items():
        if name not in NEUTRAL:
            raise TypeError(f"llama: {name}: got an argument that does not exist, expected one of Llama's; see help(Llama)")
        values, why = NEUTRAL[name]
        if not any(value is v or (type(value) in (int, float, bool) and v is not None and value == v) for v in values):
            expected = " or ".join(map(repr, values))
            raise ValueError(f"llama: {name}: got {value!r}, expected {expected}: {why}; leave it out")


def check_pooling(value: Any) -> int:
    """-1 the model's own, 0 none, 1 mean, 2 first, 3 last."""
    if isinstance(value, bool) or value not in (-1, 0, 1, 2, 3):
        raise ValueError(f"llama: pooling_type: got {value!r}, expected -1 (the model's own), 0 (none), 1 (mean), 2 (first) or 3 (last)")
    return int(value)
