"""A vocabulary as the GGUF holds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
from gguf import TokenType

from .errors import bad


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
    add_bos: bool = False
    add_eos: bool = False
    suppress: list[int] = field(default_factory=list)       # never sampled
    cleans: bool = False                                    # `pre`'s detokenizer takes spaces before punctuation away

    def add_to(self, w: gguf.GGUFWriter) -> None:
        """Writes tokenizer.ggml.* and the chat template."""
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
        w.add_add_bos_token(self.add_bos)
        w.add_add_eos_token(self.add_eos)
        if self.normalizer:
            w.add_string("tokenizer.ggml.normalizer", self.normalizer)
        for key, value in self.extra.items():
            add = {bool: w.add_bool, bytes: w.add_array}[type(value)]
            add(f"tokenizer.ggml.{key}", value)
        if self.suppress:
            w.add_array("tokenizer.ggml.suppress_tokens", self.suppress)
        if self.chat_template:
            w.add_chat_template(self.chat_template)


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
