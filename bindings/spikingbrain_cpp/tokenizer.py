"""Text to token ids and back: upstream's tokenizer, with the normalisation that it leaves out."""

from __future__ import annotations

import re
import unicodedata
from functools import cached_property
from typing import Optional, Sequence, Union

from . import _core

Text = Union[str, bytes, bytearray, memoryview]  # bytes: UTF-8
TEXT = (str, bytes, bytearray, memoryview)

NORMALIZER_KEY = "tokenizer.ggml.normalizer"


def as_str(text: Text) -> str:
    """The text; bytes that are no UTF-8 and halves of surrogate pairs become U+FFFD. TypeError: something else."""
    if isinstance(text, (bytes, bytearray, memoryview)):
        return bytes(text).decode("utf-8", "replace")
    if not isinstance(text, str):
        raise TypeError(f"tokenize: text: got {type(text).__name__}, expected bytes or str")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class Tokenizer:
    """The vocabulary of one model."""

    def __init__(self, model: _core.Model, normalizer: Optional[str]) -> None:
        if normalizer not in (None, "nfc"):
            raise ValueError(f"llama: {NORMALIZER_KEY}: got {normalizer!r}, expected 'nfc' or no such key; "
                             "convert the model again")
        self._model = model
        self._nfc = normalizer == "nfc"
        self._pieces: dict[int, bytes] = {}

    @cached_property
    def _added(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        """Patterns of the tokens taken out of a text before it is split: without and with the control tokens."""
        added = sorted(((text, control) for _, text, control in self._model.added_tokens() if text),
                       key=lambda item: -len(item[0]))
        never = r"(?!)"
        plain = "|".join(re.escape(text) for text, control in added if not control) or never
        every = "|".join(re.escape(text) for text, _ in added) or never
        return re.compile(f"({plain})"), re.compile(f"({every})")

    def normalize(self, text: str, special: bool) -> str:
        """NFC of the text between added tokens: a mark after '<|im_end|>' must not become one with its '>'."""
        if not self._nfc or unicodedata.is_normalized("NFC", text):
            return text
        parts = self._added[special].split(text)  # ordinary, added, ordinary, added, ..., ordinary
        return "".join(part if i % 2 else unicodedata.normalize("NFC", part) for i, part in enumerate(parts))

    def encode(self, text: Text, add_bos: bool, special: bool) -> list[int]:
        """Token ids. Bytes that are not UTF-8 (and lone surrogates) count as U+FFFD."""
        return self._model.tokenize(self.normalize(as_str(text), special).encode(), add_bos, special)

    def decode(self, tokens: Sequence[int], special: bool, prev_tokens: Optional[Sequence[int]] = None) -> bytes:
        """Bytes of the tokens, piece by piece; a space that the tokenizer put after the BOS token is left out, as llama-cpp-python does."""
        before = list(prev_tokens or [])
        out = [self._model.token_to_piece(token, special) for token in (*before, *tokens)]
        text = b"".join(out)
        start = len(b"".join(out[:len(before)]))
        if (*before, *tokens)[:1] == (self._model.token_bos(),) and not special and text[:1] == b" ":
            text, start = text[1:], max(0, start - 1)
        return text[start:]

    def piece(self, token: int) -> bytes:
        """Bytes of one token inside a text; control tokens have none."""
        known = self._pieces.get(token)
        if known is None:
            known = self._pieces[token] = self._model.token_to_piece(token, False)
        return known
