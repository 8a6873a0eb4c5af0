"""Arithmetic of logits and codes that several places share."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from .constants import GROUP

Array = TypeVar("Array")  # of numpy or of PyTorch


def decoded(codes: Array, scales: Array) -> Array:
    """INT8 weights: codes [..., in], whatever their range, times the scale of their row and group [..., in / GROUP]; the shape of codes."""
    return (codes.reshape(*scales.shape, GROUP) * scales[..., None]).reshape(codes.shape)  # type: ignore[attr-defined,index]


def log_softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """Logs of probabilities in nats, of logits [..., n_vocab] (or along another axis), in their type; -inf stays -inf."""
    largest = x.max(axis, keepdims=True)
    x = x - np.where(np.isfinite(largest), largest, 0)
    with np.errstate(divide="ignore"):  # nothing but -inf
        return x - np.log(np.exp(x).sum(axis, keepdims=True))


def kl_divergence(expected: np.ndarray, got: np.ndarray) -> np.ndarray:
    """Of logits [..., n_vocab], how far the distributions of `got` are from those expected, in nats [...]; computed in float64."""
    p, q = log_softmax(np.asarray(expected, np.float64)), log_softmax(np.asarray(got, np.float64))
    return (np.exp(p) * (p - q)).sum(-1)
