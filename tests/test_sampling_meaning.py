"""What each sampling argument means: draws have the distribution that numpy computes from the logits, and every way to generate takes every argument."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from binding_models import ONE, tiny, tokens_of  # noqa: F401

from spikingbrain_cpp import Llama, LlamaError, LogitsProcessorList, StoppingCriteriaList
from spikingbrain_cpp.sampling import SamplingParams, build_chain, logprobs_of

N = 288
ROW = np.random.default_rng(5).normal(0, 2, N).astype(np.float32)
SEEN = [7, 7, 7, 11, 11, 40, int(ROW.argmax()), int(np.argsort(ROW)[-2])]  # the sequence so far, the likeliest two among it
OFF = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0, "temp": 1.0}
N_DRAWS = 2500

Distribution = np.ndarray  # float64 [N], sums to 1


@pytest.fixture(scope="module")
def llm(tiny):  # noqa: F811
    with Llama(tiny, seed=7, **ONE) as model:
        model.eval(SEEN)
        yield model


def softmax(logits: np.ndarray) -> Distribution:
    e = np.exp(logits - logits.max())
    return e / e.sum()


def keep(p: Distribution, order: np.ndarray, n: int) -> Distribution:
    """The first n of an order alone."""
    out = np.zeros_like(p)
    out[order[:n]] = p[order[:n]]
    return out / out.sum()


def reference(top_k=0, top_p=1.0, min_p=0.0, typical_p=1.0, temp=1.0, repeat_penalty=1.0, frequency_penalty=0.0, presence_penalty=0.0,
              logit_bias=None, last_n=64) -> Distribution:
    """The samplers in their order, from their definitions."""
    logits = ROW.astype(np.float64)
    for token, value in (logit_bias or {}).items():
        logits[token] += value
    for token in set(SEEN[-last_n:] if last_n else []):
        count = SEEN[-last_n:].count(token)
        logits[token] = logits[token] * repeat_penalty if logits[token] <= 0 else logits[token] / repeat_penalty
        logits[token] -= count * frequency_penalty + presence_penalty
    if temp < 0:
        return softmax(logits)
    p = softmax(logits)
    if top_k > 0:
        p = keep(p, np.argsort(-p), top_k)
    if typical_p < 1:
        held = np.flatnonzero(p)
        surprise = -np.log(p[held])
        order = held[np.argsort(np.abs(surprise - (p[held] * surprise).sum()))]
        p = keep(p, order, int((np.cumsum(p[order]) <= typical_p).sum()) + 1)
    if top_p < 1:
        order = np.argsort(-p)
        p = keep(p, order, int((np.cumsum(p[order]) < top_p).sum()) + 1)
    p = np.where(p >= min_p * p.max(), p, 0)
    with np.errstate(divide="ignore"):
        return softmax(np.log(p) / temp)


def check_draws(drawn: np.ndarray, expected: np.ndarray) -> None:
    """drawn [n] came from the distributions expected [n, N]: nothing impossible, and every count within 5 deviations."""
    assert (expected[np.arange(drawn.size), drawn] > 0).all()
    counts, mean = np.bincount(drawn, minlength=N), expected.sum(0)
    deviation = np.sqrt((expected * (1 - expected)).sum(0))
    assert (np.abs(counts - mean) <= 5 * deviation + 3).all()


@pytest.mark.parametrize("given", [
    {}, {"top_k": 5}, {"top_k": 1}, {"top_p": 0.6}, {"top_p": 0.05}, {"min_p": 0.2}, {"typical_p": 0.5}, {"temp": 0.5}, {"temp": 2.0}, {"temp": -1.0, "top_k": 2},
    {"repeat_penalty": 3.0}, {"repeat_penalty": 0.5}, {"frequency_penalty": 1.5}, {"presence_penalty": 2.5}, {"frequency_penalty": -1.0, "presence_penalty": 0.5},
    {"repeat_penalty": 1.3, "frequency_penalty": 0.4, "presence_penalty": 0.9}, {"logit_bias": {3: 4.0, 9: -1.0, int(ROW.argmax()): -np.inf}},
    {"top_k": 40, "top_p": 0.95, "min_p": 0.05, "typical_p": 0.9, "temp": 0.8}, {"min_p": 0.1, "temp": 3.0}, {"top_p": 0.7, "temp": 3.0}, {"top_k": 6, "top_p": 0.6}])
def test_draws_have_the_distribution_of_the_arguments(llm, given):
    arguments = {**OFF, **given}
    drawn = np.array([llm.sample(**arguments, logits_processor=lambda ids, row: ROW) for _ in range(N_DRAWS)])
    expected = reference(**arguments)
    check_draws(drawn, np.broadcast_to(expected, (N_DRAWS, N)))
    often = np.flatnonzero(expected > 0.01)
    assert set(often) <= set(drawn.tolist())


@pytest.mark.parametrize("last_n", [0, 1, 2, 3, 64])
def test_penalties_look_back_that_many_tokens(tiny, last_n):  # noqa: F811
    with Llama(tiny, last_n_tokens_size=last_n, seed=3, **ONE) as other:
        other.eval(SEEN)
        drawn = np.array([other.sample(**OFF, presence_penalty=3.0, logits_processor=lambda ids, row: ROW) for _ in range(N_DRAWS)])
    check_draws(drawn, np.broadcast_to(reference(presence_penalty=3.0, last_n=last_n), (N_DRAWS, N)))


def mirostat_1(p: Distribution, mu: float) -> Distribution:
    """Mirostat's algorithm 1: Zipf's exponent from the 100 likeliest, then as many tokens as give the surprise."""
    order = np.argsort(-p)
    top = p[order][:100]
    t, b = np.log((np.arange(99) + 2) / (np.arange(99) + 1)), np.log(top[:-1] / top[1:])
    s = (t * b).sum() / (t * t).sum()
    k = ((s - 1) * 2**mu / (1 - N ** -(s - 1))) ** (1 / s)
    return keep(p, order, max(int(k), 1))


def mirostat_2(p: Distribution, mu: float) -> Distribution:
    """Algorithm 2: tokens of at most the surprise mu."""
    order = np.argsort(-p)
    return keep(p, order, max(1, int((-np.log2(p) <= mu).sum())))


@pytest.mark.parametrize("mode, step", [(1, mirostat_1), (2, mirostat_2)])
@pytest.mark.parametrize("tau, eta, temp", [(3.0, 0.2, 1.0), (1.5, 0.05, 1.3)])
def test_mirostat_keeps_to_its_surprise(llm, mode, step, tau, eta, temp):
    arguments = {"mirostat_mode": mode, "mirostat_tau": tau, "mirostat_eta": eta, "temp": temp, "top_k": 1}  # top_k: without effect
    drawn = np.array([llm.sample(**arguments, logits_processor=lambda ids, row: ROW) for _ in range(1000)])
    mu, expected, p = 2 * tau, [], softmax(ROW.astype(np.float64) / temp)
    for token in drawn:
        now = step(p, mu)
        expected.append(now)
        assert now[token] > 0
        mu -= eta * (-np.log2(now[token]) - tau)
    check_draws(drawn, np.array(expected))


def test_a_temperature_of_zero_takes_the_likeliest_after_bias_and_penalties(llm):
    def row(ids, scores):
        return ROW
    order = np.argsort(-ROW)
    assert llm.sample(temp=0, top_k=5, logits_processor=row) == order[0]
    assert llm.sample(temp=0, mirostat_mode=2, logits_processor=row) == order[0]
    assert llm.sample(temp=0, presence_penalty=100, logits_processor=row) == next(t for t in order if t not in SEEN)
    assert llm.sample(temp=0, logit_bias={int(order[0]): -np.inf, int(order[1]): -np.inf}, logits_processor=row) == order[2]


def test_logprobs_are_the_log_of_softmax():
    assert np.allclose(logprobs_of(ROW), np.log(softmax(ROW.astype(np.float64))), atol=1e-5)
    assert np.allclose(logprobs_of(ROW + 1000), logprobs_of(ROW), atol=1e-3)


# --- every way to generate takes every argument -----------------------------------------------------------------------

GIVEN = {"top_k": 31, "top_p": 0.91, "min_p": 0.031, "typical_p": 0.87, "temp": 0.73, "repeat_penalty": 1.07, "frequency_penalty": 0.11,
         "presence_penalty": 0.13, "mirostat_mode": 2, "mirostat_tau": 4.3, "mirostat_eta": 0.17, "logit_bias": {5: 0.5, 3: -2.0}}


def renamed(given: dict) -> dict:
    """As create_completion names them."""
    return {"temperature" if name == "temp" else name: value for name, value in given.items()}


def without_mirostat(given: dict) -> dict:
    return {name: value for name, value in given.items() if not name.startswith("mirostat")}


WAYS: dict[str, tuple[Callable[..., object], Callable[[dict], dict]]] = {
    "sample": (lambda llm, **a: llm.sample(**a), dict),
    "generate": (lambda llm, **a: next(llm.generate(SEEN, **a)), dict),
    "create_completion": (lambda llm, **a: llm.create_completion(SEEN, max_tokens=1, **a), renamed),
    "create_completion, streamed": (lambda llm, **a: list(llm.create_completion(SEEN, max_tokens=1, stream=True, **a)), renamed),
    "create_chat_completion": (lambda llm, **a: llm.create_chat_completion([{"role": "user", "content": "a"}], max_tokens=1, **a), renamed),
    "generate_many": (lambda llm, **a: llm.generate_many([SEEN], max_tokens=1, **a), lambda given: renamed(without_mirostat(given)))}


def used(llm: Llama, monkeypatch, way: str, given: dict) -> SamplingParams:
    """What reaches the samplers."""
    import spikingbrain_cpp.llama
    import spikingbrain_cpp.parallel
    seen = []

    def spy(model, params, seed, last_n, grammar=None):
        seen.append(params)
        return build_chain(model, params, seed, last_n, grammar)
    for module in (spikingbrain_cpp.llama, spikingbrain_cpp.parallel):
        monkeypatch.setattr(module, "build_chain", spy)
    llm.reset()
    llm.eval(SEEN)
    call, names = WAYS[way]
    call(llm, **names(given))
    return seen[-1]


def wanted(way: str, given: dict) -> SamplingParams:
    held = without_mirostat(given) if way == "generate_many" else given
    return SamplingParams(**{**held, "logit_bias": tuple(sorted(held.get("logit_bias", {}).items()))})


@pytest.mark.parametrize("way", list(WAYS))
def test_every_argument_arrives_under_its_own_name(llm, monkeypatch, way):
    assert used(llm, monkeypatch, way, GIVEN) == wanted(way, GIVEN)
    defaults = {"temp": 0.2} if way == "create_chat_completion" else {}  # llama-cpp-python's
    assert used(llm, monkeypatch, way, {}) == wanted(way, defaults)


def test_positions_of_the_arguments_are_llama_cpp_pythons(llm, monkeypatch):
    """sample and generate are called by position, too: mirostat's eta stands before tau in the one, behind it in the other."""
    WAYS_BY_POSITION = {
        "sample": (lambda llm, **a: llm.sample(31, 0.91, 0.031, 0.87, 0.73, 1.07, 0.11, 0.13, 1.0, 2, 0.17, 4.3)),
        "generate": (lambda llm, **a: next(llm.generate(SEEN, 31, 0.91, 0.031, 0.87, 0.73, 1.07, True, 0.11, 0.13, 1.0, 2, 4.3, 0.17)))}
    for way, call in WAYS_BY_POSITION.items():
        monkeypatch.setitem(WAYS, way, (call, dict))
        assert used(llm, monkeypatch, way, {}) == wanted(way, {**GIVEN, "logit_bias": {}})


# --- seeds ------------------------------------------------------------------------------------------------------------


def draws(llm: Llama, n: int = 12, **options) -> list[int]:
    return list(itertools.islice(llm.generate(SEEN, temp=1.5, **options), n))


def test_seeds_say_whether_draws_repeat(tiny):  # noqa: F811
    with Llama(tiny, **ONE) as random:
        assert draws(random) != draws(random) and draws(random, seed=-1) != draws(random, seed=-1)
        assert draws(random, seed=2**32 - 1) != draws(random, seed=2**32 - 1)
        assert draws(random, seed=0) == draws(random, seed=0) != draws(random, seed=1)
        assert draws(random, seed=2**32 - 2) == draws(random, seed=2**32 - 2)
        random.set_seed(0)
        first = [draws(random), draws(random)]
        random.set_seed(0)
        assert [draws(random), draws(random)] == first and first[0] != first[1]
        for wrong in (-2, 2**32):
            with pytest.raises(ValueError, match="-1 to 2\\^32 - 1"):
                random.set_seed(wrong)
    with Llama(tiny, **ONE) as one, Llama(tiny, seed=-1, **ONE) as other:
        assert draws(one) != draws(other)


def test_the_seeds_of_many_follow_the_first(llm):
    options = {"max_tokens": 8, "temperature": 1.5}
    for first in (5, 2**32 - 2):  # 2^32 - 1, which means a random one, is passed over
        many = llm.generate_many([SEEN, SEEN[:5]], n=2, seed=first, **options)
        alone = [llm.generate_many([prompt], seed=(first + i) % (2**32 - 1), **options)[0] for i, prompt in enumerate([SEEN, SEEN, SEEN[:5], SEEN[:5]])]
        assert [m["tokens"] for m in many] == [a["tokens"] for a in alone]


# --- bounds: what is refused, and what just is not ------------------------------------------------------------------------

BAD, GOOD = {}, {}
for _name in ("top_p", "min_p", "typical_p"):
    BAD[_name], GOOD[_name] = (-0.001, 1.001, float("nan"), float("inf"), True, "1", None), (0, 0.0, 1, 1.0, np.float32(0.5))
for _name in ("frequency_penalty", "presence_penalty", "temp"):
    BAD[_name], GOOD[_name] = (float("nan"), float("inf"), float("-inf"), False, "1", None), (-1, 0, 2.5, np.int64(1))
for _name in ("mirostat_tau", "mirostat_eta"):
    BAD[_name], GOOD[_name] = (-0.001, float("nan"), float("inf"), True, "1", None), (0, 0.0, 9, 9.5)
BAD["repeat_penalty"], GOOD["repeat_penalty"] = (0, -1, float("nan"), float("inf"), True, "1", None), (0.001, 1, 5)
BAD["mirostat_mode"], GOOD["mirostat_mode"] = (-1, 3, "1"), (0, 1, 2)
BAD["top_k"], GOOD["top_k"] = (2**31, -2**31 - 1, 1.5, True, "1", None), (2**31 - 1, -2**31, 0, -1, 1)


@pytest.mark.parametrize("name", list(BAD))
def test_bounds_of_each_argument(name):
    for value in GOOD[name]:
        assert getattr(SamplingParams(**{name: value}), name) == value
    for value in BAD[name]:
        with pytest.raises((ValueError, TypeError), match=f"{name}: got"):
            SamplingParams(**{name: value})


# --- processors and criteria ------------------------------------------------------------------------------------------


def test_processors_work_one_after_the_other_on_a_copy(llm):
    def add(token, value):
        def processor(ids, row):
            assert ids.tolist() == SEEN
            out = row.copy()
            out[token] += value
            return out
        return processor
    before = llm.logits
    for processors in ([add(9, 50), add(5, 80)], LogitsProcessorList([add(9, 50), add(5, 80)]), (add(9, 50), LogitsProcessorList([add(5, 80)]))):
        assert llm.sample(temp=0, logits_processor=processors) == 5
    assert llm.sample(temp=0, logits_processor=[add(9, 50), add(5, 80), add(5, -90)]) == 9
    assert np.array_equal(llm.logits, before)
    for wrong in (1, [add(9, 1), "x"], {}):
        with pytest.raises(TypeError, match="logits_processor: got"):
            llm.sample(logits_processor=wrong)


@pytest.mark.parametrize("make", [list, StoppingCriteriaList, tuple])
def test_one_criterion_of_several_is_enough(llm, make):
    def at(n):
        return lambda ids, row: ids.size >= n
    assert len(list(llm.generate(SEEN, temp=0, stopping_criteria=make([at(len(SEEN) + 5), at(len(SEEN) + 2)])))) == 2
    assert list(llm.generate(SEEN, temp=0, stopping_criteria=make([at(0)]))) == []
    llm.reset()
    llm.eval(SEEN)


@pytest.mark.parametrize("bias, words", [
    ([(1, 2)], "expected a dict"), ({"x": 1}, "expected token ids and numbers"), ({1: "x"}, "expected token ids and numbers"), ({1: float("nan")}, "1: nan"),
    ({1: float("inf")}, "1: inf"), ({1: 3.5e38}, "1: 3.5e"), ({2**31: 1}, "2147483648"), ({-2**31 - 1: 1}, "-2147483649"), ({288: 1}, "288"), ({-1: 1}, "-1")])
def test_biases_are_of_tokens(llm, bias, words):
    with pytest.raises((TypeError, ValueError), match=words):
        llm.sample(logit_bias=bias)


def test_biases_may_be_json(llm):
    assert llm.sample(temp=0, logit_bias={"7": 1000}) == 7 and llm.sample(temp=0, logit_bias={287: 3.4e38}) == 287


@pytest.mark.parametrize("given", [{"tfs_z": 0.99}, {"tfs_z": 1.01}, {"penalize_nl": False}, {"penalize_nl": None}])
@pytest.mark.parametrize("call", [lambda llm, **a: llm.sample(**a), lambda llm, **a: llm.generate(SEEN, **a)])
def test_samplers_that_are_gone_are_refused(llm, call, given):
    with pytest.raises(ValueError, match=f"llama: {next(iter(given))}: got"):
        call(llm, **given)


# --- which row is sampled -----------------------------------------------------------------------------------------------


def test_any_tokens_logits_can_be_sampled_where_they_are_kept(tiny):  # noqa: F811
    with Llama(tiny, logits_all=True, **ONE) as kept, Llama(tiny, **ONE) as last:
        for llm in (kept, last):
            llm.eval(tokens_of(9))
        assert [kept.sample(temp=0, idx=i) for i in range(9)] == kept.scores.argmax(1).tolist()
        assert kept.sample(temp=0) == kept.sample(temp=0, idx=8) == last.sample(temp=0, idx=8) == last.sample(temp=0)
        for wrong in (9, -1, -9):
            with pytest.raises(ValueError, match="sample: idx: got .*, expected 0 to 8"):
                kept.sample(idx=wrong)
        with pytest.raises(TypeError, match="sample: idx: got"):
            kept.sample(idx="1")
        with pytest.raises(LlamaError, match="logits_all"):
            last.sample(idx=3)


@pytest.mark.parametrize("last_n", [0, 1, 3, 64])
@pytest.mark.parametrize("prompt", [[5], [7, 5, 7], list(range(30, 50))])
def test_penalties_count_what_is_drawn_as_it_comes(tiny, prompt, last_n):  # noqa: F811
    given = {"repeat_penalty": 1.1, "frequency_penalty": 0.7, "presence_penalty": 0.2}
    with Llama(tiny, last_n_tokens_size=last_n, **ONE) as other:
        drawn = list(itertools.islice(other.generate(prompt, temp=0, **given, logits_processor=lambda ids, row: ROW), 12))
    seen = list(prompt)
    for _ in drawn:
        logits, window = ROW.astype(np.float64), seen[-last_n:] if last_n else []
        for token in set(window):
            logits[token] = logits[token] * 1.1 if logits[token] <= 0 else logits[token] / 1.1
            logits[token] -= 0.7 * window.count(token) + 0.2
        seen.append(int(logits.argmax()))
    assert drawn == seen[len(prompt):] and (last_n == 0) == (len(set(drawn)) == 1)
