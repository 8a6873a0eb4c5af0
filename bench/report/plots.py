"""Plots of rows as SVG. Needs matplotlib, the `plot` extra. The same rows give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any

from ..cases import PAPER_FIGURE_7
from ..errors import BenchError
from ..rows import Row
from . import events
from .tables import best_other, bytes_per_token, decode_rows, depths, fastest, labels, names, ours, prompts, size, speed_ratio


def pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as e:
        raise BenchError("bench: plots: got no matplotlib, expected the plot extra; do pip install 'spikingbrain_cpp[plot]', "
                         "or add --no-plots") from e
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "spikingbrain_bench"  # ids that do not change from run to run
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
    from matplotlib import pyplot as plt
    return plt


def axis(ax: Any, ticks: Iterable[int], xlabel: str, ylabel: str) -> None:
    ticks = list(ticks)
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks, [size(t) for t in ticks])
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.grid(True, which="major", alpha=0.3)


def lines(ax: Any, found: list[Row], x: str) -> None:
    """The fastest of each label over a field of rows, with 95% where it is known; dotted, the speed that the bytes allow."""
    for name in labels(found):
        points = [r for v in sorted({r[x] for r in found}) if (r := fastest(found, label=name, **{x: v}))]
        drawn, = ax.plot([r[x] for r in points], [r["median"] for r in points], marker="o", markersize=4, label=name)
        for r in points:
            if r.get("interval"):
                ax.plot([r[x], r[x]], r["interval"], color=drawn.get_color(), linewidth=3, alpha=0.35)
        bounds = [(r[x], r["extra"]["bound"]) for r in points if "bound" in (r.get("extra") or {})]
        if bounds:
            ax.plot(*zip(*bounds), linestyle=":", color=drawn.get_color())


def figure7(rows: list[Row], ax: Any) -> bool:
    """Ratio of ours to the fastest of the others over depth, what the bytes allow of it, and the paper's."""
    found = decode_rows(rows, "decode-1b-d")
    for name in labels(r for r in found if ours(r)):
        pairs = [(d, mine, base) for d in depths(found) if (mine := fastest(found, depth=d, label=name)) and (base := best_other(found, d))]
        if not pairs:
            continue
        drawn, = ax.plot([d for d, _, _ in pairs], [speed_ratio(rows, mine, base) for _, mine, base in pairs], marker="o", label=name)
        ax.plot([d for d, _, _ in pairs], [bytes_per_token(base) / bytes_per_token(mine) for _, mine, base in pairs], linestyle=":", color=drawn.get_color(),
                label=f"{name}: bytes allow")
    ax.plot(*zip(*PAPER_FIGURE_7.items()), marker="x", linestyle="--", color="black", label="the paper")
    axis(ax, depths(found), "tokens of context", "decode, times the fastest of the others")
    ax.set_yscale("log", base=2)
    return bool(found)


def depth(rows: list[Row], ax: Any) -> bool:
    found = decode_rows(rows, "decode-1b-d")
    lines(ax, found, "depth")
    axis(ax, depths(found), "tokens of context", "decode, tokens/s (dotted: what the bytes allow)")
    ax.set_yscale("log", base=2)
    return bool(found)


def threads(rows: list[Row], ax: Any) -> bool:
    found = [r for r in decode_rows(rows, "roofline-") if r["name"] != "read"]
    lines(ax, found, "threads")
    axis(ax, sorted({r["threads"] for r in found}), "threads", "decode, tokens/s (dotted: what the bytes allow)")
    return bool(found)


def batch(rows: list[Row], ax: Any) -> bool:
    found = decode_rows(rows, "batch-")
    lines(ax, found, "n_seq")
    axis(ax, sorted({r["n_seq"] for r in found}), "sequences", "tokens/s of all together")
    return bool(found)


def memory(rows: list[Row], ax: Any) -> bool:
    found = decode_rows(rows, "decode-1b-d")
    for name in labels(found):
        points = [r for d in depths(found) if (r := fastest(found, depth=d, label=name))]
        drawn, = ax.plot([r["depth"] for r in points], [r["state_bytes"] / 2**20 for r in points], marker="o", label=f"{name}: state")
        ax.plot([r["depth"] for r in points], [r["peak_resident_bytes"] / 2**20 for r in points], marker=".", linestyle=":", color=drawn.get_color(),
                label=f"{name}: resident")
    axis(ax, depths(found), "tokens of context", "MiB")
    ax.set_yscale("log", base=2)
    return bool(found)


def prefill(rows: list[Row], ax: Any) -> bool:
    """Measured points filled, fitted ones hollow."""
    found = prompts(rows)
    for name in names(found):
        line = sorted((r["n_prompt"], r["median"], r["fitted"]) for r in found if r["name"] == name)
        drawn, = ax.plot([x[0] for x in line], [x[1] for x in line], label=name)
        for n, seconds, fitted in line:
            ax.plot([n], [seconds], marker="o", color=drawn.get_color(), fillstyle="none" if fitted else "full")
    axis(ax, sorted({r["n_prompt"] for r in found}), "prompt tokens", "seconds to the first token (hollow: fitted)")
    ax.set_yscale("log")
    return bool(found)


def together(rows: list[Row], ax: Any) -> bool:
    """Time of more tokens at once over that of one."""
    found = [r for r in rows if r["kind"].startswith("verify ") and r["median"]]
    for case, name in dict.fromkeys((r["case"], r["name"]) for r in found):
        line = sorted((r["n_prompt"], r["median"]) for r in found if (r["case"], r["name"]) == (case, name))
        ax.plot([n for n, _ in line], [s / line[0][1] for _, s in line], marker="o", label=f"{name}, {case.rsplit('-', 1)[1]}")
    axis(ax, sorted({r["n_prompt"] for r in found}), "tokens together", "time over that of one")
    return bool(found)


def quality(rows: list[dict[str, Any]], ax: Any) -> bool:
    """Perplexity of examples/small over the speed at which it was found; rows of measure/quality.py."""
    found = [r for r in rows if r.get("perplexity") and r.get("seconds")]
    for r in found:
        ax.plot([r["tokens"] / r["seconds"]], [r["perplexity"]], marker="o", color="tab:green" if r.get("k") else "tab:blue")
        ax.annotate(r["case"], (r["tokens"] / r["seconds"], r["perplexity"]), textcoords="offset points", xytext=(4, 3), fontsize=6)
    ax.set_xlabel("tokens/s through sb-perplexity (green: with spikes)")
    ax.set_ylabel("perplexity of examples/small")
    ax.grid(True, alpha=0.3)
    return bool(found)


Plot = Callable[[list[Row], Any], bool]
PLOTS: dict[str, tuple[str, Plot]] = {
    "figure7": ("Decode speed over that of the fastest other engine (the paper's Figure 7), with what the bytes of a token allow", figure7),
    "depth": ("Roofline over depth", depth), "threads": ("Roofline over threads", threads), "batch": ("Several sequences", batch),
    "together": ("Tokens of one sequence together", together), "prefill": ("Time to the first token", prefill), "memory": ("Memory over depth", memory),
    "events": ("Event-driven products: speed over ours by the share of silent channels", events.plot), "quality": ("Quality against speed", quality)}


def draw(name: str, rows: list[Any]) -> str:
    """One plot as SVG text; empty without rows."""
    plt = pyplot()
    fig, ax = plt.subplots(figsize=(7.5, 4.8))
    try:
        if not PLOTS[name][1](rows, ax):
            return ""
        if ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize=7)
        fig.tight_layout()
        out = io.StringIO()
        fig.savefig(out, format="svg", metadata={"Date": None})
        return out.getvalue()
    finally:
        plt.close(fig)
