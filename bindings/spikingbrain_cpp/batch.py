"""Batch: several sequences of one model, decoded together, each as if it were alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .arguments import check_range
from .errors import LlamaError
from .model import OpenModel, Tokens
from .sequence import Context, Row, Sequence

if TYPE_CHECKING:
    from typing_extensions import Self


class Batch:
    """n_seq sequences beside a Llama's own, which shares its weights with them and is not touched. Made by Llama.batch.

    Each has a state of its own (Llama.state_bytes() apiece). Calls wait for those of the Llama.
    """

    def __init__(self, model: OpenModel, n_seq: int) -> None:
        self.n_seq = n_seq = check_range("batch: n_seq", n_seq, high=256)
        with model.use():
            self._context = Context(model, "batch", "batch: got a closed one, expected an open one; make another with Llama.batch", n_seq=n_seq,
                                    n_batch=max(model.settings.n_batch, n_seq), n_outputs_max=n_seq)
            self._sequences = [Sequence(self._context, i) for i in range(n_seq)]

    def close(self) -> None:
        """Free the sequences, when the eval under way has ended. Calling it again is harmless."""
        self._context.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _sequence(self, seq: int) -> Sequence:
        self._context.handle().seq_pos_max(seq)  # ValueError, TypeError: no such sequence
        return self._sequences[seq]

    def n_tokens(self, seq: int) -> int:
        """Tokens that a sequence holds."""
        with self._context.use():
            return self._sequence(seq).n()

    def logits(self, seq: int) -> Row:
        """float32 [n_vocab]: logits after the last token of a sequence, a copy. LlamaError: nothing evaluated."""
        with self._context.use():
            row = self._sequence(seq).row()
            if row is None:
                raise LlamaError(f"batch: logits: got none for sequence {seq}, expected a row; eval a token")
            return row.copy()

    def fork(self, source: int, target: int) -> None:
        """The target sequence becomes a copy of the source: state and logits, without evaluating."""
        with self._context.changing("batch: fork"):
            one, other = self._sequence(source), self._sequence(target)
            if one is not other:
                other.copy(one)

    def reset(self, seq: int) -> None:
        """Forget one sequence."""
        with self._context.changing("batch: reset"):
            self._sequence(seq).clear()

    def cancel(self) -> None:
        """End the eval under way, from any thread: it raises Cancelled inside its micro-batch."""
        self._context.cancels.cancel()

    def eval(self, tokens: Mapping[int, Tokens]) -> None:
        """Append tokens to sequences, {sequence: tokens}, computed together; afterwards logits(seq) is there for each.

        ValueError: no such sequence, no tokens, or unknown ones. Cancelled: see cancel; a sequence then holds what was finished.
        """
        context = self._context
        with context.changing("batch: eval"):
            todo = {self._sequence(seq): context.model.ids("batch", ids) for seq, ids in tokens.items()}
            n_ctx = context.n_ctx()
            for sequence, ids in todo.items():
                if ids.size == 0:
                    raise ValueError(f"batch: tokens: got none for sequence {sequence.id}, expected at least one")
                if sequence.n() + ids.size > n_ctx:
                    raise ValueError(f"batch: requested tokens: got {sequence.n() + ids.size}, expected at most n_ctx={n_ctx}")
            with context.cancels.running() as token:
                context.read(todo, token)
