"""Byte-level BPE: tokenizer.json, or vocab.json and merges.txt, which must agree where both are there."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from .errors import bad
from .files import read_json, read_optional, read_text
from .pretokenizers import TABLE, Pre, recognised
from .vocab import Vocab, padded

log = logging.getLogger("sb_convert")
AGAIN = "download the tokenizer files again"
# what vocab.json and merges.txt mean is said by the class alone: (pre, NFC)
CLASSES = {"Qwen2Tokenizer": ("qwen2", True), "Qwen2TokenizerFast": ("qwen2", True), "GPT2Tokenizer": ("gpt-2", False), "GPT2TokenizerFast": ("gpt-2", False)}
PUBLISHED = "Qwen2Tokenizer"
NEUTRAL = {"dropout": (None, 0), "continuing_subword_prefix": (None, ""), "end_of_word_suffix": (None, ""), "byte_fallback": (None, False)}


def load_bpe(folder: Path, size: int, settings: dict[str, Any]) -> Vocab:
    """The vocabulary of a folder with tokenizer.json, or vocab.json and merges.txt; size: its entries. ConvertError: files that are damaged,
    contradict each other, or mean a tokenizer that llama.cpp has not."""
    path, plain = folder / "tokenizer.json", folder / "vocab.json"
    if path.is_file():
        where = path
        ids, merges, pre, nfc = read_tokenizer_json(path)
        if plain.is_file():
            check_agreement(folder, ids, merges)
        kind = settings.get("tokenizer_class")
        if kind in CLASSES and CLASSES[kind] != (pre.name, nfc):
            log.warning("%s: tokenizer_class: got %s, and tokenizer.json is another (%s%s); that is followed, as by transformers 4 and tokenizers; transformers 5 takes the class",
                        folder / "tokenizer_config.json", kind, pre.name, ", nfc" if nfc else "")
    else:
        where = plain
        ids, merges = read_json(plain), read_merges(folder / "merges.txt")
        name, nfc = by_class(settings, folder)
        pre = next(p for p in TABLE.values() if p.name == name)
    check_merges(ids, merges, where)
    check_alphabet(ids, where)
    tokens, types = padded(ids, size, where)
    vocab = Vocab("gpt2", pre.name, tokens, types, merges=merges, normalizer="nfc" if nfc else "")
    vocab.cleans = pre.cleans
    return vocab


def by_class(settings: dict[str, Any], folder: Path) -> tuple[str, bool]:
    """Of a folder without tokenizer.json: the pre-tokenizer's name, and whether text is normalised to NFC."""
    name = settings.get("tokenizer_class") or PUBLISHED
    if name not in CLASSES:
        raise bad(folder / "tokenizer_config.json", "tokenizer_class", repr(name), f"{PUBLISHED} or GPT2Tokenizer for vocab.json and merges.txt",
                  "add the model's tokenizer.json, which says how it splits text")
    return CLASSES[name]


def check_merges(ids: dict[str, int], merges: list[str], where: Path) -> None:
    """ConvertError: no merges, one that is there twice, or one of what is not in the vocabulary."""
    if not merges:
        raise bad(where, "merges", "none", "at least one", AGAIN)
    if len(set(merges)) != len(merges):
        seen: set[str] = set()
        twice = next(m for m in merges if m in seen or seen.add(m))  # type: ignore[func-returns-value]
        raise bad(where, f"merge {twice!r}", "it twice", "each pair once", AGAIN)
    for merge in merges:
        left, _, right = merge.partition(" ")
        if left + right not in ids or left not in ids or right not in ids:
            raise bad(where, f"merge {merge!r}", "a pair whose result is no token" if left + right not in ids else "a part that is no token", "a token", AGAIN)


def check_alphabet(ids: dict[str, int], where: Path) -> None:
    """A byte without a token would be dropped from a text."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    letters = [chr(b) for b in printable] + [chr(0x100 + i) for i in range(256 - len(printable))]
    lacking = [c for c in letters if c not in ids]
    if lacking:
        log.warning("%s: vocab: %d of 256 bytes have no token (%s ...); they are dropped from a text", where, len(lacking), lacking[0])


def read_merges(path: Path) -> list[str]:
    """The merges of a merges.txt, "left right" each."""
    lines = read_text(path, "the merges that belong to vocab.json").split("\n")
    lines = lines[1:] if lines[0].startswith("#version") else lines
    return [pair(line, path) for line in lines if line]


def pair(line: str, path: Path) -> str:
    """The line itself. ConvertError: it is not two tokens with a space between them."""
    parts = line.split(" ")
    if len(parts) != 2 or not all(parts):
        raise bad(path, "line", repr(line), "two tokens with one space between them", "download the file again")
    return line


def read_tokenizer_json(path: Path) -> tuple[dict[str, int], list[str], Pre, bool]:
    """Ids by token, merges, the pre-tokenizer, and whether text is normalised to NFC. ConvertError: anything else than a byte-level BPE."""
    raw = read_json(path)
    model = raw.get("model") or {}
    if model.get("type", "BPE") != "BPE" or not isinstance(model.get("vocab"), dict) or model.get("byte_fallback"):
        raise bad(path, "model", model.get("type"), "a byte-level BPE", "give tokenizer.model if the model came with one")
    for name, neutral in NEUTRAL.items():
        if model.get(name) not in neutral:
            raise bad(path, f"model.{name}", repr(model[name]), repr(neutral[0]).replace("None", "null"), "this tokenizer is not implemented")
    normalizers = raw.get("normalizer") or {}
    kinds = [n.get("type") for n in normalizers.get("normalizers", [normalizers]) if n]
    if set(kinds) - {"NFC"}:
        raise bad(path, "normalizer", kinds, "NFC or none", "this tokenizer is not implemented")
    decoder = raw.get("decoder") or {"type": "ByteLevel"}
    decoders = [d.get("type") for d in decoder.get("decoders", [decoder])]
    if decoders != ["ByteLevel"]:
        raise bad(path, "decoder", decoders, "ByteLevel", "this tokenizer is not implemented")
    merges = [pair(m if isinstance(m, str) else " ".join(m), path) for m in model.get("merges", [])]
    pre = recognised(raw.get("pre_tokenizer"), bool(model.get("ignore_merges")), path)
    return model["vocab"], merges, pre, bool(kinds)


def check_agreement(folder: Path, ids: dict[str, int], merges: list[str]) -> None:
    """vocab.json and merges.txt beside a tokenizer.json, which Hugging Face reads: another vocabulary there is another tokenizer."""
    others = read_json(folder / "vocab.json")
    added = {e["content"]: e["id"] for e in read_json(folder / "tokenizer.json").get("added_tokens") or []} | read_optional(folder / "added_tokens.json")
    for token in ids.keys() | others.keys():
        if ids.get(token, added.get(token)) != others.get(token, added.get(token)):
            raise bad(folder / "tokenizer.json", f"token {token!r}", f"id {ids.get(token)}", f"{others.get(token)}, as vocab.json says", "remove the one that is not the model's")
    if (folder / "merges.txt").is_file() and read_merges(folder / "merges.txt") != merges:
        raise bad(folder / "tokenizer.json", "merges", "others than in merges.txt", "the same", "remove the one that is not the model's")
