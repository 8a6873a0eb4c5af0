"""Caching: a sequence begun from, and kept in, a cache of states."""

from __future__ import annotations

from typing import Optional

from . import saving
from .caches import BaseLlamaCache
from .model import Ids
from .sequence import Sequence
from .state import LlamaState


def longer(cache: BaseLlamaCache, sequence: Sequence, prompt: Ids) -> Optional[LlamaState]:
    """The longest stored beginning of the prompt, if it is longer than what the sequence can keep of it."""
    context = sequence.context
    try:
        state = cache.longest(prompt.tolist(), context.fingerprint(), context.model.vocab_print())
    except KeyError:
        return None
    return state if state.n_tokens > sequence.reach(prompt) else None


def keep(cache: BaseLlamaCache, sequence: Sequence) -> None:
    """Store the sequence; not one that a snapshot began, whose tokens are not all known."""
    state = saving.take_state(sequence)
    if state.tokens[0] >= 0:
        cache[state.tokens.tolist()] = state
