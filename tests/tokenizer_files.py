"""tokenizer.json in the forms published models have, texts to try them on, and a vocabulary that shows every boundary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY

from sb_convert import pretokenizers as P


def split(regex: str, behavior: str = "Isolated") -> dict:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": behavior == "Removed"}


def steps(*inner: dict) -> dict:
    return {"type": "Sequence", "pretokenizers": list(inner)}


BYTES, WORDS = ({"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": rx} for rx in (False, True))
DIGITS = {"type": "Digits", "individual_digits": True}
PRE = {"qwen2": steps(split(P.QWEN2), BYTES), "llama-bpe": steps(split(P.LLAMA3, "Removed"), BYTES), "dbrx": steps(split(P.LLAMA3), BYTES), "gpt-2": WORDS,
       "smollm": steps(DIGITS, WORDS), "qwen35": steps(split(P.QWEN35), BYTES), "deepseek-v3": steps(split(P.THREE_DIGITS), split(P.CJK), split(P.DEEPSEEK3), BYTES),
       "seed-coder": steps(split(P.SEED), BYTES), "bailingmoe": steps(split(P.BAILING), BYTES), "exaone-moe": steps(split(P.EXAONE_MOE), BYTES),
       "jais-2": steps(split(P.JAIS2), BYTES), "minicpm5": steps(split(P.THREE_DIGITS), split(P.MINICPM5), BYTES), "ufakzeka": steps(split(P.UFAKZEKA), BYTES),
       "bloom": steps(split(P.BLOOM), BYTES)}
IGNORE_MERGES = ("llama-bpe", "minicpm5")
TEXTS = [
    "Hello, world! How are you?", "I'm sure they'll say we've won; he'd said it's John's. DON'T I'LL YOU'RE IT'S",
    "1234567890 12 345 3.14 1,000,000 0x1F 2024-01-31",
    "    def f(x):\n\treturn x ** 2  # square\n\n\nclass A:\n        pass\n", "你好，世界！我有123个苹果。", "これはテストです。カタカナ、漢字。１２３", "안녕하세요 세계!",
    "Привет, мир! Это тест 123.", "مرحبا بالعالم ١٢٣٤٥", "नमस्ते दुनिया, यह परीक्षण है १२३", "สวัสดีชาวโลก",
    "🦙🦙 👨‍👩‍👧‍👦 🇩🇪 ❤️ emoji!", "été café ÉCOLE École ŒUVRE", "e\u0301te\u0301 A\u030angstro\u0308m n\u0303",
    "ﬁne ½ ¾ Ⅷ ² ①②③", "   leading and   inner    spaces and trailing   ", "\n\n\n  \n \t \n", "line\r\nline\r\n\r\nline\rline\n",
    "no\u00a0break ideographic\u3000space x\u1680y\u2003z a\x0bb\x0cc",
    "https://example.com/path?q=1&r=two#frag user_name@mail.example.org", "price: $5.00, €4,50 & 20% off!!! (really?) [yes] {no} <tag/> `code` ~^|=+*",
    "snake_case camelCase SCREAMING_SNAKE x1y2z3 abc123def", "it’s “quoted” — dash … ellipsis", "'s 't x'S'T y'Ll ''s it''s ſ it'ſ",
    "∑_{i=0}^{n} x_i² ≤ ∞", "..... ------ ______ !?.,;:\n\n??\n!!\r\n",
]


def trained(texts: list[str] = TEXTS) -> tuple[dict[str, int], list[str]]:
    """Vocabulary and merges of texts that were not split before: merges cross every boundary, and a pre-tokenizer that differs is seen."""
    tokenizers = pytest.importorskip("tokenizers")
    byte_level = tokenizers.pre_tokenizers.ByteLevel
    t = tokenizers.Tokenizer(tokenizers.models.BPE())
    t.pre_tokenizer = byte_level(add_prefix_space=False, use_regex=False)
    t.train_from_iterator(texts * 3, tokenizers.trainers.BpeTrainer(vocab_size=3000, initial_alphabet=byte_level.alphabet(), show_progress=False))
    model = json.loads(t.to_str())["model"]
    return model["vocab"], [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]


def tokenizer_json(vocab: dict[str, int], merges: list[str], pre: Any, **change: Any) -> dict[str, Any]:
    """A whole file; its model's fields are changed by change["model"], its own by the others. <s> and </s> are the two ids after the vocabulary."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False,
             "ignore_merges": False, "vocab": vocab, "merges": merges, **change.pop("model", {})}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [{"id": len(vocab) + i, "content": t, **flags} for i, t in enumerate(("<s>", "</s>"))],
            "normalizer": None, "pre_tokenizer": pre, "post_processor": None, "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            **change, "model": model}


def template(before: str = "<s>", after: str = "", n: int = 0) -> dict[str, Any]:
    """TemplateProcessing; n: the vocabulary's size."""
    def special(name: str) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": 0}}
    single = [special(t) for t in before.split()] + [{"Sequence": {"id": "A", "type_id": 0}}] + [special(t) for t in after.split()]
    return {"type": "TemplateProcessing", "single": single, "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {t: {"id": t, "ids": [n + i], "tokens": [t]} for i, t in enumerate(("<s>", "</s>"))}}


def write_tokenizer(folder: Path, spec: dict[str, Any], settings: dict[str, Any] | None = None, **config: Any) -> Path:
    """A checkpoint without weights: enough for --vocab-only."""
    n = len(spec["model"]["vocab"])
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**TINY, "vocab_size": n + 8, "bos_token_id": n, "eos_token_id": n + 1, **config}))
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"} if settings is None else settings))
    return folder
