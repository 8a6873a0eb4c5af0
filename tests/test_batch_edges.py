"""Batches and many prompts at their edges: rows that are no longer true are gone, penalties see a shared prefix, bounds hold to the token."""

from __future__ import annotations

import numpy as np
import pytest
from binding_models import ONE, logits_of, tiny, tokens_of  # noqa: F401

from spikingbrain_cpp import Llama, LlamaError
from spikingbrain_cpp.parallel import common_prefix

NO_END = dict.fromkeys((262, 263, 264), -1e9)


@pytest.fixture(scope="module")
def llm(tiny):  # noqa: F811
    with Llama(tiny, n_batch=32, n_ubatch=16, **ONE) as model:
        yield model


def has_row(batch, seq: int) -> bool:
    try:
        batch.logits(seq)
    except LlamaError:
        return False
    return True


# --- rows -------------------------------------------------------------------------------------------------------------


def test_a_row_goes_when_its_sequence_does(llm):
    with llm.batch(4) as batch:
        assert not any(has_row(batch, seq) for seq in range(4))
        batch.eval({0: [1, 2], 1: [3]})
        assert [has_row(batch, seq) for seq in range(4)] == [True, True, False, False]
        batch.fork(2, 1)  # a copy of an empty one is empty
        assert not has_row(batch, 1) and batch.n_tokens(1) == 0
        batch.reset(0)
        assert not has_row(batch, 0) and batch.n_tokens(0) == 0


def test_a_forks_row_is_its_own(llm, tiny):  # noqa: F811
    with llm.batch(3) as batch:
        batch.eval({0: [1, 2, 3], 1: [9]})
        row = batch.logits(0)
        batch.fork(0, 1)
        batch.fork(0, 0)  # onto itself: nothing happens
        assert batch.n_tokens(0) == batch.n_tokens(1) == 3
        assert np.array_equal(batch.logits(0), row) and np.array_equal(batch.logits(1), row)
        batch.logits(1)[:] = 0  # a copy
        batch.eval({0: [4]})
        assert np.array_equal(batch.logits(1), row) and not np.array_equal(batch.logits(0), row)
        batch.reset(0)
        assert np.array_equal(batch.logits(1), row)
        assert np.abs(row - logits_of(tiny, np.array([1, 2, 3], np.int32))[-1]).max() < 1e-5


@pytest.mark.parametrize("bad, error", [({0: [5], 1: []}, ValueError), ({0: [5], 1: [288]}, ValueError), ({0: [5], 1: ["x"]}, TypeError)])
def test_a_refused_eval_reads_nothing(llm, bad, error):
    with llm.batch(2) as batch:
        batch.eval({0: [1], 1: [2]})
        rows = [batch.logits(seq) for seq in (0, 1)]
        with pytest.raises(error):
            batch.eval(bad)
        assert [batch.n_tokens(seq) for seq in (0, 1)] == [1, 1]
        assert all(np.array_equal(batch.logits(seq), row) for seq, row in enumerate(rows))


@pytest.mark.parametrize("lengths", [(1, 1), (16, 16), (8, 8), (17, 3), (33, 1), (5, 40, 16), (1, 2, 3, 4, 5, 6, 7, 8, 9)])
def test_any_lengths_together_are_as_if_alone(llm, tiny, lengths):  # noqa: F811
    texts = [tokens_of(n, seed=i) for i, n in enumerate(lengths)]
    before = llm.n_evaluated
    with llm.batch(len(lengths)) as batch:
        batch.eval(dict(enumerate(texts)))
        assert [batch.n_tokens(i) for i in range(len(lengths))] == list(lengths)
        for i, text in enumerate(texts):
            assert np.abs(batch.logits(i) - logits_of(tiny, text)[-1]).max() < 1e-5
    assert llm.n_evaluated - before == sum(lengths)


def test_more_sequences_than_a_micro_batch_holds(tiny):  # noqa: F811
    with Llama(tiny, n_batch=4, n_ubatch=2, **ONE) as small, small.batch(7) as batch:
        texts = {i: tokens_of(3 + i % 2, seed=i) for i in range(7)}
        batch.eval(texts)
        for i, text in texts.items():
            assert np.abs(batch.logits(i) - logits_of(tiny, text)[-1]).max() < 1e-5


def test_n_ctx_holds_to_the_token(tiny):  # noqa: F811
    with Llama(tiny, n_ctx=10, **ONE) as bound, bound.batch(2) as batch:
        batch.eval({0: tokens_of(10), 1: tokens_of(9)})
        for tokens, got in (({0: [1]}, 11), ({1: [1, 2]}, 11), ({1: [1], 0: [1]}, 11)):
            with pytest.raises(ValueError, match=f"got {got}, expected at most n_ctx=10"):
                batch.eval(tokens)
        assert [batch.n_tokens(i) for i in range(2)] == [10, 9]
        batch.eval({1: [1]})
        assert batch.n_tokens(1) == 10


@pytest.mark.parametrize("n_seq, ok", [(1, True), (256, True), (0, False), (257, False)])
def test_how_many_sequences_there_can_be(llm, n_seq, ok):
    if ok:
        with llm.batch(n_seq) as batch:
            assert batch.n_seq == n_seq
            batch.eval({n_seq - 1: [1]})
            with pytest.raises(ValueError):
                batch.eval({n_seq: [1]})
    else:
        with pytest.raises(ValueError, match="batch: n_seq"):
            llm.batch(n_seq)


def test_a_closed_batch_is_said_to_be(llm):
    batch = llm.batch(1)
    batch.eval({0: [1]})
    batch.close()
    batch.close()
    for call in (lambda: batch.eval({0: [1]}), lambda: batch.logits(0), lambda: batch.n_tokens(0), lambda: batch.fork(0, 0), lambda: batch.reset(0)):
        with pytest.raises(LlamaError, match="batch: got a closed one"):
            call()


# --- many prompts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompts, n", [
    ([[1, 2, 3]], 2), ([[1]], 0), ([[1, 2], [1, 2]], 1), ([[1, 2, 3], [1, 2, 4]], 2), ([[1, 2, 3], [1, 2]], 1), ([[5], [1, 2]], 0),
    ([[1, 2, 3, 4], [1, 9, 3, 4]], 1), ([[9, 2], [1, 2]], 0), ([[1, 2, 3], [1, 2, 3], [1, 5, 3]], 1)])
def test_what_all_begin_with_leaves_each_a_token(prompts, n):
    assert common_prefix([np.array(p, np.int32) for p in prompts]) == n


PREFIX = [7, 7, 8, 9, 7]
SHAPES = {"a shared prefix": [PREFIX + [1, 2], PREFIX + [3], PREFIX + [7, 8]], "one prompt": [PREFIX], "the same twice": [PREFIX, PREFIX],
          "nothing shared": [[1, 2, 3], [4, 5]], "single tokens": [[1], [2], [1]], "one is the other's beginning": [PREFIX, PREFIX + [1]]}


@pytest.mark.parametrize("last_n", [0, 1, 4, 64])
@pytest.mark.parametrize("prompts", list(SHAPES.values()), ids=list(SHAPES))
def test_penalties_see_what_each_prompt_says(tiny, prompts, last_n):  # noqa: F811
    penalties = {"repeat_penalty": 1.4, "frequency_penalty": 0.5, "presence_penalty": 0.7, "logit_bias": {**NO_END, 7: 1.2, 8: 1.0}}
    with Llama(tiny, last_n_tokens_size=last_n, **ONE) as model:
        want = []
        for prompt in prompts:
            model.reset()
            want.append([t for _, t in zip(range(10), model.generate(prompt, temp=0, **penalties))])
        for n_parallel in (1, 2, 8):
            got = model.generate_many(prompts, max_tokens=10, temperature=0, n_parallel=n_parallel, **penalties)
            assert [g["tokens"] for g in got] == want and [g["index"] for g in got] == list(range(len(prompts)))


def test_each_ends_as_a_completion_ends(tiny):  # noqa: F811
    options = {"temperature": 0, "logit_bias": NO_END}
    with Llama(tiny, n_ctx=12, **ONE) as bound:
        for n_prompt, max_tokens in ((5, 3), (5, 7), (5, 8), (11, 4), (10, 1), (10, 2)):
            prompt = tokens_of(n_prompt).tolist()
            want = bound.create_completion(prompt, max_tokens=max_tokens, **options)
            got = bound.generate_many([prompt], max_tokens=max_tokens, **options)[0]
            assert (got["text"], got["finish_reason"]) == (want["choices"][0]["text"], want["choices"][0]["finish_reason"])
            assert len(got["tokens"]) == want["usage"]["completion_tokens"] == min(max_tokens, 12 - n_prompt)
        with pytest.raises(ValueError, match="generate_many: requested tokens: got 13, expected at most n_ctx=12"):
            bound.generate_many([tokens_of(12).tolist()])


def test_a_stop_string_and_what_was_held_back_for_it(llm):
    prompt, bias = tokens_of(6).tolist(), {**NO_END, 65: 1e6}
    letter = llm.detokenize([65]).decode()
    for stop, max_tokens, want in ((letter * 2, 5, ("", "stop")), (letter * 4, 3, (letter * 3, "length")), (letter * 3, 3, ("", "stop")), ("never", 2, (letter * 2, "length"))):
        got = llm.generate_many([prompt], max_tokens=max_tokens, stop=stop, temperature=0, logit_bias=bias)[0]
        assert (got["text"], got["finish_reason"]) == want


@pytest.mark.parametrize("n", [1, 3])
def test_n_answers_to_each_in_the_prompts_order(llm, n):
    got = llm.generate_many([[1, 2], "hello", [3]], n=n, max_tokens=2, logit_bias=NO_END, seed=1)
    assert [g["index"] for g in got] == [i for i in range(3) for _ in range(n)]
    assert all(set(g) == {"index", "tokens", "text", "finish_reason"} for g in got)


def test_more_prompts_than_llama_cpp_has_sequences(llm):
    prompts = [[1 + i % 200, 2] for i in range(260)]
    got = llm.generate_many(prompts, max_tokens=1, n_parallel=10**6, temperature=0, logit_bias=NO_END)
    assert len(got) == 260 and got[3]["tokens"] == llm.generate_many([prompts[3]], max_tokens=1, temperature=0, logit_bias=NO_END)[0]["tokens"]


@pytest.mark.parametrize("name", ["n", "max_tokens", "n_parallel"])
def test_counts_are_integers_of_one_or_more(llm, name):
    """max_tokens of 0 or less, or None, is the default (tests/test_limits.py)."""
    for wrong in (True, 1.0, "1") if name == "max_tokens" else (0, -1, True, 1.0, "1", None):
        with pytest.raises((ValueError, TypeError), match=f"generate_many: {name}: got"):
            llm.generate_many([[1]], **{name: wrong})


@pytest.mark.parametrize("prompts, n, n_parallel, n_seq", [([[1, 2], [3]], 1, 1, 2), ([[1, 2], [3]], 1, 2, 3), ([[1, 2], [3]], 1, 9, 3), ([[1, 2]], 1, 1, 2),
                                                          ([[1, 2]], 3, 2, 4), ([[1, 2], [3]], 2, 8, 6), ([[1, 2], [3]], 2, 1, 3)])
def test_no_more_sequences_than_are_needed(llm, monkeypatch, prompts, n, n_parallel, n_seq):
    """Each takes the memory of a state: the slots, one for what all begin with, one more where a prompt has several answers."""
    from spikingbrain_cpp import sequence
    made, context = [], sequence.Context
    monkeypatch.setattr(sequence, "Context", lambda *a, **k: made.append((k["n_seq"], k["n_outputs_max"])) or context(*a, **k))
    llm.generate_many(prompts, n=n, n_parallel=n_parallel, max_tokens=1, temperature=0, logit_bias=NO_END)
    assert made == [(n_seq, n_seq)]
