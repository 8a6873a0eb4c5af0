"""Arguments: checks of theirs, and llama-cpp-python's that have no meaning here: accepted at neutral values, refused by name otherwise."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any, Callable, Optional

import numpy as np

from . import _core

_GPU = "this build computes on CPUs"
_ROPE = "positions are exact at any length; set the model's keys with kv_overrides"
_MODEL = "the model's memory decides"
MAX_UBATCH = 2**20  # tokens

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


def integer(where: str, value: Any) -> int:
    """The value, which must be an integer. TypeError: it is not."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{where}: got {type(value).__name__}, expected an integer")
    return int(value)


def flag(where: str, value: Any) -> bool:
    """True or False, also as 1 and 0; what Python takes for true ("no", b"0") is a TypeError."""
    if isinstance(value, (bool, np.bool_)) or type(value) is int and value in (0, 1):
        return bool(value)
    raise TypeError(f"{where}: got {value!r}, expected True or False")


def check_range(where: str, value: Any, low: int = 1, high: int = 2**31 - 1) -> int:
    """ValueError: value is not an integer from low to high."""
    if not low <= integer(where, value) <= high:
        raise ValueError(f"{where}: got {value}, expected {low} to {high}")
    return int(value)


def check_path(where: str, value: Any) -> str:
    """A path as text."""
    path = os.fspath(value) if isinstance(value, (str, os.PathLike)) else value
    if not isinstance(path, str):
        raise TypeError(f"{where}: got {type(value).__name__}, expected a path as text")
    return path


def check_scale(where: str, value: Any) -> float:
    """The number itself. TypeError, ValueError: no finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{where}: got {type(value).__name__}, expected a number")
    if not math.isfinite(value):
        raise ValueError(f"{where}: got {value}, expected a finite number")
    return float(value)


def check_batch(where: str, n_batch: int, n_ubatch: int) -> None:
    """llama.cpp makes lists of a micro-batch's tokens before anything can say that the memory does not suffice."""
    if min(n_batch, n_ubatch) > MAX_UBATCH:
        raise ValueError(f"{where}: n_ubatch: got {n_ubatch}, expected at most {MAX_UBATCH} with n_batch={n_batch}; lower one of the two")


def check_seed(where: str, seed: Any) -> int:
    """-1 and 2^32 - 1 are random."""
    if not -1 <= integer(where, seed) < 2**32:
        raise ValueError(f"{where}: got {seed}, expected -1 to 2^32 - 1; -1 is random")
    return _core.DEFAULT_SEED if seed == -1 else int(seed)


def check_calls(where: str, progress: Optional[Callable[..., Any]], cancel: Optional[_core.CancelToken]) -> None:
    """TypeError: progress is no function, or cancel no CancelToken."""
    if progress is not None and not callable(progress):
        raise TypeError(f"{where}: progress: got {type(progress).__name__}, expected a function of (done, total)")
    if cancel is not None and not isinstance(cancel, _core.CancelToken):
        raise TypeError(f"{where}: cancel: got {type(cancel).__name__}, expected a CancelToken")


def check_cache_type(where: str, value: Any) -> int:
    """A ggml type, -1: the model's own."""
    return -1 if value is None else integer(where, value)


def check_pooling(value: Any) -> int:
    """-1 the model's own, 0 none, 1 mean, 2 first, 3 last."""
    if isinstance(value, bool) or value not in (-1, 0, 1, 2, 3):
        raise ValueError(f"llama: pooling_type: got {value!r}, expected -1 (the model's own), 0 (none), 1 (mean), 2 (first) or 3 (last)")
    return int(value)
