"""The teacher: a SpikingBrain checkpoint, or the Transformer that one was made from, as a model whose every layer has an endless window."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sb_convert.config import Config
from sb_convert.errors import bad
from sb_convert.files import read_json
from sb_convert.reference import Model
from sb_convert.tokenizer import load_vocab
from sb_init import Base

ENDLESS = 2**31 - 1


def load_teacher(folder: Path, config: Config, model_folder: Path) -> Model:
    """Float32, without gradients. ConvertError: another architecture, or another vocabulary than the model's."""
    raw = read_json(folder / "config.json")
    if raw.get("model_type") == "gla_swa":
        check_vocabulary(folder, raw.get("vocab_size"), model_folder, config)
        teacher = Model.from_pretrained(folder)
    else:
        base = Base.open(folder)
        check_vocabulary(folder, base.config.vocab_size, model_folder, config)
        teacher = transformer(base)
    return teacher.eval().requires_grad_(False)


def transformer(base: Base) -> Model:
    """Softmax attention over all text is a window without end; a base with a window of its own has that one in every layer."""
    with torch.device("meta"):
        model = Model(dataclasses.replace(base.config, sliding_window=base.window or ENDLESS))
    model.load_state_dict({name: torch.from_numpy(np.array(t.rows(0, None))) for name, t in base.tensors.items()}, assign=True)
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
