"""Instruction counts: the plugin counts exactly, the tables are those of the rows, better instructions mean fewer of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bench import rows as store  # noqa: E402
from mobile.arm64.count import build, cases, cycles, measure, report  # noqa: E402


def need(*programs: str) -> None:
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"{program} is missing: apt-get install {build.PACKAGES.get(program, program)}")


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("gcc", "qemu-aarch64")
    return build.plugin(tmp_path_factory.mktemp("plugin"))


def test_a_known_loop_is_counted_exactly(plugin: Path, tmp_path: Path) -> None:
    need("aarch64-linux-gnu-gcc")
    loop = tmp_path / "loop"
    subprocess.run(["aarch64-linux-gnu-gcc", "-nostdlib", "-static", "-o", loop, Path(__file__).with_name("loop.S")], check=True)
    counts = measure.marks(loop, plugin)
    assert measure.between(counts) == [4 * 1000 + 2, 4 * 3000 + 2]
    assert counts[0] == 4 and counts[-1] - counts[-2] == 4  # up to the first mark; from the last to the exit


@pytest.mark.parametrize("case", [c for c in cases.PRODUCTS if c.request["products"][0][0] == cases.E and c.T <= 8], ids=lambda c: c.name)
def test_better_instructions_mean_fewer(plugin: Path, case: cases.Case) -> None:
    driver = build.driver_path("armv8.0")
    if not driver.exists():
        pytest.skip("the driver for ARM is not built: make count-arm64")
    generic, dotprod, i8mm = (measure.count(case, variant, driver, plugin) for variant in cases.OURS)
    assert dotprod < generic
    assert i8mm < dotprod if case.T >= 8 else i8mm == pytest.approx(dotprod, rel=0.01)


def test_counting_twice_gives_the_same(plugin: Path) -> None:
    driver = build.driver_path("armv8.0")
    if not driver.exists():
        pytest.skip("the driver for ARM is not built: make count-arm64")
    case = cases.operator("encode", 1, n=256)
    assert measure.count(case, cases.OURS[1], driver, plugin) == measure.count(case, cases.OURS[1], driver, plugin)


def test_rows_hold_every_case_and_variant() -> None:
    rows = store.read(report.ROWS)
    assert {(r["case"], r["name"]) for r in rows} == {(c.name, v.name) for c, v in cases.work()}
    assert len({r["build"] for r in rows if not r["extra"]["upstream"] and r["kind"] == "product"}) == 1  # all of ours from one binary


def test_rows_show_fewer_instructions_with_better_ones() -> None:
    rows = store.read(report.ROWS)
    for case in cases.PRODUCTS:
        mine = report.ours(rows, case.name)
        assert mine["dotprod"]["median"] < mine["generic"]["median"], case.name
        assert case.T < 8 or mine["i8mm"]["median"] < mine["dotprod"]["median"], case.name


def test_no_newer_instruction_set_takes_more_instructions_than_an_older_one() -> None:
    """To a thousandth, since another kernel is another address to load. A build with SVE has the same kernels; what llama.cpp computes by vectors takes
    more instructions there (mobile/arm64/count/README.md), a bound on which is kept."""
    rows = store.read(report.ROWS)
    for case in report.cases(rows, "decode", "prefill", "product"):
        mine = [report.ours(rows, case)[isa]["median"] for isa in cases.ISAS]
        assert all(newer <= 1.001 * older for older, newer in zip(mine, mine[1:])), case
        assert all(r["median"] <= (1.07 if r["kind"] == "prefill" else 1.035) * mine[-1] for name, r in report.ours(rows, case).items() if name.startswith("sve")), case


def test_an_inner_loop_is_found_with_its_multiplications() -> None:
    code = [(0, "ldr", "q0, [x0]"), (4, "sdot", "v1.4s, v2.16b, v0.4b[0]"), (8, "smmla", "v3.4s, v2.16b, v0.16b"), (12, "b.ne", "4 <f+0x4>"),
            (16, "cbnz", "x1, 0 <f>"), (20, "ret", "")]
    assert list(cycles.loops(code)) == [cycles.Loop(("sdot v1.4s, v2.16b, v0.4b[0]", "smmla v3.4s, v2.16b, v0.16b", "b.ne turn"), 48)]


def test_estimates_hold_every_loop_and_processor_that_has_it() -> None:
    rows = store.read(cycles.ROWS)
    i8mm = {name for name, (_, isa) in cycles.LOOPS.items() if isa == "i8mm"}
    assert {(r["case"], r["name"]) for r in rows} == {*((name, cpu) for name in cycles.LOOPS for cpu in cycles.CPUS if name not in i8mm or cpu not in cycles.WITHOUT_I8MM),
                                                      *((cycles.SVE, cpu) for cpu in cycles.SVE_256)}
    assert all(r["unit"] == "cycles" and r["fitted"] and r["extra"]["macs"] >= 512 for r in rows)  # estimates, of whole blocks


def test_estimates_are_of_the_loops_that_are_built() -> None:
    need("aarch64-linux-gnu-objdump")
    driver = build.driver_path("armv8.0")
    if not driver.exists():
        pytest.skip("the driver for ARM is not built: make count-arm64")
    rows = {r["case"]: r["extra"] for r in store.read(cycles.ROWS)}
    for name, (wanted, _) in cycles.LOOPS.items():
        loop = cycles.inner_loop(driver, wanted)
        assert (len(loop.code), loop.macs) == (rows[name]["instructions"], rows[name]["macs"]), name


def test_tables_are_those_of_the_rows() -> None:
    text = report.README.read_text()
    assert report.filled(text, store.read(report.ROWS)) == text


def test_a_program_that_fails_is_no_count(plugin: Path) -> None:
    driver = build.driver_path("armv8.0")
    if not driver.exists():
        pytest.skip("the driver for ARM is not built: make count-arm64")
    wrong = cases.Case("wrong", "operator", 1, {"op": "nothing"})
    with pytest.raises(measure.BenchError, match="expected products"):
        measure.count(wrong, cases.OURS[0], driver, plugin)
