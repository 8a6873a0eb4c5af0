"""Embeddings: the last norm's output of every token, or one vector per text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional, Union

import numpy as np
import numpy.typing as npt

from . import _core
from .arguments import flag
from .errors import LlamaError
from .saving import Saving
from .tokenizer import TEXT, Text

POOLING_UNSPECIFIED, POOLING_NONE, POOLING_MEAN, POOLING_CLS, POOLING_LAST, POOLING_RANK = -1, 0, 1, 2, 3, 4
_STEP = 64  # tokens per call: each has a row of logits in llama.cpp's buffer, too

Vectors = npt.NDArray[np.float32]


def pool(rows: Vectors, kind: int) -> Vectors:
    """[n, n_embd] -> [n_embd]: mean, first or last row; NONE: as they are."""
    if kind == POOLING_NONE:
        return rows
    return np.asarray({POOLING_MEAN: rows.mean(0), POOLING_CLS: rows[0], POOLING_LAST: rows[-1]}[kind], np.float32)


class Embeddings(Saving):
    """embed and create_embedding. They read in a context of their own: the session's sequence stays as it is."""

    def pooling_type(self) -> int:
        """How a text's rows become one vector: 0 not at all, 1 mean, 2 the first, 3 the last."""
        with self._locked_model():
            given = self._pooling
            if given == POOLING_UNSPECIFIED:
                given = int(self.metadata.get(f"{self.metadata.get('general.architecture')}.pooling_type", POOLING_NONE))
            return given

    def embed(self, input: Union[Text, Sequence[Text], Sequence[Sequence[int]]], normalize: bool = False, truncate: bool = True,
              return_count: bool = False) -> Any:
        """The embedding of a text (bytes: UTF-8), or a list of those of several (texts or token ids), in double-nested lists of floats.

        A vector of n_embd numbers per text, or with pooling_type 0 (the default of models that generate) one per token.
        normalize: to length 1. truncate: to n_ctx tokens, where an n_ctx was given; otherwise no length is too much.
        return_count: (embeddings, tokens read). LlamaError: not loaded with embedding=True. ValueError: an empty text.
        """
        normalize, truncate = flag("embed: normalize", normalize), flag("embed: truncate", truncate)
        return_count = flag("embed: return_count", return_count)
        single = isinstance(input, TEXT)
        if not single and not isinstance(input, (list, tuple)):
            raise TypeError(f"embed: input: got {type(input).__name__}, expected a text or a list of them")
        items: Sequence[Any] = [input] if single else input
        kind, n_read, out = self.pooling_type(), 0, []
        for item in items:
            ids = self._prompt_tokens("embed: input", item)
            if self._n_ctx_given and truncate:
                ids = ids[:self._n_ctx_given]
            rows = pool(self._embed_tokens(ids), kind)
            if normalize:
                rows = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
            n_read += ids.size
            out.append(rows.tolist())
        answer = out[0] if single else out
        return (answer, n_read) if return_count else answer

    def create_embedding(self, input: Union[Text, Sequence[Text]], model: Optional[str] = None) -> dict[str, Any]:
        """embed, in OpenAI's shape. Errors: see embed."""
        texts = [input] if isinstance(input, TEXT) else input
        vectors, n = self.embed(list(texts), return_count=True)
        return {"object": "list", "model": model or self.model_path, "usage": {"prompt_tokens": n, "total_tokens": n},
                "data": [{"object": "embedding", "embedding": v, "index": i} for i, v in enumerate(vectors)]}

    def _embed_tokens(self, ids: npt.NDArray[np.int32]) -> Vectors:
        if ids.size == 0:
            raise ValueError("embed: input: got a text without tokens, expected at least one; leave it out")
        if self._n_ctx_given and ids.size > self._n_ctx_given:
            raise ValueError(f"embed: input: got {ids.size} tokens, expected at most n_ctx={self._n_ctx_given}; truncate it")
        with self._use():
            ctx = self._embedding_context()
            ctx.clear()
            try:
                return np.concatenate([ctx.embed(ids[i:i + self._embed_step], i) for i in range(0, ids.size, self._embed_step)])
            except RuntimeError as error:
                raise LlamaError(f"embed: {error}") from error

    def _embedding_context(self) -> _core.Context:
        if not self._embedding:
            raise LlamaError("embed: got a model loaded without embedding=True, expected one with it; load it so")
        if self._embedding_ctx is None:
            self._embed_step = min(_STEP, self.n_batch)
            self._embedding_ctx = self._new_context(n_batch=self._embed_step, n_ubatch=self._embed_step, n_outputs_max=self._embed_step,
                                                    embeddings=True)
        return self._embedding_ctx
