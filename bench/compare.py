"""`python -m bench compare OLD NEW`: which rows got slower, or larger, beyond their noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from . import rows
from .errors import BenchError
from .rows import Row

SCATTER = 3.0    # times the two spreads that count as noise
LEAST = 0.03     # never less than this share; of rows with fewer than 3 repetitions FEW
FEW = 0.10
LARGER = 0.10    # growth of resident memory that is reported; state bytes do not scatter


@dataclass(frozen=True)
class Change:
    """`ratio` > 1: NEW is better (faster, smaller); `bound`: the share that may be noise."""
    row: Row
    what: str
    ratio: float
    bound: float

    @property
    def worse(self) -> bool:
        return self.ratio < 1 - self.bound

    @property
    def better(self) -> bool:
        return self.ratio > 1 + self.bound

    def __str__(self) -> str:
        noisy = "  (noisy machine)" if (self.row["noise"] or {}).get("noisy") else ""
        return f"{self.ratio:6.3f}x  +-{self.bound:4.0%}  {self.row['case']}  {self.row['kind']}  {self.row['name']}  {self.what}{noisy}"


def noise_bound(old: Row, new: Row) -> float:
    few = min(old["repetitions"] or 1, new["repetitions"] or 1) < 3
    return max(SCATTER * (old["spread"] ** 2 + new["spread"] ** 2) ** 0.5, FEW if few else LEAST)


def changes_of(old: Row, new: Row) -> list[Change]:
    """Speed, resident memory and state of one row."""
    out = []
    if old["median"] and new["median"]:
        ratio = old["median"] / new["median"] if old["unit"] in rows.LESS_IS_BETTER else new["median"] / old["median"]
        out.append(Change(new, f"{old['median']:.4g} -> {new['median']:.4g} {new['unit']}", ratio, noise_bound(old, new)))
    for field, bound in (("peak_resident_bytes", LARGER), ("state_bytes", 0.0)):
        if old[field] and new[field]:
            out.append(Change(new, f"{field} {old[field]} -> {new[field]}", old[field] / new[field], bound))
    return out


def check_machines(old: list[Row], new: list[Row]) -> None:
    machines = [{(r["machine"]["cpu"], r["machine"]["cpus"]) for r in side} for side in (old, new)]
    if machines[0] != machines[1]:
        raise BenchError(f"bench: compare: got rows of {sorted(machines[0])} and {sorted(machines[1])}, expected one machine; do run both "
                         "on the same one")


def compare(old: list[Row], new: list[Row]) -> tuple[list[Change], list[Row], list[Row]]:
    """(changes, rows only in old, rows only in new); a row that is skipped in one of them is not in it. Fitted rows and ratios
    follow from others and are left out. Raises BenchError for rows of different machines or with nothing in common."""
    check_machines(old, new)

    def measured(side: list[Row]) -> dict[tuple[str, str, str], Row]:
        return {rows.key(r): r for r in side if not r["skipped"] and not r["fitted"] and r["unit"] != "x"}
    before, after = measured(old), measured(new)
    common = [k for k in before if k in after]
    if not common:
        raise BenchError("bench: compare: got no row that is in both files, expected some; do run the same cases")
    changes = [c for k in common for c in changes_of(before[k], after[k])]
    return changes, [r for k, r in before.items() if k not in after], [r for k, r in after.items() if k not in before]


def main(old: Path, new: Path) -> int:
    """Prints what changed beyond the noise. 1 where something got worse."""
    changes, gone, added = compare(rows.read(old), rows.read(new))
    worse = sorted((c for c in changes if c.worse), key=lambda c: c.ratio)
    better = sorted((c for c in changes if c.better), key=lambda c: -c.ratio)
    for title, found in (("worse", worse), ("better", better)):
        for change in found:
            print(f"{title:7}{change}")
    for title, found_rows in (("gone", gone), ("new", added)):
        for row in found_rows:
            print(f"{title:7}{row['case']}  {row['kind']}  {row['name']}")
    print(f"{len(changes)} figures compared: {len(worse)} worse, {len(better)} better, the rest within the noise; {len(gone)} rows gone")
    return 1 if worse else 0
