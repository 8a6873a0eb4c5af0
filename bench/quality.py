"""What each conversion of the example costs: perplexity on its held-out text, through our runtime, type by type.

    python bench/quality.py examples/small --out bench/results/quality.jsonl
    python bench/quality.py --table bench/results/quality.jsonl README.md
    python bench/quality.py model.gguf --tasks piqa,arc_challenge:acc_norm --k off,2,2.5,3 --out bench/results/tasks.jsonl

Needs the `train` extra (the text is prepared by examples/corpus.py; PyTorch is the reference), with --tasks the extra `eval`. A finished
row is kept: the same command goes on where it was stopped. Rows of other weights, text or builds are refused.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

if __name__ == "__main__":  # by its path: this folder is no place for imports, its parent is
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from bench.checkout import RESULTS, ROOT  # noqa: E402
from bench.measure import quality, tasks  # noqa: E402
from bench.report.quality import table_of_tasks, write_table  # noqa: E402


def run_tasks(p: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    from spikingbrain_cpp import Llama

    def spikes(k: float, texts: list[str]) -> dict[str, float]:
        with Llama(args.checkpoint, spike=True, spike_k=k, spike_stats=True, n_threads=args.threads, n_threads_batch=args.threads) as llm:
            return quality.spike_shares(llm, [llm.tokenize(text, special=True) for text in texts])

    if args.checkpoint is None or not args.checkpoint.is_file():
        p.error(f"checkpoint: got {args.checkpoint}, expected a GGUF file with --tasks")
    plan = tasks.Plan(args.checkpoint, tuple(args.tasks.split(",")), args.include_path, args.num_fewshot, args.limit, args.threads)
    same = {"model": args.checkpoint.name, "model_sha256": quality.sha256(args.checkpoint), **quality.machine()}
    rows = tasks.measure(plan, tasks.read_ks(args.k), args.out, same, spikes)
    print("\n".join(table_of_tasks(rows)))


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Those of this command, which is also `python -m bench quality`."""
    p.description, p.formatter_class = __doc__, argparse.RawDescriptionHelpFormatter
    p.add_argument("checkpoint", type=Path, nargs="?", help="folder of the trained checkpoint; with --tasks a GGUF file")
    p.add_argument("--data", type=Path, default=ROOT / "examples" / "work", help="where examples/corpus.py prepares the text (default: examples/work)")
    p.add_argument("--out", type=Path, help="rows (default: bench/results/quality.jsonl, with --tasks bench/results/tasks.jsonl)")
    p.add_argument("--tokens", type=int, help="held-out tokens to read (default: all)")
    p.add_argument("-t", "--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--table", nargs=2, type=Path, metavar=("JSONL", "README"), help="write the table of these rows into this README, measure nothing")
    group = p.add_argument_group("lm-evaluation-harness's tasks over k, in place of perplexity (the extra eval)")
    group.add_argument("--tasks", metavar="TASK[:METRIC],...", help="its names; METRIC: acc where none is given")
    group.add_argument("--k", default="off,2,2.5,3,3.5,4", help="thresholds mean |x| / k, off: without spikes (default: %(default)s)")
    group.add_argument("--include-path", type=Path, help="folder of further tasks (YAML)")
    group.add_argument("--num-fewshot", type=int, help="examples before each question (default: the task's)")
    group.add_argument("--limit", type=float, help="documents of each task, or a share below 1")
    p.set_defaults(run=lambda args: run(p, args))


def run(p: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    args.out = args.out or RESULTS / ("tasks.jsonl" if args.tasks else "quality.jsonl")
    if args.tasks:
        run_tasks(p, args)
    elif args.table:
        write_table([json.loads(line) for line in args.table[0].read_text().splitlines()], args.table[1])
    elif args.checkpoint is None:
        p.error("checkpoint: got none, expected a folder; give examples/small, or --table")
    else:
        quality.measure(args.checkpoint, args.data, args.out, args.threads, args.tokens)
    return 0


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser()
    add_arguments(p)
    args = p.parse_args(argv)
    args.run(args)


if __name__ == "__main__":
    main()
