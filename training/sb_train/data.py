"""Tokens: of text files, made once and kept; and the batch that each step reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sb_convert.config import ModelConfig
from sb_convert.errors import bad

from .recipe import Recipe

BLOCK = 1 << 20  # characters that are encoded at a time
TOKENIZER = ("config.json", "vocab.json", "merges.txt", "added_tokens.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
             "generation_config.json")


# --- batches --------------------------------------------------------------------------------------------------

def batch_at(tokens: np.ndarray, step: int, r: Recipe) -> Tensor:
    """Batch [B, T + 1] of a step: a function of the seed and the step alone. Each epoch cuts the text at other places
    and takes the pieces in another order; each stage begins with an epoch of its own."""
    stage, length, begin = r.stage(step)
    rows = r.rows(length)
    per_epoch = (len(tokens) - length - 1) // length // rows
    epoch, i = divmod(step - begin, per_epoch)
    rng = np.random.default_rng((r.seed, epoch, stage) if stage else (r.seed, epoch))
    shift, order = rng.integers(length), rng.permutation(per_epoch * rows)
    starts = shift + order[i * rows:(i + 1) * rows] * length
    return torch.from_numpy(np.stack([tokens[s:s + length + 1] for s in starts]).astype(np.int64))


def check_enough(tokens: np.ndarray, held_out: np.ndarray, r: Recipe) -> None:
    """ConvertError: less text than one step reads, or than one held-out row."""
    longest = r.longest
    need = (r.rows(longest) + 1) * longest + 1
    if len(tokens) < need:
        raise bad("--text", "tokens", str(len(tokens)), f"at least {need} for a step of {r.rows(longest)} rows of {longest}", "give more text, or a smaller --batch or --length")
    if len(held_out) <= longest:
        raise bad("held-out text", "tokens", str(len(held_out)), f"more than the {longest} of a row", "give more text, or --held-out FILE")


# --- text -----------------------------------------------------------------------------------------------------

def documents(files: Iterable[Path]) -> Iterator[str]:
    """A file is one document; of a .jsonl file each line's "text" is one. ConvertError: what is not that."""
    for path in files:
        try:
            if path.suffix != ".jsonl":
                yield path.read_text(encoding="utf-8")
                continue
            with path.open(encoding="utf-8") as f:
                for i, line in enumerate(f, 1):
                    yield _text_of(line, path, i)
        except (OSError, UnicodeDecodeError) as e:
            raise bad(path, "text", str(e), "a UTF-8 text file", "give another file") from None


def _text_of(line: str, path: Path, i: int) -> str:
    try:
        text = json.loads(line)["text"]
    except (ValueError, KeyError, TypeError):
        text = None
    if not isinstance(text, str):
        raise bad(path, f"line {i}", repr(line[:40]), 'an object with a string "text"', "correct the file")
    return text


def blocks(text: str) -> Iterator[str]:
    """A document in parts of about BLOCK characters, cut behind a line."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + BLOCK) + 1 or len(text)
        yield text[start:end]
        start = end


class Encoder:
    """A checkpoint's tokenizer, the one with which its model will be used."""

    def __init__(self, folder: Path, config: ModelConfig, tmp: Path):
        from spikingbrain_cpp import Llama

        from sb_convert.vocab_file import write_vocab
        vocab = tmp / "vocab.gguf"
        vocab.unlink(missing_ok=True)
        write_vocab(folder, vocab)
        self.llm = Llama(model_path=str(vocab), vocab_only=True, verbose=False)
        vocab.unlink()
        if config.eos_token_id is None:
            raise bad(folder / "config.json", "eos_token_id", "null", "the token that ends a document", "add it")
        self.eos = config.eos_token_id
        self.begin = [t for t in self.llm.tokenize(b"", add_bos=True) if t != self.eos]  # BOS, where the vocabulary asks for one

    def __call__(self, docs: Iterable[str]) -> Iterator[np.ndarray]:
        """Tokens of all documents, each begun as the vocabulary asks, and ended by eos; what looks like a special token stays plain text."""
        for doc in docs:
            yield np.array(self.begin, np.uint32)
            for block in blocks(doc):
                yield np.array(self.llm.tokenize(block.encode(), add_bos=False, special=False), np.uint32)
            yield np.array([self.eos], np.uint32)


def fingerprint(files: Iterable[Path]) -> str:
    """SHA-256 over names and bytes of files."""
    h = hashlib.sha256()
    for path in files:
        h.update(path.name.encode() + b"\0" + str(path.stat().st_size).encode() + b"\0")
        with path.open("rb") as f:
            while block := f.read(1 << 24):
                h.update(block)
    return h.hexdigest()


def tokenizer_files(folder: Path) -> list[Path]:
    """The files that decide the tokens of a text."""
    return sorted(p for p in folder.iterdir() if p.name in TOKENIZER)


def encoded(name: str, files: list[Path], encoder: Callable[[], Encoder], work: Path) -> np.ndarray:
    """Tokens of files, mapped from work/NAME.bin (uint32); made where it is absent, which alone needs an encoder."""
    path, part = work / f"{name}.bin", work / f"{name}.part"
    if not path.is_file():
        with part.open("wb") as out:
            for ids in encoder()(documents(files)):
                out.write(ids.tobytes())
        part.replace(path)
    return np.memmap(path, np.uint32, "r") if path.stat().st_size else np.zeros(0, np.uint32)
