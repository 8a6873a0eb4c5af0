"""Seconds and memory of training a published base's shape, converted, with the base as its teacher; all weights random.

    python examples/train_speed.py --shape Llama-3.2-1B --bf16

What sb-train does in each step, at each length of row: nothing is read and nothing kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import resource
import statistics
import time
from typing import Any

import numpy as np
import torch
from train import told

from sb_convert.config import Config
from sb_convert.reference import Model
from sb_init.base import config_of
from sb_init.choices import WINDOW
from sb_train.cli import device_of
from sb_train.model import n_parameters, new_model
from sb_train.recipe import Recipe
from sb_train.teacher import ENDLESS
from sb_train.trainer import Trainer

SHAPES = {  # of their published config.json, what decides sizes
    "Qwen2.5-0.5B": {"architectures": ["Qwen2ForCausalLM"], "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
                     "num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 32768, "rope_theta": 1e6, "tie_word_embeddings": True},
    "Llama-3.2-1B": {"architectures": ["LlamaForCausalLM"], "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
                     "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072, "rope_theta": 5e5, "tie_word_embeddings": True},
}


def converted(base: Config) -> Config:
    """gla and windows in turn, as sb-init makes them."""
    return dataclasses.replace(base, attn_layers=tuple(range(1, base.num_hidden_layers, 2)), sliding_window=WINDOW, gate_low_rank_dim=16)


def measure(model: Model, teacher: Model, recipe: Recipe, device: str) -> dict[str, Any]:
    """Of single steps at recipe.length, the first not counted. peak_gb: of the GPU's memory since the last row, or of the process."""
    t = Trainer(model.config, recipe, model, teacher, device, inner=recipe.threads)
    tokens = np.random.default_rng(1).integers(0, model.config.vocab_size, 4 * recipe.batch * recipe.length + 1).astype(np.uint32)
    cuda = t.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(t.device)
    times = []
    for _ in range(recipe.steps):
        begun = time.perf_counter()
        t.train_step(tokens)
        if cuda:
            torch.cuda.synchronize(t.device)
        times.append(time.perf_counter() - begun)
    seconds = statistics.median(times[1:])
    peak = torch.cuda.max_memory_allocated(t.device) if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"device": torch.cuda.get_device_name(t.device) if cuda else "cpu", "weights": n_parameters(model), "length": recipe.length, "spikes": recipe.spike_from < 1,
            "s_per_step": round(seconds, 3), "tokens_per_s": round(recipe.batch * recipe.length / seconds, 1), "peak_gb": round(peak / 1e9, 2)}


@told()
def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shape", choices=sorted(SHAPES), default="Qwen2.5-0.5B")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: cuda where there is one)")
    p.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096, 16384], help="tokens of a row (default: %(default)s)")
    p.add_argument("--tokens", type=int, default=16384, help="of a step, at least one row (default %(default)s)")
    p.add_argument("--micro", type=int, default=4096, help="tokens of one forward, at least one row (default %(default)s)")
    p.add_argument("--piece", type=int, default=512)
    p.add_argument("--steps", type=int, default=4, help="at each length; the first does not count (default %(default)s)")
    p.add_argument("--bf16", action="store_true", help="matrix products in bfloat16")
    p.add_argument("--spikes", action="store_true", help="spike-aware, too")
    args = p.parse_args(argv)
    if args.steps < 2 or min(args.lengths) < 2:
        p.error(f"--steps, --lengths: got {args.steps} and {args.lengths}, expected at least 2 of each; correct them")
    device = device_of(args.device)
    base = config_of(SHAPES[args.shape], args.shape)
    recipes = [Recipe(steps=args.steps, batch=max(1, args.tokens // length), length=length, micro=max(1, args.micro // length), piece=args.piece, threads=1,
                      bf16=args.bf16, distill=0.5, lr=1e-4, spike_from=0.0 if spikes else 1.0)
               for length, spikes in itertools.product(args.lengths, (False, True)[:1 + args.spikes])]
    model, teacher = new_model(converted(base), 1), new_model(dataclasses.replace(base, sliding_window=ENDLESS), 2)
    for recipe in recipes:
        print(json.dumps({"shape": args.shape, **measure(model, teacher, recipe, device)}), flush=True)


if __name__ == "__main__":
    main()
