"""A 7B-shaped bf16 checkpoint (15 GB) to Q4_0: time and peak anonymous memory. Not a test of `make test`; needs 5 GB of disk.

    python tests/large_convert.py [FOLDER] [--form safetensors|bin] [--outtype q4_0] [--scales] [--moe [--layers 4]] [--dry-run]

--moe: 76B-shaped (153 GB, of which --layers takes the first ones; the embedding and layers 0 to 3, of which one has experts, are 11 GB). The shards are sparse files (all zeros); --dense writes repeated random blocks instead (15 GB of disk). --scales makes it a W8ASpike checkpoint:
float32 (30 GB), full gates, weight scales such that about 2% of random codes leave int8.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "converter"))
sys.path.insert(0, str(ROOT / "tests"))
from conftest import write_bpe, write_safetensors  # noqa: E402
from sb_convert.config import ModelConfig  # noqa: E402
from sb_convert.int8 import scales_name  # noqa: E402
from sb_convert.tensors import checkpoint_shapes  # noqa: E402

SHAPE = {"model_type": "gla_swa", "hidden_size": 3584, "num_hidden_layers": 28, "intermediate_size": 18944, "vocab_size": 152064,
         "num_attention_heads": 28, "num_key_value_heads": 4, "attn_layers": list(range(1, 28, 2)), "sliding_window": 4096,
         "rope_theta": 1e6, "norm_eps": 1e-6, "bos_token_id": 262, "eos_token_id": 262}
MOE = {k: v for k, v in SHAPE.items() if k != "attn_layers"} | {
    "model_type": "hybrid", "architectures": ["HymetaForCausalLM"], "full_attn_layers": [3, 10, 17, 24], "dense_mlp_layers": [0, 1, 2, 4, 6, 8, 10],
    "num_local_experts": 16, "num_experts_per_topk": 1, "shared_intermediate_size": 18944, "num_meta_tokens": 128, "use_lower_bound": True}
N_SHARDS = 15
Tensors = list[tuple[str, tuple[int, ...]]]


def write_shard(path: Path, part: Tensors, dense: bool, dtype: str) -> None:
    header, at = {}, 0
    for name, shape in part:
        n = {"BF16": 2, "F32": 4}[dtype] * int(np.prod(shape))
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header).encode()
    values = np.random.default_rng(0).standard_normal(1 << 22).astype(np.float32)
    block = values.tobytes() if dtype == "F32" else (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for done in range(0, at if dense else 0, len(block)):
            f.write(block[:at - done])
        f.truncate(8 + len(text) + at)


def write_bin(path: Path, part: Tensors) -> None:
    import torch
    torch.save({name: torch.zeros(shape, dtype=torch.bfloat16) for name, shape in part}, path)


def write_scales(path: Path, tensors: Tensors) -> list[str]:
    scales = {scales_name(name): np.full((shape[0], shape[1] // 128, 1), 2.3 / 127, np.float32) for name, shape in tensors if name.endswith("_proj.weight")}
    write_safetensors(path, scales, "F32")
    return list(scales)


def config_of(moe: bool, layers: int, scales: bool) -> ModelConfig:
    config = ModelConfig.from_json(MOE if moe else {**SHAPE, "gate_low_rank_dim": 0 if scales else 16})
    return config.truncated(layers) if layers else config


def write_checkpoint(folder: Path, config: ModelConfig, form: str, dense: bool, scales: bool) -> None:
    (folder / "config.json").write_text(json.dumps(config.to_json()))
    write_bpe(folder)
    tensors = [(name, (config.num_hidden_layers, *shape[1:]) if name == "model.lower_bounds" else shape) for name, shape in checkpoint_shapes(config).items()]
    stem, suffix = ("model", "safetensors") if form == "safetensors" else ("pytorch_model", "bin")
    weight_map = {}
    for i in range(N_SHARDS):
        name = f"{stem}-{i + 1:05d}-of-{N_SHARDS:05d}.{suffix}"
        part = tensors[i::N_SHARDS]
        write_shard(folder / name, part, dense, "F32" if scales else "BF16") if form == "safetensors" else write_bin(folder / name, part)
        weight_map |= {tensor: name for tensor, _ in part}
    if scales:
        weight_map |= dict.fromkeys(write_scales(folder / "scales.safetensors", tensors), "scales.safetensors")
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": weight_map}))


def peak_anonymous(pid: int, peak: int) -> int:
    try:
        return max(peak, int(re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]))  # type: ignore[index]
    except (OSError, TypeError):
        return peak


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("folder", nargs="?", type=Path)
    p.add_argument("--form", choices=["safetensors", "bin"], default="safetensors")
    p.add_argument("--outtype", default="q4_0", help="auto: int8 with --scales")
    p.add_argument("--dense", action="store_true")
    p.add_argument("--scales", action="store_true")
    p.add_argument("--moe", action="store_true")
    p.add_argument("--layers", type=int, default=0)
    p.add_argument("--dry-run", action="store_true")
    args = p.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as tmp:
        folder = Path(tmp)
        write_checkpoint(folder, config_of(args.moe, args.layers, args.scales), args.form, args.dense, args.scales)
        begun, peak = time.monotonic(), 0
        run = subprocess.Popen([sys.executable, "-m", "sb_convert", tmp, "-o", str(folder / "out.gguf"), "--outtype", args.outtype,
                                *["--dry-run"] * args.dry_run], cwd=ROOT / "converter")
        while run.poll() is None:
            peak = peak_anonymous(run.pid, peak)
            time.sleep(0.02)
        print(f"{args.form} to {args.outtype}: exit {run.returncode}, {time.monotonic() - begun:.0f} s, peak RssAnon {peak / 1024:.0f} MiB")
        sys.exit(run.returncode)


if __name__ == "__main__":
    main()
