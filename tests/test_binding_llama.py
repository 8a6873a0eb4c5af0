"""The class people know: evaluation, generation, prompt reuse, bounds, life."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest
from binding_models import ONE, logits_of, tiny, tokens_of  # noqa: F401

from spikingbrain_cpp import Llama, LlamaError, LogitsProcessorList, StoppingCriteriaList


@pytest.fixture
def llm(tiny):  # noqa: F811
    with Llama(tiny, seed=7, **ONE) as model:
        yield model


def take(n: int, tokens) -> list[int]:
    out = [t for _, t in zip(range(n), tokens)]
    tokens.close()
    return out


def greedy(llm: Llama, prompt, n: int) -> list[int]:
    return take(n, llm.generate(prompt, temp=0))


# --- evaluation -----------------------------------------------------------------------------------------------


def test_sequence_as_arrays(tiny):  # noqa: F811
    tokens = tokens_of(30)
    with Llama(tiny, logits_all=True, **ONE) as llm:
        assert llm.n_tokens == 0 and llm.input_ids.size == 0 and llm.scores.shape == (0, 288)
        llm.eval(tokens[:10].tolist())
        llm.eval(tokens[10:])
        assert llm.n_tokens == 30 and np.array_equal(llm.input_ids, tokens) and llm.input_ids.dtype == np.int32
        assert llm.scores.shape == (30, 288) and llm.scores.dtype == np.float32
        assert np.array_equal(llm.scores[-1], llm.logits)
        assert np.abs(llm.scores - logits_of(tiny, tokens)).max() < 1e-5
        llm.reset()
        assert llm.n_tokens == 0 and llm.scores.shape == (0, 288)


def test_rows_are_not_kept_unless_asked_for(llm):
    llm.eval(tokens_of(5))
    with pytest.raises(LlamaError, match="logits_all"):
        llm.scores
    assert llm.logits.shape == (288,)


def test_nothing_evaluated_means_no_logits(llm):
    for call in (lambda: llm.logits, llm.sample):
        with pytest.raises(LlamaError, match="eval a token"):
            call()


def test_interrupt_leaves_the_tokens_that_were_finished(tiny):  # noqa: F811
    tokens = tokens_of(2_000_000)
    with Llama(tiny, n_batch=64, **ONE) as llm:
        threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            llm.eval(tokens)
        n = llm.n_tokens
        assert 0 < n < tokens.size and n % 64 == 0
        assert np.array_equal(llm.input_ids, tokens[:n])
        llm.eval(tokens[n:n + 10])
        got = llm.logits
    with Llama(tiny, **ONE) as fresh:
        fresh.eval(tokens[:n + 10])
        assert np.abs(fresh.logits - got).max() < 1e-4


def test_other_threads_run_while_decoding(tiny):  # noqa: F811
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    tokens = tokens_of(20_000)
    with Llama(tiny, n_batch=20_000, n_ubatch=64, **ONE) as llm:  # one call into llama.cpp
        thread = threading.Thread(target=tick)
        thread.start()
        began = time.perf_counter()
        llm.eval(tokens)
        ended = time.perf_counter()
        stop.set()
        thread.join()
    assert sum(began < t < ended for t in ticks) > 10


# --- choosing tokens -------------------------------------------------------------------------------------------


def test_greedy_takes_the_largest_logit(llm):
    llm.eval(tokens_of(9))
    assert llm.sample(temp=0) == llm.logits.argmax()


def test_equal_seeds_equal_draws(tiny):  # noqa: F811
    prompt = tokens_of(12)
    with Llama(tiny, seed=3, **ONE) as a, Llama(tiny, seed=3, **ONE) as b:
        first = take(20, a.generate(prompt, temp=1.5))
        assert first == take(20, b.generate(prompt, temp=1.5))
        assert first != take(20, a.generate(prompt, temp=1.5))  # the next draw of the same seed's sequence
        assert take(20, a.generate(prompt, seed=5)) == take(20, b.generate(prompt, seed=5))
        a.set_seed(3)
        assert first == take(20, a.generate(prompt, temp=1.5))


def test_sample_draws_afresh_each_time(llm):
    llm.eval(tokens_of(9))
    assert len({llm.sample(temp=2.0, top_k=0, top_p=1.0, min_p=0.0) for _ in range(50)}) > 5


def test_bias_penalties_and_processors(llm):
    prompt = tokens_of(9)
    best = greedy(llm, prompt, 1)[0]
    other = greedy_with(llm, prompt, logit_bias={best: -1000})
    assert other != best
    assert greedy_with(llm, prompt, logit_bias={17: 1000}) == 17
    llm.reset()
    llm.eval([*prompt.tolist(), best])
    llm.eval(prompt)
    assert llm.sample(temp=0, presence_penalty=1000, logit_bias={best: 900}) != best  # a token of the history
    seen = []

    def only_42(ids, row):
        seen.append((ids.copy(), row.shape, np.isfinite(row).all()))
        row[:] = -np.inf
        row[42] = 0
        return row
    assert greedy_with(llm, prompt, logits_processor=only_42) == 42
    assert greedy_with(llm, prompt, logits_processor=LogitsProcessorList([only_42])) == 42
    assert all(np.array_equal(ids, prompt) and shape == (288,) and finite for ids, shape, finite in seen)


def greedy_with(llm: Llama, prompt, **arguments) -> int:
    return take(1, llm.generate(prompt, temp=0, **arguments))[0]


def test_repeat_penalty_sees_the_prompt(tiny):  # noqa: F811
    prompt = tokens_of(30)
    with Llama(tiny, last_n_tokens_size=64, **ONE) as llm:
        llm.eval(prompt)
        row = llm.logits
        token = llm.sample(temp=0, frequency_penalty=1e6)
        assert token == np.where(np.isin(np.arange(288), prompt), -np.inf, row).argmax()


@pytest.mark.parametrize("mode", [1, 2])
def test_mirostat(llm, mode):
    prompt = tokens_of(12)
    a = take(10, llm.generate(prompt, mirostat_mode=mode, seed=1))
    assert a == take(10, llm.generate(prompt, mirostat_mode=mode, seed=1)) and len(a) == 10


def test_stopping_criteria_see_the_last_row(llm):
    prompt, seen = tokens_of(10), []

    def after_15(ids, row):
        seen.append((ids.size, float(row.max())))
        return ids.size >= 15
    out = list(llm.generate(prompt, temp=0, stopping_criteria=StoppingCriteriaList([after_15])))
    assert len(out) == 5 and [n for n, _ in seen] == list(range(10, 16)) and llm.n_tokens == 15
    assert np.isfinite([m for _, m in seen]).all()


def test_send_appends_tokens(llm):
    prompt = tokens_of(10)
    generator = llm.generate(prompt, temp=0)
    first = next(generator)
    generator.send([5, 6])
    assert llm.input_ids.tolist() == [*prompt, first, 5, 6]


# --- prompt reuse -------------------------------------------------------------------------------------------------


def evaluated(llm: Llama, prompt, n: int = 1) -> tuple[list[int], int]:
    before = llm.n_evaluated
    return greedy(llm, prompt, n), llm.n_evaluated - before


def test_a_prompt_that_only_grows_evaluates_its_new_tokens(llm, tiny):  # noqa: F811
    prompt = tokens_of(40).tolist()
    answer, n = evaluated(llm, prompt, 10)
    assert n == 40 + 9  # the tenth token is not evaluated
    longer = [*prompt, *answer, 1, 2, 3]
    again, n = evaluated(llm, longer, 5)
    assert n == 4 + 4
    with Llama(tiny, **ONE) as fresh:
        assert greedy(fresh, longer, 5) == again


def test_the_same_prompt_again_evaluates_nothing(llm):
    prompt = tokens_of(40)
    llm.eval(prompt)
    _, n = evaluated(llm, prompt)
    assert n == 0


def test_other_prompts_are_right_whatever_is_reused(llm, tiny):  # noqa: F811
    base = tokens_of(40).tolist()
    prompts = [base, base[:20], base[:20] + [7, 8], [9] + base, base[:39], base[:39] + [200], base[:1], base[::-1]]
    for first in prompts:
        for second in prompts:
            llm.reset()
            greedy(llm, first, 3)
            got = greedy(llm, second, 4)
            with Llama(tiny, **ONE) as fresh:
                assert got == greedy(fresh, second, 4)


def test_a_changed_last_micro_batch_costs_only_itself(llm):
    base = tokens_of(40).tolist()
    llm.eval(base[:30])
    llm.eval(base[30:])
    _, n = evaluated(llm, [*base[:30], 1, 2, 3])
    assert n == 3


def test_another_call_in_between_is_noticed(llm):
    first = llm.generate(tokens_of(10), temp=0)
    next(first)
    llm.eval([1])
    with pytest.raises(LlamaError, match="another call changed"):
        next(first)


# --- n_ctx ---------------------------------------------------------------------------------------------------------


def test_no_bound_by_default(llm):
    assert llm.n_ctx() == 2**30
    llm.eval(tokens_of(1000))  # TINY's trained length is 512
    assert llm.n_tokens == 1000


def test_given_bound_holds_prompt_plus_generation(tiny):  # noqa: F811
    with Llama(tiny, n_ctx=50, **ONE) as llm:
        assert llm.n_ctx() == 50
        assert len(list(llm.generate(tokens_of(40), temp=0))) == 10
        answer = llm.create_completion(tokens_of(40).tolist(), max_tokens=None, temperature=0,
                                       logit_bias={262: -1e9, 263: -1e9, 264: -1e9})
        assert answer["choices"][0]["finish_reason"] == "length" and answer["usage"]["total_tokens"] == 50
        for call in (lambda: llm.generate(tokens_of(50)), lambda: llm.create_completion(tokens_of(60).tolist())):
            with pytest.raises(ValueError, match="requested tokens: got .*, expected at most n_ctx=50"):
                call()
        llm.reset()
        llm.eval(tokens_of(50))
        with pytest.raises(ValueError, match="got 51, expected at most n_ctx=50"):
            llm.eval([1])
        assert llm.n_tokens == 50


# --- life ----------------------------------------------------------------------------------------------------------


def test_close_and_use_after(tiny):  # noqa: F811
    llm = Llama(tiny, **ONE)
    generator = llm.generate(tokens_of(5))
    next(generator)
    llm.close()
    llm.close()
    for call in (lambda: llm.eval([1]), lambda: llm.n_tokens, llm.n_vocab, lambda: llm.tokenize(b"a"), llm.save_state,
                 lambda: llm("a"), lambda: next(generator), llm.reset, lambda: llm.detokenize([1]), llm.sample):
        with pytest.raises(LlamaError, match="closed"):
            call()


def test_two_at_once_do_not_disturb_each_other(tiny):  # noqa: F811
    with Llama(tiny, **ONE) as a, Llama(tiny, **ONE) as b:
        a.eval(tokens_of(20))
        b.eval(tokens_of(30, seed=1))
        a.eval([3])
        assert np.abs(a.logits - logits_of(tiny, np.append(tokens_of(20), 3).astype(np.int32))[-1]).max() < 1e-5


def test_threads_are_serialised(llm, tiny):  # noqa: F811
    prompts = [tokens_of(10 + i, seed=i).tolist() for i in range(4)]
    bias = {t: -1e9 for t in (262, 263, 264)}
    got: dict[int, list[str]] = {i: [] for i in range(4)}

    def work(i: int) -> None:
        for _ in range(5):
            got[i].append(llm.create_completion(prompts[i], temperature=0, max_tokens=6, logit_bias=bias)["choices"][0]["text"])
    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    for i in range(4):
        with Llama(tiny, **ONE) as fresh:
            want = fresh.create_completion(prompts[i], temperature=0, max_tokens=6, logit_bias=bias)["choices"][0]["text"]
        assert got[i] == [want] * 5


def test_a_forked_child_is_refused_and_harms_nothing(llm):
    llm.eval(tokens_of(10))
    row = llm.logits
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            llm.eval([1])
        except LlamaError as error:
            code = 0 if "after os.fork" in str(error) else 2
        llm.close()
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert np.array_equal(llm.logits, row)
    llm.eval([1])
