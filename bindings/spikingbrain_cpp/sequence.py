"""Context and Sequence: what is being read, who may change it, and the one loop that decodes.

Whatever reads tokens holds one of these: Llama its own sequence, a Batch several, embed() one of its own.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

from . import _core
from .errors import Cancelled, LlamaError
from .history import History
from .model import Cancels, Ids, Locked, OpenModel

Row = npt.NDArray[np.float32]            # [n_vocab]
Rows = npt.NDArray[np.float32]           # [n, n_vocab]
Progress = Callable[[int, int], object]  # tokens done, tokens in all

NO_TOKENS: Ids = np.empty(0, np.int32)
NO_ROWS: Rows = np.empty((0, 0), np.float32)


class _Changing:
    """`with` on a context that a call changes; a call from inside it, out of a callback of the caller's, is refused by name."""

    __slots__ = ("_context", "where", "_locked", "__weakref__")

    def __init__(self, context: Context, where: str) -> None:
        self._context, self.where, self._locked = context, where, context.use()

    def __enter__(self) -> _core.Context:
        handle = self._locked.__enter__()
        if self._context.busy:
            self._locked.__exit__()
            raise LlamaError(f"{self.where}: got a call from inside {self._context.busy} of the same Llama, expected one after it; "
                             "call it when that has ended, or use another Llama")
        self._context.changed_by = weakref.ref(self)
        return handle

    def __exit__(self, *_: object) -> None:
        self._context.changed_by = None
        self._locked.__exit__()


class Context:
    """A llama.cpp context of a model: its sequences are read in it, by one call at a time."""

    def __init__(self, model: OpenModel, name: str, closed: str, *, n_seq: int = 1, step: int = 0, **options: Any) -> None:
        """name: what errors begin with. closed: what is said when it is used without a handle. step: most tokens of one decode, 0: n_ubatch.
        options: see _core.Context."""
        self.model, self.name, self.n_seq = model, name, n_seq
        self.cancels = Cancels(model.cancels)
        self.changed_by: Optional[weakref.ref[_Changing]] = None  # weak: Ctrl-C can keep an __exit__ from being run
        self._closed = closed
        self._print: Optional[str] = None
        self._handle: Optional[_core.Context] = None
        with model.use():
            if not model.settings.vocab_only:
                self._handle = model.new_context(n_seq_max=n_seq, **options)
                self.step = min(step or self._handle.n_ubatch(), self._handle.n_batch())
                self.n_ahead_most: int = min(options["n_outputs_max"], self.step) - 1  # logits of so many more there is room for
                model.holders.add(self)

    @property
    def busy(self) -> str:
        """The call that changes it, for who has the lock; "": none."""
        changing = None if self.changed_by is None else self.changed_by()
        return "" if changing is None else changing.where

    def handle(self) -> _core.Context:
        """For who has the lock. LlamaError: the model or the context is closed."""
        self.model.handle()
        if self._handle is None:
            raise LlamaError(self._closed)
        return self._handle

    def use(self) -> Locked[_core.Context]:
        """To look at it."""
        return Locked(self.model, self.handle)

    def changing(self, where: str) -> _Changing:
        """To change its sequences. LlamaError: from inside of another call that does."""
        return _Changing(self, where)

    def close(self) -> None:
        """Free it, when the call of another thread that changes it has ended. LlamaError: from inside of one."""
        with contextlib.nullcontext() if os.getpid() != self.model.pid else self.model.lock:
            if self.busy:
                raise LlamaError(f"{self.name}: close: got a call from inside {self.busy}, expected one after it; close it when that has ended")
            self.release()

    def release(self) -> None:
        """Free it; for who has the lock, or is a forked child."""
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()

    def n_ctx(self) -> int:
        """Most tokens a sequence may hold."""
        with self.use() as handle:
            return self.model.settings.n_ctx or handle.n_ctx()

    def fingerprint(self) -> str:
        """Of what computes here, see _core.Context.fingerprint."""
        if self._print is None:
            with self.use() as handle:
                self._print = handle.fingerprint()
        return self._print

    # --- the loop that decodes -------------------------------------------------------------------------------------

    def read(self, todo: Mapping[Sequence, Ids], token: _core.CancelToken, progress: Optional[Progress] = None,
             embedded: Optional[list[Row]] = None, guess: Ids = NO_TOKENS) -> None:
        """Append tokens to sequences, equally many of each at a time; a sequence's last logits are kept.

        embedded: receives what a context for embeddings computes instead. guess: tokens to be read ahead of the one sequence, in the last decode.
        Cancelled, LlamaError: a sequence then holds what was finished.
        """
        left, done, total = todo, 0, 0
        for sequence, ids in todo.items():
            sequence.expect(ids, guess)
            total += ids.size
        while left:
            now, left = self._split(left)
            try:
                self._decode(now, token, embedded, NO_TOKENS if left else guess)
            except _core.Cancelled as error:
                raise Cancelled(f"{self.name}: {error}") from None
            except RuntimeError as error:
                raise LlamaError(f"{self.name}: {error}") from error
            n = len(now) * next(iter(now.values())).size
            done += n
            self.model.n_evaluated += n + (0 if left else guess.size)
            if progress is not None:
                progress(done, total)

    def _split(self, left: Mapping[Sequence, Ids]) -> tuple[Mapping[Sequence, Ids], Mapping[Sequence, Ids]]:
        """(what one decode takes, what is left)."""
        least = min(ids.size for ids in left.values()) if len(left) > 1 else next(iter(left.values())).size
        share = max(1, min(self.step // len(left), least))
        if len(left) == 1 and share == least:
            return left, {}
        return ({sequence: ids[:share] for sequence, ids in left.items()},
                {sequence: ids[share:] for sequence, ids in left.items() if ids.size > share})

    def _decode(self, now: Mapping[Sequence, Ids], token: _core.CancelToken, embedded: Optional[list[Row]], guess: Ids) -> None:
        handle = self.handle()
        if len(now) > 1:
            self._decode_together(handle, now, token)
            return
        (sequence, ids), = now.items()
        at = handle.seq_pos_max(sequence.id) + 1
        if embedded is not None:
            embedded.append(handle.embed(ids, at, token))
        elif guess.size:
            both = np.concatenate([ids, guess])
            rows = sequence.rows_of(at, both.size)
            rows = np.empty((both.size, self.model.n_vocab()), np.float32) if rows is None else rows
            handle.decode(both, at, sequence.id, rows, token)
            sequence.keep(rows[ids.size - 1].copy(), rows[ids.size:].copy())
        else:
            handle.decode(ids, at, sequence.id, sequence.rows_of(at, ids.size), token)
            sequence.keep(handle.logits() if self.n_seq == 1 else handle.logits().copy())

    def _decode_together(self, handle: _core.Context, now: Mapping[Sequence, Ids], token: _core.CancelToken) -> None:
        n = next(iter(now.values())).size
        first = [handle.seq_pos_max(sequence.id) + 1 for sequence in now]
        pos = np.add.outer(np.array(first, np.int32), np.arange(n, dtype=np.int32)).ravel()
        seqs = np.repeat(np.array([sequence.id for sequence in now], np.int32), n)
        want = np.tile((np.arange(n) == n - 1).astype(np.int8), len(now))
        rows = handle.decode_batch(np.concatenate(list(now.values())), pos, seqs, want, token)
        for sequence, row in zip(now, rows):
            sequence.keep(row.copy())


class Sequence:
    """One sequence of a context: its tokens, the logits kept of it, and an epoch that differs whenever it was changed.

    How many tokens it holds is decided by llama.cpp's memory alone, so that an interrupted call leaves exactly what was finished.
    Every change goes through expect() or forgets the kept row: no row outlives the token that it is of. What changes is called inside of
    Context.changing().

    The memory may have read ahead: tokens that are guessed to follow, with their logits. They are no part of the sequence until append()
    is given them, which then computes nothing; whatever else happens takes them back.
    """

    def __init__(self, context: Context, id: int = 0, all_rows: bool = False) -> None:
        """all_rows: keep every token's logits."""
        self.context, self.id = context, id
        self.epoch = 0
        self.history = History()
        self._row: Optional[Row] = None  # of the last token
        self._end: Optional[int] = None  # tokens at and behind this position were read ahead; None: there are none
        self._ahead_rows = NO_ROWS       # their logits, from there on
        self._all_rows = all_rows
        self._rows: Rows = np.empty((0, context.model.n_vocab() if all_rows else 0), np.float32)  # NaN where not known

    # --- what it holds ---------------------------------------------------------------------------------------------

    def n(self) -> int:
        """Tokens it holds, for who has the lock."""
        held = self.context.handle().seq_pos_max(self.id) + 1
        return held if self._end is None else min(held, self._end)

    def tokens(self) -> Ids:
        """int32 [n], a copy; -1 where only the hash is known."""
        with self.context.use():
            return self.history.all(self.n())

    def row(self) -> Optional[Row]:
        """Logits after the last token, None: they are not known. The next decode may overwrite them."""
        return self._row

    def last_row(self) -> Row:
        """The same. LlamaError: none."""
        if self._row is None:
            with self.context.use():
                raise LlamaError(f"llama: logits: got none for the last of {self.n()} tokens, expected a row; eval a token")
        return self._row

    def rows(self) -> Rows:
        """float32 [n, n_vocab], a view. LlamaError: they are not kept."""
        with self.context.use():
            if not self._all_rows:
                raise LlamaError("llama: scores: got logits_all=False, expected True; use logits for the last row")
            self._grow(self.n())
            return self._rows[:self.n()]

    def check_room(self, where: str, n: int) -> None:
        """ValueError: n tokens are too many."""
        n_ctx = self.context.n_ctx()
        if n > n_ctx:
            raise ValueError(f"{where}: requested tokens: got {n}, expected at most n_ctx={n_ctx}; reset, shorten the prompt or raise n_ctx")

    def reach(self, prompt: Ids) -> int:
        """How many tokens of a prompt become() keeps: all that are held, or those up to a tail that can be taken back."""
        n = self.n()
        common = self.history.common(n, prompt)
        if common == n and (prompt.size > n or self._row is not None):
            return n
        keep = min(common, prompt.size - 1)  # the last token's logits are needed
        return keep if keep > self.context.handle().seq_pos_min(self.id) else 0

    # --- changes -----------------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        self.epoch += 1
        self._row = None

    def append(self, ids: Ids, token: _core.CancelToken, progress: Optional[Progress] = None, guess: Ids = NO_TOKENS) -> None:
        """Read more tokens, which have room; guess: what may follow them, to be read ahead. Errors: see Context.read."""
        n_ready = 0 if self._end is None else self._take_ahead(ids)
        if n_ready < ids.size:
            self.context.read({self: ids[n_ready:]}, token, progress, guess=guess)

    def n_ready(self, ids: Ids) -> int:
        """How many of these tokens were read ahead."""
        if self._end is None:
            return 0
        n, held = min(ids.size, len(self._ahead_rows)), self.n()
        differ = np.flatnonzero(ids[:n] != self.history.last(held + n, n))
        return int(differ[0]) if differ.size else n

    def _take_ahead(self, ids: Ids) -> int:
        """Hold those first tokens that were read ahead."""
        n = self.n_ready(ids)
        if n and self._end is not None:
            row = self._ahead_rows[n - 1]
            self._changed()
            self._end, self._ahead_rows, self._row = self._end + n, self._ahead_rows[n:], row
        return n

    def settle(self) -> None:
        """Take back what was read ahead. LlamaError: the memory does not give it back, and holds nothing now."""
        if self._end is None:
            return
        handle, n = self.context.handle(), self.n()
        self._ahead_rows = NO_ROWS
        if handle.seq_pos_max(self.id) >= n and not handle.seq_rm(self.id, n, -1):
            self.clear()
            raise LlamaError(f"{self.context.name}: got tokens read ahead that the memory does not take back, expected it to; load without draft_model")
        self._end = None

    def clear(self) -> None:
        """Hold no token."""
        self._changed()
        handle = self.context.handle()
        handle.clear() if self.context.n_seq == 1 else handle.seq_rm(self.id)
        self._end, self._ahead_rows = None, NO_ROWS

    def cut(self, n: int) -> bool:
        """Hold the first n tokens only. False: the memory cannot take back so many; it holds as many as before."""
        handle = self.context.handle()
        if not handle.seq_rm(self.id, n, -1):
            return False
        self._changed()
        self._end, self._ahead_rows = None, NO_ROWS
        return handle.seq_pos_max(self.id) == n - 1

    def become(self, prompt: Ids) -> Ids:
        """Be a beginning of the prompt, keeping what can be kept; returns what is left to read."""
        keep = self.reach(prompt)
        if keep != self.n() and not (keep and self.cut(keep)):
            self.clear()
            return prompt
        return prompt[keep:]

    def copy(self, source: Sequence) -> None:
        """Be a copy of another sequence of the context: state, tokens and logits."""
        source.settle()
        self.clear()
        self.context.handle().seq_cp(source.id, self.id)
        self.history = source.history.copy()
        self._row = None if source._row is None else source._row.copy()

    def replace(self, data: bytes, n: int, history: History, row: Optional[Row]) -> None:
        """Be what a saved state of n tokens holds. RuntimeError: the memory refuses it; the sequence is then empty."""
        self.clear()
        try:
            if data:
                self.context.handle().state_set(data, self.id)
            if self.n() != n:
                raise RuntimeError(f"data: got {self.n()} tokens, expected {n}")
        except RuntimeError:
            self.clear()
            raise
        self.history = history
        self._grow(n)
        if self._all_rows:
            self._rows[:n] = np.nan
        if row is not None:
            self.keep(np.array(row, np.float32))
            if self._all_rows:
                self._rows[n - 1] = row

    # --- for Context.read ----------------------------------------------------------------------------------------

    def expect(self, ids: Ids, guess: Ids) -> None:
        """Tokens that are about to be read, and read ahead: an interrupt at any place leaves a sequence that knows what it holds."""
        self.settle()
        self._changed()
        at = self.n()
        self._grow(at + ids.size + guess.size)
        self.history.write(at, np.concatenate([ids, guess]) if guess.size else ids)
        if guess.size:
            self._end = at + ids.size

    def rows_of(self, at: int, n: int) -> Optional[Rows]:
        """Where the logits of n tokens from position at belong, if they are kept. None is known until keep() is called."""
        self._row = None
        return self._rows[at:at + n] if self._all_rows else None

    def keep(self, row: Row, ahead_rows: Rows = NO_ROWS) -> None:
        """The logits of the token that is the last one now, and of those read ahead of it."""
        self._row, self._ahead_rows = row, ahead_rows

    def _grow(self, n: int) -> None:
        if self._all_rows and n > len(self._rows):
            rows = np.full((max(n, len(self._rows) * 3 // 2), self._rows.shape[1]), np.nan, np.float32)
            rows[:len(self._rows)] = self._rows
            self._rows = rows
