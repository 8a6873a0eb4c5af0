"""Tables of measure/quality.py's rows: what each conversion costs, and what a task's score is over k. From rows alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sb_convert.whole import write_whole

PAPER = {2.0: (0.730, 0.989), 2.5: (0.709, 0.976), 3.0: (0.692, 0.951), 3.5: (0.677, 0.916), 4.0: (0.664, 0.877)}  # Table 11
PAPER_TASKS = ("winogrande", "arc_easy", "arc_challenge:acc_norm", "hellaswag:acc_norm", "piqa", "mmlu", "cmmlu")
PAPER_AVERAGE = {None: 0.6998, 2.0: 0.6735, 2.5: 0.6807, 3.0: 0.6875, 3.5: 0.6898, 4.0: 0.6940}  # Tables 3 and 11, the 7B
BEGIN, END = "<!-- quality: begin -->", "<!-- quality: end -->"


def table_of_types(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Markdown of perplexity, type by type."""
    base = next(r for r in rows if r["case"] == "F32")
    yield f"Perplexity of `examples/small` on {base['tokens']:,} held-out tokens, through our runtime (`python bench/quality.py examples/small --tokens {base['tokens'] + 1}`):"
    yield ""
    yield "| weights | MB | bits per weight | perplexity | against F32 | top-1 as F32 | sparsity at 3 steps | counts <= 7 | paper's (7B) |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
    for r in rows:
        cost = 100 * (r["perplexity"] / base["perplexity"] - 1)
        paper = ", ".join(f"{x:.3f}" for x in PAPER.get(r["k"], ()))
        spikes = f"{r['sparsity']:.3f} | {r['share_to_7']:.3f} | {paper}" if r["k"] else "| |"
        yield (f"| {r['case']} | {r['bytes'] / 1e6:.2f} | {r['bits_per_weight']:.2f} | {r['perplexity']:.3f} | {'' if r is base else f'{cost:+.2f}%'} | "
               f"{r['top1_agreement']:.2%} | {spikes} |")
    yield ""
    yield (f"PyTorch in float32 on the same rows: {base['reference_perplexity']:.5f}, our runtime {base['perplexity']:.5f} "
           f"({100 * (base['perplexity'] / base['reference_perplexity'] - 1):+.4f}%).")


def write_table(rows: list[dict[str, Any]], readme: Path) -> None:
    """Between the two markers of the README."""
    text = readme.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f"{readme}: markers: got {text.count(BEGIN)} begin and {text.count(END)} end, expected one of each; add {BEGIN} and {END}")
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    write_whole(readme, (head + BEGIN + "\n" + "\n".join(table_of_types(rows)) + "\n" + END + tail).encode())


def table_of_tasks(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Markdown of scores, k by k; beside the paper's tasks its averages."""
    papers = set(rows[0]["tasks"]) == set(PAPER_TASKS)
    yield "| | " + " | ".join(rows[0]["tasks"]) + " | average | sparsity at 3 steps | counts <= 7 |" + (" paper's average (7B) |" if papers else "")
    yield "| --- |" + " ---: |" * (len(rows[0]["tasks"]) + 3 + papers)
    for r in rows:
        spikes = f"{r['sparsity']:.3f} | {r['share_to_7']:.3f}" if "sparsity" in r else " | "
        paper = f" {PAPER_AVERAGE.get(r['k'], float('nan')):.4f} |" if papers else ""
        yield f"| {r['case']} | " + " | ".join(f"{r['scores'][t]:.4f}" for t in r["tasks"]) + f" | {r['average']:.4f} | {spikes} |{paper}"
