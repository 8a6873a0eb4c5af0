"""The constants of the sinks: what text reads of them, in every layer the same for every text.

Only attention mixes rows, and there a sink sees sinks only: their keys, values and the linear state behind the last of them depend on the
weights alone. Computed with the model's own spikes, a layer at a time, a block of one matrix at a time; in float64, so that they are
right to float32, in which they are stored, and so that no count of theirs flips by rounding.
Shapes: m sinks, H query heads, G key/value heads, D head size.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from .config import ParallelConfig
from .derived import Unbounded
from .int8 import Codes, Part, scales_name
from .sources import Tensor
from .spike import SpikeKeys
from .tensors import SINKS, Target

BLOCK_VALUES = 1 << 22  # of a matrix at a time: few, large products


@dataclass(frozen=True)
class Constants:
    """Of one layer, float32: k [G, m, D] after rotary and v [G, m, D], where the model spikes as INT8 rounds them; state [states, D of k, D of v]."""
    k: np.ndarray
    v: np.ndarray
    state: np.ndarray


@dataclass(frozen=True)
class SinkTensor(Tensor):
    """One of a layer's constants, computed when it is first read."""
    what: str = ""  # field of Constants
    layer: int = 0

    @classmethod
    def of(cls, t: Target, sinks: "Sinks") -> "SinkTensor":
        """t: a target that is made of sinks (tensors.py: `made`)."""
        return cls(t.gguf, (t.shape[0] * t.shape[1], t.shape[2]), "F32", sinks, sinks.tensors[SINKS].file, t.made.removeprefix("sinks."), t.layer)

    def rows(self, start: int, stop: int | None) -> np.ndarray:
        return getattr(self.data.constants(self.layer), self.what).reshape(self.shape)[start:stop]


class Sinks:
    """The constants of all layers, from a checkpoint's tensors; keys: the spikes of the model, none where None or not enabled."""

    def __init__(self, config: ParallelConfig, tensors: dict[str, Tensor], keys: SpikeKeys | None):
        self.config, self.tensors = config, tensors
        self.keys = keys if keys is not None and keys.enable else None
        self._held: list[Constants] = []
        self._x = np.zeros(0)  # rows that enter the next layer
        self._lock = threading.Lock()

    def constants(self, il: int) -> Constants:
        """Of layer il; those before it are computed first."""
        with self._lock, np.errstate(over="ignore", invalid="ignore"):  # what is not finite is told where it is written
            while len(self._held) <= il:
                self._held.append(self._next_layer(len(self._held)))
            return self._held[il]

    def _next_layer(self, il: int) -> Constants:
        p, x = f"model.layers.{il}.", self._x if il else self._vector(SINKS)
        h = self._encoded(self._norm(x, p + "attn_norm"))
        k, v, o1 = self._softmax_branch(h, p + "attn.vanilla_attn.")
        state, o2 = self._linear_branch(h, p + "attn.linear_attn.", il)
        if il + 1 < self.config.num_hidden_layers:  # behind the last layer's attention nobody reads the sinks
            mean = (self._norm(o1, p + "attn.norm1") + self._norm(o2, p + "attn.norm2")) / 2
            x = x + self._product(self._encoded(mean), p + "attn.out_proj")
            self._x = x + self._mlps(self._norm(x, p + "mlp_norm"), p, il)
        return Constants(*(x.astype(np.float32) for x in (k, v, state)))

    def _softmax_branch(self, h: np.ndarray, p: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """k v [G, m, D] and the output [m, H D]; every sink sees all of them."""
        c = self.config
        q, k, v = (self._heads(h, p + name) for name in ("q_proj", "k_proj", "v_proj"))
        q, k = rotated(q, c.rope_theta), rotated(k, c.rope_theta)
        if self.keys is not None:
            q, k, v = spiked(q, self.keys.k), rounded_int8(k), rounded_int8(v)
        k, v = k.swapaxes(0, 1), v.swapaxes(0, 1)
        q = q.swapaxes(0, 1).reshape(len(k), -1, *k.shape[1:])                      # [G, H / G, m, D]
        o = softmax(q @ k[:, None].swapaxes(-1, -2) * c.head_dim ** -0.5) @ v[:, None]
        return k, v, o.reshape(-1, *k.shape[1:]).swapaxes(0, 1).reshape(len(h), -1)

    def _linear_branch(self, h: np.ndarray, p: str, il: int) -> tuple[np.ndarray, np.ndarray]:
        """The state behind the last sink and the output [m, H D]: S = diag(g) S + k^T v; o = q S."""
        c, n = self.config, self.config.n_states(il)
        q, z, v = (self._heads(h, p + name) for name in ("q_proj", "k_proj", "v_proj"))
        q = (np.maximum(q, 0) if c.linear_q_activation == "relu" else sigmoid(q)) * c.head_dim ** -0.5
        z, v = (np.repeat(x, n // c.num_key_value_heads, 1) for x in (z, v))        # [m, states, D]
        k, g = self._keys_and_decays(z, il)
        S, out = np.zeros((n, c.head_dim, c.head_dim)), []
        for t, qt in enumerate(q.reshape(len(h), n, -1, c.head_dim)):
            S = g[t, :, :, None] * S + k[t, :, :, None] * v[t, :, None, :]
            out.append(qt @ S)
        return S, np.stack(out).reshape(len(h), -1)

    def _keys_and_decays(self, z: np.ndarray, il: int) -> tuple[np.ndarray, np.ndarray]:
        """k and g = 1 - k, from sigmoid(-z) where it would cancel."""
        c = self.config
        if not c.bound_row(il):
            return np.minimum(sigmoid(z), c.k_clamp_max), np.maximum(sigmoid(-z), 1 - c.k_clamp_max)
        left = Unbounded.of(c, il, self.tensors).rows(0, None).reshape(-1, c.head_dim).astype(np.float64)
        return left * sigmoid(z), (1 - left) + left * sigmoid(-z)

    def _mlps(self, u: np.ndarray, p: str, il: int) -> np.ndarray:
        spikes = self._encoded(u)
        if not self.config.is_moe(il):
            return self._mlp(spikes, p + "mlp.")
        probabilities = softmax(u @ self._vector(p + "block_sparse_moe.gate.weight").T)  # the router reads u itself
        expert, y = probabilities.argmax(-1), self._mlp(spikes, p + "shared_mlp.")       # a tie: the lowest index
        for e in np.unique(expert):
            rows = expert == e
            weight = 1.0 if self.config.norm_topk_prob else probabilities[rows, e, None]
            y[rows] += weight * self._mlp(spikes[rows], f"{p}block_sparse_moe.experts.{e}.")
        return y

    def _mlp(self, spikes: np.ndarray, p: str) -> np.ndarray:
        gate = self._product(spikes, p + "gate_proj")
        a, down = gate * sigmoid(gate) * self._product(spikes, p + "up_proj"), p + "down_proj"
        released = self.keys is not None and self.keys.scope == "released"
        return self._product(a, down, raw=True) if released else self._product(self._encoded(a), down)

    def _product(self, x: np.ndarray, name: str, raw: bool = False) -> np.ndarray:
        """x W^T + b; where the model spikes, W is codes times scales of a checkpoint that has them. raw: not this one."""
        w = self.tensors[name + ".weight"]
        scales = self.tensors.get(scales_name(w.name))
        if scales is not None and self.keys is not None and not raw:
            w = Part.of(Codes(w, scales), "values")
        y, step = np.empty((len(x), w.shape[0])), max(1, BLOCK_VALUES // w.shape[1])
        for at in range(0, w.shape[0], step):
            y[:, at:at + step] = (w.rows(at, at + step).astype(np.float64) @ x.T).T
        return y + self._vector(name + ".bias") if name + ".bias" in self.tensors else y

    def _heads(self, h: np.ndarray, name: str) -> np.ndarray:  # [m, heads, D]
        return self._product(h, name).reshape(len(h), -1, self.config.head_dim)

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt(np.square(x).mean(-1, keepdims=True) + self.config.norm_eps) * self._vector(name + ".weight")

    def _encoded(self, x: np.ndarray) -> np.ndarray:
        return x if self.keys is None else spiked(x, self.keys.k)

    def _vector(self, name: str) -> np.ndarray:
        return self.tensors[name].rows(0, None).astype(np.float64)


def spiked(x: np.ndarray, k: float) -> np.ndarray:
    """v_th * s of each row, with s = round half to even of x / v_th."""
    v_th = np.clip(np.abs(x).mean(-1, keepdims=True) / k, 1e-5, 1e4)
    return np.rint(x / v_th) * v_th


def rounded_int8(x: np.ndarray) -> np.ndarray:
    """Symmetric INT8 of each row (one sink, one head), back in float."""
    scale = np.clip(np.abs(x).max(-1, keepdims=True) / 127, 1e-5, 1e4)
    return np.rint(x / scale) * scale


def rotated(x: np.ndarray, theta: float) -> np.ndarray:
    """Rotary embedding of sinks at positions 0, 1, ..; x [m, heads, D], half-rotation form."""
    half = x.shape[-1] // 2
    angle = np.arange(len(x))[:, None, None] * theta ** (-np.arange(half) / half)
    cos, sin, a, b = np.cos(angle), np.sin(angle), x[..., :half], x[..., half:]
    return np.concatenate((a * cos - b * sin, b * cos + a * sin), -1)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), without overflow."""
    return np.exp(-np.logaddexp(0, -x))


def softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
