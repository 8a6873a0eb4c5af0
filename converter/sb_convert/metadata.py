"""The GGUF's keys apart from the tokenizer's: general.* through gguf's own metadata reader, spikingbrain.* from the config."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import gguf

from .config import Config
from .files import read_json

ARCH = "spikingbrain"


def check_metadata_file(path: Path | None) -> None:
    if path is not None:
        read_json(path)


def add_general(w: gguf.GGUFWriter, folder: Path, override: Path | None, model_name: str | None, n_params: int,
                file_type: gguf.LlamaFileType) -> None:
    """Name, author, licence, ... from the model card, config.json, the folder's name; --metadata and --model-name win."""
    meta = _load(folder, override, model_name, n_params)
    if meta.size_label is None and n_params > 0:
        meta.size_label = gguf.size_label(n_params, n_params, 0, 0)
    meta.name = meta.name or folder.resolve().name
    w.add_type(gguf.GGUFType.MODEL)
    meta.set_gguf_meta_model(w)
    w.add_file_type(file_type)
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _load(folder: Path, override: Path | None, model_name: str | None, n_params: int) -> gguf.Metadata:
    try:
        return gguf.Metadata.load(override, folder, model_name, n_params)
    except Exception as e:  # the model card is free text: a malformed one costs its metadata, not the conversion
        logging.getLogger("sb_convert").warning("%s: model card: not used (%s)", folder / "README.md", str(e).splitlines()[0])
    meta = gguf.Metadata(name=model_name)
    for key, value in (json.loads(override.read_text()) if override else {}).items():
        setattr(meta, key.removeprefix("general."), value)
    return meta


def add_hparams(w: gguf.GGUFWriter, c: Config) -> None:
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
    w.add_array(f"{ARCH}.attention.recurrent_layers", [c.is_gla(il) for il in range(c.num_hidden_layers)])
    w.add_uint32(f"{ARCH}.rope.dimension_count", c.head_dim)
    w.add_float32(f"{ARCH}.rope.freq_base", c.rope_theta)
    w.add_float32(f"{ARCH}.gla.gate_logit_normalizer", c.gate_logit_normalizer)
    w.add_uint32(f"{ARCH}.gla.gate_low_rank_dim", c.gate_low_rank_dim)


