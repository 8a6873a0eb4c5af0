"""Whatever is called in whatever order, a Llama holds the tokens that a list would, and their logits.

SPIKINGBRAIN_HISTORY_STEPS and SPIKINGBRAIN_HISTORY_SEED make it another one.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from binding_models import ONE, tiny  # noqa: F401

from spikingbrain_cpp import Cancelled, CancelToken, Llama, LlamaError, LlamaRAMCache, _core

NEVER = {t: -1e9 for t in (262, 263, 264)}
N_STEPS = int(os.environ.get("SPIKINGBRAIN_HISTORY_STEPS", "300"))
SEED = int(os.environ.get("SPIKINGBRAIN_HISTORY_SEED", "5"))


class Player:
    """Random calls of one Llama, each with what it does to a list of tokens."""

    def __init__(self, llm: Llama, seed: int, monkeypatch):
        self.llm, self.rng, self.monkeypatch = llm, np.random.default_rng(seed), monkeypatch
        self.held: list[int] = []
        self.known = True  # are the last token's logits
        self.saved: list[tuple[object, list[int], bool]] = []
        self.stream, self.begun = None, []

    def some(self, most: int) -> list[int]:
        return self.rng.integers(0, 260, self.rng.integers(1, most + 1)).tolist()

    def eval(self) -> None:
        ids = self.some(30)
        self.llm.eval(ids)
        self.held += ids
        self.known = True

    def reset(self) -> None:
        self.llm.reset()
        self.held = []

    def generate(self) -> None:
        keep = max(0, len(self.held) - int(self.rng.integers(0, 14)))
        prompt = self.held[:keep] + self.some(5)
        self.stream = self.llm.generate(prompt, temp=float(self.rng.choice([0, 0.7])), seed=int(self.rng.integers(99)), logit_bias=NEVER)
        self.begun = [next(self.stream)]
        self.held, self.known = list(prompt), True
        self.go_on()

    def go_on(self) -> None:
        """More of the stream, where nothing was called since it stopped."""
        if self.stream is None:
            return
        for _ in range(int(self.rng.integers(1, 12))):
            more = self.some(3) if self.rng.random() < 0.1 else []
            token = self.stream.send(more)
            self.held += [self.begun[-1], *more]
            self.begun.append(token)

    def save(self) -> None:
        made = self.llm.snapshot() if self.rng.random() < 0.5 else self.llm.save_state()
        self.saved.append((made, list(self.held), self.known))

    def load(self) -> None:
        if not self.saved:
            return
        made, held, self.known = self.saved[self.rng.integers(len(self.saved))]
        (self.llm.restore if type(made).__name__ == "Snapshot" else self.llm.load_state)(made)
        self.held = list(held)

    def cancelled(self) -> None:
        token, ids = CancelToken(), self.some(40)
        try:
            self.llm.eval(ids, progress=lambda done, total: token.cancel() if done >= 8 else None, cancel=token)
            self.held += ids
            self.known = True
        except Cancelled:
            self.held += ids[:8]
            self.known = False

    def interrupted(self) -> None:
        was, ids = _core.Context.decode, self.some(8)

        def decode(*args):
            was(*args)
            raise KeyboardInterrupt
        with self.monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
            m.setattr(_core.Context, "decode", decode)
            self.llm.eval(ids)
        self.held += ids
        self.known = False

    def beside(self) -> None:
        self.llm.generate_many([self.held[-3:] or [1], [2, 3]], n=2, max_tokens=3)
        with self.llm.batch(2) as batch:
            batch.eval({0: [1, 2], 1: [3]})

    def cached(self) -> None:
        self.llm.set_cache(LlamaRAMCache() if self.llm.cache is None else None)


KEEP_A_STREAM = {"go_on", "save", "beside", "cached"}  # what leaves the sequence as it is


@pytest.mark.parametrize("options", [{}, {"logits_all": True}, {"drafts": True}, {"drafts": True, "logits_all": True}], ids=str)
def test_a_random_history_holds_what_a_list_would(tiny, monkeypatch, options):  # noqa: F811
    options = dict(options)
    draft = Llama(tiny, n_rs_seq=8, **ONE) if options.pop("drafts", False) else None
    with Llama(tiny, n_rs_seq=12, n_ubatch=8, draft_model=draft, **options, **ONE) as llm, Llama(tiny, logits_all=True, **ONE) as plain:
        player = Player(llm, SEED, monkeypatch)
        calls = ["eval", "reset", "generate", "generate", "generate", "go_on", "go_on", "save", "load", "cancelled", "interrupted", "beside", "cached"]
        n_right = 0
        for step in range(N_STEPS):
            name = str(player.rng.choice(calls))
            if name not in KEEP_A_STREAM and name != "generate" and player.stream is not None:
                getattr(player, name)()
                if name != "load" or player.saved:
                    with pytest.raises(LlamaError, match="another call changed"):
                        next(player.stream)
                    player.stream = None
            else:
                getattr(player, name)()
            assert llm.n_tokens == len(player.held) and llm.input_ids.tolist() == player.held, (step, name)
            if not player.held:
                continue
            plain.reset()
            plain.eval(player.held)
            if player.known:
                assert np.abs(llm.logits - plain.logits).max() < 1e-4, (step, name)
            if options.get("logits_all"):
                known = ~np.isnan(llm.scores).any(1)
                known[-1] &= player.known
                assert np.abs(llm.scores[known] - plain.scores[known]).max(initial=0) < 1e-4, (step, name)
            n_right = max(n_right, llm.draft_counts["draft_n_accepted"])
        if draft is not None:
            draft.close()
            assert n_right > 0
