"""Which state a cache gives, which it drops, and what it counts: the one used longest ago goes, the longest beginning is found."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
from binding_models import ONE, make_tiny, tiny, tokens_of  # noqa: F401

from spikingbrain_cpp import Llama, LlamaDiskCache, LlamaError, LlamaRAMCache, LlamaState

KEYS = [[i, i + 1, i + 2] for i in range(0, 60, 10)]


@pytest.fixture(scope="module")
def llm(tiny):  # noqa: F811
    with Llama(tiny, **ONE) as model:
        yield model


def state_of(llm: Llama, tokens):
    llm.reset()
    llm.eval(tokens)
    return llm.save_state()


@pytest.fixture(scope="module")
def states(llm):
    return [state_of(llm, key) for key in KEYS]


@pytest.fixture(params=["ram", "disk"])
def make(request, tmp_path, states):
    """make(n) -> a cache with room for n of the states, to the byte."""
    def made(n: int, less: int = 0):
        if request.param == "disk":
            return LlamaDiskCache(tmp_path / f"{n}-{less}", n * len(states[0].to_bytes()) - less)
        probe = LlamaRAMCache()
        probe[KEYS[0]] = states[0]
        return LlamaRAMCache(n * probe.cache_size - less)
    return made


def put(cache, i: int, states) -> None:
    cache[KEYS[i]] = states[i]
    time.sleep(0.012)  # a file's time tells which was used last


def test_the_one_used_longest_ago_goes(make, states):
    cache = make(3)
    for i in range(3):
        put(cache, i, states)
    assert all(key in cache for key in KEYS[:3])
    for i in (1, 0, 2, 0):  # the last use of 1 is the oldest
        time.sleep(0.012)
        cache[KEYS[i]]
    time.sleep(0.012)
    put(cache, 3, states)
    put(cache, 4, states)
    assert [key in cache for key in KEYS] == [True, False, False, True, True, False]


def test_what_is_stored_anew_counts_as_used_and_once(make, states):
    cache = make(2)
    for i in (0, 1, 0, 2):
        put(cache, i, states)
    assert [key in cache for key in KEYS[:3]] == [True, False, True]
    size = cache.cache_size
    put(cache, 2, states)
    assert cache.cache_size == size


def test_room_is_counted_to_the_byte(make, states):
    exact, short = make(2), make(2, less=1)
    for i in range(2):
        put(exact, i, states)
        put(short, i, states)
    assert [key in exact for key in KEYS[:2]] == [True, True] and exact.cache_size == exact.capacity_bytes
    assert [key in short for key in KEYS[:2]] == [False, True] and 0 < short.cache_size <= short.capacity_bytes


def test_bytes_of_a_state_in_memory(states):
    """The state, its row of logits, its tokens, and these once more as the key."""
    cache = LlamaRAMCache()
    for i, state in enumerate(states):
        cache[KEYS[i]] = state
    assert cache.cache_size == sum(len(s.data) + s.logits.nbytes + 2 * 4 * s.n_tokens for s in states)


def test_one_larger_than_the_room_leaves_nothing_wrong(make, states):
    cache = make(1, less=1)
    put(cache, 0, states)
    assert cache.cache_size == 0 and KEYS[0] not in cache


@pytest.mark.parametrize("asked, found", [
    ([1, 2, 3], 3), ([1, 2, 3, 4], 4), ([1, 2, 3, 4, 5, 9], 4), ([1, 2, 9], 2), ([1, 2], 2), ([1], None), ([2, 1], None), ([], None), ([2, 2, 3], None)])
def test_the_longest_beginning_is_found(make, llm, asked, found):
    cache = make(10)
    for n in (3, 2, 4):
        tokens = [1, 2, 3, 4][:n]
        cache[tokens] = state_of(llm, tokens)
    assert (asked in cache) == (found is not None)
    if found is None:
        with pytest.raises(KeyError):
            cache[asked]
    else:
        got = cache[asked]
        assert got.n_tokens == found and got.tokens.tolist() == [1, 2, 3, 4][:found]


def test_a_longer_damaged_file_does_not_hide_a_shorter_one(llm, tmp_path):
    cache = LlamaDiskCache(tmp_path)
    for tokens in ([1, 2], [1, 2, 3]):
        cache[tokens] = state_of(llm, tokens)
    longest = max(tmp_path.glob("*.sbstate"), key=lambda p: p.stat().st_size)
    longest.write_bytes(longest.read_bytes()[:-1])
    assert cache[[1, 2, 3, 4]].n_tokens == 2


@pytest.mark.parametrize("kind", [LlamaRAMCache, lambda n: LlamaDiskCache("x", n)])
def test_capacities_that_are_none(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for wrong, error in ((-1, ValueError), (1.5, TypeError), (True, TypeError), ("1", TypeError), (None, TypeError)):
        with pytest.raises(error, match="cache: capacity_bytes: got"):
            kind(wrong)
    assert kind(0).capacity_bytes == 0


def test_defaults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert LlamaRAMCache().capacity_bytes == LlamaDiskCache().capacity_bytes == 2**31
    assert (tmp_path / ".cache" / "llama_cache").is_dir()


# --- with a session -------------------------------------------------------------------------------------------------------

NO_END = dict.fromkeys((262, 263, 264), -1e9)
OPTIONS = {"max_tokens": 2, "temperature": 0, "logit_bias": NO_END}


def n_read(llm: Llama, prompt, cache) -> int:
    """Tokens evaluated for a completion of a prompt."""
    llm.reset()
    llm.set_cache(cache)
    before = llm.n_evaluated
    llm.create_completion(prompt, **OPTIONS)
    llm.set_cache(None)
    return llm.n_evaluated - before - 1  # the first new token is read, too


def test_what_is_read_is_what_the_cache_does_not_hold(llm, make):
    cache = make(50)
    prompt = tokens_of(30).tolist()
    assert n_read(llm, prompt, cache) == 30 and n_read(llm, prompt, cache) == 0
    assert n_read(llm, [*prompt, 5, 6, 7], cache) == 3 and n_read(llm, [*prompt, 5, 6, 7], cache) == 0
    assert n_read(llm, [*prompt[:-1], 9], cache) == 30  # no beginning of it is stored
    llm.create_completion([*prompt, 1, 2], **OPTIONS)   # holds more than the cache would give
    llm.set_cache(cache)
    before = llm.n_evaluated
    llm.create_completion([*llm.input_ids.tolist(), 4], **OPTIONS)
    llm.set_cache(None)
    assert llm.n_evaluated - before == 2


def test_a_state_of_another_model_is_not_loaded(llm, make, tmp_path):
    cache, prompt = make(50), tokens_of(25).tolist()
    want = llm.create_completion(prompt, **{**OPTIONS, "max_tokens": 8})["choices"][0]["text"]
    with Llama(make_tiny(tmp_path / "other", seed=9), **ONE) as other:
        n_read(other, prompt, cache)
    foreign = cache[prompt]
    llm.reset()
    assert n_read(llm, prompt, cache) == 25
    llm.reset()
    llm.set_cache(cache)
    assert llm.create_completion(prompt, **{**OPTIONS, "max_tokens": 8})["choices"][0]["text"] == want
    llm.set_cache(None)
    with pytest.raises(ValueError, match="model: got a state of"):
        llm.load_state(foreign)


def test_what_set_cache_takes(llm):
    for wrong in ({}, "cache", LlamaRAMCache, 0):
        with pytest.raises(TypeError, match="set_cache: cache: got"):
            llm.set_cache(wrong)
    llm.set_cache(LlamaRAMCache())
    llm.set_cache(None)
    assert llm.cache is None


def test_states_survive_their_bytes_whatever_their_length(llm):
    """The fields that a file holds are each read from their own place."""
    for n in (1, 2, 1023, 1024, 1025, 2047, 2048, 2500):
        tokens = tokens_of(n, seed=n)
        state = state_of(llm, tokens)
        copy = LlamaState.from_bytes(state.to_bytes())
        assert (copy.n_tokens, copy.version, copy.fingerprint) == (n, state.version, state.fingerprint)
        for name in ("fingerprint", "tokenizer", "n_tokens", "prefix", "data", "version"):
            assert getattr(copy.snapshot, name) == getattr(state.snapshot, name)
        assert np.array_equal(copy.input_ids, tokens) and np.array_equal(copy.snapshot.tail, tokens[-copy.snapshot.tail.size:])
        assert np.array_equal(copy.logits, state.logits) and 0 < copy.snapshot.tail.size <= 2047 and (n - copy.snapshot.tail.size) % 1024 == 0
        assert len(copy.to_bytes()) == len(state.to_bytes())
        llm.load_state(copy)
        assert np.array_equal(llm.input_ids, tokens) and np.array_equal(llm.logits, state.logits)
        changed = dataclasses.replace(state.snapshot, n_tokens=n + 1024)
        with pytest.raises((ValueError, LlamaError)):
            llm.load_state(LlamaState(changed, np.append(tokens, tokens_of(1024))))


def test_what_is_appended_is_not_taken_from_a_cache(llm, make):
    """reset=False: the sequence goes on, though the cache holds a state of the same tokens as a beginning."""
    cache, prompt = make(50), tokens_of(20).tolist()
    n_read(llm, prompt, cache)
    llm.reset()
    llm.eval([1, 2, 3])
    llm.set_cache(cache)
    for _ in zip(range(2), llm.generate(prompt, reset=False, temp=0)):
        assert llm.input_ids.tolist()[:23] == [1, 2, 3, *prompt]
    llm.set_cache(None)
