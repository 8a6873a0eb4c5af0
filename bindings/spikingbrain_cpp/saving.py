"""Saving: a session's snapshots, and llama-cpp-python's states on top of them."""

from __future__ import annotations

import hashlib
import os
from typing import Any, Optional, Union

import numpy as np
from sb_convert.whole import target, write_whole

from . import _core
from .arguments import check_path
from .errors import LlamaError
from .history import History
from .session import Session
from .state import VERSION, AnyPath, LlamaState, Snapshot, difference


class Saving(Session):
    """A session that can be put aside and taken up again, here or elsewhere, without evaluating anything."""

    _print: Optional[str]
    _vocab_print: Optional[str] = None

    def snapshot(self, path: Optional[AnyPath] = None) -> Snapshot:
        """The sequence as an object of constant size, and as a file, too, when a path is given (whole or not at all).

        It holds the state (a fixed part plus at most one window of rows), the last row of logits, the last 1024 to 2047 tokens
        and a hash of those before them. OSError: the file may not be written (a device, a folder, the model) or could not be.
        """
        if path is not None:
            check_path("snapshot: path", path)
            target(path, self._files())  # before the work
        with self._use() as ctx:
            n = self.n_tokens
            has_row = n > 0 and ctx.logits_pos() == n - 1
            prefix, tail = self._history.cut(n)
            made = Snapshot(self._fingerprint(), self._tokenizer_print(), n, prefix, tail, ctx.state_get(0) if n else b"",
                            ctx.logits().copy() if has_row else np.empty(0, np.float32))
        if path is not None:
            write_whole(path, made.to_bytes(), self._files())
        return made

    def _files(self) -> list[str]:
        """What the session reads, over which nothing is saved."""
        return [self.model_path] if self._lora is None else [self.model_path, self._lora[0]]

    def restore(self, source: Union[Snapshot, bytes, AnyPath]) -> None:
        """Replace the sequence by a snapshot's: the object, its bytes, or the path of its file. Nothing is evaluated.

        A prompt that extends the one the snapshot was made after evaluates its new tokens only: the hash tells. Of the tokens before
        the snapshot's tail nothing else is known: input_ids shows them as -1, and a prompt that differs from them is read anew.
        ValueError: a snapshot of another model, of other overrides, adapters, scales, types of keys and values, of another tokenizer or
        version, a damaged one, or one longer than n_ctx; the sequence stays as it was. OSError: no such file. LlamaError: llama.cpp
        refuses the data; the sequence is then empty.
        """
        if isinstance(source, (bytes, bytearray, memoryview)):
            source = Snapshot.from_bytes(bytes(source))
        elif isinstance(source, (str, os.PathLike)):
            source = Snapshot.load(source)
        self._restore("restore", source)

    def _restore(self, where: str, made: Any) -> None:
        if not isinstance(made, Snapshot):
            raise TypeError(f"{where}: got {type(made).__name__}, expected a Snapshot, its bytes or a path")
        with self._use() as ctx:
            self._check_fits(where, made)
            self.reset()
            if made.n_tokens:
                self._set_state(ctx, where, made)
            self._history = History.of(made.n_tokens, made.prefix, made.tail)
            self._grow(made.n_tokens)
            if self._logits_all:
                self._rows[:made.n_tokens] = np.nan
            if made.n_tokens and made.logits.size:
                ctx.set_logits(np.ascontiguousarray(made.logits, np.float32), made.n_tokens - 1)
                if self._logits_all:
                    self._rows[made.n_tokens - 1] = made.logits

    def _check_fits(self, where: str, made: Snapshot) -> None:
        if made.version != VERSION:
            raise ValueError(f"{where}: version: got {made.version}, expected {VERSION}; save it again")
        found = difference(made.fingerprint, self._fingerprint())
        if found is None and made.tokenizer != self._tokenizer_print():
            found = "tokenizer", str(made.tokenizer)[:16], self._tokenizer_print()[:16], "load the model that it was saved from"
        if found is not None:
            name, got, want, advice = found
            raise ValueError(f"{where}: {name}: got a state of {got}, expected one of {want}; {advice}")
        self._check_room(where, made.n_tokens)
        self._token_array(where, made.tail)
        if made.logits.size not in (0, self.n_vocab()):
            raise ValueError(f"{where}: logits: got {made.logits.size}, expected {self.n_vocab()}; save it again")

    def _set_state(self, ctx: _core.Context, where: str, made: Snapshot) -> None:
        try:
            ctx.state_set(made.data, 0)
        except RuntimeError as error:
            ctx.clear()
            raise LlamaError(f"{where}: got data that llama.cpp refuses: {error}; save it again") from error
        got = ctx.seq_pos_max(0) + 1
        if got != made.n_tokens:
            ctx.clear()
            raise LlamaError(f"{where}: data: got {got} tokens, expected {made.n_tokens}; save it again")

    def save_state(self) -> LlamaState:
        """The sequence as an object: a snapshot and its tokens (4 bytes each)."""
        with self._use():
            return LlamaState(self.snapshot(), self.input_ids)

    def load_state(self, state: LlamaState) -> None:
        """Replace the sequence by a saved one; nothing is evaluated again, and the next token's logits are there. Errors: see restore."""
        if not isinstance(state, LlamaState):
            raise TypeError(f"load_state: state: got {type(state).__name__}, expected LlamaState")
        with self._use():
            known = state.tokens.size == 0 or state.tokens[0] >= 0
            if state.tokens.size != state.snapshot.n_tokens:
                raise ValueError(f"load_state: tokens: got {state.tokens.size}, expected {state.snapshot.n_tokens}; save the state again")
            if known:
                self._token_array("load_state", state.tokens)
            self._restore("load_state", state.snapshot)
            if known and state.tokens.size:
                self._history = History()
                self._history.write(0, state.tokens)

    # --- what a state belongs to --------------------------------------------------------------------------------

    def _fingerprint(self) -> str:
        if self._print is None:
            with self._use() as ctx:
                self._print = ctx.fingerprint()
        return self._print

    def _tokenizer_print(self) -> str:
        if self._vocab_print is None:
            with self._locked_model() as model:
                more = repr(sorted((k, v) for k, v in self.metadata.items() if k in ("tokenizer.ggml.pre", "tokenizer.ggml.normalizer")))
                self._vocab_print = hashlib.sha256(_core.vocab_digest_input(model) + more.encode()).hexdigest()
        return self._vocab_print
