"""A 7B-shaped bf16 checkpoint (15 GB) to Q4_0: time and peak anonymous memory. Not a test of `make test`; needs 5 GB of disk.

    python tests/large_convert.py [FOLDER] [--form safetensors|bin] [--outtype q4_0]

The shards are sparse files (all zeros); --dense writes repeated random blocks instead (15 GB of disk).
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
from conftest import write_bpe  # noqa: E402
from sb_convert.config import Config  # noqa: E402
from sb_convert.tensors import targets  # noqa: E402

SHAPE = {"model_type": "gla_swa", "hidden_size": 3584, "num_hidden_layers": 28, "intermediate_size": 18944, "vocab_size": 152064,
         "num_attention_heads": 28, "num_key_value_heads": 4, "attn_layers": list(range(1, 28, 2)), "sliding_window": 4096,
         "rope_theta": 1e6, "norm_eps": 1e-6, "bos_token_id": 262, "eos_token_id": 262}
N_SHARDS = 15


def write_shard(path: Path, part: list, dense: bool) -> None:
    header, at = {}, 0
    for t in part:
        n = 2 * int(np.prod(t.shape))
        header[t.checkpoint] = {"dtype": "BF16", "shape": list(t.shape), "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header).encode()
    block = (np.random.default_rng(0).standard_normal(1 << 22).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for done in range(0, at if dense else 0, len(block)):
            f.write(block[:at - done])
        f.truncate(8 + len(text) + at)


def write_bin(path: Path, part: list) -> None:
    import torch
    torch.save({t.checkpoint: torch.zeros(t.shape, dtype=torch.bfloat16) for t in part}, path)


def write_checkpoint(folder: Path, form: str, dense: bool) -> None:
    (folder / "config.json").write_text(json.dumps(SHAPE))
    write_bpe(folder)
    all_targets = targets(Config.from_json(SHAPE))
    stem, suffix = ("model", "safetensors") if form == "safetensors" else ("pytorch_model", "bin")
    weight_map = {}
    for i in range(N_SHARDS):
        name = f"{stem}-{i + 1:05d}-of-{N_SHARDS:05d}.{suffix}"
        part = all_targets[i::N_SHARDS]
        write_shard(folder / name, part, dense) if form == "safetensors" else write_bin(folder / name, part)
        weight_map |= {t.checkpoint: name for t in part}
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
    p.add_argument("--outtype", default="q4_0")
    p.add_argument("--dense", action="store_true")
    args = p.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as tmp:
        folder = Path(tmp)
        write_checkpoint(folder, args.form, args.dense)
        begun, peak = time.monotonic(), 0
        run = subprocess.Popen([sys.executable, "-m", "sb_convert", tmp, "-o", str(folder / "out.gguf"), "--outtype", args.outtype],
                               cwd=ROOT / "converter")
        while run.poll() is None:
            peak = peak_anonymous(run.pid, peak)
            time.sleep(0.02)
        print(f"{args.form} to {args.outtype}: exit {run.returncode}, {time.monotonic() - begun:.0f} s, peak RssAnon {peak / 1024:.0f} MiB")
        sys.exit(run.returncode)


if __name__ == "__main__":
    main()
