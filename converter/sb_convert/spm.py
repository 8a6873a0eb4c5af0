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
from .files import refuse_placeholder
from .tokenizer import Vocab, padded

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
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 0x80:
            return value, at


def load_spm(path: Path, size: int) -> Vocab:
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
    if name not in ("", "identity"):
        log.warning("%s: normaliser %s: the fork tokenises text of this vocabulary as it is given; normalise it before, where it matters", path, name)
