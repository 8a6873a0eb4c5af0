"""Drafts: tokens that are guessed to follow, read in one decode with the one before them, and kept where they turn out to be drawn."""

from __future__ import annotations

from typing import Any, Callable, Optional, Protocol

import numpy as np

from . import _core
from .model import Ids
from .sequence import NO_TOKENS, Sequence

DEFAULT_BACK = 32  # most tokens read ahead, where the memory has no bound of its own
_FIRST, _TRIAL = 4, 2  # tokens of the first guess, and of one that is only tried
_LONGEST_PAUSE = 16    # tokens
# In decodes of one token: what each further one of a decode costs (and one more for the first of them); what right guesses may put by.
_COST, _MOST_CREDIT = 0.6, 4.0


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
        with sequence.context.changing("draft_model") as handle, sequence.context.cancels.running(cancel):
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

    A guess is read ahead only when the one before it was worth its time, or, where that was not so, when the first tokens of another, which
    was not read, turned out right. Between two such trials there is a pause, twice as long each time: where little can be guessed, little is lost.
    """

    def __init__(self, guesser: Guesser, n_most: int, trusted: bool) -> None:
        """n_most: tokens that may be read ahead. trusted: the first guess is."""
        self.n_drafted = self.n_accepted = 0
        self._guesser, self._n_most, self._trusted = guesser, n_most, trusted
        self._size = _FIRST
        self._pause = self._misses = self._nothing = 0
        self._credit = 0.0            # decodes that were saved, less what the guesses took beyond one each
        self._last = self._right = 0  # of the last guess that was read: tokens, and those that were right
        self._trial = NO_TOKENS       # what must come for the next one to be

    def accept(self, n: int) -> None:
        """So many more tokens of the last guess were right."""
        self.n_accepted += n
        self._right += n

    def guess(self, sequence: Sequence, todo: Ids, room: Callable[[int], int], cancel: _core.CancelToken) -> Ids:
        """What may follow the sequence and the tokens still to be read, at most room(n) behind n of them. Called for all that are to be read."""
        if self._last:
            self._judge()
        if self._pause:
            self._pause -= 1
            return NO_TOKENS
        if self._trial.size:
            self._try(todo)
        n = min(self._size, self._n_most, room(todo.size))
        if self._pause or self._trial.size or n < 1:
            return NO_TOKENS
        held = sequence.n()
        ids = np.concatenate([sequence.history.last(held, held), todo])
        ids.flags.writeable = False
        found = self._guesser(ids, n if self._trusted else min(n, _TRIAL), cancel)
        self._nothing = 0 if found.size else min(self._nothing + 1, 4)
        self._pause = self._nothing
        if not self._trusted:
            self._trial = found
            return NO_TOKENS
        self._last = found.size
        self.n_drafted += found.size
        return found

    def _judge(self) -> None:
        """What the last guess is worth, now that it is known how much of it was right."""
        last, right = self._last, self._right
        self._last = self._right = 0
        saved = right - _COST * (last + 1)
        self._credit = min(self._credit + saved, _MOST_CREDIT)
        self._misses = 0 if saved > 0 else self._misses
        self._size = min(2 * self._size, self._n_most) if right == last else max(_FIRST, (self._size + right) // 2)
        if self._credit < 0:
            self._miss()

    def _try(self, todo: Ids) -> None:
        """What became of the trial: as far as it goes, it is these tokens, or a miss."""
        n = min(todo.size, self._trial.size)
        if not np.array_equal(todo[:n], self._trial[:n]):
            self._miss()
        else:
            self._trial = self._trial[n:]
            if not self._trial.size:
                self._trusted, self._size = True, max(self._size, _FIRST)

    def _miss(self) -> None:
        self._misses += 1
        self._credit = 0.0
        self._pause, self._trusted, self._trial = min(2 ** self._misses, _LONGEST_PAUSE), False, NO_TOKENS


def counts(drafts: Optional[Drafts]) -> dict[str, int]:
    """As llama.cpp's server names them."""
    return {"draft_n": drafts.n_drafted if drafts else 0, "draft_n_accepted": drafts.n_accepted if drafts else 0}
