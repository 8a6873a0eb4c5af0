"""Tensors of the reference model in the published checkpoint format."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from .sources import open_checkpoint
from .tensors import ALIASES


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint in any of its forms, float32. ConvertError: what is wrong with the files."""
    held = open_checkpoint(folder)
    names = {name: ALIASES.get(name, name) for name in held if not name.endswith(".inv_freq")}  # rope_theta again
    return {right: torch.from_numpy(np.array(held[name].rows(0, None))) for name, right in names.items()}


def write_tensors(folder: Path, tensors: dict[str, Tensor], max_shard_bytes: int = 0) -> None:
    """model.safetensors, or shards of at most max_shard_bytes and their index."""
    shards: list[dict[str, Tensor]] = [{}]
    for name, t in tensors.items():
        held = sum(x.nbytes for x in shards[-1].values())
        if max_shard_bytes and held and held + t.nbytes > max_shard_bytes:
            shards.append({})
        shards[-1][name] = t
    names = ["model.safetensors"]
    if len(shards) > 1:
        names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
        weight_map = {t: name for name, shard in zip(names, shards) for t in shard}
        index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8", newline="\n")
    for name, shard in zip(names, shards):
        save_file(shard, folder / name, metadata={"format": "pt"})
