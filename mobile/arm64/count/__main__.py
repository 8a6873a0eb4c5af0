"""`python -m mobile.arm64.count`: builds, counts, writes the rows and the tables; `cycles` only the estimates, `table` only the tables, `--check` compares them."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

from bench import rows as store
from bench.errors import BenchError
from sb_convert.whole import write_whole

from . import build, cycles, report
from .cases import MARCH, MODELS, work
from .measure import count


def measure(jobs: int) -> None:
    """Counts everything; the file of rows is replaced when all is there."""
    plugin = build.plugin()
    drivers = {level: build.driver(level, jobs) for level in MARCH}
    models = {name: build.model(name, options) for name, options in MODELS.items()}
    emulator = subprocess.run([build.tool("qemu-aarch64"), "--version"], capture_output=True, text=True).stdout.split(" (")[0].split("\n")[0]
    rows, todo = [], work()
    for i, (case, variant) in enumerate(todo):
        print(f"[{i + 1}/{len(todo)}] {case.name}: {variant.name}", flush=True)
        model = models.get(case.name.split(" ", 1)[1]) if case.kind in ("decode", "prefill") else None
        instructions = count(case, variant, drivers[variant.build], plugin, model)
        rows.append(report.row(case, variant, instructions, drivers[variant.build], emulator.replace(" version", "")))
    write_whole(report.ROWS, "".join(json.dumps(row) + "\n" for row in report.with_ratios(rows)).encode())


def estimate() -> None:
    """Of the driver that holds our kernels."""
    write_whole(cycles.ROWS, "".join(json.dumps(row) + "\n" for row in cycles.measured(build.driver_path("armv8.0"))).encode())


def tables(check: bool) -> int:
    """1 with `check` where README.md does not hold the tables of the rows."""
    before = report.README.read_text()
    after = report.filled(before, store.read(report.ROWS))
    if after == before:
        return 0
    print(f"{report.README.relative_to(build.ROOT)}: {'differs from' if check else 'tables from'} {report.ROWS.name}")
    if not check:
        write_whole(report.README, after.encode())
    return int(check)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m mobile.arm64.count", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("all", "cycles", "table"), default="all", help="all: build, count, estimate, write; cycles: estimate, with the driver that is there; table: only the tables")
    parser.add_argument("--check", action="store_true", help="with table: compare, write nothing")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="of the build")
    args = parser.parse_args()
    if args.check and args.what != "table":
        parser.error("--check: got it without `table`, expected both; do add `table`")
    try:
        if args.what == "all":
            measure(args.jobs)
        if args.what in ("all", "cycles"):
            estimate()
        return tables(args.check)
    except BenchError as e:
        print(e, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
