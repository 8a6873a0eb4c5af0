"""Scoring: log probabilities of given tokens, of many texts together; what several begin with is read once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import _core
from .beginnings import MAX_HEIGHT, Part, Scored, order_key, parts_of
from .errors import Cancelled, LlamaError
from .model import Ids, OpenModel
from .sequence import Context

MAX_SCORED = 256 - MAX_HEIGHT  # at once
ROWS_BYTES = 128 << 20         # of logits, in one decode
CHUNK = 1 << 20                # tokens whose parts are listed at a time

Ended = Callable[[int, float, bool], object]  # number of the item, log probability, whether every token was the likeliest


@dataclass(eq=False)
class _Held:
    """A part that was read, in whose sequence its children begin."""

    seq: int
    children: list[Part]  # not begun yet


@dataclass
class _Running:
    part: Part
    positions: Ids   # of its targets, rising
    at: int = 0      # tokens read
    n_scored: int = 0

    @property
    def left(self) -> int:
        return int(self.part.tokens.size) - self.at


class Scorer:
    """Sequences beside a Llama's own, in which texts are read to be scored; each has a state of its own."""

    def __init__(self, model: OpenModel, n_parallel: int, n_ctx: int) -> None:
        """n_parallel: texts read together, up to MAX_SCORED. n_ctx: tokens of the longest."""
        s = model.settings
        n_seq, step = n_parallel + MAX_HEIGHT, min(s.n_batch, s.n_ubatch)
        self._n_rows = max(n_seq, min(step, ROWS_BYTES // (4 * model.n_vocab())))
        self._context = Context(model, "score", "score: got a closed one, expected an open one; load the model again", n_seq=n_seq,
                                n_batch=max(s.n_batch, n_seq), n_outputs_max=self._n_rows, n_ctx=n_seq * n_ctx)

    def close(self) -> None:
        """Free the sequences."""
        self._context.close()

    def run(self, items: Sequence[Scored], ended: Ended) -> None:
        """Score the items, in the order that takes least; ended is called once for each. Cancelled, LlamaError: some were not.

        Rows of logits are made for the tokens before scored ones only, and read where llama.cpp left them.
        """
        order = sorted(range(len(items)), key=lambda i: order_key(items[i]))
        totals = _Totals(items, ended)
        with self._context.cancels.running() as token:
            for chunk in _chunks(order, items):
                self._run_parts(parts_of([(i, items[i]) for i in chunk]), totals, token)

    def _run_parts(self, roots: list[Part], totals: _Totals, token: _core.CancelToken) -> None:
        self._free, self._held = list(range(self._context.n_seq)), list[_Held]()
        self._running, self._roots = dict[int, _Running](), roots[::-1]
        with self._context.changing("score") as handle:
            handle.clear()
        while self._roots or self._held or self._running:
            with self._context.changing("score") as handle:
                self._start(handle)
                self._read(handle, self._share(), totals, token)
            self._leave()

    # --- which parts are read ------------------------------------------------------------------------------------------

    def _start(self, handle: _core.Context) -> None:
        """Begin parts while there are sequences for them and for what stands below: so none waits for ever."""
        while True:
            held = next((h for h in reversed(self._held) if self._fits(h.children[-1], len(h.children) == 1)), None)
            if held is not None:
                part, seq = held.children.pop(), held.seq
                if held.children:
                    seq = self._free.pop()
                    handle.seq_cp(held.seq, seq)
                else:
                    self._held.remove(held)
            elif self._roots and self._fits(self._roots[-1], False):
                part, seq = self._roots.pop(), self._free.pop()
            else:
                return
            self._running[seq] = _Running(part, np.array([at for at, _, _ in part.targets], np.int32))

    def _fits(self, part: Part, last: bool) -> bool:
        """last: of its parent's children, whose sequence it takes."""
        return len(self._free) - (not last) >= part.height

    def _leave(self) -> None:
        """Parts that are at their end hold their sequence for their children, or give it back."""
        for seq, running in [item for item in self._running.items() if item[1].left == 0]:
            del self._running[seq]
            if running.part.children:
                self._held.append(_Held(seq, list(running.part.children)))
            else:
                with self._context.use() as handle:
                    handle.seq_rm(seq)
                self._free.append(seq)

    # --- one decode ----------------------------------------------------------------------------------------------------

    def _share(self) -> int:
        """Tokens of each part in the next decode: equally many, as llama.cpp's memories compute them, with room for their rows."""
        now = self._running.values()
        share = max(1, min(self._context.step // len(now), min(r.left for r in now)))
        while share > 1 and sum(_n_rows(r, share) for r in now) > self._n_rows:
            share //= 2
        return share

    def _read(self, handle: _core.Context, share: int, totals: _Totals, token: _core.CancelToken) -> None:
        now = self._running
        first = [r.part.start + r.at for r in now.values()]
        pos = np.add.outer(np.array(first, np.int32), np.arange(share, dtype=np.int32)).ravel()
        seqs = np.repeat(np.array(list(now), np.int32), share)
        tokens = np.concatenate([r.part.tokens[r.at:r.at + share] for r in now.values()])
        hits = [(i * share + at - first[i], target, number) for i, r in enumerate(now.values())
                for at, target, number in r.part.targets[r.n_scored:int(np.searchsorted(r.positions, first[i] + share))]]
        rows, targets, numbers = np.array(hits, np.int32).reshape(-1, 3).T.copy()
        try:
            logprobs, best = handle.score(tokens, pos, seqs, rows, targets, token)
        except _core.Cancelled as error:
            raise Cancelled(f"score: {error}") from None
        except RuntimeError as error:
            raise LlamaError(f"score: {error}") from error
        self._context.model.n_evaluated += tokens.size
        for r in now.values():
            r.at += share
            r.n_scored = int(np.searchsorted(r.positions, r.part.start + r.at))
        totals.add(numbers, logprobs, best == targets)


def _n_rows(running: _Running, share: int) -> int:
    """Of the next tokens of a part, those with targets."""
    begin = running.part.start + running.at
    low, high = np.searchsorted(running.positions, (begin, begin + share))
    return int(np.unique(running.positions[low:high]).size)


def _chunks(order: list[int], items: Sequence[Scored]) -> Iterator[list[int]]:
    """Neighbours together, as many as have CHUNK tokens."""
    chunk, n = list[int](), 0
    for i in order:
        chunk.append(i)
        n += items[i].tokens.size
        if n >= CHUNK:
            yield chunk
            chunk, n = [], 0
    if chunk:
        yield chunk


class _Totals:
    """What is known of each item so far."""

    def __init__(self, items: Sequence[Scored], ended: Ended) -> None:
        self._left = np.array([item.tokens.size - item.n_context for item in items], np.int64)
        self._sum, self._greedy = np.zeros(len(items)), np.ones(len(items), bool)
        self._ended = ended

    def add(self, numbers: Ids, logprobs: npt.NDArray[np.float64], greedy: npt.NDArray[np.bool_]) -> None:
        for number, logprob, likeliest in zip(numbers.tolist(), logprobs.tolist(), greedy.tolist()):
            self._sum[number] += logprob
            self._greedy[number] &= likeliest
            self._left[number] -= 1
            if self._left[number] == 0:
                self._ended(number, float(self._sum[number]), bool(self._greedy[number]))
