"""Statistics of counts: by hand, beyond the histogram's end, of a Gaussian and a Laplace input against the closed form."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from spikingbrain_cpp.spikes import CountHistogram, SpikeInput, SpikeStats, count, encode, energy, firing_rate
from spikingbrain_cpp.spikes.stats import N_BINS

K, TOKENS, CHANNELS = 3.0, 400, 4096


def below(distribution: str, z: float) -> float:
    """P(|x| < z mean|x|)."""
    return math.erf(z / math.sqrt(math.pi)) if distribution == "gauss" else 1 - math.exp(-z)


def probabilities(distribution: str, k: float, n: int = 4000) -> np.ndarray:
    """P(|s| = m): |x| / mean|x| between (m - 1/2) / k and (m + 1/2) / k."""
    edges = [0.0, *(below(distribution, (m + 0.5) / k) for m in range(n))]
    return np.diff(edges)


@pytest.mark.parametrize("distribution, silent", [("gauss", 0.106), ("laplace", 0.154)])
@pytest.mark.parametrize("k", [2.0, 3.0, 4.0])
def test_closed_form(distribution, silent, k):
    rng = np.random.default_rng(7)
    x = rng.standard_normal((TOKENS, CHANNELS)) if distribution == "gauss" else rng.laplace(size=(TOKENS, CHANNELS))
    h = CountHistogram.of(count(x, k)[0])
    p = probabilities(distribution, k)
    bits = np.array([bin(m).count("1") for m in range(len(p))])
    if k == 3:
        assert round(p[0], 3) == silent
    # 5 standard deviations of a share, and what the row's own mean adds (its relative deviation is below 0.02)
    tolerance = 5 * math.sqrt(0.25 / h.n) + 2e-4
    assert abs(h.silent_share - p[0]) < tolerance
    assert abs(h.share_to_7 - p[:8].sum()) < tolerance
    assert abs(h.share_above_16 - p[17:].sum()) < tolerance
    assert abs(h.mean_spikes - (p * bits).sum()) < 4 * tolerance
    assert abs(h.sparsity - (1 - (p * bits).sum() / 3)) < 2 * tolerance
    assert abs(h.sparsity_to_7 - (1 - (p * bits)[:8].sum() / p[:8].sum() / 3)) < 2 * tolerance


def test_by_hand():
    h = CountHistogram.of([0, 0, 1, -2, 3, -7, 8, 17, -5000, 2**40])
    assert h.n == 10 and h.largest == 2**40 and h.silent_share == 0.2
    assert h.share_to_7 == 0.6 and h.share_above_16 == 0.3
    spikes = [0, 0, 1, 1, 2, 3, 1, 2, bin(5000).count("1"), 1]
    assert h.spikes == sum(spikes) and h.mean_spikes == pytest.approx(sum(spikes) / 10)
    assert h.sparsity == pytest.approx(1 - sum(spikes) / 30) and h.sparsity_to_7 == pytest.approx(1 - 7 / 18)
    assert h.n_over == 2 and h.bins[17] == 1 and h.bins[2] == 1


def test_counts_where_the_histogram_ends():
    h = CountHistogram.of([N_BINS - 1, 1 - N_BINS, N_BINS, -N_BINS, -2**63])
    assert h.bins[-1] == 2 and h.n_over == 3 and h.over_spikes == 3 and h.largest == 2**63 and h.n == 5


def test_mean_spikes_are_those_of_the_coding():
    counts = count(np.random.default_rng(0).standard_normal((50, 256)))[0]
    spikes = encode(counts, "bitwise_bidirectional")
    h = CountHistogram.of(counts)
    assert h.spikes == np.count_nonzero(spikes)
    in_3 = counts[np.abs(counts) <= 7]
    assert h.sparsity_to_7 == pytest.approx(1 - firing_rate(encode(in_3, "bitwise_bidirectional", n_steps=3)))


def test_nothing_counted_is_no_number():
    h = CountHistogram.of([])
    assert h.n == 0 and math.isnan(h.silent_share) and math.isnan(h.sparsity)
    assert h.figures()["sparsity"] is None
    stats = SpikeStats(3.0, "paper", ())
    assert json.loads(stats.to_json())["model"]["n"] == 0


def made() -> SpikeStats:
    """Two layers: an input of three projections, another of one."""
    a, b, c = (CountHistogram.of(x) for x in ([0, 1, 2, 3], [0, 0], [9]))
    kept = np.zeros((0, 0), np.int32)
    return SpikeStats(3.0, "paper", (
        SpikeInput(0, "attn", 4, 1, 0, ("attn_k", "attn_q", "attn_v"), a, kept),
        SpikeInput(0, "attn_out", 2, 1, 0, ("attn_output",), b, kept),
        SpikeInput(1, "ffn", 1, 1, 2, ("ffn_gate", "ffn_up"), c, kept)))


def test_an_input_counts_once_for_each_projection_that_reads_it():
    stats = made()
    assert stats.model().n == 3 * 4 + 2 + 2 * 1
    assert stats.model().silent_share == (3 * 1 + 2) / 16 and stats.model().share_to_7 == 14 / 16
    assert stats.projections == ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up")
    assert {p: h.n for p, h in stats.by_projection().items()} == {"attn_q": 4, "attn_k": 4, "attn_v": 4, "attn_output": 2, "ffn_gate": 1, "ffn_up": 1}
    assert {il: h.n for il, h in stats.by_layer().items()} == {0: 14, 1: 2}
    assert stats.of(0, "attn_v").n == 4 and stats.n_refused == 2
    with pytest.raises(KeyError, match="layer 1, attn_q"):
        stats.of(1, "attn_q")


def test_json_holds_every_figure():
    d = json.loads(made().to_json())
    assert d["model"]["share_to_7"] == 14 / 16 and d["model"]["histogram"]["bins"] == [5, 3, 3, 3, 0, 0, 0, 0, 0, 2]
    assert d["projections"]["attn_output"]["silent_share"] == 1.0 and d["layers"]["1"]["largest"] == 9
    assert [i["input"] for i in d["inputs"]] == ["attn", "attn_out", "ffn"] and d["inputs"][2]["n_refused"] == 2
    assert d["model"]["energy"]["assumptions"] and d["paper"]["table_11"]["3.0"]["sparsity"] == 0.692


def test_energy_as_in_the_paper():
    e = energy(1.13)
    assert round(e.spikes_pj, 3) == 0.034 and round(e.below_fp16, 3) == 0.977
    assert round(1 - round(e.spikes_pj, 3) / 0.23, 3) == 0.852 and abs(e.below_int8 - 0.852) < 1e-3
    assert "97.7% below FP16" in str(e) and "above" in str(energy(60))
    assert any("memory access" in a for a in e.to_dict()["assumptions"])
    for wrong in (-1, float("nan")):
        with pytest.raises(ValueError, match="energy: mean_spikes"):
            energy(wrong)


def test_histogram_of_what_is_no_integer():
    with pytest.raises(TypeError, match="expected integers"):
        CountHistogram.of([0.5])


def test_the_papers_figures():
    d = json.loads(made().to_json())["paper"]
    rows = [(2.0, 0.6735, 0.730, 0.989), (2.5, 0.6807, 0.709, 0.976), (3.0, 0.6875, 0.692, 0.951), (3.5, 0.6898, 0.677, 0.916), (4.0, 0.6940, 0.664, 0.877)]
    assert d["table_11"] == {str(k): {"accuracy": a, "sparsity": s, "share_to_7": n} for k, a, s, n in rows}
    assert d["section_5_5"] == {"share_to_7": 0.941, "share_above_16": 0.01, "silent_share": 0.184, "mean_spikes": 1.13, "sparsity": 0.6915}


def test_json_is_json_and_as_wide_as_asked():
    with pytest.raises(ValueError):
        dataclasses.replace(made(), k=float("nan")).to_json()
    assert made().to_json() == made().to_json(indent=1) and made().to_json().splitlines()[1].startswith(' "') and "\n" not in made().to_json(indent=None)
