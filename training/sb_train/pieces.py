"""Rows of any length in bounded memory: a row is read a piece at a time, and each piece is computed again in the backward pass.

Between two pieces lies what the model carries anyway: S of each gla layer, and of each window layer the keys and values of its window.
Exact: the gradients run through both. Kept of a row are S once per piece, and keys and values of each token once; scores are
[piece, window + piece], never n x n; logits are made for a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sb_convert.reference import Model

LOGITS = 1 << 24  # logits at a time


def again(f: Callable[..., Any], *args: Any) -> Any:
    """f(*args), of which the backward pass keeps the arguments only."""
    return checkpoint(f, *args, use_reentrant=False, preserve_rng_state=False)


# --- rows -----------------------------------------------------------------------------------------------------

def joined(state: Any) -> Any:
    """A window layer's keys and values [B, K, n, D] from those of single pieces; S as it is."""
    return tuple(torch.cat(parts, 2) if len(parts) > 1 else parts[0] for parts in zip(*state)) if isinstance(state, list) else state


def followed(before: Any, after: Any, n: int, window: int) -> Any:
    """The state to carry on: S, or the pieces that a window of the next token still reaches, the newest being the last n of `after`."""
    if not isinstance(after, tuple):
        return after
    pieces = [*(before or []), tuple(x[:, :, -n:] for x in after)]
    while sum(k.shape[2] for k, _ in pieces[1:]) >= window - 1 and len(pieces) > 1:
        pieces = pieces[1:]
    return pieces


def advance(model: Model, tokens: Tensor, n: int, states: list[Any]) -> tuple[Tensor, list[Any]]:
    """Rows [B, T, n_embd] of tokens at positions n.., behind the last layer, and the states after them."""
    pos = torch.arange(tokens.shape[1], device=tokens.device) + n
    x, after = model.through(model.model.embeddings(tokens), pos, [joined(s) for s in states])
    return x, [followed(b, a, tokens.shape[1], model.config.sliding_window) for b, a in zip(states, after)]


@torch.no_grad()
def hidden(model: Model, tokens: Tensor, piece: int) -> Tensor:
    """Rows [B, T, n_embd] behind the last layer, before the last norm."""
    n, states, out = 0, [None] * model.config.num_hidden_layers, []
    for part in tokens.split(piece, 1):
        x, states = advance(model, part, n, states)
        n += part.shape[1]
        out.append(x)
    return torch.cat(out, 1)


# --- losses ---------------------------------------------------------------------------------------------------

def some_loss(model: Model, teacher: Model | None, distill: float, x: Tensor, y: Tensor, t: Tensor | None) -> Tensor:
    """Mean loss of rows x [n, n_embd] whose next tokens are y [n]; t: the teacher's rows [n, n_embd]."""
    logits = model.logits(x)
    loss = F.cross_entropy(logits.float(), y)
    if teacher is None or t is None:
        return loss
    p = teacher.logits(t).float().log_softmax(-1)
    divergence = F.kl_div(logits.float().log_softmax(-1), p, reduction="batchmean", log_target=True)
    return (1 - distill) * loss + distill * divergence


def token_loss(model: Model, teacher: Model | None, distill: float, x: Tensor, y: Tensor, t: Tensor | None) -> Tensor:
    """The same of rows x [B, T, n_embd], a part of the logits at a time."""
    n = max(1, LOGITS // model.config.vocab_size)
    x, y, t = x.flatten(0, 1), y.flatten(), None if t is None else t.flatten(0, 1)
    if len(y) <= n:
        return some_loss(model, teacher, distill, x, y, t)
    parts = zip(x.split(n), y.split(n), [None] * len(y) if t is None else t.split(n))
    return sum(again(some_loss, model, teacher, distill, *part) * (len(part[1]) / len(y)) for part in parts)  # type: ignore[return-value]


def piece_loss(model: Model, teacher: Model | None, distill: float, tokens: Tensor, y: Tensor, t: Tensor | None, n: int,
               states: list[Any]) -> tuple[Tensor, list[Any]]:
    """Mean loss of one piece at positions n.., and the states after it."""
    x, states = advance(model, tokens, n, states)
    return token_loss(model, teacher, distill, x, y, t), states


def row_loss(model: Model, rows: Tensor, piece: int, teacher: Model | None = None, distill: float = 0.0) -> Tensor:
    """Mean loss [] of rows [B, T + 1]: cross-entropy, and with a teacher `distill` of it its divergence KL(teacher | model)."""
    tokens, targets = rows[:, :-1], rows[:, 1:]
    n, states, total = 0, [None] * model.config.num_hidden_layers, None
    taught = None if teacher is None else hidden(teacher, tokens, piece)
    whole = tokens.shape[1] <= piece
    for x, y, t in zip(tokens.split(piece, 1), targets.split(piece, 1), [None] * len(tokens[0]) if taught is None else taught.split(piece, 1)):
        run = piece_loss if whole else lambda *args: again(piece_loss, *args)
        loss, states = run(model, teacher, distill, x, y, t, n, states)
        n += x.shape[1]
        loss = loss if whole else loss * (x.shape[1] / tokens.shape[1])
        total = loss if total is None else total + loss
    return total  # type: ignore[return-value]
