"""The quality table: our perplexity is PyTorch's, rows are kept, the table is made from rows alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

from bench import quality as command  # noqa: E402
from bench.measure import quality  # noqa: E402
from bench.report import quality as report  # noqa: E402

SMALL = ROOT / "examples" / "small"
F32, INT8, Q4 = (next(c for c in quality.CASES if c.name == name) for name in ("F32", "INT8 + spikes, k = 3", "Q4_0, imatrix + spikes, k = 3"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Text prepared as examples/corpus.py leaves it: what the example was trained for, from this project's own pages."""
    from corpus import load_tokenizer
    folder = tmp_path_factory.mktemp("data")
    text = "\n".join(p.read_text() for p in sorted(ROOT.glob("*/README.md")))
    ids = np.array(load_tokenizer(SMALL).encode(text).ids, np.uint16)
    np.save(folder / "train.npy", np.tile(ids, 2))
    np.save(folder / "held_out.npy", ids[:2 * quality.LENGTH + 40])
    (folder / "corpus.json").write_text(json.dumps({"vocab_size": json.loads((SMALL / "config.json").read_text())["vocab_size"]}))
    return folder


@pytest.fixture(scope="module")
def rows(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("rows") / "deep" / "quality.jsonl"
    quality.measure(SMALL, data, out, 1, None, (F32, INT8, Q4))
    return out


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_float32_is_the_references_perplexity(rows):
    row = read(rows)[0]
    assert row["perplexity"] == pytest.approx(row["reference_perplexity"], rel=1e-4) and row["tokens"] == 2 * quality.LENGTH
    assert row["top1_agreement"] == 1.0 and row["bits_per_weight"] == pytest.approx(32)


def test_other_weights_cost_something_and_spikes_are_counted(rows):
    base, int8, q4 = read(rows)
    for row, bits in ((int8, (8, 13)), (q4, (4.5, 6))):
        assert row["perplexity"] != base["perplexity"] and 0.5 < row["top1_agreement"] < 1 and bits[0] < row["bits_per_weight"] < bits[1]
        assert 0.5 < row["sparsity"] < 0.9 and 0.8 < row["share_to_7"] < 1
    assert int8["bytes"] > q4["bytes"]


def test_finished_rows_are_kept(data, rows, monkeypatch):
    """A second call makes the case that is missing, and compares it with F32 run again."""
    before = rows.read_text()
    lines = before.splitlines()
    rows.write_text("\n".join(lines[:2]) + "\n")
    asked = []
    monkeypatch.setattr(quality.Files, "of", lambda self, case, of=quality.Files.of: asked.append(case.name) or of(self, case))
    quality.measure(SMALL, data, rows, 1, None, (F32, INT8, Q4))
    assert asked == [Q4.name] and rows.read_text().splitlines()[:2] == lines[:2]
    assert read(rows)[2]["perplexity"] == json.loads(lines[2])["perplexity"]
    assert read(rows)[2]["top1_agreement"] == json.loads(lines[2])["top1_agreement"]


def test_rows_of_other_text_are_refused(data, rows):
    with pytest.raises(SystemExit, match="text_sha256: got"):
        quality.measure(SMALL, data, rows, 1, quality.LENGTH + 1, (F32,))


def test_a_failing_tool_is_named(data, tmp_path):
    broken = quality.Case("broken", ("--outtype", "q3_3"))
    with pytest.raises(SystemExit, match="(?s)expected 0; it said: .*invalid choice"):
        quality.measure(SMALL, data, tmp_path / "rows.jsonl", 1, None, (broken,))


def test_table_says_what_rows_say(rows, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write_table(read(rows), readme)
    text = readme.read_text()
    base, int8, _ = read(rows)
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert f"| {int8['perplexity']:.3f} | {100 * (int8['perplexity'] / base['perplexity'] - 1):+.2f}% |" in text
    report.write_table(read(rows), readme)
    assert readme.read_text() == text


def test_a_readme_without_markers_is_refused(rows, tmp_path):
    (tmp_path / "R.md").write_text("nothing")
    with pytest.raises(SystemExit, match="markers: got 0 begin"):
        report.write_table(read(rows), tmp_path / "R.md")


# --- tasks over k ---------------------------------------------------------------------------------------------

def test_tasks_need_the_harness_a_file_and_numbers(tmp_path, monkeypatch, capsys):
    model = tmp_path / "model.gguf"
    model.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    call = [str(model), "--tasks", "piqa", "--out", str(tmp_path / "rows.jsonl")]
    with pytest.raises(SystemExit, match=r"lm_eval: got .*; do pip install \"spikingbrain-cpp\[eval\]\""):
        command.main(call)
    with pytest.raises(SystemExit, match="--k: got '2,x', expected numbers and off"):
        command.main([*call, "--k", "2,x"])
    with pytest.raises(SystemExit):
        command.main(["--tasks", "piqa"])
    assert "checkpoint: got None, expected a GGUF file with --tasks" in capsys.readouterr().err


def test_the_table_of_tasks_is_of_rows_and_has_the_papers_averages_beside_its_tasks():
    rows = [{"case": "no spikes", "k": None, "tasks": ["piqa"], "scores": {"piqa": 0.5}, "average": 0.5},
            {"case": "k = 2", "k": 2.0, "tasks": ["piqa"], "scores": {"piqa": 0.25}, "average": 0.25, "sparsity": 0.7312, "share_to_7": 0.98}]
    assert list(report.table_of_tasks(rows))[2:] == ["| no spikes | 0.5000 | 0.5000 |  |  |", "| k = 2 | 0.2500 | 0.2500 | 0.731 | 0.980 |"]
    papers = list(report.PAPER_TASKS)
    rows = [{**rows[1], "tasks": papers, "scores": dict.fromkeys(papers, 0.25)}]
    assert list(report.table_of_tasks(rows))[2].endswith("| 0.2500 | 0.731 | 0.980 | 0.6735 |")
