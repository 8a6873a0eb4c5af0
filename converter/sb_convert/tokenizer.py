"""The tokenizer's part of the GGUF: Qwen2's byte-level BPE from its JSON files, or a SentencePiece model."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
from gguf import TokenType

from .config import Config
from .errors import bad
from .files import read_json, read_optional, read_text

log = logging.getLogger("sb_convert")
TURN_END = "<|im_end|>"  # ends a chat turn in the ChatML template


@dataclass
class Vocab:
    """tokens, types and scores by id; model "gpt2" (byte-level BPE), "llama" or "t5" (SentencePiece BPE, unigram)."""
    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float] = field(default_factory=list)
    merges: list[str] = field(default_factory=list)
    normalizer: str = ""
    special: dict[str, int] = field(default_factory=dict)   # "bos", "eos", "unk", ... -> id
    chat_template: Any = None
    extra: dict[str, Any] = field(default_factory=dict)     # further tokenizer.ggml.* keys

    def add_to(self, w: gguf.GGUFWriter) -> None:
        w.add_tokenizer_model(self.model)
        w.add_tokenizer_pre(self.pre)
        w.add_token_list(self.tokens)
        w.add_token_types(self.types)
        if self.scores:
            w.add_token_scores(self.scores)
        if self.merges:
            w.add_token_merges(self.merges)
        for name, token in self.special.items():
            getattr(w, f"add_{name}_token_id")(token)
        w.add_add_bos_token(False)
        w.add_add_eos_token(False)
        if self.normalizer:
            w.add_string("tokenizer.ggml.normalizer", self.normalizer)
        for key, value in self.extra.items():
            add = {bool: w.add_bool, bytes: w.add_array}[type(value)]
            add(f"tokenizer.ggml.{key}", value)
        if self.chat_template:
            w.add_chat_template(self.chat_template)


def load_vocab(folder: Path, config: Config) -> Vocab:
    try:
        return complete(read_vocab(Path(folder), config.vocab_size), Path(folder), config)
    except (AttributeError, KeyError, TypeError, ValueError) as e:  # JSON of another make than the files' own
        raise bad(folder, "tokenizer files", f"malformed content ({e!r})", "those of a published checkpoint", "download them again") from e


def read_vocab(folder: Path, size: int) -> Vocab:
    """tokenizer.json comes last: beside a tokenizer.model it is a translation of it."""
    if (folder / "vocab.json").is_file():
        return load_bpe(folder, size)
    if (folder / "tokenizer.model").is_file():
        from .spm import load_spm
        return load_spm(folder / "tokenizer.model", size)
    if (folder / "tokenizer.json").is_file():
        return load_bpe(folder, size)
    raise bad(folder, "tokenizer", "none", "vocab.json and merges.txt, tokenizer.json or tokenizer.model",
              "give the folder of a complete checkpoint")


def complete(vocab: Vocab, folder: Path, config: Config) -> Vocab:
    """Added tokens, special ids and the chat template."""
    settings = read_optional(folder / "tokenizer_config.json")
    place_added(vocab, added_tokens(folder, settings), folder)
    check_unique(vocab, folder)
    vocab.special |= special_ids(vocab, config, settings)
    vocab.chat_template = chat_template(folder, settings)
    return vocab


def padded(ids: dict[str, int], size: int, where: Path) -> tuple[list[str], list[int]]:
    """Tokens and types by id, entries that no token uses named [PADn] and marked unused."""
    tokens, types = [f"[PAD{i}]" for i in range(size)], [int(TokenType.UNUSED)] * size
    for token, i in ids.items():
        if not isinstance(i, int) or not 0 <= i < size:
            raise bad(where, f"token {token!r}", f"id {i}", f"0 to {size - 1} (vocab_size {size})", "correct vocab_size in config.json")
        if types[i] != TokenType.UNUSED:
            raise bad(where, f"id {i}", f"{tokens[i]!r} and {token!r}", "one token", "download the tokenizer files again")
        tokens[i], types[i] = token, int(TokenType.NORMAL)
    return tokens, types


# --- byte-level BPE -------------------------------------------------------------------------------------------

def load_bpe(folder: Path, size: int) -> Vocab:
    if (folder / "vocab.json").is_file():
        where = folder / "vocab.json"
        ids, merges, nfc = read_json(where), read_merges(folder / "merges.txt"), True
    else:
        where = folder / "tokenizer.json"
        ids, merges, nfc = read_tokenizer_json(where)
    if not merges:
        raise bad(where, "merges", "none", "at least one", "download the tokenizer files again")
    tokens, types = padded(ids, size, where)
    vocab = Vocab("gpt2", "qwen2", tokens, types, merges=merges, normalizer="nfc" if nfc else "")
    for merge in merges:
        if "".join(merge.split(" ")) not in ids:
            raise bad(where, f"merge {merge!r}", "a pair whose result is no token", "a token", "download the tokenizer files again")
    return vocab


def read_merges(path: Path) -> list[str]:
    lines = read_text(path, "the merges that belong to vocab.json").split("\n")
    lines = lines[1:] if lines[0].startswith("#version") else lines
    merges = [line for line in lines if line]
    for line in merges:
        if len(line.split(" ")) != 2:
            raise bad(path, "line", repr(line), "two tokens with one space between them", "download the file again")
    return merges


def read_tokenizer_json(path: Path) -> tuple[dict[str, int], list[str], bool]:
    raw = read_json(path)
    model = raw.get("model") or {}
    if model.get("type", "BPE") != "BPE" or not isinstance(model.get("vocab"), dict) or model.get("byte_fallback"):
        raise bad(path, "model", model.get("type"), "a byte-level BPE", "give tokenizer.model if the model came with one")
    normalizers = raw.get("normalizer") or {}
    kinds = [n.get("type") for n in normalizers.get("normalizers", [normalizers]) if n]
    if set(kinds) - {"NFC"}:
        raise bad(path, "normalizer", kinds, "NFC or none", "this tokenizer is not implemented")
    merges = [m if isinstance(m, str) else " ".join(m) for m in model.get("merges", [])]
    return model["vocab"], merges, bool(kinds)


# --- shared ---------------------------------------------------------------------------------------------------

def added_tokens(folder: Path, settings: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """id -> {"content", "special", ...}: tokenizer_config.json says most, the other files fill in what it lacks."""
    added: dict[int, dict[str, Any]] = {}
    special = special_names(folder, settings)
    for token, i in read_optional(folder / "added_tokens.json").items():
        added[i] = {"content": token, "special": token in special}
    for entry in read_optional(folder / "tokenizer.json").get("added_tokens") or []:
        added[entry["id"]] = entry
    for i, entry in (settings.get("added_tokens_decoder") or {}).items():
        added[int(i)] = entry
    return added


def special_names(folder: Path, settings: dict[str, Any]) -> set[str]:
    names: set[str] = set()
    for source in (settings, read_optional(folder / "special_tokens_map.json")):
        for key, value in source.items():
            if key.endswith("_token") or key == "additional_special_tokens":
                names |= {content(v) for v in (value if isinstance(value, list) else [value]) if v}
    return names


def content(token: Any) -> str:
    return token["content"] if isinstance(token, dict) else str(token)


def place_added(vocab: Vocab, added: dict[int, dict[str, Any]], where: Path) -> None:
    for i, entry in sorted(added.items()):
        token = entry["content"]
        if not 0 <= i < len(vocab.tokens):
            raise bad(where, f"added token {token!r}", f"id {i}", f"0 to {len(vocab.tokens) - 1} (vocab_size)", "correct vocab_size in config.json")
        if vocab.types[i] != TokenType.UNUSED and vocab.tokens[i] != token:
            raise bad(where, f"id {i}", f"{vocab.tokens[i]!r} and added token {token!r}", "one token", "download the tokenizer files again")
        if entry.get("lstrip") or entry.get("rstrip") or entry.get("single_word"):
            log.warning("%s: added token %r: lstrip, rstrip and single_word are not implemented; it is matched as it stands", where, token)
        vocab.tokens[i] = token
        if vocab.types[i] not in (TokenType.UNKNOWN, TokenType.BYTE):
            vocab.types[i] = int(TokenType.CONTROL if entry.get("special") else TokenType.USER_DEFINED)


def check_unique(vocab: Vocab, where: Path) -> None:
    """Two ids with one text would make the fork's token table ambiguous."""
    seen: dict[str, int] = {}
    for i, token in enumerate(vocab.tokens):
        if seen.setdefault(token, i) != i:
            raise bad(where, f"token {token!r}", f"ids {seen[token]} and {i}", "one id", "download the tokenizer files again")


def special_ids(vocab: Vocab, config: Config, settings: dict[str, Any]) -> dict[str, int]:
    """config.json's ids win for bos and eos: the model was trained with them; the tokenizer's fill in the rest."""
    by_text = {token: i for i, token in enumerate(vocab.tokens)}
    ids = {}
    for name in ("bos", "eos", "pad", "unk"):
        text = settings.get(f"{name}_token")
        if text and content(text) in by_text:
            ids[name] = by_text[content(text)]
    ids |= {name: i for name, i in (("bos", config.bos_token_id), ("eos", config.eos_token_id)) if i is not None}
    if TURN_END in by_text:
        ids["eot"] = by_text[TURN_END]
    return ids


def chat_template(folder: Path, settings: dict[str, Any]) -> Any:
    """A string, or a list of {"name", "template"}; chat_template.jinja wins, as in transformers."""
    path = folder / "chat_template.jinja"
    return read_text(path) if path.is_file() else settings.get("chat_template")
