"""The vocabulary in the GGUF is the tokenizer's: every id, type, merge, special token and the chat template."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import pytest
from conftest import MERGES, TEMPLATE, shared
from tokenizer_files import PRE

from sb_convert.cli import main

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def vocab_of(folder: Path, tmp_path: Path) -> dict:
    out = tmp_path / "vocab.gguf"
    assert main([str(folder), "-o", str(out), "--vocab-only", "--force"]) == 0
    return {k.removeprefix("tokenizer."): f.contents() for k, f in gguf.GGUFReader(out).fields.items() if k.startswith("tokenizer.")}


def test_bpe(make_checkpoint, tmp_path):
    v = vocab_of(make_checkpoint(), tmp_path)
    assert (v["ggml.model"], v["ggml.pre"], v["ggml.normalizer"], v["ggml.add_bos_token"]) == ("gpt2", "qwen2", "nfc", False)
    assert v["ggml.merges"] == MERGES and v["ggml.tokens"][256:262] == [m.replace(" ", "") for m in MERGES]
    assert v["ggml.tokens"][262:267] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "[PAD265]", "[PAD266]"]
    assert v["ggml.token_type"] == [NORMAL] * 262 + [CONTROL] * 3 + [UNUSED] * 23
    assert (v["ggml.bos_token_id"], v["ggml.eos_token_id"], v["ggml.eot_token_id"]) == (262, 262, 264)
    assert v["chat_template"] == TEMPLATE


def test_types_without_a_decoder(make_checkpoint, tmp_path):
    """Without added_tokens_decoder, what special_tokens_map.json names is special and the rest is not."""
    folder = make_checkpoint()
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    (folder / "special_tokens_map.json").write_text('{"additional_special_tokens": ["<|im_start|>"]}')
    assert vocab_of(folder, tmp_path)["ggml.token_type"][262:265] == [CONTROL, CONTROL, USER_DEFINED]


def test_tokenizer_json_alone(make_checkpoint, tmp_path):
    folder = make_checkpoint()
    expected = vocab_of(folder, tmp_path)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added, ids = (json.loads((folder / name).read_text()) for name in ("added_tokens.json", "vocab.json"))
    for merges in (MERGES, [m.split(" ") for m in MERGES]):  # both forms that the tokenizers library writes
        (folder / "tokenizer.json").write_text(json.dumps({
            "normalizer": {"type": "NFC"}, "pre_tokenizer": PRE["qwen2"], "added_tokens": [{"id": i, "content": t, **flags} for t, i in added.items()],
            "model": {"type": "BPE", "vocab": ids, "merges": merges}}))
        for name in ("vocab.json", "merges.txt", "added_tokens.json"):
            (folder / name).unlink(missing_ok=True)
        assert vocab_of(folder, tmp_path) == expected


def test_chat_template_file_wins(make_checkpoint, tmp_path):
    folder = make_checkpoint()
    (folder / "chat_template.jinja").write_text("{{ 'from the file' }}")
    assert vocab_of(folder, tmp_path)["chat_template"] == "{{ 'from the file' }}"


def test_tokenizers_ids_decide_where_config_is_silent(make_checkpoint, tmp_path):
    v = vocab_of(make_checkpoint(bos_token_id=None, eos_token_id=[264, 262]), tmp_path)
    assert "ggml.bos_token_id" not in v and v["ggml.eos_token_id"] == 264


@pytest.fixture(scope="module")
def published_7b(tmp_path_factory) -> tuple[Path, dict]:
    folder = shared("SpikingBrain-7B-W8ASpike")
    return folder, vocab_of(folder, tmp_path_factory.mktemp("7b"))


def test_published_7b(published_7b):
    folder, v = published_7b
    tokens, types = v["ggml.tokens"], v["ggml.token_type"]
    assert len(tokens) == len(set(tokens)) == 152064
    assert all(tokens[i] == t for t, i in json.loads((folder / "vocab.json").read_text()).items())
    assert tokens[151643] == "<|endoftext|>" and tokens[151665] == "[PAD151665]"
    assert types[151642:151666] == [NORMAL] + [CONTROL] * 14 + [USER_DEFINED] * 8 + [UNUSED]
    assert (v["ggml.bos_token_id"], v["ggml.eos_token_id"], v["ggml.eot_token_id"], v["ggml.padding_token_id"]) == (151643, 151643, 151645, 151643)
    assert len(v["ggml.merges"]) == 151387 and v["ggml.merges"][0] == "Ġ Ġ"
    assert v["chat_template"] == json.loads((folder / "tokenizer_config.json").read_text())["chat_template"]


def test_published_7b_loads_in_hf_tokenizers(published_7b):
    """vocabulary and merges as written build the same tokenizer as the published files."""
    tokenizers = pytest.importorskip("tokenizers")
    folder, v = published_7b
    ours = tokenizers.Tokenizer(tokenizers.models.BPE({t: i for i, t in enumerate(v["ggml.tokens"])}, [tuple(m.split(" ")) for m in v["ggml.merges"]]))
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    for t in (ours, theirs):
        t.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    for text in ("Hello, world! 你好，世界", "def f(x):\n\treturn x ** 2", "été 🦙🦙"):
        assert ours.encode(text).ids == theirs.encode(text).ids


@pytest.mark.parametrize("algorithm, model", [("spm_bpe", "llama"), ("spm_unigram", "t5")])
def test_sentencepiece(make_checkpoint, tmp_path, algorithm, model):
    spm = pytest.importorskip("sentencepiece")
    folder = make_checkpoint(tokenizer=algorithm, vocab_size=400, bos_token_id=1, eos_token_id=2)
    sp = spm.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    v = vocab_of(folder, tmp_path)
    n = sp.get_piece_size()
    assert n < 400 and v["ggml.model"] == model
    assert v["ggml.tokens"][:n] == [sp.id_to_piece(i) for i in range(n)] and v["ggml.tokens"][n] == f"[PAD{n}]"
    assert v["ggml.scores"][:n] == pytest.approx([sp.get_score(i) for i in range(n)])
    types = v["ggml.token_type"]
    assert types[:3] == [UNKNOWN, CONTROL, CONTROL] and types[sp.piece_to_id("<sep>")] == USER_DEFINED
    assert types[sp.piece_to_id("<0x41>")] == BYTE and types[n:] == [UNUSED] * (400 - n)
    assert (v["ggml.unknown_token_id"], v["ggml.bos_token_id"], v["ggml.eos_token_id"]) == (0, 1, 2)
    assert v["ggml.add_space_prefix"] is True
    if model == "t5":
        assert v["ggml.remove_extra_whitespaces"] is True and len(v["ggml.precompiled_charsmap"]) > 1000
    assert "ggml.normalizer" not in v


@pytest.mark.parametrize("algorithm", ["spm_bpe", "spm_unigram"])
def test_fork_tokenises_as_sentencepiece(make_checkpoint, tmp_path, algorithm):
    spm = pytest.importorskip("sentencepiece")
    try:
        from spikingbrain_cpp import Llama
    except ImportError:
        pytest.skip("spikingbrain_cpp is not built")
    folder = make_checkpoint(tokenizer=algorithm, vocab_size=400, bos_token_id=1, eos_token_id=2)
    sp = spm.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    vocab_of(folder, tmp_path)
    with Llama(model_path=str(tmp_path / "vocab.gguf"), vocab_only=True, verbose=False) as llm:
        for text in ("the cat said hello", "number 17 sat on mat 3", "Unknown: é 好 🦙 xyz" if algorithm == "spm_bpe" else "the", "hello"):
            assert llm.tokenize(text.encode(), add_bos=False, special=True) == sp.encode(text), text


def test_sentencepiece_missing_is_told(make_checkpoint, monkeypatch, capsys):
    folder = make_checkpoint(tokenizer="spm_bpe", vocab_size=400)
    monkeypatch.setitem(__import__("sys").modules, "sentencepiece", None)
    assert main([str(folder)]) == 1
    assert "pip install 'spikingbrain_cpp[sentencepiece]'" in capsys.readouterr().err


def test_example_tokenizer_is_what_its_script_makes(tmp_path):
    import importlib.util
    root = Path(__file__).parent.parent / "examples"
    spec = importlib.util.spec_from_file_location("make_example", root / "make_example.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.write_tokenizer(tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (root / "tiny" / path.name).read_bytes(), path.name
    assert sum(p.stat().st_size for p in (root / "tiny").iterdir()) < 4_000_000
