"""SpikingBrain on CPUs: `Llama` loads a GGUF file and generates text (see bindings/README.md)."""

import os as _os
from pathlib import Path as _Path

_lib = _Path(__file__).parent / "lib"
if hasattr(_os, "add_dll_directory") and _lib.is_dir():  # Windows knows no $ORIGIN
    _os.add_dll_directory(str(_lib))

from . import _core  # noqa: E402

# the portable flavour has one CPU library per instruction set and links none of them
_core.init(str(_lib) if any(_lib.glob("*ggml-cpu-*")) else "")

from sb_convert.version import version as _version  # noqa: E402

from ._core import CancelToken  # noqa: E402
from .batch import Batch  # noqa: E402
from .caches import BaseLlamaCache, LlamaCache, LlamaDiskCache, LlamaRAMCache  # noqa: E402
from .errors import Cancelled, LlamaError, ModelLoadError, ModelNotFoundError  # noqa: E402
from .estimate import MemoryEstimate, memory_estimate, system_info  # noqa: E402
from .grammar import LlamaGrammar  # noqa: E402
from .llama import Llama  # noqa: E402
from .llama_speculative import LlamaDraftModel, LlamaPromptLookupDecoding  # noqa: E402
from .sampling import LogitsProcessorList, StoppingCriteriaList  # noqa: E402
from .spikes.stats import SpikeStats  # noqa: E402
from .state import LlamaState, Snapshot  # noqa: E402

__version__ = _version()

__all__ = [
    "BaseLlamaCache",
    "Batch",
    "CancelToken",
    "Cancelled",
    "Llama",
    "LlamaCache",
    "LlamaDiskCache",
    "LlamaDraftModel",
    "LlamaError",
    "LlamaGrammar",
    "LlamaPromptLookupDecoding",
    "LlamaRAMCache",
    "LlamaState",
    "LogitsProcessorList",
    "MemoryEstimate",
    "ModelLoadError",
    "ModelNotFoundError",
    "Snapshot",
    "SpikeStats",
    "StoppingCriteriaList",
    "memory_estimate",
    "system_info",
]
