"""The converter's small decisions, each in a table over all its cases: keys, sizes, types, limits, options."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from conftest import TINY

from sb_convert import bpe, calibrate, metadata, special, verify
from sb_convert.cli import parser, spike_k, split_size
from sb_convert.config import Config
from sb_convert.config_fields import NEUTRAL, check_fields
from sb_convert.convert import Options, Result, convert, encoded, outfile
from sb_convert.errors import ConvertError
from sb_convert.formats import BLOCK_VALUES, OUTTYPES, decode, encode, error_bound, nbytes, rows_per_block, wanted_type, whole_blocks
from sb_convert.int8 import Codes, lossless_type, own_scales, part_shapes
from sb_convert.plan import Plan, Planned, make_plan, n_threads, own_type
from sb_convert.progress import Progress
from sb_convert.sources import Tensor, first_not_finite, open_checkpoint
from sb_convert.spike import SpikeKeys, SpikeOptions, check_widths, resolve
from sb_convert.tensors import targets

T = gguf.GGMLQuantizationType


def tensor(rows: np.ndarray, dtype: str = "F32") -> Tensor:
    return Tensor("t.weight", rows.shape, dtype, rows, Path("file"))


# --- spike keys -------------------------------------------------------------------------------------------------------------

HAD = SpikeKeys(True, 2.5, "released")
QUIET = SpikeKeys(False, 4.0, "paper")


@pytest.mark.parametrize("options, had, keys", [
    ({}, None, None), ({}, HAD, HAD), ({}, QUIET, QUIET), ({"on": False}, None, None), ({"on": True}, None, SpikeKeys(True, 3.0, "paper")),
    ({"on": True, "k": 2.0, "scope": "released"}, None, SpikeKeys(True, 2.0, "released")), ({"on": True}, QUIET, SpikeKeys(True, 4.0, "paper")),
    ({"on": False}, HAD, SpikeKeys(False, 2.5, "released")), ({"k": 7.0}, HAD, SpikeKeys(True, 7.0, "released")), ({"k": 7.0}, QUIET, SpikeKeys(False, 7.0, "paper")),
    ({"scope": "paper"}, HAD, SpikeKeys(True, 2.5, "paper")), ({"down_type": "f32"}, HAD, HAD), ({"scope": "released", "down_type": "f32"}, QUIET, SpikeKeys(False, 4.0, "released"))])
def test_keys_that_options_and_file_make(options, had, keys):
    if options == {"on": False} and had is None:
        with pytest.raises(ConvertError, match="--no-spike: got a model that does not spike"):
            resolve(SpikeOptions(**options), "here", had)
        return
    assert resolve(SpikeOptions(**options), "here", had) == keys


@pytest.mark.parametrize("options, had, words", [
    ({"k": 2.0}, None, "--spike-k"), ({"scope": "paper"}, None, "--spike-scope"), ({"down_type": "f16"}, None, "--spike-down-type"), ({"calibrate": Path("x")}, None, "--spike-calibrate"),
    ({"down_type": "f16"}, QUIET, "scope paper"), ({"down_type": "f16", "scope": "paper"}, HAD, "scope paper"), ({"on": True, "down_type": "f16"}, None, "scope paper")])
def test_spike_options_without_a_meaning(options, had, words):
    with pytest.raises(ConvertError, match=words):
        resolve(SpikeOptions(**options), "here", had)


@pytest.mark.parametrize("keys, hidden, intermediate, name", [
    (HAD, 64, 96, None), (HAD, 48, 96, "hidden_size"), (HAD, 64, 95, "intermediate_size"), (QUIET, 48, 95, None), (None, 48, 95, None)])
def test_widths_of_a_spiking_model(keys, hidden, intermediate, name):
    if name is None:
        check_widths(keys, {"hidden_size": hidden, "intermediate_size": intermediate}, "here")
    else:
        with pytest.raises(ConvertError, match=f"{name}: got"):
            check_widths(keys, {"hidden_size": hidden, "intermediate_size": intermediate}, "here")


# --- options ----------------------------------------------------------------------------------------------------------------


def test_numbers_in_options():
    assert [split_size(t) for t in ("1M", "500M", "2G")] == [10**6, 5 * 10**8, 2 * 10**9] and [spike_k(t) for t in ("3", "0.5", "1e29")] == [3.0, 0.5, 1e29]
    for wrong in ("0M", "M", "1", "1K", "-1M", "1.5G", "01M", "1MG", " 1M", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="expected a number with M or G"):
            split_size(wrong)
    for wrong in ("0", "-1", "nan", "inf", "1e30", "1e-30", "x", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="expected a number above 0"):
            spike_k(wrong)


@pytest.mark.parametrize("args, name, value", [
    ([], "outtype", "auto"), ([], "spike", None), ([], "split_max_size", 0), ([], "force", False), ([], "dry_run", False), ([], "vocab_only", False), ([], "verify", False),
    ([], "outfile", None), ([], "verbose", False), ([], "spike_calibrate", None), (["--spike"], "spike", True), (["--no-spike"], "spike", False), (["--force"], "force", True),
    (["--dry-run"], "dry_run", True), (["--verify"], "verify", True), (["--vocab-only"], "vocab_only", True), (["--verbose"], "verbose", True), (["--outtype", "int8"], "outtype", "int8")])
def test_what_each_option_says(args, name, value):
    assert getattr(parser().parse_args(["folder", *args]), name) is value or getattr(parser().parse_args(["folder", *args]), name) == value


@pytest.mark.parametrize("options, name", [
    ({}, "checkpoint-BF16.gguf"), ({"outtype": "q4_0"}, "checkpoint-Q4_0.gguf"), ({"outtype": "int8"}, "checkpoint-INT8.gguf"), ({"model_name": "a/b"}, "a-b-BF16.gguf"), ({"vocab_only": True}, "checkpoint-vocab.gguf")])
def test_names_of_outputs(make_checkpoint, tmp_path, options, name):
    folder = make_checkpoint()
    made = convert(folder, Options(force=True, **options), say=lambda _: None)
    assert [f.name for f in made.files] == [name] and made.files[0].parent == folder
    (tmp_path / "there").mkdir()
    kind = made.files[0].stem.rpartition("-")[2]
    assert outfile(folder, Options(tmp_path / "there", **options), kind) == tmp_path / "there" / name
    assert outfile(folder, Options(tmp_path / "x.gguf", **options), kind) == tmp_path / "x.gguf"


def test_what_is_said_at_the_end(make_checkpoint):
    folder = make_checkpoint()
    made = convert(folder, Options(outtype="f32", force=True, spike=SpikeOptions(on=True)), say=lambda _: None)
    n = sum(t.data.size for t in open_checkpoint(folder).values())
    size = made.files[0].stat().st_size
    assert made.plan.n_params == n and made.plan.nbytes == 4 * n
    text = dataclasses.replace(made, seconds=2.25).summary()
    assert text == f"checkpoint-F32.gguf: f32, spikes (k = 3, scope paper), {size / 1e6:.1f} MB, 32.00 bits per weight, 2.2 s"
    two = Result([made.files[0]] * 2, made.plan, 1.0, made.options).summary()
    assert two.startswith("checkpoint-F32.gguf (and 1 more): f32") and f"{2 * size / 1e6:.1f} MB" in two
    vocab = convert(folder, Options(vocab_only=True, force=True), say=lambda _: None)
    assert "vocabulary only" in vocab.summary()


# --- types and sizes --------------------------------------------------------------------------------------------------------------


def test_types_of_every_kind_of_tensor():
    rows = {"f32": (T.F32, T.F32), "f16": (T.F16, T.F16), "bf16": (T.BF16, T.BF16), "q8_0": (T.Q8_0, T.Q8_0), "q4_0": (T.Q4_0, T.Q8_0), "int8": (T.I8, T.F16)}
    assert set(rows) == set(OUTTYPES)
    for outtype, (matrix, output) in rows.items():
        assert [wanted_type(kind, outtype) for kind in ("f32", "output", "tied", "embedding", "q", "down")] == [T.F32, output, output, matrix, matrix, matrix]


@pytest.mark.parametrize("qtype, width, expected", [
    (T.Q8_0, 32, T.Q8_0), (T.Q8_0, 33, T.F16), (T.Q4_0, 64, T.Q4_0), (T.Q4_0, 63, T.F16), (T.I8, 128, T.I8), (T.I8, 256, T.I8), (T.I8, 64, T.F16), (T.I8, 129, T.F16), (T.F32, 7, T.F32), (T.BF16, 7, T.BF16)])
def test_rows_of_no_whole_blocks(qtype, width, expected):
    assert whole_blocks(qtype, (3, width)) == expected


@pytest.mark.parametrize("shape, qtype, n", [((2, 32), T.F32, 256), ((2, 32), T.F16, 128), ((2, 32), T.BF16, 128), ((2, 32), T.Q8_0, 68), ((2, 32), T.Q4_0, 36), ((2, 128), T.I8, 256), ((7,), T.F32, 28), ((3,), T.I16, 6), ((3,), T.I32, 12)])
def test_bytes_of_a_tensor(shape, qtype, n):
    assert nbytes(shape, qtype) == n


def test_rows_handled_at_a_time():
    assert BLOCK_VALUES == 2**20
    assert [rows_per_block(s) for s in ((10, 1), (10, 2**20), (10, 2**20 + 1), (10, 2**19), (10,), (5, 3))] == [2**20, 1, 1, 2, 2**20, 2**20 // 3]


@pytest.mark.parametrize("qtype, x, bound", [
    (T.F16, [1.0, -4.0], [2**-11, 2**-9]), (T.BF16, [1.0, -4.0], [2**-8, 2**-6]), (T.F32, [1.0, 2.0], [0, 0]),
    (T.Q8_0, [127.0] + [1.0] * 31, [127 * (0.5 / 127 + 2**-11)] * 32),
    (T.Q4_0, [-8.0] + [3.0] * 31, [0.5 + 8 * 2**-11] * 32),       # codes -8..7 of -8..7: half a step
    (T.Q4_0, [8.0] + [-8.0] + [0.0] * 30, [0.5 + 8 * 2**-11, 1 + 8 * 2**-11] + [0.5 + 8 * 2**-11] * 30)])  # the other end is clipped by one step
def test_error_bounds_by_hand(qtype, x, bound):
    got = error_bound(np.array([x], np.float32), qtype)
    assert got[0] == pytest.approx(bound, rel=1e-4, abs=1e-6)


def test_encoding_and_decoding_by_hand():
    x = np.array([[-8.0, 7.0, 3.4, 3.6, 0.0] + [1.0] * 27], np.float32)
    assert decode(encode(x, T.Q4_0), T.Q4_0)[0, :5].tolist() == [-8, 7, 3, 4, 0]
    x = np.array([[127.0, -127.0, 3.4, 3.6, 0.0] + [1.0] * 27], np.float32)
    assert decode(encode(x, T.Q8_0), T.Q8_0)[0, :5].tolist() == [127, -127, 3, 4, 0]
    codes = np.array([[1, 2]], np.int8)
    assert encode(codes, T.I8) is codes


@pytest.mark.parametrize("values, expected", [
    ([1.0, 2.5, -3.0], T.BF16), ([1.0, 1 + 2**-10], T.F16), ([1.0, 1 + 2**-12], T.F32), ([65504.0], T.F16), ([65536.0], T.BF16), ([65505.0], T.F32), ([2.0**-24], T.BF16), ([0.0], T.BF16), ([1 + 2**-10, 2.0**60], T.F32)])
def test_the_smallest_type_without_loss(values, expected):
    assert lossless_type(tensor(np.array([values], np.float32))) == expected
    assert lossless_type(tensor(np.array([values], np.float32).view(np.uint32).astype(np.uint16), "BF16")) == T.BF16
    assert lossless_type(tensor(np.array([[1.0]], np.float16), "F16")) == T.F16


def test_scales_of_our_own():
    groups = np.zeros((2, 2, 128), np.float32)
    groups[0, 0, 5], groups[0, 1, 7], groups[1, 0, 0] = 127.0, -254.0, 1e-44
    scales = own_scales(groups)
    assert scales[0].tolist() == [1.0, 2.0] and scales[1, 1] == 1.0 and scales[1, 0] == np.finfo(np.float32).tiny


def test_shapes_of_codes():
    codes = Codes(tensor(np.zeros((3, 256), np.float32)))
    assert part_shapes(codes, 0) == {"weight": (3, 256), "scales": (3, 2)}
    assert part_shapes(codes, 5) == {"weight": (3, 256), "scales": (3, 2), "outlier_index": (5,), "outlier_value": (5,)}


def test_the_type_most_values_have(make_checkpoint):
    config = Config.from_json(TINY)
    held = open_checkpoint(make_checkpoint(dtype="F16"))
    assert own_type(targets(config), held) == "f16"
    mixed = {name: dataclasses.replace(t, dtype="F32") if name in ("lm_head.weight", "model.embeddings.weight") else t for name, t in held.items()}
    large = sum(t.data.size for n, t in mixed.items() if t.dtype == "F32")
    small = sum(t.data.size for n, t in mixed.items() if t.dtype == "F16" and t.data.ndim == 2)
    assert own_type(targets(config), mixed) == ("f32" if large > small else "f16")


def test_threads_are_one_to_eight(monkeypatch):
    for n, expected in ((1, 1), (2, 2), (8, 8), (64, 8)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, n=n: set(range(n)))
        assert n_threads() == expected


@pytest.mark.parametrize("change, words", [
    (lambda t: t.pop("model.norm.weight"), "1 missing: model.norm.weight"),
    (lambda t: [t.pop(n) for n in list(t) if n.startswith("model.layers.0.mlp.")], "3 missing: model.layers.0.mlp"),
    (lambda t: [t.pop(n) for n in list(t) if n.startswith("model.layers.1.")], "and 8 more"),
    (lambda t: t.update({"more.weight": t["model.norm.weight"]}), "1 left over: more.weight"),
    (lambda t: t.update({f"more.{i}": t["model.norm.weight"] for i in range(5)}), "5 left over: .* and 1 more")])
def test_names_that_are_missing_or_left_over(make_checkpoint, change, words):
    held = open_checkpoint(make_checkpoint())
    change(held)
    with pytest.raises(ConvertError, match=words):
        make_plan(Config.from_json(TINY), held, "f32", "here")
    if "left over" in words:
        assert isinstance(make_plan(Config.from_json(TINY), held, "f32", "here", partial=True), Plan)


def test_shapes_that_do_not_fit_the_config(make_checkpoint):
    held = open_checkpoint(make_checkpoint())
    for name in held:
        if "gk_proj.0" in name:
            continue  # gives the rank
        wrong = {**held, name: dataclasses.replace(held[name], shape=(*held[name].shape[:-1], held[name].shape[-1] + 1))}
        with pytest.raises(ConvertError, match=f"{name}: got shape"):
            make_plan(Config.from_json(TINY), wrong, "f32", "here")


# --- progress -----------------------------------------------------------------------------------------------------------------------


def test_a_line_for_each_tenth_at_most_one_a_second(monkeypatch):
    now, said = [100.0], []
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    progress = Progress(200_000_000, said.append)
    for seconds, n in ((2.0, 10_000_000), (2.0, 10_000_000), (0.5, 40_000_000), (2.0, 1), (2.0, 1), (1.5, 139_999_998)):
        now[0] += seconds
        progress.add(n)
    assert said == [" 10%  20 of 200 MB  4 s", " 30%  60 of 200 MB  6 s", "100%  200 of 200 MB  10 s"]


# --- verify -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outtype, spikes, largest, kl", [
    ("f32", False, 2e-3, 1e-5), ("f16", False, None, 1e-3), ("bf16", False, None, 3e-2), ("q8_0", False, None, 1e-1), ("q4_0", False, None, 1e-1), ("int8", False, None, 1e-1),
    ("f32", True, None, 1e-3), ("f16", True, None, 1e-2), ("bf16", True, None, 1e-2), ("q8_0", True, None, 1e-2), ("q4_0", True, None, 1e-2), ("int8", True, None, 1e-3)])
def test_limits_of_every_type(outtype, spikes, largest, kl):
    plan = Plan(Config.from_json(TINY), outtype, [], SpikeKeys(True, 3.0, "paper") if spikes else None)
    limits = verify.limits(plan)
    assert limits["mean KL"] == kl and limits.get("largest difference") == largest
    assert verify.limits(dataclasses.replace(plan, spike=QUIET)) == verify.limits(dataclasses.replace(plan, spike=None))
    at = verify.Difference(largest or 1e9, kl, 0)
    assert at.ok(limits) and not dataclasses.replace(at, mean_kl=kl * 1.01).ok(limits)
    assert dataclasses.replace(at, max_logit=2 * at.max_logit).ok(limits) == (largest is None)


@pytest.mark.parametrize("window, n", [(8, 96), (64, 96), (65, 97), (480, 512), (481, 512), (4096, 512)])
def test_tokens_of_the_logit_check_go_past_the_window(window, n):
    config = Config.from_json({**TINY, "sliding_window": window, "max_position_embeddings": 4096})
    tokens = verify.sample_tokens(config)
    assert len(tokens) == n and set(tokens) <= set(range(config.vocab_size)) and tokens == verify.sample_tokens(config) and len(set(tokens)) > 60


def test_a_difference_by_hand():
    expected = np.log(np.array([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]))
    got = expected.copy()
    got[1] = np.log([0.25, 0.5, 0.25])
    d = verify.difference(got, expected)
    assert d.position == 1 and d.max_logit == pytest.approx(np.log(2)) and d.mean_kl == pytest.approx((0.5 * np.log(2) - 0.25 * np.log(2)) / 2)
    with pytest.raises(ConvertError, match="logits: got shape"):
        verify.difference(got[:1], expected)
    got[0, 0] = np.inf
    assert verify.difference(got, expected) == verify.Difference(np.inf, np.inf, 0)


def test_outliers_out_of_order_are_found(make_checkpoint):
    folder = make_checkpoint(scales=True)
    result = convert(folder, Options(folder / "x.gguf", "int8"), say=lambda _: None)
    assert verify.verify_tensors(result, lambda _: None)
    held = {t.name: t for t in gguf.GGUFReader(result.files[0]).tensors}
    index, value = held["blk.0.attn_q.outlier_index"], held["blk.0.attn_q.outlier_value"]
    with open(result.files[0], "r+b") as f:  # the same codes, two of them in the other order
        for t in (index, value):
            f.seek(int(t.data_offset))
            f.write(t.data[1::-1].tobytes())
    said = []
    assert not verify.verify_tensors(result, said.append) and said[0].startswith("verify: blk.0.attn_q.weight: beyond the error bound")


def test_tensors_that_are_not_there_are_named(make_checkpoint):
    folder = make_checkpoint()
    result = convert(folder, Options(folder / "x.gguf", "f32"), say=lambda _: None)
    said = []
    fewer = dataclasses.replace(result, plan=dataclasses.replace(result.plan, tensors=result.plan.tensors[1:]))
    assert not verify.verify_tensors(fewer, said.append)
    n = len(result.plan.tensors)
    assert said == [f"verify: tensors: got {n} in the file, expected {n - 1}; differing: ['{result.plan.tensors[0].target.gguf}']"]
    said.clear()
    assert verify.verify_tensors(result, said.append) and said[0].startswith(f"verify: {n} tensors, worst ") and said[0].endswith(": ok")


# --- what an option needs is told before it works ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("option, check", [("--verify", verify.check_requirements), ("--spike-calibrate", lambda: calibrate.check_requirements(Path(__file__)))])
@pytest.mark.parametrize("package, words", [("torch", "torch: got no such package, expected PyTorch"), ("spikingbrain_cpp", "spikingbrain_cpp: got ")])
def test_a_package_that_is_missing(monkeypatch, option, check, package, words):
    pytest.importorskip("torch")
    check()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConvertError, match=f"{option}: {words}"):
        check()


def test_a_text_that_is_missing(tmp_path):
    pytest.importorskip("torch")
    with pytest.raises(ConvertError, match="none.txt: file: got nothing, expected a text to calibrate on"):
        calibrate.check_requirements(tmp_path / "none.txt")


@pytest.mark.parametrize("value, ok", [("a", True), ("é水🌊", True), (["a", {"b": "ü"}], True), (None, True), (3.5, True), ("\ud800", False), (["a", "\udc80"], False), ({"a": "\udfff"}, False), ({"\ud800": 1}, False), (Path("x\udc80"), False)])
def test_text_that_a_file_can_hold(value, ok):
    assert metadata.encodes(value) is ok


@pytest.mark.parametrize("value, ok", [(None, True), ("1", True), ("1073741824", True), ("0", False), ("1073741825", False), ("-1", False), ("", False), ("1.5", False), ("x", False), ("²", False)])
def test_room_for_checkpoints_in_mib(monkeypatch, value, ok):
    refusals = pytest.importorskip("spikingbrain_cpp.refusals")
    monkeypatch.delenv("SPIKINGBRAIN_CHECKPOINT_RAM", raising=False)
    if value is not None:
        monkeypatch.setenv("SPIKINGBRAIN_CHECKPOINT_RAM", value)
    told = refusals.checkpoint_ram("sb-server")
    assert (told is None) == ok and (ok or told.startswith(f"sb-server: SPIKINGBRAIN_CHECKPOINT_RAM: got {value!r}, expected MiB per slot from 1 to 1073741824; "))


@pytest.mark.parametrize("rank", [1, 2, 16])
def test_any_rank_of_the_gate(make_checkpoint, rank):
    held = open_checkpoint(make_checkpoint(gate_rank=rank))
    assert make_plan(Config.from_json(TINY), held, "f32", "here").config.gate_low_rank_dim == rank
    name = "model.layers.0.attn.gk_proj.0.weight"
    for shape in ((0, 64), (64,), (1, 2, 64)):
        with pytest.raises(ConvertError, match=f"{name}: got shape"):
            make_plan(Config.from_json(TINY), {**held, name: dataclasses.replace(held[name], shape=shape)}, "f32", "here")


@pytest.mark.parametrize("n, words", [(100 << 20, "malformed"), ((100 << 20) + 1, "for the header alone")])
def test_a_header_has_its_limit(tmp_path, n, words):
    """A sparse file, long enough for either."""
    with open(tmp_path / "model.safetensors", "wb") as f:
        f.write(n.to_bytes(8, "little") + b"{}x")
        f.truncate((100 << 20) + 100)
    with pytest.raises(ConvertError) as error:
        open_checkpoint(tmp_path)
    assert (words in str(error.value)) or ("for the header alone" not in str(error.value) and words == "malformed")


@pytest.mark.parametrize("name", ["hidden_size", "intermediate_size", "vocab_size", "num_attention_heads", "num_key_value_heads", "sliding_window", "max_position_embeddings"])
def test_sizes_begin_at_one(name):
    for wrong in (0, -1, 2**31):
        with pytest.raises(ConvertError, match=f"{name}: got {wrong}, expected an integer from 1 to 2\\^31 - 1"):
            Config.from_json({**TINY, name: wrong, "bos_token_id": None, "eos_token_id": None})
    if name not in ("hidden_size", "num_attention_heads", "max_position_embeddings"):  # these have rules beside it
        assert getattr(Config.from_json({**TINY, name: 1, "bos_token_id": None, "eos_token_id": None}), name) == 1


@pytest.mark.parametrize("name, says_nothing", [("attention_bias", False), ("attention_out_bias", False), ("o_bias", False), ("qkv_bias", True), ("mlp_bias", False), ("lm_head_bias", False),
                                                 ("use_rope", True), ("rope_interleaved", False), ("norm_first", True), ("qk_norm", False), ("alibi", False), ("use_gk", True), ("use_gv", False), ("use_gate", False)])
def test_switches_that_the_graph_has_or_has_not(name, says_nothing):
    Config.from_json({**TINY, name: says_nothing})
    if name == "qkv_bias":  # a part that may be missing
        assert Config.from_json({**TINY, name: False}).qkv_bias is False
        return
    with pytest.raises(ConvertError, match=f"{name}: got"):
        Config.from_json({**TINY, name: not says_nothing})


# --- what a checkpoint's files may hold ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, says_nothing, means", [
    ("num_beams", 1, 2), ("num_beam_groups", 1, 2), ("diversity_penalty", 0, 0.5), ("typical_p", 1, 0.5), ("epsilon_cutoff", 0, 3e-4), ("eta_cutoff", 0, 3e-4), ("length_penalty", 1, 2),
    ("no_repeat_ngram_size", 0, 1), ("encoder_no_repeat_ngram_size", 0, 1), ("encoder_repetition_penalty", 1, 2), ("guidance_scale", 1, 2), ("num_assistant_tokens", 20, 19),
    ("forced_bos_token_id", None, 1), ("bad_words_ids", [], [[1]]), ("temperature", 7, None), ("max_new_tokens", 9, None)])
def test_what_generation_config_says_that_a_file_cannot_hold_is_told(caplog, name, says_nothing, means):
    special.check_generation({name: says_nothing}, Path("generation_config.json"))
    assert not caplog.text
    if means is not None:
        special.check_generation({"temperature": 1, name: means}, Path("generation_config.json"))
        assert f"generation_config.json: {name}: a GGUF cannot hold it; " in caplog.text


def test_each_byte_without_a_token_is_told(caplog):
    letters = [chr(b) for b in (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))]
    letters += [chr(0x100 + i) for i in range(256 - len(letters))]
    ids = {c: i for i, c in enumerate(letters)}
    bpe.check_alphabet(ids, Path("vocab.json"))
    assert len(ids) == 256 and not caplog.text
    for letter in letters:
        caplog.clear()
        bpe.check_alphabet({c: i for c, i in ids.items() if c != letter}, Path("vocab.json"))
        assert f"vocab: 1 of 256 bytes have no token ({letter} ...); " in caplog.text


@pytest.mark.parametrize("block", [1, 2, 3, 7])
def test_the_first_value_that_is_no_number_is_told_with_its_place(block):
    rows = np.zeros((7, 3), np.float32)
    assert first_not_finite(tensor(rows), block) is None
    rows[4, 1], rows[4, 2], rows[6, 0] = np.nan, np.inf, -np.inf
    assert "got 3 NaN or infinite values, the first at [4, 1], expected finite weights" in str(first_not_finite(tensor(rows), block))


@pytest.mark.parametrize("shape, offsets", [([-2, -32, 1], [0, 256]), ([-64], [256, 0]), ([64], [-256, 0]), ([64], [0, 255]), ([64], [0, 257]), ([2, 32, 0], [0, 256]), ([], [0, 8])])
def test_bytes_of_a_tensor_are_those_of_its_shape(tmp_path, shape, offsets):
    header = json.dumps({"t.weight": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(256))
    with pytest.raises(ConvertError, match=r"t\.weight: got -?\d+ bytes, expected shape \["):
        open_checkpoint(tmp_path)


def test_fields_that_say_how_to_sample(tmp_path):
    said = {"temperature": 0.5, "top_k": 7, "top_p": 0.75, "min_p": 0.25, "repetition_penalty": 1.5}
    (tmp_path / "generation_config.json").write_text(json.dumps({**said, "xtc_probability": None, "num_beams": 1}))
    assert metadata.read_sampling(tmp_path) == {f"sampling_{metadata.SAMPLING[name]}": value for name, value in said.items()}
    assert set(metadata.SAMPLING) <= special.GENERATION and {f"sampling_{ours}" for ours in metadata.SAMPLING.values()} <= set(metadata.FIELDS)


# --- blocks -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 3])
def test_blocks_are_encoded_a_few_ahead_and_in_order(monkeypatch, n):
    """As many at once as there are threads, and one more that waits; no more, whatever the size of the tensor."""
    monkeypatch.setattr("sb_convert.convert.n_threads", lambda: n)
    monkeypatch.setattr("sb_convert.convert.rows_per_block", lambda shape: 2)
    waiting, most = [], []

    class Pool:
        def submit(self, call, *args):
            waiting.append(args)
            most.append(len(waiting))
            return self

        def result(self):
            p, start, stop = waiting.pop(0)
            return p.source.rows(start, stop)
    rows = np.arange(11 * 32, dtype=np.float32).reshape(11, 32)
    blocks = list(encoded(Planned(targets(Config.from_json(TINY))[0], tensor(rows), T.F32, rows.nbytes, T.F32), Pool()))
    assert [len(b) for b in blocks] == [2, 2, 2, 2, 2, 1] and (np.concatenate(blocks) == rows).all() and max(most) == n + 1


# --- what config.json may say beside ---------------------------------------------------------------------------------------------------

SAYS_NOTHING = [
    ((False,), """add_cross_attention is_encoder_decoder attention_bias attention_out_bias o_bias mlp_bias lm_head_bias rope_interleaved rope_interleave qk_norm use_qk_norm qk_layernorm
                  use_post_norm post_norm parallel_attn use_parallel_residual alibi norm_bias use_output_gate use_gv use_gate use_lower_bound"""),
    ((True,), "qkv_bias use_sliding_window use_rope norm_first use_gk norm_after_linear_attn"),
    ((0,), "max_window_layers sink_size num_meta_tokens num_experts num_local_experts n_routed_experts shared_intermediate_size num_mtp_modules num_nextn_predict_layers"),
    ((1,), """partial_rotary_factor rope_pct rotary_pct logit_scale logits_scaling embedding_multiplier residual_multiplier scale_emb lm_head_multiplier emb_scale embedding_scale
              expand_k expand_v k_clamp_max"""),
    ((), """cross_attention_hidden_size attn scale_depth attention_multiplier query_pre_attn_scalar attn_scale softmax_scale scale final_logit_softcapping attn_logit_softcapping
            logit_softcapping logits_soft_cap output_logit_soft_cap clip_qkv clamp_min clamp_max gate_fn gate_bound"""),
    (({},), "pruned_heads quantization_config"), (([],), "no_rope_layers full_attn_layers"), ((0, False), "attention_sinks"), (("relu",), "feature_map")]


@pytest.mark.parametrize("neutral, names", SAYS_NOTHING)
def test_each_field_is_taken_at_what_says_nothing_alone(neutral, names):
    for name in names.split():
        for value in (None, False, True, 0, 1, 2, 0.5, 1.0, {}, [], {"a": 1}, [0], "relu", "elu"):
            if value is None or any(value == held and isinstance(value, bool) == isinstance(held, bool) for held in neutral):
                check_fields({name: value}, set(), "config.json")
            else:
                with pytest.raises(ConvertError, match=f"config.json: {name}: got "):
                    check_fields({name: value}, set(), "config.json")


def test_the_fields_above_are_all():
    assert sorted(name for _, names in SAYS_NOTHING for name in names.split()) == sorted(NEUTRAL)


@pytest.mark.parametrize("theirs, ours", [
    ("rms_norm_eps", "norm_eps"), ("layer_norm_eps", "norm_eps"), ("layer_norm_epsilon", "norm_eps"), ("hidden_activation", "hidden_act"), ("activation_function", "hidden_act"),
    ("num_heads", "num_attention_heads"), ("num_kv_heads", "num_key_value_heads"), ("n_layer", "num_hidden_layers"), ("num_layers", "num_hidden_layers"), ("n_embd", "hidden_size"),
    ("d_model", "hidden_size"), ("n_head", "num_attention_heads"), ("window_size", "sliding_window"), ("n_positions", "max_position_embeddings"), ("tie_embeddings", "tie_word_embeddings")])
def test_another_projects_word_says_the_same_or_is_refused(theirs, ours):
    check_fields({theirs: 3, ours: 3}, {ours}, "config.json")
    check_fields({theirs: "silu", ours: "swish"}, {ours}, "config.json")
    for raw, words in (({theirs: 3, ours: 4}, rf"got 3, expected what {ours} says \(4\)"), ({theirs: 3}, f"got 3 and no {ours}, expected {ours}; "),
                       ({theirs: "silu", ours: "gelu"}, "got 'silu', "), ({theirs: "gelu", ours: "silu"}, "got 'gelu', ")):
        with pytest.raises(ConvertError, match=f"config.json: {theirs}: {words}"):
            check_fields(raw, {ours}, "config.json")
