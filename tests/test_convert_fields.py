"""Every field of config.json is read, known to change nothing, or refused by name; what lies where a file should is named: {edit, value or error}."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import gguf
import numpy as np
import pytest
from conftest import ROOT, TINY

from sb_convert import cli
from sb_convert.cli import main
from sb_convert.errors import ConvertError
from sb_convert.int8 import Codes, part_shapes
from sb_convert.sources import Tensor

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
THETA = "spikingbrain.rope.freq_base"


def edited(folder: Path, change: dict) -> Path:
    held = json.loads((folder / "config.json").read_text())
    for key, value in change.items():
        held.pop(key, None)
        if value is not KeyError:
            held[key] = value
    (folder / "config.json").write_text(json.dumps(held))
    return folder


def keys_of(folder: Path, tmp_path: Path, *options: str) -> dict:
    out = tmp_path / "keys.gguf"
    assert main([str(folder), "-o", str(out), "--vocab-only", "--force", *options]) == 0
    return {name: f.contents() for name, f in gguf.GGUFReader(out).fields.items()}


def error_of(capsys, folder: Path, *options: str) -> str:
    before = sorted(p.name for p in folder.iterdir())
    assert main([str(folder), *options]) == 1
    text = capsys.readouterr().err
    assert text.startswith("sb-convert: ") and text.count("\n") == 1
    assert sorted(p.name for p in folder.iterdir()) == before
    return text


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """What is on disk after a power cut is not asked here."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture(scope="module")
def module_checkpoint(tmp_path_factory):
    """One checkpoint whose config.json the tables below edit in turn."""
    from conftest import tiny_tensors, write_bpe, write_safetensors
    folder = tmp_path_factory.mktemp("fields") / "checkpoint"
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", tiny_tensors(TINY, 16, 0))
    write_bpe(folder)
    return folder


@pytest.fixture
def checkpoint(module_checkpoint):
    (module_checkpoint / "config.json").write_text(json.dumps(TINY))
    return module_checkpoint


@pytest.mark.parametrize("change, key, value", [
    ({"rope_theta": KeyError, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}, THETA, 5e5),
    ({"rope_theta": None, "rope_parameters": {"rope_theta": 5e5}}, THETA, 5e5),
    ({"rope_parameters": {"rope_theta": 1e6, "rope_type": "default", "partial_rotary_factor": 1.0}}, THETA, 1e6),
    ({"rope_theta": KeyError, "rope_parameters": {"sliding_attention": {"rope_theta": 5e5, "rope_type": "default"}}}, THETA, 5e5),
    ({"rope_theta": KeyError, "rope_scaling": {"rope_theta": 5e5, "rope_type": "default"}}, THETA, 5e5),
    ({"rope_scaling": {"rope_type": "default"}}, THETA, 1e6),
    ({"rope_scaling": {"type": "linear", "factor": 1.0}}, THETA, 1e6),
    ({"torch_dtype": None}, THETA, 1e6),
    ({"torch_dtype": KeyError, "dtype": "bfloat16"}, THETA, 1e6),
    ({"dtype": "bfloat16"}, THETA, 1e6),
    ({"use_short_conv": None, "tie_word_embeddings": None, "attn_mode": "fused_chunk", "transformers_version": "5.1.0"}, THETA, 1e6),
    ({"layer_types": ["linear_attention", "sliding_attention"]}, "spikingbrain.attention.recurrent_layers", [True, False]),
    ({"rms_norm_eps": 1e-6, "num_heads": 4, "head_dim": 16, "expand_k": 1.0, "feature_map": "relu", "logit_scale": 1.0}, THETA, 1e6),
    ({"attention_bias": False, "mlp_bias": None, "use_output_gate": False, "sliding_window": 7}, "spikingbrain.attention.sliding_window", 7),
])
def test_fields_that_are_read(checkpoint, tmp_path, capsys, caplog, change, key, value):
    assert keys_of(edited(checkpoint, change), tmp_path)[key] == value
    assert "not known" not in caplog.text


@pytest.mark.parametrize("change, message", [
    ({"rope_parameters": {"rope_theta": 1e6, "rope_type": "yarn", "factor": 4.0}}, "rope_parameters: got {'rope_theta': 1000000.0, 'rope_type': 'yarn', 'factor': 4.0}, expected null; "),
    ({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}, "rope_theta: got 1000000.0 (rope_theta) and 500000.0 (rope_parameters.rope_theta), expected one value; "),
    ({"rope_parameters": {"sliding_attention": {"rope_theta": 1e6}, "full_attention": {"rope_theta": 1e4}}}, "expected one value; "),
    ({"rope_parameters": {"sliding_attention": {"rope_type": "yarn", "factor": 2.0}}}, "rope_parameters.sliding_attention: got "),
    ({"rope_parameters": {"rope_theta": 1e6, "partial_rotary_factor": 0.5}}, "rope_parameters: got "),
    ({"rope_theta": KeyError, "rope_parameters": {"rope_theta": "1e6"}}, "rope_parameters.rope_theta: got '1e6' (str), expected float; "),
    ({"rope_theta": KeyError, "rope_parameters": {"rope_type": "default"}}, "rope_theta: got nothing, expected a value (float); "),
    ({"rope_parameters": []}, "rope_parameters: got [], expected null or an object; "),
    ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling: got {'type': 'linear', 'factor': 2.0}, expected null; "),
    ({"rope_scaling": {"rope_type": "default", "mrope_section": [2, 3, 3]}}, "rope_scaling: got "),
    ({"rope_theta": float("inf")}, "rope_theta: got inf, expected a number above 0 that float32 holds; "),
    ({"norm_eps": 1e-50}, "norm_eps: got 1e-50, expected a number above 0 that float32 holds; "),
    ({"norm_eps": 10**400}, "norm_eps: got 1"),
    ({"dtype": "float16"}, "dtype: got 'float16', expected what torch_dtype says ('bfloat16'); "),
    ({"torch_dtype": 16}, "torch_dtype: got 16 (int), expected str; "),
    ({"attention_bias": True}, "attention_bias: got True, expected false; "),
    ({"mlp_bias": True}, "mlp_bias: got True, expected false; "),
    ({"use_output_gate": True}, "use_output_gate: got True, expected false; "),
    ({"expand_k": 0.5}, "expand_k: got 0.5, expected 1; "),
    ({"feature_map": "elu"}, "feature_map: got 'elu', expected 'relu'; "),
    ({"clamp_min": -3.0}, "clamp_min: got -3.0, expected null; "),
    ({"logit_scale": 0.0625}, "logit_scale: got 0.0625, expected 1; "),
    ({"final_logit_softcapping": 30.0}, "final_logit_softcapping: got 30.0, expected null; "),
    ({"residual_multiplier": 0.22}, "residual_multiplier: got 0.22, expected 1; "),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor: got 0.5, expected 1; "),
    ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config: got {'quant_method': 'gptq'}, expected {}; "),
    ({"use_sliding_window": False}, "use_sliding_window: got False, expected true; "),
    ({"rms_norm_eps": 1e-5}, "rms_norm_eps: got 1e-05, expected what norm_eps says (1e-06); "),
    ({"num_heads": 8}, "num_heads: got 8, expected what num_attention_heads says (4); "),
    ({"layer_types": ["linear_attention", "full_attention"]}, "layer_types: got 'full_attention' for layer 1, expected 'sliding_attention'; "),
    ({"layer_types": ["sliding_attention", "linear_attention"]}, "layer_types: got 'sliding_attention' for layer 0, expected 'linear_attention'; "),
    ({"architectures": ["GLAswaForSequenceClassification"]}, "architectures: got ['GLAswaForSequenceClassification'], expected ['GLAswaForCausalLM']; "),
    ({"head_dim": {}}, "head_dim: got {}, expected hidden_size / num_attention_heads; "),
    ({"hidden_size": "64", "head_dim": 16}, "hidden_size: got '64' (str), expected int; "),
    ({"eos_token_id": [262, 300]}, "more_eos_token_ids: got (300,), expected 0 to 287 (eos_token_id); "),
    ({"eos_token_id": [262, "x"]}, "eos_token_id: got [262, 'x'] (list), expected a list of integers; "),
])
def test_fields_that_are_refused(checkpoint, capsys, change, message):
    assert message in error_of(capsys, edited(checkpoint, change), "--dry-run")


def test_unknown_fields_are_named(checkpoint, tmp_path, caplog):
    keys_of(edited(checkpoint, {"my_new_gate": 0.5, "my_old_gate": None, "note": "", "other": False, "dropless": 3}), tmp_path)
    assert "config.json: my_new_gate, dropless: not known, and not used; " in caplog.text


def test_byte_order_mark(checkpoint, tmp_path):
    for name in ("config.json", "vocab.json", "tokenizer_config.json", "added_tokens.json", "merges.txt"):
        path = checkpoint / name
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    try:
        assert keys_of(checkpoint, tmp_path)[THETA] == 1e6
    finally:
        for path in checkpoint.iterdir():
            path.write_bytes(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.json", "merges.txt", "tokenizer_config.json", "pytorch_model.bin",
                                  "model.safetensors.index.json", "tokenizer.model", "meta.json"])
def test_a_pointer_in_place_of_a_file(make_checkpoint, capsys, name):
    folder = make_checkpoint()
    if name in ("pytorch_model.bin", "model.safetensors.index.json"):
        (folder / "model.safetensors").unlink()
    if name == "tokenizer.model":
        (folder / "vocab.json").unlink()
    (folder / name).write_text(LFS)
    options = ["--metadata", str(folder / name)] if name == "meta.json" else []
    assert f"{name}: content: got a Git LFS pointer, not the file itself, expected " in error_of(capsys, folder, *options)


def test_a_web_page_in_place_of_a_file(make_checkpoint, capsys):
    folder = make_checkpoint()
    (folder / "model.safetensors").write_text("<!DOCTYPE html><html></html>")
    assert "model.safetensors: content: got a web page, expected a safetensors file; " in error_of(capsys, folder)


@pytest.mark.parametrize("prefix, message", [
    ("module.", "got 'module.model.embeddings.weight', a name of DistributedDataParallel or DeepSpeed, expected names like 'model.embeddings.weight'; "),
    ("_orig_mod.", "a name of torch.compile, "), ("module._orig_mod.", "a name of Dist"), ("base_model.model.", "a name of PEFT, "),
    ("transformer.", "tensors: got names like 'transformer.model.embeddings.weight', expected 'model.embeddings.weight' among them; "),
])
def test_names_of_a_wrapper(make_checkpoint, capsys, prefix, message):
    assert message in error_of(capsys, make_checkpoint(tensors=lambda t: {prefix + n: x for n, x in t.items()}))


def test_an_adapter_alone(make_checkpoint, capsys):
    folder = make_checkpoint()
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{}")
    for _ in range(2):
        assert "weights: got a LoRA adapter only, expected model.safetensors" in (message := error_of(capsys, folder)) and message.endswith("--base FOLDER\n")
        (folder / "config.json").unlink(missing_ok=True)  # as PEFT saves it


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_rotary_frequencies_are_checked_and_left_out(make_checkpoint, tmp_path, capsys, dtype):
    def add(scale):
        return lambda t: t | {"model.layers.1.attn.rotary_emb.inv_freq": (1e6 ** (-np.arange(8) / 8) / scale).astype(np.float32)}
    folder, out = make_checkpoint(tensors=add(1), dtype=dtype), tmp_path / "x.gguf"
    assert main([str(folder), "-o", str(out)]) == 0
    assert not [t.name for t in gguf.GGUFReader(out).tensors if "freq" in t.name]
    assert "inv_freq: got other rotary frequencies, expected those of rope_theta = 1e+06 and head size 16; " in error_of(capsys, make_checkpoint(tensors=add(4), dtype=dtype))


@pytest.mark.parametrize("edit, message", [
    ({"shape": [64.5]}, "got a malformed entry"), ({"shape": [True, 64]}, "got a malformed entry"), ({"data_offsets": [0, 4, 8]}, "got a malformed entry"),
    ({"shape": [2**32, 2**32], "data_offsets": [0, 0]}, "got 0 bytes"), ({"data_offsets": [0, 128]}, "got data from byte 0, expected "),
])
def test_safetensors_entries(make_checkpoint, capsys, edit, message):
    path = make_checkpoint() / "model.safetensors"
    data = path.read_bytes()
    n = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + n])
    header["model.norm.weight"] |= edit
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + n:])
    assert message in error_of(capsys, path.parent)


def test_outliers_of_a_matrix_too_large_for_their_index(tmp_path):
    """Their places are int32: told while the plan is made, by --dry-run too."""
    large, largest = (Codes(Tensor("w", (n, 128), "F32", None, tmp_path)) for n in (2**24, 2**24 - 1))
    with pytest.raises(ConvertError, match="w: got 2147483648 weights with codes outside int8, expected fewer than 2147483648; "):
        part_shapes(large, 1)
    assert part_shapes(large, 0)["weight"] == (2**24, 128) and part_shapes(largest, 1)["outlier_index"] == (1,)


@pytest.mark.parametrize("inherited", [signal.SIG_IGN, signal.SIG_DFL])
def test_hangup_that_was_ignored_stays_ignored(checkpoint, monkeypatch, inherited):
    """nohup sb-convert ... & goes on when the terminal goes."""
    monkeypatch.setattr(cli, "run", lambda args: os.kill(os.getpid(), signal.SIGHUP) or 0)
    before = signal.signal(signal.SIGHUP, inherited)
    try:
        assert main([str(checkpoint)]) == (0 if inherited == signal.SIG_IGN else 130)
        assert signal.getsignal(signal.SIGHUP) == inherited
    finally:
        signal.signal(signal.SIGHUP, before)


def test_main_in_a_thread_and_its_handlers_after_it(checkpoint, tmp_path):
    codes: list[int] = []
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=lambda: codes.append(main([str(checkpoint), "-o", str(tmp_path / "x.gguf")])))
    thread.start()
    thread.join()
    assert codes == [0] and main([str(checkpoint), "-o", str(tmp_path / "y.gguf")]) == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_whoever_reads_the_output_may_stop(checkpoint):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "converter"), os.environ.get("PYTHONPATH", "")])}
    read, write = os.pipe()
    os.close(read)
    run = subprocess.run([sys.executable, "-m", "sb_convert", str(checkpoint), "--dry-run"], env=env, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (run.returncode, run.stderr) == (141, "")


@pytest.mark.parametrize("held, message", [
    ({"general.nam": "x"}, "meta.json: key: got 'general.nam', expected one of general.author, "), ({"general.file_type": 3}, "key: got 'general.file_type', expected one of "),
    ({"name": "x"}, "key: got 'name', expected one of "), ({"general.name": 7}, "general.name: got 7 (int), expected a string; "), ({"general.name": ["x"]}, "general.name: got ['x'] (list), "),
    ({"general.tags": "a"}, "general.tags: got 'a' (str), expected a list of strings; "), ({"general.tags": [1]}, "general.tags: got [1] (list), "),
    ({"general.sampling.temp": "hot"}, "general.sampling.temp: got 'hot' (str), expected a number; "), ({"general.sampling.top_k": 2.5}, "general.sampling.top_k: got 2.5 (float), expected an integer; "),
    ({"general.sampling.top_k": 2**40}, "general.sampling.top_k: got 1099511627776 (int), "), ({"general.base_models": [{"nam": "x"}]}, "general.base_models: got 'nam', expected one of name, "),
    ({"general.base_models": ["x"]}, "general.base_models: got ['x'] (list), expected a list of objects of strings; "), ({"general.license": True}, "general.license: got True (bool), "),
])
def test_metadata_that_is_refused(checkpoint, tmp_path, capsys, held, message):
    (tmp_path / "meta.json").write_text(json.dumps(held))
    assert message in error_of(capsys, checkpoint, "--metadata", str(tmp_path / "meta.json"), "--dry-run")


def test_metadata_is_what_the_file_says(checkpoint, tmp_path):
    held = {"general.license": "mit", "general.source.url": "https://example.com", "general.tags": ["a", "b"], "general.sampling.temp": 0, "general.sampling.top_k": 40,
            "general.base_models": [{"name": "B", "organization": "O"}], "general.size_label": None, "general.author": "me"}
    (tmp_path / "meta.json").write_text("\ufeff" + json.dumps(held), encoding="utf-8")
    keys = keys_of(checkpoint, tmp_path, "--metadata", str(tmp_path / "meta.json"))
    assert {k: keys[k] for k in ("general.license", "general.source.url", "general.tags", "general.sampling.temp", "general.sampling.top_k", "general.author")} \
        == {k: held[k] for k in ("general.license", "general.source.url", "general.tags", "general.sampling.temp", "general.sampling.top_k", "general.author")}
    assert keys["general.base_model.0.name"] == "B" and "general.size_label" not in keys


def test_model_card_of_odd_types(make_checkpoint, tmp_path, caplog):
    folder = make_checkpoint()
    (folder / "README.md").write_text("\ufeff---\nversion: 1.5\nauthor: [a, b]\nlicense: [mit, apache-2.0]\ntags: [x, 7]\nlanguage: en\n---\n", encoding="utf-8")
    keys = keys_of(folder, tmp_path)
    assert (keys["general.version"], keys["general.license"], keys["general.languages"]) == ("1.5", "mit,apache-2.0", ["en"])
    assert "general.author" not in keys and "README.md: author: got ['a', 'b'], expected a string; not used" in caplog.text and "README.md: tags: got " in caplog.text


def test_names_from_the_cache(make_checkpoint, tmp_path, monkeypatch):
    folder = tmp_path / "hub" / "models--Some-Org--SpikingBrain-7B-base" / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    folder.parent.mkdir(parents=True)
    make_checkpoint().rename(folder)
    keys = keys_of(folder, tmp_path)
    assert (keys["general.name"], keys["general.organization"]) == ("SpikingBrain 7B Base", "Some Org")
    assert main([str(folder), "-o", str(tmp_path)]) == 0 and (tmp_path / "SpikingBrain-7B-base-BF16.gguf").is_file()
    monkeypatch.chdir(folder)
    assert keys_of(Path("."), tmp_path)["general.name"] == "SpikingBrain 7B Base"
