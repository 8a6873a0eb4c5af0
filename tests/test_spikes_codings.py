"""Counts and the five codings: the paper's examples by hand, exact round trips, what no coding can hold is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from spikingbrain_cpp.spikes import CODINGS, count, decode, encode, firing_rate, n_steps, shift_to_zero

SIGNED = ("ternary", "bitwise_bidirectional", "bitwise_twos_complement")
LARGEST, SMALLEST = 2**63 - 1, -2**63


@pytest.mark.parametrize("coding, value, spikes", [
    ("binary", 3, [1, 1, 1]), ("binary", 0, []), ("ternary", -3, [-1, -1, -1]), ("ternary", 2, [1, 1]),
    ("bitwise", 5, [1, 0, 1]), ("bitwise", 0, [0]), ("bitwise", 8, [1, 0, 0, 0]),
    ("bitwise_bidirectional", -5, [-1, 0, -1]), ("bitwise_bidirectional", 6, [1, 1, 0]), ("bitwise_bidirectional", 0, [0]),
    ("bitwise_twos_complement", -5, [1, 0, 1, 1]), ("bitwise_twos_complement", 5, [0, 1, 0, 1]),
    ("bitwise_twos_complement", 0, [0, 0]), ("bitwise_twos_complement", -1, [1, 1]), ("bitwise_twos_complement", -8, [1, 1, 0, 0, 0]),
])
def test_examples_by_hand(coding, value, spikes):
    train = encode(value, coding)
    assert train.tolist() == spikes and train.dtype == np.int8
    assert decode(train, coding) == value


def test_several_counts_share_the_steps_of_the_largest():
    assert encode([[3, 0], [1, 2]], "binary").tolist() == [[[1, 0], [1, 1]], [[1, 0], [0, 1]], [[1, 0], [0, 0]]]
    assert encode([-3, 1], "ternary").tolist() == [[-1, 1], [-1, 0], [-1, 0]]
    assert encode([-5, 1], "bitwise_bidirectional").tolist() == [[-1, 0], [0, 0], [-1, 1]]
    assert encode([-5, 1], "bitwise_twos_complement").tolist() == [[1, 0], [0, 0], [1, 0], [1, 1]]


def test_steps_as_in_the_paper():
    assert n_steps(256, "binary") == 256
    moved, by = shift_to_zero([-128, 128])
    assert moved.tolist() == [0, 256] and by == 128 and n_steps([-128, 128], "ternary") == 128
    assert n_steps(256, "bitwise") == 9 and n_steps(255, "bitwise") == 8
    for m in range(1, 300):
        bits = math.ceil(math.log2(m + 1))
        assert n_steps(m, "binary") == n_steps(-m, "ternary") == m
        assert n_steps(m, "bitwise") == n_steps(-m, "bitwise_bidirectional") == max(1, bits)
        assert n_steps(-m, "bitwise_twos_complement") == max(2, bits + 1)


@pytest.mark.parametrize("coding", CODINGS)
def test_round_trip_of_random_counts(coding):
    rng = np.random.default_rng(0)
    low = -700 if coding in SIGNED else 0
    counts = rng.integers(low, 700, (5, 7, 11))
    for steps in (None, n_steps(counts, coding) + 3):
        spikes = encode(counts, coding, n_steps=steps)
        assert spikes.shape == (steps or n_steps(counts, coding), 5, 7, 11)
        assert np.array_equal(decode(spikes, coding), counts)


@pytest.mark.parametrize("coding", [c for c in CODINGS if c.startswith("bitwise")])
def test_round_trip_at_the_ends_of_64_bits(coding):
    counts = [0, 1, 2**31, 2**62 + 1, LARGEST - 1, LARGEST]
    if coding in SIGNED:
        counts += [-1, -2**31, -2**62 - 1, SMALLEST + 1, SMALLEST]
    for steps in (None, 66, 200):
        assert decode(encode(counts, coding, n_steps=steps), coding).tolist() == counts
    for c in counts:
        assert decode(encode(c, coding), coding) == c
        for dtype in (np.uint64, np.int32):
            if np.iinfo(dtype).min <= c <= np.iinfo(dtype).max:
                assert decode(encode(np.array([c], dtype), coding), coding).tolist() == [c]


def test_no_counts_at_all():
    for coding in CODINGS:
        assert decode(encode(np.zeros((0, 3), int), coding), coding).shape == (0, 3)
        assert decode(encode(np.zeros((2, 3), int), coding), coding).tolist() == [[0, 0, 0]] * 2


@pytest.mark.parametrize("call, error, words", [
    (lambda: encode(-1, "binary"), ValueError, "shift_to_zero"), (lambda: encode([1, -1], "bitwise"), ValueError, "got a count of -1"),
    (lambda: encode(1, "unary"), ValueError, "expected one of binary"), (lambda: encode(1.5, "binary"), TypeError, "expected integers"),
    (lambda: encode([True], "binary"), TypeError, "expected integers"), (lambda: encode(np.array([2**63], np.uint64), "bitwise"), ValueError, "at most"),
    (lambda: encode(4, "binary", n_steps=3), ValueError, "at least 4"), (lambda: encode(-4, "ternary", n_steps=3), ValueError, "at least 4"),
    (lambda: encode(8, "bitwise", n_steps=3), ValueError, "at least 4"), (lambda: encode(4, "bitwise_twos_complement", n_steps=3), ValueError, "at least 4"),
    (lambda: encode(-5, "bitwise_twos_complement", n_steps=3), ValueError, "at least 4"), (lambda: encode(1, "binary", n_steps=2.0), TypeError, "n_steps"),
    (lambda: encode(2**40, "binary"), ValueError, "bitwise coding"), (lambda: encode(np.full(1000, 10**7), "ternary"), ValueError, "fewer at a time"),
    (lambda: decode([2], "binary"), ValueError, "from 2 to 2"), (lambda: decode([-1], "bitwise"), ValueError, "expected 0 to 1"),
    (lambda: decode([0.5], "binary"), TypeError, "expected integers"), (lambda: decode([1] + [0] * 63, "bitwise"), ValueError, "64 bits"),
    (lambda: decode([1] + [0] * 64, "bitwise_bidirectional"), ValueError, "64 bits"), (lambda: decode([1, 0] + [0] * 63, "bitwise_twos_complement"), ValueError, "64 bits"),
    (lambda: decode([-1] + [0] * 62 + [-1], "bitwise_bidirectional"), ValueError, "64 bits"), (lambda: decode(1, "binary"), TypeError, "dimensions"),
])
def test_what_cannot_be_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_the_smallest_of_twos_complement_takes_no_bit_more_than_given():
    assert encode(-4, "bitwise_twos_complement", n_steps=3).tolist() == [1, 0, 0]
    assert n_steps(-4, "bitwise_twos_complement") == 4  # as the paper's formula has it


def test_firing_rate():
    assert firing_rate(encode([3, 0], "binary")) == 0.5
    assert firing_rate(encode([-5, 1, 0], "bitwise_bidirectional")) == 3 / 9
    assert firing_rate(encode([0, 0], "binary")) == 0.0


def test_counts_by_hand():
    counts, v_th = count([[3.0, -1.0, 1.0, -1.0], [0.0, 0.0, 0.0, 0.0]])
    assert v_th.tolist() == [0.5, np.float32(1e-5)] and counts.tolist() == [[6, -2, 2, -2], [0, 0, 0, 0]]
    counts, v_th = count([1.0, 1.5, 2.5, -3.5, -1.5], k=2.0)  # mean 2, threshold 1: halves to even
    assert v_th == 1.0 and counts.tolist() == [1, 2, 2, -4, -2]
    assert count([1e6, -1e6])[1] == 1e4 and count([1e6, -1e6])[0].tolist() == [100, -100]


@pytest.mark.parametrize("x, k", [([np.nan, 1], 3), ([np.inf, 1], 3), ([1.0], 0), ([1.0], -1), ([1.0], np.nan), ([], 3), (1.0, 3)])
def test_no_counts_of_what_is_no_number(x, k):
    with pytest.raises(ValueError, match="count: "):
        count(x, k)


def test_a_step_wise_neuron_with_soft_reset_fires_as_often():
    """Eq. 20: fire while v >= v_th, v <- v - v_th; half a threshold in the membrane at first rounds to the nearest."""
    rng = np.random.default_rng(3)
    x = np.abs(rng.standard_normal(64)).astype(np.float32)
    counts, v_th = count(x)
    for value, expected in zip(x, counts):
        v, fired = float(value) + float(v_th) / 2, 0
        while v >= v_th:
            v, fired = v - float(v_th), fired + 1
        assert fired == expected
