"""Statistics of spike counts, as the paper's section 5.5, Fig. 9 and Table 11 have them.

A histogram of |s| holds all of them. Sparsity at 3 steps is given in two ways, since the paper does not say how counts
above 7 enter, which no 3 bits hold: with all their spikes over the same 3 steps (most active), and without them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional, Union

import numpy as np
import numpy.typing as npt

from .energy import Energy, energy

N_BINS = 4096  # |s| below are counted one by one; of those above, number and spikes
STEPS = 3      # of the paper's sparsity; counts up to 7

# k: average of 7 benchmarks, sparsity, share of counts <= 7 (Table 11, the 7B)
PAPER_TABLE_11 = {2.0: (0.6735, 0.730, 0.989), 2.5: (0.6807, 0.709, 0.976), 3.0: (0.6875, 0.692, 0.951),
                  3.5: (0.6898, 0.677, 0.916), 4.0: (0.6940, 0.664, 0.877)}
# section 5.5, k = 3, the 7B
PAPER_TEXT = {"share_to_7": 0.941, "share_above_16": 0.01, "silent_share": 0.184, "mean_spikes": 1.13, "sparsity": 0.6915}

_POPCOUNT = np.array([bin(i).count("1") for i in range(256)], np.uint8)


@np.errstate(over="ignore")
def popcount(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Set bits of each magnitude: its spikes under bitwise bidirectional coding."""
    raw = np.ascontiguousarray(values, np.int64)
    magnitude = np.where(raw < 0, ~raw.view(np.uint64) + np.uint64(1), raw.view(np.uint64))
    return np.asarray(_POPCOUNT[magnitude[..., None].view(np.uint8)].sum(-1, dtype=np.int64), np.int64)


_BIN_SPIKES = popcount(np.arange(N_BINS))


@dataclass(frozen=True)
class CountHistogram:
    """Absolute counts: how many of each below 4096, and of those above their number, spikes and largest."""
    bins: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(N_BINS, np.int64))
    n_over: int = 0
    over_spikes: int = 0
    largest: int = 0

    @classmethod
    def of(cls, counts: npt.ArrayLike) -> "CountHistogram":
        """Of integer counts of any shape."""
        values = np.asarray(counts)
        if values.size and values.dtype.kind not in "iu":
            raise TypeError(f"histogram: counts: got {values.dtype}, expected integers")
        values = values.astype(np.int64).reshape(-1)
        over = values[(values >= N_BINS) | (values <= -N_BINS)]
        bins = np.bincount(np.abs(values[(values < N_BINS) & (values > -N_BINS)]), minlength=N_BINS)
        largest = max(int(values.max()), -int(values.min())) if values.size else 0
        return cls(bins.astype(np.int64), over.size, int(popcount(over).sum()), largest)

    @classmethod
    def total(cls, parts: Iterable[tuple["CountHistogram", int]]) -> "CountHistogram":
        """Sum of histograms, each taken a number of times."""
        bins, n_over, over_spikes, largest = np.zeros(N_BINS, np.int64), 0, 0, 0
        for part, times in parts:
            if times:
                bins += part.bins * times
                n_over, over_spikes = n_over + part.n_over * times, over_spikes + part.over_spikes * times
                largest = max(largest, part.largest)
        return cls(bins, n_over, over_spikes, largest)

    @property
    def n(self) -> int:
        """Counts in all."""
        return int(self.bins.sum()) + self.n_over

    def _share(self, n: float, of: float) -> float:
        return float(n / of) if of else float("nan")

    @property
    def share_to_7(self) -> float:
        """Share of |s| <= 7: three bits."""
        return self._share(int(self.bins[:8].sum()), self.n)

    @property
    def share_above_16(self) -> float:
        """Share of counts beyond +-16."""
        return self._share(int(self.bins[17:].sum()) + self.n_over, self.n)

    @property
    def silent_share(self) -> float:
        """Share of s = 0."""
        return self._share(int(self.bins[0]), self.n)

    @property
    def spikes(self) -> int:
        """Spikes in all, bitwise bidirectional coding."""
        return int((self.bins * _BIN_SPIKES).sum()) + self.over_spikes

    @property
    def mean_spikes(self) -> float:
        """Spikes per channel: mean popcount of |s|."""
        return self._share(self.spikes, self.n)

    @property
    def sparsity(self) -> float:
        """1 - spikes / (3 x channels); counts above 7 with all their spikes: the least sparse it can be."""
        return 1 - self._share(self.spikes, STEPS * self.n)

    @property
    def sparsity_to_7(self) -> float:
        """The same over the channels with |s| <= 7 alone, which fit in 3 steps."""
        return 1 - self._share(int((self.bins[:8] * _BIN_SPIKES[:8]).sum()), STEPS * int(self.bins[:8].sum()))

    def energy(self) -> Energy:
        """The estimate for these counts."""
        return energy(self.mean_spikes)

    def figures(self) -> dict[str, Union[int, float, None]]:
        """All of them by name; None where nothing was counted."""
        out: dict[str, Union[int, float, None]] = {"n": self.n, "largest": self.largest}
        for name in ("share_to_7", "share_above_16", "silent_share", "mean_spikes", "sparsity", "sparsity_to_7"):
            value = getattr(self, name)
            out[name] = value if np.isfinite(value) else None
        return out


@dataclass(frozen=True)
class SpikeInput:
    """One encoded input of one layer: what it counted, and the projections that read it."""
    layer: int
    name: str                      # "attn", "attn_out", "ffn", "ffn_down"
    n: int                         # its channels
    n_tokens: int
    n_refused: int                 # tokens left out of the histogram: values that are no numbers, or beyond int32
    projections: tuple[str, ...]   # "attn_q", ...
    counts: CountHistogram
    kept: npt.NDArray[np.int32]    # counts [token, neuron] of the first of each; only as many as were asked for


@dataclass(frozen=True)
class ExpertChoices:
    """Which expert each token of one layer chose, and what the chosen ones' down projections were fed."""
    layer: int
    n: npt.NDArray[np.int64]         # [expert] tokens that chose it
    silent: npt.NDArray[np.int64]    # [expert] counts of 0 in the encoded inputs of its down projection
    channels: npt.NDArray[np.int64]  # [expert] all of these counts; 0: no token chose it, or its down projection does not spike
    kept: npt.NDArray[np.int32]      # choices of the first tokens; only as many as were asked for

    def shares(self) -> npt.NDArray[np.float64]:
        """[expert] of the tokens; NaN: there were none."""
        return self._quotient(self.n, self.n.sum())

    def silent_shares(self) -> npt.NDArray[np.float64]:
        """[expert] share of s = 0; NaN: nothing was encoded."""
        return self._quotient(self.silent, self.channels)

    @staticmethod
    def _quotient(a: npt.NDArray[np.int64], b: npt.ArrayLike) -> npt.NDArray[np.float64]:
        below = np.broadcast_to(np.asarray(b, np.float64), a.shape)
        return np.where(below > 0, a / np.where(below > 0, below, 1.0), np.nan)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"layer": self.layer, "n": self.n.tolist(), "share": _numbers(self.shares()), "silent_share": _numbers(self.silent_shares())}


@dataclass(frozen=True)
class SpikeStats:
    """What a model's projections were fed. An input counts once for each projection that reads it, as in the paper.

    inputs: by layer and name. experts: by layer, of those with experts. projections: the kinds, in the order of a layer. by_projection(), by_layer(), model():
    histograms. to_dict() is what sb-spikes writes as JSON. The query spikes inside the attention layers are no
    projection's input and not among them.
    """
    k: float
    scope: str
    inputs: tuple[SpikeInput, ...]
    experts: tuple[ExpertChoices, ...] = ()

    @property
    def n_tokens(self) -> int:
        """Tokens that were counted."""
        return max((i.n_tokens for i in self.inputs), default=0)

    @property
    def n_refused(self) -> int:
        """Rows that could not be encoded."""
        return sum(i.n_refused for i in self.inputs)

    @property
    def projections(self) -> tuple[str, ...]:
        """Names of the projections that spike."""
        return _in_order({p for i in self.inputs for p in i.projections})

    @property
    def layers(self) -> tuple[int, ...]:
        """Indices of the layers that spike."""
        return tuple(sorted({i.layer for i in self.inputs}))

    def of(self, layer: int, projection: str) -> CountHistogram:
        """What one projection of one layer was fed. KeyError: it does not spike."""
        for i in self.inputs:
            if i.layer == layer and projection in i.projections:
                return i.counts
        raise KeyError(f"spikes: layer {layer}, {projection}: got no such input, expected one of layers {self.layers}, {self.projections}")

    def by_projection(self) -> dict[str, CountHistogram]:
        """Each projection kind over all layers."""
        return {p: CountHistogram.total((i.counts, 1) for i in self.inputs if p in i.projections) for p in self.projections}

    def by_layer(self) -> dict[int, CountHistogram]:
        """Each layer over all its projections."""
        return {il: CountHistogram.total((i.counts, len(i.projections)) for i in self.inputs if i.layer == il) for il in self.layers}

    def model(self) -> CountHistogram:
        """All inputs of all spiking projections."""
        return CountHistogram.total((i.counts, len(i.projections)) for i in self.inputs)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and strings; histograms up to the last count that occurs."""
        model = self.model()
        return {
            "k": self.k, "scope": self.scope, "n_tokens": self.n_tokens, "n_refused": self.n_refused,
            "model": {**model.figures(), "histogram": _trimmed(model), "energy": model.energy().to_dict() if model.n else None},
            "projections": {p: h.figures() for p, h in self.by_projection().items()},
            "layers": {str(il): h.figures() for il, h in self.by_layer().items()},
            "inputs": [{"layer": i.layer, "input": i.name, "channels": i.n, "n_tokens": i.n_tokens, "n_refused": i.n_refused,
                        "projections": list(i.projections), **i.counts.figures(), "histogram": _trimmed(i.counts)} for i in self.inputs],
            **({"experts": [e.to_dict() for e in self.experts]} if self.experts else {}),
            "paper": {"table_11": {str(k): dict(zip(("accuracy", "sparsity", "share_to_7"), row)) for k, row in PAPER_TABLE_11.items()},
                      "section_5_5": PAPER_TEXT},
        }

    def to_json(self, indent: Union[int, None] = 1) -> str:
        """All of it as JSON text."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)


def _numbers(values: npt.NDArray[np.float64]) -> list[Optional[float]]:
    return [float(v) if np.isfinite(v) else None for v in values]


def _trimmed(h: CountHistogram) -> dict[str, Any]:
    last = int(np.flatnonzero(h.bins)[-1]) + 1 if h.bins.any() else 0
    return {"bins": h.bins[:last].tolist(), "n_over": h.n_over, "over_spikes": h.over_spikes}


def from_core(k: float, scope: str, nodes: Iterable[Mapping[str, Any]], experts: Iterable[Mapping[str, Any]] = ()) -> SpikeStats:
    """SpikeStats of what _core.Context.spike_stats() and expert_stats() return."""
    inputs = []
    for node in nodes:
        name, layer = str(node["name"]).removeprefix("spike_").rsplit("-", 1)
        counts = CountHistogram(np.asarray(node["bins"], np.int64), int(node["n_over"]), int(node["over_spikes"]), int(node["largest"]))
        projections = _in_order(_projection(w) for w in node["weights"])
        inputs.append(SpikeInput(int(layer), name, int(node["n"]), int(node["n_tokens"]), int(node["n_refused"]), projections,
                                 counts, np.asarray(node["kept"], np.int32)))
    order = {name: i for i, name in enumerate(("attn", "attn_out", "ffn", "ffn_down"))}
    chosen = [ExpertChoices(int(str(e["name"]).rsplit("-", 1)[1]), np.asarray(e["n"], np.int64), np.asarray(e["silent"], np.int64),
                            np.asarray(e["channels"], np.int64), np.asarray(e["kept"], np.int32)) for e in experts]
    return SpikeStats(float(k), scope, tuple(sorted(inputs, key=lambda i: (i.layer, order.get(i.name, 9), i.name))),
                      tuple(sorted(chosen, key=lambda e: e.layer)))


def _in_order(projections: Iterable[str]) -> tuple[str, ...]:
    """As they come in a layer; names not known here last."""
    order = ("attn_q", "attn_k", "attn_v", "attn_gate", "time_mix_receptance", "time_mix_key", "time_mix_value", "attn_output", "ffn_gate", "ffn_up", "ffn_down",
             "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")
    return tuple(sorted(projections, key=lambda p: (order.index(p) if p in order else len(order), p)))


def _projection(weight: str) -> str:
    """"blk.3.attn_q.weight" -> "attn_q"."""
    return weight.split(".")[2] if weight.count(".") >= 3 else weight
