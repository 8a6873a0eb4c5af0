"""llama-cpp-python's names (0.3.36) on spikingbrain_cpp: `import spikingbrain_cpp.compat as llama_cpp`, or install() for programs that import that."""

from __future__ import annotations

import importlib
import sys

from . import llama as llama, llama_cache as llama_cache, llama_chat_format as llama_chat_format, llama_cpp as llama_cpp, llama_grammar as llama_grammar
from . import llama_speculative as llama_speculative, llama_tokenizer as llama_tokenizer, llama_types as llama_types
from .llama import Llama as Llama, LlamaState as LlamaState, LogitsProcessor as LogitsProcessor, LogitsProcessorList as LogitsProcessorList
from .llama import MinTokensLogitsProcessor as MinTokensLogitsProcessor, StoppingCriteria as StoppingCriteria, StoppingCriteriaList as StoppingCriteriaList
from .llama_cache import BaseLlamaCache as BaseLlamaCache, LlamaCache as LlamaCache, LlamaDiskCache as LlamaDiskCache, LlamaRAMCache as LlamaRAMCache
from .llama_grammar import LlamaGrammar as LlamaGrammar
from .llama_speculative import LlamaDraftModel as LlamaDraftModel
from .llama_tokenizer import BaseLlamaTokenizer as BaseLlamaTokenizer, LlamaTokenizer as LlamaTokenizer
from .llama_types import *  # noqa: F403
from .refused import Refusing, missing

__version__ = "0.3.36"
_NAME = "llama_cpp"
_MODULES = ("llama", "llama_cache", "llama_chat_format", "llama_cpp", "llama_grammar", "llama_speculative", "llama_tokenizer", "llama_types")


def install() -> None:
    """From now on, `import llama_cpp` and its submodules mean this package. ImportError: another llama_cpp was imported before."""
    there = sys.modules.get(_NAME)
    if there is not None and there is not sys.modules[__name__]:
        raise ImportError(f"compat: install: got {_NAME} of {getattr(there, '__file__', None)} imported before, expected none; call install() first")
    sys.modules[_NAME] = sys.modules[__name__]
    for name in _MODULES:
        sys.modules[f"{_NAME}.{name}"] = importlib.import_module(f"{__name__}.{name}")
    if not any(isinstance(finder, Refusing) for finder in sys.meta_path):
        sys.meta_path.insert(0, Refusing(_NAME))


def __getattr__(name: str) -> object:
    """llama.cpp's constants and functions."""
    if name.startswith("__"):
        raise AttributeError(name)
    try:
        return getattr(llama_cpp, name)
    except AttributeError:
        raise missing(_NAME, name) from None
