"""Counts and their codings: how an integer count becomes spikes in time (the paper's sections 3.3.1 and 3.3.2).

    counts, v_th = count(x)                     # x [..., n] float -> integers, x ~ v_th * counts   (Eq. 19, 21)
    spikes = encode(counts, "bitwise")          # int8 [T, ...], time first                         (Eq. 22, 23)
    decode(spikes, "bitwise") == counts         # exactly, for every count the coding can represent

| coding                   | spikes     | counts    | T for the largest magnitude m   | 5, -5                |
| binary                   | 0, 1       | 0 or more | m                               | 1 1 1 1 1, -         |
| ternary                  | -1, 0, 1   | any       | m                               | 1 1 1 1 1, -1 .. -1  |
| bitwise                  | 0, 1       | 0 or more | max(1, ceil(log2(m + 1)))       | 1 0 1, -             |
| bitwise_bidirectional    | -1, 0, 1   | any       | max(1, ceil(log2(m + 1)))       | 1 0 1, -1 0 -1       |
| bitwise_twos_complement  | 0, 1       | any       | max(2, ceil(log2(m + 1)) + 1)   | 0 1 0 1, 1 0 1 1     |

Binary and ternary spikes come first in time and silence after. The bitwise codings send the highest bit first; the
first bit of two's complement weighs -2^(T-1).
"""

from __future__ import annotations

from typing import Any, Optional, Union

import numpy as np
import numpy.typing as npt
from sb_convert.constants import DEFAULT_K

CODINGS = ("binary", "ternary", "bitwise", "bitwise_bidirectional", "bitwise_twos_complement")
V_TH_MIN, V_TH_MAX = 1e-5, 1e4
MAX_BYTES = 2**31  # of spikes that one call makes: binary and ternary take a step per unit of the largest count

Counts = npt.NDArray[np.int64]
Spikes = npt.NDArray[np.int8]
Integers = Union[int, list[Any], npt.NDArray[Any]]

_SIGNED_SPIKES = ("ternary", "bitwise_bidirectional")
_UNSIGNED_COUNTS = ("binary", "bitwise")
_UNARY = ("binary", "ternary")


def count(x: npt.ArrayLike, k: float = DEFAULT_K) -> tuple[Counts, npt.NDArray[np.float32]]:
    """Spike counts of x [..., n], a row at a time, and the thresholds [...]: x ~ v_th * counts.

    v_th = mean(|x|) / k, clamped to [1e-5, 1e4]; counts = x / v_th, rounded half to even (Eq. 19, 21).
    """
    if not (np.isfinite(k) and k > 0):
        raise ValueError(f"count: k: got {k}, expected a number above 0")
    rows = np.asarray(x, np.float32)
    if rows.ndim == 0 or rows.shape[-1] == 0 or not np.isfinite(rows).all():
        raise ValueError(f"count: x: got shape {rows.shape} or values that are no numbers, expected finite [..., n], n >= 1")
    mean = np.abs(rows).mean(-1, dtype=np.float64)
    v_th = np.clip(mean / k, V_TH_MIN, V_TH_MAX).astype(np.float32)
    return np.rint(rows / v_th[..., None]).astype(np.int64), v_th


def n_steps(counts: Integers, coding: str) -> int:
    """Time steps T that the largest magnitude among the counts takes in a coding."""
    values = _counts("n_steps", counts, coding)
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    m = max(high, -low)
    if coding in _UNARY:
        return m
    if coding == "bitwise_twos_complement":
        return max(2, m.bit_length() + 1)
    return max(1, m.bit_length())


def encode(counts: Integers, coding: str, n_steps: Optional[int] = None) -> Spikes:
    """Spikes int8 [T, ...] of integer counts [...]; n_steps: T, by default what the largest of them takes.

    ValueError: a count that the coding cannot represent (a negative one, or one too large for n_steps), or more than
    2 GiB of spikes: encode a part at a time, or in a bitwise coding.
    """
    values = _counts("encode", counts, coding)
    steps = _steps(values, coding, n_steps)
    if steps * values.size > MAX_BYTES:
        raise ValueError(f"encode: {coding}: got {values.size} counts in {steps} steps, expected at most {MAX_BYTES} spikes "
                         "in one call; encode fewer at a time, or in a bitwise coding")
    out = np.empty((steps, *values.shape), np.int8)
    if coding in _UNARY:
        time = np.arange(steps, dtype=np.uint64).reshape(-1, *[1] * values.ndim)
        np.less(time, _magnitude(values), out=out.view(np.bool_))
    else:
        bits = values.view(np.uint64) if coding == "bitwise_twos_complement" else _magnitude(values)
        for t in range(steps):
            shift = steps - 1 - t  # beyond bit 63 a magnitude has zeros and two's complement its sign
            out[t] = (bits >> np.uint64(min(shift, 63))) & np.uint64(1)
            if shift > 63 and coding != "bitwise_twos_complement":
                out[t] = 0
    if coding in _SIGNED_SPIKES:
        out *= np.sign(values).astype(np.int8)
    return out


def decode(spikes: Union[list[Any], npt.NDArray[Any]], coding: str) -> Counts:
    """Counts int64 [...] of spikes [T, ...]. ValueError: values the coding has not, or counts beyond 64 bits."""
    _check_coding("decode", coding)
    s = np.asarray(spikes)
    if s.ndim == 0 or (s.size and s.dtype.kind not in "iub"):
        raise TypeError(f"decode: spikes: got {s.dtype} of {s.ndim} dimensions, expected integers [T, ...]")
    low = -1 if coding in _SIGNED_SPIKES else 0
    if s.size and not (low <= s.min() and s.max() <= 1):
        raise ValueError(f"decode: {coding}: got spikes from {s.min()} to {s.max()}, expected {low} to 1")
    s = s.astype(np.int8, copy=False)
    if coding in _UNARY:
        return np.asarray(s.sum(0, dtype=np.int64))
    return _from_bits(s, coding)


def firing_rate(spikes: npt.NDArray[Any]) -> float:
    """Share of (step, channel) pairs that hold a spike: non-zero spikes / (T x channels); 0 where there are none."""
    s = np.asarray(spikes)
    return float(np.count_nonzero(s) / s.size) if s.size else 0.0


def shift_to_zero(counts: Integers) -> tuple[Counts, int]:
    """Counts moved up so that the smallest is 0, and by how much: what an unsigned coding needs of signed counts."""
    values = _integers("shift_to_zero", counts)
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if high - low > np.iinfo(np.int64).max:
        raise ValueError(f"shift_to_zero: got counts from {low} to {high}, expected a range below 2^63")
    return values - low, -low


@np.errstate(over="ignore")  # 64-bit arithmetic that wraps, on purpose
def _from_bits(s: Spikes, coding: str) -> Counts:
    """Sum of 2^(T-1-t) s_t, exact or refused: the last 64 steps are the count, those before must add nothing."""
    early, last = s[:max(0, len(s) - 64)], s[max(0, len(s) - 64):]
    below = _weighted(last[1:])  # within +-(2^63 - 1)
    if coding == "bitwise_twos_complement":
        fits = not (early != last[:1]).any()
    elif len(last) == 64:        # the first of them weighs 2^63
        fits = not early.any() and not ((last[0] > 0) & (below >= 0)).any() and not ((last[0] < 0) & (below < 0)).any()
    else:
        fits = True
    if not fits:
        raise ValueError(f"decode: {coding}: got spikes of a count beyond 64 bits, expected -2^63 to 2^63 - 1")
    if not len(last):
        return below
    weight = np.uint64(1) << np.uint64(len(last) - 1)
    first = last[0].astype(np.int64).view(np.uint64) * weight
    total = below.view(np.uint64) - first if coding == "bitwise_twos_complement" else below.view(np.uint64) + first
    return np.asarray(total.view(np.int64))


def _weighted(s: Spikes) -> Counts:
    """Sum of 2^(T-1-t) s_t for at most 63 steps."""
    total = np.zeros(s.shape[1:], np.int64)
    for row in s:
        total = 2 * total + row
    return total


def _check_coding(where: str, coding: str) -> None:
    if coding not in CODINGS:
        raise ValueError(f"{where}: coding: got {coding!r}, expected one of {', '.join(CODINGS)}")


def _integers(where: str, counts: Integers) -> Counts:
    values = np.asarray(counts)
    if values.size == 0:
        return np.zeros(values.shape, np.int64)
    if values.dtype.kind not in "iu":
        raise TypeError(f"{where}: counts: got {values.dtype}, expected integers; count() makes them of activations")
    if values.dtype == np.uint64 and values.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{where}: counts: got {values.max()}, expected at most 2^63 - 1")
    return np.ascontiguousarray(values, np.int64).reshape(values.shape)


def _counts(where: str, counts: Integers, coding: str) -> Counts:
    _check_coding(where, coding)
    values = _integers(where, counts)
    if coding in _UNSIGNED_COUNTS and values.size and values.min() < 0:
        raise ValueError(f"{where}: {coding}: got a count of {values.min()}, expected 0 or more; "
                         "use shift_to_zero first, or a signed coding")
    return values


@np.errstate(over="ignore")  # numpy warns of scalars only
def _magnitude(values: Counts) -> npt.NDArray[np.uint64]:
    """|values|, -2^63 included."""
    unsigned = values.view(np.uint64)
    return np.where(values < 0, ~unsigned + np.uint64(1), unsigned)


def _steps(values: Counts, coding: str, given: Optional[int]) -> int:
    if given is None:
        return n_steps(values, coding)
    if isinstance(given, bool) or not isinstance(given, (int, np.integer)):
        raise TypeError(f"encode: n_steps: got {type(given).__name__}, expected an integer")
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if coding == "bitwise_twos_complement":  # T bits hold -2^(T-1) to 2^(T-1) - 1
        least = max(max(0, high).bit_length(), (-low - 1).bit_length() if low < 0 else 0) + 1
    else:
        m = max(high, -low)
        least = m if coding in _UNARY else max(1, m.bit_length())
    if given < least:
        raise ValueError(f"encode: {coding}: n_steps: got {given}, expected at least {least} for counts from {low} to {high}")
    return int(given)
