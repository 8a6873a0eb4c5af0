"""llama_cpp.llama_tokenizer: a model's tokenizer as an object, and another one in its place."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

from ..errors import LlamaError
from ..llama import Llama
from ..loaded import LoadedModel
from ..tokenizer import Text, Tokenizer, as_str

if TYPE_CHECKING:
    from typing_extensions import Self


class BaseLlamaTokenizer(abc.ABC):
    """Text to token ids and back; Llama(tokenizer=) takes one in place of the file's."""

    @abc.abstractmethod
    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = True) -> list[int]:
        """Token ids of UTF-8 text. special: control tokens in the text count."""
        raise NotImplementedError

    @abc.abstractmethod
    def detokenize(self, tokens: list[int], prev_tokens: Optional[list[int]] = None, special: bool = False) -> bytes:
        """Bytes of the tokens, behind others. special: control tokens are shown."""
        raise NotImplementedError


class LlamaTokenizer(BaseLlamaTokenizer):
    """The tokenizer of a loaded model."""

    def __init__(self, llama: LoadedModel) -> None:
        self._llama = llama

    def tokenize(self, text: Text, add_bos: bool = True, special: bool = True) -> list[int]:
        return self._llama.tokenize(text, add_bos, special)

    def detokenize(self, tokens: Sequence[int], prev_tokens: Optional[Sequence[int]] = None, special: bool = False) -> bytes:
        return self._llama.detokenize(tokens, prev_tokens, special)

    def encode(self, text: str, add_bos: bool = True, special: bool = True) -> list[int]:
        """Token ids of a text."""
        return self.tokenize(text, add_bos, special)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of the tokens; half a character is left out."""
        return self.detokenize(tokens).decode("utf-8", "ignore")

    @classmethod
    def from_ggml_file(cls, path: str) -> Self:
        """Of a model file, whose weights are not loaded. Errors: see Llama."""
        return cls(Llama(path, vocab_only=True))


def auto_tokenizer(where: str, name_or_path: str) -> Any:
    """transformers' tokenizer of a model. ImportError: transformers is not installed."""
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise ImportError(f"{where}: got no package transformers, expected one; do pip install transformers") from error
    return AutoTokenizer.from_pretrained(name_or_path)


class LlamaHFTokenizer(BaseLlamaTokenizer):
    """One of transformers' tokenizers."""

    def __init__(self, hf_tokenizer: Any) -> None:
        self.hf_tokenizer = hf_tokenizer

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = True) -> list[int]:
        return list(self.hf_tokenizer.encode(as_str(text), add_special_tokens=special))

    def detokenize(self, tokens: list[int], prev_tokens: Optional[list[int]] = None, special: bool = False) -> bytes:
        before = list(prev_tokens or [])
        text, first = (self.hf_tokenizer.decode(ids, skip_special_tokens=not special).encode("utf-8", "ignore") if ids else b""
                       for ids in (before + list(tokens), before))
        return bytes(text[len(first):])

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str) -> Self:
        """ImportError: transformers is not installed."""
        return cls(auto_tokenizer("LlamaHFTokenizer", pretrained_model_name_or_path))


class Replaced(Tokenizer):
    """What Llama(tokenizer=) was given, in the place of the file's own."""

    def __init__(self, own: Tokenizer, given: Any) -> None:
        """TypeError: no tokenizer."""
        lacks = [name for name in ("tokenize", "detokenize") if not callable(getattr(given, name, None))]
        if lacks:
            raise TypeError(f"llama: tokenizer: got {type(given).__name__} without {' and '.join(lacks)}, expected a BaseLlamaTokenizer or None")
        self._model, self._nfc, self._pieces = own._model, False, {}
        self.given = given

    def encode(self, text: Text, add_bos: bool, special: bool) -> list[int]:
        ids = [int(token) for token in self.given.tokenize(as_str(text).encode(), add_bos, special)]
        n_vocab = self._model.n_vocab()
        wrong = [token for token in ids if not 0 <= token < n_vocab]
        if wrong:
            raise LlamaError(f"llama: tokenizer: got token {wrong[0]}, expected 0 to {n_vocab - 1}; take this model's tokenizer")
        return ids

    def decode(self, tokens: Sequence[int], special: bool, prev_tokens: Optional[Sequence[int]] = None) -> bytes:
        before = None if prev_tokens is None else list(prev_tokens)
        return bytes(self.given.detokenize(list(tokens), prev_tokens=before, special=special))
