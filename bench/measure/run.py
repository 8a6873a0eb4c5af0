"""`python -m bench run`: the cases of a form one after the other; finished ones are kept, so that the same command goes on."""

from __future__ import annotations

import contextlib
import fcntl
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .. import rows
from ..cases import Case
from ..errors import BenchError, Skip
from . import build, conversion, drafts, events, machine, operators, python_share, taking_back, whole_models
from .session import Bench, Models

MEASURE = {
    "decode": whole_models.decode, "prefill": whole_models.prefill, "depths": whole_models.depths, "shared": whole_models.shared, "fit": whole_models.fit,
    "validate": whole_models.validate, "load": whole_models.load,
    "operators": operators.operators, "products": operators.products, "step": operators.step, "convert": conversion.convert,
    "python": python_share.python, "verify": taking_back.verify, "rollback": taking_back.rollback, "before": taking_back.before,
    "state": taking_back.state, "drafts": drafts.drafts, "events": events.events,
}
GIB = 1 << 30


def plan(cases: list[Case], done: set[str], folder: Path) -> str:
    """What is left, for how long, on how much disk. Raises BenchError where that is not free."""
    left = [c for c in cases if c.id not in done]
    disk = int(1.05 * max((c.disk() for c in left), default=0)) + (GIB >> 2)
    free = machine.free_disk(folder)
    text = (f"{len(left)} of {len(cases)} cases to run, about {sum(c.seconds for c in left) / 60:.0f} minutes; "
            f"up to {disk / GIB:.1f} GiB of disk at once ({free / GIB:.1f} free)")
    if free < disk:
        raise BenchError(f"bench: {folder}: got {free / GIB:.1f} GiB of free disk, expected {disk / GIB:.1f}; do make room, "
                         "or choose smaller cases with --only")
    return text


def measured(bench: Bench, case: Case) -> list[rows.Row]:
    """The case's rows, with the noise before it or after it, the greater; one row with the reason where it cannot run here or fails."""
    try:
        bench.begin(case)
        found = MEASURE[case.kind](bench, case)
        bench.end()
        return [r | {"noise": bench.noise} for r in found]
    except Skip as e:
        return [bench.skipped(str(e))]
    except BenchError as e:
        return [bench.skipped(f"failed: {e}")]


def run_cases(bench: Bench, cases: list[Case], out: Path) -> int:
    """Returns how many cases failed. Each case's rows are on disk before the next begins. A case on a noisy machine is run again by
    itself, when all others are done (not where most are noisy); what stays noisy is kept and marked, and no report shows it."""
    done = rows.finished(bench.known, bench.drivers.build, out)
    left = [c for c in cases if c.id not in done]
    failed = 0
    with tqdm(total=round(sum(c.seconds for c in left)), unit="s", bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}") as bar:
        bench.warn = lambda text: bar.write(f"bench: {text}")
        again: list[Case] = []
        for i, case in enumerate(left):
            bar.set_description(f"{case.id} ({i + 1}/{len(left)})")
            failed += record(bench, case, out)
            again += [case] * bench.noisy()
            bar.update(round(case.seconds))
        if len(again) > max(3, len(left) // 2):
            bench.warn(f"{len(again)} of {len(left)} cases were noisy, too many to run them again: do make the machine quiet, and measure anew")
            again = []
        for case in again:
            bench.warn(f"{case.id}: once more, by itself")
            record(bench, case, out)
            if bench.noisy():
                bench.warn(f"{case.id}: noisy again: its rows are kept, marked, and not shown; the same command with another --out measures anew")
    return failed


def record(bench: Bench, case: Case, out: Path) -> int:
    """Measures the case in place of its rows that are there. Returns whether it failed."""
    bench.models.keep(case.players)
    new = measured(bench, case)
    rows.drop(out, case.id)
    rows.append(out, new)
    bench.known = [r for r in bench.known if r["case"] != case.id] + new
    for row in new:
        if row["skipped"]:
            bench.warn(f"{case.id}: {row['skipped']}")
    return any((row["skipped"] or "").startswith("failed") for row in new)


def sides(cases: list[Case]) -> set[str]:
    """Those that some case needs: others need not be built."""
    return {"ours", *(p.side for c in cases for p in c.players), *({"upstream"} if any(c.kind in ("products", "step") for c in cases) else ())}


def on_term(*_: Any) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Raises BenchError while another run uses the folder: each would delete the other's models and disturb its times."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise BenchError(f"bench: {folder}: got another run in progress, expected none; do wait for it") from e
        yield


def run(cases: list[Case], out: Path, small: bool = False) -> int:
    """Exit code: 0 all measured or skipped with a reason, 1 some failed, 130 interrupted."""
    signal.signal(signal.SIGTERM, on_term)
    with only_run(build.WORK):
        models = Models(build.WORK / "models")
        try:
            bench = Bench(build.drivers(sides(cases)), models, small, known=rows.read(out) if out.exists() else [])
            done = rows.finished(bench.known, bench.drivers.build, out)
            print(f"bench: {plan(cases, done, models.folder)}; rows in {out}", flush=True)
            return 1 if run_cases(bench, cases, out) else 0
        except KeyboardInterrupt:
            print(f"\nbench: interrupted; finished rows are in {out}, the same command goes on")
            return 130
        finally:
            models.keep([])
