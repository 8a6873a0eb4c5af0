"""Attention matching: each gla layer learns to give what its teacher's softmax attention gives for the same rows.

All layers at once, on the teacher's own residual stream, so that no layer has to wait for those before it; windows need none of it:
their projections are the teacher's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sb_convert.config import Config
from sb_convert.reference import Model


@torch.no_grad()
def streams(teacher: Model, tokens: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Of each layer of the teacher: the residual stream before it, and what its attention adds to it, both [B, T, n_embd]."""
    x, pos = teacher.model.embeddings(tokens), torch.arange(tokens.shape[1], device=tokens.device)
    before, added = [], []
    for layer in teacher.model.layers:
        y, _ = layer.attn(layer.attn_norm(x), pos, None, None)
        before.append(x)
        added.append(y)
        x = x + y
        u = layer.mlp_norm(x)
        x = x + (layer.mlp(u) if layer.block_sparse_moe is None else layer.shared_mlp(u) + layer.block_sparse_moe(u))
    return before, added


def match_loss(model: Model, teacher: Model, tokens: Tensor) -> Tensor:
    """Mean over the gla layers of |own - teacher's|^2 / |teacher's|^2 for tokens [B, T]."""
    config = model.config
    assert isinstance(config, Config)
    before, added = streams(teacher, tokens)
    pos = torch.arange(tokens.shape[1], device=tokens.device)
    errors = []
    for il in config.gla_layers:
        layer = model.model.layers[il]
        y, _ = layer.attn(layer.attn_norm(before[il]), pos, None)
        errors.append((y.float() - added[il].float()).square().sum() / added[il].float().square().sum())
    return torch.stack(errors).mean()


@torch.no_grad()
def fit_norms(model: Model, teacher: Model, tokens: Tensor) -> None:
    """The start of matching: each g_norm by least squares, so that the normed rows come as near as they can to the teacher's, channel by channel."""
    config = model.config
    assert isinstance(config, Config)
    before, _ = streams(teacher, tokens)
    pos = torch.arange(tokens.shape[1], device=tokens.device)

    def read(layer: torch.nn.Module, x: Tensor) -> Tensor:
        """What the layer's output projection reads, [rows * heads, head size]."""
        held: list[Tensor] = []
        handle = layer.attn.o_proj.register_forward_pre_hook(lambda _, inputs: held.append(inputs[0].float()))
        layer.attn(layer.attn_norm(x), pos, None)
        handle.remove()
        return held[0].reshape(-1, config.head_dim)
    for il in config.gla_layers:
        own, other = read(model.model.layers[il], before[il]), read(teacher.model.layers[il], before[il])
        weight = model.model.layers[il].attn.g_norm.weight
        weight.mul_((own * other).sum(0) / own.square().sum(0).clamp(min=1e-12))
