"""The GGUF's keys apart from the tokenizer's: general.* through gguf's own metadata reader, spikingbrain.* from the config."""

from __future__ import annotations

import dataclasses
import datetime
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import gguf

from .config import Config, ModelConfig, MoeConfig, ParallelConfig
from .constants import ARCH
from .errors import bad
from .files import read_json, read_optional, read_text

log = logging.getLogger("sb_convert")


# --metadata's keys are gguf's, but for those the converter computes; base_models and datasets are lists of objects of strings
FIELDS = {f.name: str(f.type) for f in dataclasses.fields(gguf.Metadata)}
KEYS = {getattr(gguf.Keys.General, name.upper(), f"general.{name}"): name for name in FIELDS}
KINDS: dict[str, tuple[type, ...]] = {"Optional[str]": (str,), "Optional[int]": (int,), "Optional[float]": (int, float)}
EXPECTED = {"Optional[str]": "a string", "Optional[int]": "an integer", "Optional[float]": "a number", "Optional[list[str]]": "a list of strings",
            "Optional[list[dict]]": "a list of objects of strings"}
PARTS = ("name", "author", "version", "organization", "description", "url", "doi", "uuid", "repo_url")  # of such an object
# of generation_config.json: what a server samples with where a request does not say
SAMPLING = {"sequence": "sequence", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p", "xtc_probability": "xtc_probability", "xtc_threshold": "xtc_threshold",
            "temperature": "temp", "penalty_last_n": "penalty_last_n", "repetition_penalty": "penalty_repeat", "penalty_repeat": "penalty_repeat", "mirostat": "mirostat",
            "mirostat_tau": "mirostat_tau", "mirostat_eta": "mirostat_eta"}


def read_metadata_file(path: Path | None) -> dict[str, Any]:
    """Fields of gguf.Metadata that --metadata sets; a null takes a field away."""
    held = {}
    for key, value in (read_json(path) if path is not None else {}).items():
        if key not in KEYS:
            raise bad(path, "key", repr(key), f"one of {', '.join(sorted(KEYS))}", "other keys are the converter's own, or unknown")
        _check_kind(path, key, KEYS[key], value)
        for part in {part for entry in value if isinstance(entry, dict) for part in entry} if isinstance(value, list) else ():
            if part not in PARTS:
                raise bad(path, key, repr(part), f"one of {', '.join(PARTS)}", "correct the file")
        held[KEYS[key]] = value
    return held


def fits(kind: str, value: Any) -> bool:
    """Whether a value can be written under a field of that kind (a key of EXPECTED), None included."""
    if value is None:
        return True
    if not encodes(value):
        return False
    if kind in KINDS:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return isinstance(value, KINDS[kind]) and (isinstance(value, str) or number and abs(value) < (2**31 if kind == "Optional[int]" else 3e38))
    if not isinstance(value, list):
        return False
    if kind == "Optional[list[str]]":
        return bool(value) and all(isinstance(v, str) for v in value)
    return all(isinstance(v, dict) and all(isinstance(x, str) for x in v.values()) for v in value)


def encodes(value: Any) -> bool:
    """False where half of a surrogate pair stands in it: of JSON, or of an argument or a file name that is not UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_kind(where: object, what: str, name: str, value: Any) -> None:
    if not fits(FIELDS[name], value):
        raise bad(where, what, f"{value!r} ({type(value).__name__})", EXPECTED[FIELDS[name]], "correct the file")


def read_sampling(folder: Path) -> dict[str, Any]:
    """Fields of gguf.Metadata. transformers does not sample where do_sample is false, whatever stands beside it."""
    path = folder / "generation_config.json"
    raw, held = read_optional(path), {}
    for theirs, ours in SAMPLING.items():
        name = f"sampling_{ours}"
        if raw.get(theirs) is not None and name in FIELDS:
            _check_kind(path, theirs, name, raw[theirs])
            held[name] = raw[theirs]
    return {} if raw.get("do_sample") is False else held


def repository(folder: Path) -> str | None:
    """ORG/NAME, where the folder is a snapshot in Hugging Face's cache: models--ORG--NAME/snapshots/HASH."""
    for path in (Path(os.path.abspath(folder)), folder.resolve()):
        if path.parent.name == "snapshots" and path.parent.parent.name.startswith("models--"):
            return path.parent.parent.name.removeprefix("models--").replace("--", "/", 1)
    return None


def folder_name(folder: Path) -> str:
    """The last part of a folder's name, or of its repository's."""
    name = (repository(folder) or folder.resolve().name).rpartition("/")[2]
    return name.encode("utf-8", "replace").decode()


def load_metadata(folder: Path, override: dict[str, Any], model_name: str | None, n_params: int) -> gguf.Metadata:
    """Name, author, licence, ... from the model card, config.json, the folder's name; --metadata and --model-name win."""
    model = repository(folder)
    config = read_optional(folder / "config.json")
    meta = gguf.Metadata()
    for name, value in read_sampling(folder).items():
        setattr(meta, name, value)
    hints = ({"_name_or_path": model}, None) if model else ({k: v for k, v in config.items() if k == "_name_or_path" and isinstance(v, str)}, Path(os.path.abspath(folder)))
    try:
        meta = gguf.Metadata.apply_metadata_heuristic(meta, model_card(folder), *hints, n_params)
    except Exception as e:  # the model card is free text: a malformed one costs its metadata, not the conversion
        log.warning("%s: model card: not used (%s)", folder / "README.md", str(e).splitlines()[0])
        meta = gguf.Metadata.apply_metadata_heuristic(gguf.Metadata(**read_sampling(folder)), {}, *hints, n_params)
    drop_unfit(meta, folder / "README.md")
    for name, value in override.items():
        setattr(meta, name, value)
    if not encodes(model_name):
        raise bad("--model-name", "name", repr(model_name), "UTF-8 text", "give another")
    meta.name = model_name or meta.name or folder_name(folder)
    return meta


def model_card(folder: Path) -> dict[str, Any]:
    """The front matter of README.md; empty where there is none."""
    path = folder / "README.md"
    if not path.is_file():
        return {}
    with tempfile.TemporaryDirectory() as tmp:  # gguf's reader wants a file, and takes a byte order mark for text
        (Path(tmp) / path.name).write_text(read_text(path), encoding="utf-8")
        return gguf.Metadata.load_model_card(Path(tmp))


def drop_unfit(meta: gguf.Metadata, path: Path) -> None:
    """What the model card says in another type than the key has: a number is a string there, anything else is left out and named."""
    for name, kind in FIELDS.items():
        value = getattr(meta, name)
        if name == "license" and isinstance(value, list):
            value = ",".join(map(str, value))
        if kind == "Optional[str]" and isinstance(value, (int, float, datetime.date)):
            value = str(value)
        if not fits(kind, value) and value != []:
            log.warning("%s: %s: got %r, expected %s; not used", path, name, value, EXPECTED[kind])
            value = None
        setattr(meta, name, None if value == "" or value == [] else value)


def add_general(w: gguf.GGUFWriter, folder: Path, override: dict[str, Any], model_name: str | None, n_params: int,
                file_type: gguf.LlamaFileType, experts: tuple[int, int] = (0, 0)) -> None:
    """experts: how many there are, and how many weights each has in all layers."""
    meta = load_metadata(folder, override, model_name, n_params)
    if meta.size_label is None and n_params > 0 and "size_label" not in override:
        n, each = experts
        meta.size_label = gguf.size_label(n_params, n_params - n * each, each, n)
    w.add_type(gguf.GGUFType.MODEL)
    meta.set_gguf_meta_model(w)
    w.add_file_type(file_type)
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)


def add_adapter_general(w: gguf.GGUFWriter, folder: Path, override: dict[str, Any], model_name: str | None, base_name: str, file_type: gguf.LlamaFileType) -> None:
    """Of an adapter: what its model card says, else the name of the base that its config gives."""
    meta = load_metadata(folder, override, model_name, 0)
    if meta.base_models is None and base_name and encodes(base_name) and "base_models" not in override:
        meta.base_models = [{"name": base_name}]
    w.add_type(gguf.GGUFType.ADAPTER)
    meta.set_gguf_meta_model(w)
    w.add_file_type(file_type)


def add_hparams(w: gguf.GGUFWriter, c: ModelConfig) -> None:
    """The keys of the model itself, spikingbrain.*."""
    layers = range(c.num_hidden_layers)
    w.add_uint32(f"{ARCH}.vocab_size", c.vocab_size)
    w.add_uint32(f"{ARCH}.context_length", c.max_position_embeddings)
    w.add_uint32(f"{ARCH}.embedding_length", c.hidden_size)
    w.add_uint32(f"{ARCH}.block_count", c.num_hidden_layers)
    w.add_uint32(f"{ARCH}.feed_forward_length", c.intermediate_size)
    w.add_uint32(f"{ARCH}.attention.head_count", c.num_attention_heads)
    w.add_uint32(f"{ARCH}.attention.head_count_kv", c.num_key_value_heads)
    w.add_uint32(f"{ARCH}.attention.key_length", c.head_dim)
    w.add_uint32(f"{ARCH}.attention.value_length", c.head_dim)
    w.add_float32(f"{ARCH}.attention.layer_norm_rms_epsilon", c.norm_eps)
    w.add_uint32(f"{ARCH}.attention.sliding_window", c.sliding_window)
    w.add_array(f"{ARCH}.attention.recurrent_layers", [c.mixer(il) != "swa" for il in layers])
    w.add_uint32(f"{ARCH}.rope.dimension_count", c.head_dim)
    w.add_float32(f"{ARCH}.rope.freq_base", c.rope_theta)
    if isinstance(c, Config):
        w.add_float32(f"{ARCH}.gla.gate_logit_normalizer", c.gate_logit_normalizer)
        w.add_uint32(f"{ARCH}.gla.gate_low_rank_dim", c.gate_low_rank_dim)
    if isinstance(c, ParallelConfig):
        w.add_string(f"{ARCH}.hybrid", "parallel")
        w.add_uint32(f"{ARCH}.sink_count", c.n_sinks)
        w.add_array(f"{ARCH}.attention.sliding_window_pattern", [c.window(il) is not None for il in layers])
        w.add_string(f"{ARCH}.gla.q_activation", c.linear_q_activation)
        w.add_float32(f"{ARCH}.gla.k_max", c.k_clamp_max)
    if isinstance(c, MoeConfig) and c.moe_layers:
        w.add_uint32(f"{ARCH}.expert_count", c.num_local_experts)
        w.add_uint32(f"{ARCH}.expert_used_count", c.num_experts_per_topk)
        w.add_uint32(f"{ARCH}.expert_feed_forward_length", c.intermediate_size)
        w.add_uint32(f"{ARCH}.expert_shared_count", 1)
        w.add_uint32(f"{ARCH}.expert_shared_feed_forward_length", c.shared_intermediate_size)
        w.add_uint32(f"{ARCH}.expert_gating_func", gguf.ExpertGatingFuncType.SOFTMAX)
        w.add_bool(f"{ARCH}.expert_weights_norm", c.norm_topk_prob)
