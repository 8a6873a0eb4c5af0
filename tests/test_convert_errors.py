"""Bad input: {damage a checkpoint, the message}: one line on stderr, exit code 1, nothing written."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_tensors, TINY, write_safetensors

from sb_convert.cli import main


def error_of(capsys, folder: Path, *options: str) -> str:
    before = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    assert main([str(folder), *options]) == 1
    text = capsys.readouterr().err
    assert text.startswith("sb-convert: ") and text.count("\n") == 1 and "Traceback" not in text
    if folder.is_dir():
        assert sorted(p.name for p in folder.iterdir()) == before
    return text


def edit_config(folder: Path, **change) -> None:
    config = json.loads((folder / "config.json").read_text())
    for key, value in change.items():
        if value is KeyError:
            config.pop(key)
        else:
            config[key] = value
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("change, message", [
    ({"use_short_conv": True}, "use_short_conv: got True, expected false; "),
    ({"hidden_act": "gelu"}, "hidden_act: got 'gelu', expected 'swish' or 'silu'; "),
    ({"model_type": "llama"}, "model_type: got 'llama', expected 'gla_swa'; "),
    ({"model_type": KeyError}, "model_type: got None, expected 'gla_swa'; "),
    ({"attn_layers": [1, 2]}, "attn_layers: got (1, 2), expected indices from 0 to 1; "),
    ({"attn_layers": [-1]}, "attn_layers: got (-1,), expected indices from 0 to 1; "),
    ({"attn_layers": [1, 1]}, "attn_layers: got (1, 1), expected each layer once; "),
    ({"attn_layers": "1"}, "attn_layers: got '1' (str), expected a list of integers; "),
    ({"num_attention_heads": 5}, "num_attention_heads: got 5, expected a divisor of hidden_size = 64; "),
    ({"num_attention_heads": 64}, "num_attention_heads: got 64, expected an even head size"),
    ({"num_key_value_heads": 3}, "num_key_value_heads: got 3, expected a divisor of num_attention_heads = 4; "),
    ({"num_attention_heads": 0}, "num_attention_heads: got 0, expected an integer from 1"),
    ({"sliding_window": 0}, "sliding_window: got 0, expected an integer from 1"),
    ({"sliding_window": None}, "sliding_window: got None (NoneType), expected int; "),
    ({"hidden_size": "64"}, "hidden_size: got '64' (str), expected int; "),
    ({"hidden_size": KeyError}, "hidden_size: got nothing, expected a value (int); "),
    ({"num_hidden_layers": 513}, "num_hidden_layers: got 513, expected 1 to 512; "),
    ({"elementwise_affine": False}, "elementwise_affine: got False, expected true; "),
    ({"rope_scaling": {"type": "yarn"}}, "rope_scaling: got {'type': 'yarn'}, expected null; "),
    ({"norm_eps": 0}, "norm_eps: got 0.0, expected a number above 0; "),
    pytest.param({"head_dim": 32}, "model.layers.0.attn.q_proj.weight: got shape [64, 64], expected [128, 64]; ",
                 id="change20-head_dim: got 32, expected hidden_size / num_attention_heads; "),
    ({"tie_word_embeddings": 1}, "tie_word_embeddings: got 1 (int), expected bool; "),
    ({"eos_token_id": 288}, "eos_token_id: got 288, expected null or 0 to 287; "),
    ({"num_hidden_layers": 3}, "tensors: got 16 missing: model.layers.2."),
    ({"num_hidden_layers": 1, "attn_layers": []}, "tensors: got 12 left over: "),
    ({"attn_layers": [0]}, "model.layers.1.attn.gk_proj.0.weight: got nothing, expected this tensor or model.layers.1.attn.gk_proj.weight; "),
    ({"attn_layers": []}, "tensors: got 4 missing: "),
    ({"intermediate_size": 128}, "model.layers.0.mlp.gate_proj.weight: got shape [96, 64], expected [128, 64]; "),
    ({"tie_word_embeddings": True}, "lm_head.weight: got a matrix of its own, expected the embedding"),
    ({"vocab_size": 250}, "expected 0 to 249 (vocab_size 250); "),
    ({"sliding_window": 513}, "sliding_window: got 513, expected at most max_position_embeddings = 512; "),
])
def test_config(make_checkpoint, capsys, change, message):
    folder = make_checkpoint()
    if "vocab_size" in change:
        edit_config(folder, eos_token_id=0, bos_token_id=0)
    edit_config(folder, **change)
    assert message in error_of(capsys, folder)


def no_config(folder):
    (folder / "config.json").unlink()


def broken_config(folder):
    (folder / "config.json").write_text('{"hidden_size": 64,')


def list_config(folder):
    (folder / "config.json").write_text("[1]")


def cut_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def cut_header(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:50])


def empty_weights(folder):
    (folder / "model.safetensors").write_bytes(b"")


def longer_weights(folder):
    with open(folder / "model.safetensors", "ab") as f:
        f.write(b"1234")


def broken_header(folder):
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[8:12] = b"\xff\xff\xff\xff"
    path.write_bytes(data)


def int_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"BF16"', b'"I16" ', 1))


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def legacy_bin(folder):
    no_weights(folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": 1}))


def cut_bin(folder):
    torch = pytest.importorskip("torch")
    no_weights(folder)
    torch.save({"a": torch.zeros(100)}, folder / "pytorch_model.bin")
    data = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(data[:-40])


def unsafe_bin(folder):
    torch = pytest.importorskip("torch")
    no_weights(folder)
    torch.save({"a": Path("x")}, folder / "pytorch_model.bin")


def no_tokenizer(folder):
    (folder / "vocab.json").unlink()


def no_merges(folder):
    (folder / "merges.txt").unlink()


def broken_merges(folder):
    (folder / "merges.txt").write_text("#version: 0.2\nh e l\n")


def foreign_merge(folder):
    (folder / "merges.txt").write_text("#version: 0.2\nq z\n")


def double_id(folder):
    vocab = json.loads((folder / "vocab.json").read_text())
    vocab["hello"] = 0
    (folder / "vocab.json").write_text(json.dumps(vocab))


def added_out_of_range(folder):
    (folder / "added_tokens.json").write_text('{"<x>": 288}')


def list_decoder(folder):
    (folder / "tokenizer_config.json").write_text('{"added_tokens_decoder": [1, 2]}')


def cut_spm(folder):
    no_tokenizer(folder)
    (folder / "tokenizer.model").write_bytes(b"\x0a\x0e\x0a\x05hello")


@pytest.mark.parametrize("damage, message", [
    (no_config, "config.json: file: got nothing, expected a JSON file; "),
    (broken_config, "config.json: content: got malformed JSON"),
    (list_config, "config.json: content: got a list, expected a JSON object; "),
    (cut_weights, "it is cut short; download the file again"),
    (cut_header, "model.safetensors: header: got 50 bytes in all, expected 8 + "),
    (empty_weights, "model.safetensors: header: got 0 bytes in all"),
    (longer_weights, "model.safetensors: size: got "),
    (broken_header, "model.safetensors: header: got malformed JSON"),
    (int_weights, "got type I16, expected F32, F16 or BF16; "),
    (no_weights, "weights: got none of the known files, expected model.safetensors"),
    (legacy_bin, "format: got the legacy (non-zip) one of torch.save"),
    (cut_bin, "pytorch_model.bin: content: got a file cut short"),
    (unsafe_bin, "expected a state dict that loads with weights_only=True; "),
    (no_tokenizer, "tokenizer: got none, expected vocab.json and merges.txt, tokenizer.json or tokenizer.model; "),
    (no_merges, "merges.txt: file: got nothing"),
    (broken_merges, "merges.txt: line: got 'h e l', expected two tokens with one space between them; "),
    (foreign_merge, "merge 'q z': got a pair whose result is no token"),
    (double_id, "id 0: got "),
    (added_out_of_range, "added token '<x>': got id 288, expected 0 to 287"),
    (list_decoder, "tokenizer files: got malformed content"),
    (cut_spm, "tokenizer.model: content: got "),
])
def test_files(make_checkpoint, capsys, damage, message):
    folder = make_checkpoint()
    damage(folder)
    assert message in error_of(capsys, folder)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite(make_checkpoint, capsys, value):
    def spoil(t):
        t["model.layers.1.mlp.up_proj.weight"][7, 5] = value
        t["model.layers.1.mlp.up_proj.weight"][50, 1] = value
    text = error_of(capsys, make_checkpoint(tensors=spoil))
    assert "model.layers.1.mlp.up_proj.weight: got 2 NaN or infinite values, the first at [7, 5], expected finite weights; " in text


def test_too_large_for_f16(make_checkpoint, capsys):
    def grow(t):
        t["model.layers.0.attn.q_proj.weight"][0, 0] = 1e6
    text = error_of(capsys, make_checkpoint(tensors=grow), "--outtype", "f16")
    assert "attn.q_proj.weight: got a weight of 999424, expected at most 65504 for F16; choose --outtype bf16 or f32" in text


def test_absent_shard(make_checkpoint, capsys):
    folder = make_checkpoint(n_shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    assert "weight_map: got model-00002-of-00003.safetensors, which is absent, expected a file beside the index; " in error_of(capsys, folder)


def test_cut_shard(make_checkpoint, capsys):
    folder = make_checkpoint(n_shards=3)
    path = folder / "model-00003-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert "model-00003-of-00003.safetensors: " in error_of(capsys, folder)


def test_index_of_other_shards(make_checkpoint, capsys):
    folder = make_checkpoint(n_shards=2)
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.norm.bias"] = "model-00001-of-00002.safetensors"
    path.write_text(json.dumps(index))
    assert "model.norm.bias: got no such tensor in model-00001-of-00002.safetensors" in error_of(capsys, folder)
    path.write_text('{"weight_map": {"a": "../x"}}')
    assert "weight_map: got '../x', expected a file name without folders; " in error_of(capsys, folder)


def test_tensor_in_two_shards(make_checkpoint, capsys):
    folder = make_checkpoint(n_shards=2)
    write_safetensors(folder / "model-00002-of-00002.safetensors", tiny_tensors(TINY, 16, 0))
    assert "expected each tensor once; " in error_of(capsys, folder)


def test_no_such_folder(tmp_path, capsys):
    assert "nowhere: checkpoint: got no such folder" in error_of(capsys, tmp_path / "nowhere")


def test_options(make_checkpoint, tmp_path, capsys):
    folder = make_checkpoint()
    assert "nowhere: " in error_of(capsys, folder, "-o", str(tmp_path / "nowhere" / "x.gguf"))
    assert "meta.json: file: got nothing" in error_of(capsys, folder, "--metadata", str(tmp_path / "meta.json"))
    os.mkfifo(tmp_path / "pipe")
    assert "pipe: output: got a device, a pipe or a socket, expected a regular file; " in error_of(capsys, folder, "-o", str(tmp_path / "pipe"), "--force")
    for options in (["--outtype", "q2_k"], ["--split-max-size", "12"], ["--verify", "--dry-run"]):
        with pytest.raises(SystemExit) as e:
            main([str(folder), *options])
        assert e.value.code == 2


def test_torch_missing_is_told(make_checkpoint, capsys, monkeypatch):
    pytest.importorskip("torch")
    folder = make_checkpoint(form="bin")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    assert "torch: got no such package, expected PyTorch; pip install 'spikingbrain_cpp[torch]'" in error_of(capsys, folder)
    shutil.rmtree(folder)
