"""`python -m bench report`: tables and plots from rows, in files beside them; with --readmes tables in the READMEs, between their marks,
too. The same rows give the same bytes. A mark may name another file of bench/results, measured on another machine: `<!-- bench: NAME of FILE begin -->`."""

from __future__ import annotations

import re
from pathlib import Path

from sb_convert.whole import write_whole

from .. import rows
from ..checkout import RESULTS, ROOT
from ..errors import BenchError
from ..rows import Row
from . import page
from . import plots as drawing
from .tables import TABLES

READMES = ("README.md", "bench/README.md", "cpp_backend/README.md")
BEGIN = r"<!-- bench: (\w+)(?: of ([\w.-]+))? begin -->"
MARK = re.compile(rf"({BEGIN}\n)(.*?)(<!-- bench: \2 end -->)", re.S)


def made(name: str, measured: list[Row], source: Path) -> str:
    """A table; that of the machine names the file of rows, too."""
    return (f"[results/{source.name}](results/{source.name}): " if name == "machine" else "") + TABLES[name](rows.published(measured) if name != "machine" else measured)


def filled(text: str, measured: list[Row], where: str, source: Path) -> str:
    """The text with every marked table made anew. Raises BenchError for a mark that names no table or no file of rows, or is not closed."""
    for name, file in re.findall(BEGIN, text):
        if name not in TABLES:
            raise BenchError(f"bench: {where}: mark {name!r}: got no such table, expected one of {', '.join(TABLES)}; do correct it")
        if f"<!-- bench: {name} end -->" not in text:
            raise BenchError(f"bench: {where}: mark {name!r}: got no end, expected <!-- bench: {name} end -->; do add it")
        if file and not (RESULTS / file).is_file():
            raise BenchError(f"bench: {where}: mark {name!r}: got no bench/results/{file}, expected a file of rows; do correct it")

    def anew(m: re.Match[str]) -> str:
        if not m[3]:
            return m[1] + made(m[2], measured, source) + "\n" + m[5]
        its = rows.read(RESULTS / m[3])
        return m[1] + made("machine", its, RESULTS / m[3]) + "\n\n" + made(m[2], its, RESULTS / m[3]) + "\n" + m[5]
    return MARK.sub(anew, text)


def write_tables(measured: list[Row], root: Path, source: Path, check: bool) -> list[Path]:
    """READMEs that changed (with `check`: that would)."""
    changed = []
    for path in (root / name for name in READMES):
        if not path.exists():
            continue
        before = path.read_text()
        after = filled(before, measured, path.name, source)
        if after != before:
            changed.append(path)
            if not check:
                write_whole(path, after.encode())
    return changed


def main(source: Path, root: Path = ROOT, readmes: bool = False, check: bool = False, plots: bool = True) -> int:
    """Writes all tables (.md), the page of all plots (.html) and what the READMEs show of them (-figure7.svg, -events.svg) beside the rows; with `readmes` the READMEs, too.
    `check` writes nothing: 1 where a README or the tables are not those of these rows."""
    measured = rows.read(source)
    changed = write_tables(measured, root, source, check) if readmes or check else []
    tables = page.markdown(measured, source)
    if check and source.with_suffix(".md").is_file() and source.with_suffix(".md").read_text() != tables:
        changed.append(source.with_suffix(".md"))
    for path in changed:
        print(f"{path.name}: {'differs from' if check else 'tables from'} {source.name}")
    if not check:
        made_files = {".md": tables}
        if plots:
            made_files |= {".html": page.page(measured, source), **{f"-{name}.svg": drawing.draw(name, rows.published(measured)) for name in ("figure7", "events")}}
        for ending, text in made_files.items():
            path = source.with_name(source.stem + ending)
            if text:
                write_whole(path, text.encode())
                print(path)
    return 1 if check and changed else 0
