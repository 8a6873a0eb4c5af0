"""python -m bench: run, cases, shapes, build, report, compare, targets, quality, reread."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sb_convert.command import nobody_reads

from . import cases, quality, rows
from .checkout import RESULTS
from .errors import BenchError
from .measure import build, machine, reread, run
from .report import compare, files, targets
from .shapes import SHAPES, TYPES, check, is_int8, model_bytes, state_bytes_per_token, weight_bytes_per_token
from .sides import SIDES


def results_file(form: str) -> Path:
    return RESULTS / f"{machine.slug()}-{form}.jsonl"


def cmd_run(args: argparse.Namespace) -> int:
    form = "full" if args.full else "quick"
    chosen = cases.select(form, args.only, args.threads, args.tiny)
    if args.tiny and args.out is None:
        raise BenchError("bench: --tiny: got no --out, expected one; do name a file outside bench/results: these rows are no figures")
    out = args.out or results_file("targets" if all(c.id.startswith("targets-") for c in chosen) else form)
    if args.anew:
        out.unlink(missing_ok=True)
    rc = run.run(chosen, out, args.tiny)
    if any(c.id.startswith("targets-") for c in chosen) and out.exists():
        print(targets.shown(rows.read(out), RESULTS))
    return rc


def cmd_targets(args: argparse.Namespace) -> int:
    print(targets.shown(rows.read(args.rows), RESULTS))
    return 0


def cmd_cases(args: argparse.Namespace) -> int:
    cases.check_threads(args.threads)
    for c in cases.all_cases(args.threads):
        print(f"{'quick ' if c.quick else '      '} {c.id:24} {c.kind:10} ~{c.seconds:4.0f} s {c.disk() / 2**30:5.1f} GiB  " + ", ".join(p.name for p in c.players))
    return 0


def cmd_shapes(args: argparse.Namespace) -> int:
    print("shape                  type   file       read per token, of it context at 4096 and 262144")
    for shape in SHAPES.values():
        for type_ in TYPES:
            try:
                check(shape, type_, False)
            except BenchError:
                continue
            at = [state_bytes_per_token(shape, d, is_int8(type_)) for d in (4096, 262144)]
            print(f"{shape.name:22} {type_:6} {model_bytes(shape, type_) / 2**20:6.0f} MiB {weight_bytes_per_token(shape, type_) / 2**20:7.0f} MiB"
                  f" + {at[0] / 2**20:6.1f}, {at[1] / 2**20:7.1f} MiB")
    return 0


def cmd_build(args: argparse.Namespace) -> int:
    for name in args.sides:
        if name not in SIDES:
            raise BenchError(f"bench: build: got {name!r}, expected some of {', '.join(SIDES)}; do name a side of bench/sides.py")
    for path in build.drivers(args.sides or SIDES, args.jobs).paths.values():
        print(path)
    return 0


def default_rows() -> Path:
    """This machine's rows: of the full form where it ran."""
    for form in ("full", "quick"):
        if results_file(form).exists():
            return results_file(form)
    raise BenchError(f"bench: {RESULTS}: got no rows of this machine, expected {results_file('full').name}; do run `make bench`, or name a file")


def cmd_report(args: argparse.Namespace) -> int:
    return files.main(args.rows or default_rows(), readmes=args.readmes, check=args.check, plots=not args.no_plots)


def cmd_compare(args: argparse.Namespace) -> int:
    return compare.main(args.old, args.new)


def cmd_reread(args: argparse.Namespace) -> int:
    if not args.model.is_file():
        raise BenchError(f"bench: reread: got no file {args.model}, expected a GGUF file; do name one")
    if args.tokens < 1:
        raise BenchError(f"bench: reread: got {args.tokens} tokens, expected at least 1; do ask for more")
    reread.main(args.model.resolve(), args.tokens)
    return 0


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m bench", description="SpikingBrain beside unpatched llama.cpp: see bench/README.md")
    sub = p.add_subparsers(required=True)
    n = machine.cores()

    r = sub.add_parser("run", help="measure; the same command goes on after an interruption")
    r.add_argument("--full", action="store_true", help="all cases (default: the quick form)")
    r.add_argument("--only", nargs="+", default=[], metavar="CASE", help="cases whose names begin so")
    r.add_argument("--threads", type=int, default=n, help="threads (default: one per core, %(default)s)")
    r.add_argument("--out", type=Path, help="file of rows (default: bench/results/MACHINE-FORM.jsonl)")
    r.add_argument("--anew", action="store_true", help="remove the file of rows first, where a run of another build or an interrupted one left it")
    r.add_argument("--tiny", action="store_true", help="tiny models: tries the suite out, gives no figures")
    r.set_defaults(run=cmd_run)

    c = sub.add_parser("cases", help="list the cases")
    c.add_argument("--threads", type=int, default=n)
    c.set_defaults(run=cmd_cases)
    sub.add_parser("shapes", help="list the models and what a token reads of them").set_defaults(run=cmd_shapes)
    b = sub.add_parser("build", help="build the drivers and the engines beside ours")
    b.add_argument("sides", nargs="*", metavar="SIDE", help="%s (default: all)" % ", ".join(SIDES))
    b.add_argument("--jobs", type=int, default=None, help="compilers at once (default: all CPUs)")
    b.set_defaults(run=cmd_build)

    t = sub.add_parser("report", help="all tables and plots of rows, in files beside them")
    t.add_argument("rows", type=Path, nargs="?", help="default: this machine's, of the full form where it ran")
    t.add_argument("--readmes", action="store_true", help="also write the tables between the marks of the READMEs")
    t.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a README differs")
    t.add_argument("--no-plots", action="store_true", help="tables only")
    t.set_defaults(run=cmd_report)
    g = sub.add_parser("targets", help="the figures that are aimed at, from rows: target, measured, interval, met or not")
    g.add_argument("rows", type=Path, help="that `run --only targets` wrote")
    g.set_defaults(run=cmd_targets)
    k = sub.add_parser("compare", help="which rows got slower beyond the noise; exit code 1 where any did")
    k.add_argument("old", type=Path)
    k.add_argument("new", type=Path)
    k.set_defaults(run=cmd_compare)
    quality.add_arguments(sub.add_parser("quality", help="perplexity of each type, or tasks over k: bench/quality.py"))
    m = sub.add_parser("reread", help="what a token reads of experts that stay in the file, where none is in memory")
    m.add_argument("model", type=Path)
    m.add_argument("tokens", type=int, metavar="N", help="tokens to generate")
    m.set_defaults(run=cmd_reread)
    return p


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 well; 1 a case failed, a row got worse, a README differs; 2 it could not be done; 130 interrupted; 141 nobody reads the output."""
    args = parser().parse_args(argv)
    try:
        code = int(args.run(args))
        sys.stdout.flush()
        return code
    except BenchError as e:
        print(e, file=sys.stderr)
        return 2
    except BrokenPipeError:  # a driver's is an error of its own
        return nobody_reads()
    except KeyboardInterrupt:
        return 130
