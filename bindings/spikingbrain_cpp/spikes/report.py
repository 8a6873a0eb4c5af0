"""One self-contained HTML page, and the table for a terminal, of a model's spike statistics."""

from __future__ import annotations

import base64
import html
from typing import Callable, Optional, Sequence

import numpy as np
import numpy.typing as npt

from .energy import ASSUMPTIONS, FP16_MAC, INT8_MAC
from .stats import PAPER_TABLE_11, PAPER_TEXT, CountHistogram, ExpertChoices, SpikeStats

COLUMNS = ("|s| <= 7", "|s| > 16", "silent", "largest", "spikes", "sparsity", "sparsity, |s| <= 7")

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1f2933}
table{border-collapse:collapse;margin:.6rem 0 1.2rem}td,th{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #e4e7eb}
th:first-child,td:first-child{text-align:left}thead th{border-bottom:2px solid #9aa5b1}img{max-width:100%}
tr.paper td{color:#7b8794}.box{border:1px solid #9aa5b1;border-radius:6px;padding:.4rem 1rem;margin:1rem 0;background:#f5f7fa}
.note{color:#52606d;font-size:.9em}h2{margin-top:2rem}"""


def row(h: CountHistogram) -> tuple[str, ...]:
    """The columns of one histogram."""
    if not h.n:
        return ("-",) * len(COLUMNS)
    return (f"{h.share_to_7:.2%}", f"{h.share_above_16:.2%}", f"{h.silent_share:.2%}", f"{h.largest:,}", f"{h.mean_spikes:.3f}",
            f"{h.sparsity:.2%}", f"{h.sparsity_to_7:.2%}")


def paper_row() -> tuple[str, ...]:
    """The 7B at k = 3, as the paper's text has it."""
    p = PAPER_TEXT
    return (f"{p['share_to_7']:.1%}", f"about {p['share_above_16']:.0%}", f"{p['silent_share']:.1%}", "", f"{p['mean_spikes']:.2f}",
            f"{p['sparsity']:.2%}", "")


def text(stats: SpikeStats) -> str:
    """The statistics as tables for a terminal."""
    rows: list[tuple[str, ...]] = [("", *COLUMNS), ("model", *row(stats.model())), ("paper, 7B, k = 3", *paper_row()), ()]
    rows += [(p, *row(h)) for p, h in stats.by_projection().items()]
    rows += [(), *((f"layer {il}", *row(h)) for il, h in stats.by_layer().items())]
    lines = _aligned(rows)
    model = stats.model()
    lines += ["", "spikes: per channel, bitwise coding. sparsity: 1 - spikes / (3 x channels), counts above 7 with all their spikes; "
              "sparsity, |s| <= 7: without them."]
    if stats.n_refused:
        lines.append(refused(stats))
    if model.n:
        lines += ["", f"energy: {model.energy()}", *(f"  - {a}" for a in ASSUMPTIONS)]
    for title, head, table in expert_tables(stats):
        lines += ["", f"{title}:", *_aligned([("", *head), *((f"layer {name}", *cells) for name, cells in table)])]
    return "\n".join(lines)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines of a table; an empty row is an empty line."""
    widths = [max(len(cell) for cell in column) for column in zip(*(r for r in rows if r))]
    return ["  ".join(c.ljust(w) if not i else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths))).rstrip() for r in rows]


def expert_tables(stats: SpikeStats) -> list[tuple[str, tuple[str, ...], list[tuple[str, tuple[str, ...]]]]]:
    """(title, columns, [(layer, cells)]), a column for each expert: of the choices, and of the silent counts where the down projection spikes."""
    def rows(values: Callable[[ExpertChoices], npt.NDArray[np.float64]]) -> list[tuple[str, tuple[str, ...]]]:
        return [(str(e.layer), tuple("-" if np.isnan(v) else f"{v:.1%}" for v in values(e))) for e in stats.experts]
    head = tuple(f"expert {i}" for i in range(max((e.n.size for e in stats.experts), default=0)))
    tables = [("share of the tokens that chose an expert", head, rows(ExpertChoices.shares))] if stats.experts else []
    if any(e.channels.any() for e in stats.experts):
        tables.append(("silent share of what a chosen expert's ffn_down is fed", head, rows(ExpertChoices.silent_shares)))
    return tables


def refused(stats: SpikeStats) -> str:
    """A sentence on rows that could not be encoded."""
    return f"{stats.n_refused:,} rows held values that are no numbers or counts beyond int32; they are left out"


def page(stats: SpikeStats, name: str, pictures: Sequence[tuple[str, bytes]], text_name: Optional[str] = None) -> str:
    """HTML; pictures: (caption, PNG)."""
    model = stats.model()
    of = f" of {text_name}" if text_name else ""
    parts = [f"<h1>Spikes of {_e(name)}</h1>",
             f"<p>{stats.n_tokens:,} tokens{_e(of)}, k = {stats.k:g}, scope {_e(stats.scope)}, {len(stats.layers)} layers. Counts of all inputs of "
             "all spiking projections; an input that several projections read counts once for each, as in the paper.</p>",
             _table("", COLUMNS, [("this model", row(model), ""), ("paper, 7B, k = 3 (section 5.5)", paper_row(), "paper")]),
             '<p class="note">spikes: per channel under bitwise coding (set bits of |s|). sparsity: 1 - spikes / (3 x channels), counts above 7 with '
             "all their spikes, the least sparse it can be; sparsity, |s| &lt;= 7: over the channels that fit in 3 steps alone. The paper does not say "
             "how counts above 7 enter.</p>"]
    if stats.n_refused:
        parts.append(f"<p><b>{_e(refused(stats))}</b></p>")
    parts += [f'<h2>{_e(caption)}</h2><img alt="{_e(caption)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">' for caption, png in pictures]
    parts += ["<h2>Energy estimate (Eq. 24)</h2>", _energy(model), "<h2>Beside the paper's Table 11</h2>", _table_11(stats),
              "<h2>By projection</h2>", _table("projection", COLUMNS, [(p, row(h), "") for p, h in stats.by_projection().items()]),
              "<h2>By layer</h2>", _table("layer", COLUMNS, [(str(il), row(h), "") for il, h in stats.by_layer().items()])]
    for title, head, table in expert_tables(stats):
        parts += [f"<h2>{_e(title[0].upper() + title[1:])}</h2>", _table("layer", head, [(name, cells, "") for name, cells in table])]
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Spikes of {_e(name)}</title><style>{STYLE}</style></head><body>'
            + "\n".join(parts) + "</body></html>\n")


def _table_11(stats: SpikeStats) -> str:
    h = stats.model()
    rows = [(f"paper, k = {k:g}", (f"{a:.4f}", f"{s:.3f}", "", f"{c:.3f}"), "paper") for k, (a, s, c) in PAPER_TABLE_11.items()]
    here = ("", f"{h.sparsity:.3f}", f"{h.sparsity_to_7:.3f}", f"{h.share_to_7:.3f}") if h.n else ("", "-", "-", "-")
    at = sum(k <= stats.k for k in PAPER_TABLE_11)
    rows.insert(at, (f"this model, k = {stats.k:g}", here, ""))
    return _table("", ("average of 7 benchmarks", "sparsity", "sparsity, |s| <= 7", "counts <= 7"), rows)


def _energy(h: CountHistogram) -> str:
    if not h.n:
        return "<p>nothing was counted</p>"
    e = h.energy()
    rows = [("FP16 multiply-accumulate", (f"{FP16_MAC:.3f}", ""), ""), ("INT8 multiply-accumulate", (f"{INT8_MAC:.3f}", ""), ""),
            (f"{e.mean_spikes:.3f} spikes, this model", (f"{e.spikes_pj:.4f}", f"{-e.below_fp16:+.1%} against FP16, {-e.below_int8:+.1%} against INT8"), ""),
            (f"{PAPER_TEXT['mean_spikes']} spikes, paper", ("0.034", "-97.7% against FP16, -85.2% against INT8"), "paper")]
    listed = "".join(f"<li>{_e(a)}</li>" for a in ASSUMPTIONS)
    return f'<div class="box">{_table("per channel and weight", ("pJ", ""), rows)}<p>Assumptions:</p><ul>{listed}</ul></div>'


def _table(corner: str, head: Sequence[str], rows: Sequence[tuple[str, Sequence[str], str]]) -> str:
    cells = "".join(f"<th>{_e(c)}</th>" for c in (corner, *head))
    body = "".join(f'<tr class="{kind}">' + "".join(f"<td>{_e(c)}</td>" for c in (name, *row)) + "</tr>" for name, row, kind in rows)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


def _e(value: str) -> str:
    return html.escape(value)
