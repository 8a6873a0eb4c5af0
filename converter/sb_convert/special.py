"""Special ids, the ends of generation, and the tokens put around a text."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from .config import ModelConfig
from .errors import bad
from .files import read_json, read_optional
from .vocab import Vocab

log = logging.getLogger("sb_convert")
TURN_END = "<|im_end|>"  # ends a chat turn in the ChatML template
# llama.cpp ends at these by their text, whatever the keys say (the ones of its list that no other rule takes off again)
KNOWN_ENDS = frozenset((TURN_END, "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<end_of_turn>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]",
                        "<end_of_utterance>", "<eos>", "<turn|>", "<｜end▁of▁sentence｜>"))
# tokenizer.model alone: what the class adds where tokenizer_config.json does not say
ADD_BOS = frozenset(("LlamaTokenizer", "LlamaTokenizerFast", "CodeLlamaTokenizer", "CodeLlamaTokenizerFast", "GemmaTokenizer", "GemmaTokenizerFast"))
ADD_EOS = frozenset(("T5Tokenizer", "T5TokenizerFast"))
# of generation_config.json, apart from what is read here and by metadata.py
GENERATION = frozenset("""
    bos_token_id eos_token_id pad_token_id decoder_start_token_id suppress_tokens transformers_version _from_model_config do_sample max_new_tokens max_length
    min_length use_cache cache_implementation chat_format max_window_size return_dict_in_generate output_scores output_attentions output_hidden_states
    sequence temperature top_k top_p min_p xtc_probability xtc_threshold penalty_last_n penalty_repeat repetition_penalty mirostat mirostat_tau mirostat_eta
    trust_remote_code auto_map num_return_sequences
    """.split())
SAYS_NOTHING: dict[str, Any] = {"num_beams": 1, "num_beam_groups": 1, "diversity_penalty": 0, "typical_p": 1, "epsilon_cutoff": 0, "eta_cutoff": 0, "length_penalty": 1,
                                "no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0, "encoder_repetition_penalty": 1, "guidance_scale": 1, "num_assistant_tokens": 20}


def content(token: Any) -> str:
    """The text of a token that a tokenizer file gives as text or as an object."""
    return token["content"] if isinstance(token, dict) else str(token)


def special_ids(vocab: Vocab, folder: Path, config: ModelConfig, settings: dict[str, Any]) -> None:
    """config.json's ids win for bos and eos: the model was trained with them; the tokenizer's fill in the rest."""
    by_text = {token: i for i, token in enumerate(vocab.tokens)}
    settings = read_optional(folder / "special_tokens_map.json") | {k: v for k, v in settings.items() if v}
    vocab.special |= named_ids(by_text, folder, config, settings)
    generation = read_optional(folder / "generation_config.json")
    check_generation(generation, folder / "generation_config.json")
    if config.bos_token_id is not None:
        vocab.special["bos"] = config.bos_token_id
    if "pad" not in vocab.special:
        pads = [raw.get("pad_token_id") for raw in (generation, read_json(folder / "config.json"))]
        vocab.special |= {"pad": i for i in reversed(pads) if is_token(i, vocab)}
    vocab.suppress = token_list(generation.get("suppress_tokens"), "suppress_tokens", vocab, folder / "generation_config.json")
    said = token_list(generation.get("eos_token_id"), "eos_token_id", vocab, folder / "generation_config.json")
    own = [i for i in (config.eos_token_id, *config.more_eos_token_ids) if i is not None]
    set_ends(vocab, own, said or own, by_text, folder)


def named_ids(by_text: dict[str, int], folder: Path, config: ModelConfig, settings: dict[str, Any]) -> dict[str, int]:
    """Ids of the special tokens that the tokenizer's files name by their text: bos, eos, pad, unk."""
    ids = {}
    for name in ("bos", "eos", "pad", "unk"):
        text = settings.get(f"{name}_token")
        if not text:
            continue
        if content(text) in by_text:
            ids[name] = by_text[content(text)]
        elif name == "eos" and config.eos_token_id is None:
            raise bad(folder / "tokenizer_config.json", "eos_token", repr(content(text)), "a token of the vocabulary", "download the tokenizer files again")
        else:
            log.warning("%s: %s_token: %r is no token of the vocabulary, and not used", folder / "tokenizer_config.json", name, content(text))
    return ids


def is_token(i: Any, vocab: Vocab) -> bool:
    """Whether i is an id of the vocabulary."""
    return type(i) is int and 0 <= i < len(vocab.tokens)


def token_list(value: Any, name: str, vocab: Vocab, where: Path) -> list[int]:
    """null, an id or a list of them."""
    ids = [] if value is None else value if isinstance(value, list) else [value]
    for i in ids:
        if not is_token(i, vocab):
            raise bad(where, name, repr(value), f"ids from 0 to {len(vocab.tokens) - 1}", "correct the file, or give the one that belongs to this model")
    return list(dict.fromkeys(ids))


def check_generation(generation: dict[str, Any], where: Path) -> None:
    """What of it a GGUF cannot hold is said."""
    left = [name for name, value in generation.items() if name not in GENERATION and value not in (None, False, "", [], {}) and SAYS_NOTHING.get(name) != value]
    if left:
        log.warning("%s: %s: a GGUF cannot hold it; set it where text is generated", where, ", ".join(left))


def set_ends(vocab: Vocab, own: list[int], ends: list[int], by_text: dict[str, int], folder: Path) -> None:
    """The keys eos, eom and eot name one end each. generation_config.json's ends are those Hugging Face generates with; config.json's without it."""
    if ends:
        vocab.special["eos"] = own[0] if own and own[0] in ends else ends[0]
    elif "eos" not in vocab.special:
        raise bad(folder, "eos_token_id", "none in config.json, generation_config.json and tokenizer_config.json", "the token that ends a text",
                  "name it in config.json; llama.cpp would take another")
    left = [i for i in ends if i != vocab.special["eos"] and vocab.tokens[i] not in KNOWN_ENDS]
    if len(left) > 2:
        raise bad(folder, "eos_token_id", f"{len(ends)} ends of generation, {len(left)} of them for two keys ({', '.join(repr(vocab.tokens[i]) for i in left)})",
                  "at most two beside eos and those llama.cpp knows by their text", "name fewer in generation_config.json")
    if TURN_END in by_text:
        vocab.special["eot"] = by_text[TURN_END]
    vocab.special |= dict(zip(("eom", "eot"), left))  # <|im_end|> ends by its text, too


# --- around a text --------------------------------------------------------------------------------------------

def add_around(vocab: Vocab, folder: Path, settings: dict[str, Any]) -> None:
    """add_bos and add_eos: what tokenizer.json's post_processor adds, as in transformers; without that file what tokenizer_config.json or the class says."""
    path, where = folder / "tokenizer.json", folder / "tokenizer_config.json"
    around = post_processed(read_optional(path).get("post_processor"), path)
    kind = settings.get("tokenizer_class")
    by_class = {"bos": bool(vocab.scores) and kind in ADD_BOS, "eos": bool(vocab.scores) and kind in ADD_EOS}
    for name in ("bos", "eos"):
        said = settings.get(f"add_{name}_token")
        if said is not None and not isinstance(said, bool):
            raise bad(where, f"add_{name}_token", repr(said), "true or false", "correct the file")
        if path.is_file():
            if said is not None and said is not (name in around):
                log.warning("%s: add_%s_token: got %s, and the post_processor of tokenizer.json adds %s; that is followed, as in transformers",
                            where, name, str(said).lower(), "one" if name in around else "none")
        elif said or said is None and by_class[name]:
            around[name] = own_token(vocab, name, folder, settings)
        if name in around:
            if vocab.special.setdefault(name, around[name]) != around[name]:
                raise bad(folder, f"{name} token", f"{around[name]} around a text, and {name}_token_id {vocab.special[name]}", "the same token", "correct config.json or the tokenizer files")
            setattr(vocab, f"add_{name}", True)


def own_token(vocab: Vocab, name: str, folder: Path, settings: dict[str, Any]) -> int:
    """The id of the token that add_bos_token or add_eos_token means. ConvertError: there is none."""
    text = settings.get(f"{name}_token")
    if text and content(text) in vocab.tokens:
        return vocab.tokens.index(content(text))
    if vocab.scores and not text and name in vocab.special:
        return vocab.special[name]
    raise bad(folder / "tokenizer_config.json", f"add_{name}_token", f"true and no {name}_token", f"the token to add as {name}_token", "correct the file")


def post_processed(spec: Any, path: Path) -> dict[str, int]:
    """The ids a post_processor puts before ("bos") and after ("eos") a text."""
    if spec is None:
        return {}
    if spec["type"] == "Sequence":
        held = [p for s in spec["processors"] if (p := post_processed(s, path))]
        if len(held) > 1:
            raise bad(path, "post_processor", "several that add tokens", "one", "this tokenizer is not implemented")
        return held[0] if held else {}
    if spec["type"] == "ByteLevel":  # concerns offsets only
        return {}
    if spec["type"] in ("BertProcessing", "RobertaProcessing"):
        return {"bos": spec["cls"][1], "eos": spec["sep"][1]}
    if spec["type"] != "TemplateProcessing":
        raise bad(path, "post_processor", spec["type"], "ByteLevel or TemplateProcessing", "this tokenizer is not implemented")
    return templated(spec, path)


def templated(spec: dict[str, Any], path: Path) -> dict[str, int]:
    """A template of at most one token, the text, at most one token."""
    parts = [list(part.items())[0] for part in spec["single"]]
    kinds = [kind for kind, _ in parts]
    ids = [spec["special_tokens"][part["id"]]["ids"] for kind, part in parts if kind == "SpecialToken"]
    at = kinds.index("Sequence") if kinds.count("Sequence") == 1 else 2
    if at > 1 or len(kinds) - at > 2 or any(len(i) != 1 for i in ids):
        raise bad(path, "post_processor", f"a template of {', '.join(str(p['id']) for _, p in parts)}", "at most one token before the text and one after it",
                  "a GGUF holds no more; this tokenizer is not implemented")
    around = ({"bos": ids[0][0]} if at else {}) | ({"eos": ids[-1][0]} if len(kinds) - at == 2 else {})
    return {name: int(i) for name, i in around.items()}
