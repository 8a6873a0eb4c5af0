"""LoRA adapter folders as PEFT's save_pretrained writes them, with numpy alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from conftest import write_safetensors

# every field that PEFT 0.21 writes, at its default
FIELDS: dict[str, Any] = {
    "alora_invocation_tokens": None, "alpha_pattern": {}, "arrow_config": None, "auto_mapping": {"base_model_class": "Model", "parent_library": "sb_convert.reference"},
    "base_model_name_or_path": None, "bias": "none", "corda_config": None, "ensure_weight_tying": False, "eva_config": None, "exclude_modules": None,
    "fan_in_fan_out": False, "inference_mode": True, "init_lora_weights": True, "kasa_config": None, "layer_replication": None, "layers_pattern": None,
    "layers_to_transform": None, "loftq_config": {}, "lora_alpha": 8, "lora_bias": False, "lora_dropout": 0.0, "lora_ga_config": None, "megatron_config": None,
    "megatron_core": "megatron.core", "modules_to_save": None, "monteclora_config": None, "peft_type": "LORA", "peft_version": "0.21.2", "qalora_group_size": 16,
    "r": 4, "rank_pattern": {}, "revision": None, "target_parameters": None, "task_type": None, "trainable_token_indices": None, "use_bdlora": None,
    "use_dora": False, "use_qalora": False, "use_rslora": False, "velora_config": None}
PREFIX = "base_model.model."


def adapter_tensors(modules: dict[str, tuple[tuple[int, int], int]], seed: int = 3) -> dict[str, np.ndarray]:
    """modules: name -> (the matrix's [out, in], rank). Random halves under PEFT's names."""
    rng, out = np.random.default_rng(seed), {}
    for name, ((n_out, n_in), r) in modules.items():
        a, b = (rng.standard_normal(shape, np.float32) * np.float32(0.15) for shape in ((r, n_in), (n_out, r)))
        if name.endswith("embeddings"):  # the look-up's halves: [r, vocab] and [n_embd, r]
            out |= {f"{PREFIX}{name}.lora_embedding_A": np.ascontiguousarray(b.T), f"{PREFIX}{name}.lora_embedding_B": np.ascontiguousarray(a.T)}
        else:
            out |= {f"{PREFIX}{name}.lora_A.weight": a, f"{PREFIX}{name}.lora_B.weight": b}
    return out


def added(tensors: dict[str, np.ndarray], scaling: dict[str, float]) -> dict[str, np.ndarray]:
    """What the adapter adds to each of the checkpoint's matrices; scaling: of each module, "" for all others."""
    out = {}
    for name, t in tensors.items():
        module, _, half = name.removeprefix(PREFIX).partition(".lora_")
        if half == "A.weight":
            delta = tensors[f"{PREFIX}{module}.lora_B.weight"] @ t
        elif half == "embedding_A":
            delta = (tensors[f"{PREFIX}{module}.lora_embedding_B"] @ t).T
        else:
            continue
        out[f"{module}.weight"] = delta * np.float32(scaling.get(module, scaling.get("")))
    return out


def write_adapter(folder: Path, tensors: dict[str, np.ndarray], form: str = "safetensors", dtype: str = "F32", **fields: Any) -> Path:
    """fields: of adapter_config.json; one that is ... is left out. target_modules by default: those of the tensors."""
    folder.mkdir(exist_ok=True)
    names = sorted({name.removeprefix(PREFIX).partition(".lora_")[0] for name in tensors})
    config = {k: v for k, v in {**FIELDS, "target_modules": names, **fields}.items() if v is not ...}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    if form == "safetensors":
        write_safetensors(folder / "adapter_model.safetensors", tensors, dtype)
    else:
        import torch
        torch.save({n: torch.from_numpy(t).to({"F32": torch.float32, "BF16": torch.bfloat16}[dtype]) for n, t in tensors.items()}, folder / "adapter_model.bin")
    return folder
