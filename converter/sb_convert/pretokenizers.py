"""tokenizer.json's pre_tokenizer, and the `pre` of llama.cpp that splits text the same way.

Each row was held against Hugging Face's tokenizers on 3,052 texts with a vocabulary whose merges cross every boundary, and agrees on all.
llama.cpp's `gpt-4o`, `tekken`, `falcon` and `deepseek-coder` do not: their pre-tokenizers are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import bad

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SPELLINGS = ("(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", "'(?i:[sdmt]|ll|ve|re)", "(?i:'s|'t|'re|'ve|'m|'d|'ll)")  # of the same
WORDS, OTHERS = r"|[^\r\n\p{L}\p{N}]?\p{L}+", r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
SPACES = r"|\s+(?!\S)|\s+"
QWEN2 = CONTRACTIONS + WORDS + r"|\p{N}" + OTHERS + SPACES
LLAMA3 = CONTRACTIONS + WORDS + r"|\p{N}{1,3}" + OTHERS + SPACES
QWEN35 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+" + SPACES
SEED = CONTRACTIONS + WORDS + r"|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+" + SPACES
BAILING = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]" + SPACES
EXAONE_MOE = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]" + SPACES
JAIS2 = CONTRACTIONS + WORDS + r"|\p{N}{1,3}" + OTHERS + "".join(rf"|\s{{{n}}}(?!\S)" for n in ("512", "256", "128", "64", "32", "16", "8", "4", "1,2")) + r"|\s{1}"
MINICPM5 = CONTRACTIONS + WORDS + r"|\p{N}+" + OTHERS + SPACES
UFAKZEKA = WORDS[1:] + r"|\p{N}" + OTHERS + SPACES
THREE_DIGITS, CJK = r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+"
DEEPSEEK3 = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+""" + SPACES
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"

BYTES, BYTES_AND_WORDS, DIGITS = ("ByteLevel", False), ("ByteLevel", True), ("Digits", True)  # ByteLevel: use_regex (GPT-2's)


@dataclass(frozen=True)
class Pre:
    """llama.cpp's name; cleans: its detokenizer takes spaces before punctuation away (clean_up_tokenization_spaces)."""
    name: str
    cleans: bool


TABLE: dict[tuple[tuple[tuple[str, Any], ...], bool], Pre] = {  # (steps, ignore_merges)
    ((("Split", QWEN2), BYTES), False): Pre("qwen2", False),
    ((("Split", LLAMA3), BYTES), True): Pre("llama-bpe", True),
    ((("Split", LLAMA3), BYTES), False): Pre("dbrx", True),
    ((("Split", QWEN35), BYTES), False): Pre("qwen35", False),
    ((BYTES_AND_WORDS,), False): Pre("gpt-2", True),
    ((DIGITS, BYTES_AND_WORDS), False): Pre("smollm", False),
    ((("Split", THREE_DIGITS), ("Split", CJK), ("Split", DEEPSEEK3), BYTES), False): Pre("deepseek-v3", False),
    ((("Split", SEED), BYTES), False): Pre("seed-coder", False),
    ((("Split", BAILING), BYTES), False): Pre("bailingmoe", False),
    ((("Split", EXAONE_MOE), BYTES), False): Pre("exaone-moe", True),
    ((("Split", JAIS2), BYTES), False): Pre("jais-2", True),
    ((("Split", THREE_DIGITS), ("Split", MINICPM5), BYTES), True): Pre("minicpm5", True),
    ((("Split", UFAKZEKA), BYTES), False): Pre("ufakzeka", False),
    ((("Split", BLOOM), BYTES), False): Pre("bloom", True),
}
NAMES = ", ".join(pre.name for pre in TABLE.values())


def recognised(spec: Any, ignore_merges: bool, path: Path) -> Pre:
    """llama.cpp's pre-tokenizer that splits as a tokenizer.json's. ConvertError: there is none."""
    steps = tuple(step(s, path) for s in flat(spec, path))
    pre = TABLE.get((steps, ignore_merges))
    if pre is None:
        other = TABLE.get((steps, not ignore_merges))
        got = f"{str(ignore_merges).lower()} with the pre-tokenizer of {other.name}" if other else short(steps)
        raise bad(path, "model.ignore_merges" if other else "pre_tokenizer", got, f"one that llama.cpp has: {NAMES}" if not other else str(not ignore_merges).lower(),
                  "this tokenizer is not implemented")
    return pre


def flat(spec: Any, path: Path) -> list[dict[str, Any]]:
    """The steps of a pre-tokenizer, sequences taken apart."""
    if spec is None:
        return []
    if not isinstance(spec, dict):
        raise bad(path, "pre_tokenizer", repr(spec), "an object", "download the file again")
    if spec.get("type") == "Sequence":
        return [inner for s in spec["pretokenizers"] for inner in flat(s, path)]
    return [spec]


def step(spec: dict[str, Any], path: Path) -> tuple[str, Any]:
    """One step in the words of TABLE; whatever is not there keeps its own."""
    kind = str(spec.get("type"))
    if kind == "ByteLevel":
        if spec.get("add_prefix_space", True):
            raise bad(path, "pre_tokenizer", "ByteLevel with add_prefix_space", "add_prefix_space false", "llama.cpp's byte-level BPE puts no space before a text")
        return kind, bool(spec.get("use_regex", True))
    if kind == "Digits":
        return kind, bool(spec.get("individual_digits", False))
    if kind == "Split" and isinstance(spec.get("pattern"), dict) and isinstance(spec["pattern"].get("Regex"), str):
        regex = spelled(spec["pattern"]["Regex"])
        how = (spec.get("behavior"), bool(spec.get("invert", False)))
        if how == ("Isolated", False) or how == ("Removed", True) and regex.endswith(SPACES):  # such a pattern leaves nothing out
            return kind, regex
    return kind, repr({k: v for k, v in spec.items() if k != "type"})


def spelled(regex: str) -> str:
    """A regular expression as the table spells it."""
    regex = regex.replace("\r", r"\r").replace("\n", r"\n")
    for spelling in SPELLINGS:
        if regex.startswith(spelling):
            return CONTRACTIONS + regex.removeprefix(spelling)
    return regex


def short(steps: tuple[tuple[str, Any], ...]) -> str:
    """Steps as a message shows them."""
    text = ", ".join(f"{kind} {value}" if isinstance(value, str) else kind for kind, value in steps)
    return text if len(text) <= 200 else text[:200] + "..."
