"""Whether and how a model spikes: the keys `spikingbrain.spike.*` of the file, what load-time arguments make of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional, Union

import numpy as np
from sb_convert.constants import ARCH, DEFAULT_K

ENABLE, K, SCOPE = (f"{ARCH}.spike.{name}" for name in ("enable", "k", "scope"))
DEFAULT_SCOPE = "paper"  # of a file without the keys, whose k is DEFAULT_K

Value = Union[bool, int, float, str]


@dataclass(frozen=True)
class Spiking:
    enabled: bool
    k: float
    scope: str  # "paper": every projection; "released": not the MLP's down projection

    @classmethod
    def of(cls, metadata: Mapping[str, str], overrides: Mapping[str, Value]) -> "Spiking":
        """metadata: as llama.cpp prints it."""
        if metadata.get("general.architecture") != ARCH:
            return cls(False, DEFAULT_K, DEFAULT_SCOPE)
        enabled = overrides.get(ENABLE, metadata.get(ENABLE, "false") == "true")
        return cls(bool(enabled), float(overrides.get(K, metadata.get(K, DEFAULT_K))), metadata.get(SCOPE, DEFAULT_SCOPE))


def with_arguments(kv_overrides: Optional[Mapping[str, Value]], spike: Optional[bool], spike_k: Optional[float]) -> dict[str, Value]:
    """kv_overrides, and what the arguments spike and spike_k add to them. ValueError, TypeError: either is no good."""
    kv_overrides = {} if kv_overrides is None else kv_overrides
    if not isinstance(kv_overrides, Mapping) or not all(isinstance(key, str) for key in kv_overrides):
        raise TypeError(f"llama: kv_overrides: got {kv_overrides!r:.60}, expected a dict of keys and values")
    out = dict(kv_overrides)
    if spike is not None:
        if not isinstance(spike, (bool, np.bool_)):
            raise TypeError(f"llama: spike: got {type(spike).__name__}, expected True, False or None")
        _add(out, "spike", ENABLE, bool(spike))
    if spike_k is not None:
        _add(out, "spike_k", K, _positive_k(spike_k))
    if spike_k is not None and out.get(ENABLE) is False:
        raise ValueError(f"llama: spike_k: got {spike_k} for a model told not to spike, expected one that does; leave one of the two out")
    return out


def check_arguments(spiking: Spiking, architecture: Optional[str], spike: Optional[bool], spike_k: Optional[float],
                    spike_stats: bool) -> None:
    """ValueError: an argument that means nothing to the model just loaded."""
    given = {"spike": spike, "spike_k": spike_k, "spike_stats": spike_stats or None}
    for name, value in given.items():
        if value is None:
            continue
        if architecture != ARCH:
            raise ValueError(f"llama: {name}: got {value} for a model of architecture {architecture}, expected {ARCH}; leave it out")
        if name != "spike" and not spiking.enabled:
            raise ValueError(f"llama: {name}: got {value} for a model that does not spike, expected one that does; "
                             "load it with spike=True (sb-spikes: --spike)")


def keep_shape(spike_stats: bool, spike_keep: Optional[tuple[int, int]]) -> tuple[int, int]:
    """(tokens, neurons) whose counts are kept."""
    if spike_keep is None:
        return 0, 0
    if not spike_stats:
        raise ValueError("llama: spike_keep: got it without spike_stats, expected both; give spike_stats=True")
    if not isinstance(spike_keep, tuple) or len(spike_keep) != 2 or not all(type(n) is int for n in spike_keep):
        raise TypeError(f"llama: spike_keep: got {spike_keep!r}, expected (tokens, neurons), two integers")
    if not all(0 < n < 2**31 for n in spike_keep):
        raise ValueError(f"llama: spike_keep: got {spike_keep}, expected numbers of tokens and neurons above 0")
    return spike_keep


def _positive_k(k: float) -> float:
    if isinstance(k, (bool, np.bool_)) or not isinstance(k, (int, float, np.integer, np.floating)):
        raise TypeError(f"llama: spike_k: got {type(k).__name__}, expected a number")
    with np.errstate(over="ignore", under="ignore"):
        if not (np.isfinite(np.float32(k)) and np.float32(k) > 0):  # the model computes with float32
            raise ValueError(f"llama: spike_k: got {k}, expected a number above 0, such as 3.0")
    return float(k)


def _add(overrides: dict[str, Value], argument: str, key: str, value: Value) -> None:
    if key in overrides and overrides[key] != value:
        raise ValueError(f"llama: {argument}: got {value}, and {overrides[key]} for {key} in kv_overrides; leave one of the two out")
    overrides[key] = value
