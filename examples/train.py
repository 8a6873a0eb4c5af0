"""Trains the example: a small SpikingBrain on the text of examples/corpus.py, with sb_convert.reference as the model.

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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from card import card
from corpus import load_tokenizer, prepare
from make_example import SPECIAL
from ngram import KneserNey
from torch import Tensor

from sb_convert import reference
from sb_convert.config import Config
from sb_convert.constants import DEFAULT_K
from sb_convert.reference import Model, Spike, State

VOCAB_SIZE = 4096
SMALL = Config(hidden_size=256, num_hidden_layers=6, intermediate_size=512, vocab_size=VOCAB_SIZE, num_attention_heads=4,
               num_key_value_heads=2, attn_layers=(1, 3, 5), sliding_window=128, rope_theta=1e4, norm_eps=1e-6,
               max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=VOCAB_SIZE - len(SPECIAL),
               eos_token_id=VOCAB_SIZE - len(SPECIAL), initializer_range=0.02)
VALIDATION = 64 * 512  # held-out tokens behind each point of the curve; the final figure takes all of them
OPENINGS = ("The following example", "def ", "Returns the", "A Debian package")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What decides the weights, besides data and model. Tokens per step: batch * length."""
    steps: int
    seed: int = 1
    batch: int = 16
    length: int = 512
    lr: float = 3e-3
    warmup: int = 100
    decay: float = 0.1         # AdamW's, matrices only
    clip: float = 1.0
    micro: int = 2             # rows per forward: larger ones leave the caches, and are slower
    threads: int = 2           # each computes its share of the rows; two threads in one operator would be slower
    spike_from: float = 1.0    # share of the steps after which every second micro-batch is read as a spiking model
    spike_k: float = DEFAULT_K
    bf16: bool = False         # matrix products of forward and backward; weights and optimiser stay float32


# --- model ----------------------------------------------------------------------------------------------------

def new_model(config: Config, seed: int) -> Model:
    """Normal(0, initializer_range) as in the checkpoint's config; the projections into the residual stream smaller by
    sqrt(2 n_layer) (GPT-2); gate biases spread over [0, 5], so that the states forget in 23 to 2400 tokens."""
    model = Model(config).init_weights(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                p /= math.sqrt(2 * config.num_hidden_layers)
            if name.endswith(("gk_proj.1.bias", "gk_proj.bias")):
                p.copy_(torch.linspace(0, 5, config.head_dim).repeat(config.num_key_value_heads))
    return model


def sharing(model: Model) -> Model:
    """The same weights in the same memory, with gradients of their own."""
    other = Model(model.config)
    for mine, theirs in zip(other.parameters(), model.parameters()):
        mine.data = theirs.data
    return other


def straight_through(rounded: Any) -> Any:
    """The rounding forward, the identity backward (section 3.3.1); without gradients the plain rounding."""
    return lambda x, *a: x + (rounded(x, *a) - x).detach() if torch.is_grad_enabled() else rounded(x, *a)


def set_spiking(model: Model, spike: Spike | None) -> None:
    """Turns a float model into a spiking one of scope `paper`, or back."""
    for m in model.modules():
        if hasattr(m, "spike"):
            m.spike = spike


def with_gradients() -> None:
    if not hasattr(reference.spiked, "rounded"):
        for name in ("spiked", "rounded_int8"):
            rounded = getattr(reference, name)
            smooth = straight_through(rounded)
            smooth.rounded = rounded
            setattr(reference, name, smooth)


# --- data -----------------------------------------------------------------------------------------------------

def batch_at(tokens: np.ndarray, step: int, r: Recipe) -> Tensor:
    """Batch [B, T + 1] of a step: a function of the seed and the step alone. Each epoch cuts the text at other places
    and takes the pieces in another order."""
    per_epoch = (len(tokens) - r.length - 1) // r.length // r.batch
    epoch, i = divmod(step, per_epoch)
    rng = np.random.default_rng((r.seed, epoch))
    shift, order = rng.integers(r.length), rng.permutation(per_epoch * r.batch)
    starts = shift + order[i * r.batch:(i + 1) * r.batch] * r.length
    return torch.from_numpy(np.stack([tokens[s:s + r.length + 1] for s in starts]).astype(np.int64))


def learning_rate(step: int, r: Recipe) -> float:
    """Linear warm-up, then a cosine down to a hundredth."""
    if step < r.warmup:
        return r.lr * (step + 1) / r.warmup
    done = (step - r.warmup) / max(1, r.steps - r.warmup)
    return r.lr * (0.01 + 0.99 * (1 + math.cos(math.pi * min(1.0, done))) / 2)


# --- training -------------------------------------------------------------------------------------------------

class Trainer:
    """Model, optimiser and step; saved and loaded as one file."""

    def __init__(self, config: Config, recipe: Recipe):
        self.r, self.step, self.seconds = recipe, 0, 0.0
        torch.manual_seed(recipe.seed)
        self.model = new_model(config, recipe.seed)
        matrices = [p for p in self.model.parameters() if p.dim() == 2]
        others = [p for p in self.model.parameters() if p.dim() != 2]
        self.replicas = [self.model, *(sharing(self.model) for _ in range(recipe.threads - 1))]
        self.pool = ThreadPoolExecutor(recipe.threads)
        self.optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": recipe.decay}, {"params": others, "weight_decay": 0.0}],
                                           lr=recipe.lr, betas=(0.9, 0.95), eps=1e-8)

    @property
    def spikes(self) -> bool:
        return self.step >= self.r.spike_from * self.r.steps

    def train_step(self, tokens: np.ndarray) -> float:
        x = batch_at(tokens, self.step, self.r)
        if self.spikes:
            with_gradients()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.r)
        micro = list(enumerate(x.split(self.r.micro)))
        shares = [self.pool.submit(self.backward, model, micro[i::self.r.threads], len(x)) for i, model in enumerate(self.replicas)]
        total = sum(share.result() for share in shares)
        for others in zip(*(model.parameters() for model in self.replicas)):
            for p in others[1:]:
                if p.grad is not None:  # fewer micro-batches than threads
                    others[0].grad += p.grad
                p.grad = None
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.r.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return total

    def backward(self, model: Model, micro: list[tuple[int, Tensor]], n_rows: int) -> float:
        """Adds the gradients of these micro-batches to the model's; returns their share of the mean loss."""
        torch.set_num_threads(1)  # of this thread's own operators
        total = 0.0
        for i, rows in micro:
            set_spiking(model, Spike(self.r.spike_k) if self.spikes and i % 2 else None)
            with torch.autocast("cpu", torch.bfloat16, enabled=self.r.bf16):
                logits, _ = model(rows[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten()) * (len(rows) / n_rows)
            loss.backward()
            total += loss.item()
        set_spiking(model, None)
        return total

    def save(self, path: Path) -> None:
        part = path.with_suffix(".part")
        torch.save({"recipe": dataclasses.asdict(self.r), "step": self.step, "seconds": self.seconds, "rng": torch.get_rng_state(),
                    "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}, part)
        os.replace(part, path)

    def load(self, path: Path) -> None:
        saved = torch.load(path, weights_only=True)
        if saved["recipe"] != dataclasses.asdict(self.r):
            raise SystemExit(f"{path}: recipe: got {saved['recipe']}, expected {dataclasses.asdict(self.r)}; give the first run's options, or another --data")
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["rng"])
        self.step, self.seconds = saved["step"], saved["seconds"]


def train(t: Trainer, tokens: np.ndarray, held_out: np.ndarray, folder: Path, until: float = math.inf, stop_at: int | None = None,
          eval_every: int = 200, bar: bool = True) -> bool:
    """Goes on to the last step, or to `stop_at`, or for `until` seconds of training in all; True if done. Writes folder/state.pt
    and folder/train.jsonl. Rows of steps that a lost run made after its last save are dropped."""
    from tqdm import tqdm
    state, log = folder / "state.pt", folder / "train.jsonl"
    if state.is_file():
        t.load(state)
    rows = [r for r in map(json.loads, log.read_text().splitlines()) if r["step"] <= t.step] if log.is_file() and t.step else []
    log.write_text("".join(json.dumps(r) + "\n" for r in rows))
    losses: list[float] = []
    end = min(t.r.steps, stop_at or t.r.steps)
    with tqdm(total=t.r.steps, initial=t.step, unit="step", disable=None if bar else True) as progress:
        while t.step < end and t.seconds < until:
            begun = time.perf_counter()
            losses.append(t.train_step(tokens))
            progress.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
            progress.update()
            last = t.step == end
            if t.step % eval_every == 0 or last:
                row = {"step": t.step, "tokens": t.step * t.r.batch * t.r.length, "train_loss": round(float(np.mean(losses)), 4),
                       "val_ppl": round(perplexity(t.model, held_out[:VALIDATION + 1], t.r.length), 3), "lr": learning_rate(t.step - 1, t.r), "spikes": t.spikes}
                losses = []
            t.seconds += time.perf_counter() - begun
            if t.step % eval_every == 0 or last:
                with log.open("a") as f:
                    f.write(json.dumps({**row, "seconds": round(t.seconds, 1)}) + "\n")
                tqdm.write(f"step {row['step']}/{t.r.steps}  train {row['train_loss']:.3f}  val ppl {row['val_ppl']:.2f}  {t.seconds / 60:.1f} min")
                t.save(state)
    t.save(state)
    return t.step == t.r.steps


# --- measures -------------------------------------------------------------------------------------------------

@torch.no_grad()
def losses_of(model: Model, tokens: np.ndarray, length: int, piece: int | None = None, reset: bool = False) -> Tensor:
    """Loss of each token [N, length], in rows of `length` predictions that start without state; read in pieces of `piece`
    tokens. reset: the GLA states are emptied at the start of every piece; the windows stay."""
    n = (len(tokens) - 1) // length
    ids = torch.from_numpy(tokens[:n * length + 1].astype(np.int64))
    x, y, out = ids[:-1].view(n, length), ids[1:].view(n, length), []
    for xs, ys in zip(x.split(16), y.split(16)):
        state, row = None, []
        for a, b in zip(xs.split(piece or length, 1), ys.split(piece or length, 1)):
            if state is not None and reset:
                state = State(state.n, [None if model.config.is_gla(il) else s for il, s in enumerate(state.layers)])
            logits, state = model(a, state)
            row.append(F.cross_entropy(logits.float().transpose(1, 2), b, reduction="none"))
        out.append(torch.cat(row, 1))
    return torch.cat(out)


def perplexity(model: Model, tokens: np.ndarray, length: int = 512, spike: Spike | None | str = "as it is") -> float:
    before = model.spike
    if spike != "as it is":
        set_spiking(model, spike)
    loss = losses_of(model, tokens, length).mean().exp().item()
    set_spiking(model, before)
    return loss


def beyond_window(model: Model, tokens: np.ndarray, length: int = 512) -> list[dict[str, float]]:
    """Mean loss per stretch of one window, with the GLA states intact and with them emptied at each window's edge."""
    w = model.config.sliding_window
    intact, reset = (losses_of(model, tokens, length, w, r).mean(0) for r in (False, True))
    return [{"from": a, "to": min(a + w, length), "intact": round(intact[a:a + w].mean().item(), 4), "reset": round(reset[a:a + w].mean().item(), 4)}
            for a in range(0, length, w)]


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


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    fig, ax = plt.subplots(figsize=(7, 4))
    x = [r["tokens"] / 1e6 for r in rows]
    ax.plot(x, [r["train_loss"] for r in rows], label="training (mean since the last point)")
    ax.plot(x, [math.log(r["val_ppl"]) for r in rows], label="held out")
    spiking = [r["tokens"] / 1e6 for r in rows if r["spikes"]]
    if spiking:
        ax.axvline(spiking[0], color="grey", linestyle=":", label="spike-aware from here")
    ax.set(xlabel="million tokens", ylabel="loss (nats per token)")
    ax.legend()
    fig.savefig(path, dpi=100, bbox_inches="tight")
    plt.close(fig)


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
    r = Recipe(args.steps or 1, args.seed, args.batch, args.length, args.lr, args.warmup, micro=args.micro, threads=args.threads, spike_from=args.spike_from, bf16=args.bf16)
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
    if not args.steps and math.isinf(args.minutes):
        p.error("--steps or --minutes: got neither, expected one; give --minutes 120")
    args.config = SMALL
    return args


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
