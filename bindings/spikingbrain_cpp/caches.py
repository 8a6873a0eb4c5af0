"""Caches of states by their tokens: what one conversation read, the next that begins alike does not read again."""

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
    """cache[tokens] is the state of the longest stored beginning of `tokens`; capacity_bytes bounds what is stored."""

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
        self._states: OrderedDict[tuple[int, ...], LlamaState] = OrderedDict()

    @property
    def cache_size(self) -> int:
        return sum(len(s.data) + s.logits.nbytes + 2 * s.tokens.nbytes for s in self._states.values())

    def __getitem__(self, key: Key) -> LlamaState:
        ids = tuple(int(t) for t in key)
        best = max((k for k in self._states if ids[:len(k)] == k), key=len, default=None)
        if best is None:
            raise KeyError("cache: got no state of a beginning of these tokens")
        self._states.move_to_end(best)
        return self._states[best]

    def __setitem__(self, key: Key, value: LlamaState) -> None:
        ids = tuple(int(t) for t in key)
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
    def _name(ids: np.ndarray) -> str:
        return f"{ids.size}-{hashlib.sha256(ids.astype('<i4').tobytes()).hexdigest()}.sbstate"

    @property
    def cache_size(self) -> int:
        return sum(stat.st_size for _, stat in self._files())

    def __getitem__(self, key: Key) -> LlamaState:
        ids = np.asarray(list(key), np.int32)
        lengths = {int(n) for n in (path.name.split("-")[0] for path, _ in self._files()) if n.isdigit() and int(n) <= ids.size}
        for n in sorted(lengths, reverse=True):
            state = self._read(self._folder / self._name(ids[:n]))
            if state is not None:
                return state
        raise KeyError("cache: got no state of a beginning of these tokens")

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
        path = self._folder / self._name(np.asarray(list(key), np.int32))
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
