"""A model's spikes, counted while it runs: what the reference counts, by whom it is read, off without a trace."""

from __future__ import annotations

import json

import numpy as np
import pytest
from binding_models import ONE, convert, logits_of, make_tiny, tokens_of
from conftest import ROOT, shared

from spikingbrain_cpp import Llama, LlamaError
from spikingbrain_cpp.spikes import CountHistogram
from spikingbrain_cpp.spikes.cli import main as sb_spikes
from spikingbrain_cpp.spiking import Spiking, check_arguments

N = 150  # more than two pieces while counting
PAPER = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def spiking(tmp_path_factory, plain):
    return convert(plain, tmp_path_factory.mktemp("spiking") / "spiking.gguf", "--spike", "--spike-k", "2.5")


def stats_of(path, tokens, **options):
    with Llama(path, spike_stats=True, **{**ONE, **options}) as llm:
        llm.eval(tokens)
        return llm.spike_stats()


# --- what is counted ----------------------------------------------------------------------------------------------


def test_every_input_of_every_projection(spiking):
    stats = stats_of(spiking, tokens_of(N))
    assert stats.k == 2.5 and stats.scope == "paper" and stats.n_tokens == N and stats.n_refused == 0
    assert set(stats.projections) == PAPER and stats.layers == (0, 1)
    widths = {"attn": 64, "attn_out": 64, "ffn": 64, "ffn_down": 96}
    assert [(i.layer, i.name, i.n) for i in stats.inputs] == [(il, name, n) for il in (0, 1) for name, n in widths.items()]
    for i in stats.inputs:
        assert i.n_tokens == N and i.counts.n == N * i.n, (i.layer, i.name)  # the last layer's MLP, too
        assert i.projections == {"attn": ("attn_q", "attn_k", "attn_v"), "attn_out": ("attn_output",),
                                 "ffn": ("ffn_gate", "ffn_up"), "ffn_down": ("ffn_down",)}[i.name]
    assert stats.model().n == 2 * N * (4 * 64 + 2 * 64 + 96)
    assert json.loads(stats.to_json())["model"]["n"] == stats.model().n


def test_a_full_gate_reads_the_spikes_too(tmp_path):
    path = make_tiny(tmp_path, gate_rank=0)
    stats = stats_of(path, tokens_of(20), spike=True)
    assert set(stats.projections) == PAPER | {"attn_gate"}
    assert stats.by_projection()["attn_gate"].n == 20 * 64  # one layer of two has a gate


def test_scope_released_leaves_the_down_projection_out(tmp_path):
    path = make_tiny(tmp_path)
    path = convert(tmp_path / "checkpoint", tmp_path / "released.gguf", "--spike", "--spike-scope", "released", "--outtype", "f32")
    stats = stats_of(path, tokens_of(20))
    assert stats.scope == "released" and set(stats.projections) == PAPER - {"ffn_down"}
    assert path.exists()


@pytest.mark.parametrize("outtype", ["q4_0", "q8_0"])
def test_an_output_head_in_integers_is_no_spike(tmp_path, outtype):
    path = convert(ROOT / "examples" / "tiny", tmp_path / "tiny.gguf", "--spike", "--outtype", outtype)  # its vocabulary is a multiple of 16
    assert {i.name for i in stats_of(path, tokens_of(5)).inputs} == {"attn", "attn_out", "ffn", "ffn_down"}


@pytest.mark.parametrize("outtype", ["f32", "q8_0", "q4_0", "f16"])
def test_kept_counts_are_those_of_the_histogram(tmp_path, outtype):
    path = make_tiny(tmp_path, outtype)
    stats = stats_of(path, tokens_of(N), spike=True, spike_keep=(N, 96))
    assert set(stats.projections) == PAPER
    for i in stats.inputs:
        assert i.kept.shape == (N, i.n)
        h = CountHistogram.of(i.kept)
        assert np.array_equal(h.bins, i.counts.bins) and h.largest == i.counts.largest and h.spikes == i.counts.spikes
    few = stats_of(path, tokens_of(N), spike=True, spike_keep=(3, 5))
    for i, all_of_it in zip(few.inputs, stats.inputs):
        assert np.array_equal(i.kept, all_of_it.kept[:3, :5])


def test_counts_are_the_reference_s(tmp_path):
    torch = pytest.importorskip("torch")
    from sb_convert.reference import Model, Projection, Spike, spike
    folder = shared("golden-float")
    reference = Model.from_pretrained(folder, spike=Spike(k=3.0, scope="paper"))
    found: dict[tuple[int, str], np.ndarray] = {}
    names = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output", "gk_proj": "attn_gate", "gate_proj": "ffn_gate",
             "up_proj": "ffn_up", "down_proj": "ffn_down"}
    for name, module in reference.named_modules():
        if isinstance(module, Projection) and module.spike is not None:
            key = (int(name.split(".")[2]), names[name.split(".")[-1]])
            module.register_forward_pre_hook(lambda m, x, key=key: found.__setitem__(key, spike(x[0], 3.0)[0][0].numpy().astype(np.int64)))
    tokens = np.load(folder / "golden.npz")["tokens"].astype(np.int32).reshape(-1)
    with torch.no_grad():
        reference(torch.from_numpy(tokens.astype(np.int64))[None])
    path = convert(folder, tmp_path / "spiking.gguf", "--outtype", "f32", "--spike")
    stats = stats_of(path, tokens, spike_keep=(len(tokens), 2**20))
    assert set(found) == {(i.layer, p) for i in stats.inputs for p in i.projections}
    for i in stats.inputs:
        for p in i.projections:
            expected = found[i.layer, p]
            moved = np.abs(i.kept - expected)
            # all the same on AVX-512; float32 sums in another order may move a value across a rounding border now and then
            assert (moved > 0).mean() < 0.002 and moved.max() <= 1, (i.layer, p, (moved > 0).mean(), moved.max())
    model = CountHistogram.total((CountHistogram.of(x), 1) for x in found.values())
    assert model.n == stats.model().n and abs(model.sparsity - stats.model().sparsity) < 1e-4
    assert abs(model.mean_spikes - stats.model().mean_spikes) < 3e-4


# --- while it counts ----------------------------------------------------------------------------------------------


def test_counting_changes_no_logits(spiking):
    tokens = tokens_of(N)
    with Llama(spiking, spike_stats=True, **ONE) as llm:
        llm.eval(tokens)
        counted = llm.logits
    with Llama(spiking, n_ubatch=64, n_batch=64, **ONE) as llm:
        llm.eval(tokens)
        assert np.abs(llm.logits - counted).max() < 1e-4  # products of one row and of 64 add in another order
    everything = logits_of(spiking, tokens, spike_stats=True)
    assert everything.shape == (N, 288) and np.abs(everything[-1] - counted).max() < 1e-3


def test_pieces_and_generation_count_as_one_batch_does(spiking):
    tokens = tokens_of(60)
    whole = stats_of(spiking, tokens)
    with Llama(spiking, spike_stats=True, **ONE) as llm:
        for piece in (tokens[:7], tokens[7:50], *tokens[50:, None]):
            llm.eval(piece)
        pieces = llm.spike_stats()
        assert pieces.model().n == whole.model().n
        assert abs(pieces.model().bins - whole.model().bins).sum() < 0.01 * whole.model().n
        list(zip(range(5), llm.generate(tokens, temp=0)))
        assert llm.spike_stats().n_tokens == llm.n_evaluated


def test_reset_counts_from_zero(spiking):
    with Llama(spiking, spike_stats=True, spike_keep=(4, 4), **ONE) as llm:
        assert llm.spike_stats().inputs == () and llm.spike_stats().n_tokens == 0
        llm.eval(tokens_of(10))
        llm.reset_spike_stats()
        assert llm.spike_stats().inputs == () and llm.n_tokens == 10
        llm.eval(tokens_of(3))
        stats = llm.spike_stats()
        assert stats.n_tokens == 3 and set(stats.projections) == PAPER and stats.inputs[0].kept.shape == (3, 4)


def edited(make_checkpoint, out, name, value):
    """A spiking model, channel 5 of whose tensor `name` is `value`."""
    def edit(tensors):
        tensors[name][5] = value
    return convert(make_checkpoint(dtype="F32", tensors=edit), out, "--outtype", "f32", "--spike")


def test_a_huge_count_is_in_the_statistics(make_checkpoint, tmp_path):
    """One channel so large that its count leaves int8 and, at k = 200, the histogram."""
    path = edited(make_checkpoint, tmp_path / "outlier.gguf", "model.layers.0.attn_norm.weight", 1e4)
    stats = stats_of(path, tokens_of(40), spike_k=200.0, spike_keep=(40, 64))
    first = stats.inputs[0]
    assert np.abs(first.kept[:, 5]).max() == first.counts.largest > 5000 and first.counts.n_over > 0
    h = CountHistogram.of(first.kept)
    assert (h.n_over, h.over_spikes) == (first.counts.n_over, first.counts.over_spikes) and np.array_equal(h.bins, first.counts.bins)


def test_rows_that_are_no_numbers_are_left_out_and_told(make_checkpoint, tmp_path, capsys):
    path = edited(make_checkpoint, tmp_path / "beyond.gguf", "model.layers.1.attn_norm.weight", 3e38)  # counts beyond int32, NaN after
    stats = stats_of(path, tokens_of(20), spike_keep=(20, 96))
    assert {(i.layer, i.n_refused, i.counts.n) for i in stats.inputs} == {(0, 0, 20 * 64), (0, 0, 20 * 96), (1, 20, 0)}
    assert stats.n_refused == 80 and stats.inputs[-1].kept.shape == (0, 96) and stats.n_tokens == 20
    assert stats.by_layer()[0].n == stats.model().n > 0
    assert json.loads(stats.to_json())["layers"]["1"]["silent_share"] is None
    (tmp_path / "text.txt").write_text("hello")
    assert sb_spikes([str(path), "--text", str(tmp_path / "text.txt"), "-t", "1"]) == 0
    assert "rows held values that are no numbers" in capsys.readouterr().out


# --- off, and refused -----------------------------------------------------------------------------------------------


def test_off_says_how_to_turn_it_on(spiking):
    with Llama(spiking, **ONE) as llm:
        llm.eval([1])
        for call in (llm.spike_stats, llm.reset_spike_stats):
            with pytest.raises(LlamaError, match="spike_stats=True"):
                call()
    with pytest.raises(LlamaError, match="closed"):
        llm.spike_stats()


def test_off_attaches_nothing(spiking):
    from spikingbrain_cpp import _core
    model = _core.Model(str(spiking))
    with pytest.raises(RuntimeError, match="counts no spikes"):
        _core.Context(model).spike_stats()


def test_a_model_that_does_not_spike(plain, spiking):
    for path, options in ((plain, {}), (spiking, {"spike": False}), (plain, {"kv_overrides": {"spikingbrain.spike.enable": False}})):
        with pytest.raises(ValueError, match="spike_stats: got True for a model that does not spike.*spike=True"):
            Llama(path, spike_stats=True, **options, **ONE)


@pytest.mark.parametrize("options, error, words", [
    ({"spike_k": 0}, ValueError, "got 0, expected a number above 0"), ({"spike_k": -1.0}, ValueError, "above 0"), ({"spike_k": float("nan")}, ValueError, "above 0"),
    ({"spike_k": float("inf")}, ValueError, "above 0"), ({"spike_k": 1e300}, ValueError, "above 0"), ({"spike_k": 1e-60}, ValueError, "above 0"),
    ({"spike_k": "3"}, TypeError, "expected a number"), ({"spike_k": True}, TypeError, "expected a number"), ({"spike": 1}, TypeError, "expected True, False"),
    ({"spike": False, "spike_k": 3.0}, ValueError, "told not to spike"), ({"spike": True, "kv_overrides": {"spikingbrain.spike.enable": False}}, ValueError, "leave one"),
    ({"spike_k": 3.0, "kv_overrides": {"spikingbrain.spike.k": 4.0}}, ValueError, "leave one"),
    ({"spike_keep": (1, 1)}, ValueError, "spike_stats=True"), ({"spike_stats": True, "spike_keep": (0, 1)}, ValueError, "above 0"),
    ({"spike_stats": True, "spike_keep": 5}, TypeError, "two integers"), ({"spike_stats": True, "vocab_only": True}, ValueError, "vocab_only"),
    ({"kv_overrides": {"spikingbrain.spike.k": -1.0}}, ValueError, "spike.k: got -1"),
    ({"kv_overrides": {"spikingbrain.spike.scope": "released"}}, ValueError, "spike.scope"),
    ({"kv_overrides": []}, TypeError, "expected a dict"), ({"kv_overrides": 0}, TypeError, "expected a dict"), ({"kv_overrides": ""}, TypeError, "expected a dict"),
])
def test_bad_arguments(spiking, options, error, words):
    with pytest.raises(error, match=words):
        Llama(spiking, **options, **ONE)


@pytest.mark.parametrize("arguments", [{"spike": True}, {"spike": False}, {"spike_k": 3.0}, {"spike_stats": True}])
def test_another_architecture_has_no_spikes(arguments):
    given = {"spike": None, "spike_k": None, "spike_stats": False, **arguments}
    with pytest.raises(ValueError, match=f"llama: {next(iter(arguments))}: got .* of architecture qwen2, expected spikingbrain"):
        check_arguments(Spiking.of({"general.architecture": "qwen2"}, {}), "qwen2", **given)
    check_arguments(Spiking.of({"general.architecture": "qwen2"}, {}), "qwen2", None, None, False)


def test_spike_k_without_spikes(plain):
    with pytest.raises(ValueError, match="spike_k: got 4.0 for a model that does not spike"):
        Llama(plain, spike_k=4.0, **ONE)


# --- turned on and off at load ----------------------------------------------------------------------------------


def test_properties(plain, spiking):
    for path, options, expected in ((plain, {}, (False, None, None)), (plain, {"spike": True}, (True, 3.0, "paper")), (spiking, {}, (True, 2.5, "paper")),
                                    (spiking, {"spike": False}, (False, None, None)), (plain, {"spike": True, "spike_k": 4}, (True, 4.0, "paper")),
                                    (spiking, {"spike_k": 3.5}, (True, 3.5, "paper")), (spiking, {"kv_overrides": {"spikingbrain.spike.k": 2.0}}, (True, 2.0, "paper"))):
        for more in ({}, {"vocab_only": True}):
            with Llama(path, **options, **more, **ONE) as llm:
                assert (llm.spiking, llm.spike_k, llm.spike_scope) == expected


def test_what_load_says_is_what_runs(plain, spiking):
    tokens = tokens_of(30)
    ordinary, spiked = logits_of(plain, tokens), logits_of(spiking, tokens)
    assert np.abs(ordinary - spiked).max() > 1e-3
    assert np.array_equal(logits_of(spiking, tokens, spike=False), ordinary)
    assert np.array_equal(logits_of(plain, tokens, spike=True, spike_k=2.5), spiked)
    assert not np.array_equal(logits_of(spiking, tokens, spike_k=4.0), spiked)
    fine = logits_of(spiking, tokens, spike_k=1000.0)
    assert np.abs(fine - ordinary).max() < 0.1 * np.abs(spiked - ordinary).max()


def test_a_state_fits_where_the_arguments_say_what_the_file_says(plain, spiking):
    with Llama(spiking, **ONE) as llm:
        llm.eval(tokens_of(12))
        state, row = llm.save_state(), llm.logits
    with Llama(spiking, spike=True, spike_k=2.5, spike_stats=True, **ONE) as llm:
        llm.load_state(state)
        assert np.array_equal(llm.logits, row)
    for options in ({"spike": False}, {"spike_k": 3.0}):
        with Llama(spiking, **options, **ONE) as llm, pytest.raises(ValueError, match="load_state: settings"):
            llm.load_state(state)
