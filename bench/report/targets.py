"""The figures that are aimed at, as data: where each lies in the rows, and how large it must be. `make bench-targets` measures them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from .. import rows
from ..rows import Row, interval
from .tables import size, table

ARM = "arm64-instructions.jsonl"   # beside the rows of machines: counted, not timed


@dataclass(frozen=True)
class Figure:
    """One line: `least` or else `most` is the target. `low`, `high`: 95%, by bootstrap over rounds; of one round the figure alone.
    `note`: what is to be read beside it."""
    what: str
    target: float
    median: float
    low: float
    high: float
    most: bool = False
    unit: str = "x"
    note: str = ""
    noisy: bool = False

    @property
    def met(self) -> bool:
        return self.median <= self.target if self.most else self.median >= self.target

    def cells(self) -> list[str]:
        sign = "<=" if self.most else ">="
        def shown(x: float) -> str:
            return f"{x:.1%}" if self.unit == "%" else f"{x:.2f}x" if self.unit == "x" else f"{x:.3f}"
        return [self.what, f"{sign} {shown(self.target)}", shown(self.median), f"{shown(self.low)} .. {shown(self.high)}",
                ("met" if self.met else "not met") + ", noisy" * self.noisy, self.note]


Rows = list[Row]


def figure(what: str, target: float, values: list[float], **more: object) -> Figure:
    return Figure(what, target, statistics.median(values), *interval(values), **more)  # type: ignore[arg-type]


def side_rows(found: Rows, case: str, side: str, **wanted: object) -> Rows:
    """Measured rows of a side in a case; `kv`: of that type of cache."""
    kv = wanted.pop("kv", None)
    return [r for r in found if r["case"] == case and r.get("side") == side and r["values"] and r["unit"] in ("tokens/s", "s")
            and all(r[k] == v for k, v in wanted.items()) and (kv is None or (r.get("settings") or {}).get("kv", "f16") == kv)]


def speedups(found: Rows, case: str, type_: str, spikes: bool, side: str, other_type: str, **wanted: object) -> Optional[list[float]]:
    """Round by round, ours over the fastest of a side, and the byte bound where there is one."""
    ours = side_rows(found, case, "ours", type=type_, spikes=spikes, **{k: v for k, v in wanted.items() if k != "kv"})
    theirs = side_rows(found, case, side, type=other_type, **wanted)
    if not ours or not theirs:
        return None
    less = ours[0]["unit"] == "s"
    best = (min if less else max)(theirs, key=lambda r: r["median"])
    return [b / a if less else a / b for a, b in zip(ours[0]["values"], best["values"])]


def name_of(found: Rows, case: str, side: str, other_type: str, **wanted: object) -> str:
    theirs = side_rows(found, case, side, type=other_type, **wanted)
    less = bool(theirs) and theirs[0]["unit"] == "s"
    return str((min if less else max)(theirs, key=lambda r: r["median"])["name"]).split(" ", 1)[1] if theirs else ""


def avx512(found: Rows) -> bool:
    return any("avx512_vnni" in r["cpu_features"] for r in found)


def prompts(found: Rows) -> Iterator[Figure]:
    against_ik = 1.7 if avx512(found) else 1.5
    for what, spikes, upstream, ik in (("Q4_0", False, 2.0, 1.3), ("Q4_0 with spikes", True, 2.5, against_ik)):
        for side, target in (("upstream", upstream), ("ik", ik)):
            if values := speedups(found, "targets-prompt", "q4_0", spikes, side, "q4_0"):
                yield figure(f"prompt of 512, {what}, over {side}", target, values, note=name_of(found, "targets-prompt", side, "q4_0"))
    if values := speedups(found, "targets-long", "q4_0", True, "ik", "q4_0", kind="prefill 16384"):
        yield figure("prompt of 16k, Q4_0 with spikes, over ik, measured", 2.5, values, note=name_of(found, "targets-long", "ik", "q4_0"))


def decoding(found: Rows) -> Iterator[Figure]:
    cases = sorted({r["case"] for r in found if r["case"].startswith("targets-decode-t")}, key=lambda c: int(c.rsplit("t", 1)[1]))
    for case in cases:
        threads = int(case.rsplit("t", 1)[1])
        for what, type_, spikes, theirs, target in (("Q4_0", "q4_0", False, "q4_0", 1.1), ("Q4_0 with spikes", "q4_0", True, "q4_0", 1.2),
                                                    ("INT8 with spikes, head Q8_0", "int8-q8", True, "q8_0", 1.0)):
            if values := speedups(found, case, type_, spikes, "ik", theirs):
                yield figure(f"decode at 1k, {what}, over ik, threads {threads}", target if threads == 1 else 1.0, values,
                             note=name_of(found, case, "ik", theirs))
            for r in side_rows(found, case, "ours", type=type_, spikes=spikes) if threads > 1 and type_ == "q4_0" else ():
                per, read = r["extra"]["bytes_per_step"] * 1e-9, r["extra"]["read_gb_per_s"]
                fastest = [max(pages) for pages in zip(*(x["values"] for x in found if (x["case"], x["kind"]) == (case, "read")))]
                yield figure(f"decode at 1k, {what}, of the read rate, threads {threads}", 0.9, [v * per / x for v, x in zip(r["values"], fastest)], unit="%",
                             note=f"{r['extra']['gb_per_s']:.1f} of {read['4k']:.1f} (4 KiB pages), {read['huge']:.1f} GB/s (huge)")


def together(found: Rows) -> Iterator[Figure]:
    for r in found:
        if r["case"] == "targets-together" and r["kind"].startswith("ratio verify") and r["values"]:
            yield figure(f"{r['n_prompt']} tokens together over one, Q4_0 with spikes", {4: 1.5, 8: 2.2}[r["n_prompt"]], r["values"], most=True)
    pays = [r for r in found if r["case"] == "targets-drafts" and r["kind"] == "ratio" and r["values"]]
    if pays:
        best = max(pays, key=lambda r: r["median"])
        yield figure("n-gram drafts, a text where they help", 1.5, best["values"], note=best["name"].split(" / ")[0])


def deep(found: Rows) -> Iterator[Figure]:
    for r in found:
        if r["case"] == "targets-depths" and r["kind"].startswith("share ") and r["values"]:
            yield figure(f"decode at {size(r['depth'])}, {r['name'].split(' ', 1)[1]}, of what the bytes allow", 0.97, r["values"], unit="%")
    for kv, target in (("f16", 11.0), ("q8_0", 6.0)):
        for spikes in (True, False):
            if values := speedups(found, "targets-deep", "q4_0", spikes, "ik", "q4_0", kv=kv):
                ours = side_rows(found, "targets-deep", "ours", spikes=spikes)[0]
                ik = side_rows(found, "targets-deep", "ik", kv=kv)[0]
                bound = ik["extra"]["bytes_per_step"] / ours["extra"]["bytes_per_step"]
                yield figure(f"decode at 256k, Q4_0{' with spikes' * spikes}, over ik with {kv} cache", target, values, note=f"bytes allow {bound:.1f}x")


def phones(path: Path) -> Iterator[Figure]:
    """Of the last `make count-arm64`."""
    for r in rows.read(path) if path.is_file() else []:
        if r["case"] == "2048x2048 q4_0 T=32" and r["name"] == "ours i8mm":
            per = r["extra"]["per_mac"]
            yield Figure("instructions per multiplication, i8mm, 32 tokens, Q4_0", 0.065, per, per, per, most=True, unit="", note=f"counted {r['date'][:10]}")


ALL: tuple[Callable[[Rows], Iterator[Figure]], ...] = (prompts, decoding, together, deep)


def figures(found: Rows, results: Optional[Path] = None) -> list[Figure]:
    """Those that have rows, case by case; `results`: the folder that has the counts of phones, too."""
    noisy = {r["case"] for r in found} - {r["case"] for r in rows.published(found)}
    def of_case(case: str) -> Rows:
        return [r for r in found if r["case"] == case]
    out = [replace(f, noisy=case in noisy) for case in dict.fromkeys(r["case"] for r in found) for make in ALL for f in make(of_case(case))]
    return out + (list(phones(results / ARM)) if results else [])


def shown(found: Rows, results: Optional[Path] = None) -> str:
    """Also what was measured on a noisy machine, which says so: it is no figure to publish."""
    return table(["figure", "target", "measured", "95%", "", "beside it"], [f.cells() for f in figures(found, results)])
