"""The teacher: a SpikingBrain checkpoint, or the Transformer that one was made from, as a model whose every layer has an endless window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from sb_convert.config import Config
from sb_convert.errors import bad
from sb_convert.files import read_json
from sb_convert.reference import Model
from sb_convert.sources import open_checkpoint
from sb_convert.tokenizer import load_vocab

ENDLESS = 2**31 - 1
NAMES = (("model.embed_tokens.", "model.embeddings."), (".self_attn.", ".attn."), (".input_layernorm.", ".attn_norm."), (".post_attention_layernorm.", ".mlp_norm."))
TRANSFORMERS = ("llama", "qwen2", "qwen3")


def load_teacher(folder: Path, config: Config, model_folder: Path) -> Model:
    """Float32, without gradients. ConvertError: another architecture, or another vocabulary than the model's."""
    raw = read_json(folder / "config.json")
    kind = raw.get("model_type")
    if kind != "gla_swa" and kind not in TRANSFORMERS:
        raise bad(folder / "config.json", "model_type", repr(kind), f"gla_swa, {', '.join(TRANSFORMERS)}", "give a teacher of one of these")
    check_vocabulary(folder, raw.get("vocab_size"), model_folder, config)
    return (Model.from_pretrained(folder) if kind == "gla_swa" else transformer(folder, raw)).eval().requires_grad_(False)


def transformer(folder: Path, raw: dict[str, Any]) -> Model:
    """A Llama or Qwen checkpoint: softmax attention over all text is a window without end."""
    fields = {name: raw[name] for name in ("hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size", "num_attention_heads", "num_key_value_heads")}
    theta = raw.get("rope_theta", (raw.get("rope_parameters") or {}).get("rope_theta", 1e4))
    config = Config(**fields, rope_theta=theta, norm_eps=raw["rms_norm_eps"], tie_word_embeddings=raw.get("tie_word_embeddings", False),
                    attn_layers=tuple(range(fields["num_hidden_layers"])), sliding_window=ENDLESS)
    tensors = {}
    for name, t in open_checkpoint(folder).items():
        for theirs, ours in NAMES:
            name = name.replace(theirs, ours)
        tensors[name] = torch.from_numpy(np.array(t.rows(0, None)))
    model = Model(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name not in tensors and name.endswith("proj.bias"):
                tensors[name] = torch.zeros_like(p)
    if config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    model.load_state_dict(tensors)
    return model


def check_vocabulary(folder: Path, size: Any, model_folder: Path, ours: Config) -> None:
    """Every token must mean the same to both; padding behind the last one may differ."""
    if size != ours.vocab_size:
        raise bad(folder / "config.json", "vocab_size", size, f"{ours.vocab_size}, as {model_folder} has it", "a teacher needs the model's own vocabulary")
    mine, its = load_vocab(model_folder, ours).tokens, load_vocab(folder, ours).tokens
    for i, (a, b) in enumerate(zip(mine, its)):
        if a != b:
            raise bad(folder, f"token {i}", repr(b), f"{a!r}, as {model_folder} has it", "a teacher needs the model's own vocabulary")


def check_shape(folder: Path, theirs: Any, ours: Config) -> None:
    """What attention matching needs: layers that correspond, on residual streams of one width."""
    for name in ("num_hidden_layers", "hidden_size"):
        if getattr(theirs, name) != getattr(ours, name):
            raise bad(folder / "config.json", name, getattr(theirs, name), f"{getattr(ours, name)}, as the model has it", "leave --match out for a teacher of another shape")
