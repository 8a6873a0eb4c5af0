"""Parallel: continuations of many prompts, computed together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from . import _core, sequence
from .completion import TextStream
from .errors import LlamaError
from .model import OpenModel, refuse_cancelled
from .sampling import Sampling, build_chain

Ids = npt.NDArray[np.int32]
MAX_PARALLEL = 254  # of llama.cpp's 256 sequences one holds what all begin with, one a prompt that has more answers


def common_prefix(prompts: Sequence[Ids]) -> int:
    """Tokens that all prompts begin with; at least one of each is left out."""
    n = min(p.size for p in prompts) - 1
    stacked = np.stack([p[:n] for p in prompts])
    differ = np.flatnonzero((stacked != stacked[0]).any(axis=0))
    return int(differ[0]) if differ.size else n


@dataclass
class _Job:
    index: int
    prompt: Ids
    chain: _core.Sampler
    out: TextStream
    max_tokens: int
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    finish_reason: Optional[str] = None

    def answer(self) -> dict[str, Any]:
        return {"index": self.index, "tokens": self.tokens, "text": self.text, "finish_reason": self.finish_reason}


@dataclass
class _Prompts:
    """Reads every prompt once: what all begin with, then each one's own, which its further answers copy."""

    n_common: int
    common: sequence.Sequence
    whole: sequence.Sequence  # the prompt that has answers waiting
    held: Optional[int] = None  # its index

    def begin(self, job: _Job, token: _core.CancelToken) -> None:
        if self.n_common:
            self.common.append(job.prompt[:self.n_common], token)

    def read(self, new: dict[sequence.Sequence, _Job], next_index: Optional[int], token: _core.CancelToken) -> None:
        """Make each slot its job's prompt; next_index: of the job that comes next, None: there is none."""
        first: dict[int, sequence.Sequence] = {}
        twins: list[tuple[sequence.Sequence, sequence.Sequence]] = []
        for slot, job in new.items():
            if job.index == self.held:
                slot.copy(self.whole)
            elif job.index in first:
                twins.append((slot, first[job.index]))
            else:
                first[job.index] = slot
                slot.copy(self.common)
        if first:
            self.common.context.read({slot: new[slot].prompt[self.n_common:] for slot in first.values()}, token)
        for slot, origin in twins:
            slot.copy(origin)
        if next_index in first and next_index is not None:
            self.whole.copy(first[next_index])
            self.held = next_index


@dataclass
class Many:
    """What all continuations have in common."""

    model: OpenModel
    sampling: Sampling
    stops: list[str]
    last_n: int  # tokens that the chains must have seen
    ended: Callable[[dict[str, Any]], object] = lambda answer: None  # called with each answer when it is whole

    def job(self, index: int, prompt: Ids, seed: int, max_tokens: int) -> _Job:
        """One continuation to be made."""
        with self.model.use() as model:
            chain = build_chain(model, self.sampling.params, seed % _core.DEFAULT_SEED, self.last_n)
        return _Job(index, prompt, chain, TextStream(self.stops), max_tokens)

    def run(self, jobs: list[_Job], n_slots: int, cancel: Optional[_core.CancelToken]) -> list[dict[str, Any]]:
        """Make them, n_slots at a time. Cancelled, LlamaError: none of them is there then."""
        s = self.model.settings
        n_seq = n_slots + 1 + any(one.index == other.index for one, other in zip(jobs, jobs[1:]))
        context = sequence.Context(self.model, "generate_many", "generate_many: got a closed context, expected an open one; load the model again",
                                   n_seq=n_seq, n_batch=max(s.n_batch, n_seq), n_outputs_max=n_seq)
        try:
            with context.cancels.running(cancel) as token:
                self._run(context, jobs, n_slots, token)
        finally:
            context.close()
        return [job.answer() for job in jobs]

    def _run(self, context: sequence.Context, jobs: list[_Job], n_slots: int, token: _core.CancelToken) -> None:
        sequences = [sequence.Sequence(context, i) for i in range(context.n_seq)]
        slots, prompts = sequences[:n_slots], _Prompts(common_prefix([job.prompt for job in jobs]), sequences[n_slots], sequences[-1])
        waiting, running = deque(jobs), dict[sequence.Sequence, _Job]()
        with context.changing("generate_many"):
            prompts.begin(jobs[0], token)
        while waiting or running:
            with context.changing("generate_many"):
                refuse_cancelled("generate_many", token)
                new = {slot: waiting.popleft() for slot in slots if slot not in running and waiting}
                prompts.read(new, waiting[0].index if waiting else None, token)
                if running:
                    context.read({slot: np.array(job.tokens[-1:], np.int32) for slot, job in running.items()}, token)
                for slot, job in running.items():
                    self._advance(slot, job, np.array(job.tokens[-1:], np.int32))
                for slot, job in new.items():
                    self._advance(slot, job, job.prompt[-self.last_n:])
                running = {slot: job for slot, job in (running | new).items() if job.finish_reason is None}

    def _advance(self, slot: sequence.Sequence, job: _Job, seen: Ids) -> None:
        """Draw one token: its text, and whether it was the last."""
        job.chain.accept(seen)
        try:
            token = job.chain.sample(slot.last_row())
        except RuntimeError as error:
            raise LlamaError(f"generate_many: {error}") from error
        if self.model.is_eog(token):
            job.finish_reason = "stop"
        else:
            job.tokens.append(token)
            job.text += job.out.push(self.model.piece(token))
            full = len(job.tokens) == job.max_tokens or job.prompt.size + len(job.tokens) >= slot.context.n_ctx()
            job.finish_reason = "stop" if job.out.stopped else "length" if full else None
        if job.finish_reason:
            job.text += job.out.finish()
            self.ended(job.answer())
