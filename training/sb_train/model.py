"""The reference as a model to train: a start from nothing, replicas that share their weights, gradients through the spikes' rounding."""

from __future__ import annotations

import math
from typing import Any

import torch

from sb_convert import reference
from sb_convert.config import ModelConfig
from sb_convert.reference import Model, Spike


def new_model(config: ModelConfig, seed: int) -> Model:
    """Normal(0, initializer_range) as in the checkpoint's config; the projections into the residual stream smaller by
    sqrt(2 n_layer) (GPT-2); gate biases spread over [0, 5], so that the states forget in 23 to 2400 tokens."""
    model = Model(config).init_weights(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                p /= math.sqrt(2 * config.num_hidden_layers)
            if name.endswith(("gk_proj.1.bias", "gk_proj.bias")):
                p.copy_(torch.linspace(0, 5, config.head_dim).repeat(config.num_key_value_heads))
    return model


def sharing(model: Model) -> Model:
    """The same weights in the same memory, with gradients of their own."""
    with torch.device("meta"):
        other = Model(model.config)
    for module, mine in zip(other.modules(), model.modules()):
        for name, p in mine._parameters.items():
            if p is not None:
                module._parameters[name] = torch.nn.Parameter(p.data)
    return other


def straight_through(rounded: Any) -> Any:
    """The rounding forward, the identity backward (section 3.3.1); without gradients the plain rounding."""
    return lambda x, *a: x + (rounded(x, *a) - x).detach() if torch.is_grad_enabled() else rounded(x, *a)


def set_spiking(model: Model, spike: Spike | None) -> None:
    """Turns a float model into a spiking one of scope `paper`, or back."""
    for m in model.modules():
        if hasattr(m, "spike"):
            m.spike = spike


def with_gradients() -> None:
    """From now on the reference's roundings have gradients, in this process."""
    if not hasattr(reference.spiked, "rounded"):
        for name in ("spiked", "rounded_int8"):
            rounded = getattr(reference, name)
            smooth = straight_through(rounded)
            smooth.rounded = rounded
            setattr(reference, name, smooth)


def n_parameters(model: Model) -> int:
    """Weights of all kinds; a tied matrix counts once."""
    return sum(p.numel() for p in model.parameters())
