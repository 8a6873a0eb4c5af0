"""llama_cpp.llama_cache, and caches of other kinds: whatever can be asked for, and given, a state by its tokens."""

from __future__ import annotations

from typing import Any

from ..caches import BaseLlamaCache as BaseLlamaCache, Key, LlamaCache as LlamaCache, LlamaDiskCache as LlamaDiskCache, LlamaRAMCache as LlamaRAMCache
from ..state import LlamaState


class OtherCache(BaseLlamaCache):
    """A cache that knows tokens only: of what it gives, a state that is of another model or of no beginning is passed over."""

    def __init__(self, given: Any) -> None:
        """TypeError: it cannot be asked."""
        lacks = [name for name in ("__getitem__", "__setitem__", "__contains__") if not hasattr(type(given), name)]
        if lacks:
            raise TypeError(f"set_cache: cache: got {type(given).__name__} without {', '.join(lacks)}, expected a cache of states by their tokens, or None")
        super().__init__()
        self.given = given

    @property
    def cache_size(self) -> int:
        return int(getattr(self.given, "cache_size", 0))

    def __getitem__(self, key: Key) -> LlamaState:
        ids = list(key)
        state = self.given[ids]
        if not isinstance(state, LlamaState) or state.tokens.tolist() != ids[:state.n_tokens]:
            raise KeyError("cache: got no state of a beginning of these tokens")
        return state

    def __contains__(self, key: Key) -> bool:
        return key in self.given

    def __setitem__(self, key: Key, value: LlamaState) -> None:
        self.given[list(key)] = value
