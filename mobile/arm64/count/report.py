"""Rows, and the tables that README.md holds between its marks. The same rows give the same bytes."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, Optional

from bench import rows as store
from bench.checkout import commit, pin
from bench.errors import BenchError
from bench.report.tables import number, table
from bench.rows import Row, make_row

from . import cycles as estimates
from .build import ROOT
from .cases import ISAS, LEVEL, MARCH, Case, Variant, macs

ROWS = ROOT / "bench" / "results" / "arm64-instructions.jsonl"
README = Path(__file__).with_name("README.md")
MARK = re.compile(r"(<!-- count: (\w+) begin -->\n)(.*?)(<!-- count: \2 end -->)", re.S)


def row(case: Case, variant: Variant, instructions: float, driver: Path, emulator: str) -> Row:
    """As bench/ has them; `extra`: the variant's parts and instructions per multiplication."""
    n = macs(case)
    extra: dict[str, Any] = {"isa": variant.isa, "march": MARCH[variant.build], "upstream": variant.upstream, "tokens": case.T,
                             "macs": n, "per_mac": round(instructions / n, 5) if n else None, "bits": variant.bits}
    return make_row(case=case.name, kind=case.kind, name=variant.name, machine={"cpu": f"{emulator}, -cpu {variant.cpu}", "arch": "aarch64", "cpus": 1},
                    cpu_features=[variant.isa], pin=pin(), commit=commit(), build=hashlib.sha256(driver.read_bytes()).hexdigest()[:16],
                    type=case.type, spikes=case.spikes and not variant.upstream, threads=1, n_prompt=case.T, unit="instructions",
                    values=[instructions], date=datetime.now(timezone.utc).isoformat(timespec="seconds"), extra=extra)


def with_ratios(rows: list[Row]) -> list[Row]:
    """`extra` of our rows, the factor by which fewer instructions are executed: than the generic kernels, than the best of upstream
    on a CPU with as much."""
    for r in rows:
        if not r["extra"]["upstream"]:
            theirs = upstream(rows, r["case"], LEVEL[r["extra"]["isa"]])
            r["extra"] |= {"generic_over_this": round(ours(rows, r["case"])["generic"]["median"] / r["median"], 3),
                           "upstream_over_this": round(theirs["median"] / r["median"], 3) if theirs else None}
    return rows


def upstream(rows: list[Row], case: str, level: str) -> Optional[Row]:
    """Its best kernel at a level."""
    found = [r for r in rows if r["case"] == case and r["extra"]["upstream"] and r["extra"]["march"] == MARCH[level]]
    return min(found, key=lambda r: float(r["median"]), default=None)


def cases(rows: list[Row], *kinds: str) -> list[str]:
    return list(dict.fromkeys(r["case"] for r in rows if r["kind"] in kinds))


def ours(rows: list[Row], case: str) -> dict[str, Row]:
    """By instruction set; with SVE in the compiler's target by its bits, too: "sve 128"."""
    return {f"sve {r['extra']['bits']}" if r["extra"]["bits"] else r["extra"]["isa"]: r for r in rows if r["case"] == case and not r["extra"]["upstream"]}


def products(rows: list[Row]) -> str:
    """Instructions per multiplication, ours and upstream's best, level by level; then how many times fewer ours are."""
    body = []
    for case in cases(rows, "product"):
        line, mine = [case], ours(rows, case)
        for isa in ISAS:
            theirs = upstream(rows, case, LEVEL[isa])
            line += [f"{mine[isa]['extra']['per_mac']:.3f}", f"{theirs['extra']['per_mac']:.3f}" if theirs else "-",
                     number(mine[isa]["extra"]["upstream_over_this"]) + "x"]
        body.append(line + [number(mine[isa]["extra"]["generic_over_this"]) + "x" for isa in ISAS[1:]])
    return table(["product", *(x for isa in ISAS for x in (isa, f"upstream {LEVEL[isa]}", "fewer")), "dotprod to generic", "i8mm to generic"], body)


def calls(rows: list[Row], *kinds: str) -> str:
    body, found = [], [ours(rows, case) for case in cases(rows, *kinds)]
    names = list(found[0]) if found else []
    for mine in found:
        body.append([mine["generic"]["case"], *(f"{mine[name]['median']:,.0f}" for name in names),
                     *(number(mine[isa]["extra"]["generic_over_this"]) + "x" for isa in ISAS[1:])])
    return table(["", *(f"i8mm, {name}" if name.startswith("sve") else name for name in names), "dotprod to generic", "i8mm to generic"], body)


TABLES: dict[str, Callable[[list[Row]], str]] = {
    "products": products,
    "operators": lambda rows: calls(rows, "operator"),
    "tokens": lambda rows: calls(rows, "decode", "prefill"),
    "cycles": lambda rows: estimates.shown(store.read(estimates.ROWS)),
    "machine": lambda rows: f"{rows[0]['machine']['cpu']}; {rows[0]['pin']}, commit {rows[0]['commit']}, {rows[0]['date'][:10]}; {len(rows)} rows.",
}


def filled(text: str, rows: list[Row]) -> str:
    """The text with every marked table made anew."""
    for name in re.findall(r"<!-- count: (\w+) begin -->", text):
        if name not in TABLES or f"<!-- count: {name} end -->" not in text:
            raise BenchError(f"count: {README.name}: mark {name!r}: got no such table or no end, expected one of {', '.join(TABLES)}; do correct it")
    return MARK.sub(lambda m: m[1] + TABLES[m[2]](rows) + "\n" + m[4], text)
