"""A PEFT LoRA adapter to the GGUF adapter that --lora and Llama(lora_path=) take: B A of each matrix, under the matrix's name in the GGUF."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import gguf
import numpy as np

from .adapter_config import MERGE, AdapterConfig
from .config import ModelConfig
from .convert import Options, outfile, write_planned
from .derived import Padded, Stack, Transposed
from .errors import bad
from .formats import OUTTYPES, decode, encode, nbytes, rows_per_block
from .metadata import add_adapter_general, read_metadata_file
from .output import Output
from .plan import Planned, base_of, some
from .sources import Tensor, read_weights
from .tensors import EMBEDDING, HEAD, Target, targets

FILES = ("adapter_model.safetensors", "adapter_model.bin")
PREFIX = "base_model.model."
TYPES = ("f32", "f16", "bf16")
HALVES = {".lora_A.weight": "a", ".lora_B.weight": "b", ".lora_embedding_A": "a", ".lora_embedding_B": "b"}
SAVE = "save the adapter with PEFT's save_pretrained"
# parts of names that are no halves: what they are, what to do
OTHERS = {
    "lora_magnitude_vector": ("a magnitude of DoRA", MERGE),
    "lora_B.bias": ("a bias behind lora_B", MERGE),
    "modules_to_save": ("a whole module", MERGE),
    "original_module": ("a whole module", MERGE),
    "trainable_tokens_delta": ("trained rows of the embedding", MERGE),
    "lora_diag": ("a diagonal of KaSA", MERGE),
    "lora_E": ("a diagonal of AdaLoRA", MERGE),
    "lora_A.default": ("a tensor of a training run's state", SAVE),
    "lora_B.default": ("a tensor of a training run's state", SAVE),
}


@dataclass(frozen=True)
class Pair:
    """The two halves of a module's adapter: a [r, in], b [out, r], of an embedding a [r, vocab], b [n_embd, r]."""
    a: Tensor
    b: Tensor


@dataclass(frozen=True)
class Matrix:
    """A matrix of the base that can have an adapter: its target, shape [out, in], and which of a stack of experts it is."""
    target: Target
    shape: tuple[int, ...]


def convert_adapter(folder: Path, base: Path, options: Options, say=print) -> str:
    """Writes the adapter; returns a line on what was written. ConvertError: what is wrong with the adapter, or does not fit the base."""
    begun = time.monotonic()
    config, held = AdapterConfig.load(folder), read_adapter(folder)
    model, weights = base_of(base)
    pairs = paired(held, weights, say)
    matrices = adaptable(model)
    check(config, pairs, matrices, model, held)
    alpha = common_alpha(config, pairs)
    outtype = "f32" if options.outtype == "auto" else options.outtype
    planned = [p for t in targets(model) for p in plan_target(t, config, pairs, alpha, outtype)]
    output = Output(outfile(folder, options, outtype.upper()), options.force, 0, [folder, base, *([options.metadata] if options.metadata else [])])
    for p in planned:
        output.add_tensor(p.target.gguf, p.target.shape, p.qtype, p.nbytes)
    if model.n_sinks and any(module.startswith("model.layers.") for module in pairs):
        say(f"{folder}: the constants of the {model.n_sinks} sinks (attn_k.sinks, attn_v.sinks, time_mix_key.state) stay the base's: the adapter does not "
            f"change them, and results are approximate; to have them right, {MERGE}")
    if options.dry_run:
        say("\n".join(f"{p.target.gguf:40} {'x'.join(map(str, reversed(p.target.shape))):>14} {p.qtype.name:5} {p.nbytes:>14,}" for p in planned))
        return f"{len(planned)} tensors, {sum(p.nbytes for p in planned):,} bytes of data -> {output.path.name}; nothing written"
    output.check_free()
    add_keys(output.writer, folder, config, options, outtype, alpha)
    write_planned(output, planned, say)
    ranks = sorted({config.rank(module) for module in pairs})
    return (f"{output.path.name}: adapter of {len(pairs)} matrices, rank {', '.join(map(str, ranks))}, {outtype}, "
            f"{output.path.stat().st_size / 1e6:.1f} MB, {time.monotonic() - begun:.1f} s")


def add_keys(w: gguf.GGUFWriter, folder: Path, config: AdapterConfig, options: Options, outtype: str, alpha: float) -> None:
    """What the file says of the adapter: general.*, its type and alpha, the tokens that invoke it."""
    add_adapter_general(w, folder, read_metadata_file(options.metadata), options.model_name, config.base_model_name_or_path, OUTTYPES[outtype].file_type)
    w.add_string(gguf.Keys.Adapter.TYPE, "lora")
    w.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    if config.alora_invocation_tokens:
        w.add_key_value(gguf.Keys.Adapter.ALORA_INVOCATION_TOKENS, config.alora_invocation_tokens, gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.UINT32)


# --- reading --------------------------------------------------------------------------------------------------

def read_adapter(folder: Path) -> dict[str, Tensor]:
    """Every tensor of an adapter folder, under the names of its file."""
    for name in FILES:
        if (folder / name).is_file():
            return read_weights(folder / name)
    raise bad(folder, "weights", "none of the known files", ", ".join(FILES), "give the folder that PEFT's save_pretrained wrote")


def paired(held: dict[str, Tensor], weights: dict[str, Tensor], say) -> dict[str, Pair]:
    """The halves put together, by module. Copies of the base's own matrices, which PEFT saves beside them, are compared and left out."""
    halves: dict[str, dict[str, Tensor]] = {}
    for name, t in held.items():
        if not name.startswith(PREFIX):
            raise bad(t.file, "tensors", repr(name), f"names that begin with {PREFIX!r}", SAVE)
        own = name.removeprefix(PREFIX)
        suffix = next((s for s in HALVES if own.endswith(s)), None)
        if suffix is not None:
            halves.setdefault(own.removesuffix(suffix), {})[HALVES[suffix]] = t
        elif (copied := own.replace(".base_layer.", ".")) in weights:
            check_copy(t, weights[copied])
            say(f"{name}: the base's own, left out")
        else:
            what, do = next((o for part, o in OTHERS.items() if part in own), ("no half of a LoRA adapter", SAVE))
            raise bad(t.file, name, what, "lora_A and lora_B alone", do)
    for module, found in halves.items():
        for half, other in (("a", "b"), ("b", "a")):
            if half not in found:
                raise bad(found[other].file, module, f"lora_{other.upper()} alone", f"lora_{half.upper()} beside it", "get an undamaged adapter")
    return {module: Pair(**found) for module, found in halves.items()}


def check_copy(t: Tensor, base: Tensor) -> None:
    """A tensor of the base that the adapter brings, too: the same, as far as the adapter's type can say."""
    kind = OUTTYPES[t.dtype.lower()].matrix
    if t.shape == base.shape:
        step = rows_per_block(base.shape)
        if all((decode(encode(base.rows(i, i + step), kind), kind) == t.rows(i, i + step)).all() for i in range(0, t.shape[0], step)):
            return
    raise bad(t.file, t.name, f"shape {list(t.shape)}, and other values than the base's", f"the base's own {base.name} {list(base.shape)}",
              "give the base that the adapter was trained on; one that changes whole matrices must be merged into it (PEFT's merge_and_unload)")


def adaptable(model: ModelConfig) -> dict[str, Matrix]:
    """Every module of the base with a matrix that a product, or the look-up of tokens, reads."""
    return {name.removesuffix(".weight"): Matrix(t, t.shape[-2:]) for t in targets(model) if t.made in ("", "stack") and len(t.shape) > 1
            for name in t.sources() if name.endswith(".weight")}


def check(config: AdapterConfig, pairs: dict[str, Pair], matrices: dict[str, Matrix], model: ModelConfig, held: dict[str, Tensor]) -> None:
    """Adapter, its config and the base agree in every name and shape."""
    if not pairs:
        raise bad(config.where.parent, "weights", "no lora_A and lora_B", "some", "get an undamaged adapter")
    for module, pair in pairs.items():
        if f"{module}.weight" == HEAD and HEAD.removesuffix(".weight") not in matrices or f"{module}.weight" == EMBEDDING and model.tie_word_embeddings:
            raise bad(pair.a.file, module, "an adapter of it", "none where one matrix is embedding and output (tie_word_embeddings)", MERGE)
        if module not in matrices:
            raise bad(pair.a.file, "tensors", f"an adapter of {module!r}", "modules of the base, such as 'model.layers.0.attn.q_proj'", "give the base it was trained on")
        (n_out, n_in), r = matrices[module].shape, config.rank(module)
        a, b = ((r, n_out), (n_in, r)) if matrices[module].target.checkpoint == EMBEDDING else ((r, n_in), (n_out, r))
        for t, shape in ((pair.a, a), (pair.b, b)):
            if t.shape != shape:
                raise bad(t.file, t.name, f"shape {list(t.shape)}", f"{list(shape)} (rank {r}, and the base's matrix {[n_out, n_in]})",
                          "give the base it was trained on, and the adapter_config.json that belongs to it")
        if not config.names(module):
            raise bad(config.where, "target_modules", f"no name for {module!r}, which has an adapter", "one for each", "give the files of one adapter")
    silent = [m for m in matrices if m not in pairs and config.names(m) and not (config.target_modules == "all-linear" and f"{m}.weight" in (EMBEDDING, HEAD))]
    if silent:
        raise bad(config.where, "target_modules", f"names for {some(silent)}, which have no tensors", "an adapter of each", "get an undamaged adapter")
    for token in config.alora_invocation_tokens:
        if token >= model.vocab_size:
            raise bad(config.where, "alora_invocation_tokens", token, f"0 to {model.vocab_size - 1}", "give the base it was trained on")


# --- what is written ------------------------------------------------------------------------------------------

def common_alpha(config: AdapterConfig, pairs: dict[str, Pair]) -> float:
    """The file's one alpha: that of the first matrix; those of others go into their B. Never 0, which would mean none."""
    first = next(iter(pairs))
    return float(np.float32(config.scaling(first) * config.rank(first))) or 1.0


def plan_target(t: Target, config: AdapterConfig, pairs: dict[str, Pair], alpha: float, outtype: str) -> list[Planned]:
    """The two tensors of one of the GGUF's matrices, none without an adapter. llama.cpp multiplies B A by alpha / rank, the rank being
    B's columns: of a stack the largest, others are padded with zeros; what else a factor has to say goes into B."""
    modules = [name.removesuffix(".weight") for name in t.sources()]
    if not any(m in pairs for m in modules):
        return []
    rank = max(config.rank(m) for m in modules if m in pairs)
    n_out, n_in = t.shape[-2:]

    def half(which: str, shape: tuple[int, int]) -> Tensor:
        parts = []
        for m in modules:
            factor = config.scaling(m) * rank / alpha if which == "b" and m in pairs else 1.0
            held = getattr(pairs[m], which) if m in pairs else None
            parts.append(held if held is not None and held.shape == shape and factor == 1 else Padded.of(held, f"{m}.lora_{which.upper()}", shape, factor, config.where))
        return parts[0] if len(parts) == 1 else Stack.of(parts)

    shapes = {"a": (rank, n_in), "b": (n_out, rank)}
    if t.checkpoint == EMBEDDING:
        shapes = {"a": (rank, n_out), "b": (n_in, rank)}
    out = []
    for which, shape in shapes.items():
        source = half(which, shape)
        if t.checkpoint == EMBEDDING and which == "a":  # rows are looked up in it
            source, shape = Transposed.of(source), (shape[1], shape[0])
        qtype, full = OUTTYPES[outtype].matrix, (*t.shape[:-2], *shape)
        out.append(Planned(replace(t, gguf=f"{t.gguf}.lora_{which}", shape=full, kind="f32"), source, qtype, nbytes(full, qtype), qtype))
    return out
