"""Rows of the benchmark suite: every field, finished cases kept, regressions beyond the noise found, reports without surprise."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT

from bench import rows
from bench.cases import all_cases, select
from bench.errors import BenchError
from bench.measure import machine, whole_models
from bench.report import compare, files, page, tables, targets


def row(case: str = "c", name: str = "a", values: list[float] | None = None, **fields: Any) -> rows.Row:
    common = {"case": case, "kind": "decode", "name": name, "machine": {"cpu": "x", "cpus": 2, "memory_bytes": 1 << 30}, "cpu_features": ["avx2"],
              "pin": "p==1", "commit": "abc", "build": "b", "unit": "tokens/s", "values": values or [10.0, 11.0, 12.0], "depth": 1024,
              "noise": {"noisy": False}, "model": "SpikingBrain-1B", "type": "q4_0", "spikes": False, "n_seq": 1, "threads": 2,
              "state_bytes": 100, "peak_resident_bytes": 1000, "date": "2026-01-02T03:04:05+00:00"}
    return rows.make_row(**common | fields)


def test_a_row_has_every_field_and_its_statistics() -> None:
    r = row(values=[8.0, 10.0, 12.0])
    assert set(rows.FIELDS) <= set(r) and (r["median"], r["repetitions"], r["spread"]) == (10.0, 3, 0.2)
    assert rows.make_row(case="c", skipped="why")["median"] is None
    with pytest.raises(BenchError, match="nonsense"):
        row(nonsense=1)


@pytest.mark.parametrize("values, expected", [([5.0], 0.0), ([9.0, 11.0], 0.1), ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 0.5)])
def test_spread_is_relative_to_the_median(values: list[float], expected: float) -> None:
    assert rows.spread(values) == pytest.approx(expected)


def test_ratios_are_taken_pair_by_pair_and_mean_faster() -> None:
    a, b = row(values=[10.0, 20.0]), row(name="b", values=[5.0, 5.0])
    assert rows.ratio_row(a, b)["values"] == [2.0, 4.0]
    seconds = [r | {"unit": "s"} for r in (a, b)]
    assert rows.ratio_row(*seconds)["values"] == [0.5, 0.25]


def test_rows_survive_a_line_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    rows.append(path, [row("c1"), row("c2")])
    with path.open("a") as f:
        f.write('{"case": "c3", "ki')
    assert [r["case"] for r in rows.read(path)] == ["c1", "c2"]
    rows.append(path, [row("c4")])
    assert [r["case"] for r in rows.read(path)] == ["c1", "c2", "c4"]


@pytest.mark.parametrize("text, message", [("nothing\n{}\n", "line 1"), ('{"case": "c"}\n', "got no kind"), ("[1]\n{}\n", "line 1"), ("\xff\n", "line 1")])
def test_a_file_that_holds_no_rows_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(text)
    with pytest.raises(BenchError, match=message):
        rows.read(path)
    with pytest.raises(BenchError, match="absent"):
        rows.read(tmp_path / "absent")


def test_finished_cases_are_those_measured_by_this_build(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    rows.append(path, [row("c1"), rows.make_row(case="c2", kind="decode", name="all", build="b", skipped="no memory")])
    assert rows.finished(rows.read(path), "b", path) == {"c1"}
    with pytest.raises(BenchError, match="build b"):
        rows.finished(rows.read(path), "other", path)
    rows.drop(path, "c1")
    assert [r["case"] for r in rows.read(path)] == ["c2"]


def test_compare_finds_what_got_worse_beyond_the_noise() -> None:
    old = [row("steady"), row("slow"), row("fast"), row("load", unit="s"), row("gone"), row("ratio", unit="x"), row("fit", fitted=True)]
    new = [row("steady", values=[10.5, 11.2, 12.4]), row("slow", values=[5.0, 5.1, 5.2]), row("fast", values=[40.0, 41.0, 42.0]),
           row("load", unit="s", values=[30.0, 31.0, 32.0]), row("ratio", unit="x", values=[0.1, 0.1]), row("fit", fitted=True, values=[0.1])]
    changes, gone, added = compare.compare(old, new)
    assert {c.row["case"] for c in changes if c.worse} == {"slow", "load"}
    assert {c.row["case"] for c in changes if c.better} == {"fast"}
    assert [r["case"] for r in gone] == ["gone"] and added == []


def test_compare_bounds_follow_the_spread() -> None:
    noisy, calm = [5.0, 10.0, 15.0], [10.0, 10.01, 10.02]
    for values, worse in ((noisy, False), (calm, True)):
        (speed, *_), _, _ = compare.compare([row(values=values)], [row(values=[x * 0.8 for x in values])])
        assert speed.worse is worse


def test_compare_knows_students_tail() -> None:
    for t, freedom, p in ((12.706, 1, 0.05), (2.776, 4, 0.05), (3.169, 10, 0.01), (0.0, 3, 1.0)):  # of printed tables
        assert compare.student_tail(t, freedom) == pytest.approx(p, rel=1e-3)


def test_compare_raises_as_few_false_alarms_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    monkeypatch.setattr(compare, "LEAST", 0.0)  # without it, chance alone decides
    draw, alarms = np.random.default_rng(5), 0
    for _ in range(60):
        sides = [[row(str(i), values=list(draw.normal(50, 2, 4)), state_bytes=None, peak_resident_bytes=None) for i in range(4)] for _ in range(2)]
        alarms += any(c.worse or c.better for c in compare.compare(*sides)[0])
    assert alarms / 60 <= compare.FALSE_ALARMS + 0.06  # two deviations of 60 draws


def test_rows_of_a_noisy_machine_are_not_shown_nor_compared(tmp_path: Path) -> None:
    noisy = [r | {"noise": {"noisy": True}} for r in measured()]
    assert files.made("figure7", noisy, tmp_path / "r.jsonl") == "_not measured_"
    with pytest.raises(BenchError, match="no row"):
        compare.compare(noisy, noisy)
    found = [r | {"noise": {"noisy": True}} for r in (target_row("targets-prompt", "ours", [1.0], kind="prefill 512", unit="s"),
                                                       target_row("targets-prompt", "ik", [2.0], kind="prefill 512", unit="s"))]
    assert "| met, noisy |" in targets.shown(found, tmp_path)


def test_compare_reports_state_and_memory_that_grew() -> None:
    changes, _, _ = compare.compare([row()], [row(state_bytes=101, peak_resident_bytes=1050)])
    assert [c.what.split()[0] for c in changes if c.worse] == ["state_bytes"]


def test_compare_refuses_other_machines_and_nothing_in_common(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="one machine"):
        compare.compare([row()], [row(machine={"cpu": "y", "cpus": 2})])
    with pytest.raises(BenchError, match="no row"):
        compare.compare([row("a")], [row("b")])


def test_compare_exits_1_where_something_got_worse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bench.cli import main

    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    rows.append(old, [row()])
    rows.append(new, [row(values=[1.0, 1.1, 1.2])])
    assert (main(["compare", str(old), str(old)]), main(["compare", str(old), str(new)])) == (0, 1)
    assert "1 worse" in capsys.readouterr().out
    assert main(["compare", str(old), str(tmp_path / "absent")]) == 2


def measured() -> list[rows.Row]:
    ours, theirs = row("decode-1b-d65536", "SpikingBrain-1B q4_0", depth=65536), row("decode-1b-d65536", "Llama-3.2-1B q4_0", [2.0, 2.2, 2.4],
                                                                                    depth=65536, model="Llama-3.2-1B")
    slower = row("decode-1b-d65536-fa", "Llama-3.2-1B q4_0 fa", [1.0], depth=65536, model="Llama-3.2-1B")
    fit = row("prefill-1b-fit", "SpikingBrain-1B q4_0", [7.0], kind="prefill 8192", n_prompt=8192, depth=None, unit="s", fitted=True)
    return [ours, theirs, rows.ratio_row(ours, theirs), slower, fit]


def test_the_figure_has_ratios_to_the_faster_baseline_and_the_papers() -> None:
    line = tables.figure7(measured()).splitlines()[-1]
    assert "| 5.00x | 3.71x | 4.04x |" in line and line.startswith("| 64k |")  # 3.71x: what the bytes allow


def test_fitted_figures_are_marked() -> None:
    assert tables.prefill(measured()).splitlines()[-1] == "| 8k | 7.00 (fitted) |"


def target_row(case: str, side: str, values: list[float], type_: str = "q4_0", **fields: Any) -> rows.Row:
    return row(case, f"{fields.get('model', 'm')} {type_} {side}", values, side=side, type=type_, settings=fields.pop("settings", {}), **fields)


def test_targets_are_taken_round_by_round_against_the_fastest_setting(tmp_path: Path) -> None:
    found = [target_row("targets-prompt", "ours", [1.0, 2.0, 1.0], kind="prefill 512", unit="s", spikes=False),
             target_row("targets-prompt", "upstream", [2.0, 4.4, 2.2], kind="prefill 512", unit="s"),
             target_row("targets-prompt", "ik", [1.2, 2.4, 1.2], kind="prefill 512", unit="s")]
    upstream, ik = targets.figures(found, tmp_path)
    assert (upstream.median, upstream.low, upstream.high, upstream.met) == (2.2, 2.0, 2.2, True)
    assert ik.median == pytest.approx(1.2) and not ik.met and "not met" in targets.shown(found, tmp_path)


def test_targets_of_depth_name_what_the_bytes_allow(tmp_path: Path) -> None:
    deep = {"kind": "decode", "depth": 262144, "unit": "tokens/s"}
    found = [target_row("targets-deep", "ours", [48.0, 48.0], spikes=True, extra={"bytes_per_step": 7e8}, **deep)]
    for kv, speed, n_bytes in (("f16", 4.0, 91e8), ("q8_0", 6.0, 49e8)):
        found.append(target_row("targets-deep", "ik", [speed, speed], settings={"kv": kv}, extra={"bytes_per_step": n_bytes}, **deep))
    f16, q8 = targets.figures(found, tmp_path)
    assert (f16.median, f16.met, f16.note) == (12.0, True, "bytes allow 13.0x") and (q8.median, q8.met, q8.note) == (8.0, True, "bytes allow 7.0x")


def test_tokens_together_are_timed_over_one(tmp_path: Path) -> None:
    one, four = (row("targets-together", "a", [v], kind=f"verify {n}", unit="s", n_prompt=n) for n, v in ((1, 1.0), (4, 1.4)))
    (found,) = targets.figures([one, four, rows.ratio_row(one, four) | {"kind": "ratio verify 4", "n_prompt": 4}], tmp_path)
    assert found.median == 1.4 and found.met


def test_an_interval_is_the_bootstraps_and_does_not_change() -> None:
    low, high = rows.interval([9.0, 10.0, 11.0, 10.0, 10.0])
    assert 9.0 <= low < 10.0 <= high <= 11.0 and rows.interval([9.0, 10.0, 11.0, 10.0, 10.0]) == [low, high] and rows.interval([3.0]) == [3.0, 3.0]


def test_threads_go_to_cores_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    for pairs, cpus, cores in (({0: [0, 1], 2: [2, 3]}, [0, 2, 1, 3], 2), ({0: [0, 2], 1: [1, 3]}, [0, 1, 2, 3], 2), ({}, [0, 1, 2, 3], 4)):
        monkeypatch.setattr(machine, "siblings", lambda c: next((p for p in pairs.values() if c in p), [c]))
        assert (machine.cpus(), machine.cores()) == (cpus, cores)


def test_a_long_prompt_is_fitted_from_short_ones_and_chunks_at_depth() -> None:
    def seconds(n: float) -> float:
        return 0.002 * n + 1e-7 * n * n  # work per token grows with the depth

    common = {"name": "a", "unit": "s", "depth": None}
    real = [row("prefill-1b-n4096", values=[seconds(n)], kind=f"prefill {n}", n_prompt=n, **common) for n in (512, 1024, 2048, 4096)]
    deep = [row(f"prefill-1b-at{d}", values=[seconds(d + 128) - seconds(d)], kind="prefill 128", n_prompt=128, **common | {"depth": d}) for d in (16384, 65536)]
    points = whole_models.seconds_per_token([*real, *deep], "a", whole_models.VALIDATED)
    assert whole_models.fitted(points, 16384) == pytest.approx(seconds(16384), rel=0.01)
    wrong = row("prefill-1b-n16384", values=[1e9], kind="prefill 16384", n_prompt=16384, **common)
    assert whole_models.seconds_per_token([*real, *deep, wrong], "a", whole_models.VALIDATED) == points  # what is validated is not in the fit


def test_a_report_changes_only_what_lies_between_its_marks(tmp_path: Path) -> None:
    text = "before\n<!-- bench: figure7 begin -->\nold\n<!-- bench: figure7 end -->\nafter\n"
    def filled(text: str) -> str:
        return files.filled(text, measured(), "x", tmp_path / "r.jsonl")
    once = filled(text)
    assert once.startswith("before\n<!--") and once.endswith("-->\nafter\n") and "old" not in once and filled(once) == once
    with pytest.raises(BenchError, match="no such table"):
        filled(text.replace("figure7", "figure8"))
    with pytest.raises(BenchError, match="no end"):
        filled("<!-- bench: load begin -->\n")
    with pytest.raises(BenchError, match="got no bench/results/gone.jsonl"):
        filled("<!-- bench: load of gone.jsonl begin -->\n<!-- bench: load end -->\n")


def test_a_mark_may_name_its_own_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "RESULTS", tmp_path)
    rows.append(tmp_path / "other.jsonl", measured())
    text = files.filled("<!-- bench: figure7 of other.jsonl begin -->\n<!-- bench: figure7 end -->\n", [], "x", tmp_path / "r.jsonl")
    assert "| 5.00x | 3.71x | 4.04x |" in text and "[results/other.jsonl](results/other.jsonl): " in text


def test_reports_and_plots_are_the_same_bytes_every_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    source = tmp_path / "r.jsonl"
    rows.append(source, measured())
    (tmp_path / "bench").mkdir()
    shutil.copy(ROOT / "bench" / "README.md", tmp_path / "bench")
    found = []
    for _ in range(2):
        assert files.main(source, tmp_path, readmes=True) == 0
        found.append({p.name: p.read_bytes() for p in [*tmp_path.glob("r*.*"), tmp_path / "bench" / "README.md"]})
    assert found[0] == found[1] and {"r-figure7.svg", "r.html", "r.md"} <= set(found[0])
    text = found[0]["r.html"].decode()
    assert text.count("<svg") >= 3 and "src=" not in text and "href=\"http" not in text  # Figure 7, prompts, memory; nothing from elsewhere
    assert files.main(source, tmp_path, check=True) == 0
    (tmp_path / "bench" / "README.md").write_text(found[0]["README.md"].decode().replace("64k", "65k"))
    assert files.main(source, tmp_path, check=True) == 1


def test_committed_tables_are_those_of_the_rows_they_name() -> None:
    named = re.search(r"bench: machine begin -->\n\[results/([\w.-]+)\]", (ROOT / "bench" / "README.md").read_text())
    if not named:
        pytest.skip("no results are committed")
    source = ROOT / "bench" / "results" / named[1]
    assert files.write_tables(rows.read(source), ROOT, source, check=True) == []
    for written in (ROOT / "bench" / "results").glob("*.md"):
        assert written.read_text() == page.markdown(rows.read(written.with_suffix(".jsonl")), written.with_suffix(".jsonl"))


def test_cases_have_names_of_their_own_and_fit_the_disk() -> None:
    cases = all_cases(2)
    assert len({c.id for c in cases}) == len(cases)
    assert max(c.disk() for c in cases) < 40e9
    assert 0 < len(select("quick", [], 1)) < len(select("full", [], 1)) == len([c for c in all_cases(1) if not c.id.startswith("targets-")])
    assert 300 < sum(c.seconds for c in cases if c.id.startswith("targets-")) < 1200  # 20 minutes, as bench/README.md says
    assert 100 < sum(c.seconds for c in cases if c.quick) < 400


@pytest.mark.parametrize("only, threads, message", [(["nothing"], 1, "--only"), ([], 0, "--threads"), ([], 10 ** 6, "--threads")])
def test_options_that_cannot_work_are_refused(only: list[str], threads: int, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        select("full", only, threads)


def test_the_list_of_cases_ends_with_its_reader_and_refuses_threads() -> None:
    command = [sys.executable, "-m", "bench", "cases", "--threads"]
    refused = subprocess.run([*command, "0"], cwd=ROOT, capture_output=True, text=True)
    assert (refused.returncode, refused.stdout) == (2, "") and "got 0, expected 1 .." in refused.stderr and "Traceback" not in refused.stderr
    reader, writer = os.pipe()
    os.close(reader)
    cut = subprocess.run([*command, "1"], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (cut.returncode, cut.stderr) == (141, b"")


def test_a_busy_machine_is_called_noisy() -> None:
    calm = machine.noise([1.0, 1.01, 1.02], idle=0.01)
    wild = machine.noise([1.0, 1.5, 2.0], idle=0.01)
    assert wild["noisy"] and wild["loop_spread"] > calm["loop_spread"]
    assert {"cpu", "cpus", "memory_bytes"} <= set(machine.describe()) and json.dumps(machine.describe())


def test_machines_of_one_name_have_files_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    for flags in ("fpu avx2 fma", "fpu avx2 fma avx512f avx512_vnni"):
        monkeypatch.setattr(machine, "cpuinfo", {"model name": "AMD EPYC", "flags": flags}.__getitem__)
        names.append(machine.slug())
    assert names[1].startswith("amd-epyc-") and names[0] == names[1] + "-avx2"
