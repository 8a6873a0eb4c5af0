"""What will be written: the tensor map filled from a checkpoint, every name and shape checked before the first byte."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import gguf

from .config import Config
from .errors import bad
from .formats import OUTTYPES, nbytes, rows_per_block, stored_type
from .sources import Tensor
from .tensors import TOP, TOP_UNTIED, Target, targets

SCALES = ".weight_quantizer.scales"
LOW_RANK, FULL = "gk_proj.0.weight", "gk_proj.weight"


@dataclass(frozen=True)
class Planned:
    """One tensor of the output: where it comes from, its type and size."""
    target: Target
    source: Tensor
    qtype: gguf.GGMLQuantizationType
    nbytes: int


@dataclass(frozen=True)
class Plan:
    config: Config
    outtype: str
    tensors: list[Planned]

    @property
    def nbytes(self) -> int:
        return sum(p.nbytes for p in self.tensors)

    @property
    def n_params(self) -> int:
        return sum(gguf_size(p.target.shape) for p in self.tensors)

    def notes(self) -> list[str]:
        """One line per tensor that could not take the type asked for."""
        wanted = OUTTYPES[self.outtype]
        return [f"{p.target.gguf}: rows of {p.target.shape[-1]} are no whole blocks of {getattr(wanted, p.target.kind).name}: stored as F16"
                for p in self.tensors if p.target.kind != "f32" and p.qtype != getattr(wanted, p.target.kind)]


def gguf_size(shape: tuple[int, ...]) -> int:
    n = 1
    for d in shape:
        n *= d
    return n


def make_plan(config: Config, tensors: dict[str, Tensor], outtype: str, where: object, partial: bool = False) -> Plan:
    """partial: the config is that of the first layers only (used to find a wrong layer); the rest may be left over."""
    refuse_scales(tensors, where)
    config = with_gate(config, tensors, where)
    wanted = targets(config)
    check_names(wanted, tensors, config, where, partial)
    for t in wanted:
        if tensors[t.checkpoint].shape != t.shape:
            raise bad(tensors[t.checkpoint].file, t.checkpoint, f"shape {list(tensors[t.checkpoint].shape)}", str(list(t.shape)),
                      "give the config.json that belongs to these weights")
    outtype = own_type(wanted, tensors) if outtype == "auto" else outtype
    return Plan(config, outtype, [_planned(t, tensors[t.checkpoint], outtype) for t in wanted])


def _planned(t: Target, source: Tensor, outtype: str) -> Planned:
    qtype = stored_type(t.kind, t.shape, outtype)
    return Planned(t, source, qtype, nbytes(t.shape, qtype))


def refuse_scales(tensors: dict[str, Tensor], where: object) -> None:
    scales = next((name for name in tensors if name.endswith(SCALES)), None)
    if scales is not None:
        raise bad(where, scales, "a W8ASpike checkpoint (weight scales)", "one without",
                  "its exact INT8 codes and spikes are not converted yet; give the floating-point checkpoint of the model")


def with_gate(config: Config, tensors: dict[str, Tensor], where: object) -> Config:
    """The gate's layout is not in config.json: it is read from the first gla layer's tensors."""
    if not config.gla_layers:
        return dataclasses.replace(config, gate_low_rank_dim=0)
    attn = f"model.layers.{config.gla_layers[0]}.attn."
    if attn + LOW_RANK in tensors:
        shape = tensors[attn + LOW_RANK].shape
        if len(shape) != 2 or shape[0] < 1:
            raise bad(where, attn + LOW_RANK, f"shape {list(shape)}", f"[rank, {config.hidden_size}]", "get an undamaged checkpoint")
        return dataclasses.replace(config, gate_low_rank_dim=shape[0])
    if attn + FULL in tensors:
        return dataclasses.replace(config, gate_low_rank_dim=0)
    raise bad(where, attn + LOW_RANK, "nothing", f"this tensor or {attn + FULL}",
              "check attn_layers in config.json: every layer that it does not name is gated linear attention")


def check_names(wanted: list[Target], tensors: dict[str, Tensor], config: Config, where: object, partial: bool) -> None:
    names = {t.checkpoint for t in wanted}
    missing = [t.checkpoint for t in wanted if t.checkpoint not in tensors]
    if missing:
        raise bad(where, "tensors", f"{len(missing)} missing: {_some(missing)}", "every tensor that config.json implies",
                  "get the complete checkpoint, or the config.json that belongs to it")
    left = [name for name in tensors if name not in names]
    if config.tie_word_embeddings and TOP_UNTIED[0].checkpoint in left:  # .bin files often carry it twice
        left.remove(TOP_UNTIED[0].checkpoint)
        _check_tied(tensors)
    if left and not partial:
        raise bad(where, "tensors", f"{len(left)} left over: {_some(left)}", "none that config.json does not imply",
                  "the graph would ignore them; give the config.json that belongs to these weights")


def _some(names: list[str], n: int = 4) -> str:
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")


def _check_tied(tensors: dict[str, Tensor]) -> None:
    head, embd = tensors[TOP_UNTIED[0].checkpoint], tensors[TOP[0].checkpoint]
    if head.shape == embd.shape:
        step = rows_per_block(embd.shape)
        if all((head.rows(i, i + step) == embd.rows(i, i + step)).all() for i in range(0, embd.shape[0], step)):
            return
    raise bad(head.file, head.name, "a matrix of its own", "the embedding (tie_word_embeddings is true)",
              "set tie_word_embeddings to false in config.json")


def own_type(wanted: list[Target], tensors: dict[str, Tensor]) -> str:
    """The dtype that holds most of the checkpoint's matrix values."""
    held: dict[str, int] = {}
    for t in wanted:
        if t.kind != "f32":
            dtype = tensors[t.checkpoint].dtype.lower()
            held[dtype] = held.get(dtype, 0) + gguf_size(t.shape)
    return max(held, key=lambda dtype: held[dtype])
