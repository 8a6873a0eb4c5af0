"""What the model's memory promises, seen through _core: sizes, removal, copies, several sequences."""

from __future__ import annotations

import numpy as np
import pytest
from binding_models import ONE, logits_of, make_tiny, tiny, tokens_of  # noqa: F401

from spikingbrain_cpp import Llama, _core

TOL = 1e-5


def context(path, **options) -> _core.Context:
    options = {"n_seq_max": 4, "n_batch": 64, "n_ubatch": 16, "n_outputs_max": 64, **options}
    return _core.Context(_core.Model(str(path)), **options)


def decode_all(ctx: _core.Context, tokens: np.ndarray, seq: int = 0) -> np.ndarray:
    rows = np.empty((tokens.size, ctx.logits().size), np.float32)
    at = ctx.seq_pos_max(seq) + 1
    for i in range(0, tokens.size, 64):
        ctx.decode(tokens[i:i + 64], at + i, seq, rows[i:i + 64])
    return rows


def test_saved_size_is_a_fixed_part_plus_at_most_one_window(tiny):  # noqa: F811
    window, row = 8, 2 * 2 * 16 * 4  # K and V of 2 heads of 16 F32 numbers, one sliding-window layer
    with Llama(tiny, **ONE) as llm:
        sizes = {}
        for n in (1, 2, 7, 8, 9, 30, 500, 3000):
            llm.eval(tokens_of(n - llm.n_tokens))
            sizes[n] = len(llm.save_state().data)
    fixed = sizes[1] - row
    assert fixed > 0
    assert sizes == {n: fixed + min(n, window) * row for n in sizes}


@pytest.mark.parametrize("n_ctx", [None, 512, 100_000])
def test_allocated_state_is_constant(tiny, n_ctx):  # noqa: F811
    with Llama(tiny, n_ctx=n_ctx, **ONE) as llm:
        before = llm.state_bytes()
        assert before > 0
        llm.eval(tokens_of(200))
        assert llm.state_bytes() == before
    with Llama(tiny, **ONE) as llm:
        assert llm.state_bytes() == before


def test_refused_removal_changes_nothing(tiny):  # noqa: F811
    tokens = tokens_of(60)
    want = logits_of(tiny, tokens)
    ctx = context(tiny)
    decode_all(ctx, tokens[:20])
    decode_all(ctx, tokens[20:30])
    decode_all(ctx, tokens[30:50])
    for p0, p1 in ((10, -1), (17, -1), (5, 8), (45, 48), (0, 15)):  # the last 32 can be taken back
        assert not ctx.seq_rm(0, p0, p1)
        assert ctx.seq_pos_max(0) == 49
    assert np.abs(decode_all(ctx, tokens[50:]) - want[50:]).max() < TOL


def test_last_micro_batch_can_be_removed(tiny):  # noqa: F811
    tokens = tokens_of(60)
    want = logits_of(tiny, tokens)
    ctx = context(tiny)
    decode_all(ctx, tokens[:30])
    decode_all(ctx, tokens_of(9, seed=5))
    assert ctx.seq_rm(0, 30, -1) and ctx.seq_pos_max(0) == 29
    assert ctx.logits_pos() == -1  # the row was that of a removed token
    assert np.abs(decode_all(ctx, tokens[30:]) - want[30:]).max() < TOL


def test_whole_sequence_can_be_removed_kept_and_cleared(tiny):  # noqa: F811
    ctx = context(tiny)
    for seq in range(4):
        decode_all(ctx, tokens_of(10 + seq, seed=seq), seq)
    assert ctx.seq_rm(2, -1, -1)
    assert [ctx.seq_pos_max(s) for s in range(4)] == [9, 10, -1, 12]
    ctx.seq_keep(1)
    assert [ctx.seq_pos_max(s) for s in range(4)] == [-1, 10, -1, -1]
    ctx.clear()
    assert ctx.seq_pos_max(1) == -1
    tokens = tokens_of(20)
    assert np.abs(decode_all(ctx, tokens, 2) - logits_of(tiny, tokens)).max() < TOL


@pytest.mark.parametrize("unified", [False, True])
def test_four_sequences_each_as_if_alone(tiny, unified):  # noqa: F811
    texts = [tokens_of(40, seed=s) for s in range(4)]
    ctx = context(tiny, kv_unified=unified)
    got = [np.empty((0, 288), np.float32)] * 4
    for i in range(0, 40, 5):
        order = np.array([t[i:i + 5] for t in texts]).T.ravel()  # token by token across the sequences
        seq = np.tile(np.arange(4, dtype=np.int32), 5)
        pos = np.repeat(np.arange(i, i + 5, dtype=np.int32), 4)
        rows = ctx.decode_batch(np.ascontiguousarray(order), pos, seq, np.ones(20, np.int8))
        got = [np.concatenate([g, rows[seq == s]]) for s, g in enumerate(got)]
    for s, text in enumerate(texts):
        assert np.abs(got[s] - logits_of(tiny, text)).max() < TOL


@pytest.mark.parametrize("flags", [0, _core.STATE_PARTIAL_ONLY])
def test_state_restores_exactly_also_partial_and_elsewhere(tiny, flags):  # noqa: F811
    tokens = tokens_of(90)
    ctx = context(tiny)
    decode_all(ctx, tokens[:50])
    data = ctx.state_get(0, flags)
    assert len(data) == ctx.state_size(0, flags)
    want = decode_all(ctx, tokens[50:])
    decode_all(ctx, tokens_of(100, seed=9))  # the ring is overwritten
    ctx.state_set(data, 0, flags)
    assert ctx.seq_pos_max(0) == 49
    assert np.array_equal(decode_all(ctx, tokens[50:]), want)
    ctx.state_set(data, 3, flags)
    assert np.array_equal(decode_all(ctx, tokens[50:], 3), want)


def test_cut_or_foreign_state_is_refused(tiny, tmp_path):  # noqa: F811
    ctx = context(tiny)
    decode_all(ctx, tokens_of(50))
    data = ctx.state_get(0)
    for bad in (b"", data[:3], data[:len(data) // 2], data[:-1], data + b"x", b"\xff" * len(data)):
        with pytest.raises(RuntimeError, match="state_set"):
            ctx.state_set(bad, 1)
    other = context(make_tiny(tmp_path, sliding_window=9))
    with pytest.raises(RuntimeError, match="window"):
        other.state_set(data, 0)
    tokens = tokens_of(20)
    ctx.clear()
    assert np.abs(decode_all(ctx, tokens) - logits_of(tiny, tokens)).max() < TOL


def test_positions_must_follow(tiny):  # noqa: F811
    ctx = context(tiny)
    decode_all(ctx, tokens_of(5))
    for pos in (0, 3, 7):
        with pytest.raises(RuntimeError, match="decode"):
            ctx.decode(tokens_of(2), pos, 0)
        assert ctx.seq_pos_max(0) == 4
    ctx.decode(tokens_of(2), 5, 0)


@pytest.mark.parametrize("call", [
    lambda c: c.decode(tokens_of(0), 0), lambda c: c.decode(tokens_of(65), 0), lambda c: c.decode(tokens_of(2), -1),
    lambda c: c.decode(tokens_of(2), 2**31 - 2), lambda c: c.decode(np.array([288], np.int32), 0),
    lambda c: c.decode(np.array([-1], np.int32), 0), lambda c: c.decode(tokens_of(2), 0, 4),
    lambda c: c.decode(tokens_of(2), 0, -1), lambda c: c.decode(tokens_of(2), 0, 0, np.empty((2, 5), np.float32)),
    lambda c: c.decode(tokens_of(2), 0, 0, np.empty((2, 288), np.float64)), lambda c: c.seq_cp(0, 4),
    lambda c: c.seq_rm(9), lambda c: c.seq_keep(-1), lambda c: c.state_get(4), lambda c: c.seq_pos_max(7),
    lambda c: c.decode_batch(tokens_of(2), tokens_of(1), tokens_of(2), np.ones(2, np.int8)),
    lambda c: c.set_logits(np.zeros(3, np.float32), 0),
])
def test_what_llama_cpp_would_abort_on_is_a_value_error(tiny, call):  # noqa: F811
    ctx = context(tiny)
    with pytest.raises(ValueError):
        call(ctx)
    ctx.decode(tokens_of(2), 0)


def test_outputs_beyond_what_was_reserved(tiny):  # noqa: F811
    ctx = context(tiny, n_outputs_max=4)
    with pytest.raises(ValueError, match="n_outputs_max"):
        ctx.decode(tokens_of(5), 0, 0, np.empty((5, 288), np.float32))


def test_closed_handles_say_so(tiny):  # noqa: F811
    model = _core.Model(str(tiny))
    ctx = _core.Context(model)
    with pytest.raises(RuntimeError, match="1 open contexts"):
        model.close()
    ctx.close()
    ctx.close()
    model.close()
    for call in (lambda: ctx.decode(tokens_of(1), 0), ctx.n_ctx, model.n_vocab, lambda: _core.Context(model)):
        with pytest.raises(RuntimeError, match="closed"):
            call()
