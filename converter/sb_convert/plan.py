"""What will be written: the tensor map filled from a checkpoint, every name and shape checked before the first byte."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as T

from . import system
from .config import Config, ModelConfig, MoeConfig, ParallelConfig
from .constants import DEFAULT_K
from .derived import Half, Stack, Unbounded
from .errors import bad
from .formats import DOWN_TYPES, nbytes, rows_per_block, wanted_type, whole_blocks
from .int8 import LARGEST_STORED, PARTS, Codes, Part, check_scales, has_scales, lossless_type, part_shapes, scales_name
from .sinks import Sinks, SinkTensor
from .sources import Tensor, open_checkpoint
from .spike import SpikeKeys, SpikeOptions, check_widths, resolve
from .tensors import ALIASES, EMBEDDING, HEAD, PROJECTIONS, Target, checkpoint_shapes, targets

Say = Callable[[str], None]
Calibrate = Callable[[ModelConfig, dict[str, Tensor], list[str], SpikeKeys], dict[str, Tensor]]  # finds scales of the named weights
WRAPPERS = {
    "module": ("DistributedDataParallel or DeepSpeed", "save model.module.state_dict(), or take 'module.' off the names"),
    "_orig_mod": ("torch.compile", "save model._orig_mod.state_dict(), or take '_orig_mod.' off the names"),
    "_fsdp_wrapped_module": ("FullyShardedDataParallel", "save its full state dict"),
    "_checkpoint_wrapped_module": ("activation checkpointing", "take '_checkpoint_wrapped_module.' off the names"),
    "_forward_module": ("Lightning or DeepSpeed", "save the state dict of the model itself"),
    "base_model": ("PEFT", "merge the adapter (merge_and_unload) and save that model"),
    "lora_A": ("a LoRA adapter", "merge the adapter (merge_and_unload) and save that model"),
    "base_layer": ("PEFT", "merge the adapter (merge_and_unload) and save that model"),
}
LOW_RANK, FULL = "gk_proj.0.weight", "gk_proj.weight"


@dataclass(frozen=True)
class Planned:
    """One tensor of the output: where it comes from, its type and size."""
    target: Target
    source: Tensor
    qtype: T
    nbytes: int
    wanted: T  # the type asked for


@dataclass(frozen=True)
class Plan:
    config: ModelConfig
    outtype: str
    tensors: list[Planned]
    spike: SpikeKeys | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors' data."""
        return sum(p.nbytes for p in self.tensors)

    @property
    def n_params(self) -> int:
        """Weights of the model: scales, outliers and constants do not count."""
        return sum(math.prod(p.target.shape) for p in self.tensors if p.target.kind not in ("scales", "outliers", "constant"))

    @property
    def experts(self) -> tuple[int, int]:
        """How many routed experts there are, and the weights of each in all layers."""
        stacks = [p.target.shape for p in self.tensors if p.target.made == "stack" and p.target.kind not in ("scales", "outliers")]
        return (stacks[0][0], sum(math.prod(shape[1:]) for shape in stacks)) if stacks else (0, 0)

    def notes(self) -> list[str]:
        """One line per tensor that could not take the type asked for."""
        return [f"{p.target.gguf}: rows of {p.target.shape[-1]} are no whole blocks of {'INT8 (128)' if p.wanted == T.I8 else p.wanted.name}: "
                f"stored as {p.qtype.name}" for p in self.tensors if p.qtype != p.wanted]


def make_plan(config: ModelConfig, tensors: dict[str, Tensor], outtype: str, where: object, partial: bool = False,
              spike: SpikeOptions = SpikeOptions(), say: Say = lambda _: None, calibrate: Calibrate | None = None) -> Plan:
    """partial: the config is that of the first layers only (used to find a wrong layer); the rest may be left over."""
    coded = has_scales(tensors)
    keys = resolve(spike, where, SpikeKeys(True, DEFAULT_K, "released") if coded else None)
    check_widths(keys, widths(config), where)
    config, tensors = checked(config, tensors, where, partial)
    wanted = targets(config)
    if outtype == "auto":
        outtype = "int8" if coded else own_type(wanted, tensors)
    scales = {t.gguf: _scales(t, tensors, where) for t in wanted if coded and t.kind in PROJECTIONS}
    raw_down = keys is not None and keys.scope == "released"
    if calibrate is not None:
        if coded or outtype != "int8" or keys is None or not keys.enable:
            got = "weight scales" if coded else f"--outtype {outtype}" if outtype != "int8" else "no spikes"
            raise bad(where, "--spike-calibrate", got, "--outtype int8 --spike on a checkpoint without weight scales", "give these, or leave the option out")
        coded_here = [t for t in wanted if t.kind in PROJECTIONS and not (t.kind == "down" and raw_down) and whole_blocks(T.I8, t.shape) == T.I8]
        found = calibrate(config, tensors, [name for t in coded_here for name in t.sources()], keys)
        scales = {t.gguf: _one([found[name] for name in t.sources()]) for t in coded_here}
    sinks = Sinks(config, tensors, keys) if isinstance(config, ParallelConfig) and config.n_sinks else None
    with ThreadPoolExecutor(n_threads()) as pool:
        def planned(t: Target) -> list[Planned]:
            source = source_of(t, tensors, config, sinks)
            if t.kind == "down" and raw_down:
                return [_down(t, source, outtype, spike.down_type)]
            if t.kind in PROJECTIONS:
                return _projection(t, Codes(source, scales.get(t.gguf), clip=not coded), outtype, pool, say)
            exact = outtype == "int8" and t.kind in ("embedding", "tied")
            return [_planned(t, source, lossless_type(source) if exact else wanted_type(t.kind, outtype))]
        return Plan(config, outtype, [p for t in wanted for p in planned(t)], keys)


def checked(config: ModelConfig, tensors: dict[str, Tensor], where: object, partial: bool = False) -> tuple[ModelConfig, dict[str, Tensor]]:
    """A checkpoint's config with what only its tensors say, and the tensors by their right names: each that it implies, of its shape,
    and no other. ConvertError otherwise."""
    check_wrappers(tensors, where)
    tensors = renamed(without_buffers(tensors, config), config)
    config = with_gate(config, tensors, where)
    check_names(targets(config), tensors, config, where, partial, has_scales(tensors))
    return config, tensors


def base_of(folder: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The checkpoint that an adapter belongs to."""
    if not folder.is_dir():
        raise bad("--base", str(folder), "a file" if folder.exists() else "nothing there", "the folder of the checkpoint that the adapter was trained on",
                  "give the one with config.json and weights")
    return checked(ModelConfig.load(folder), open_checkpoint(folder), folder)


def source_of(t: Target, tensors: dict[str, Tensor], config: ModelConfig, sinks: Sinks | None) -> Tensor:
    """What a tensor of the GGUF is read from: one of the checkpoint's, or one made of them."""
    if t.made.startswith("sinks."):
        assert sinks is not None
        return SinkTensor.of(t, sinks)
    if t.made == "rope":
        return Tensor(t.gguf, t.shape, "F32", config.rope_factors, Path("config.json"))
    if t.made == "bound":
        assert isinstance(config, ParallelConfig)
        return Unbounded.of(config, t.layer, tensors)
    held = _one([tensors[name] for name in t.sources()])
    return Half.of(held) if t.made == "half" else held


def _one(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else Stack.of(tensors)


def _scales(t: Target, tensors: dict[str, Tensor], where: object) -> Tensor:
    return _one([check_scales(tensors[name], tensors, where) for name in t.sources()])


def widths(config: ModelConfig) -> dict[str, int]:
    """The widths of what projections read."""
    shared = {"shared_intermediate_size": config.shared_intermediate_size} if isinstance(config, MoeConfig) and config.moe_layers else {}
    return {"hidden_size": config.hidden_size, "num_attention_heads * head_dim": config.q_size, "intermediate_size": config.intermediate_size, **shared}


def _planned(t: Target, source: Tensor, wanted: T) -> Planned:
    qtype = whole_blocks(wanted, t.shape)
    return Planned(t, source, qtype, nbytes(t.shape, qtype), wanted)


def _down(t: Target, source: Tensor, outtype: str, down_type: str | None) -> Planned:
    """The raw down projection of scope `released`: F32 and BF16 models keep it so, in any other it is F16."""
    own = wanted_type("down", outtype) if outtype in ("f32", "bf16") else T.F16
    return _planned(dataclasses.replace(t, kind="raw"), source, DOWN_TYPES[down_type] if down_type else own)


def _projection(t: Target, codes: Codes, outtype: str, pool: ThreadPoolExecutor, say: Say) -> list[Planned]:
    """One tensor, or the several of its codes."""
    wanted = wanted_type(t.kind, outtype)
    if whole_blocks(wanted, t.shape) != T.I8:
        return [_planned(t, codes.weight if codes.scales is None else Part.of(codes, "values"), wanted)]
    n_outliers = 0
    if not codes.clip:  # scales of our own leave nothing outside
        largest, n_outliers = codes.count(pool)
        n = math.prod(t.shape)
        say(f"{t.gguf}: codes up to {largest}, {n_outliers} of {n} ({100 * n_outliers / n:.2f}%) outside +-{LARGEST_STORED}")
    stem, kinds = t.gguf.removesuffix("weight"), {"weight": "codes", "scales": "scales"}
    return [_planned(Target(stem + what, t.checkpoint, t.shape[:-1] + shape[1:] if what in kinds else shape, kinds.get(what, "outliers"), t.made, t.layer),
                     Part.of(codes, what), PARTS[what]) for what, shape in part_shapes(codes, n_outliers).items()]


def check_wrappers(tensors: dict[str, Tensor], where: object) -> None:
    """A state dict saved from a wrapped model: its names say which wrapper."""
    for name in tensors:
        for part in name.split("."):
            if part in WRAPPERS:
                what, do = WRAPPERS[part]
                raise bad(where, "tensors", f"{name!r}, a name of {what}", f"names like {EMBEDDING!r}", do)
    if EMBEDDING not in tensors:
        raise bad(where, "tensors", f"names like {next(iter(tensors), 'none')!r}", f"{EMBEDDING!r} among them", "give weights in the published format")


def renamed(tensors: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """The 76B's tensors by their right names; a name that is there twice stays, and is left over."""
    names = ALIASES if isinstance(config, ParallelConfig) else {}
    return {name if names.get(name, name) in tensors else names[name]: t for name, t in tensors.items()}


def without_buffers(tensors: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """inv_freq is rope_theta (and rope_scaling) in another form: left out where it says the same, an error where it does not."""
    freq = config.rope_frequencies
    for name, t in tensors.items():
        if name.endswith(".inv_freq"):
            got = t.rows(0, t.shape[0]) if t.shape == freq.shape else np.zeros(0)
            if got.shape != freq.shape or not np.allclose(got, freq, rtol=1e-4 if t.dtype == "F32" else 2**-7, atol=0 if t.dtype != "F16" else 2**-24):
                raise bad(t.file, name, "other rotary frequencies", f"those of rope_theta = {config.rope_theta:g} and head size {config.head_dim}",
                          "give the config.json that belongs to these weights")
    return {name: t for name, t in tensors.items() if not name.endswith(".inv_freq")}


def with_gate(config: ModelConfig, tensors: dict[str, Tensor], where: object) -> ModelConfig:
    """The gate's layout is not in config.json: it is read from the first gla layer's tensors."""
    if not isinstance(config, Config):
        return config
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


def check_names(wanted: list[Target], tensors: dict[str, Tensor], config: ModelConfig, where: object, partial: bool, coded: bool) -> None:
    """Every tensor that config.json implies is there, of its shape, and no other."""
    shapes = checkpoint_shapes(config)
    missing = [name for name in shapes if name not in tensors]
    if missing:
        raise bad(where, "tensors", f"{len(missing)} missing: {some(missing)}", "every tensor that config.json implies",
                  "get the complete checkpoint, or the config.json that belongs to it")
    known = shapes.keys() | {scales_name(name) for t in wanted if coded and t.kind in PROJECTIONS for name in t.sources()}
    left = [name for name in tensors if name not in known]
    if config.tie_word_embeddings and HEAD in left:  # .bin files often carry it twice
        left.remove(HEAD)
        check_tied(tensors)
    if left and not partial:
        raise bad(where, "tensors", f"{len(left)} left over: {some(left)}", "none that config.json does not imply",
                  "they would be ignored; give the config.json that belongs to these weights")
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise bad(tensors[name].file, name, f"shape {list(tensors[name].shape)}", str(list(shape)), "give the config.json that belongs to these weights")


def n_threads() -> int:
    """Threads that encode: see system.threads, at most 8."""
    return min(8, system.threads())


def some(names: list[str], n: int = 4) -> str:
    """The first n names, and how many more there are."""
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")


def check_tied(tensors: dict[str, Tensor]) -> None:
    """ConvertError: the output matrix of a checkpoint whose embedding is the output, too, is another one."""
    head, embd = tensors[HEAD], tensors[EMBEDDING]
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
        if t.kind not in ("f32", "constant"):
            dtype = tensors[t.sources()[0]].dtype.lower()
            held[dtype] = held.get(dtype, 0) + math.prod(t.shape)
    return max(held, key=lambda dtype: held[dtype])
