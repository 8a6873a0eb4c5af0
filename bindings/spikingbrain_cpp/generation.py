"""Generation: token after token of one sequence."""

from __future__ import annotations

import collections.abc
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Optional

import numpy as np

from . import _core, caching
from .caches import BaseLlamaCache
from .errors import LlamaError
from .model import Ids, refuse_cancelled
from .sampling import Row, Sampling
from .sequence import Progress, Sequence
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
    keep_row: bool = False
    _epoch: Optional[int] = None  # of the sequence after the last token; None: none yet

    def run(self) -> Generator[int, Optional[collections.abc.Sequence[int]], None]:
        """The tokens, without end of their own; see Llama.generate."""
        todo = self.prompt
        with self.sequence.context.cancels.running(self.cancel):
            while (token := self._next(todo)) is not None:
                more = yield token
                todo = np.array([token, *(self.sequence.context.model.ids("generate: send", more) if more else ())], np.int32)

    def _next(self, todo: Ids) -> Optional[int]:
        """Read some tokens and draw one. None: it ends before."""
        sequence, first = self.sequence, self._epoch is None
        if first:
            self._from_cache()
        with sequence.context.changing("generate"):
            refuse_cancelled("generate", self.cancel)
            if first:
                todo = sequence.become(self.prompt) if self.reset else self.prompt
            elif self._epoch != sequence.epoch:
                raise LlamaError("generate: got a sequence that another call changed, expected it as it was left; "
                                 "use one Llama per conversation")
            if sequence.n() + todo.size >= sequence.context.n_ctx():
                return None
            if todo.size:
                sequence.append(todo, self.cancel, self.progress if first else None)
            n = sequence.n()
            self.chain.accept(sequence.history.last(n, min(n if first else todo.size, self.last_n)))
            row = sequence.last_row()
            if self.sampling.criteria and any(c(sequence.tokens(), row.copy()) for c in self.sampling.criteria):
                return None
            if first and self.cache is not None:
                caching.keep(self.cache, sequence)
            token = draw(sequence, row, self.chain, self.sampling)
            self.chain.accept_grammar(token)
            self.row = row.copy() if self.keep_row else row  # that the token was drawn from
            self._epoch = sequence.epoch
            return token

    def _from_cache(self) -> None:
        if self.cache is None or self.load is None or not self.reset or self.cancel.cancelled:
            return
        with self.sequence.context.use():
            state = caching.longer(self.cache, self.sequence, self.prompt)
            if state is not None:
                self.load(state)
