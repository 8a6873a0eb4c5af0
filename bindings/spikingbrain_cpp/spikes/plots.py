"""The paper's pictures of one's own model: count distribution (Fig. 9), firing maps of the codings (Fig. 10).

Needs matplotlib: pip install 'spikingbrain_cpp[plot]'. Functions return PNG bytes.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Optional, Sequence

import numpy as np
import numpy.typing as npt

from .codings import encode, firing_rate, shift_to_zero
from .stats import PAPER_TEXT, CountHistogram, ExpertChoices

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, GREY, RED, ORANGE = "#2f6690", "#9aa5b1", "#c8553d", "#e09f3e"
DPI = 130
MAP_TOKENS, MAP_NEURONS = 4, 48  # of a firing map; more are no longer seen
MAP_CODINGS = {"binary": "binary", "ternary": "ternary", "bitwise_bidirectional": "bitwise, bidirectional",
               "bitwise_twos_complement": "bitwise, two's complement"}


def require_matplotlib() -> None:
    """ImportError with what to install."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError("plots: matplotlib: got no such package, expected 3.7 or newer; "
                          "do pip install 'spikingbrain_cpp[plot]'") from error


def _figure(width: float, height: float) -> "Figure":
    """Free of matplotlib's global state."""
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: "Figure") -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DPI)
    return out.getvalue()


def count_distribution(h: CountHistogram, k: float, n_tokens: Optional[int] = None) -> bytes:
    """Fig. 9: how often each absolute count occurs over all projections' inputs, beside the paper's figures (k = 3, 7B)."""
    if not h.n:
        raise ValueError("count_distribution: counts: got none, expected a histogram that counted something")
    figure = _figure(8.6, 4.6)
    ax = figure.add_subplot()
    last = _last_bin(h)
    values = np.arange(last + 1)
    share = h.bins[:last + 1] / h.n
    colours = np.where(values <= 7, BLUE, np.where(values <= 16, ORANGE, RED))
    ax.bar(values, share, width=0.9 if last < 200 else 1.0, color=colours.tolist())
    ax.set_ylim(share[share > 0].min(initial=0.01) / 3, 3)
    ax.set_yscale("log")
    ax.set_xlim(-0.8, last + 0.8)
    beyond = h.n - int(h.bins[:last + 1].sum())
    ax.set_xlabel("absolute count |s|" + (f"   ({beyond / h.n:.2%} beyond, the largest {h.largest:,})" if beyond else ""))
    ax.set_ylabel("share of channels (log)")
    of = f", {n_tokens:,} tokens" if n_tokens else ""
    ax.set_title(f"Spike counts over the inputs of all spiking projections (k = {k:g}{of})", loc="left", fontsize=11)
    _annotate(ax, h, k)
    ax.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def _last_bin(h: CountHistogram) -> int:
    """Right end: so far that at most one count in 2,000 lies beyond, from 24 to 160."""
    inside = int(np.searchsorted(np.cumsum(h.bins), h.n * (1 - 5e-4)))
    return min(max(24, inside), 160)


def _annotate(ax: "Axes", h: CountHistogram, k: float) -> None:
    lines = [("", "here", "paper"),
             ("silent, s = 0", f"{h.silent_share:.1%}", f"{PAPER_TEXT['silent_share']:.1%}"),
             ("|s| <= 7 (3 bits)", f"{h.share_to_7:.1%}", f"{PAPER_TEXT['share_to_7']:.1%}"),
             ("|s| > 16", f"{h.share_above_16:.2%}", f"about {PAPER_TEXT['share_above_16']:.0%}"),
             ("spikes per channel", f"{h.mean_spikes:.2f}", f"{PAPER_TEXT['mean_spikes']:.2f}"),
             ("sparsity, 3 steps", f"{h.sparsity:.1%}", f"{PAPER_TEXT['sparsity']:.1%}"),
             ("  counts <= 7 alone", f"{h.sparsity_to_7:.1%}", ""),
             ("largest |s|", f"{h.largest:,}", "")]
    width = max(len(row[1]) for row in lines) + 1
    text = "\n".join(f"{a:<20}{b:>{width}}{c:>10}" for a, b, c in lines)
    ax.text(0.985, 0.965, text, transform=ax.transAxes, ha="right", va="top", family="monospace", fontsize=8.5,
            bbox={"facecolor": "white", "edgecolor": GREY, "boxstyle": "round,pad=0.5"})
    for colour, label in ((BLUE, "0 to 7: three bits"), (ORANGE, "8 to 16"), (RED, "above 16")):
        ax.bar(0, 0, color=colour, label=label)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, frameon=False, fontsize=9)


def typical_neurons(counts: npt.NDArray[Any]) -> slice:
    """MAP_NEURONS neighbours of counts [token, neuron] whose largest count is the median of all such windows: one neuron
    with a huge count, which a model has a few of, would set the steps of all and leave the rest of the map empty."""
    n = counts.shape[1]
    starts = range(0, max(1, n - MAP_NEURONS + 1), MAP_NEURONS)
    largest = [int(np.abs(counts[:, s:s + MAP_NEURONS].astype(np.int64)).max(initial=0)) for s in starts]
    start = starts[int(np.argsort(largest, kind="stable")[(len(largest) - 1) // 2])]
    return slice(start, min(n, start + MAP_NEURONS))


def firing_maps(counts: npt.NDArray[Any], title: str = "", first_neuron: int = 0) -> bytes:
    """Fig. 10: one input's counts [token, neuron] under four codings side by side, a mark per spike.

    Horizontal: token x coding step. Binary has no negative counts: it is given the counts moved up to begin at 0. The
    number of steps is set by the largest count shown, for all tokens alike.
    """
    shown = np.asarray(counts)
    if shown.ndim != 2 or not shown.size:
        raise ValueError(f"firing_maps: counts: got shape {shown.shape}, expected [token, neuron], neither of them 0")
    shown = shown[:MAP_TOKENS, :MAP_NEURONS]
    figure = _figure(13, 5.2)
    axes = figure.subplots(1, len(MAP_CODINGS), sharey=True)
    for ax, (coding, label) in zip(axes, MAP_CODINGS.items()):
        values, shift = shift_to_zero(shown) if coding == "binary" else (shown.astype(np.int64), 0)
        spikes = encode(values, coding)
        _map(ax, spikes)
        rate = firing_rate(spikes)
        moved = f", counts + {shift}" if shift else ""
        ax.set_title(f"{label}{moved}\n{len(spikes)} steps a token, firing rate {rate:.1%}\n"
                     f"{np.count_nonzero(spikes) / shown.size:.2f} spikes per neuron and token", fontsize=9.5, loc="left")
    axes[0].set_ylabel("neuron")
    ticks = range(0, shown.shape[1], 8)
    axes[0].set_yticks([n + 0.5 for n in ticks], [str(first_neuron + n) for n in ticks])
    if title:
        figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    figure.legend(handles=[_mark(BLUE, "spike +1"), _mark(RED, "spike -1")], loc="outside lower right", ncols=2, frameon=False, fontsize=9)
    return _png(figure)


def _map(ax: "Axes", spikes: npt.NDArray[np.int8]) -> None:
    """spikes [T, token, neuron] as marks at (token * T + step, neuron), a line between tokens."""
    from matplotlib.collections import PolyCollection
    steps, n_tokens, n_neurons = spikes.shape
    trains = spikes.transpose(2, 1, 0).reshape(n_neurons, -1)
    corners = np.array([(0.15, 0.15), (0.85, 0.15), (0.85, 0.85), (0.15, 0.85)])
    for value, colour in ((1, BLUE), (-1, RED)):
        neuron, time = np.nonzero(trains == value)
        at = np.stack([time, neuron], 1)[:, None, :] + corners
        ax.add_collection(PolyCollection(list(at), facecolors=colour, edgecolors="none"))
    for token in range(1, n_tokens):
        ax.axvline(token * steps, color=GREY, linewidth=0.7)
    ax.set_xlim(0, max(1, steps) * n_tokens)
    ax.set_ylim(n_neurons, 0)
    ax.set_xticks([(token + 0.5) * steps for token in range(n_tokens)], [f"token {token + 1}" for token in range(n_tokens)])
    ax.tick_params(length=0)
    ax.set_xlabel(f"time: token x coding step ({n_tokens} x {steps})", fontsize=9)


def expert_choices(experts: Sequence[ExpertChoices]) -> bytes:
    """Which experts the tokens of each layer chose: a row for each layer, a column for each expert, the darker the more."""
    if not any(e.n.sum() for e in experts):
        raise ValueError("expert_choices: choices: got none, expected a layer whose tokens chose experts")
    n_experts = max(e.n.size for e in experts)
    shares = np.full((len(experts), n_experts), np.nan)
    for row, e in zip(shares, experts):
        row[:e.n.size] = e.shares()
    figure = _figure(max(6.5, 2.5 + 0.55 * n_experts), 2.2 + 0.32 * len(experts))
    ax = figure.add_subplot()
    image = ax.imshow(shares, cmap="Blues", vmin=0, aspect="auto")
    for (i, j), share in np.ndenumerate(shares):
        if not np.isnan(share) and n_experts <= 32:
            ax.text(j, i, f"{100 * share:.0f}", ha="center", va="center", fontsize=8, color="white" if share > np.nanmax(shares) / 2 else "black")
    ax.set_xticks(range(0, n_experts, 1 + n_experts // 32))
    ax.set_yticks(range(len(experts)), [str(e.layer) for e in experts])
    ax.set_xlabel("expert")
    ax.set_ylabel("layer")
    ax.set_title(f"Choices of {int(experts[0].n.sum()):,} tokens, in percent (evenly: {100 / n_experts:.1f})", fontsize=11, loc="left")
    figure.colorbar(image, ax=ax, format=lambda x, _: f"{x:.0%}")
    return _png(figure)


def _mark(colour: str, label: str) -> Any:
    from matplotlib.patches import Patch
    return Patch(color=colour, label=label)
