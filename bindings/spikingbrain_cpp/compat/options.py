"""What Llama's constructor takes here beside spikingbrain_cpp.Llama's arguments: values that others always pass, with one warning of what they mean."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from .. import _core

_CPU = "this build computes on CPUs"
_FILE = "the file's own hold"
_OWN = "the memory keeps its own types"


@dataclass(frozen=True)
class Taken:
    """An argument that is taken and left out. known: values that are; silent: those that nobody needs to be told of; why: what holds instead."""

    known: Callable[[Any], bool]
    silent: tuple[Any, ...]
    why: str


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _one_of(*values: Any) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float, bool) and value in values


TAKEN: dict[str, Taken] = {
    "n_gpu_layers": Taken(_is(int), (0,), _CPU),
    "split_mode": Taken(_one_of(0, 1, 2, 3), (0, 1), _CPU),
    "main_gpu": Taken(_is(int), (0,), _CPU),
    "tensor_split": Taken(_is(list, tuple), (), _CPU),
    "low_vram": Taken(_is(bool), (False,), _CPU),
    "mul_mat_q": Taken(_is(bool), (), _CPU),
    "rope_freq_base": Taken(_one_of(10000.0), (), _FILE),
    "rope_freq_scale": Taken(_one_of(1.0), (), _FILE),
    "n_parts": Taken(_one_of(-1), (), _FILE),
    "f16_kv": Taken(_is(bool), (), _OWN),
}
_Q8_0, _INT8 = (_core.constants()[f"GGML_TYPE_{name}"] for name in ("Q8_0", "I8"))
_GPU_SERVERS = ("n_gpu_layers",)  # with rpc_servers it has a meaning
_numa: Optional[int] = None       # the strategy of this process


def translated(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of spikingbrain_cpp.Llama that these mean; None says nothing. ValueError, TypeError: see there."""
    out, said = {name: value for name, value in given.items() if value is not None}, dict[str, list[str]]()
    for name, row in TAKEN.items():
        if name not in out or not row.known(out[name]) or name in _GPU_SERVERS and out.get("rpc_servers"):
            continue
        value = out.pop(name)
        if value not in row.silent:
            said.setdefault(row.why, []).append(f"{name}={value!r}")
    if out.get("flash_attn") is False:  # the default of others, that means nothing here
        del out["flash_attn"]
    _as_int8(out)
    if said:
        what = "; ".join(f"{', '.join(names)}: taken and left out: {why}" for why, names in said.items())
        warnings.warn(f"llama: {what}", UserWarning, stacklevel=3)
    init_numa(out.pop("numa", None))
    return out


def _as_int8(out: dict[str, Any]) -> None:
    """Q8_0 keys and values are the INT8 window, whose rows need no blocks of 32; who names one of them gets both. ValueError: another type beside it."""
    types = [out.get("type_k"), out.get("type_v")]
    if _Q8_0 not in types:
        return
    if {*types} - {_Q8_0, None}:
        raise ValueError(f"llama: type_v: got {types[1]} with type_k={types[0]}, expected both {_Q8_0} (Q8_0), or one of them, which holds for both")
    out["type_k"] = out["type_v"] = _INT8


def init_numa(value: Any) -> None:
    """For the process, by its first model that asks for it. ValueError: no strategy of llama.cpp's."""
    global _numa
    strategy = int(value or 0) if value is None or isinstance(value, int) else -1
    if strategy == 0 or strategy == _numa:
        return
    if _numa is not None:
        raise ValueError(f"llama: numa: got strategy {strategy}, expected {_numa}, which an earlier model of this process asked for")
    if not _core.numa_init(strategy):
        raise ValueError(f"llama: numa: got {value!r}, expected True, False or one of GGML_NUMA_STRATEGY_*")
    _numa = strategy
