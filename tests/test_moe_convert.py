"""A GGUF of the 76B: names, keys, types and values of every tensor, stacks of experts, exact codes, and the constants of the sinks."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from conftest import converter_peak, shared
from gguf import GGMLQuantizationType as T
from moe_checkpoints import MOE, OTHER, moe_shapes, write_moe
from test_verify import fork_or_skip

from sb_convert import formats, sinks
from sb_convert import verify as verify_module
from sb_convert.cli import main
from sb_convert.config import ModelConfig
from sb_convert.convert import Options, convert
from sb_convert.sources import open_checkpoint
from sb_convert.spike import SpikeOptions
from sb_convert.tensors import checkpoint_shapes
from sb_convert.verify import Stored, reference_logits, roundings, verify, verify_logits, verify_sinks, verify_tensors


def written(folder: Path, outtype: str = "f32", said: list | None = None, out: str = "out.gguf", **options):
    return convert(folder, Options(folder / out, outtype, force=True, **options), say=(said if said is not None else []).append)


def tensors_of(path: Path) -> dict[str, gguf.ReaderTensor]:
    return {t.name: t for t in gguf.GGUFReader(path).tensors}


def keys_of(path: Path) -> dict:
    return {name.removeprefix("spikingbrain."): f.contents() for name, f in gguf.GGUFReader(path).fields.items()}


@pytest.fixture(autouse=True)
def one_thread_of_torch():
    """As one_thread, for tests of which most need no PyTorch."""
    if importlib.util.find_spec("torch") is None:
        yield
        return
    import torch
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> tuple[Path, Path]:
    """A checkpoint, and its F32 GGUF."""
    folder = write_moe(tmp_path_factory.mktemp("moe") / "checkpoint")
    return folder, written(folder, out="plain.gguf").files[0]


def layer_names(moe: bool, bound: bool) -> dict[str, str]:
    """What a layer's tensors are in the checkpoint; of a stack those of expert 0."""
    names = {"attn_norm.weight": "attn_norm.weight", "ffn_norm.weight": "mlp_norm.weight", "attn_output.weight": "attn.out_proj.weight",
             "attn_sub_norm.weight": "attn.norm1.weight", "ssm_norm.weight": "attn.norm2.weight"}
    for ours, theirs in {"attn_q": "vanilla_attn.q", "attn_k": "vanilla_attn.k", "attn_v": "vanilla_attn.v",
                         "time_mix_receptance": "linear_attn.q", "time_mix_key": "linear_attn.k", "time_mix_value": "linear_attn.v"}.items():
        names |= {f"{ours}.{part}": f"attn.{theirs}_proj.{part}" for part in ("weight", "bias")}
    for part in ("gate", "up", "down"):
        if moe:
            names |= {f"ffn_{part}_exps.weight": f"block_sparse_moe.experts.0.{part}_proj.weight", f"ffn_{part}_shexp.weight": f"shared_mlp.{part}_proj.weight"}
        else:
            names[f"ffn_{part}.weight"] = f"mlp.{part}_proj.weight"
    names |= {"ffn_gate_inp.weight": "block_sparse_moe.gate.weight"} if moe else {}
    return names | ({"time_mix_decay.weight": ""} if bound else {}) | dict.fromkeys(("attn_k.sinks", "attn_v.sinks", "time_mix_key.state"), "")


def test_names_and_values(plain):
    folder, path = plain
    source, stored = open_checkpoint(folder), tensors_of(path)
    expected = {"token_embd.weight": "model.embeddings.weight", "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight", "token_embd.sinks": "model.meta_tokens"}
    for il in range(4):
        expected |= {f"blk.{il}.{ours}": theirs and f"model.layers.{il}.{theirs}" for ours, theirs in layer_names(il in (1, 3), il % 2 == 1).items()}
    assert set(stored) == set(expected)
    for ours, theirs in expected.items():
        if theirs and "_exps" not in ours:
            want = source[theirs].rows(0, None) / (2 if "sub_norm" in ours or "ssm_norm" in ours else 1)
            np.testing.assert_array_equal(stored[ours].data, want, ours)
        elif theirs:
            want = np.stack([source[theirs.replace("experts.0", f"experts.{e}")].rows(0, None) for e in range(3)])
            np.testing.assert_array_equal(stored[ours].data, want, ours)
    assert {n: stored[n].shape.tolist() for n in stored if "blk.1." in n and ("exps" in n or "sinks" in n or "state" in n or "inp" in n)} == {
        "blk.1.ffn_gate_inp.weight": [128, 3], "blk.1.ffn_gate_exps.weight": [128, 128, 3], "blk.1.ffn_up_exps.weight": [128, 128, 3],
        "blk.1.ffn_down_exps.weight": [128, 128, 3], "blk.1.attn_k.sinks": [32, 5, 2], "blk.1.attn_v.sinks": [32, 5, 2], "blk.1.time_mix_key.state": [32, 32, 4]}
    assert stored["blk.0.time_mix_key.state"].shape.tolist() == [32, 32, 2]  # no bound: a state per key/value head


@pytest.mark.parametrize("period, rows", [(2, {1: 1, 3: 1}), (7, {1: 1, 2: 2, 3: 3}), (1, {})])
def test_what_the_bounds_leave(tmp_path, period, rows):
    folder = write_moe(tmp_path / "x", lower_bound_period=period)
    stored = tensors_of(written(folder).files[0])
    P = np.exp(open_checkpoint(folder)["model.lower_bounds"].rows(0, None).astype(np.float64))
    P /= P.sum(0)
    assert {int(n.split(".")[1]) for n in stored if "time_mix_decay" in n} == set(rows)
    for il, r in rows.items():
        np.testing.assert_allclose(stored[f"blk.{il}.time_mix_decay.weight"].data, 1 - P[1:r + 1].sum(0), rtol=1e-6)


def test_the_map_has_the_published_names():
    for c in (MOE, OTHER, MOE | {"lower_bound_period": 1, "num_meta_tokens": 0, "tie_word_embeddings": True}):
        assert checkpoint_shapes(ModelConfig.from_json(c)) == moe_shapes(c)


@pytest.mark.parametrize("base, expected", [
    (MOE, {"hybrid": "parallel", "sink_count": 5, "sink_spike_k": 0.0, "context_length": 512, "feed_forward_length": 128, "attention.head_count": 4, "attention.head_count_kv": 2,
           "attention.sliding_window": 6, "attention.sliding_window_pattern": [True, True, False, True], "attention.recurrent_layers": [True] * 4,
           "gla.q_activation": "relu", "gla.k_max": float(np.float32(0.95)), "expert_count": 3, "expert_used_count": 1, "expert_feed_forward_length": 128,
           "expert_shared_count": 1, "expert_shared_feed_forward_length": 256, "expert_gating_func": 1, "expert_weights_norm": False, "general.size_label": "3x801K"}),
    (OTHER | {"norm_topk_prob": True}, {"gla.q_activation": "sigmoid", "gla.k_max": 1.0, "expert_count": 6, "expert_weights_norm": True,
                                        "attention.sliding_window_pattern": [True, True, False, True, True, False]}),
    (MOE | {"dense_mlp_layers": [0, 1, 2, 3], "num_meta_tokens": 0}, {"sink_count": 0, "hybrid": "parallel"})])
def test_keys(tmp_path, base, expected):
    keys = keys_of(written(write_moe(tmp_path / "x", base=base)).files[0])
    assert {name: keys[name] for name in expected} == expected
    assert ("expert_count" in keys) == ("expert_count" in expected) and ("sink_spike_k" in keys) == (keys["sink_count"] > 0)
    assert not [name for name in keys if name.startswith("gla.gate") or "spike." in name]


@pytest.mark.parametrize("outtype, matrix, output, down", [("f16", T.F16, T.F16, T.F16), ("bf16", T.BF16, T.BF16, T.BF16), ("q8_0", T.Q8_0, T.Q8_0, T.F16),
                                                           ("q4_0", T.Q4_0, T.Q8_0, T.F16), ("int8", T.I8, T.F16, T.F16)])
def test_types_and_verify(plain, outtype, matrix, output, down):
    result = written(plain[0], outtype, said := [], spike=SpikeOptions(True, scope="released"))
    for name, t in tensors_of(result.files[0]).items():
        vector = len(t.shape) == 1 or name.endswith(("sinks", "state", "scales", "gate_inp.weight"))
        kind = T.F32 if vector else output if name == "output.weight" else down if "ffn_down" in name else T.BF16 if name == "token_embd.weight" and outtype == "int8" else matrix
        assert t.tensor_type == kind, name
    assert verify_tensors(result, said.append), said


@pytest.mark.parametrize("where", ["blk.1.ffn_up_exps.weight", "blk.3.ffn_gate_inp.weight", "blk.2.attn_v.sinks", "blk.1.time_mix_decay.weight"])
def test_verify_names_a_damaged_tensor(plain, tmp_path, where):
    result = written(plain[0], "q8_0")
    t = tensors_of(result.files[0])[where]
    with open(result.files[0], "r+b") as f:
        f.seek(int(t.data_offset) + int(t.n_bytes) - 4)
        f.write(b"\x55\x44\x33\x41")
    said: list[str] = []
    assert not verify_tensors(result, said.append) and said[0].startswith(f"verify: {where}: beyond the error bound")


# --- INT8 -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("blocks", [None, 1000])
def test_codes_of_all_experts_are_exact(tmp_path, monkeypatch, blocks):
    """Scales of each expert's rows, outliers by their place in the whole stack."""
    folder = write_moe(tmp_path / "x", scales=True)
    if blocks:
        monkeypatch.setattr(formats, "BLOCK_VALUES", blocks)
    result = written(folder, "auto", said := [], spike=SpikeOptions(scope="paper"))
    stored, source = Stored.open(result.files), open_checkpoint(folder)
    for part, layer in (("gate", 1), ("down", 3)):
        names = [f"model.layers.{layer}.block_sparse_moe.experts.{e}.{part}_proj." for e in range(3)]
        weights, scales = (np.stack([source[n + what].rows(0, None) for n in names]) for what in ("weight", "weight_quantizer.scales"))
        codes = np.rint(weights.reshape(3, 128, -1, 128) / scales).reshape(weights.shape)
        ours = f"blk.{layer}.ffn_{part}_exps."
        assert [stored.by_name[ours + what].shape.tolist() for what in ("weight", "scales")] == [[128, 128, 3], [1, 128, 3]]
        np.testing.assert_array_equal(stored.by_name[ours + "scales"].data, scales[..., 0])
        np.testing.assert_array_equal(stored.by_name[ours + "weight"].data, np.clip(codes, -127, 127))
        index, value = (stored.by_name[ours + what].data for what in ("outlier_index", "outlier_value"))
        np.testing.assert_array_equal(index, np.flatnonzero(np.abs(codes) > 127))
        np.testing.assert_array_equal(value, (codes - np.clip(codes, -127, 127)).reshape(-1)[index])
        assert index.max() > 2 * 128 * 128 and [line for line in said if line.startswith(ours)]
    assert verify_tensors(result, said.append)
    with open(result.files[0], "r+b") as f:
        f.seek(int(stored.by_name["blk.1.ffn_up_exps.weight"].data_offset) + 2 * 128 * 128)
        f.write(b"\x01" if f.read(1) != b"\x01" else b"\x02")
    assert not verify_tensors(result, said.append)


@pytest.mark.parametrize("form, n_shards", [("safetensors", 3), ("bin", 1), ("bin", 4)])
def test_every_form_gives_the_same_tensors(plain, tmp_path, form, n_shards):
    pytest.importorskip("torch")
    def renamed(tensors):
        return {name.replace("model.norm.weight", "mode.norm.weight"): x for name, x in tensors.items()}
    stored = tensors_of(written(write_moe(tmp_path / "x", form=form, n_shards=n_shards, tensors=renamed)).files[0])
    assert all((t.data == stored[t.name].data).all() for t in tensors_of(plain[1]).values())


# --- constants of the sinks -----------------------------------------------------------------------------------

def constants(path: Path, n_layer: int) -> list[list[np.ndarray]]:
    stored = tensors_of(path)
    return [[stored[f"blk.{il}.{name}"].data for name in ("attn_k.sinks", "attn_v.sinks", "time_mix_key.state")] for il in range(n_layer)]


@pytest.mark.parametrize("name, n_layer", [("golden-moe-a", 8), ("golden-moe-spike", 2)])
@pytest.mark.parametrize("outtype", ["f32", "q4_0"])
def test_constants_of_the_golden_models(tmp_path, name, n_layer, outtype):
    folder, path = shared(name), tmp_path / "x.gguf"
    golden = np.load(folder / "golden.npz")
    convert(folder, Options(path, outtype), say=lambda _: None)
    for il, (k, v, S) in enumerate(constants(path, n_layer)):
        S = S.repeat(golden["sink_state"].shape[1] // len(S), 0)
        for got, key in ((k, "sink_k"), (v, "sink_v"), (S, "sink_state")):
            assert np.abs(got - golden[key][il]).max() <= 1e-5


@pytest.mark.parametrize("options", [{}, {"scales": True}, {"base": OTHER}, {"base": MOE | {"norm_topk_prob": True}}])
@pytest.mark.parametrize("spike", [SpikeOptions(False), SpikeOptions(True, 2.0, "paper"), SpikeOptions(True, 3.0, "released")])
def test_constants_are_the_references(tmp_path, monkeypatch, options, spike):
    """Of the checkpoint's own weights, whatever type the file has; in blocks that cut every matrix."""
    torch = pytest.importorskip("torch")
    from sb_convert.reference import Model, Spike
    folder = write_moe(tmp_path / "x", **options)
    monkeypatch.setattr(sinks, "BLOCK_VALUES", 10_000)
    path = written(folder, "q8_0", spike=spike if spike.on or options.get("scales") else SpikeOptions()).files[0]
    with torch.no_grad():
        expected = Model.from_pretrained(folder, Spike(spike.k, spike.scope) if spike.on else None, torch.float64).start().layers
    for got, want in zip(constants(path, len(expected)), expected):
        for a, b in zip(got, want):
            np.testing.assert_allclose(a, b[0].numpy(), rtol=1e-5, atol=1e-5)
    keys = keys_of(path)
    assert (keys["sink_spike_k"], keys.get("sink_spike_scope")) == ((spike.k, spike.scope) if spike.on else (0.0, None))


def test_a_dry_run_computes_no_constants(plain, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sinks.Sinks, "_next_layer", lambda *_: 1 / 0)
    assert main([str(plain[0]), "-o", str(tmp_path), "--outtype", "q4_0", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "blk.1.ffn_gate_exps.weight" in out and "128x128x3 Q4_0" in out and "nothing written" in out and not list(tmp_path.iterdir())
    assert main([str(plain[0]), "-o", str(tmp_path / "v.gguf"), "--vocab-only"]) == 0 and keys_of(tmp_path / "v.gguf")["sink_count"] == 5


@pytest.mark.parametrize("outtype", ["q8_0", "int8"])
@pytest.mark.parametrize("spike", [SpikeOptions(), SpikeOptions(True, 2.0)])
def test_the_reference_computes_the_files_logits(plain, outtype, spike):
    """With the stored constants, not with those of the quantised weights."""
    torch = pytest.importorskip("torch")
    from sb_convert.verify import checkpoint_of, reference_spike
    from sb_convert.reference import Model
    result, tokens = written(plain[0], outtype, spike=spike), list(range(20))
    got = reference_logits(result, tokens)
    model = Model(result.plan.config, reference_spike(result.plan))
    model.load_state_dict({n: torch.from_numpy(x) for n, x in checkpoint_of(result.plan, Stored.open(result.files)).items()})
    own = Model.from_pretrained(plain[0], reference_spike(result.plan))
    with torch.no_grad():
        again, quantised = (model(torch.tensor([tokens]), start)[0][0].numpy() for start in (own.start(), None))
    assert np.abs(got - again).max() < 1e-3 * np.abs(got).max() and np.abs(got - quantised).max() > 1e-3


@pytest.mark.parametrize("base, options, spike", [(MOE, {"scales": True}, SpikeOptions()), (OTHER, {}, SpikeOptions(True, 2.0)), (OTHER, {}, SpikeOptions())])
def test_verify_checks_the_constants(tmp_path, base, options, spike):
    pytest.importorskip("torch")
    folder = write_moe(tmp_path / "x", base=base, **options)
    result = written(folder, "q4_0", spike=spike)
    assert verify_sinks(folder, result, (said := []).append) and said[0].endswith(": ok") and "constants of 5 sinks" in said[0]
    with open(result.files[0], "r+b") as f:
        f.seek(int(tensors_of(result.files[0])["blk.2.time_mix_key.state"].data_offset))
        f.write(np.float32(7).tobytes())
    assert not verify_sinks(folder, result, said.append) and "(blk.2.time_mix_key.state): WRONG" in said[1]


@pytest.mark.parametrize("outtype, spike, rounded", [
    ("f32", SpikeOptions(), {}), ("f16", SpikeOptions(), {"q": 1.0009765625, "experts": 1.0009765625}), ("bf16", SpikeOptions(True), {"q": 1.0, "experts": 1.0}),
    ("q4_0", SpikeOptions(), {"q": 1.0, "experts": 1.0}), ("q8_0", SpikeOptions(True), {}), ("int8", SpikeOptions(True, scope="released"), {"experts": 1.0009765625})])
def test_the_reference_of_verify_rounds_inputs_as_products_do(plain, outtype, spike, rounded):
    torch = pytest.importorskip("torch")
    found = roundings(written(plain[0], outtype, spike=spike).plan)
    x = torch.zeros(1, 64)
    x[0, :3] = torch.tensor([127.0, 1 + 2**-10 + 2**-13, -0.6])
    for key, name in {"q": "model.layers.0.attn.linear_attn.q_proj", "experts": "model.layers.1.block_sparse_moe.experts.2.down_proj"}.items():
        assert (name in found) == (key in rounded)
        if key in rounded:
            assert found[name](x)[0, 1].item() == rounded[key] and found[name](x)[0, 2].item() == (-1 if outtype == "q4_0" else pytest.approx(-0.6, rel=1e-2))
    assert not [name for name in found if name.endswith(".gate") or "norm" in name]


@pytest.mark.parametrize("base, options, outtype, spike", [
    (MOE, {}, "f32", SpikeOptions()), (MOE, {"scales": True}, "int8", SpikeOptions(scope="paper")), (MOE, {"scales": True}, "auto", SpikeOptions()),
    (OTHER, {}, "f32", SpikeOptions()), (OTHER | {"num_meta_tokens": 0, "norm_topk_prob": True}, {}, "q8_0", SpikeOptions(True, 2.0))])
def test_the_fork_computes_what_the_reference_does(tmp_path, base, options, outtype, spike):
    fork_or_skip()
    folder = write_moe(tmp_path / "x", base=base, **options)
    assert verify(folder, written(folder, outtype, spike=spike), (said := []).append), said


def test_wrong_logits_lead_to_the_layer(tmp_path, monkeypatch):
    """A graph that is wrong in layer 2 only; models cut before it keep the bounds of all layers."""
    pytest.importorskip("torch")
    folder = write_moe(tmp_path / "x")

    def fork(path, tokens):
        n_layer = int(keys_of(path)["block_count"])
        return reference_logits(written(folder, n_layer=n_layer), tokens) + (1.0 if n_layer > 2 else 0.0) * np.arange(288)
    monkeypatch.setattr(verify_module, "fork_logits", fork)
    assert not verify_logits(folder, written(folder, out="plain.gguf"), (said := []).append) and "layer whose output differs is 2 (parallel)" in said[1]


def test_calibration(plain, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    from sb_convert import calibrate
    monkeypatch.setattr(calibrate, "tokenize", lambda folder, text: list(text))
    monkeypatch.setattr(calibrate, "check_requirements", lambda text: None)
    text = tmp_path / "text.txt"
    text.write_bytes(np.random.default_rng(0).integers(32, 127, 16 * 144, np.uint8).tobytes())
    said: list[str] = []
    result = written(plain[0], "int8", said, spike=SpikeOptions(True, calibrate=text))
    assert [line.split(":")[0] for line in said] == ["calibrate"] * 4 and verify_tensors(result, said.append)
    largest = written(plain[0], "int8", spike=SpikeOptions(True))
    for name in ("blk.1.ffn_down_exps.scales", "blk.3.time_mix_key.scales"):
        found, plain_scales = (Stored.open(r.files).by_name[name].data for r in (result, largest))
        assert found.shape == plain_scales.shape


# --- a GGUF's spikes ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("options, named", [(["--spike-k", "2"], "--spike-k"), (["--spike"], "--spike"), (["--no-spike"], "--no-spike"), (["--spike-scope", "paper"], "--spike-scope")])
def test_the_spikes_of_a_model_with_sinks_stay(plain, tmp_path, capsys, options, named):
    assert main([str(plain[1]), "-o", str(tmp_path / "x.gguf"), *options]) == 1
    assert f"{plain[1]}: {named}: got a model with 5 sinks, expected one without; " in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("dense, down", [([0, 2], "blk.0.ffn_down.weight"), ([], "blk.0.ffn_down_exps.weight")])
def test_without_sinks_they_can_be_changed(tmp_path, capsys, dense, down):
    path = written(write_moe(tmp_path / "x", num_meta_tokens=0, dense_mlp_layers=dense), "q4_0").files[0]
    assert main([str(path), "-o", str(tmp_path / "y.gguf"), "--spike-k", "2", "--spike"]) == 0
    assert keys_of(tmp_path / "y.gguf")["spike.k"] == 2.0
    capsys.readouterr()
    assert main([str(path), "-o", str(tmp_path / "z.gguf"), "--spike", "--spike-scope", "released"]) == 1
    assert f"{down}: got type Q4_0 for scope released" in capsys.readouterr().err


# --- bad input ------------------------------------------------------------------------------------------------

L = "model.layers.1."
E = L + "block_sparse_moe."


def without(*names: str):
    return lambda t: {n: x for n, x in t.items() if not n.startswith(names)}


def also(name: str, shape: tuple[int, ...]):
    return lambda t: t | {name: np.ones(shape, np.float32)}


def spoilt(name: str, value: float):
    def change(t):
        t[name].reshape(-1)[7] = value
    return change


@pytest.mark.parametrize("config, tensors, message", [
    ({"dense_mlp_layers": KeyError}, None, "dense_mlp_layers: got nothing, expected a value (a list of integers); "),
    ({"full_attn_layers": KeyError}, None, "full_attn_layers: got nothing, expected a value (a list of integers); "),
    ({"full_attn_layers": None}, None, "full_attn_layers: got None (NoneType), expected a list of integers; "),
    ({"dense_mlp_layers": [0, 4]}, None, "dense_mlp_layers: got (0, 4), expected indices from 0 to 3; "),
    ({"full_attn_layers": [2, 2]}, None, "full_attn_layers: got (2, 2), expected each layer once; "),
    ({"num_experts_per_topk": 2}, None, "num_experts_per_topk: got 2, expected 1; "),
    ({"num_experts_per_tok": 2}, None, "num_experts_per_tok: got 2, expected what num_experts_per_topk says (1); "),
    ({"num_layer_experts": [1, 3, 1, 4]}, None, "num_layer_experts: got 4 for layer 3, expected 3; num_local_experts and dense_mlp_layers say so; "),
    ({"num_layer_experts": [1, 3, 1]}, None, "num_layer_experts: got [1, 3, 1], expected a list of 4 (num_hidden_layers); "),
    ({"interleaved_sliding_window": [6, 0, 6, 6]}, None, "interleaved_sliding_window: got 0 for layer 1, expected 6; sliding_window and full_attn_layers say so; "),
    ({"layer_types": ["sliding_attention"] * 4}, None, "layer_types: got 'sliding_attention' for layer 2, expected 'full_attention'; "),
    ({"k_clamp_max": 1.5}, None, "k_clamp_max: got 1.5, expected a number above 0, at most 1 (no clamp); "),
    ({"k_clamp_max": None}, None, "k_clamp_max: got None (NoneType), expected float; "),
    ({"lower_bound_period": 0}, None, "lower_bound_period: got 0, expected an integer from 1"),
    ({"linear_q_activation": "swish"}, None, "linear_q_activation: got 'swish', expected 'relu' or 'sigmoid'; "),
    ({"norm_topk_prob": 1}, None, "norm_topk_prob: got 1 (int), expected bool; "),
    ({"num_meta_tokens": -1}, None, "num_meta_tokens: got -1, expected an integer from 0"),
    ({"shared_intermediate_size": 0}, None, "shared_intermediate_size: got 0, expected an integer from 1"),
    ({"num_local_experts": 0}, None, "num_local_experts: got 0, expected 1 to 512; "),
    ({"use_short_conv": True}, None, "use_short_conv: got True, expected false; "),
    ({"head_dim": 64}, None, "head_dim: got 64, expected hidden_size / num_attention_heads; "),
    ({"architectures": None}, None, "architectures: got None, expected ['HymetaForCausalLM'] where model_type is 'hybrid'; "),
    ({"architectures": ["HymetaForCausalLM", "HymetaModel"]}, None, "architectures: got ['HymetaForCausalLM', 'HymetaModel'], expected ['HymetaForCausalLM']; "),
    ({"model_type": "gla_swa"}, None, "model_type: got 'gla_swa', expected 'hybrid'; "),
    ({}, without(E + "experts.2."), f"tensors: got 3 missing: {E}experts.2.gate_proj.weight"),
    ({}, also(E + "experts.3.gate_proj.weight", (128, 128)), f"tensors: got 1 left over: {E}experts.3.gate_proj.weight, "),
    ({}, also(E + "gate.bias", (3,)), f"tensors: got 1 left over: {E}gate.bias, "),
    ({}, also(E + "gate.weight", (4, 128)), f"{E}gate.weight: got shape [4, 128], expected [3, 128]; "),
    ({}, also(E + "experts.1.up_proj.weight", (64, 128)), f"{E}experts.1.up_proj.weight: got shape [64, 128], expected [128, 128]; "),
    ({}, without("model.meta_tokens"), "tensors: got 1 missing: model.meta_tokens, "),
    ({}, also("model.meta_tokens", (4, 128)), "model.meta_tokens: got shape [4, 128], expected [5, 128]; "),
    ({}, without("model.lower_bounds"), "tensors: got 1 missing: model.lower_bounds, "),
    ({}, also("model.lower_bounds", (3, 128)), "model.lower_bounds: got shape [3, 128], expected [4, 128]; "),
    ({}, also("mode.norm.weight", (128,)), "tensors: got 1 left over: mode.norm.weight, "),
    ({}, spoilt(E + "experts.1.gate_proj.weight", np.nan), f"{E}experts.1.gate_proj.weight: got 1 NaN or infinite values, the first at [0, 7], "),
    ({"torch_dtype": "float32"}, spoilt(E + "experts.2.down_proj.weight", np.inf), f"{E}experts.2.down_proj.weight: got 1 NaN or infinite values, the first at [0, 7], "),
    ({}, spoilt("model.lower_bounds", np.inf), "model.lower_bounds: got 1 NaN or infinite values, the first at [0, 7], "),
    ({}, spoilt("model.meta_tokens", np.nan), "model.meta_tokens: got 1 NaN or infinite values, the first at [0, 7], "),
    ({}, spoilt(L + "attn.norm2.weight", np.nan), f"{L}attn.norm2.weight: got 1 NaN or infinite values, the first at [7], "),
])
def test_bad_checkpoints(tmp_path, capsys, config, tensors, message):
    folder = write_moe(tmp_path / "x", tensors=tensors)
    (folder / "config.json").write_text(json.dumps({k: v for k, v in (MOE | config).items() if v is not KeyError}))
    before = sorted(p.name for p in folder.iterdir())
    assert main([str(folder)]) == 1
    text = capsys.readouterr().err
    assert text.startswith(f"sb-convert: {folder}") and message in text and text.count("\n") == 1 and sorted(p.name for p in folder.iterdir()) == before


@pytest.mark.parametrize("tensors, message", [
    (without(E + "experts.1.up_proj.weight_quantizer"), f"{E}experts.1.up_proj.weight_quantizer.scales: got nothing, expected the scales of this projection"),
    (spoilt(E + "experts.2.down_proj.weight_quantizer.scales", 0.0), f"{E}experts.2.down_proj.weight_quantizer.scales: got 0 at row 7, group 0, expected a finite scale above 0; "),
    (spoilt(E + "experts.2.down_proj.weight", 1e4), f"{E}experts.2.down_proj.weight: got code "),
])
def test_bad_scales(tmp_path, capsys, tensors, message):
    assert main([str(write_moe(tmp_path / "x", scales=True, tensors=tensors)), "--spike-scope", "paper"]) == 1
    assert message in capsys.readouterr().err


def test_widths_that_cannot_spike(tmp_path, capsys):
    assert main([str(write_moe(tmp_path / "x", shared_intermediate_size=40)), "--spike"]) == 1
    assert "shared_intermediate_size: got 40, expected a multiple of 32 for a spiking model; " in capsys.readouterr().err


def test_memory_is_bounded(tmp_path):
    """Twice the experts take no more: nothing holds a stack, nor two of its matrices."""
    def peak(n: int) -> float:
        folder = write_moe(tmp_path / f"{n}", hidden_size=512, intermediate_size=2048, shared_intermediate_size=128, num_hidden_layers=1, dense_mlp_layers=[],
                           full_attn_layers=[0], num_local_experts=n, num_attention_heads=8, num_meta_tokens=16)
        return converter_peak(folder, tmp_path / "out.gguf", "--outtype", "q8_0")
    assert peak(12) < peak(2) + 20
