"""The figures of sb-spikes' tables and page stand in their columns, rounded as they say."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from spikingbrain_cpp.caches import BaseLlamaCache
from spikingbrain_cpp.spikes import CountHistogram, ExpertChoices, SpikeInput, SpikeStats, energy, shift_to_zero
from spikingbrain_cpp.spikes import report
from spikingbrain_cpp.spikes.stats import PAPER_TABLE_11, popcount

COUNTS = [0, 0, 1, -2, 3, -7, 8, 16, 17, -5000]
H = CountHistogram.of(COUNTS)


def stats(k: float = 3.0, n_refused: int = 0) -> SpikeStats:
    kept = np.zeros((0, 0), np.int32)
    return SpikeStats(k, "paper", (
        SpikeInput(0, "attn", 10, 1, n_refused, ("attn_q", "attn_k"), H, kept), SpikeInput(1, "ffn_down", 4, 2, 0, ("ffn_down",), CountHistogram.of([0, 0, 0, 4]), kept)))


def test_columns_of_a_row():
    spikes = [bin(abs(c)).count("1") for c in COUNTS]
    assert report.COLUMNS == ("|s| <= 7", "|s| > 16", "silent", "largest", "spikes", "sparsity", "sparsity, |s| <= 7")
    assert report.row(H) == ("60.00%", "20.00%", "20.00%", "5,000", f"{sum(spikes) / 10:.3f}", f"{1 - sum(spikes) / 30:.2%}", f"{1 - sum(spikes[:6]) / 18:.2%}")
    assert report.row(CountHistogram.of([])) == ("-",) * 7
    assert report.paper_row() == ("94.1%", "about 1%", "18.4%", "", "1.13", "69.15%", "")


def test_the_table_for_a_terminal():
    text = report.text(stats())
    lines = {line.split("  ")[0].strip(): line.split() for line in text.splitlines() if line.strip()}
    model = stats().model()
    assert model.n == 24 and lines["model"][1:] == list(report.row(model))
    assert lines["attn_q"][1:] == lines["attn_k"][1:] == list(report.row(H)) and lines["ffn_down"][1:] == list(report.row(CountHistogram.of([0, 0, 0, 4])))
    assert lines["layer 0"][2:] == list(report.row(H)) and lines["layer 1"][2:] == lines["ffn_down"][1:]
    assert f"energy: {model.energy()}" in text and "rows held" not in text
    assert "1,234 rows held values" in report.text(stats(n_refused=1234))
    header = text.splitlines()[0]
    assert [header.index(c) + len(c) for c in report.COLUMNS] == [m.end() for m in re.finditer(r"\S+", next(x for x in text.splitlines() if x.startswith("model")))][1:]
    assert "energy" not in report.text(SpikeStats(3.0, "paper", ()))


@pytest.mark.parametrize("k, before", [(1.0, 0), (2.0, 1), (2.2, 1), (3.0, 3), (9.0, 5)])
def test_the_page_puts_a_model_among_the_papers_rows(k, before):
    page = report.page(stats(k), "a<b>.gguf", [("a <picture>", b"\x89PNG")], "text & more")
    assert "<h1>Spikes of a&lt;b&gt;.gguf</h1>" in page and "of text &amp; more, k = " in page and "a &lt;picture&gt;" in page and "data:image/png;base64,iVBORw==" in page
    table = page[page.index("Table 11"):page.index("By projection")]
    assert [len(re.findall("paper, k = ", part)) for part in table.split("this model, k = ")] == [before, len(PAPER_TABLE_11) - before]
    model = stats(k).model()
    assert f"<td>{model.sparsity:.3f}</td><td>{model.sparsity_to_7:.3f}</td><td>{model.share_to_7:.3f}</td>" in table
    assert "<b>" not in page and "<b>7 rows held values" in report.page(stats(k, 7), "x", [])
    assert "nothing was counted" in report.page(SpikeStats(3.0, "paper", ()), "x", [])
    e = model.energy()
    assert f"{e.spikes_pj:.4f}" in page and f"{-e.below_fp16:+.1%} against FP16, {-e.below_int8:+.1%} against INT8" in page


def with_experts(silent: list[int], channels: list[int]) -> SpikeStats:
    chosen = ExpertChoices(3, np.array([6, 0, 2]), np.array(silent), np.array(channels), np.zeros(0, np.int32))
    return SpikeStats(3.0, "paper", stats().inputs, (chosen, ExpertChoices(11, np.zeros(3, int), np.zeros(3, int), np.zeros(3, int), np.zeros(0, np.int32))))


def test_the_choices_of_experts_are_a_table():
    """Shares of the tokens; of what the down projections are fed where they spike; nothing of a model without experts."""
    text = report.text(with_experts([10, 0, 3], [40, 0, 30]))
    rows = [line.split() for line in text[text.index("share of the tokens that chose"):].splitlines()]
    assert rows[1] == rows[6] == ["expert", "0", "expert", "1", "expert", "2"]
    assert rows[2:4] == [["layer", "3", "75.0%", "0.0%", "25.0%"], ["layer", "11", "-", "-", "-"]]
    assert rows[5][:2] == ["silent", "share"] and rows[7] == ["layer", "3", "25.0%", "-", "10.0%"]
    page = report.page(with_experts([10, 0, 3], [40, 0, 30]), "x", [])
    assert "<td>3</td><td>75.0%</td><td>0.0%</td><td>25.0%</td>" in page and "<td>3</td><td>25.0%</td><td>-</td><td>10.0%</td>" in page
    assert "silent share" not in report.text(with_experts([0] * 3, [0] * 3)) and "expert" not in report.text(stats()) + report.page(stats(), "x", [])


def test_the_choices_of_experts_in_json():
    held = json.loads(with_experts([10, 0, 3], [40, 0, 30]).to_json())["experts"]
    assert held[0] == {"layer": 3, "n": [6, 0, 2], "share": [0.75, 0.0, 0.25], "silent_share": [0.25, None, 0.1]}
    assert held[1] == {"layer": 11, "n": [0] * 3, "share": [None] * 3, "silent_share": [None] * 3}
    assert "experts" not in json.loads(stats().to_json())


def test_set_bits():
    values = [0, 1, -1, 255, 256, -257, 2**40 + 1, -2**63, 2**63 - 1]
    assert popcount(np.array(values)).tolist() == [bin(abs(v)).count("1") for v in values]
    assert popcount(np.array([[3, 4], [5, -6]])).tolist() == [[2, 1], [2, 2]]


def test_totals_take_each_part_as_often_as_it_counts():
    other = CountHistogram.of([9, 5001])
    total = CountHistogram.total([(H, 2), (other, 1), (CountHistogram.of([10**6]), 0)])
    assert total.n == 22 and total.n_over == 3 and total.largest == 5001 and total.spikes == 2 * H.spikes + other.spikes
    assert total.bins[0] == 4 and total.bins[9] == 1 and total.over_spikes == 2 * bin(5000).count("1") + bin(5001).count("1")


def test_energy_by_hand():
    e = energy(2.0)
    assert e.spikes_pj == pytest.approx(0.06) and e.below_fp16 == pytest.approx(0.96) and e.below_int8 == pytest.approx(1 - 0.06 / 0.23)
    held = json.loads(json.dumps(e.to_dict()))
    assert held["mean_spikes"] == 2.0 and held["fp16_pj"] == 1.5 and held["int8_pj"] == 0.23 and held["below_fp16"] == pytest.approx(0.96) and len(held["assumptions"]) == 5
    assert str(energy(0.0)).startswith("0.000 spikes x 0.03 pJ = 0.0000 pJ: 100.0% below FP16") and "above INT8" in str(energy(8.0))
    assert energy(0).spikes_pj == 0


@pytest.mark.parametrize("low, high, ok", [(-2**62, 2**62 - 1, True), (0, 2**63 - 1, True), (-1, 2**63 - 2, True), (-1, 2**63 - 1, False), (-2**63, 0, False), (-5, -2, True)])
def test_the_widest_range_that_can_be_shifted(low, high, ok):
    if ok:
        moved, by = shift_to_zero([low, high])
        assert moved.tolist() == [0, high - low] and by == -low
    else:
        with pytest.raises(ValueError, match="expected a range below 2\\^63"):
            shift_to_zero([low, high])


def test_a_cache_of_no_kind_holds_nothing():
    for call in (lambda: BaseLlamaCache().cache_size, lambda: BaseLlamaCache()[[1]], lambda: BaseLlamaCache().__setitem__([1], None)):
        with pytest.raises(NotImplementedError):
            call()
