"""Parallel: continuations of many prompts, computed together."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, Union

import numpy as np
import numpy.typing as npt

from . import _core
from .batch import Batch
from .completion import TextStream, read_max_tokens, read_stops
from .sampling import SamplingParams, build_chain, read_logit_bias
from .saving import Saving
from .tokenizer import TEXT, Text

Ids = npt.NDArray[np.int32]


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


class Parallel(Saving):
    """batch and generate_many."""

    def batch(self, n_seq: int) -> Batch:
        """n_seq empty sequences beside this one's, to be evaluated together; close it, or use it in `with`."""
        return Batch(self, n_seq)

    def generate_many(
        self,
        prompts: Sequence[Union[Text, Sequence[int]]],
        *,
        n: int = 1,
        max_tokens: Optional[int] = 16,
        n_parallel: int = 8,
        temperature: float = 0.8,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        repeat_penalty: float = 1.0,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        logit_bias: Optional[Mapping[int, float]] = None,
        stop: Optional[Union[str, Sequence[str]]] = None,
        seed: Optional[int] = None,
    ) -> list[dict[str, Any]]:
        """n continuations of each prompt, at most n_parallel at a time, each as if computed alone.

        prompts: texts (bytes: UTF-8) or token ids. max_tokens: None, 0 or less: default_max_tokens() of each prompt.
        What all prompts begin with is read once and forked. Returned in the prompts' order, n after one another:
        {"index" of the prompt, "tokens", "text", "finish_reason"}, ended as create_completion ends. The session's own sequence
        stays as it is. seed: of the first one; the others' follow it. ValueError: an argument, or a prompt without tokens.
        """
        n_most = read_max_tokens("generate_many", max_tokens)
        for name, value in (("n", n), ("n_parallel", n_parallel)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"generate_many: {name}: got {value!r}, expected an integer of 1 or more")
        if isinstance(prompts, TEXT) or not isinstance(prompts, Sequence):
            raise TypeError(f"generate_many: prompts: got {type(prompts).__name__}, expected a list of prompts")
        params = SamplingParams(top_k, top_p, min_p, typical_p, temperature, repeat_penalty, frequency_penalty, presence_penalty,
                                logit_bias=read_logit_bias(logit_bias))
        stops = read_stops("generate_many", stop)
        ids = [self._prompt_tokens("generate_many", p) for p in prompts]
        n_parallel = min(n_parallel, 255)  # of llama.cpp's 256 sequences one holds what all begin with
        if any(p.size == 0 for p in ids):
            raise ValueError("generate_many: prompts: got one without tokens, expected at least one token each; leave it out")
        for p in ids:
            self._check_room("generate_many", p.size + 1)
        first = self._next_seed(seed)
        with self._locked_model() as model:
            jobs = [_Job(i // n, ids[i // n], build_chain(model, params, (first + i) % _core.DEFAULT_SEED, self.last_n_tokens_size), TextStream(stops),
                         n_most or self.default_max_tokens(ids[i // n].size)) for i in range(n * len(ids))]
        if jobs:
            self._run_jobs(jobs, min(n_parallel, len(jobs)), common_prefix(ids))
        return [{"index": j.index, "tokens": j.tokens, "text": j.text, "finish_reason": j.finish_reason} for j in jobs]

    def _run_jobs(self, jobs: list[_Job], n_slots: int, n_common: int) -> None:
        waiting = deque(jobs)
        running: dict[int, _Job] = {}
        with self.batch(n_slots + 1) as batch:
            if n_common:
                batch.eval({n_slots: jobs[0].prompt[:n_common]})
            while waiting or running:
                new = {slot: waiting.popleft() for slot in range(n_slots) if slot not in running and waiting}
                for slot in new:
                    batch.fork(n_slots, slot)
                if new:
                    batch.eval({slot: job.prompt[n_common:] for slot, job in new.items()})
                old = {slot: job.tokens[-1:] for slot, job in running.items()}
                if old:
                    batch.eval(old)
                running |= new
                for slot, job in running.items():
                    job.chain.accept(job.prompt[-self.last_n_tokens_size:] if slot in new else np.asarray(job.tokens[-1:], np.int32))
                    self._advance(job, job.chain.sample(batch.logits(slot)))
                running = {slot: job for slot, job in running.items() if job.finish_reason is None}

    def _advance(self, job: _Job, token: int) -> None:
        """Take one token: text, and whether it was the last."""
        if self._is_eog(token):
            job.finish_reason = "stop"
        else:
            job.tokens.append(token)
            job.text += job.out.push(self._tokenizer.piece(token))
            full = len(job.tokens) == job.max_tokens or job.prompt.size + len(job.tokens) >= self.n_ctx()
            job.finish_reason = "stop" if job.out.stopped else "length" if full else None
        if job.finish_reason:
            job.text += job.out.finish()
