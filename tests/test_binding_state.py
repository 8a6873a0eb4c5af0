"""A saved state goes on where it was, evaluates nothing, and is refused where it does not belong."""

from __future__ import annotations

import dataclasses
import pickle
import shutil

import numpy as np
import pytest
from binding_models import ONE, make_tiny, tiny, tokens_of  # noqa: F401

from spikingbrain_cpp import Llama, LlamaError, LlamaState


@pytest.fixture
def llm(tiny):  # noqa: F811
    with Llama(tiny, **ONE) as model:
        yield model


def continuation(llm: Llama, n: int = 20) -> list[int]:
    out = []
    for _ in range(n):
        out.append(llm.sample(temp=0))
        llm.eval([out[-1]])
    return out


def test_goes_on_alike_and_evaluates_nothing(llm, tiny):  # noqa: F811
    llm.eval(tokens_of(100))
    state, row = llm.save_state(), llm.logits
    want = continuation(llm)
    llm.eval(tokens_of(50, seed=2))
    before = llm.n_evaluated
    llm.load_state(state)
    assert llm.n_evaluated == before and llm.n_tokens == 100 and np.array_equal(llm.input_ids, tokens_of(100))
    assert np.array_equal(llm.logits, row)
    assert continuation(llm) == want
    with Llama(tiny, **ONE) as other:
        other.load_state(state)
        assert other.n_evaluated == 0 and continuation(other) == want
        other.load_state(state)  # the prompt it was saved after: nothing to read
        next(other.generate(tokens_of(100), temp=0))
        assert other.n_evaluated == 20


@pytest.mark.parametrize("through", [lambda s: LlamaState.from_bytes(s.to_bytes()), lambda s: pickle.loads(pickle.dumps(s))])
def test_leaves_the_process_unchanged(llm, through):
    llm.eval(tokens_of(33))
    state = llm.save_state()
    copy = through(state)
    assert copy.fingerprint == state.fingerprint and copy.version == state.version and copy.data == state.data
    assert np.array_equal(copy.tokens, state.tokens) and np.array_equal(copy.logits, state.logits)
    llm.load_state(copy)


def test_empty_state(llm):
    state = llm.save_state()
    assert state.n_tokens == 0 and state.logits.size == 0
    llm.eval(tokens_of(5))
    llm.load_state(LlamaState.from_bytes(state.to_bytes()))
    assert llm.n_tokens == 0
    with pytest.raises(LlamaError, match="eval a token"):
        llm.sample()


def test_rows_that_came_with_a_state_are_nan_but_the_last(tiny):  # noqa: F811
    with Llama(tiny, logits_all=True, **ONE) as llm:
        llm.eval(tokens_of(10))
        rows, state = llm.scores.copy(), llm.save_state()
        llm.eval(tokens_of(30, seed=3))
        llm.load_state(state)
        assert np.isnan(llm.scores[:9]).all() and np.array_equal(llm.scores[9], rows[9])
        llm.eval([4])
        assert np.isfinite(llm.scores[9:]).all() and llm.scores.shape == (11, 288)


def test_the_same_file_elsewhere_is_the_same_model(llm, tiny, tmp_path):  # noqa: F811
    llm.eval(tokens_of(10))
    shutil.copy(tiny, tmp_path / "copy.gguf")
    with Llama(tmp_path / "copy.gguf", **ONE) as other:
        other.load_state(llm.save_state())


def test_refused_where_it_does_not_belong(llm, tiny, tmp_path):  # noqa: F811
    llm.eval(tokens_of(10))
    state = llm.save_state()
    with Llama(make_tiny(tmp_path, seed=1), **ONE) as other:
        other.eval(tokens_of(3))
        with pytest.raises(ValueError, match="load_state: model: got a state of .*, expected one of"):
            other.load_state(state)
        assert other.n_tokens == 3
        other.eval([1])
    with Llama(tiny, kv_overrides={"spikingbrain.rope.freq_base": 1e4}, **ONE) as other, pytest.raises(ValueError, match="settings"):
        other.load_state(state)
    with Llama(tiny, n_ctx=9, **ONE) as other, pytest.raises(ValueError, match="n_ctx=9"):
        other.load_state(state)
    (tmp_path / "f16").mkdir()
    half = make_tiny(tmp_path / "f16", "f16")
    with Llama(half, **ONE) as a, Llama(half, type_k=0, type_v=0, **ONE) as b:
        a.eval(tokens_of(10))
        b.eval(tokens_of(2))
        with pytest.raises(ValueError, match="types: .*type_k and type_v"):
            b.load_state(a.save_state())
        assert b.n_tokens == 2
        b.reset()
        b.eval(tokens_of(4))
    with pytest.raises(ValueError, match="version: got 9, expected 3"):
        llm.load_state(dataclasses.replace(state, snapshot=dataclasses.replace(state.snapshot, version=9)))
    with pytest.raises(TypeError, match="expected LlamaState"):
        llm.load_state(state.to_bytes())
    for tokens in (np.array([288], np.int32), tokens_of(9)):
        with pytest.raises((ValueError, LlamaError)):
            llm.load_state(dataclasses.replace(state, tokens=tokens))


def test_damaged_bytes_are_refused(llm):
    llm.eval(tokens_of(10))
    blob = llm.save_state().to_bytes()
    rng = np.random.default_rng(0)
    for n in [0, 7, 8, 40, *rng.integers(0, len(blob), 30)]:
        with pytest.raises(ValueError, match="state: "):
            LlamaState.from_bytes(blob[:n])
    for at in [0, 9, 14, 100, *rng.integers(0, len(blob), 30)]:
        bad = bytearray(blob)
        bad[at] ^= 0x41
        with pytest.raises(ValueError, match="state: "):
            LlamaState.from_bytes(bytes(bad))
    with pytest.raises(ValueError):
        LlamaState.from_bytes(blob + b"x")


@pytest.mark.parametrize("change", [{"n_tokens": 2}, {"n_tokens": 4}, {"n_tokens": -1}, {"n_tokens": True}, {"n_tokens": "3"}, {"n_snapshot": 0}, {"n_tokens": None, "n_snapshot": None}])
def test_counts_that_do_not_fit_are_refused(tiny, change):  # noqa: F811
    from spikingbrain_cpp.state import _pack, _unpack

    with Llama(tiny, **ONE) as llm:
        llm.eval([1, 2, 3])
        state = llm.save_state()
    header, body = _unpack("state", LlamaState._MAGIC, state.to_bytes())
    with pytest.raises(ValueError, match="state: header: got "):
        LlamaState.from_bytes(_pack(LlamaState._MAGIC, state.snapshot.version, {**header, **change}, bytes(body)))
    assert LlamaState.from_bytes(_pack(LlamaState._MAGIC, state.snapshot.version, header, bytes(body))).tokens.tolist() == [1, 2, 3]
