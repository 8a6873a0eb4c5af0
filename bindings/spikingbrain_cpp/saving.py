"""Saving: a sequence as a snapshot, and back."""

from __future__ import annotations

import os
from typing import Any, Optional, Union

import numpy as np
from sb_convert.whole import target, write_whole

from . import _core
from .arguments import check_path
from .errors import LlamaError
from .history import History
from .sequence import Sequence
from .state import VERSION, AnyPath, LlamaState, Snapshot, difference


def take(sequence: Sequence, path: Optional[AnyPath] = None) -> Snapshot:
    """See Llama.snapshot."""
    context = sequence.context
    files = context.model.settings.files()
    if path is not None:
        check_path("snapshot: path", path)
        target(path, files)  # before the work
    with context.use() as handle:
        sequence.settle()
        n, row = sequence.n(), sequence.row()
        prefix, tail = sequence.history.cut(n)
        made = Snapshot(context.fingerprint(), context.model.vocab_print(), n, prefix, tail, handle.state_get(sequence.id) if n else b"",
                        np.empty(0, np.float32) if row is None or n == 0 else row.copy())
    if path is not None:
        write_whole(path, made.to_bytes(), files)
    return made


def read(source: Union[Snapshot, bytes, AnyPath]) -> Any:
    """A snapshot from what Llama.restore takes."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return Snapshot.from_bytes(bytes(source))
    if isinstance(source, (str, os.PathLike)):
        return Snapshot.load(source)
    return source


def put(sequence: Sequence, where: str, made: Any) -> None:
    """Replace the sequence by a snapshot's, inside of Context.changing(). Errors: see Llama.restore."""
    if not isinstance(made, Snapshot):
        raise TypeError(f"{where}: got {type(made).__name__}, expected a Snapshot, its bytes or a path")
    check_fits(sequence, where, made)
    row = made.logits if made.n_tokens and made.logits.size else None
    try:
        sequence.replace(made.data if made.n_tokens else b"", made.n_tokens, History.of(made.n_tokens, made.prefix, made.tail), row)
    except _core.Lost:
        raise
    except RuntimeError as error:
        raise LlamaError(f"{where}: got data that llama.cpp refuses: {error}; save it again") from error


def check_fits(sequence: Sequence, where: str, made: Snapshot) -> None:
    """ValueError: the snapshot is none of what computes the sequence."""
    model = sequence.context.model
    if made.version != VERSION:
        raise ValueError(f"{where}: version: got {made.version}, expected {VERSION}; save it again")
    found = difference(made.fingerprint, sequence.context.fingerprint())
    if found is None and made.tokenizer != model.vocab_print():
        found = "tokenizer", str(made.tokenizer)[:16], model.vocab_print()[:16], "load the model that it was saved from"
    if found is not None:
        name, got, want, advice = found
        raise ValueError(f"{where}: {name}: got a state of {got}, expected one of {want}; {advice}")
    sequence.check_room(where, made.n_tokens)
    model.ids(where, made.tail)
    if made.logits.size not in (0, model.n_vocab()):
        raise ValueError(f"{where}: logits: got {made.logits.size}, expected {model.n_vocab()}; save it again")


def take_state(sequence: Sequence) -> LlamaState:
    """See Llama.save_state."""
    with sequence.context.use():
        return LlamaState(take(sequence), sequence.tokens())


def put_state(sequence: Sequence, state: Any) -> None:
    """See Llama.load_state; inside of Context.changing()."""
    if not isinstance(state, LlamaState):
        raise TypeError(f"load_state: state: got {type(state).__name__}, expected LlamaState")
    known = state.tokens.size == 0 or state.tokens[0] >= 0
    if state.tokens.size != state.snapshot.n_tokens:
        raise ValueError(f"load_state: tokens: got {state.tokens.size}, expected {state.snapshot.n_tokens}; save the state again")
    if known:
        sequence.context.model.ids("load_state", state.tokens)
    put(sequence, "load_state", state.snapshot)
    if known and state.tokens.size:
        sequence.history = History()
        sequence.history.write(0, state.tokens)
