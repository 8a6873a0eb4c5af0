"""Plots of rows as SVG: decode speed over depth (the paper's Figure 7), memory over depth, time to the first token.
Needs matplotlib, the `plot` extra. The same rows give the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .cases import PAPER_FIGURE_7
from .errors import BenchError
from .rows import Row
from .tables import best_upstream, decode_rows, depths, find, names, size, speed_ratio


def pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as e:
        raise BenchError("bench: plots: got no matplotlib, expected the plot extra; do pip install 'spikingbrain_cpp[plot]', "
                         "or add --no-plots") from e
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "spikingbrain_bench"  # ids that do not change from run to run
    from matplotlib import pyplot as plt
    return plt


def axis(ax: Any, ticks: list[int], xlabel: str, ylabel: str) -> None:
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks, [size(t) for t in ticks])
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.grid(True, which="major", alpha=0.3)


def figure7(rows: list[Row], ax: Any) -> bool:
    """Tokens per second over depth, with our ratio to upstream's best setting over the paper's."""
    found = decode_rows(rows, "decode-1b-d")
    for name in names(found):
        line = sorted((r["depth"], r["median"]) for r in found if r["name"] == name)
        ax.plot(*zip(*line), marker="o", linestyle="--" if name.endswith(" fa") else "-", label=name)
    for depth in depths(found):
        ours, base = find(found, depth=depth, name="SpikingBrain-1B q4_0"), best_upstream(found, depth)
        if ours and base and depth in PAPER_FIGURE_7:
            ax.annotate(f"{speed_ratio(rows, ours, base):.1f}x\npaper\n{PAPER_FIGURE_7[depth]}x", (depth, ours["median"]),
                        textcoords="offset points", xytext=(0, 8), ha="center", fontsize=7)
    axis(ax, depths(found), "tokens of context", "decode, tokens/s")
    ax.set_ylim(0, 1.2 * ax.get_ylim()[1])  # room for the ratios above the upper line
    return bool(found)


def memory(rows: list[Row], ax: Any) -> bool:
    found = decode_rows(rows, "decode-1b-d")
    for name in names(found):
        line = sorted((r["depth"], r["state_bytes"] / 2**20, r["peak_resident_bytes"] / 2**20) for r in found if r["name"] == name)
        drawn = ax.plot([x[0] for x in line], [x[1] for x in line], marker="o", label=f"{name}: state")
        ax.plot([x[0] for x in line], [x[2] for x in line], marker=".", linestyle=":", color=drawn[0].get_color(), label=f"{name}: resident")
    axis(ax, depths(found), "tokens of context", "MiB")
    ax.set_yscale("log", base=2)
    return bool(found)


def prefill(rows: list[Row], ax: Any) -> bool:
    """Measured points filled, fitted ones hollow."""
    found = [r for r in rows if r["kind"].startswith("prefill ") and not r["depth"] and r["median"]]
    for name in names(found):
        line = sorted((r["n_prompt"], r["median"], r["fitted"]) for r in found if r["name"] == name)
        drawn = ax.plot([x[0] for x in line], [x[1] for x in line], label=name)
        for n, seconds, fitted in line:
            ax.plot([n], [seconds], marker="o", color=drawn[0].get_color(), fillstyle="none" if fitted else "full")
    axis(ax, sorted({r["n_prompt"] for r in found}), "prompt tokens", "seconds to the first token (hollow: fitted)")
    ax.set_yscale("log")
    return bool(found)


def draw(rows: list[Row], stem: Path) -> list[Path]:
    """Writes STEM-figure7.svg and so on; a plot without rows is left out."""
    plt = pyplot()
    kinds: dict[str, Callable[[list[Row], Any], bool]] = {"figure7": figure7, "memory": memory, "prefill": prefill}
    out = []
    for name, fill in kinds.items():
        fig, ax = plt.subplots(figsize=(7, 4.5))
        if fill(rows, ax):
            ax.legend(fontsize=7)
            fig.tight_layout()
            path = stem.with_name(f"{stem.name}-{name}.svg")
            fig.savefig(path, metadata={"Date": None})
            out.append(path)
        plt.close(fig)
    return out
