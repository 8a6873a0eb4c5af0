"""Where event-driven decoding would win: from the rows of measure/events.py, beside what the example's activations are like."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Optional

from ..checkout import RESULTS
from ..rows import Row

QUALITY = RESULTS / "quality.jsonl"
SHOWN = (1.0, 1.5, 2.0, 3.0)  # k
Points = list[tuple[float, float]]


def curves(rows: Iterable[Row]) -> dict[int, Points]:
    """{channels that are skipped together: [(share of silent channels, speed over ours)]}"""
    out: dict[int, Points] = {}
    for r in rows:
        if r["kind"] == "ratio" and r["case"].startswith("events") and r["median"]:
            out.setdefault(r["extra"]["group"], []).append((r["extra"]["silent"], r["median"]))
    return {group: sorted(points) for group, points in sorted(out.items())}


def break_even(points: Sequence[tuple[float, float]]) -> Optional[float]:
    """The share from which on the event-driven product stays the faster one, linear between the points; None: it does not at the last."""
    if points[-1][1] < 1:
        return None
    below = [i for i, (_, speed) in enumerate(points) if speed < 1]
    if not below:
        return points[0][0]
    (x0, y0), (x1, y1) = points[below[-1]], points[below[-1] + 1]
    return x0 + (x1 - x0) * (1 - y0) / (y1 - y0)


def example(path: Path = QUALITY) -> dict[float, dict[str, Any]]:
    """{k: the row of examples/small in INT8 with spikes}"""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return {r["k"]: r for r in rows if r["case"].startswith("INT8 + spikes") and r["k"] in SHOWN}


def label(group: int) -> str:
    return "each channel by itself" if group == 1 else f"{group} neighbours together"


def table_lines(rows: Sequence[Row]) -> list[list[str]]:
    """Speed over ours by share, and the break-even."""
    found = curves(rows)
    if not found:
        return []
    shares = sorted({x for points in found.values() for x, _ in points})
    lines = [["skipped, if silent", *(f"{x:.0%}" for x in shares), "wins from"]]
    for group, points in found.items():
        at, win = dict(points), break_even(points)
        lines.append([label(group), *(f"{at[x]:.2f}x" if x in at else "-" for x in shares), "never" if win is None else f"{win:.0%}"])
    return lines


def plot(rows: Sequence[Row], ax: Any, quality: Optional[dict[float, dict[str, Any]]] = None) -> bool:
    """Speed over ours by the share of silent channels; the shares that the example reaches, with their perplexities."""
    found = curves(rows)
    for group, points in found.items():
        win = break_even(points)
        ax.plot(*zip(*((100 * x, y) for x, y in points)), marker="o", label=f"{label(group)}: " + ("never" if win is None else f"from {win:.0%} silent"))
    ax.axhline(1, color="black", linewidth=1)
    for k, row in sorted((example() if quality is None else quality).items()):
        x = 100 * row["silent_share"]
        ax.axvline(x, color="gray", linewidth=0.8, linestyle=":")
        ax.annotate(f"k = {k:g}: perplexity {row['perplexity']:.1f}", (x, 0.99), xycoords=("data", "axes fraction"), rotation=90, fontsize=6, ha="right", va="top")
    ax.set_yscale("log", base=2)
    ax.set_yticks([0.25, 0.5, 1, 2, 4], ["0.25x", "0.5x", "ours", "2x", "4x"])
    ax.set_xlabel("input channels without a spike, %")
    ax.set_ylabel("event-driven product, speed over ours")
    ax.grid(True, alpha=0.3)
    return bool(found)
