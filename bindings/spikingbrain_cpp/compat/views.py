"""Llama.model and Llama.ctx: what programs ask of them, without pointers. lowlevel.py passes them on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Optional

import numpy as np

from ..llama import Llama
from ..loaded import LoadedModel
from ..model import OpenModel
from ..sequence import Row


class ModelView:
    """A loaded model: its figures and its vocabulary."""

    def __init__(self, llama: LoadedModel) -> None:
        self.llama = self._llama = llama

    @property
    def model(self) -> ModelView:
        """Itself: there is no handle below it."""
        return self

    @property
    def vocab(self) -> ModelView:
        """Itself: there is no handle below it."""
        return self

    def _asked(self, name: str, *given: Any) -> Any:
        with self._llama._model.use() as handle:
            return getattr(handle, name)(*given)

    def n_vocab(self) -> int:
        """Entries of the vocabulary."""
        return self._llama.n_vocab()

    def n_embd(self) -> int:
        """Width of the residual stream."""
        return self._llama.n_embd()

    def n_layer(self) -> int:
        """Layers."""
        return int(self._asked("n_layer"))

    def n_ctx_train(self) -> int:
        """Tokens of a text in training."""
        return int(self._asked("n_ctx_train"))

    def n_params(self) -> int:
        """Weights."""
        return int(self._asked("n_params"))

    def size(self) -> int:
        """Bytes of all weights."""
        return int(self._asked("size"))

    def desc(self) -> str:
        """llama.cpp's description."""
        return str(self._asked("desc"))

    def metadata(self) -> dict[str, str]:
        """The file's keys."""
        return dict(self._llama.metadata)

    def is_recurrent(self) -> bool:
        """Whether all layers keep a state."""
        return self._llama._model.is_recurrent()

    def is_hybrid(self) -> bool:
        """Whether some do."""
        return self._llama._model.is_hybrid()

    def token_bos(self) -> int:
        """-1: none, as of the others."""
        return self._llama.token_bos()

    def token_eos(self) -> int:
        """End of sequence."""
        return self._llama.token_eos()

    def token_eot(self) -> int:
        """End of turn."""
        return int(self._asked("token_eot"))

    def token_nl(self) -> int:
        """Newline."""
        return self._llama.token_nl()

    def add_bos_token(self) -> bool:
        """Whether a text begins with BOS."""
        return bool(self._asked("add_bos"))

    def add_eos_token(self) -> bool:
        """Whether it ends with EOS."""
        return bool(self._asked("add_eos"))

    def token_is_eog(self, token: int) -> bool:
        """Whether generation ends on it."""
        return bool(self._asked("is_eog", int(token)))

    def token_is_control(self, token: int) -> bool:
        """Whether it is no text."""
        return bool(self._asked("is_control", int(token)))

    def token_get_text(self, token: int) -> str:
        """A token as the vocabulary has it."""
        return bytes(self._asked("token_text", int(token))).decode("utf-8", "replace")

    def token_to_piece(self, token: int, special: bool = False) -> bytes:
        """Its bytes in a text. special: control tokens are shown."""
        return bytes(self._asked("token_to_piece", int(token), special))

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        """Token ids of a text."""
        return self._llama.tokenize(text, add_bos, special)

    def detokenize(self, tokens: Sequence[int], special: bool = False) -> bytes:
        """Bytes of tokens."""
        return self._llama.detokenize(tokens, special=special)


class AskedModel(OpenModel):
    """What programs ask of Llama._model, whose figures are those of Llama.model."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "metadata" or not hasattr(ModelView, name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
        loaded = LoadedModel()
        loaded._model, loaded.metadata = self, self.metadata
        return getattr(ModelView(loaded), name)


class ContextView:
    """The sequence that a Llama reads."""

    def __init__(self, llama: Llama, cut: Optional[Callable[[int], bool]] = None, n_ctx: Optional[int] = None, n_batch: Optional[int] = None) -> None:
        """cut: makes the sequence hold its first tokens only; n_ctx, n_batch: what it says of itself, where that is not its Llama's."""
        self._llama, self._cut, self._n_ctx, self._n_batch = llama, cut, n_ctx, n_batch

    @property
    def ctx(self) -> ContextView:
        """Itself: there is no handle below it."""
        return self

    @property
    def model(self) -> ModelView:
        """The model that it computes with."""
        return ModelView(self._llama)

    def n_ctx(self) -> int:
        """Most tokens it may hold."""
        return self._n_ctx or self._llama.n_ctx()

    def n_batch(self) -> int:
        """Most tokens handed over at once."""
        return self._n_batch or self._llama.n_batch

    def pooling_type(self) -> int:
        """See Llama.pooling_type."""
        return self._llama.pooling_type()

    def get_logits(self) -> Row:
        """float32 [n_vocab], the last token's."""
        return self._llama.logits

    def kv_cache_clear(self) -> None:
        """Forget the sequence."""
        self._llama.reset()

    def kv_cache_seq_rm(self, seq_id: int, p0: int, p1: int) -> bool:
        """Forget the tokens from position p0 on; False: the memory does not take back so many, or they have an end before the last one."""
        held = self._llama.n_tokens
        first = max(p0, 0)
        if 0 <= p1 < held and first < held:
            return False
        return first >= held or self._cut is not None and self._cut(first)

    def close(self) -> None:
        """It is closed with its Llama."""


def context_params(llama: Llama) -> dict[str, Any]:
    """The figures of a context under the names of llama_context_params."""
    s = llama._model.settings
    return {"n_ctx": s.n_ctx or 0, "n_batch": llama.n_batch, "n_ubatch": s.n_ubatch, "n_seq_max": 1, "n_threads": llama.n_threads,
            "n_threads_batch": llama.n_threads_batch, "embeddings": s.embedding, "pooling_type": s.pooling, "type_k": s.type_k, "type_v": s.type_v}


def last_rows(llama: Llama) -> Any:
    """float32 [n, n_vocab]: every token's logits, or without logits_all [1, n_vocab], the last one's."""
    if llama._model.settings.logits_all:
        return llama.scores
    return llama.logits[None, :] if llama.n_tokens else np.empty((0, llama.n_vocab()), np.float32)
