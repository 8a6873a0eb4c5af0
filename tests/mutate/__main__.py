"""`make mutate`: does the suite notice small wrong changes to the two Python packages? See tests/README.md."""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from measured import Measured, measure
from operators import Mutant, mutants
from sandbox import HERE, ROOT, Sandbox
from uses import Uses

OUT = ROOT / "build" / "mutate"
NOT_SAMPLED = {"spikingbrain_cpp/spikes/plots.py": "where things lie in a picture", "spikingbrain_cpp/demo.py": "what a demonstration shows"}
ROUNDS = ((40, 20.0), (300, 80.0))  # (tests, their seconds and those of their fixtures) at most: the quickest first, then what is left
CONTROL, CONTROL_EVERY = "nothing changed", 20  # is a failing test the change's doing, or the machine's?


@dataclass(frozen=True)
class Outcome:
    """noticed: by a failing test, or because the run had no end."""

    file: str
    line: int
    operator: str
    old: str
    new: str
    noticed: bool
    tests: int
    how: str


def sample(sandbox: Sandbox, n: int, seed: int, only: str) -> list[Mutant]:
    every: list[Mutant] = []
    for path in sandbox.modules():
        name = str(path.relative_to(sandbox.packages))
        if name not in NOT_SAMPLED and only in name:
            every += mutants(name, path.read_text())
    print(f"mutate: {len(every)} changes possible, {min(n, len(every))} sampled with seed {seed}", flush=True)
    return random.Random(seed).sample(every, min(n, len(every)))


def survivors(sandbox: Sandbox, results: Path) -> list[Mutant]:
    """Those that a former run's results.jsonl says no test noticed, as far as the modules still have their lines."""
    rows = [row for row in map(json.loads, results.read_text().splitlines()) if not row["noticed"] and row["operator"] != CONTROL]
    left, found = {(row["file"], row["operator"], row["old"], row["new"]) for row in rows}, []
    for file in sorted({row["file"] for row in rows}):
        text = (sandbox.packages / file).read_text()
        lines, old = [line.strip() for line in text.splitlines()], {(row["operator"], row["old"]) for row in rows if row["file"] == file}
        near = (m for m in mutants(file, text) if any((m.operator, line) in old for line in lines[m.line - 1:m.line + 9]))  # writing all out takes minutes
        found += [m for m in near if (file, m.operator, *m.lines()) in left]
    return found


def choose(tests: Sequence[str], measured: Measured, most: int, budget: float) -> list[str]:
    """The first ones within the bounds, those of one file together so that its fixtures are made once."""
    taken: list[str] = []
    for test in tests[:most]:
        if taken and cost([*taken, test], measured) > budget:
            break
        taken.append(test)
    order = {file: i for i, file in reversed(list(enumerate(t.split("::")[0] for t in taken)))}
    return sorted(taken, key=lambda t: order[t.split("::")[0]])


def cost(tests: Sequence[str], measured: Measured) -> float:
    """Seconds, as measured, of these tests and their files' fixtures."""
    return sum(measured.seconds[t] for t in tests) + sum(measured.setups.get(f, 0.0) for f in {t.split("::")[0] for t in tests})


def _limit(chosen: Sequence[str], measured: Measured) -> float:
    """Seconds of CPU time after which a run has no end."""
    return 60 + 6 * cost(chosen, measured)


def judge(mutant: Mutant, sandbox: Sandbox, measured: Measured, uses: Uses, control: bool = False) -> Outcome:
    """control: the same tests on the unchanged copy, which they must pass."""
    old, new = mutant.lines()
    base = (mutant.file, mutant.line, mutant.operator, old, new)
    reached = measured.of(mutant.file, mutant.span, mutant.imported, uses.lines(mutant.file, mutant.names), uses.tests(mutant.names))
    if not reached:
        return Outcome(*base, False, 0, "no test runs the line")
    if control:
        chosen = choose(reached, measured, *ROUNDS[0])
        status = sandbox.pytest(["-x", *chosen], _limit(chosen, measured))
        return Outcome(mutant.file, mutant.line, CONTROL, old, old, status != 0, len(chosen), "control")
    path = sandbox.packages / mutant.file
    before = path.read_text()
    sandbox.write(path, mutant.code())
    n_run = 0
    try:
        for most, budget in ROUNDS:
            chosen = choose(reached, measured, most, budget)
            if not chosen:
                break
            n_run += len(chosen)
            begun = time.monotonic()
            status = sandbox.pytest(["-x", *chosen], _limit(chosen, measured))
            if status and time.monotonic() - begun > 30 + 2 * cost(chosen, measured):  # a slow machine fails tests of time
                sandbox.write(path, before)
                if sandbox.pytest(["-x", *chosen], _limit(chosen, measured)):
                    return Outcome(*base, False, n_run, "unchanged code fails, too")
            if status != 0:
                return Outcome(*base, True, n_run, "no end" if status is None else "failed")
            reached = [t for t in reached if t not in set(chosen)]
    finally:
        sandbox.write(path, before)
    return Outcome(*base, False, n_run, "survived")


def run(found: Sequence[Mutant], sandboxes: Sequence[Sandbox], measured: Measured) -> Iterator[Outcome]:
    tests = {f"tests/{p.name}": p.read_text() for p in (ROOT / "tests").glob("test_*.py")}
    uses = Uses({str(p.relative_to(sandboxes[0].packages)): p.read_text() for p in sandboxes[0].modules()}, tests)
    free, lock = list(sandboxes), threading.Lock()

    def one(job: tuple[Mutant, bool]) -> Outcome:
        with lock:
            sandbox = free.pop()
        try:
            return judge(job[0], sandbox, measured, uses, job[1])
        finally:
            with lock:
                free.append(sandbox)
    with ThreadPoolExecutor(len(sandboxes)) as pool:
        jobs = [(mutant, control) for i, mutant in enumerate(found) for control in ((True, False) if i % CONTROL_EVERY == 0 else (False,))]
        yield from pool.map(one, jobs)


def equivalents() -> set[tuple[str, str, str]]:
    """(file, line before, line after) of the changes that change nothing, listed by hand with their reasons."""
    rows = (line.split("\t") for line in (HERE / "equivalent.txt").read_text().splitlines() if line and not line.startswith("#"))
    return {(file, old, new) for file, old, new, _ in rows}


def interval(k: int, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of k out of n."""
    if n == 0:
        return 0.0, 1.0
    z, p = 1.96, k / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def report(outcomes: Sequence[Outcome]) -> str:
    controls, outcomes = [o for o in outcomes if o.operator == CONTROL], [o for o in outcomes if o.operator != CONTROL]
    known = equivalents()
    same = [o for o in outcomes if not o.noticed and (o.file, o.old, o.new) in known]
    counted = [o for o in outcomes if o not in same]
    k, n = sum(o.noticed for o in counted), len(counted)
    low, high = interval(k, n)
    lines = [f"{k} of {n} changes noticed: {k / max(n, 1):.1%} (95% interval {low:.1%} to {high:.1%}); {len(same)} more change nothing",
             f"control: the tests of {len(controls)} of them on unchanged code: {sum(o.noticed for o in controls)} runs failed", "",
             "| module | sampled | noticed | survived |", "| --- | --- | --- | --- |"]
    for file in sorted({o.file for o in counted}):
        here = [o for o in counted if o.file == file]
        lines.append(f"| {file} | {len(here)} | {sum(o.noticed for o in here)} | {sum(not o.noticed for o in here)} |")
    lines += ["", "Survivors:"]
    lines += [f"- {o.file}:{o.line} {o.operator} ({o.how}, {o.tests} tests)\n    - {o.old}\n    + {o.new}" for o in counted if not o.noticed]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutate", description=__doc__)
    parser.add_argument("-n", type=int, default=200, help="changes to try (default: 200)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", metavar="TEXT", help="modules whose path holds this")
    parser.add_argument("--again", type=Path, metavar="FILE", help="only what survived according to a former run's results.jsonl (a copy: this run writes its own)")
    parser.add_argument("--keep-coverage", action="store_true", help="run changed test files alone under coverage, though modules changed, too")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    OUT.mkdir(parents=True, exist_ok=True)
    cpus = sorted(os.sched_getaffinity(0))
    sandboxes = [Sandbox(cpus[i % len(cpus)]) for i in range(args.workers)]
    try:
        found = survivors(sandboxes[0], args.again) if args.again else sample(sandboxes[0], args.n, args.seed, args.only)
        with Sandbox() as whole:
            measured = measure(whole, OUT, args.workers, args.keep_coverage)
        outcomes, begun = [], time.monotonic()
        with open(OUT / "results.jsonl", "w") as results:
            for outcome in run(found, sandboxes, measured):
                outcomes.append(outcome)
                results.write(json.dumps(asdict(outcome)) + "\n")
                results.flush()
                print(f"{sum(o.operator != CONTROL for o in outcomes)}/{len(found)} {time.monotonic() - begun:.0f} s, {sum(o.noticed and o.operator != CONTROL for o in outcomes)} noticed: "
                      f"{outcome.file}:{outcome.line} {outcome.operator}: {'noticed' if outcome.noticed else outcome.how}", flush=True)
    finally:
        for sandbox in sandboxes:
            sandbox.__exit__()
    text = report(outcomes)
    (OUT / "report.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
