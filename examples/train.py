"""Trains the example: a small SpikingBrain on the text of examples/corpus.py, by sb_train.

    python examples/train.py --minutes 120 --out examples/small

Same seed, steps, threads and machine: same weights. Stopped at any time, the same command goes on from the last save.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from card import card
from corpus import load_tokenizer, prepare
from make_example import SPECIAL
from ngram import KneserNey

from sb_convert import reference
from sb_convert.config import Config
from sb_convert.errors import ConvertError
from sb_convert.reference import Model, Spike
from sb_train.data import batch_at
from sb_train.measure import VALIDATION, beyond_window, losses_of, perplexity, plot
from sb_train.model import new_model, set_spiking, straight_through, with_gradients
from sb_train.recipe import OF_THE_LOOP, Recipe, check_ranges
from sb_train.trainer import Trainer, train

VOCAB_SIZE = 4096
SMALL = Config(hidden_size=256, num_hidden_layers=6, intermediate_size=512, vocab_size=VOCAB_SIZE, num_attention_heads=4,
               num_key_value_heads=2, attn_layers=(1, 3, 5), sliding_window=128, rope_theta=1e4, norm_eps=1e-6,
               max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=VOCAB_SIZE - len(SPECIAL),
               eos_token_id=VOCAB_SIZE - len(SPECIAL), initializer_range=0.02)
OPENINGS = ("The following example", "def ", "Returns the", "A Debian package")


@contextmanager
def told() -> Iterator[None]:
    """What is wrong ends the program with its sentence."""
    try:
        yield
    except ConvertError as e:
        raise SystemExit(str(e)) from None


# --- measures -------------------------------------------------------------------------------------------------

@torch.no_grad()
def write(model: Model, tokenizer: Any, prompt: str, n: int = 100, seed: int = 1, temperature: float = 0.7) -> str:
    gen = torch.Generator().manual_seed(seed)
    ids, state = tokenizer.encode(prompt).ids, None
    feed, out = ids, []
    for _ in range(n):
        logits, state = model(torch.tensor([feed]), state)
        p = (logits[0, -1].float() / temperature).softmax(-1)
        feed = [int(torch.multinomial(p, 1, generator=gen))]
        if feed[0] == model.config.eos_token_id:
            break
        out += feed
    return tokenizer.decode(ids + out)


def evaluate(model: Model, tokens: np.ndarray, held_out: np.ndarray, n_bytes: int, ngram: bool = True) -> dict[str, Any]:
    set_spiking(model, None)
    loss = math.log(ppl := perplexity(model, held_out, spike=None))
    report = {"parameters": sum(p.numel() for p in model.parameters()), "held_out_tokens": len(held_out),
              "perplexity": ppl, "bits_per_byte": loss * len(held_out) / n_bytes / math.log(2),
              "perplexity_spikes_k3": perplexity(model, held_out, spike=Spike(3.0)), "beyond_window": beyond_window(model, held_out[:4 * VALIDATION + 1])}
    if ngram:
        report["perplexity_kneser_ney_5"] = KneserNey(tokens, model.config.vocab_size).perplexity(held_out)
    return report


# --- command --------------------------------------------------------------------------------------------------

def seconds_per_step(config: Config, recipe: Recipe, tokens: np.ndarray, n: int = 6) -> float:
    """Measured on a model that is thrown away, with the spiking share at its own price; the first steps do not count."""
    price = 0.0
    for share, spike_from in ((min(1.0, recipe.spike_from), 1.0), (max(0.0, 1 - recipe.spike_from), 0.0)):
        if share:
            t = Trainer(config, dataclasses.replace(recipe, spike_from=spike_from))
            times = []
            for _ in range(n):
                begun = time.perf_counter()
                t.train_step(tokens)
                times.append(time.perf_counter() - begun)
            price += share * float(np.median(times[1:]))
    return price


def recipe_of(args: argparse.Namespace, tokens: np.ndarray) -> Recipe:
    """The saved one if there is a run to go on with; else the options', with as many steps as the minutes allow."""
    state = args.data / "state.pt"
    if state.is_file():
        saved = torch.load(state, weights_only=True)
        print(f"going on from step {saved['step']} of {state}; its own options hold: {saved['recipe']}")
        return Recipe(**saved["recipe"])
    r: Recipe = args.recipe
    if args.steps:
        return r
    price = seconds_per_step(args.config, dataclasses.replace(r, steps=100), tokens)
    steps = max(1, int(args.minutes * 60 * 0.94 / price))  # the rest: validation, saves
    print(f"{price:.2f} s per step, {r.batch * r.length / price:.0f} tokens/s: {steps} steps of {r.batch * r.length} tokens; the same run again: --steps {steps}")
    return dataclasses.replace(r, steps=steps)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, default=Path(__file__).parent / "work", help="packages, tokens, state.pt, train.jsonl (default: work beside this script)")
    p.add_argument("--out", type=Path, help="the finished checkpoint, with tokenizer, train.jsonl, eval.json, samples.txt and loss.png")
    p.add_argument("--minutes", type=float, default=math.inf, help="training time in all; without --steps it also decides their number")
    p.add_argument("--steps", type=int)
    for name, kind, value in (("seed", int, 1), ("batch", int, 16), ("length", int, 512), ("lr", float, 3e-3), ("warmup", int, 100), ("micro", int, 2)):
        p.add_argument(f"--{name}", type=kind, default=value, help="default %(default)s")
    p.add_argument("--spike-from", type=float, default=1.0, help="share of the steps after which every second micro-batch is read as a spiking model (default: never)")
    p.add_argument("--bf16", action="store_true", help="matrix products in bfloat16")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--eval-tokens", type=int, help="held-out tokens behind the final figures (default: all)")
    p.add_argument("--eval-every", type=int, default=200, help="steps between validations and saves (default %(default)s)")
    args = p.parse_args(argv)
    if args.steps is None and math.isinf(args.minutes):
        p.error("--steps or --minutes: got neither, expected one; give --minutes 120")
    args.config = SMALL
    args.recipe = Recipe(1 if args.steps is None else args.steps, args.seed, args.batch, args.length, args.lr, args.warmup, micro=args.micro, threads=args.threads, spike_from=args.spike_from, bf16=args.bf16)
    check_ranges(vars(args), OF_THE_LOOP | ({} if args.eval_tokens is None else {"eval_tokens": (args.length + 1, 2**31)}))
    return args


@told()
def main(argv: list[str] | None = None) -> None:
    args = arguments(argv)
    torch.set_num_threads(args.threads)
    tokens, held_out = prepare(args.data, args.config.vocab_size)
    t = Trainer(args.config, recipe_of(args, tokens))
    print(f"{sum(p.numel() for p in t.model.parameters()) / 1e6:.2f} M parameters, {len(tokens) / 1e6:.2f} M tokens, {len(held_out) / 1e6:.2f} M held out")
    done = train(t, tokens, held_out, args.data, args.minutes * 60, eval_every=args.eval_every)
    if not done:
        print(f"step {t.step} of {t.r.steps}: the time is over before the schedule; the same command with more --minutes goes on")
    if args.out:
        finish(t, args.data, args.out, tokens, held_out, args.eval_tokens)


def finish(t: Trainer, data: Path, out: Path, tokens: np.ndarray, held_out: np.ndarray, n: int | None = None) -> None:
    """The checkpoint in bf16, and everything measured on what was written, not on the float32 weights."""
    t.model.save_pretrained(out)
    for path in [*(data / "tokenizer").iterdir(), data / "train.jsonl", data / "corpus.json"]:
        (out / path.name).write_bytes(path.read_bytes())
    plot([json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()], out / "loss.png")
    written = Model.from_pretrained(out)
    corpus = json.loads((data / "corpus.json").read_text())
    report = evaluate(written, tokens, held_out[:n], corpus["held_out_bytes"] * len(held_out[:n]) / len(held_out))
    (out / "eval.json").write_text(json.dumps(report, indent=1) + "\n")
    tokenizer = load_tokenizer(out)
    (out / "samples.txt").write_text("\n\n----\n\n".join(write(written, tokenizer, p) for p in OPENINGS) + "\n")
    (out / "README.md").write_text(card(written.config, dataclasses.asdict(t.r), report, corpus["sources"], t.seconds))
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
