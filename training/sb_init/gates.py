"""How the gla layers begin: what their states forget, and how large their output is."""

from __future__ import annotations

import numpy as np

from sb_convert.formats import rows_per_block

from .base import Base


def gate_bias(forget: tuple[float, float], head_dim: int, normalizer: float) -> np.ndarray:
    """b [head_dim] with exp(logsigmoid(b) / normalizer) = exp(-1 / span): after `span` tokens 1 / e is left. Spans grow geometrically over the channel pairs
    of a head, as the wave lengths of the base's rotary pairs do: i and i + head_dim / 2 share one."""
    spans = np.geomspace(*forget, max(head_dim // 2, 1))
    return -np.log(np.expm1(normalizer / np.tile(spans, 2)))


def span_of(bias: float, normalizer: float) -> float:
    """The other way: tokens after which a channel with this bias keeps 1 / e."""
    return normalizer / float(np.logaddexp(0, -bias))


def value_rms(base: Base, il: int) -> float:
    """Root mean square of a value of this layer, W_v h + b_v, for rows h whose channels are independent and have size 1 before the norm's weight."""
    norm = base.tensors[f"model.layers.{il}.attn_norm.weight"].rows(0, None).astype(np.float64)
    weight, bias = (base.tensors.get(f"model.layers.{il}.attn.v_proj.{what}") for what in ("weight", "bias"))
    assert weight is not None
    step, total = rows_per_block(weight.shape), 0.0
    for start in range(0, weight.shape[0], step):
        total += float(np.square(weight.rows(start, start + step) * norm).sum())
    if bias is not None:
        total += float(np.square(bias.rows(0, None).astype(np.float64)).sum())
    return (total / weight.shape[0]) ** 0.5
