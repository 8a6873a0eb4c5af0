"""Sequences decoded together are each as if alone; forks share a prefix; the session beside them is not touched."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
from binding_models import ONE, logits_of, tiny, tokens_of  # noqa: F401

from spikingbrain_cpp import Batch, Cancelled, Llama, LlamaError

NEVER = {t: -1e9 for t in (262, 263, 264)}  # end-of-generation tokens


@pytest.fixture
def llm(tiny):  # noqa: F811
    with Llama(tiny, **ONE) as model:
        yield model


def test_each_sequence_is_as_if_alone(llm, tiny):  # noqa: F811
    texts = [tokens_of(n, seed=n) for n in (1, 5, 40, 700)]
    with llm.batch(4) as batch:
        assert isinstance(batch, Batch)
        batch.eval(dict(enumerate(texts)))
        batch.eval({2: [7, 8], 0: [9]})
        for seq, more in enumerate(([9], [], [7, 8], [])):
            whole = np.concatenate([texts[seq], np.array(more, np.int32)]).astype(np.int32)
            assert batch.n_tokens(seq) == whole.size
            assert np.abs(batch.logits(seq) - logits_of(tiny, whole)[-1]).max() < 1e-5


def test_a_fork_costs_no_token_and_goes_its_own_way(llm, tiny):  # noqa: F811
    prefix = tokens_of(50)
    with llm.batch(3) as batch:
        batch.eval({0: prefix})
        before = llm.n_evaluated
        batch.fork(0, 1)
        batch.fork(0, 2)
        assert llm.n_evaluated == before and np.array_equal(batch.logits(1), batch.logits(0))
        batch.eval({1: [1, 2], 2: [3]})
        assert np.abs(batch.logits(1) - logits_of(tiny, np.append(prefix, [1, 2]).astype(np.int32))[-1]).max() < 1e-5
        assert np.abs(batch.logits(2) - logits_of(tiny, np.append(prefix, 3).astype(np.int32))[-1]).max() < 1e-5
        batch.reset(1)
        assert batch.n_tokens(1) == 0 and batch.n_tokens(0) == 50
        with pytest.raises(LlamaError, match="eval a token"):
            batch.logits(1)


def test_many_prompts_equal_their_solo_answers(llm, tiny):  # noqa: F811
    prefix = tokens_of(30).tolist()
    prompts = [prefix + tokens_of(n, seed=n).tolist() for n in (1, 3, 9, 2, 20)]
    with Llama(tiny, **ONE) as fresh:
        want = [list(itertools.islice(fresh.generate(p, temp=0, logit_bias=NEVER), 12)) for p in prompts]
    llm.eval([1, 2, 3])
    row = llm.logits
    got = llm.generate_many(prompts, max_tokens=12, temperature=0, logit_bias=NEVER, n_parallel=2)
    assert [g["tokens"] for g in got] == want and [g["index"] for g in got] == list(range(5))
    assert all(g["finish_reason"] == "length" for g in got)
    assert llm.n_evaluated == 3 + 30 + sum(len(p) - 30 for p in prompts) + 5 * 11  # the prefix once
    assert llm.n_tokens == 3 and np.array_equal(llm.logits, row)


def test_samples_of_one_prompt_differ_and_repeat_with_the_seed(llm):
    options = {"n": 4, "max_tokens": 8, "temperature": 1.5, "logit_bias": NEVER}
    first = llm.generate_many([tokens_of(9).tolist()], seed=3, **options)
    assert len({tuple(g["tokens"]) for g in first}) == 4
    assert first == llm.generate_many([tokens_of(9).tolist()], seed=3, **options)
    assert first != llm.generate_many([tokens_of(9).tolist()], seed=4, **options)


def test_texts_end_as_completions_end(llm):
    whole = llm.create_completion("hello the", max_tokens=30, temperature=0, logit_bias=NEVER)["choices"][0]["text"]
    stop = whole[3:5]
    want = llm.create_completion("hello the", max_tokens=30, temperature=0, stop=stop, logit_bias=NEVER)["choices"][0]
    got = llm.generate_many(["hello the"], max_tokens=30, temperature=0, stop=stop, logit_bias=NEVER)[0]
    assert (got["text"], got["finish_reason"]) == (want["text"], "stop")
    ends = llm.generate_many(["hello"], max_tokens=30, temperature=0, logit_bias={262: 1e9})[0]
    assert ends["tokens"] == [] and ends["text"] == "" and ends["finish_reason"] == "stop"


def test_a_cancel_ends_the_evaluation_and_leaves_exact_sequences(llm, tiny):  # noqa: F811
    tokens = tokens_of(200_000)
    with llm.batch(2) as batch:
        threading.Timer(0.15, batch.cancel).start()
        with pytest.raises(Cancelled):
            batch.eval({0: tokens, 1: tokens})
        n = batch.n_tokens(1)
        assert n < tokens.size
        batch.eval({1: tokens[n:n + 5]})
        with Llama(tiny, **ONE) as fresh:
            fresh.eval(tokens[:n + 5])
            assert np.abs(fresh.logits - batch.logits(1)).max() < 1e-4


@pytest.mark.parametrize("call", [
    lambda b: b.eval({2: [1]}), lambda b: b.eval({-1: [1]}), lambda b: b.eval({0: []}), lambda b: b.eval({0: [288]}),
    lambda b: b.fork(0, 9), lambda b: b.fork(9, 0), lambda b: b.reset(5), lambda b: b.logits(7), lambda b: b.n_tokens(-1)])
def test_wrong_sequences_and_tokens_are_refused(llm, call):
    with llm.batch(2) as batch:
        with pytest.raises(ValueError):
            call(batch)
        batch.eval({0: [1], 1: [2]})


def test_wrong_arguments_are_refused(llm):
    for n_seq, error in ((0, ValueError), (10**9, ValueError), ("2", TypeError), (True, TypeError), (-1, (ValueError, TypeError))):
        with pytest.raises(error):
            llm.batch(n_seq)
    for options in ({"n": 0}, {"n_parallel": -1}, {"temperature": float("nan")}, {"n": "x"}):
        with pytest.raises(ValueError):
            llm.generate_many(["a"], **options)
    with pytest.raises(TypeError, match="list of prompts"):
        llm.generate_many("a")
    with pytest.raises(ValueError, match="without tokens"):
        llm.generate_many(["a", ""])
    assert llm.generate_many([]) == []


def test_closing_the_model_closes_its_batches(tiny):  # noqa: F811
    llm = Llama(tiny, **ONE)
    batch = llm.batch(2)
    batch.eval({0: [1]})
    llm.close()
    with pytest.raises(LlamaError, match="closed"):
        batch.eval({0: [1]})
    batch.close()
