"""What a model will take, before it is loaded, and what this installation computes with."""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

from sb_convert import system

from . import _core, spiking
from .arguments import check_batch, check_cache_type, check_path, check_range
from .errors import ModelLoadError, ModelNotFoundError
from .settings import MAX_BACK
from .tried import TRIED

_SPLIT = re.compile(r"^(.*)-(\d{5})-of-(\d{5})\.gguf$")


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes. model: weights, repacked ones included; state: of the sequence, whatever its length; compute: work buffers of one
    micro-batch; output: rows of logits. cache: the part of the state that is taken only as the text grows to n_ctx, 0 where no layer
    sees all of the text."""

    model: int
    state: int
    compute: int
    output: int
    cache: int = 0

    @property
    def total(self) -> int:
        """All of them; Python and the libraries themselves come on top, some tens of MiB."""
        return self.model + self.state + self.compute + self.output


def memory_estimate(
    model_path: Union[str, os.PathLike[str]],
    *,
    n_ctx: Optional[int] = None,
    n_batch: int = 512,
    n_ubatch: int = 512,
    n_seq: int = 1,
    n_rs_seq: Optional[int] = None,
    kv_overrides: Optional[Mapping[str, Union[bool, int, float, str]]] = None,
    type_k: Optional[int] = None,
    type_v: Optional[int] = None,
    logits_all: bool = False,
    spike: Optional[bool] = None,
    spike_k: Optional[float] = None,
) -> MemoryEstimate:
    """What Llama(model_path, ...) with these arguments will take, from the file's header: no weight is read, and none need be there.

    A file that ends after its header is enough. n_seq: sequences, each with a state. Split models: the first part, beside the others.
    With use_mmap=True the pages of plain weights are the system's cache and can be dropped by it; they are counted all the same.
    ModelNotFoundError, ModelLoadError: no such file, or no model that could be loaded. ValueError, TypeError: an argument.
    """
    path = check_path("memory_estimate: model_path", model_path)
    if not Path(path).is_file():
        raise ModelNotFoundError(f"memory_estimate: model_path: got {path}, expected a GGUF file; check the path")
    n_batch, n_ubatch = check_range("memory_estimate: n_batch", n_batch), check_range("memory_estimate: n_ubatch", n_ubatch)
    n_seq = check_range("memory_estimate: n_seq", n_seq)
    n_rs_seq = None if n_rs_seq is None else check_range("memory_estimate: n_rs_seq", n_rs_seq, low=0, high=MAX_BACK)
    check_batch("memory_estimate", n_batch, n_ubatch)
    rows = max(n_seq, min(n_batch, n_ubatch) if logits_all else 1)
    try:
        with _sparse_copy(path) as whole:
            got = _core.measure(whole, kv_overrides=dict(spiking.with_arguments(kv_overrides, spike, spike_k)),
                                n_ctx=check_range("memory_estimate: n_ctx", n_ctx or 0, low=0), n_batch=n_batch, n_ubatch=n_ubatch, n_seq_max=n_seq, n_rs_seq=n_rs_seq or 0,
                                n_outputs_max=rows, type_k=check_cache_type("memory_estimate: type_k", type_k),
                                type_v=check_cache_type("memory_estimate: type_v", type_v))
    except RuntimeError as error:
        raise ModelLoadError(f"memory_estimate: {path}: got a file that llama.cpp cannot load: {error}; change the arguments, or "
                             "convert or copy it again") from error
    return MemoryEstimate(got["model"], got["state"], got["compute"], 2 * 4 * rows * got["n_vocab"], got["cache"])


class _sparse_copy:
    """The file itself when it is whole, else its header in a file of the full size whose rest takes no room."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._folder: Optional[str] = None

    def __enter__(self) -> str:
        missing = 0 if _SPLIT.match(self._path) else _core.missing_bytes(self._path)
        if missing == 0:
            return self._path
        self._folder = tempfile.mkdtemp()
        try:
            copy = os.path.join(self._folder, "header.gguf")
            shutil.copyfile(self._path, copy)
            try:
                os.truncate(copy, os.path.getsize(copy) + missing)
            except (OSError, OverflowError) as error:
                raise ModelLoadError(f"memory_estimate: {self._path}: got a header of {missing} bytes more than the file has, expected what a file of this "
                                     f"system can hold ({error}); convert or copy it again") from error
            return copy
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def system_info() -> dict[str, Any]:
    """What computes here: "features" of the CPU library in use ({"AVX2": True, ...}), "spike_kernels" (which integer kernels run:
    "zen4", "avx512", "avxvnni", "avx2", "i8mm", "dotprod", "generic"; SPIKINGBRAIN_ISA overrides the choice), "cpus" this process may use, "llama.cpp": its own line,
    "tried": what has been run on this system (made from the tests)."""
    line = _core.system_info()
    features = dict(re.findall(r"(\w+) = (\d+)", line))
    return {"features": {name: value != "0" for name, value in features.items()}, "spike_kernels": _core.spike_isa(),
            "cpus": system.cpus(), "llama.cpp": line,
            "tried": TRIED.get((platform.system(), platform.machine()), "nothing on this system")}
