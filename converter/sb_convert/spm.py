"""SentencePiece `tokenizer.model`: pieces and scores through the sentencepiece package, the rest from the file itself.

The package's Python API hides three facts the GGUF needs (a piece's type, the algorithm, the normaliser), and its own
protobuf module wants one more dependency; the few fields are read from the wire format here.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gguf import TokenType

from .errors import bad
from .files import read_json, refuse_placeholder
from .vocab import Vocab, padded

log = logging.getLogger("sb_convert")
UNIGRAM, BPE = 1, 2  # TrainerSpec.model_type


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(field number, value) of one protobuf message; nested messages and strings stay bytes."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = varint(data, at)
        elif kind == 2:
            n, at = varint(data, at)
            value, at = data[at:at + n], at + n
        else:  # 1: eight bytes, 5: four
            n = {1: 8, 5: 4}[kind]
            value, at = struct.unpack("<d" if n == 8 else "<f", data[at:at + n])[0], at + n
        yield key >> 3, value


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A protobuf integer at data[at:], and where it ends."""
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 0x80:
            return value, at


def load_spm(path: Path, size: int) -> Vocab:
    """The vocabulary of a tokenizer.model, of `size` entries. ConvertError: damaged, or of a kind that llama.cpp has not."""
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError:
        raise bad(path, "sentencepiece", "no such package", "sentencepiece", "pip install 'spikingbrain_cpp[sentencepiece]'") from None
    refuse_placeholder(path, "a SentencePiece model")
    try:
        sp = SentencePieceProcessor(model_file=str(path))
        model = list(fields(sp.serialized_model_proto()))
    except (RuntimeError, OSError, IndexError, KeyError) as e:
        raise bad(path, "content", str(e).splitlines()[0], "a SentencePiece model", "download the file again") from None
    trainer, normalizer = ({k: v for n, m in model if n == number for k, v in fields(m)} for number in (2, 3))
    algorithm = trainer.get(3, UNIGRAM)
    if algorithm not in (UNIGRAM, BPE):
        raise bad(path, "model_type", algorithm, f"{UNIGRAM} (unigram) or {BPE} (bpe)", "this tokenizer is not implemented")
    for spec, number, name, neutral in ((normalizer, 5, "escape_whitespaces", 1), (trainer, 24, "treat_whitespace_as_suffix", 0)):
        if spec.get(number, neutral) != neutral:
            raise bad(path, name, bool(spec[number]), str(bool(neutral)), "this tokenizer is not implemented")
    n = sp.get_piece_size()
    tokens, types = padded({sp.id_to_piece(i): i for i in range(n)}, size, path)
    types[:n] = [dict(fields(m)).get(3, int(TokenType.NORMAL)) for number, m in model if number == 1]
    scores = [sp.get_score(i) for i in range(n)] + [-10000.0] * (size - n)
    vocab = Vocab("llama" if algorithm == BPE else "t5", "default", tokens, types, scores)
    vocab.special = {name: i for name, i in (("unk", sp.unk_id()), ("bos", sp.bos_id()), ("eos", sp.eos_id()), ("pad", sp.pad_id())) if i >= 0}
    if vocab.model == "t5" and TokenType.BYTE in types:
        log.warning("%s: byte fallback: upstream's unigram tokenizer has none; characters outside the vocabulary become the unknown token", path)
    add_normalizer(vocab, normalizer, path)
    return vocab


def add_normalizer(vocab: Vocab, spec: dict[int, Any], path: Path) -> None:
    """NormalizerSpec: 1 name, 2 compiled character map, 3 add_dummy_prefix, 4 remove_extra_whitespaces."""
    vocab.extra["add_space_prefix"] = bool(spec.get(3, True))
    if vocab.model == "t5":  # the fork normalises these itself
        vocab.extra["remove_extra_whitespaces"] = bool(spec.get(4, True))
        if spec.get(2):
            vocab.extra["precompiled_charsmap"] = spec[2]
        return
    name = spec.get(1, b"").decode()
    if spec.get(4, True):
        log.warning("%s: remove_extra_whitespaces: every space of a text will be kept; take them out of the text where it matters", path)
    if name not in ("", "identity"):
        log.warning("%s: normaliser %s: text will be split as it is given; normalise it before, where it matters", path, name)


def check_translation(vocab: Vocab, path: Path) -> None:
    """tokenizer.json beside the model: Hugging Face reads that one, so it must say the same."""
    if not path.is_file():
        return
    raw = read_json(path)
    theirs = raw["model"]["vocab"]
    ids = theirs if isinstance(theirs, dict) else {piece: i for i, (piece, _) in enumerate(theirs)}
    added = {e["id"] for e in raw.get("added_tokens") or []}
    for token, i in ids.items():
        if not 0 <= i < len(vocab.tokens) or vocab.tokens[i] != token and not (vocab.types[i] == TokenType.UNUSED and i in added):
            held = repr(vocab.tokens[i]) if 0 <= i < len(vocab.tokens) else "nothing"
            raise bad(path, f"id {i}", repr(token), f"{held}, as tokenizer.model says", "remove the one that is not the model's")
    parts = [p for key in ("normalizer", "pre_tokenizer") for p in parts_of(raw.get(key))]
    prefix = any(p["type"] == "Prepend" or p["type"] == "Metaspace" and p.get("prepend_scheme", "always" if p.get("add_prefix_space", True) else "never") != "never" for p in parts)
    if prefix is not vocab.extra["add_space_prefix"]:
        raise bad(path, "space before a text", str(prefix).lower(), f"{str(not prefix).lower()}, as tokenizer.model says", "remove the one that is not the model's")


def parts_of(spec: Any) -> list[dict[str, Any]]:
    """The parts of a normaliser or pre-tokenizer of tokenizer.json, sequences taken apart."""
    if not spec:
        return []
    return [p for s in spec.get("normalizers", spec.get("pretokenizers", [spec])) for p in ([s] if s is spec else parts_of(s))]
