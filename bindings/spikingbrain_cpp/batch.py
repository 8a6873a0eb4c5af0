"""Batch: several sequences of one model, decoded together, each as if it were alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

import numpy as np
import numpy.typing as npt

from . import _core
from .arguments import check_range
from .errors import Cancelled, LlamaError
from .loaded import Tokens

if TYPE_CHECKING:
    from typing_extensions import Self

    from .session import Session

Row = npt.NDArray[np.float32]


class Batch:
    """n_seq sequences beside a Llama's own, which shares its weights with them and is not touched. Made by Llama.batch.

    Each has a state of its own (Llama.state_bytes() apiece). Calls wait for those of the Llama.
    """

    def __init__(self, llm: Session, n_seq: int) -> None:
        self.n_seq = n_seq = check_range("batch: n_seq", n_seq, high=256)
        self._llm = llm
        self._rows: dict[int, Row] = {}
        self._cancel = _core.CancelToken()
        with llm._use():
            self._ctx: Optional[_core.Context] = llm._new_context(
                n_batch=max(llm.n_batch, n_seq), n_outputs_max=max(n_seq, 1), n_seq_max=n_seq)
            llm._batches.add(self)

    def close(self) -> None:
        """Free the sequences. Calling it again is harmless."""
        ctx, self._ctx = self._ctx, None
        if ctx is not None:
            ctx.close()
        self._llm._batches.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> _core.Context:
        if self._ctx is None:
            raise LlamaError("batch: got a closed one, expected an open one; make another with Llama.batch")
        return self._ctx

    def n_tokens(self, seq: int) -> int:
        """Tokens that a sequence holds."""
        with self._llm._use():
            return self._open().seq_pos_max(seq) + 1

    def logits(self, seq: int) -> Row:
        """float32 [n_vocab]: logits after the last token of a sequence, a copy. LlamaError: nothing evaluated."""
        with self._llm._use():
            self._open().seq_pos_max(seq)
            if seq not in self._rows:
                raise LlamaError(f"batch: logits: got none for sequence {seq}, expected a row; eval a token")
            return self._rows[seq].copy()

    def fork(self, source: int, target: int) -> None:
        """The target sequence becomes a copy of the source: state and logits, without evaluating."""
        with self._llm._use():
            ctx = self._open()
            if source == target:
                return
            ctx.seq_rm(target)
            ctx.seq_cp(source, target)
            self._rows.pop(target, None)
            if source in self._rows:
                self._rows[target] = self._rows[source].copy()

    def reset(self, seq: int) -> None:
        """Forget one sequence."""
        with self._llm._use():
            self._open().seq_rm(seq)
            self._rows.pop(seq, None)

    def cancel(self) -> None:
        """End the eval under way, from any thread: it raises Cancelled inside its micro-batch."""
        self._cancel.cancel()

    def eval(self, tokens: Mapping[int, Tokens]) -> None:
        """Append tokens to sequences, {sequence: tokens}, computed together; afterwards logits(seq) is there for each.

        ValueError: no such sequence, no tokens, or unknown ones. Cancelled: see cancel; a sequence then holds what was finished.
        """
        with self._llm._use():
            ctx, n_ctx = self._open(), self._llm.n_ctx()
            left = {seq: self._llm._token_array("batch", ids) for seq, ids in tokens.items()}
            for seq, ids in left.items():
                if ids.size == 0:
                    raise ValueError(f"batch: tokens: got none for sequence {seq}, expected at least one")
                if ctx.seq_pos_max(seq) + 1 + ids.size > n_ctx:
                    raise ValueError(f"batch: requested tokens: got {ctx.seq_pos_max(seq) + 1 + ids.size}, expected at most n_ctx={n_ctx}")
            self._cancel = _core.CancelToken()
            while left:
                left = self._eval_some(ctx, left)

    def _eval_some(self, ctx: _core.Context, left: dict[int, npt.NDArray[np.int32]]) -> dict[int, npt.NDArray[np.int32]]:
        """One decode of equally many tokens per sequence; returns what is left of them."""
        share = max(1, min(min(ids.size for ids in left.values()), ctx.n_ubatch() // len(left)))
        seqs = np.repeat(np.fromiter(left, np.int32), share)
        pos = np.concatenate([np.arange(share, dtype=np.int32) + ctx.seq_pos_max(seq) + 1 for seq in left])
        want = np.concatenate([np.arange(share) == ids.size - 1 for ids in left.values()]).astype(np.int8)
        for seq in left:
            self._rows.pop(seq, None)
        try:
            rows = ctx.decode_batch(np.concatenate([ids[:share] for ids in left.values()]), pos, seqs, want, self._cancel)
        except _core.Cancelled as error:
            raise Cancelled(f"batch: {error}") from None
        except RuntimeError as error:
            raise LlamaError(f"batch: {error}") from error
        self._llm.n_evaluated += pos.size
        for seq, row in zip(seqs[want != 0].tolist(), rows):
            self._rows[seq] = row.copy()
        return {seq: ids[share:] for seq, ids in left.items() if ids.size > share}
