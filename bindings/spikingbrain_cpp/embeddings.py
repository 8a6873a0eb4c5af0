"""Embeddings: the last norm's output of every token, or one vector per text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from . import _core, sequence
from .errors import LlamaError
from .model import Ids, OpenModel, refuse_cancelled

POOLING_UNSPECIFIED, POOLING_NONE, POOLING_MEAN, POOLING_CLS, POOLING_LAST, POOLING_RANK = -1, 0, 1, 2, 3, 4
_STEP = 64  # tokens per call: each has a row of logits in llama.cpp's buffer, too

Vectors = npt.NDArray[np.float32]


def pool(rows: Vectors, kind: int) -> Vectors:
    """[n, n_embd] -> [n_embd]: mean, first or last row; NONE: as they are."""
    if kind == POOLING_NONE:
        return rows
    return np.asarray({POOLING_MEAN: rows.mean(0), POOLING_CLS: rows[0], POOLING_LAST: rows[-1]}[kind], np.float32)


class Embedder:
    """Embeds texts of a model in a sequence of its own, made at first use."""

    def __init__(self, model: OpenModel) -> None:
        self._model = model
        self._made: Optional[sequence.Sequence] = None

    def pooling(self) -> int:
        """How a text's rows become one vector, see Llama.pooling_type."""
        with self._model.use():
            given = self._model.settings.pooling
            if given == POOLING_UNSPECIFIED:
                given = int(self._model.metadata.get(f"{self._model.architecture}.pooling_type", POOLING_NONE))
            return given

    def embed(self, items: Sequence[Any], normalize: bool, truncate: bool, cancel: Optional[_core.CancelToken]) -> tuple[list[Any], int]:
        """(vectors in lists, tokens read); see Llama.embed."""
        kind, n_read, out, n_ctx = self.pooling(), 0, [], self._model.settings.n_ctx
        with self._model.cancels.running(cancel) as token:
            for item in items:
                ids = self._model.prompt("embed: input", item)
                if n_ctx and truncate:
                    ids = ids[:n_ctx]
                rows = pool(self._rows(ids, token), kind)
                if normalize:
                    rows = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
                n_read += ids.size
                out.append(rows.tolist())
        return out, n_read

    def _rows(self, ids: Ids, token: _core.CancelToken) -> Vectors:
        n_ctx = self._model.settings.n_ctx
        if ids.size == 0:
            raise ValueError("embed: input: got a text without tokens, expected at least one; leave it out")
        if n_ctx and ids.size > n_ctx:
            raise ValueError(f"embed: input: got {ids.size} tokens, expected at most n_ctx={n_ctx}; truncate it")
        own = self._sequence()
        rows: list[Vectors] = []
        with own.context.changing("embed"):
            refuse_cancelled("embed", token)
            own.clear()
            own.context.read({own: ids}, token, embedded=rows)
        return np.concatenate(rows)

    def _sequence(self) -> sequence.Sequence:
        with self._model.use():
            if not self._model.settings.embedding:
                raise LlamaError("embed: got a model loaded without embedding=True, expected one with it; load it so")
            if self._made is None:
                step = min(_STEP, self._model.settings.n_batch)
                self._made = sequence.Sequence(sequence.Context(
                    self._model, "embed", "embed: got a closed context, expected an open one; load the model again", n_batch=step, n_ubatch=step,
                    n_outputs_max=step, embeddings=True))
            return self._made
