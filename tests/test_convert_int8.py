"""INT8 weights: codes and scales of the file are the checkpoint's, exactly, and what spikes is said in the keys."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from conftest import converter_peak, shared

from sb_convert.cli import main
from sb_convert.convert import Options, convert
from sb_convert.formats import decode
from sb_convert.int8 import LARGEST_CODE
from sb_convert.numerics import kl_divergence
from sb_convert.sources import open_checkpoint
from sb_convert.spike import SpikeOptions
from sb_convert.verify import Stored, verify_tensors

T = gguf.GGMLQuantizationType
PROJECTIONS = {"attn_q": "attn.q_proj", "attn_k": "attn.k_proj", "attn_v": "attn.v_proj", "attn_output": "attn.o_proj", "attn_gate": "attn.gk_proj",
               "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
SHAPES = [{}, {"num_hidden_layers": 3, "attn_layers": [0, 2], "hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 640, "num_key_value_heads": 3},
          {"tie_word_embeddings": True, "num_key_value_heads": 4}]


def converted(folder: Path, *options: str, out: Path | None = None) -> gguf.GGUFReader:
    out = out or folder.parent / "out.gguf"
    assert main([str(folder), "-o", str(out), "--force", *options]) == 0
    return gguf.GGUFReader(out)


def tensors_of(reader: gguf.GGUFReader) -> dict[str, gguf.ReaderTensor]:
    return {t.name: t for t in reader.tensors}


def spike_keys(reader: gguf.GGUFReader) -> tuple | None:
    fields = [reader.get_field(f"spikingbrain.spike.{k}") for k in ("enable", "k", "scope")]
    return tuple(f.contents() for f in fields) if all(fields) else None


def read_codes(stored: dict[str, gguf.ReaderTensor], stem: str) -> np.ndarray:
    """Codes [out, in] of the file as int64, outliers added: written out here, apart from the converter's own reader."""
    codes = stored[f"{stem}.weight"].data.astype(np.int64)
    assert np.abs(codes).max() <= 127
    if f"{stem}.outlier_index" in stored:
        index, value = stored[f"{stem}.outlier_index"].data, stored[f"{stem}.outlier_value"].data
        assert index.dtype == np.int32 and value.dtype == np.int16 and len(index) == len(value) > 0
        assert (np.diff(index.astype(np.int64)) > 0).all() and (value != 0).all()
        for i, v in zip(index.tolist(), value.tolist()):
            codes[i // codes.shape[1], i % codes.shape[1]] += v
    return codes


def check_codes(folder: Path, reader: gguf.GGUFReader, down: bool) -> int:
    """Every projection against the checkpoint; returns how many codes lie outside int8."""
    source, stored, outside = open_checkpoint(folder), tensors_of(reader), 0
    for name in [n for n in source if n.endswith("_proj.weight") and (down or "down_proj" not in n)]:
        _, _, il, projection = name.removesuffix(".weight").split(".", 3)
        stem = f"blk.{il}.{next(ours for ours, theirs in PROJECTIONS.items() if theirs == projection)}"
        weight = source[name].rows(0, None)
        scales = source[name.removesuffix("weight") + "weight_quantizer.scales"].rows(0, None)
        assert stored[f"{stem}.weight"].tensor_type == T.I8 and stored[f"{stem}.scales"].tensor_type == T.F32
        np.testing.assert_array_equal(stored[f"{stem}.scales"].data, scales[..., 0])
        expected = np.array([[np.rint(weight[r, g * 128:(g + 1) * 128] / scales[r, g, 0]) for g in range(scales.shape[1])] for r in range(len(weight))])
        expected = expected.reshape(weight.shape).astype(np.int64)
        np.testing.assert_array_equal(read_codes(stored, stem), expected)
        assert (f"{stem}.outlier_index" in stored) == bool((np.abs(expected) > 127).any())
        outside += int((np.abs(expected) > 127).sum())
    return outside


@pytest.mark.parametrize("scope", ["released", "paper"])
def test_golden_codes_are_exact(tmp_path, scope):
    folder = shared("golden-w8aspike")
    reader = converted(folder, "--spike-scope", scope, out=tmp_path / "x.gguf")
    assert check_codes(folder, reader, down=scope == "paper") > 20000
    assert spike_keys(reader) == (True, 3.0, scope)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_codes_are_exact(make_checkpoint, shape, form):
    folder = make_checkpoint(scales=True, form=form, **shape)
    n = check_codes(folder, converted(folder, "--spike-scope", "paper"), down=True)
    total = sum(t.data.size for t in open_checkpoint(folder).values() if t.name.endswith("_proj.weight")) if form == "safetensors" else 0
    assert n > 0 and (not total or 0.01 < n / total < 0.05)


def test_blocks_do_not_matter(make_checkpoint, monkeypatch):
    """Outliers are found and numbered block by block: blocks of one row give the same bytes."""
    folder = make_checkpoint(scales=True)
    whole = {t.name: t.data.tobytes() for t in converted(folder).tensors}
    monkeypatch.setattr("sb_convert.formats.BLOCK_VALUES", 128)
    assert {t.name: t.data.tobytes() for t in converted(folder).tensors} == whole


def test_no_outliers_no_tensors(make_checkpoint):
    def widen(t):
        for name in t:
            if name.endswith("scales"):
                t[name] *= 4
    stored = tensors_of(converted(make_checkpoint(scales=True, tensors=widen), "--spike-scope", "paper"))
    assert "blk.0.attn_q.scales" in stored and not [n for n in stored if "outlier" in n]


def test_far_codes_are_kept(make_checkpoint):
    def one(t):
        t["model.layers.1.attn.k_proj.weight_quantizer.scales"][:] = 1.0
        t["model.layers.1.attn.k_proj.weight"][:] = 0.5  # half to even: 0
        t["model.layers.1.attn.k_proj.weight"][3, 100:105] = [LARGEST_CODE, -LARGEST_CODE, -128, 127.5, 126.5]
    stored = tensors_of(converted(make_checkpoint(scales=True, tensors=one)))
    assert stored["blk.1.attn_k.outlier_index"].data.tolist() == [3 * 128 + 100 + i for i in range(4)]
    assert stored["blk.1.attn_k.outlier_value"].data.tolist() == [32767, -32767, -1, 1]
    assert read_codes(stored, "blk.1.attn_k")[3, 99:106].tolist() == [0, LARGEST_CODE, -LARGEST_CODE, -128, 128, 126, 0]


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
def test_a_plain_checkpoint_in_int8(make_checkpoint, dtype):
    def zero(t):
        t["model.layers.0.attn.q_proj.weight"][5] = 0
    folder = make_checkpoint(hidden_size=256, intermediate_size=384, dtype=dtype, tensors=zero)
    source, reader = open_checkpoint(folder), converted(folder, "--outtype", "int8")
    stored = tensors_of(reader)
    assert spike_keys(reader) is None and not [n for n in stored if "outlier" in n]
    for ours, theirs in (("attn_q", "attn.q_proj"), ("ffn_down", "mlp.down_proj")):
        w, scales = source[f"model.layers.0.{theirs}.weight"].rows(0, None), stored[f"blk.0.{ours}.scales"].data
        codes = read_codes(stored, f"blk.0.{ours}")
        groups = w.reshape(len(w), -1, 128)
        assert np.allclose(scales, np.where((groups == 0).all(-1), 1, np.abs(groups).max(-1) / 127), rtol=1e-6)
        off = np.abs(groups - codes.reshape(groups.shape) * scales[..., None])
        assert (off <= scales[..., None] * (0.5 + 1e-5)).all() and off.max() > 0
    assert (stored["blk.0.attn_q.weight"].data[5] == 0).all()
    assert stored["token_embd.weight"].tensor_type == T[dtype] and stored["output.weight"].tensor_type == T.F16
    assert all(stored[f"blk.0.time_mix_decay_w{i}.weight"].tensor_type == T.F32 for i in (1, 2))


def test_rows_of_no_whole_groups_fall_back(make_checkpoint, capsys):
    stored = tensors_of(converted(make_checkpoint(hidden_size=128, intermediate_size=192), "--outtype", "int8"))
    assert stored["blk.0.ffn_down.weight"].tensor_type == T.F16 and "blk.0.ffn_down.scales" not in stored
    assert "blk.0.ffn_down.weight: rows of 192 are no whole blocks of INT8 (128): stored as F16" in capsys.readouterr().out


@pytest.mark.parametrize("keep, expected", [(32, T.F32), (16, T.BF16), (11, T.F16)])
@pytest.mark.parametrize("tied", [False, True])
def test_the_embedding_is_exact_and_small(make_checkpoint, keep, expected, tied):
    """Rounding it would flip counts in every layer; a float32 release may well hold 16-bit values."""
    def rounded(t):
        e = t["model.embeddings.weight"]
        t["model.embeddings.weight"] = {32: e, 16: (e.view(np.uint32) & 0xFFFF0000).view(np.float32), 11: e.astype(np.float16).astype(np.float32)}[keep]
    folder = make_checkpoint(scales=True, tensors=rounded, tie_word_embeddings=tied)
    t = tensors_of(converted(folder))["token_embd.weight"]
    assert t.tensor_type == expected
    np.testing.assert_array_equal(decode(t.data, t.tensor_type), open_checkpoint(folder)["model.embeddings.weight"].rows(0, None))


def test_auto_and_what_is_said(make_checkpoint, capsys):
    reader = converted(make_checkpoint(scales=True))
    text = capsys.readouterr().out
    codes = read_codes(tensors_of(reader), "blk.1.attn_v")
    n = int((np.abs(codes) > 127).sum())
    assert f"blk.1.attn_v.weight: codes up to {np.abs(codes).max()}, {n} of {codes.size} ({100 * n / codes.size:.2f}%) outside +-127" in text
    assert "out.gguf: int8, spikes (k = 3, scope released), " in text
    assert reader.get_field("general.file_type").contents() == gguf.LlamaFileType.MOSTLY_Q8_0
    n_weights = sum(t.data.size for name, t in open_checkpoint(Path(make_checkpoint(scales=True))).items() if "scales" not in name)
    assert f"{8 * sum(int(t.n_bytes) for t in reader.tensors) / n_weights:.2f} bits per weight" in text
    assert main([str(make_checkpoint(scales=True)), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "blk.1.attn_v.weight: codes up to " in text and f"{'blk.1.attn_v.outlier_index':34} {n:>14} I32" in text and "checkpoint-INT8.gguf; nothing written" in text


@pytest.mark.parametrize("options, expected", [
    ([], T.F16), (["--spike-down-type", "f32"], T.F32), (["--spike-down-type", "q8_0"], T.Q8_0), (["--spike-scope", "paper"], T.I8),
    (["--no-spike"], T.F16), (["--outtype", "q4_0"], T.F16), (["--outtype", "f32"], T.F32), (["--outtype", "f32", "--spike-down-type", "f16"], T.F16),
    (["--outtype", "q4_0", "--spike-scope", "paper"], T.Q4_0)])
def test_the_down_projection(make_checkpoint, options, expected):
    folder = make_checkpoint(scales=True)
    stored = tensors_of(converted(folder, *options))
    t = stored["blk.1.ffn_down.weight"]
    assert t.tensor_type == expected and ("blk.1.ffn_down.scales" in stored) == (expected == T.I8)
    if expected == T.F32:  # raw, not codes times scales
        np.testing.assert_array_equal(t.data, open_checkpoint(folder)["model.layers.1.mlp.down_proj.weight"].rows(0, None))


@pytest.mark.parametrize("outtype", ["f32", "f16", "bf16", "q8_0", "q4_0"])
def test_codes_in_another_type(make_checkpoint, outtype):
    """The weights of a W8ASpike checkpoint are codes times scales, whatever they are then stored as."""
    folder = make_checkpoint(scales=True)
    source, reader = open_checkpoint(folder), converted(folder, "--outtype", outtype, "--spike-scope", "paper")
    w = source["model.layers.0.attn.gk_proj.weight"].rows(0, None).reshape(-1, 1, 128)
    scales = source["model.layers.0.attn.gk_proj.weight_quantizer.scales"].rows(0, None)
    t = tensors_of(reader)["blk.0.attn_gate.weight"]
    expected = (np.rint(w / scales) * scales).reshape(-1, 128)
    got = decode(np.asarray(t.data), t.tensor_type)
    step = {"f32": 0, "f16": 1e-3, "bf16": 1e-2, "q8_0": 1e-2, "q4_0": 0.15}[outtype]
    assert np.abs(got - expected).max() <= step * np.abs(expected).max() and spike_keys(reader) == (True, 3.0, "paper")


@pytest.mark.parametrize("outtype", ["int8", "f32", "f16", "bf16", "q8_0", "q4_0"])
@pytest.mark.parametrize("options, expected", [
    (["--spike"], (True, 3.0, "paper")), (["--spike", "--spike-k", "2.5"], (True, 2.5, "paper")),
    (["--spike", "--spike-scope", "released"], (True, 3.0, "released")), ([], None)])
def test_a_plain_checkpoint_made_spiking(make_checkpoint, outtype, options, expected):
    assert spike_keys(converted(make_checkpoint(hidden_size=128, intermediate_size=256), "--outtype", outtype, *options)) == expected


@pytest.mark.parametrize("options, expected", [
    ([], (True, 3.0, "released")), (["--spike"], (True, 3.0, "released")), (["--spike-k", "4"], (True, 4.0, "released")),
    (["--no-spike"], (False, 3.0, "released")), (["--no-spike", "--spike-k", "2", "--spike-scope", "paper"], (False, 2.0, "paper"))])
def test_keys_of_a_w8aspike_checkpoint(make_checkpoint, options, expected):
    assert spike_keys(converted(make_checkpoint(scales=True), *options)) == expected


# --- bad input ------------------------------------------------------------------------------------------------

Q, QS = "model.layers.1.attn.q_proj.weight", "model.layers.1.attn.q_proj.weight_quantizer.scales"


def put(name, at, value):
    def change(t):
        t[name][at] = value
    return change


def replaced(name, make):
    def change(t):
        t[name] = make(t[name])
    return change


def without(name):
    def change(t):
        del t[name]
    return change


@pytest.mark.parametrize("change, message", [
    (without(QS), f"{QS}: got nothing, expected the scales of this projection"),
    (without("model.layers.0.mlp.down_proj.weight_quantizer.scales"), "model.layers.0.mlp.down_proj.weight_quantizer.scales: got nothing"),
    (put(QS, (7, 1), 0.0), f"{QS}: got 0 at row 7, group 1, expected a finite scale above 0; "),
    (put(QS, (127, 0), -1.5), f"{QS}: got -1.5 at row 127, group 0, expected a finite scale above 0; "),
    (put(QS, (0, 0), np.nan), f"{QS}: got nan at row 0, group 0"),
    (put(QS, (3, 0), np.inf), f"{QS}: got inf at row 3, group 0"),
    (replaced(QS, lambda s: s[..., 0]), f"{QS}: got shape [256, 2], expected [256, 256 / 128, 1]; "),
    (replaced(QS, lambda s: np.repeat(s, 2, 1)), f"{QS}: got shape [256, 4, 1], expected [256, 256 / 128, 1]; each scale is that of one row and 128 inputs"),
    (replaced(QS, lambda s: s[:-1]), f"{QS}: got shape [255, 2, 1], expected [256, 256 / 128, 1]; "),
    (put(QS, (9, 1), 1e-9), f"{Q}: got code "),
    (put(Q, (9, 200), np.nan), f"{Q}: got 1 NaN or infinite values, the first at [9, 200], expected finite weights; "),
    (replaced("model.embeddings.weight", lambda e: e * np.nan), "model.embeddings.weight: got "),
    (lambda t: t.update({"lm_head.weight_quantizer.scales": np.ones((288, 2, 1), np.float32)}), "tensors: got 1 left over: lm_head.weight_quantizer.scales"),
])
def test_bad_scales(make_checkpoint, capsys, change, message):
    folder = make_checkpoint(scales=True, hidden_size=256, tensors=change)
    assert main([str(folder)]) == 1
    text = capsys.readouterr().err
    assert message in text and text.count("\n") == 1 and not list(folder.glob("*.gguf"))


def test_sizes_that_no_group_fits(make_checkpoint, capsys):
    folder = make_checkpoint(scales=True, tensors=lambda t: None)
    config = json.loads((folder / "config.json").read_text())
    assert main([str(make_checkpoint(dtype="F32", gate_rank=0, name="odd", tensors=lambda t: t.update(
        {n.removesuffix("weight") + "weight_quantizer.scales": np.ones((len(w), 1, 1), np.float32) for n, w in list(t.items()) if n.endswith("_proj.weight")})))]) == 1
    assert config["hidden_size"] == 128 and "q_proj.weight_quantizer.scales: got shape [64, 1, 1], expected [64, 64 / 128, 1]; " in capsys.readouterr().err


@pytest.mark.parametrize("options, message", [
    (["--spike-k", "2"], "--spike-k: got a model that does not spike, expected a spiking one, or --spike; "),
    (["--spike-scope", "paper"], "--spike-scope: got a model that does not spike"), (["--no-spike"], "--no-spike: got a model that does not spike"),
    (["--spike-down-type", "f16"], "--spike-down-type: got a model that does not spike"),
    (["--spike", "--spike-down-type", "f16"], "--spike-down-type: got scope paper, expected scope released; ")])
def test_options_without_a_meaning(make_checkpoint, capsys, options, message):
    assert main([str(make_checkpoint()), *options]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--spike-k", "0"], ["--spike-k", "-1"], ["--spike-k", "nan"], ["--spike-k", "inf"], ["--spike-k", "1e-40"], ["--spike-k", "x"],
                                     ["--spike", "--no-spike"], ["--spike-scope", "all"], ["--spike-down-type", "q4_0"], ["--vocab-only", "--spike"]])
def test_options_that_cannot_be(make_checkpoint, capsys, options):
    with pytest.raises(SystemExit) as e:
        main([str(make_checkpoint(scales=True)), *options])
    assert e.value.code == 2 and options[0].split("=")[0] in capsys.readouterr().err


def test_widths_that_cannot_spike(make_checkpoint, tmp_path, capsys):
    folder = make_checkpoint(intermediate_size=80)
    assert main([str(folder), "--spike"]) == 1
    assert "intermediate_size: got 80, expected a multiple of 32 for a spiking model; convert it without --spike" in capsys.readouterr().err
    converted(folder, out=tmp_path / "x.gguf")
    assert main([str(tmp_path / "x.gguf"), "--spike"]) == 1
    assert "intermediate_size: got 80, expected a multiple of 32" in capsys.readouterr().err


# --- a GGUF made spiking --------------------------------------------------------------------------------------

@pytest.mark.parametrize("outtype", ["q4_0", "q8_0", "f16", "int8"])
def test_a_gguf_made_spiking_is_what_conversion_gives(make_checkpoint, tmp_path, outtype):
    folder = make_checkpoint(hidden_size=128, intermediate_size=256)
    converted(folder, "--outtype", outtype, out=tmp_path / "plain.gguf")
    converted(folder, "--outtype", outtype, "--spike", "--spike-k", "2", out=tmp_path / "spiking.gguf")
    converted(tmp_path / "plain.gguf", "--spike", "--spike-k", "2", out=tmp_path / "made.gguf")
    a, b = (gguf.GGUFReader(tmp_path / f"{name}.gguf") for name in ("spiking", "made"))
    assert {k: (f.types, f.contents()) for k, f in a.fields.items() if not k.startswith("GGUF.")} == \
        {k: (f.types, f.contents()) for k, f in b.fields.items() if not k.startswith("GGUF.")}
    assert [(t.name, t.tensor_type, t.shape.tolist(), t.data.tobytes()) for t in a.tensors] == [(t.name, t.tensor_type, t.shape.tolist(), t.data.tobytes()) for t in b.tensors]


def test_k_and_on_can_be_changed_the_scope_not(make_checkpoint, tmp_path, capsys):
    out = tmp_path / "x.gguf"
    converted(make_checkpoint(scales=True), out=out)
    assert spike_keys(converted(out, "--spike-k", "2.5", out=tmp_path / "k.gguf")) == (True, 2.5, "released")
    assert spike_keys(converted(tmp_path / "k.gguf", "--no-spike", out=tmp_path / "off.gguf")) == (False, 2.5, "released")
    assert spike_keys(converted(tmp_path / "off.gguf", "--spike", "--spike-scope", "released", out=tmp_path / "k.gguf")) == (True, 2.5, "released")
    assert main([str(out), "--no-spike", "-o", str(out), "--force"]) == 1 and spike_keys(gguf.GGUFReader(out)) == (True, 3.0, "released")  # never over its input
    assert main([str(out), "--spike-scope", "paper", "-o", str(tmp_path / "y.gguf")]) == 1
    assert "--spike-scope: got paper, and a file of scope released, expected the scope it was converted with; " in capsys.readouterr().err
    assert not (tmp_path / "y.gguf").exists()
    assert main([str(out), "--no-spike"]) == 0 and (tmp_path / "x-spike.gguf").exists()


def test_scope_released_needs_a_float_down_projection(make_checkpoint, tmp_path, capsys):
    folder = make_checkpoint(hidden_size=128, intermediate_size=256)
    for outtype, code in (("q4_0", 1), ("int8", 1), ("q8_0", 0), ("bf16", 0)):
        converted(folder, "--outtype", outtype, out=tmp_path / "x.gguf")
        assert main([str(tmp_path / "x.gguf"), "--spike", "--spike-scope", "released", "-o", str(tmp_path / "y.gguf"), "--force"]) == code
    assert "blk.0.ffn_down.weight: got type Q4_0 for scope released, expected one of F32, F16, BF16, Q8_0; " in capsys.readouterr().err


def edited(path: Path, **keys) -> None:
    """A tiny GGUF with these keys; dots are written __."""
    w = gguf.GGUFWriter(path, keys.pop("arch", "spikingbrain"))
    for key, value in keys.items():
        if value == "":  # not there
            continue
        add = {bool: w.add_bool, float: w.add_float32, str: w.add_string, int: w.add_uint16}[type(value)]
        add(key.replace("__", "."), value)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


@pytest.mark.parametrize("keys, message", [
    ({"arch": "llama"}, "general.architecture: got 'llama', expected 'spikingbrain'; "),
    ({"spikingbrain__embedding_length": ""}, "spikingbrain.embedding_length: got nothing, expected a number; "),
    ({"split__count": 3}, "split.count: got 3, expected a model in one file; join its parts first"),
    ({"spikingbrain__spike__enable": True}, "spikingbrain.spike.k: got nothing, expected a value, as the file has spikingbrain.spike.enable; "),
    ({"spikingbrain__spike__enable": True, "spikingbrain__spike__k": -1.0, "spikingbrain__spike__scope": "paper"}, "spike keys: got True, -1.0, 'paper', expected "),
    ({"spikingbrain__spike__enable": True, "spikingbrain__spike__k": 3.0, "spikingbrain__spike__scope": "both"}, "spike keys: got True, 3.0, 'both', expected "),
])
def test_other_ggufs_are_refused(tmp_path, capsys, keys, message):
    edited(tmp_path / "x.gguf", **{"spikingbrain__embedding_length": 64, "spikingbrain__feed_forward_length": 64, **keys})
    assert main([str(tmp_path / "x.gguf"), "--spike", "-o", str(tmp_path / "y.gguf")]) == 1
    text = capsys.readouterr().err
    assert message in text and text.count("\n") == 1 and not (tmp_path / "y.gguf").exists()


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x03\0\0\0" + b"\xff" * 40, b"PK\x03\x04" * 100])
def test_damaged_ggufs_are_refused(tmp_path, capsys, content):
    (tmp_path / "x.gguf").write_bytes(content)
    assert main([str(tmp_path / "x.gguf"), "--spike"]) == 1
    assert "x.gguf: content: got " in capsys.readouterr().err


@pytest.mark.parametrize("options, message", [
    ([], "got a file and nothing to change in it"), (["--spike", "--outtype", "q4_0"], "--outtype: got a GGUF file to read, expected a checkpoint folder"),
    (["--spike", "--verify"], "--verify: got a GGUF file"), (["--spike", "--spike-down-type", "f16"], "--spike-down-type: got a GGUF file")])
def test_options_for_a_gguf(make_checkpoint, tmp_path, capsys, options, message):
    converted(make_checkpoint(), out=tmp_path / "x.gguf")
    with pytest.raises(SystemExit):
        main([str(tmp_path / "x.gguf"), *options])
    assert message in capsys.readouterr().err


# --- verify, reference, memory --------------------------------------------------------------------------------

def written(folder: Path, out: Path, outtype: str = "auto", **spike):
    return convert(folder, Options(out, outtype, force=True, spike=SpikeOptions(**spike)), say=lambda _: None)


@pytest.mark.parametrize("scales", [True, False])
def test_verify_passes_what_is_right(make_checkpoint, scales):
    folder = make_checkpoint(scales=scales, hidden_size=128, intermediate_size=256)
    for outtype in ("int8", "f32", "q4_0"):
        said = []
        assert verify_tensors(written(folder, folder / "x.gguf", outtype), said.append), said


@pytest.mark.parametrize("name", ["blk.0.attn_gate.weight", "blk.1.ffn_up.scales", "blk.0.attn_k.outlier_index", "blk.1.attn_v.outlier_value"])
def test_verify_finds_one_wrong_code(make_checkpoint, name):
    folder = make_checkpoint(scales=True)
    result = written(folder, folder / "x.gguf", on=True)
    tensor = tensors_of(gguf.GGUFReader(result.files[0]))[name]
    with open(result.files[0], "r+b") as f:
        f.seek(int(tensor.data_offset) + int(tensor.n_bytes) // 8 * 4)
        at = f.tell()
        byte = f.read(1)[0] ^ 1
        f.seek(at)
        f.write(bytes([byte]))
    said = []
    assert not verify_tensors(result, said.append)
    assert said[0].startswith(f"verify: {name.rsplit('.', 1)[0]}.weight: beyond the error bound")


def mean_kl(got: np.ndarray, expected: np.ndarray) -> float:
    return float(kl_divergence(expected, got).mean())


@pytest.mark.parametrize("options, limit", [({}, 1e-4), ({"down_type": "f32"}, 1e-6), ({"down_type": "q8_0"}, 2e-3)])
def test_the_file_computes_the_golden_logits(tmp_path, options, limit):
    """The reference on what the file holds; checkpoint-format.md: F16 down 9e-5, Q8_0 down 7e-4."""
    pytest.importorskip("torch")
    from sb_convert.verify import reference_logits
    golden = np.load(shared("golden-w8aspike") / "golden.npz")
    result = written(shared("golden-w8aspike"), tmp_path / "x.gguf", **options)
    assert mean_kl(reference_logits(result, golden["tokens"].tolist()), golden["logits"]) <= limit


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spike", [{"scope": "paper"}, {"down_type": "f32"}, {"on": False, "down_type": "f32"}, {"k": 2.0, "scope": "paper"}])
def test_the_file_computes_what_the_checkpoint_does(make_checkpoint, tmp_path, shape, spike):
    torch = pytest.importorskip("torch")
    from sb_convert.reference import Model, Spike
    from sb_convert.verify import reference_logits
    folder, tokens = make_checkpoint(scales=True, **shape), list(range(40))
    result = written(folder, tmp_path / "x.gguf", **spike)
    own = Model.from_pretrained(folder, Spike(spike.get("k", 3.0), spike.get("scope", "released")))
    if spike.get("on") is False:  # ordinary activations on the codes
        for module in own.modules():
            if hasattr(module, "coded_weight") and module.spike is not None:
                module.weight.data, module.spike = module.coded_weight().detach(), None
            elif hasattr(module, "g_norm") or hasattr(module, "spike"):
                module.spike = None
    with torch.no_grad():
        expected = own(torch.tensor([tokens]))[0][0].numpy()
    assert mean_kl(reference_logits(result, tokens), expected) <= 1e-6


def test_stored_reads_codes(make_checkpoint, tmp_path):
    folder = make_checkpoint(scales=True)
    stored, source = Stored.open(written(folder, tmp_path / "x.gguf").files), open_checkpoint(folder)
    w, s = (source[f"model.layers.0.attn.o_proj.{n}"].rows(0, None) for n in ("weight", "weight_quantizer.scales"))
    np.testing.assert_array_equal(stored.array("blk.0.attn_output.weight"), (np.rint(w.reshape(*s.shape[:2], 128) / s) * s).reshape(w.shape))


def test_memory_is_bounded(make_checkpoint, tmp_path):
    """Every code an outlier: they must not be gathered. The matrices are 12 and 96 MB in float32, their outliers 18 and 144 MB."""
    def all_outside(t):
        for name in t:
            if name.endswith("scales"):
                t[name] = np.full_like(t[name], 1.0)
            elif name.endswith("_proj.weight"):
                t[name] = np.full_like(t[name], 200.0)
    peaks = []
    for n_ff in (8192, 65536):
        folder = make_checkpoint(scales=True, name=f"ff{n_ff}", tensors=all_outside, hidden_size=384, num_attention_heads=4, num_hidden_layers=1, attn_layers=[0], intermediate_size=n_ff)
        peaks.append(converter_peak(folder, tmp_path / "x.gguf"))
        index = tensors_of(gguf.GGUFReader(tmp_path / "x.gguf"))["blk.0.ffn_up.outlier_index"].data
        assert len(index) == n_ff * 384 and index[-1] == n_ff * 384 - 1
    small, large = peaks
    assert large - small < 100, f"{small:.0f} MiB for the small model, {large:.0f} MiB for the large one"
