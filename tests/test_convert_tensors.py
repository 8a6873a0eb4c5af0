"""Every tensor and key of the GGUF is the checkpoint's, whatever form the checkpoint comes in."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from conftest import TINY, as_bf16, shared, tiny_tensors

from sb_convert.cli import main
from sb_convert.config import Config
from sb_convert.formats import OUTTYPES, decode, encode, error_bound, nbytes, whole_blocks
from sb_convert.sources import open_checkpoint
from sb_convert.tensors import targets

T = gguf.GGMLQuantizationType


def converted(folder: Path, *options: str) -> gguf.GGUFReader:
    out = folder.parent / "out.gguf"
    assert main([str(folder), "-o", str(out), "--force", *options]) == 0
    return gguf.GGUFReader(out)


def tensors_of(reader: gguf.GGUFReader) -> dict[str, gguf.ReaderTensor]:
    return {t.name: t for t in reader.tensors}


def value(reader: gguf.GGUFReader, key: str):
    return reader.get_field(key).contents()


def digest(reader: gguf.GGUFReader) -> str:
    h = hashlib.sha256()
    for t in reader.tensors:
        h.update(f"{t.name} {t.shape.tolist()} {t.tensor_type.name}".encode() + t.data.tobytes())
    return h.hexdigest()


def test_names_of_a_gla_and_a_swa_layer():
    config = Config.from_json({**TINY, "attn_layers": [1]})
    names = {t.gguf: t.checkpoint for t in targets(config)}
    for ours, theirs in {
        "token_embd.weight": "model.embeddings.weight", "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight",
        "blk.0.attn_norm.weight": "model.layers.0.attn_norm.weight", "blk.0.ffn_norm.weight": "model.layers.0.mlp_norm.weight",
        "blk.0.time_mix_decay_w1.weight": "model.layers.0.attn.gk_proj.0.weight",
        "blk.0.time_mix_decay_w2.weight": "model.layers.0.attn.gk_proj.1.weight",
        "blk.0.time_mix_decay_w2.bias": "model.layers.0.attn.gk_proj.1.bias", "blk.0.ssm_norm.weight": "model.layers.0.attn.g_norm.weight",
        "blk.1.attn_q.weight": "model.layers.1.attn.q_proj.weight", "blk.1.attn_k.bias": "model.layers.1.attn.k_proj.bias",
        "blk.1.attn_v.weight": "model.layers.1.attn.v_proj.weight", "blk.1.attn_output.weight": "model.layers.1.attn.o_proj.weight",
        "blk.1.ffn_gate.weight": "model.layers.1.mlp.gate_proj.weight", "blk.1.ffn_up.weight": "model.layers.1.mlp.up_proj.weight",
        "blk.1.ffn_down.weight": "model.layers.1.mlp.down_proj.weight",
    }.items():
        assert names[ours] == theirs
    assert len(names) == 3 + 2 * 12 + 4
    assert "blk.1.ssm_norm.weight" not in names
    full = {t.gguf: t.checkpoint for t in targets(Config.from_json({**TINY, "gate_low_rank_dim": 0}))}
    assert full["blk.0.attn_gate.weight"] == "model.layers.0.attn.gk_proj.weight" and full["blk.0.attn_gate.bias"]


@pytest.mark.parametrize("change", [{}, {"gate_rank": 0}, {"gate_rank": 8}, {"tie_word_embeddings": True}, {"attn_layers": []},
                                    {"num_key_value_heads": 4}, {"dtype": "F32"}, {"dtype": "F16"}])
def test_values_survive(make_checkpoint, change):
    folder = make_checkpoint(**change)
    source = open_checkpoint(folder)
    reader = converted(folder, "--outtype", "f32")
    stored = tensors_of(reader)
    assert len(stored) == len(source)
    for target in targets(Config.from_json({**json.loads((folder / "config.json").read_text()), "gate_low_rank_dim": change.get("gate_rank", 16)})):
        t = stored[target.gguf]
        assert t.tensor_type == T.F32
        np.testing.assert_array_equal(t.data.reshape(target.shape), source[target.checkpoint].rows(0, None))
    assert value(reader, "spikingbrain.gla.gate_low_rank_dim") == (0 if change.get("attn_layers") == [] and False else change.get("gate_rank", 16))


def test_bf16_is_read_right(make_checkpoint):
    folder = make_checkpoint()
    expected = tiny_tensors(TINY, 16, 0)["lm_head.weight"]
    np.testing.assert_array_equal(open_checkpoint(folder)["lm_head.weight"].rows(3, 5), (as_bf16(expected).astype(np.uint32) << 16).view(np.float32)[3:5])


def test_every_form_gives_the_same_tensors(make_checkpoint):
    pytest.importorskip("torch")
    forms = [("safetensors", 1), ("safetensors", 3), ("bin", 1), ("bin", 4)]
    assert len({digest(converted(make_checkpoint(form=f, n_shards=n, name=f"{f}{n}"), "--outtype", "q4_0")) for f, n in forms}) == 1


@pytest.mark.parametrize("outtype, matrix, output, file_type", [
    ("f32", T.F32, T.F32, 0), ("f16", T.F16, T.F16, 1), ("bf16", T.BF16, T.BF16, 32), ("q8_0", T.Q8_0, T.Q8_0, 7), ("q4_0", T.Q4_0, T.Q8_0, 2)])
@pytest.mark.parametrize("tied", [False, True])
def test_types(make_checkpoint, outtype, matrix, output, file_type, tied):
    reader = converted(make_checkpoint(tie_word_embeddings=tied, gate_rank=32), "--outtype", outtype)
    for name, t in tensors_of(reader).items():
        is_output = name == ("token_embd.weight" if tied else "output.weight")
        f32 = len(t.shape) == 1 or "time_mix_decay" in name
        assert t.tensor_type == (T.F32 if f32 else output if is_output else matrix), name
    assert value(reader, "general.file_type") == file_type
    assert value(reader, "general.quantization_version") == 2


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_auto_is_the_checkpoints_own(make_checkpoint, dtype):
    stored = tensors_of(converted(make_checkpoint(dtype=dtype)))
    assert stored["blk.0.attn_q.weight"].tensor_type == T[dtype]


def test_uneven_rows_fall_back_to_f16(make_checkpoint, capsys):
    stored = tensors_of(converted(make_checkpoint(intermediate_size=80), "--outtype", "q4_0"))
    assert stored["blk.0.ffn_down.weight"].tensor_type == T.F16 and stored["blk.0.ffn_up.weight"].tensor_type == T.Q4_0
    assert "blk.0.ffn_down.weight: rows of 80 are no whole blocks of Q4_0: stored as F16" in capsys.readouterr().out


def test_hyperparameters(make_checkpoint):
    reader = converted(make_checkpoint(num_hidden_layers=4, attn_layers=[1, 3]))
    expected = {"vocab_size": 288, "context_length": 512, "embedding_length": 64, "block_count": 4, "feed_forward_length": 96,
                "attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": 16, "attention.value_length": 16,
                "attention.sliding_window": 8, "attention.recurrent_layers": [True, False, True, False], "rope.dimension_count": 16,
                "rope.freq_base": 1e6, "gla.gate_logit_normalizer": 16.0, "gla.gate_low_rank_dim": 16}
    assert value(reader, "general.architecture") == "spikingbrain"
    assert {k: value(reader, f"spikingbrain.{k}") for k in expected} == expected
    assert value(reader, "spikingbrain.attention.layer_norm_rms_epsilon") == pytest.approx(1e-6)
    assert reader.get_field("spikingbrain.attention.recurrent_layers").types[-1] == gguf.GGUFValueType.BOOL


def pattern(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights from integer arithmetic alone: the same on every machine and numpy."""
    return {n: ((np.arange(t.size, dtype=np.uint64) * 2654435761 + len(n)) % 65536 / 65536 - 0.5).astype(np.float32).reshape(t.shape)
            for n, t in tensors.items()}


def keys_digest(reader: gguf.GGUFReader) -> str:
    keys = {k: f.contents() for k, f in reader.fields.items() if k.startswith(("spikingbrain.", "tokenizer."))}
    return hashlib.sha256(json.dumps(keys, sort_keys=True).encode()).hexdigest()


@pytest.mark.parametrize("outtype, tensors, keys", [
    ("f32", "6a249841afb60213", "b24111331829cd8f"), ("f16", "f781b316b052250f", "b24111331829cd8f"),
    ("bf16", "604ec7ee5376c885", "b24111331829cd8f"), ("q8_0", "060b656db812ecb6", "b24111331829cd8f"),
    ("q4_0", "711533a25ffcae8e", "b24111331829cd8f")])
def test_golden_hashes(make_checkpoint, outtype, tensors, keys):
    """The exact bytes and keys: a change here is a change of every file that users make."""
    reader = converted(make_checkpoint(tensors=pattern), "--outtype", outtype)
    assert (digest(reader)[:16], keys_digest(reader)[:16]) == (tensors, keys)


def test_split_holds_the_same(make_checkpoint):
    folder = make_checkpoint(hidden_size=256, intermediate_size=1024, vocab_size=2048)
    whole = digest(converted(folder))
    assert main([str(folder), "-o", str(folder / "s.gguf"), "--split-max-size", "1M"]) == 0
    files = sorted(folder.glob("s-0*-of-0*.gguf"))
    assert len(files) > 2 and not (folder / "s.gguf").exists()
    h = hashlib.sha256()
    for i, file in enumerate(files):
        reader = gguf.GGUFReader(file)
        assert value(reader, "split.no") == i and value(reader, "split.count") == len(files)
        for t in reader.tensors:
            h.update(f"{t.name} {t.shape.tolist()} {t.tensor_type.name}".encode() + t.data.tobytes())
    assert h.hexdigest() == whole


def test_dry_run_writes_nothing(make_checkpoint, capsys):
    folder = make_checkpoint()
    before = sorted(p.name for p in folder.iterdir())
    assert main([str(folder), "--dry-run", "--outtype", "q8_0"]) == 0
    text = capsys.readouterr().out
    assert "blk.1.ffn_down.weight" in text and "96x64 Q8_0" in text and "checkpoint-Q8_0.gguf; nothing written" in text
    assert sorted(p.name for p in folder.iterdir()) == before


def test_default_name_and_vocab_only(make_checkpoint):
    folder = make_checkpoint()
    assert main([str(folder)]) == 0 and main([str(folder), "--vocab-only"]) == 0
    assert (folder / "checkpoint-BF16.gguf").exists()
    reader = gguf.GGUFReader(folder / "checkpoint-vocab.gguf")
    assert not reader.tensors and len(value(reader, "tokenizer.ggml.tokens")) == 288


def test_metadata(make_checkpoint):
    folder = make_checkpoint()
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nlanguage:\n- en\n---\n# A model\n")
    override = folder / "meta.json"
    override.write_text(json.dumps({"general.author": "someone", "general.name": "other"}))
    reader = converted(folder, "--metadata", str(override), "--model-name", "Tiny Brain")
    assert [value(reader, f"general.{k}") for k in ("name", "author", "license", "type")] == ["Tiny Brain", "someone", "apache-2.0", "model"]
    (folder / "README.md").write_text("---\nlicense: [apache\n---\n")  # a broken model card costs its metadata only
    assert value(converted(folder), "general.name")


def test_tied_head_stored_twice(make_checkpoint):
    def twice(t):
        t["lm_head.weight"] = t["model.embeddings.weight"]
    stored = tensors_of(converted(make_checkpoint(tie_word_embeddings=True, tensors=twice)))
    assert "output.weight" not in stored


@pytest.mark.parametrize("qtype", [T.F16, T.BF16, T.Q8_0, T.Q4_0])
@pytest.mark.parametrize("scale", [1e-7, 1e-3, 1.0, 300.0])
def test_error_bounds_hold_and_are_tight(qtype, scale):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((2000, 64)) * scale).astype(np.float32)
    x[0] = 0
    off, bound = np.abs(decode(encode(x, qtype), qtype) - x), error_bound(x, qtype)
    assert (off <= bound).all()
    if scale >= 1e-3:  # below, fp16's smallest steps rule
        assert (off / np.maximum(bound, 1e-30)).max() > 0.8


def test_sizes():
    assert nbytes((3, 64), T.Q4_0) == 3 * 2 * 18 and nbytes((5,), T.F32) == 20
    assert whole_blocks(T.Q8_0, (4, 16)) == T.F16 and set(OUTTYPES) == {"f32", "f16", "bf16", "q8_0", "q4_0", "int8"}


def test_shared_7b_vocabulary_has_no_weights(tmp_path, capsys):
    assert main([str(shared("SpikingBrain-7B-W8ASpike")), "-o", str(tmp_path / "x.gguf")]) == 1
    assert "weights: got none of the known files, expected model.safetensors" in capsys.readouterr().err
