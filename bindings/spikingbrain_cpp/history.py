"""History: the tokens of a sequence, of which a restored snapshot brings only the last ones and a hash of the rest."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

BLOCK = 1024  # tokens per link of the hash chain; a snapshot carries the last BLOCK to 2 * BLOCK - 1 tokens
_START = bytes(32)

Ids = npt.NDArray[np.int32]


def chain(digest: bytes, ids: npt.NDArray[np.integer[Any]]) -> bytes:
    """The chain's next link: SHA-256 of the one before and one block of tokens, little-endian int32."""
    return hashlib.sha256(digest + ids.astype("<i4").tobytes()).digest()


class History:
    """Tokens at positions 0, 1, ...; which of them count is the caller's n, asked of the model's memory."""

    def __init__(self) -> None:
        self._base = 0                    # a multiple of BLOCK; tokens before it are known by their hash alone
        self._ids = np.empty(0, np.int32)
        self._links = [_START]            # chain of the first base, base + BLOCK, ... tokens

    def write(self, at: int, ids: Ids) -> None:
        """Tokens at positions at, at + 1, ...; what followed is forgotten. at = 0 begins anew."""
        if at < self._base:
            self.__init__()  # type: ignore[misc]
        first = at - self._base
        if first + ids.size > self._ids.size:
            grown = np.zeros(max(first + ids.size, 2 * self._ids.size, 1024), np.int32)
            grown[:first] = self._ids[:first]
            self._ids = grown
        self._ids[first:first + ids.size] = ids
        del self._links[first // BLOCK + 1:]

    def all(self, n: int) -> Ids:
        """int32 [n], a copy; -1 where only the hash is known."""
        out = np.full(n, -1, np.int32)
        if n > self._base:
            out[self._base:] = self._ids[:n - self._base]
        return out

    def last(self, n: int, k: int) -> Ids:
        """The last k of n tokens, fewer where they are not known; a view."""
        return self._ids[max(0, n - self._base - k):max(0, n - self._base)]

    def common(self, n: int, prompt: Ids) -> int:
        """Length of the longest common beginning with a prompt; 0 when the part that is hashed differs or is cut."""
        if n == 0 or prompt.size < self._base:
            return 0
        digest = _START
        for i in range(0, self._base, BLOCK):
            digest = chain(digest, prompt[i:i + BLOCK])
        if digest != self._links[0]:
            return 0
        m = min(n, prompt.size)
        differ = np.flatnonzero(self._ids[:m - self._base] != prompt[self._base:m])
        return self._base + int(differ[0]) if differ.size else m

    def cut(self, n: int) -> tuple[bytes, Ids]:
        """(hash of the tokens before the tail, the tail): all that a snapshot after n tokens keeps of them."""
        begin = max(self._base, (n // BLOCK - 1) * BLOCK) - self._base
        while len(self._links) <= begin // BLOCK:
            i = (len(self._links) - 1) * BLOCK
            self._links.append(chain(self._links[-1], self._ids[i:i + BLOCK]))
        return self._links[begin // BLOCK], self._ids[begin:n - self._base].copy()

    def copy(self) -> History:
        """Another of its own."""
        out = type(self)()
        out._base, out._ids, out._links = self._base, self._ids.copy(), list(self._links)
        return out

    @classmethod
    def of(cls, n: int, prefix: bytes, tail: Ids) -> History:
        """The inverse of cut."""
        out = cls()
        out._base, out._ids, out._links = n - tail.size, tail.astype(np.int32), [prefix]
        return out
