"""Caches of states by their tokens: what one conversation read, the next that begins alike does not read again.

One cache may serve several models: a state is filed under its fingerprint and tokenizer, too.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from stat import S_ISREG
from typing import Union

import numpy as np
from sb_convert.whole import remove_left, write_whole

from .state import AnyPath, LlamaState

Key = Sequence[int]


class BaseLlamaCache:
    """cache[tokens] is the state of the longest stored beginning of `tokens`, of whatever model; capacity_bytes bounds what all have stored."""

    def __init__(self, capacity_bytes: int = 2 << 30) -> None:
        if isinstance(capacity_bytes, bool) or not isinstance(capacity_bytes, int):
            raise TypeError(f"cache: capacity_bytes: got {type(capacity_bytes).__name__}, expected an integer")
        if capacity_bytes < 0:
            raise ValueError(f"cache: capacity_bytes: got {capacity_bytes}, expected 0 or more")
        self.capacity_bytes = capacity_bytes

    @property
    def cache_size(self) -> int:
        """Bytes stored."""
        raise NotImplementedError

    def __getitem__(self, key: Key) -> LlamaState:
        """KeyError: no stored state is of a beginning of these tokens."""
        raise NotImplementedError

    def longest(self, key: Key, fingerprint: str, tokenizer: str) -> LlamaState:
        """As cache[key], of states that these belong to (see LlamaState). KeyError: there is none."""
        state = self[key]
        if (state.fingerprint, state.tokenizer) != (fingerprint, tokenizer):
            raise KeyError("cache: got no saved state of this model for the beginning of these tokens")
        return state

    def __contains__(self, key: Key) -> bool:
        try:
            self[key]
        except KeyError:
            return False
        return True

    def __setitem__(self, key: Key, value: LlamaState) -> None:
        raise NotImplementedError


class LlamaRAMCache(BaseLlamaCache):
    """In memory; the state used longest ago is dropped first, one that is larger than the capacity at once."""

    def __init__(self, capacity_bytes: int = 2 << 30) -> None:
        super().__init__(capacity_bytes)
        self._states: OrderedDict[tuple[tuple[int, ...], str, str], LlamaState] = OrderedDict()

    @property
    def cache_size(self) -> int:
        """Bytes of all states that are held."""
        return sum(len(s.data) + s.logits.nbytes + 2 * s.tokens.nbytes for s in self._states.values())

    def _find(self, key: Key, *model: str) -> LlamaState:
        ids = tuple(int(t) for t in key)
        fits = [k for k in self._states if ids[:len(k[0])] == k[0] and model in ((), k[1:])]
        if not fits:
            raise KeyError("cache: got no saved state for the beginning of these tokens")
        best = max(reversed(fits), key=lambda k: len(k[0]))  # of equal ones the one used last
        self._states.move_to_end(best)
        return self._states[best]

    def __getitem__(self, key: Key) -> LlamaState:
        return self._find(key)

    def longest(self, key: Key, fingerprint: str, tokenizer: str) -> LlamaState:
        """See BaseLlamaCache.longest."""
        return self._find(key, fingerprint, tokenizer)

    def __setitem__(self, key: Key, value: LlamaState) -> None:
        ids = tuple(int(t) for t in key), value.fingerprint, value.tokenizer
        self._states.pop(ids, None)
        self._states[ids] = value
        while self._states and self.cache_size > self.capacity_bytes:
            self._states.popitem(last=False)


LlamaCache = LlamaRAMCache


class LlamaDiskCache(BaseLlamaCache):
    """In a folder, one file per state, for several processes; a damaged or foreign file there is passed over."""

    def __init__(self, cache_dir: AnyPath = ".cache/llama_cache", capacity_bytes: int = 2 << 30) -> None:
        super().__init__(capacity_bytes)
        self._folder = Path(cache_dir)
        self._folder.mkdir(parents=True, exist_ok=True)
        remove_left(self._folder, r"\..*\.sbstate\.")  # by processes that were killed: it would not count

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self._folder.glob("*-*.sbstate"):
            try:
                found = path.lstat()
            except FileNotFoundError:  # another process dropped it
                continue
            if S_ISREG(found.st_mode):
                yield path, found

    @staticmethod
    def _name(ids: np.ndarray, fingerprint: str, tokenizer: str) -> str:
        """Tokens, hash of them, hash of what the state belongs to."""
        tokens, model = ids.astype("<i4").tobytes(), f"{fingerprint} {tokenizer}".encode()
        return f"{ids.size}-{hashlib.sha256(tokens).hexdigest()}-{hashlib.sha256(model).hexdigest()[:32]}.sbstate"

    @property
    def cache_size(self) -> int:
        """Bytes of all files that are held."""
        return sum(stat.st_size for _, stat in self._files())

    def _find(self, key: Key, *model: str) -> LlamaState:
        ids = np.asarray(list(key), np.int32)
        found: dict[int, list[tuple[int, Path]]] = {}
        for path, stat in self._files():
            size = path.name.split("-")[0]
            if size.isdigit() and int(size) <= ids.size:
                found.setdefault(int(size), []).append((stat.st_mtime_ns, path))
        for n in sorted(found, reverse=True):
            want = self._name(ids[:n], *(model or ("", "")))
            begin = want if model else want.rpartition("-")[0] + "-"  # no model: whichever was used last
            for _, path in sorted(found[n], reverse=True):
                state = self._read(path) if path.name.startswith(begin) else None
                if state is not None and model in ((), (state.fingerprint, state.tokenizer)):
                    return state
        raise KeyError("cache: got no saved state for the beginning of these tokens")

    def __getitem__(self, key: Key) -> LlamaState:
        return self._find(key)

    def longest(self, key: Key, fingerprint: str, tokenizer: str) -> LlamaState:
        """See BaseLlamaCache.longest."""
        return self._find(key, fingerprint, tokenizer)

    @staticmethod
    def _read(path: Path) -> Union[LlamaState, None]:
        try:
            if not S_ISREG(path.lstat().st_mode):
                return None
            state = LlamaState.from_bytes(path.read_bytes())
            os.utime(path)  # used now
            return state
        except (OSError, ValueError):
            return None

    def __setitem__(self, key: Key, value: LlamaState) -> None:
        blob = value.to_bytes()
        if len(blob) > self.capacity_bytes:
            return
        path = self._folder / self._name(np.asarray(list(key), np.int32), value.fingerprint, value.tokenizer)
        if os.path.lexists(path) and not S_ISREG(path.lstat().st_mode):
            return
        write_whole(path, blob)
        files = sorted(self._files(), key=lambda item: item[1].st_mtime_ns)
        size = sum(stat.st_size for _, stat in files)
        for path, stat in files:
            if size <= self.capacity_bytes:
                break
            path.unlink(missing_ok=True)
            size -= stat.st_size
