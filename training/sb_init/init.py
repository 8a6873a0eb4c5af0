"""init(): what becomes of each tensor of a base, in file order."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sb_convert.config import MAX_EXPERTS, Config
from sb_convert.errors import bad
from sb_convert.sources import Tensor
from sb_convert.tensors import checkpoint_shapes
from sb_convert.tokenizer import load_vocab
from sb_convert.whole_folder import check_folder

from . import experts
from .base import Base
from .choices import WINDOW, Choices, draw
from .gates import gate_bias, value_rms
from .write import Item, config_json, write


@dataclass(frozen=True)
class Result:
    """What was made. errors: of each MoE layer, against the base's MLP (experts.Error)."""
    folder: Path
    config: Config
    n_params: int
    n_bytes: int
    errors: dict[int, experts.Error]
    seconds: float

    def summary(self) -> str:
        """A few lines for people."""
        c = self.config
        n_gla = len(c.gla_layers)
        text = (f"{self.folder.name}: gla_swa, {c.num_hidden_layers} layers ({n_gla} gla, {c.num_hidden_layers - n_gla} with a window of {c.sliding_window}), "
                f"{self.n_params:,} weights, {self.n_bytes / 1e6:,.1f} MB, {self.seconds:.1f} s")
        return "\n".join([text, *([experts.report(c, self.errors)] if self.errors else [])])


def init(base_folder: Path, out: Path, choices: Choices = Choices(), say: Callable[[str], None] = print) -> Result:
    """Writes the checkpoint folder `out`. ConvertError: what is wrong with the base, the choices or the machine; then nothing is written."""
    begun = time.monotonic()
    check_folder(str(out))
    base = Base.open(base_folder)
    load_vocab(base.folder, base.config)  # what sb-convert would refuse later is told now
    config = chosen(base, choices)
    items = plan(base, config, choices)
    errors = {il: experts.error(base, config, choices, il) for il in config.moe_layers}
    write(out, base, config_json(config, base), items, choices.shard_bytes, say)
    return Result(Path(out), config, sum(math.prod(i.tensor.shape) for i in items), sum(i.nbytes for i in items), errors, time.monotonic() - begun)


def chosen(base: Base, choices: Choices) -> Config:
    """The config of what is made. ConvertError: a choice that this base does not allow."""
    n_layer, trained = base.config.num_hidden_layers, base.config.max_position_embeddings
    layers = tuple(range(1, n_layer, 2)) if choices.layers is None else check_layers("--layers", choices.layers, n_layer)
    most = min(trained, base.window or trained)
    window = min(WINDOW, most) if choices.window is None else choices.window
    if not 0 < window <= most:
        why = "which the base's own layers see" if base.window and base.window < trained else "max_position_embeddings of the base"
        raise bad("--window", "tokens", window, f"1 to {most}, {why}", "choose a shorter one")
    c = dataclasses.replace(base.config, attn_layers=layers, sliding_window=window, torch_dtype=experts.DTYPES[base.dtype],
                            gate_low_rank_dim=choices.gate_rank if len(layers) < n_layer else 0)
    if choices.n_experts:
        if not 1 < choices.n_experts <= MAX_EXPERTS:
            raise bad("--moe", "experts", choices.n_experts, f"2 to {MAX_EXPERTS}", "choose another number")
        moe = tuple(range(n_layer)) if choices.moe_layers is None else check_layers("--moe-layers", choices.moe_layers, n_layer)
        if not moe:
            raise bad("--moe-layers", "layers", "none", "some, beside --moe", "leave both out for dense MLPs")
        c = dataclasses.replace(c, num_local_experts=choices.n_experts, shared_intermediate_size=c.intermediate_size,
                                dense_mlp_layers=tuple(il for il in range(n_layer) if il not in moe), norm_topk_prob=choices.moe_scale == "down")
    if not 0 <= choices.gate_rank <= c.hidden_size:
        raise bad("--gate-rank", "rank", choices.gate_rank, f"0 (a full matrix) to {c.hidden_size}, the base's hidden_size", "choose a smaller one")
    c.validate(str(base.folder / "config.json"))
    return c


def check_layers(option: str, layers: tuple[int, ...], n_layer: int) -> tuple[int, ...]:
    """Sorted. ConvertError: one that the base has not, or one twice."""
    for il in layers:
        if not 0 <= il < n_layer:
            raise bad(option, "layer", il, f"0 to {n_layer - 1}", "layers are counted from 0; give those of this base")
    if len(set(layers)) != len(layers):
        raise bad(option, "layers", ",".join(map(str, layers)), "each once", "name a layer once")
    return tuple(sorted(layers))


def plan(base: Base, config: Config, choices: Choices) -> list[Item]:
    """Every tensor of the checkpoint: copied, scaled or made."""
    items = []
    for name, shape in checkpoint_shapes(config).items():
        if name in base.tensors:
            tensor = base.tensors[name]
        else:
            tensor = experts.upcycled(name, base, config, choices) or made(name, shape, base, config, choices)
        assert tensor.shape == shape, name
        items.append(Item(name, tensor, tensor.dtype if name in base.tensors else base.dtype))
    return items


def made(name: str, shape: tuple[int, ...], base: Base, config: Config, choices: Choices) -> Tensor:
    """What the base has not: gates, and the norm behind the gla."""
    _, _, layer, _, own = name.split(".", 4)
    il = int(layer)
    if own == "gk_proj.0.weight":  # drawn; what it reads comes to nothing until gk_proj.1 is trained
        x = draw(choices.seed, il, own).standard_normal(shape, np.float32) / np.float32(shape[1] ** 0.5)
    elif own in ("gk_proj.1.weight", "gk_proj.weight"):
        x = np.zeros(shape, np.float32)
    elif own in ("gk_proj.1.bias", "gk_proj.bias"):
        x = np.tile(gate_bias(choices.forget, config.head_dim, config.gate_logit_normalizer), config.num_key_value_heads)
    else:
        assert own == "g_norm.weight", name
        x = np.full(shape, choices.norm_scale * value_rms(base, il), np.float32)
    return Tensor(name, shape, "F32", x.astype(np.float32), base.folder)
