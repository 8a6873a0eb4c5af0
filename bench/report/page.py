"""One HTML page of all plots and tables of a file of rows, with nothing from elsewhere in it."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

from .. import rows
from ..rows import Row
from . import plots, targets
from .tables import CAPTIONS, TABLES

STYLE = """body { font: 15px/1.45 sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; font-size: 12px; margin: 1em 0; display: block; overflow-x: auto }
td, th { border: 1px solid #ccc; padding: 2px 7px; text-align: right } td:first-child, th:first-child { text-align: left }
svg { max-width: 100%; height: auto }"""


def html_table(markdown: str) -> str:
    """A Markdown table, or the paragraph that stands in its place, as HTML."""
    lines = markdown.split("\n")
    if not lines[0].startswith("|"):
        return f"<p>{html.escape(markdown)}</p>"
    def cells(line: str, tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(c.strip())}</{tag}>" for c in line.strip("|").split("|")) + "</tr>"
    return "<table>" + cells(lines[0], "th") + "".join(cells(x, "td") for x in lines[2:] if x.startswith("|")) + "</table>"


def tables_of(shown: list[Row]) -> list[tuple[str, str]]:
    """(caption, Markdown) of every table that has rows."""
    found = ((caption, TABLES[name](shown)) for name, caption in CAPTIONS.items())
    return [(caption, text) for caption, text in found if text.replace("_not measured_", "").strip() not in ("", "none")]


def markdown(measured: list[Row], source: Path) -> str:
    """Every table of the rows that are shown."""
    shown = rows.published(measured)
    parts = [f"# {source.name}", f"Written by `python -m bench report`. {TABLES['machine'](measured)}"]
    if any(r["case"].startswith("targets-") for r in shown):
        parts.append(f"## Figures that are aimed at\n\n{targets.shown(shown)}")
    return "\n\n".join(parts + [f"## {caption}\n\n{text}" for caption, text in tables_of(shown)]) + "\n"


def read_quality(path: Path) -> list[dict[str, Any]]:
    """Rows of measure/quality.py, which have fields of their own."""
    return [json.loads(line) for line in path.read_text().splitlines() if line] if path.is_file() else []


def page(measured: list[Row], source: Path) -> str:
    """Raises BenchError without matplotlib."""
    shown, body = rows.published(measured), []
    for name, (caption, _) in plots.PLOTS.items():
        drawn = plots.draw(name, read_quality(source.parent / "quality.jsonl") if name == "quality" else shown)
        if drawn:
            body.append(f"<h2>{html.escape(caption)}</h2>\n{drawn[drawn.index('<svg'):]}")
    goals = targets.shown(shown, source.parent)
    for caption, text in [("Figures that are aimed at", goals), *tables_of(shown)]:
        body.append(f"<h2>{html.escape(caption)}</h2>\n" + "\n".join(html_table(t) for t in text.split("\n\n")))
    head = f"<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{html.escape(source.stem)}</title><style>{STYLE}</style></head><body>"
    return "\n".join([head, f"<h1>{html.escape(source.stem)}</h1><p>{html.escape(TABLES['machine'](measured))}</p>", *body, "</body></html>"]) + "\n"
