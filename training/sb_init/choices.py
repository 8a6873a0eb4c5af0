"""The decisions that the paper leaves open, and what is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# paper: all three matrices of an expert times alpha, the routed one's output times its probability. down: the down projections alone times 1/2, and the routed
# expert's weight is 1 (norm_topk_prob): what the dense MLP computes, to rounding
SCALES = ("paper", "down")
WINDOW = 4096  # of the published models


@dataclass(frozen=True)
class Choices:
    """Every decision that the paper leaves open; README.md says why each default."""
    layers: tuple[int, ...] | None = None  # sliding-window layers, zero-based; None: every second one, from 1 on
    window: int | None = None              # None: 4096, or less where the base has seen less
    forget: tuple[float, float] = (1.0, 128.0)  # tokens after which the fastest and the slowest channel keep 1 / e
    gate_rank: int = 16                    # 0: one full matrix
    norm_scale: float = 0.6                # of the norm of the gla layers' output: this times the size of the base's values
    n_experts: int = 0                     # 0: dense MLPs
    moe_layers: tuple[int, ...] | None = None  # None: all
    moe_scale: str = "paper"               # one of SCALES
    router_std: float = 0.1                # of a router's logits, for normed rows
    seed: int = 0
    shard_bytes: int = 5 * 10**9


def draw(seed: int, il: int, what: str) -> np.random.Generator:
    """Of one tensor: the same whatever else is drawn."""
    return np.random.default_rng([seed, il, *what.encode()])
