"""Settings: what a Llama was told to load, and how, each argument checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from sb_convert import system

from . import remote, spiking
from .arguments import check_batch, check_cache_type, check_path, check_pooling, check_range, check_scale, flag
from .errors import ModelNotFoundError

MAX_BACK = 65536  # tokens that can be taken back


@dataclass(frozen=True)
class Settings:
    """See Llama's constructor for what each is."""

    path: str
    n_batch: int
    n_ubatch: int
    n_rs_seq: int         # 0: the memory's own
    n_threads: int
    n_threads_batch: int
    n_ctx: Optional[int]  # the bound that was given
    kv_overrides: Mapping[str, spiking.Value]
    vocab_only: bool
    use_mmap: bool
    use_mlock: bool
    check_tensors: bool
    verbose: bool
    spike: Optional[bool]
    spike_k: Optional[float]
    spike_stats: bool
    spike_keep: tuple[int, int]
    logits_all: bool
    flash_attn: Optional[bool]
    type_k: int
    type_v: int
    embedding: bool
    pooling: int
    lora: Optional[tuple[str, float]]  # path, scale
    rpc_servers: list[str]
    n_gpu_layers: int  # of the model's, on those; -1: all

    @classmethod
    def from_call(cls, given: Mapping[str, Any]) -> Settings:
        """Of the constructor's arguments by their names. ValueError, TypeError, ModelNotFoundError: one of them."""
        path, verbose = check_path("llama: model_path", given["model_path"]), flag("llama: verbose", given["verbose"])
        sizes = _read_sizes(given)
        if not Path(path).is_file():
            raise ModelNotFoundError(f"llama: model_path: got {path}, expected a GGUF file; check the path")
        overrides = spiking.with_arguments(given["kv_overrides"], given["spike"], given["spike_k"])
        flags: dict[str, Any] = {name: flag(f"llama: {name}", given[name])
                 for name in ("vocab_only", "use_mmap", "use_mlock", "check_tensors", "spike_stats", "logits_all", "embedding")}
        if flags["vocab_only"] and flags["spike_stats"]:
            raise ValueError("llama: spike_stats: got True with vocab_only, expected weights to run; leave one of the two out")
        if given["flash_attn"] not in (None, True, False):
            raise ValueError(f"llama: flash_attn: got {given['flash_attn']!r}, expected True, False or None")
        scale = check_scale("llama: lora_scale", given["lora_scale"])
        return cls(path=path, verbose=verbose, **sizes, **flags, kv_overrides=overrides, spike=given["spike"], spike_k=given["spike_k"],
                   spike_keep=spiking.keep_shape(flags["spike_stats"], given["spike_keep"]), flash_attn=given["flash_attn"],
                   type_k=check_cache_type("llama: type_k", given["type_k"]), type_v=check_cache_type("llama: type_v", given["type_v"]),
                   pooling=check_pooling(given["pooling_type"]),
                   lora=None if given["lora_path"] is None else (check_path("llama: lora_path", given["lora_path"]), scale))

    def files(self) -> list[str]:
        """What is read, over which nothing is saved."""
        return [self.path] if self.lora is None else [self.path, self.lora[0]]


def _read_sizes(given: Mapping[str, Any]) -> dict[str, Any]:
    n_batch = check_range("llama: n_batch", given["n_batch"])
    threads = {name: check_range(f"llama: {name}", given[name] or system.threads(), high=512) for name in ("n_threads", "n_threads_batch")}
    servers = remote.check_servers(given["rpc_servers"])
    layers = remote.check_layers(given["n_gpu_layers"], servers)
    n_ctx = check_range("llama: n_ctx", given["n_ctx"] or 0, low=0, high=2**30) or None
    n_ubatch = check_range("llama: n_ubatch", given["n_ubatch"])
    check_batch("llama", n_batch, n_ubatch)
    n_rs_seq = 0 if given["n_rs_seq"] is None else check_range("llama: n_rs_seq", given["n_rs_seq"], low=0, high=MAX_BACK)
    return {"n_batch": n_batch, "n_ubatch": n_ubatch, "n_rs_seq": n_rs_seq, "n_ctx": n_ctx,
            "rpc_servers": servers, "n_gpu_layers": layers, **threads}
