"""The converted tokenizer splits and ends as Hugging Face's does, or is refused by name: {files as published, keys or error}."""

from __future__ import annotations

import json
import os
import re
import struct
from pathlib import Path
from typing import Any

import gguf
import pytest
from conftest import TEMPLATE
from tokenizer_files import BYTES, IGNORE_MERGES, PRE, TEXTS, WORDS, split, steps, template, tokenizer_json, trained, write_tokenizer

from sb_convert import pretokenizers as P
from sb_convert.cli import main
from sb_convert.spm import add_normalizer, fields, varint
from sb_convert.tokenizer import check_settings
from sb_convert.vocab import Vocab

GPT4O = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+" + P.SPACES


def keys_of(folder: Path) -> dict[str, Any]:
    out = folder / "vocab.gguf"
    assert main([str(folder), "-o", str(out), "--vocab-only", "--force"]) == 0
    return {k.removeprefix("tokenizer.").removeprefix("ggml."): f.contents() for k, f in gguf.GGUFReader(out).fields.items() if k.startswith("tokenizer.")}


def error_of(capsys, folder: Path) -> str:
    assert main([str(folder), "--vocab-only"]) == 1
    text = capsys.readouterr().err
    assert text.startswith("sb-convert: ") and text.count("\n") == 1 and not list(folder.glob("*.gguf"))
    return text


def loaded(folder: Path):
    try:
        from spikingbrain_cpp import Llama
    except ImportError:
        pytest.skip("spikingbrain_cpp is not built")
    return Llama(model_path=str(folder / "vocab.gguf"), vocab_only=True, verbose=False)


def ends_of(folder: Path) -> set[int]:
    with loaded(folder) as llm:
        return {i for i in range(llm.n_vocab()) if llm._model.is_eog(i)}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """What is on disk after a power cut is not asked here."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture(scope="module")
def words() -> tuple[dict[str, int], list[str]]:
    return trained()


# --- how a text is split --------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", list(PRE))
def test_splits_as_hugging_face(words, tmp_path, name):
    from tokenizers import Tokenizer
    spec = tokenizer_json(*words, PRE[name], model={"ignore_merges": name in IGNORE_MERGES}, normalizer={"type": "NFC"} if name == "qwen2" else None)
    folder = write_tokenizer(tmp_path, spec)
    assert keys_of(folder)["pre"] == name
    theirs = Tokenizer.from_str(json.dumps(spec))
    with loaded(folder) as llm:
        for text in TEXTS:
            assert llm.tokenize(text.encode(), add_bos=False) == theirs.encode(text, add_special_tokens=False).ids, text


def test_ignore_merges(words, tmp_path):
    """A token that no merge makes is found whole."""
    from tokenizers import Tokenizer
    vocab, merges = words
    spec = tokenizer_json(vocab | {"qzxj": len(vocab)}, merges, PRE["llama-bpe"], model={"ignore_merges": True})
    folder = write_tokenizer(tmp_path, spec)
    keys_of(folder)
    with loaded(folder) as llm:
        assert llm.tokenize(b"qzxj", add_bos=False) == Tokenizer.from_str(json.dumps(spec)).encode("qzxj").ids == [len(vocab)]


@pytest.mark.parametrize("change, message", [
    ({"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}}, "pre_tokenizer: got Metaspace {"),
    ({"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer: got Whitespace {}, expected one that llama.cpp has: qwen2, llama-bpe, "),
    ({"pre_tokenizer": WORDS | {"add_prefix_space": True}}, "pre_tokenizer: got ByteLevel with add_prefix_space, expected add_prefix_space false; "),
    ({"pre_tokenizer": {"type": "ByteLevel"}}, "pre_tokenizer: got ByteLevel with add_prefix_space, "),
    ({"pre_tokenizer": None}, "pre_tokenizer: got "),
    ({"pre_tokenizer": BYTES}, "pre_tokenizer: got ByteLevel, expected one that "),
    ({"pre_tokenizer": steps(split(GPT4O), BYTES)}, "pre_tokenizer: got Split [^"),
    ({"pre_tokenizer": steps(split(P.QWEN2) | {"behavior": "MergedWithPrevious"}, BYTES)}, "pre_tokenizer: got Split {"),
    ({"pre_tokenizer": steps(split(P.QWEN2), WORDS)}, "pre_tokenizer: got Split (?i:"),
    ({"pre_tokenizer": steps(split(P.QWEN2).copy() | {"invert": True}, BYTES)}, "pre_tokenizer: got Split {"),
    ({"model": {"ignore_merges": True}}, "model.ignore_merges: got true with the pre-tokenizer of qwen2, expected false; "),
    ({"model": {"dropout": 0.1}}, "model.dropout: got 0.1, expected null; "),
    ({"model": {"end_of_word_suffix": "</w>"}}, "model.end_of_word_suffix: got '</w>', expected null; "),
    ({"model": {"byte_fallback": True}}, "model: got BPE, expected a byte-level BPE; "),
    ({"model": {"type": "WordPiece"}}, "model: got WordPiece, expected a byte-level BPE; "),
    ({"normalizer": {"type": "Lowercase"}}, "normalizer: got ['Lowercase'], expected NFC or none; "),
    ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Replace"}]}}, "normalizer: got ['NFC', 'Replace'], "),
    ({"decoder": {"type": "Metaspace"}}, "decoder: got ['Metaspace'], expected ByteLevel; "),
    ({"post_processor": template("<s> <s>")}, "post_processor: got a template of <s>, <s>, A, expected at most one token before the text"),
    ({"post_processor": {"type": "Odd"}}, "post_processor: got Odd, expected ByteLevel or TemplateProcessing; "),
])
def test_tokenizers_that_are_refused(words, tmp_path, capsys, change, message):
    change = dict(change)
    spec = tokenizer_json(*words, change.pop("pre_tokenizer", PRE["qwen2"]), **change)
    assert message in error_of(capsys, write_tokenizer(tmp_path, spec))


@pytest.mark.parametrize("change", [
    {"model": {"dropout": 0}}, {"model": {"dropout": 0.0, "continuing_subword_prefix": None, "end_of_word_suffix": None, "byte_fallback": None}}, {"model": {"ignore_merges": None}},
    {"decoder": None}, {"decoder": {"type": "Sequence", "decoders": [{"type": "ByteLevel"}]}}, {"normalizer": {}}, {"normalizer": {"type": "Sequence", "normalizers": []}}])
def test_fields_that_say_nothing_are_taken(words, tmp_path, change):
    v = keys_of(write_tokenizer(tmp_path, tokenizer_json(*words, PRE["qwen2"], **change)))
    assert v["pre"] == "qwen2" and "normalizer" not in v and v["merges"] == words[1]


@pytest.mark.parametrize("change", [{"dropout": 1}, {"dropout": True}, {"dropout": ""}, {"continuing_subword_prefix": "#"}, {"continuing_subword_prefix": 0}, {"end_of_word_suffix": 1}])
def test_each_field_of_the_model_that_means_something_is_refused(words, tmp_path, capsys, change):
    (name, value), = change.items()
    assert f"model.{name}: got {value!r}, expected null; " in error_of(capsys, write_tokenizer(tmp_path, tokenizer_json(*words, PRE["qwen2"], model=change)))


@pytest.mark.parametrize("kind, pre, normalizer", [("Qwen2Tokenizer", "qwen2", "NFC"), ("Qwen2TokenizerFast", "qwen2", "NFC"), ("GPT2Tokenizer", "gpt-2", None), ("GPT2TokenizerFast", "gpt-2", None)])
def test_each_class_and_the_tokenizer_json_that_contradicts_it(words, tmp_path, caplog, kind, pre, normalizer):
    for other in ("qwen2", "gpt-2"):
        for nfc in (None, "NFC"):
            caplog.clear()
            spec = tokenizer_json(*words, PRE[other], normalizer=nfc and {"type": nfc})
            v = keys_of(write_tokenizer(tmp_path, spec, {"tokenizer_class": kind, "bos_token": "<s>", "eos_token": "</s>"}))
            assert v["pre"] == other and v.get("normalizer") == (nfc and "nfc")
            told = f"tokenizer_class: got {kind}, and tokenizer.json is another ({other}{', nfc' if nfc else ''}); " in caplog.text
            assert told == ((other, nfc) != (pre, normalizer))


def test_fields_of_a_message_of_each_kind():
    """Protocol buffers: number << 3 | kind; 0 a varint of sevens of bits, 1 a double, 2 a length and bytes, 5 a float."""
    double, single = struct.pack("<d", 1.5), struct.pack("<f", -2.5)
    raw = b"\x08\x05" + b"\x10\xac\x02" + b"\x19" + double + b"\x22\x03abc" + b"\x2d" + single + b"\xa2\x01\x00" + b"\x08\xff\xff\xff\xff\x0f"
    assert list(fields(raw)) == [(1, 5), (2, 300), (3, 1.5), (4, b"abc"), (5, -2.5), (20, b""), (1, 2**32 - 1)]
    assert varint(b"\x00\x80\x01\x7f", 1) == (128, 3) and varint(b"\x7f", 0) == (127, 1)
    for cut in (b"\x08", b"\x08\x80", b"\x0b\x00", b"\x0c"):  # cut short; kinds 3 and 4 are no longer written
        with pytest.raises((IndexError, KeyError)):
            list(fields(cut))


@pytest.mark.parametrize("kind", ["t5", "llama"])
@pytest.mark.parametrize("prefix, extra, name, table", [(None, None, b"", b""), (0, 0, b"identity", b""), (1, 1, b"nmt_nfkc", b"map"), (0, 1, b"nfkc", b""), (1, 0, b"", b"map")])
def test_a_normalizer_of_sentencepiece(kind, prefix, extra, name, table, caplog):
    """Neither flag named: both hold. A unigram vocabulary is normalised by the fork; of another one what differs is told."""
    spec = {key: value for key, value in ((1, name), (2, table), (3, prefix), (4, extra)) if value not in (None, b"")}
    vocab = Vocab(kind, "default", [], [])
    add_normalizer(vocab, spec, Path("tokenizer.model"))
    assert vocab.extra["add_space_prefix"] is (prefix != 0)
    assert vocab.extra.get("remove_extra_whitespaces") is (None if kind == "llama" else extra != 0)
    assert vocab.extra.get("precompiled_charsmap") == (table or None if kind == "t5" else None)
    assert ("remove_extra_whitespaces: every space" in caplog.text) is (kind == "llama" and extra != 0)
    assert ("normaliser n" in caplog.text) is (kind == "llama" and name not in (b"", b"identity"))


def test_llama3_form_with_qwen2_merges_is_another(words, tmp_path):
    assert keys_of(write_tokenizer(tmp_path, tokenizer_json(*words, PRE["dbrx"])))["pre"] == "dbrx"


# --- vocab.json, and tokenizer.json beside it -----------------------------------------------------------------

def test_class_says_what_vocab_json_means(make_checkpoint, capsys):
    folder = make_checkpoint()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    for kind, pre, normalizer in (("Qwen2Tokenizer", "qwen2", "nfc"), ("GPT2TokenizerFast", "gpt-2", None), (None, "qwen2", "nfc")):
        (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"tokenizer_class": kind}))
        v = keys_of(folder)
        assert (v["pre"], v.get("normalizer")) == (pre, normalizer)
    (folder / "vocab.gguf").unlink()
    for kind in ("LlamaTokenizer", "PreTrainedTokenizerFast"):
        (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"tokenizer_class": kind}))
        assert f"tokenizer_class: got '{kind}', expected Qwen2Tokenizer or GPT2Tokenizer for vocab.json" in error_of(capsys, folder)


def test_tokenizer_json_beside_vocab_json(words, tmp_path, capsys):
    vocab, merges = words
    folder = write_tokenizer(tmp_path, tokenizer_json(vocab, merges, PRE["llama-bpe"], model={"ignore_merges": True}))
    (folder / "vocab.json").write_text(json.dumps(vocab | {"<s>": len(vocab)}))  # an added token may stand in it
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges))
    v = keys_of(folder)
    assert (v["pre"], v.get("normalizer")) == ("llama-bpe", None)
    (folder / "vocab.gguf").unlink()
    (folder / "merges.txt").write_text("\n".join(reversed(merges)))
    assert "tokenizer.json: merges: got others than in merges.txt, expected the same; " in error_of(capsys, folder)
    (folder / "vocab.json").write_text(json.dumps(vocab | {"!": vocab["?"], "?": vocab["!"]}))
    assert ", as vocab.json says; " in error_of(capsys, folder)


@pytest.mark.parametrize("name, good, bad", [
    ("split_special_tokens", False, True), ("do_lower_case", False, True), ("do_lowercase", False, True), ("lowercase", False, True), ("strip_accents", False, True),
    ("sp_model_kwargs", {}, {"enable_sampling": True}), ("remove_space", False, True), ("keep_accents", True, False), ("add_prefix_space", False, True)])
def test_each_setting_that_must_say_nothing(words, tmp_path, capsys, name, good, bad):
    spec = tokenizer_json(*words, PRE["qwen2"])
    for value in (good, None):
        assert keys_of(write_tokenizer(tmp_path, spec, {name: value, "bos_token": "<s>", "eos_token": "</s>"}))["pre"] == "qwen2"
    (tmp_path / "vocab.gguf").unlink()
    assert f"{name}: got {bad!r}, expected {repr(good).lower()}; " in error_of(capsys, write_tokenizer(tmp_path, spec, {name: bad, "bos_token": "<s>", "eos_token": "</s>"}))


@pytest.mark.parametrize("settings, message", [
    ({"add_prefix_space": True}, "add_prefix_space: got True, expected false; "),
    ({"split_special_tokens": True}, "split_special_tokens: got True, expected false; "),
    ({"do_lower_case": True}, "do_lower_case: got True, expected false; "),
    ({"add_bos_token": "yes"}, "add_bos_token: got 'yes', expected true or false; "),
    ({"add_bos_token": True, "bos_token": None}, "add_bos_token: got true and no bos_token, expected the token to add as bos_token; "),
    ({"bos_token": None, "chat_template": "{{ bos_token }}"}, "chat_template: got a use of bos_token, and no such token, expected bos_token_id in config.json"),
    ({"chat_template": "\ud800"}, "chat_template: got '\\ud800', expected Unicode text; "),
    ({"added_tokens_decoder": {"270": {"content": "a\0b"}}}, "id 270: got 'a\\x00b', expected a text without NUL; "),
    ({"added_tokens_decoder": {"270": {"content": ""}}}, "id 270: got '', expected a text without NUL; "),
    ({"chat_template": 7}, "chat_template: got a int, expected a template, or names and templates; "),
    ({"chat_template": [{"name": "a", "template": "x"}, {"name": "a", "template": "y"}]}, "chat_template: got a name twice, expected each once; "),
    ({"added_tokens_decoder": {"0": {"content": "<other>"}}}, "id 0: got '!' and added token '<other>', expected one token; "),
])
def test_settings_that_are_refused(make_checkpoint, capsys, settings, message):
    folder = make_checkpoint(bos_token_id=None)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    assert message in error_of(capsys, folder)


def test_settings_that_are_told(make_checkpoint, caplog):
    folder = make_checkpoint()
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"clean_up_tokenization_spaces": True, "my_splitting": 2, "unk_token": "<nowhere>"}))
    keys_of(folder)
    for text in ("clean_up_tokenization_spaces: got true; ", "my_splitting: not known, and not used; ", "unk_token: '<nowhere>' is no token of the vocabulary"):
        assert text in caplog.text


@pytest.mark.parametrize("cleans, said, told", [(True, True, None), (False, False, None), (True, None, None), (True, False, "got false; .* drops spaces"), (False, True, "got true; .* keeps spaces")])
def test_spaces_before_punctuation_are_told_where_settings_and_llama_cpp_differ(caplog, cleans, said, told):
    vocab = Vocab("gpt2", "gpt-2", [], [])
    vocab.cleans = cleans
    check_settings(vocab, {"clean_up_tokenization_spaces": said}, Path("tokenizer_config.json"))
    assert re.search(f"clean_up_tokenization_spaces: {told} before punctuation", caplog.text) if told else not caplog.text


# --- around a text --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("before, after, settings", [("<s>", "", {}), ("", "</s>", {}), ("<s>", "</s>", {}), ("<s>", "", {"add_bos_token": True}), ("", "", {"add_bos_token": False})])
def test_post_processor(words, tmp_path, before, after, settings):
    from tokenizers import Tokenizer
    spec = tokenizer_json(*words, PRE["llama-bpe"], model={"ignore_merges": True},
                          post_processor={"type": "Sequence", "processors": [{"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
                                                                             template(before, after, len(words[0]))]})
    folder = write_tokenizer(tmp_path, spec, {"bos_token": "<s>", "eos_token": "</s>", **settings})
    v = keys_of(folder)
    assert (v["add_bos_token"], v["add_eos_token"]) == (bool(before), bool(after))
    theirs = Tokenizer.from_str(json.dumps(spec))
    with loaded(folder) as llm:
        assert llm.tokenize(b"Hello, world!", add_bos=True) == theirs.encode("Hello, world!").ids


def test_tokenizer_json_is_followed_where_the_settings_say_another(words, tmp_path, capsys, caplog):
    """As transformers does, and the difference is told."""
    n = len(words[0])
    spec = tokenizer_json(*words, PRE["qwen2"], post_processor=template("<s>", n=n))
    assert keys_of(write_tokenizer(tmp_path, spec, {"add_bos_token": False}))["add_bos_token"] is True
    assert "add_bos_token: got false, and the post_processor of tokenizer.json adds one; " in caplog.text
    plain = tokenizer_json(*words, PRE["qwen2"])
    assert keys_of(write_tokenizer(tmp_path, plain, {"add_bos_token": True, "bos_token": "<s>", "tokenizer_class": "Qwen2Tokenizer"}))["add_bos_token"] is False
    assert "add_bos_token: got true, and the post_processor of tokenizer.json adds none; " in caplog.text
    assert "tokenizer_class: got Qwen2Tokenizer, and tokenizer.json is another (qwen2); " in caplog.text  # no NFC
    assert keys_of(write_tokenizer(tmp_path, spec, {}, bos_token_id=None))["bos_token_id"] == n
    (tmp_path / "vocab.gguf").unlink()
    assert f"bos token: got {n} around a text, and bos_token_id 5, " in error_of(capsys, write_tokenizer(tmp_path, spec, {}, bos_token_id=5))


@pytest.mark.parametrize("settings, added", [
    ({"add_bos_token": True}, (True, False)), ({"add_bos_token": True, "add_eos_token": True}, (True, True)), ({}, (False, False)),
    ({"tokenizer_class": "LlamaTokenizer"}, (True, False)), ({"tokenizer_class": "LlamaTokenizer", "add_bos_token": False}, (False, False)), ({"tokenizer_class": "T5Tokenizer"}, (False, True)),
])
def test_sentencepiece_bos_and_eos(spm_checkpoint, settings, added):
    (spm_checkpoint / "tokenizer_config.json").write_text(json.dumps(settings))
    v = keys_of(spm_checkpoint)
    assert (v["add_bos_token"], v["add_eos_token"]) == added
    with loaded(spm_checkpoint) as llm:
        ids = llm.tokenize(b"hello", add_bos=True)
    assert (ids[0] == 1, ids[-1] == 2) == added


@pytest.fixture(scope="module")
def spm_checkpoint(tmp_path_factory):
    from conftest import TINY, write_spm
    folder = tmp_path_factory.mktemp("spm")
    write_spm(folder, "bpe", 310)
    (folder / "config.json").write_text(json.dumps(TINY | {"vocab_size": 400, "bos_token_id": 1, "eos_token_id": 2}))
    return folder


def test_tokenizer_json_beside_tokenizer_model(spm_checkpoint, tmp_path, capsys):
    from sentencepiece import SentencePieceProcessor
    for path in spm_checkpoint.glob("*.gguf"):
        path.unlink()
    (spm_checkpoint / "tokenizer_config.json").write_text("{}")
    sp = SentencePieceProcessor(model_file=str(spm_checkpoint / "tokenizer.model"))
    ids = {sp.id_to_piece(i): i for i in range(sp.get_piece_size())}
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}

    def write(vocab, pre):
        (spm_checkpoint / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": vocab, "merges": []}, "pre_tokenizer": pre}))
    try:
        write(ids, space | {"prepend_scheme": "never"})
        assert "space before a text: got false, expected true, as tokenizer.model says; " in error_of(capsys, spm_checkpoint)
        write(ids | {"new": 390}, space)
        assert "id 390: got 'new', expected '[PAD390]', as tokenizer.model says; " in error_of(capsys, spm_checkpoint)
        write(ids, space)
        assert keys_of(spm_checkpoint)["model"] == "llama"
    finally:
        (spm_checkpoint / "tokenizer.json").unlink()


# --- ends of generation ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("own, generation, keys", [
    (262, None, (262, 264, None)), (262, {"eos_token_id": [264, 262]}, (262, 264, None)), (262, {"eos_token_id": 264}, (264, 264, None)),
    (262, {"eos_token_id": [262, 7]}, (262, 264, 7)), (262, {"eos_token_id": [262, 7, 8]}, (262, 8, 7)), ([262, 7], None, (262, 264, 7)), (None, {"eos_token_id": [7, 8]}, (7, 264, 8)),
    (None, None, (262, 264, None)), ([7, 8], {"eos_token_id": []}, (7, 264, 8)),
])
def test_ends_of_generation(make_checkpoint, own, generation, keys):
    folder = make_checkpoint(eos_token_id=own)
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    v = keys_of(folder)
    assert (v["eos_token_id"], v["eot_token_id"], v.get("eom_token_id")) == keys
    said = (generation or {}).get("eos_token_id") or own or 262
    assert ends_of(folder) == {262, 264} | set(said if isinstance(said, list) else [said])  # the two llama.cpp knows by their text, and all that are said


@pytest.mark.parametrize("own, generation, message", [
    (262, {"eos_token_id": [262, 7, 8, 9]}, "eos_token_id: got 4 ends of generation, 3 of them for two keys ('(', ')', '*'), expected at most two beside eos"),
    (262, {"eos_token_id": 300}, "generation_config.json: eos_token_id: got 300, expected ids from 0 to 287; "),
    (262, {"eos_token_id": ["</s>"]}, "generation_config.json: eos_token_id: got ['</s>'], "),
    (262, {"suppress_tokens": [-1]}, "suppress_tokens: got [-1], "),
    (262, {"top_k": "many"}, "generation_config.json: top_k: got 'many' (str), expected an integer; "),
])
def test_ends_that_are_refused(make_checkpoint, capsys, own, generation, message):
    folder = make_checkpoint(eos_token_id=own)
    (folder / "generation_config.json").write_text(json.dumps(generation))
    assert message in error_of(capsys, folder)


def test_added_bos_of_vocab_json(make_checkpoint):
    folder = make_checkpoint()
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"add_bos_token": True, "bos_token": "<|endoftext|>"}))
    assert keys_of(folder)["add_bos_token"] is True


def test_end_named_by_the_special_tokens_map(make_checkpoint):
    folder = make_checkpoint(eos_token_id=None)
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "special_tokens_map.json").write_text('{"eos_token": {"content": "<|im_end|>"}}')
    assert keys_of(folder)["eos_token_id"] == 264


def test_no_end_at_all(make_checkpoint, capsys):
    folder = make_checkpoint(eos_token_id=None)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token": None}))
    assert "eos_token_id: got none in config.json, generation_config.json and tokenizer_config.json, expected the token that ends a text; " in error_of(capsys, folder)


def test_generation_config(make_checkpoint, caplog):
    folder = make_checkpoint(pad_token_id=5)
    (folder / "generation_config.json").write_text(json.dumps({"do_sample": True, "temperature": 0.5, "suppress_tokens": [3, 4], "forced_bos_token_id": 1, "num_beams": 1, "max_new_tokens": 9}))
    v = keys_of(folder)
    assert v["suppress_tokens"] == [3, 4] and v["padding_token_id"] == 5
    fields = gguf.GGUFReader(folder / "vocab.gguf").fields
    assert fields["general.sampling.temp"].contents() == 0.5
    assert "generation_config.json: forced_bos_token_id: a GGUF cannot hold it; " in caplog.text and "num_beams" not in caplog.text
    (folder / "generation_config.json").write_text('{"do_sample": false, "temperature": 0.5}')  # greedy in transformers, whatever the temperature
    keys_of(folder)
    assert "general.sampling.temp" not in gguf.GGUFReader(folder / "vocab.gguf").fields


# --- chat templates -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("files, keys", [
    ({}, {"chat_template": TEMPLATE}),
    ({"chat_template.jinja": "J"}, {"chat_template": "J"}),
    ({"chat_template.jinja": "J", "additional_chat_templates/tool_use.jinja": "T"}, {"chat_template": "J", "chat_template.tool_use": "T", "chat_templates": ["tool_use"]}),
    ({"additional_chat_templates/rag.jinja": "R"}, {"chat_template": TEMPLATE, "chat_template.rag": "R", "chat_templates": ["rag"]}),
    ({"chat_template.json": '{"chat_template": "P"}'}, {"chat_template": TEMPLATE}),
    ({"chat_template.json": '{"chat_template": "P"}', "settings": None}, {"chat_template": "P"}),
    ({"settings": [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}]}, {"chat_template": "D", "chat_template.tool_use": "T", "chat_templates": ["tool_use"]}),
    ({"settings": {"default": "D"}}, {"chat_template": "D"}),
])
def test_chat_templates(make_checkpoint, caplog, files, keys):
    folder = make_checkpoint()
    (folder / "additional_chat_templates").mkdir()
    path = folder / "tokenizer_config.json"
    for name, text in files.items():
        if name == "settings":
            path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": text}))
        else:
            (folder / name).write_text(text)
    assert {k: x for k, x in keys_of(folder).items() if k.startswith("chat_template")} == keys
    if files.get("chat_template.json") and keys["chat_template"] == TEMPLATE:
        assert "chat_template.json: chat_template: another than the one used, that of tokenizer_config.json" in caplog.text


def test_a_calibration_text_is_split_as_the_converted_model_splits_it(make_checkpoint):
    from sb_convert.calibrate import tokenize

    folder = make_checkpoint()
    keys_of(folder)
    before = sorted(p.name for p in folder.iterdir())
    with loaded(folder) as llm:
        assert tokenize(folder, b"the quick fox") == llm.tokenize(b"the quick fox") != []
    assert sorted(p.name for p in folder.iterdir()) == before
