"""`python -m bench compare OLD NEW`: which rows got slower, or larger, beyond chance: of all speeds together, false alarms are as
rare as FALSE_ALARMS says."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .. import rows
from ..errors import BenchError
from ..rows import Row

FALSE_ALARMS = 0.05  # the chance that any speed is reported where nothing changed, over all that are compared
LEAST = 0.03         # a change that is worth a report
LARGER = 0.10        # growth of resident memory that is reported; state bytes do not scatter


@dataclass(frozen=True)
class Change:
    """`ratio` > 1: NEW is better (faster, smaller); `chance` of such a difference where nothing changed; `least` share that counts."""
    row: Row
    what: str
    ratio: float
    chance: float
    least: float
    sure: bool = True  # that it is no chance, among all that were compared

    @property
    def worse(self) -> bool:
        return self.sure and self.ratio < 1 - self.least

    @property
    def better(self) -> bool:
        return self.sure and self.ratio > 1 + self.least

    def __str__(self) -> str:
        return f"{self.ratio:6.3f}x  p {self.chance:7.1e}  {self.row['case']}  {self.row['kind']}  {self.row['name']}  {self.what}"


def student_tail(t: float, freedom: float) -> float:
    """The chance of a value of Student's t beyond +-t: the density, integrated over the angle whose tangent is t/sqrt(freedom)."""
    angles = np.linspace(math.atan(abs(t) / math.sqrt(freedom)), math.pi / 2, 4097)
    heights = np.cos(angles) ** (freedom - 1)
    area = float(np.sum(heights[1:] + heights[:-1]) / 2 * (angles[1] - angles[0]))
    return 2 * area * math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)


def chance(old: Row, new: Row) -> float:
    """Of a difference of the means of the logarithms like this where there is none (Welch's test). 1 where either has one value only."""
    a, b = (np.log(r["values"]) for r in (old, new))
    if min(len(a), len(b)) < 2:
        return 1.0
    parts = [max(float(np.var(x, ddof=1)), 1e-12) / len(x) for x in (a, b)]
    freedom = sum(parts) ** 2 / sum(p ** 2 / (len(x) - 1) for p, x in zip(parts, (a, b)))
    return student_tail((float(np.mean(a)) - float(np.mean(b))) / math.sqrt(sum(parts)), freedom)


def judged(changes: list[Change]) -> list[Change]:
    """Speeds are sure while their chances, from the smallest on, stay below FALSE_ALARMS over those that are left (Holm)."""
    speeds = sorted((c for c in changes if c.chance > 0), key=lambda c: c.chance)
    sure = list(itertools.takewhile(lambda ic: ic[1].chance <= FALSE_ALARMS / (len(speeds) - ic[0]), enumerate(speeds)))
    return [replace(c, sure=False) if any(c is s for s in speeds[len(sure):]) else c for c in changes]


def changes_of(old: Row, new: Row) -> list[Change]:
    """Speed, resident memory and state of one row."""
    out = []
    if old["median"] and new["median"]:
        ratio = old["median"] / new["median"] if old["unit"] in rows.LESS_IS_BETTER else new["median"] / old["median"]
        out.append(Change(new, f"{old['median']:.4g} -> {new['median']:.4g} {new['unit']}", ratio, chance(old, new), LEAST))
    for field, least in (("peak_resident_bytes", LARGER), ("state_bytes", 0.0)):
        if old[field] and new[field]:
            out.append(Change(new, f"{field} {old[field]} -> {new[field]}", old[field] / new[field], 0.0, least))
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
        return {rows.key(r): r for r in rows.published(side) if not r["skipped"] and not r["fitted"] and r["unit"] != "x"}
    before, after = measured(old), measured(new)
    common = [k for k in before if k in after]
    if not common:
        raise BenchError("bench: compare: got no row that is in both files, expected some; do run the same cases")
    changes = judged([c for k in common for c in changes_of(before[k], after[k])])
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
    print(f"{len(changes)} figures compared: {len(worse)} worse, {len(better)} better, the rest within the noise; {len(gone)} rows gone; "
          f"where nothing changed, a slower or faster one is reported in {FALSE_ALARMS:.0%} of comparisons")
    return 1 if worse else 0
