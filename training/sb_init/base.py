"""The Transformer that a SpikingBrain is made from: which ones can be, what their config.json means, their tensors by our names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sb_convert.config import Config
from sb_convert.errors import ConvertError, bad
from sb_convert.files import read_json
from sb_convert.plan import WRAPPERS, check_tied, own_type, some, without_buffers
from sb_convert.sources import Tensor, open_checkpoint, refuse_adapter
from sb_convert.tensors import EMBEDDING, HEAD, checkpoint_shapes, targets

PLEASE = "give a checkpoint of Llama, Qwen2, Qwen2.5 or Qwen3"


@dataclass(frozen=True)
class Family:
    """What an architecture always has, whatever its config.json says."""
    model_type: str
    qkv_bias: bool | None     # None: as attention_bias says, false where that is absent
    use_qk_norm: bool = False
    head_dim: int | None = None  # where the file does not say


FAMILIES = {
    "LlamaForCausalLM": Family("llama", None),
    "Qwen2ForCausalLM": Family("qwen2", True),  # Qwen2.5, too
    "Qwen3ForCausalLM": Family("qwen3", None, use_qk_norm=True, head_dim=128),
}

# of a base's config.json: read here, and given to Config.from_json in its own words
READ = ("architectures", "model_type", "rms_norm_eps", "attention_bias", "use_sliding_window", "sliding_window", "max_window_layers", "layer_types")
# transformers' own defaults, for files that leave fields out
DEFAULTS: dict[str, Any] = {"rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False}
# what the layers would be there: another model has them
OURS = ("attn_layers", "gate_logit_normalizer", "elementwise_affine", "use_qk_norm", "qkv_bias", "dense_mlp_layers", "num_local_experts", "num_experts_per_topk",
        "shared_intermediate_size", "norm_topk_prob", "norm_eps")

# our names, and the base's for the same tensor
NAMES = {EMBEDDING: "model.embed_tokens.weight", "model.norm.weight": "model.norm.weight", HEAD: HEAD}
LAYER = {"attn_norm.weight": "input_layernorm.weight", "mlp_norm.weight": "post_attention_layernorm.weight",
         **{f"attn.{p}_proj.{what}": f"self_attn.{p}_proj.{what}" for p in "qkv" for what in ("weight", "bias")}, "attn.o_proj.weight": "self_attn.o_proj.weight",
         "attn.q_norm.weight": "self_attn.q_norm.weight", "attn.k_norm.weight": "self_attn.k_norm.weight",
         **{f"mlp.{p}_proj.weight": f"mlp.{p}_proj.weight" for p in ("gate", "up", "down")}}


def theirs(name: str) -> str:
    """The base's name of one of our tensors."""
    if name in NAMES:
        return NAMES[name]
    stem, _, own = name.removeprefix("model.layers.").partition(".")
    return f"model.layers.{stem}.{LAYER[own]}"


@dataclass(frozen=True)
class Base:
    """A checked base. config: its sizes and parts in our words, every layer a window that sees all; tensors: by our names."""
    folder: Path
    config: Config
    tensors: dict[str, Tensor]
    window: int | None          # what the base's own layers see at most; None: all
    dtype: str                  # that of most weights: F32, F16 or BF16
    raw: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> "Base":
        """ConvertError: no such Transformer, or one with a part that gla_swa has not; a tensor that is missing, left over or of another shape."""
        folder = Path(folder)
        if not folder.is_dir():
            raise bad(folder, "base", "a file" if folder.exists() else "no such folder", "one with config.json, weights and tokenizer", "check the name; ORG/NAME is looked up on the Hugging Face hub")
        refuse_adapter(folder)
        where = str(folder / "config.json")
        raw = read_json(folder / "config.json")
        config, window = config_of(raw, where), own_window(raw, where)
        tensors = checked(without_buffers(open_checkpoint(folder), config), config, folder)
        return cls(folder, config, tensors, window, own_type(targets(config), tensors).upper(), raw)


def family_of(raw: dict[str, Any], where: str) -> Family:
    """By architectures, which model_type must not contradict."""
    held = raw.get("architectures")
    if held is None:
        held = [name for name, family in FAMILIES.items() if family.model_type == raw.get("model_type")]
    if not isinstance(held, list) or len(held) != 1 or held[0] not in FAMILIES:
        got = repr(raw.get("architectures")) if raw.get("architectures") is not None else f"none, and model_type {raw.get('model_type')!r}"
        raise bad(where, "architectures", got, f"one of {', '.join(FAMILIES)}", PLEASE)
    family = FAMILIES[held[0]]
    if raw.get("model_type", family.model_type) != family.model_type:
        raise bad(where, "model_type", repr(raw["model_type"]), repr(family.model_type), f"architectures says {held[0]}; {PLEASE}")
    return family


def config_of(raw: dict[str, Any], where: str) -> Config:
    """The base's fields as gla_swa's. ConvertError: one that has no place there."""
    family = family_of(raw, where)
    for name in OURS:
        if raw.get(name) is not None:
            raise bad(where, name, repr(raw[name]), "no such field", f"these architectures have none; {PLEASE}")
    bias = raw.get("attention_bias")
    if bias not in (None, False) and family.qkv_bias is None:
        raise bad(where, "attention_bias", repr(bias), "false", "a bias of the output projection has no place in a gla_swa checkpoint")
    if raw.get("max_position_embeddings") is None:
        raise bad(where, "max_position_embeddings", "nothing", "a value (int)", "add it as the model's authors publish it")
    ours = {k: v for k, v in raw.items() if k not in READ}
    elsewhere = any("rope_theta" in str(raw.get(name)) for name in ("rope_parameters", "rope_scaling"))
    ours |= {k: v for k, v in DEFAULTS.items() if raw.get(k) is None and not (k == "rope_theta" and elsewhere)}
    n_head = raw.get("num_attention_heads")
    ours |= {"architectures": [Config.ARCHITECTURE], "model_type": "gla_swa", "norm_eps": raw.get("rms_norm_eps", 1e-6), "qkv_bias": bool(family.qkv_bias),
             "use_qk_norm": family.use_qk_norm, "num_key_value_heads": n_head if raw.get("num_key_value_heads") is None else raw["num_key_value_heads"],
             "sliding_window": raw["max_position_embeddings"], "attn_layers": []}
    if raw.get("head_dim") is None and family.head_dim is not None:
        ours["head_dim"] = family.head_dim
    n_layer = raw.get("num_hidden_layers")
    if type(n_layer) is int and 0 < n_layer < 1 << 16:
        ours["attn_layers"] = list(range(n_layer))
    try:
        return Config.from_json(ours, where)
    except ConvertError as e:
        raise ConvertError(str(e).replace(": norm_eps: ", ": rms_norm_eps: ").replace(": sliding_window: ", ": max_position_embeddings: ")) from None


def own_window(raw: dict[str, Any], where: str) -> int | None:
    """What the base's layers see at most, where some have a window."""
    kinds, on, size, n_layer = (raw.get(name) for name in ("layer_types", "use_sliding_window", "sliding_window", "num_hidden_layers"))
    if kinds is not None and (not isinstance(kinds, list) or len(kinds) != n_layer or not all(kind in ("full_attention", "sliding_attention") for kind in kinds)):
        raise bad(where, "layer_types", repr(kinds), f"'full_attention' or 'sliding_attention' for each of {n_layer} layers", PLEASE)
    if on not in (None, True, False) or isinstance(on, int) and not isinstance(on, bool):
        raise bad(where, "use_sliding_window", repr(on), "true or false", "correct config.json")
    first = raw.get("max_window_layers")  # whose windows begin there
    windowed = "sliding_attention" in kinds if kinds is not None else bool(on) and (type(first) is not int or first < n_layer)
    if not windowed:
        if family_of(raw, where).model_type == "llama" and size is not None:
            raise bad(where, "sliding_window", repr(size), "null", f"Llama has no window; {PLEASE}")
        if size is not None and type(size) is not int:
            raise bad(where, "sliding_window", repr(size), "null or an integer", "correct config.json")
        return None
    if type(size) is not int or size < 1:
        raise bad(where, "sliding_window", repr(size), "an integer from 1, as some layers have a window", "correct config.json")
    return size


def checked(tensors: dict[str, Tensor], config: Config, where: Path) -> dict[str, Tensor]:
    """The base's tensors by our names: each that its config implies, of its shape, and no other."""
    shapes = checkpoint_shapes(config)
    want = {theirs(name): name for name in shapes}
    if theirs(EMBEDDING) not in tensors:
        first = next(iter(tensors), "none")
        what, do = next((WRAPPERS[part] for part in first.split(".") if part in WRAPPERS), ("", ""))
        raise bad(where, "tensors", f"names like {first!r}" + (f", of {what}" if what else ""), f"{theirs(EMBEDDING)!r} among them", do or PLEASE)
    missing = [name for name in want if name not in tensors]
    if missing == [HEAD]:
        raise bad(where, HEAD, "nothing", "an output matrix, as tie_word_embeddings is false", "set it to true in config.json if the embedding is the output, too")
    if missing:
        raise bad(where, "tensors", f"{len(missing)} missing: {some(missing)}", "every tensor that config.json implies", "get the complete checkpoint")
    ours = {name: tensors[t] for t, name in want.items()}
    left = [name for name in tensors if name not in want]
    if config.tie_word_embeddings and HEAD in left:
        left.remove(HEAD)
        check_tied({HEAD: tensors[HEAD], EMBEDDING: ours[EMBEDDING]})
    if left:
        raise bad(where, "tensors", f"{len(left)} left over: {some(left)}", "none that config.json does not imply",
                  "they have no place in a gla_swa checkpoint; give the config.json that belongs to these weights")
    for name, shape in shapes.items():
        if ours[name].shape != shape:
            raise bad(ours[name].file, ours[name].name, f"shape {list(ours[name].shape)}", str(list(shape)), "give the config.json that belongs to these weights")
    return ours
