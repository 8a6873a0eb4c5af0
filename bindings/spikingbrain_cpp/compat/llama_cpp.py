"""llama_cpp.llama_cpp: llama.cpp's constants, and those of its C functions that need no pointers (see lowlevel.py)."""

from __future__ import annotations

from .. import _core
from .lowlevel import *  # noqa: F403
from .refused import missing

globals().update(_core.constants())


def __getattr__(name: str) -> int:
    """AttributeError: neither a constant nor a function that is here."""
    raise missing("llama_cpp.llama_cpp", name)
