"""The tokenizer's part of the GGUF: which files say it, added tokens, and the settings beside them."""

from __future__ import annotations

import logging
import struct
from pathlib import Path
from typing import Any

from gguf import TokenType

from .bpe import load_bpe
from .config import ModelConfig
from .errors import bad
from .files import read_json, read_optional
from .special import add_around, content, special_ids
from .spm import check_translation, load_spm
from .templates import chat_template
from .vocab import Vocab

log = logging.getLogger("sb_convert")


def load_vocab(folder: Path, config: ModelConfig) -> Vocab:
    """The vocabulary of a checkpoint folder. ConvertError: what is wrong with its tokenizer's files."""
    try:
        settings = read_optional(Path(folder) / "tokenizer_config.json")
        return complete(read_vocab(Path(folder), config.vocab_size, settings), Path(folder), config, settings)
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError, RecursionError, struct.error) as e:  # JSON of another make than the files' own
        raise bad(folder, "tokenizer files", f"malformed content ({e!r})", "those of a published checkpoint", "download them again") from e


def read_vocab(folder: Path, size: int, settings: dict[str, Any]) -> Vocab:
    """tokenizer.json beside a tokenizer.model is a translation of it; beside vocab.json it is what Hugging Face reads."""
    if (folder / "tokenizer.model").is_file() and not (folder / "vocab.json").is_file():
        vocab = load_spm(folder / "tokenizer.model", size)
        check_translation(vocab, folder / "tokenizer.json")
        return vocab
    if (folder / "vocab.json").is_file() or (folder / "tokenizer.json").is_file():
        return load_bpe(folder, size, settings)
    raise bad(folder, "tokenizer", "none", "vocab.json and merges.txt, tokenizer.json or tokenizer.model",
              "give the folder of a complete checkpoint")


def complete(vocab: Vocab, folder: Path, config: ModelConfig, settings: dict[str, Any]) -> Vocab:
    """Added tokens, special ids, what stands around a text, and the chat template."""
    check_settings(vocab, settings, folder / "tokenizer_config.json")
    place_added(vocab, added_tokens(folder, settings), folder)
    check_unique(vocab, folder)
    special_ids(vocab, folder, config, settings)
    add_around(vocab, folder, settings)
    vocab.chat_template = chat_template(folder, settings)
    check_text(vocab, folder)
    return vocab


def check_text(vocab: Vocab, where: Path) -> None:
    """Half of a surrogate pair has no place in a GGUF; a template's bos_token would be llama.cpp's token 11 where the model has none."""
    templates = [t["template"] for t in vocab.chat_template] if isinstance(vocab.chat_template, list) else [vocab.chat_template or ""]
    for what, texts in (("tokens", vocab.tokens), ("merges", vocab.merges), ("chat_template", templates)):
        try:
            "".join(texts).encode()
        except UnicodeEncodeError as e:
            raise bad(where, what, f"{e.object[e.start:e.end]!r}", "Unicode text", "download the tokenizer files again") from None
    if "bos" not in vocab.special and vocab.model == "gpt2" and any("bos_token" in t for t in templates):
        raise bad(where, "chat_template", "a use of bos_token, and no such token", "bos_token_id in config.json or bos_token in tokenizer_config.json", "add it, or take it out of the template")


# of tokenizer_config.json, apart from what is read: what changes no token id
BOOKKEEPING = frozenset("""
    tokenizer_class added_tokens_decoder chat_template additional_special_tokens extra_special_tokens add_bos_token add_eos_token auto_map
    model_max_length max_length padding padding_side pad_to_multiple_of pad_token_type_id truncation truncation_side truncation_strategy stride
    model_input_names name_or_path _name_or_path tokenizer_file vocab_file merges_file special_tokens_map_file processor_class backend is_local errors
    legacy use_default_system_prompt spaces_between_special_tokens use_fast image_token audio_token video_token model_specific_special_tokens
    clean_up_tokenization_spaces add_prefix_space from_slow device_map local_files_only return_tensors padding_token tokenizer_type unsloth_fixed
    """.split())
NEUTRAL: dict[str, tuple[Any, ...]] = {"split_special_tokens": (False,), "do_lower_case": (False,), "do_lowercase": (False,), "lowercase": (False,), "strip_accents": (False,),
                                       "sp_model_kwargs": ({},), "remove_space": (False,), "keep_accents": (True,)}


def check_settings(vocab: Vocab, settings: dict[str, Any], where: Path) -> None:
    """ConvertError: a setting of tokenizer_config.json that would split text otherwise; warns of what is not known."""
    for name, values in NEUTRAL.items():
        if settings.get(name) is not None and settings[name] not in values:
            raise bad(where, name, repr(settings[name]), repr(values[0]).lower(), "this tokenizer is not implemented")
    space = settings.get("add_prefix_space")
    has = bool(vocab.extra.get("add_space_prefix", False))
    if space is not None and space is not has:
        raise bad(where, "add_prefix_space", repr(space), str(has).lower(), "tokenizer.model says so" if vocab.scores else "llama.cpp's byte-level BPE puts no space before a text")
    cleans = settings.get("clean_up_tokenization_spaces")
    if cleans is not None and bool(cleans) is not vocab.cleans:
        log.warning("%s: clean_up_tokenization_spaces: got %s; text comes piece by piece as it is, and llama.cpp's detokenizer (pre %s) %s spaces before punctuation",
                    where, str(cleans).lower(), vocab.pre, "drops" if vocab.cleans else "keeps")
    unknown = [name for name, value in settings.items() if value not in (None, False, "", [], {}) and name not in BOOKKEEPING and name not in NEUTRAL
               and not name.endswith(("_token", "_token_id"))]
    if unknown:
        log.warning("%s: %s: not known, and not used; if one of them changes how text is split, the GGUF is wrong", where, ", ".join(unknown))


# --- shared ---------------------------------------------------------------------------------------------------

def added_tokens(folder: Path, settings: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """id -> {"content", "special", ...}: tokenizer_config.json says most, the other files fill in what it lacks."""
    added: dict[int, dict[str, Any]] = {}
    special = special_names(folder, settings)

    def put(i: int, entry: dict[str, Any], where: str) -> None:
        if i in added and added[i]["content"] != entry["content"]:
            raise bad(folder / where, f"added token {i}", repr(entry["content"]), f"{added[i]['content']!r}, as another tokenizer file says", "download the tokenizer files again")
        added[i] = entry
    for token, i in read_optional(folder / "added_tokens.json").items():
        put(i, {"content": token, "special": token in special}, "added_tokens.json")
    for entry in read_optional(folder / "tokenizer.json").get("added_tokens") or []:
        put(entry["id"], entry, "tokenizer.json")
    for i, entry in (settings.get("added_tokens_decoder") or {}).items():
        put(int(i), entry, "tokenizer_config.json")
    return added


def special_names(folder: Path, settings: dict[str, Any]) -> set[str]:
    """The texts that the tokenizer's files name as special tokens."""
    names: set[str] = set()
    for source in (settings, read_optional(folder / "special_tokens_map.json")):
        for key, value in source.items():
            if key.endswith("_token") or key == "additional_special_tokens":
                names |= {content(v) for v in (value if isinstance(value, list) else [value]) if v}
    return names


def place_added(vocab: Vocab, added: dict[int, dict[str, Any]], where: Path) -> None:
    """Puts added tokens, id -> entry, into the vocabulary. ConvertError: an id that is taken, or outside."""
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
        if not isinstance(token, str) or not token or "\0" in token:
            raise bad(where, f"id {i}", repr(token), "a text without NUL", "download the tokenizer files again")
        if seen.setdefault(token, i) != i:
            raise bad(where, f"token {token!r}", f"ids {seen[token]} and {i}", "one id", "download the tokenizer files again")
