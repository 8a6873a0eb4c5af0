"""What a model is worth: perplexity on held-out text, and how much of it the gla states carry; the loss curve."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sb_convert.reference import Model, Spike, State

from .model import set_spiking

ROWS = 16 * 512  # tokens at a time
VALIDATION = 64 * 512  # held-out tokens behind each point of the curve; the final figure takes all of them


@torch.no_grad()
def losses_of(model: Model, tokens: np.ndarray, length: int, piece: int | None = None, reset: bool = False) -> Tensor:
    """Loss of each token [N, length], in rows of `length` predictions that start without state; read in pieces of `piece`
    tokens. reset: the GLA states are emptied at the start of every piece; the windows stay."""
    n = (len(tokens) - 1) // length
    ids = torch.from_numpy(tokens[:n * length + 1].astype(np.int64)).to(next(model.parameters()).device)
    x, y, out = ids[:-1].view(n, length), ids[1:].view(n, length), []
    rows = max(1, min(16, ROWS // length))
    for xs, ys in zip(x.split(rows), y.split(rows)):
        state, row = None, []
        for a, b in zip(xs.split(piece or length, 1), ys.split(piece or length, 1)):
            if state is not None and reset:
                state = State(state.n, [None if model.config.is_gla(il) else s for il, s in enumerate(state.layers)])
            logits, state = model(a, state)
            row.append(F.cross_entropy(logits.float().transpose(1, 2), b, reduction="none"))
        out.append(torch.cat(row, 1))
    return torch.cat(out)


def perplexity(model: Model, tokens: np.ndarray, length: int = 512, spike: Spike | None | str = "as it is", piece: int | None = None) -> float:
    """Of held-out tokens in rows of `length`, read in pieces; spike: read as such a model, None: with floats."""
    before = model.spike
    if spike != "as it is":
        set_spiking(model, spike)  # type: ignore[arg-type]
    loss = losses_of(model, tokens, length, piece).mean().exp().item()
    set_spiking(model, before)
    return loss


def beyond_window(model: Model, tokens: np.ndarray, length: int = 512) -> list[dict[str, float]]:
    """Mean loss per stretch of one window, with the GLA states intact and with them emptied at each window's edge."""
    w = model.config.sliding_window
    intact, reset = (losses_of(model, tokens, length, w, r).mean(0) for r in (False, True))
    return [{"from": a, "to": min(a + w, length), "intact": round(intact[a:a + w].mean().item(), 4), "reset": round(reset[a:a + w].mean().item(), 4)}
            for a in range(0, length, w)]


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """The loss curve of train.jsonl's rows. Needs matplotlib."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    fig, ax = plt.subplots(figsize=(7, 4))
    x = [r["tokens"] / 1e6 for r in rows]
    ax.plot(x, [r["train_loss"] for r in rows], label="training (mean since the last point)")
    ax.plot(x, [math.log(r["val_ppl"]) for r in rows], label="held out")
    spiking = [r["tokens"] / 1e6 for r in rows if r["spikes"]]
    if spiking:
        ax.axvline(spiking[0], color="grey", linestyle=":", label="spike-aware from here")
    ax.set(xlabel="million tokens", ylabel="loss (nats per token)")
    ax.legend()
    fig.savefig(path, dpi=100, bbox_inches="tight")
    plt.close(fig)
