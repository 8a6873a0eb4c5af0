"""Generation: token after token of one sequence."""

from __future__ import annotations

import collections.abc
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Optional

import numpy as np

from . import _core, caching
from .caches import BaseLlamaCache
from .drafts import Drafts
from .errors import LlamaError
from .model import Ids, refuse_cancelled
from .sampling import Row, Sampling
from .sequence import NO_TOKENS, Progress, Sequence
from .state import LlamaState


def draw(sequence: Sequence, row: Row, chain: _core.Sampler, sampling: Sampling) -> int:
    """The token that a chain takes of one row, which the processors may have edited. LlamaError: it takes none."""
    if sampling.processors:
        ids, edited = sequence.tokens(), row.copy()
        for processor in sampling.processors:
            edited = processor(ids, edited)
        row = np.ascontiguousarray(edited, np.float32)
    try:
        return chain.sample(row)
    except RuntimeError as error:
        raise LlamaError(f"llama: {error}") from error


@dataclass
class Generation:
    """One generation under way. Nothing is done before run()'s first token is asked for."""

    sequence: Sequence
    prompt: Ids
    chain: _core.Sampler
    sampling: Sampling
    last_n: int  # tokens that the chain must have seen
    cancel: _core.CancelToken
    reset: bool = True  # the sequence becomes the prompt; False: it is appended
    progress: Optional[Progress] = None
    cache: Optional[BaseLlamaCache] = None
    load: Optional[Callable[[LlamaState], None]] = None  # makes the sequence what the cache has
    drafts: Optional[Drafts] = None
    n_most: Optional[int] = None  # tokens that will be asked for, if that is known
    keep_row: bool = False
    n_drawn: int = 0
    _epoch: Optional[int] = None  # of the sequence after the last token; None: none yet

    def run(self) -> Generator[int, Optional[collections.abc.Sequence[int]], None]:
        """The tokens, without end of their own; see Llama.generate."""
        todo, context = self.prompt, self.sequence.context
        with context.cancels.running(self.cancel):
            self._from_cache()
            self._n_ctx = context.n_ctx()
            while (token := self._next(todo)) is not None:
                more = yield token
                todo = np.array([token, *(context.model.ids("generate: send", more) if more else ())], np.int32)

    def _from_cache(self) -> None:
        if self.cache is None or self.load is None or not self.reset or self.cancel.cancelled:
            return
        with self.sequence.context.use():
            state = caching.longer(self.cache, self.sequence, self.prompt)
            if state is not None:
                self.load(state)

    def _next(self, todo: Ids) -> Optional[int]:
        """Read some tokens and draw one. None: it ends before."""
        sequence, first = self.sequence, self._epoch is None
        with sequence.context.changing("generate"):
            refuse_cancelled("generate", self.cancel)
            if first:
                todo = sequence.become(self.prompt) if self.reset else self.prompt
            elif self._epoch != sequence.epoch:
                raise LlamaError("generate: got a sequence that another call changed, expected it as it was left; "
                                 "use one Llama per conversation")
            if sequence.n() + todo.size >= self._n_ctx:
                return None
            self._read(todo, first)
            if self._ends():
                return None
            if first and self.cache is not None:
                caching.keep(self.cache, sequence)
            row = sequence.last_row()
            token = draw(sequence, row, self.chain, self.sampling)
            self.chain.accept_grammar(token)
            self.row = row.copy() if self.keep_row else row  # that the token was drawn from
            self._epoch = sequence.epoch
            self.n_drawn += 1
            return token

    def _read(self, todo: Ids, first: bool) -> None:
        """Append tokens, with a draft of what follows where it is time for one; the chain is told of them."""
        sequence, guess = self.sequence, NO_TOKENS
        if self.drafts is not None and not first:
            n_ready = sequence.n_ready(todo)
            self.drafts.accept(n_ready)
            if n_ready < todo.size:
                guess = self.drafts.guess(sequence, todo, self._room, self.cancel)
        if todo.size:
            sequence.append(todo, self.cancel, self.progress if first else None, guess)
        n = sequence.n()
        self.chain.accept(sequence.history.last(n, min(n if first else todo.size, self.last_n)))

    def _room(self, n: int) -> int:
        """Most tokens that are worth a guess behind n that are to be read."""
        left = self._n_ctx - self.sequence.n() - n
        if self.n_most is not None:
            left = min(left, self.n_most - self.n_drawn - 1)  # the last one is drawn, not read
        return min(left, self.sequence.context.n_ahead_most - n + 1)

    def _ends(self) -> bool:
        criteria = self.sampling.criteria
        return bool(criteria) and any(c(self.sequence.tokens(), self.sequence.last_row().copy()) for c in criteria)
