"""Drafts: tokens that are guessed to follow, read in one decode with the one before them, and kept where they turn out to be drawn."""

from __future__ import annotations

from typing import Any, Callable, Optional, Protocol

import numpy as np

from . import _core
from .model import Ids
from .sequence import NO_TOKENS, Sequence

DEFAULT_BACK = 32  # most tokens read ahead, where the memory has no bound of its own
_FIRST, _LONGEST_PAUSE = 4, 64


def check_draft_model(given: Any) -> None:
    """ValueError: nothing that guesses tokens."""
    if given is not None and not callable(given):
        raise ValueError(f"llama: draft_model: got {given!r:.60}, expected a LlamaDraftModel, a Llama or None; leave it out")


class Guesser(Protocol):
    """What expects at most n tokens behind others."""

    def __call__(self, ids: Ids, n: int, cancel: _core.CancelToken) -> Ids: ...


class FunctionGuesser:
    """A draft model in llama-cpp-python's sense."""

    def __init__(self, model: Callable[..., Any], n_vocab: int) -> None:
        self._model, self._n_vocab = model, n_vocab

    def __call__(self, ids: Ids, n: int, cancel: _core.CancelToken) -> Ids:
        """TypeError, ValueError: what it returns are no tokens."""
        found = np.asarray(self._model(ids))
        if found.ndim != 1 or found.size and found.dtype.kind not in "iu":
            raise TypeError(f"draft_model: got {found.dtype} of {found.ndim} dimensions, expected integers of one")
        wrong = found[(found < 0) | (found >= self._n_vocab)]
        if wrong.size:
            raise ValueError(f"draft_model: got token {wrong[0]}, expected 0 to {self._n_vocab - 1}; guess tokens of this model")
        return found[:n].astype(np.int32)


class ModelGuesser:
    """A smaller model, whose likeliest tokens are taken."""

    def __init__(self, sequence: Sequence) -> None:
        self._sequence = sequence

    def __call__(self, ids: Ids, n: int, cancel: _core.CancelToken) -> Ids:
        sequence, found = self._sequence, list[int]()
        with sequence.context.changing("draft_model") as handle:
            if handle.n_rs_seq():  # it must take back the whole guess
                n = min(n, handle.n_rs_seq())
            n = min(n, sequence.context.n_ctx() - ids.size)
            todo = sequence.become(ids)
            while len(found) < n:
                if todo.size:
                    sequence.append(todo, cancel)
                found.append(int(np.argmax(sequence.last_row())))
                if sequence.context.model.is_eog(found[-1]):
                    break
                todo = np.array(found[-1:], np.int32)
        return np.array(found, np.int32)


class Drafts:
    """The drafts of one generation: how many tokens, how often, and what became of them.

    A guess of which nothing was right is followed by a pause, twice as long each time, so that where nothing can be guessed little is lost.
    """

    def __init__(self, guesser: Guesser, n_most: int) -> None:
        """n_most: tokens that may be read ahead."""
        self.n_drafted = self.n_accepted = 0
        self._guesser, self._n_most = guesser, n_most
        self._size = min(_FIRST, n_most)
        self._pause = self._misses = 0
        self._last = self._right = 0  # of the last guess: tokens, and those that were right

    def accept(self, n: int) -> None:
        """So many more tokens of the last guess were right."""
        self.n_accepted += n
        self._right += n

    def guess(self, sequence: Sequence, todo: Ids, room: int, cancel: _core.CancelToken) -> Ids:
        """What may follow the sequence and the tokens still to be read: at most `room` tokens."""
        self._judge()
        n = min(self._size, room)
        if self._pause:
            self._pause -= 1
            return NO_TOKENS
        if n < 1:
            return NO_TOKENS
        held = sequence.n()
        ids = np.concatenate([sequence.history.last(held, held), todo])
        ids.flags.writeable = False
        found = self._guesser(ids, n, cancel)
        self._last = found.size
        self.n_drafted += found.size
        return found

    def _judge(self) -> None:
        last, right = self._last, self._right
        self._last = self._right = 0
        if not last:
            return
        if right:
            self._misses = 0
            self._size = min(2 * self._size, self._n_most) if right == last else max(2, right + 1)
        else:
            self._misses += 1
            self._pause = min(2 ** self._misses, _LONGEST_PAUSE)
            self._size = max(1, self._size // 2)
        self._size = min(self._size, self._n_most)


def counts(drafts: Optional[Drafts]) -> dict[str, int]:
    """As llama.cpp's server names them."""
    return {"draft_n": drafts.n_drafted if drafts else 0, "draft_n_accepted": drafts.n_accepted if drafts else 0}
