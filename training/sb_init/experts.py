"""--moe: a dense MLP upcycled to experts (paper, equations 15 to 18), and how far that is from the dense one.

E_1 = ... = E_N = the MLP; a router p = softmax(W_r u) chooses one, and a shared expert is always on: S = k = 1. Expected output
(S + k/N) of the dense one, so that each of an expert's three matrices is scaled by alpha = (S + k/N)^(-1/3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sb_convert.config import Config
from sb_convert.formats import OUTTYPES, decode, encode, rows_per_block
from sb_convert.numerics import log_softmax
from sb_convert.sources import Tensor

from .base import Base
from .choices import Choices, draw

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
N_ROWS = 64  # on which the error is measured


@dataclass(frozen=True)
class Error:
    """Of one layer, on random normed rows: relative to the dense MLP's output; p: mean probability of the chosen expert."""
    relative: float
    p: float


@dataclass(frozen=True)
class Scaled(Tensor):
    """A matrix of the base times a factor."""
    factor: float = 1.0

    @classmethod
    def of(cls, tensor: Tensor, factor: float) -> "Scaled":
        """tensor: any shape."""
        return cls(tensor.name, tensor.shape, tensor.dtype, tensor, tensor.file, factor)

    def rows(self, start: int, stop: int | None) -> np.ndarray:
        return self.data.rows(start, stop) * np.float32(self.factor)


def factor(which: str, n_experts: int, scale: str) -> float:
    """Of the matrices `which` (gate, up, down) of all experts, the shared one included."""
    if scale == "down":
        return 0.5 if which == "down" else 1.0
    return float((1 + 1 / n_experts) ** (-1 / 3))


def upcycled(name: str, base: Base, config: Config, choices: Choices) -> Tensor | None:
    """A tensor of an expert or a router; None: of neither."""
    parts = name.split(".")
    if len(parts) < 5 or parts[3] not in ("block_sparse_moe", "shared_mlp"):
        return None
    il = int(parts[2])
    if name.endswith("block_sparse_moe.gate.weight"):
        return router(name, base, config, choices, il)
    which = parts[-2].removesuffix("_proj")
    return Scaled.of(base.tensors[f"model.layers.{il}.mlp.{which}_proj.weight"], factor(which, config.num_local_experts, choices.moe_scale))


def router(name: str, base: Base, config: Config, choices: Choices, il: int) -> Tensor:
    """[E, hidden], drawn so that logits of normed rows deviate by router_std: the norm's weight is divided out by its size."""
    norm = base.tensors[f"model.layers.{il}.mlp_norm.weight"].rows(0, None).astype(np.float64)
    size = choices.router_std / max(float(np.square(norm).sum()) ** 0.5, 1e-30)
    x = draw(choices.seed, il, "router").standard_normal((config.num_local_experts, config.hidden_size)) * size
    return Tensor(name, x.shape, "F32", x.astype(np.float32), base.folder)


def error(base: Base, config: Config, choices: Choices, il: int) -> Error:
    """The upcycled MLP as it is stored, against the dense one, in float64 but for the weights."""
    p, kind = f"model.layers.{il}.", OUTTYPES[base.dtype.lower()].matrix
    norm = base.tensors[p + "mlp_norm.weight"].rows(0, None).astype(np.float64)
    u = draw_rows(choices, il, config.hidden_size) * norm
    gate, up, down = (base.tensors[f"{p}mlp.{which}_proj.weight"] for which in ("gate", "up", "down"))
    scaled = [Scaled.of(t, factor(which, config.num_local_experts, choices.moe_scale)) for which, t in (("gate", gate), ("up", up), ("down", down))]
    dense, expert = mlp(u, gate, up, down), mlp(u, *(Stored.of(t, kind) for t in scaled))
    w_r = decode(encode(router("", base, config, choices, il).rows(0, None), kind), kind).astype(np.float64)
    chosen = np.exp(log_softmax(u @ w_r.T)).max(-1, keepdims=True)
    y = expert * (2.0 if config.norm_topk_prob else 1 + chosen)
    return Error(float(np.sqrt(np.square(y - dense).sum() / max(np.square(dense).sum(), 1e-300))), float(chosen.mean()))


@dataclass(frozen=True)
class Stored(Tensor):
    """A tensor as it reads once it is written in a type."""
    kind: object = None

    @classmethod
    def of(cls, tensor: Tensor, kind: object) -> "Stored":
        """kind: gguf's name of the type."""
        return cls(tensor.name, tensor.shape, tensor.dtype, tensor, tensor.file, kind)

    def rows(self, start: int, stop: int | None) -> np.ndarray:
        return decode(encode(self.data.rows(start, stop), self.kind), self.kind)  # type: ignore[arg-type]


def draw_rows(choices: Choices, il: int, width: int) -> np.ndarray:
    """[N_ROWS, width], each of size 1 in the mean square."""
    x = draw(choices.seed, il, "rows").standard_normal((N_ROWS, width))
    return x / np.sqrt(np.square(x).mean(-1, keepdims=True))


def mlp(u: np.ndarray, gate: Tensor, up: Tensor, down: Tensor) -> np.ndarray:
    """W_down (silu(W_gate u) * (W_up u)) of rows u, a block of a matrix at a time."""
    g, h = product(u, gate), product(u, up)
    return product(g * np.exp(-np.logaddexp(0, -g)) * h, down)


def product(x: np.ndarray, w: Tensor) -> np.ndarray:
    """x W^T."""
    out, step = np.empty((len(x), w.shape[0])), rows_per_block(w.shape)
    for start in range(0, w.shape[0], step):
        out[:, start:start + step] = x @ w.rows(start, start + step).astype(np.float64).T
    return out


def report(config: Config, errors: dict[int, Error]) -> str:
    """One line: how far the experts are from the MLPs they were made of."""
    worst, n = max(errors, key=lambda il: errors[il].relative), config.num_local_experts
    said = f"alpha = {factor('up', n, 'paper'):.4f} on every matrix" if not config.norm_topk_prob else "1/2 on the down projections, weight 1 of the routed expert"
    rms = float(np.sqrt(np.mean([e.relative**2 for e in errors.values()])))
    return (f"moe: {n} experts and a shared one in {len(errors)} layers, {said}: error against the dense MLP, relative to its output, {rms:.2e} in the mean, "
            f"{errors[worst].relative:.2e} at most (layer {worst}); the chosen expert has p = {np.mean([e.p for e in errors.values()]):.3f} in the mean (1/E = {1 / n:.3f})")
