"""Event-driven products: exact whatever is silent, and where they win is read from the rows alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from test_bench_driver import driver, drivers, suite  # noqa: F401

from bench import rows
from bench.cases import select
from bench.errors import BenchError
from bench.measure import run
from bench.measure.driver import Driver
from bench.report import events, plots, tables


@pytest.mark.parametrize("n, m", [(32, 128), (96, 256), (2048, 384)])
@pytest.mark.parametrize("group", [1, 4, 8])
def test_each_product_is_what_the_plain_loop_computes(driver: Driver, n: int, m: int, group: int) -> None:  # noqa: F811
    made = driver.ask("events_build", n=n, m=m, count=2, group=group)
    assert made["bytes"] == 2 * n * m * 9 // 16 and made["ops"] == 2 * 2 * n * m
    for silent in (0, 0.1, 0.5, 0.9, 0.97, 1):
        for _ in range(3):
            answer = driver.ask("events_time", silent=silent)
            assert answer["difference"] <= 1e-6 and len(answer["seconds"]) == 1
            fires = 1 - round(silent * n) / n
            assert answer["channels_read"] == pytest.approx(fires) if group == 1 else fires - 1e-9 <= answer["channels_read"] <= min(1, group * fires) + 1e-9


@pytest.mark.parametrize("wrong", [{"n": 48}, {"n": 0}, {"m": 64}, {"group": 2}, {"count": 0}, {"n": -32}])
def test_other_shapes_are_refused_by_name(driver: Driver, wrong: dict[str, int]) -> None:  # noqa: F811
    with pytest.raises(BenchError, match="events_time: got no weights, expected some"):
        driver.ask("events_time", silent=0)
    with pytest.raises(BenchError, match="events_build: got n "):
        driver.ask("events_build", **{"n": 64, "m": 128, "group": 4} | wrong)


@pytest.mark.parametrize("points, found", [
    ([(0, 1.1), (0.5, 0.5), (0.6, 0.9), (0.7, 1.1), (0.9, 2)], 0.65), ([(0, 0.5), (0.9, 0.99)], None), ([(0, 1), (0.9, 2)], 0), ([(0, 1.2), (0.5, 0.9)], None),
    ([(0, 0.5), (0.1, 1), (0.2, 0.5), (0.4, 1.5)], 0.3)])
def test_it_wins_from_the_share_on_where_it_stays_faster(points: events.Points, found: Any) -> None:
    assert events.break_even(points) == (found if found is None else pytest.approx(found))


def test_the_case_gives_curves_a_table_and_a_chart(suite: Path) -> None:  # noqa: F811
    assert run.run(select("full", ["events"], 1, small=True), suite, small=True) == 0
    found = rows.read(suite)
    assert not any(r["skipped"] for r in found) and {len(p) for p in events.curves(found).values()} == {2} and list(events.curves(found)) == [1, 4, 8]
    head, _, *lines = tables.event_driven(found).splitlines()
    assert head == "| skipped, if silent | 0% | 50% | wins from |" and [x.split(" | ")[0] for x in lines] == ["| each channel by itself", "| 4 neighbours together", "| 8 neighbours together"]
    assert tables.event_driven([]) == "_not measured_"
    pytest.importorskip("matplotlib")
    drawn = plots.draw("events", found)
    assert drawn.count("<svg") == 1 and 'href="http' not in drawn and plots.draw("events", []) == ""


def test_the_shares_of_the_example_are_those_of_its_rows() -> None:
    shown = events.example()
    assert list(shown) == list(events.SHOWN) and [r["silent_share"] for r in shown.values()] == sorted((r["silent_share"] for r in shown.values()), reverse=True)
    assert events.example(Path("absent.jsonl")) == {}
