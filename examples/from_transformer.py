"""From a Transformer to a SpikingBrain, small: what conversion loses, and how many tokens bring it back.

    python examples/from_transformer.py                  goes on where it stopped; --only H for one run

Trains a Transformer (Qwen2's architecture) on the text of examples/corpus.py, converts it, trains the converted models for a quarter of its tokens
with it as their teacher, and a SpikingBrain from random weights for as many tokens as the Transformer, and for half as many; lets the Transformer
learn for half as many more, and converts that one: a picture and a table in the end.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from corpus import prepare
from train import SMALL, told

from sb_convert.config import Config
from sb_convert.reference import Model, Spike
from sb_init import Choices, init
from sb_init.base import theirs
from sb_train.cli import device_of
from sb_train.match import fit_norms, match_loss
from sb_train.measure import perplexity
from sb_train.recipe import OF_THE_LOOP, Recipe, check_ranges
from sb_train.teacher import load_teacher
from sb_train.trainer import Trainer, train

BATCH, LENGTH = 4, 512
TRANSFORMER = dataclasses.replace(SMALL, attn_layers=tuple(range(SMALL.num_hidden_layers)), sliding_window=LENGTH)
HYBRID = Choices(layers=(1, 3, 5), window=128, forget=(4.0, 512.0))
RANDOM = dataclasses.replace(SMALL, attn_layers=HYBRID.layers, sliding_window=HYBRID.window)
FULL = Choices(layers=TRANSFORMER.attn_layers, window=LENGTH)
EXPERTS = {"n_experts": 4}  # top-1 of four and one shared, as in the paper's Table 13
EVALUATED = 128 * LENGTH    # held-out tokens behind the final figures


@dataclasses.dataclass(frozen=True)
class Run:
    """From random weights of a config, or converted by sb-init's choices. part: share of the Transformer's tokens; spikes: spike-aware from its
    middle; of: the run that it goes on from (config), or whose Transformer it is made from and taught by (choices)."""
    name: str
    start: Config | Choices
    part: float = 1.0
    spikes: bool = False
    of: str = ""

    @property
    def goes_on(self) -> bool:
        """Whether it begins with another run's weights as they are."""
        return isinstance(self.start, Config) and bool(self.of)


RUNS = (
    Run("Transformer", TRANSFORMER),
    Run("H", HYBRID, 0.25, of="Transformer"),
    Run("random", RANDOM),
    Run("random-half", RANDOM, 0.5),
    Run("H+S", HYBRID, 0.25, spikes=True, of="Transformer"),
    Run("M", dataclasses.replace(FULL, **EXPERTS), 0.25, of="Transformer"),
    Run("H+M+S", dataclasses.replace(HYBRID, **EXPERTS), 0.25, spikes=True, of="Transformer"),
    Run("Transformer-long", TRANSFORMER, 0.5, of="Transformer"),
    Run("H-long", HYBRID, 0.25, of="Transformer-long"),
)


def recipe(run: Run, args: argparse.Namespace) -> Recipe:
    """From nothing: a large learning rate. Going on: a smaller one, and another order of the text. Converted: attention matching first, where there
    are gla layers, then a smaller rate."""
    common = Recipe(steps=round(args.tokens * run.part / (BATCH * LENGTH)), batch=BATCH, length=LENGTH, warmup=50, bf16=args.bf16, threads=args.threads,
                    micro=2 if run.spikes else args.micro)  # every second part of a step spikes
    if isinstance(run.start, Config):
        return dataclasses.replace(common, lr=2e-3, seed=2) if run.goes_on else dataclasses.replace(common, lr=3e-3)
    hybrid = run.start.layers == HYBRID.layers
    return dataclasses.replace(common, lr=args.lr, warmup=20, distill=args.distill, match=args.match if hybrid else 0.0, match_lr=args.match_lr,
                               spike_from=0.5 if run.spikes else 1.0)


# --- conversion -----------------------------------------------------------------------------------------------

def save_transformer(model: Model, folder: Path, tokenizer: Path) -> None:
    """Under Hugging Face's names, as Qwen2ForCausalLM."""
    from safetensors.torch import save_file
    c = model.config
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(tokenizer, folder)
    fields = {name: getattr(c, name) for name in ("hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size", "num_attention_heads", "num_key_value_heads", "rope_theta",
                                                  "max_position_embeddings", "tie_word_embeddings", "bos_token_id", "eos_token_id", "initializer_range")}
    (folder / "config.json").write_text(json.dumps({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu", "rms_norm_eps": c.norm_eps,
                                                    "torch_dtype": "float32", **fields}, indent=1) + "\n")
    save_file({theirs(name): p.cpu().contiguous() for name, p in model.state_dict().items()}, folder / "model.safetensors", metadata={"format": "pt"})


# --- runs -----------------------------------------------------------------------------------------------------

def make(run: Run, args: argparse.Namespace, held_out: np.ndarray) -> Trainer:
    """The run's trainer, where it begins; what a converted model is worth there is kept in start.json."""
    folder, base = args.data / run.name, args.data / run.of / "checkpoint"
    if isinstance(run.start, Config):
        model = None
        if run.goes_on:
            model = Model(run.start)
            model.load_state_dict(load_teacher(base, run.start, base).state_dict())
        return Trainer(run.start, recipe(run, args), model, device=args.device)
    brain = folder / "brain"
    if not brain.exists():
        print(init(base, brain, run.start).summary())
    model = Model.from_pretrained(brain)
    teacher = load_teacher(base, model.config, brain)
    t = Trainer(model.config, recipe(run, args), model, teacher, args.device)
    if not (folder / "start.json").is_file():
        (folder / "start.json").write_text(json.dumps(start(t.model, teacher, held_out[:EVALUATED + 1])))
    return t


def start(model: Model, teacher: Model, held_out: np.ndarray) -> dict[str, float]:
    """Perplexity right after conversion, and with nothing but g_norm fitted to the teacher's attention; the error of that attention, before and after."""
    found = {"perplexity": perplexity(model, held_out, LENGTH)}
    if model.config.gla_layers:
        x = torch.from_numpy(held_out[:8 * LENGTH].astype(np.int64)).view(8, LENGTH).to(next(model.parameters()).device)
        other = copy.deepcopy(model)
        fit_norms(other, teacher, x)
        with torch.no_grad():
            found |= {"perplexity_fitted": perplexity(other, held_out, LENGTH), "attention_error": match_loss(model, teacher, x).item(),
                      "attention_error_fitted": match_loss(other, teacher, x).item()}
    return found


def do(run: Run, args: argparse.Namespace, tokens: np.ndarray, held_out: np.ndarray) -> bool:
    """Trains it to its end, or until the time is over; writes its row when done."""
    folder, rows = args.data / run.name, results(args.data)
    if run.of and run.of not in rows:
        raise SystemExit(f"{run.name}: it begins with the end of {run.of}: got no row of that run, expected one in {args.data / 'results.jsonl'}; let it run first")
    folder.mkdir(exist_ok=True)
    t = make(run, args, held_out)
    print(f"{run.name}: {sum(p.numel() for p in t.model.parameters()) / 1e6:.2f} M weights, {t.r.steps} steps of {BATCH * LENGTH} tokens", flush=True)
    if not train(t, tokens, held_out, folder, args.minutes * 60, eval_every=args.eval_every):
        return False
    part = held_out[:EVALUATED + 1]
    row: dict[str, Any] = {"run": run.name, "parameters": sum(p.numel() for p in t.model.parameters()), "tokens": t.tokens, "perplexity": perplexity(t.model, part, LENGTH, None),
           "perplexity_spikes_k3": perplexity(t.model, part, LENGTH, Spike(3.0)), "seconds": round(t.seconds), "device": torch.cuda.get_device_name(t.device) if t.device.type == "cuda" else "cpu", "recipe": dataclasses.asdict(t.r),
           "start": json.loads((folder / "start.json").read_text()) if t.teacher is not None else None,
           "curve": [[r["tokens"], r["val_ppl"]] for r in map(json.loads, (folder / "train.jsonl").read_text().splitlines())]}
    if run.goes_on:
        row |= {"tokens_before": rows[run.of]["tokens"], "curve": [[0, rows[run.of]["curve"][-1][1]], *row["curve"]]}
    if run.start == TRANSFORMER:
        save_transformer(t.model, folder / "checkpoint", args.data / "tokenizer")
    else:
        t.model.save_pretrained(folder / "checkpoint")
    with (args.data / "results.jsonl").open("a") as f:
        f.write(json.dumps(row) + "\n")
    print(f"{run.name}: perplexity {row['perplexity']:.2f}, with spikes {row['perplexity_spikes_k3']:.2f}", flush=True)
    return True


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """Rows of the runs that are finished, in the plan's order; those of runs that it does not have come last."""
    path = folder / "results.jsonl"
    rows = {row["run"]: row for row in map(json.loads, path.read_text().splitlines())} if path.is_file() else {}
    return {run.name: rows[run.name] for run in RUNS if run.name in rows} | rows


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Markdown."""
    def tokens(row: dict[str, Any]) -> str:
        return " + ".join(f"{n / 1e6:.2f}" for n in (row.get("tokens_before"), row["tokens"]) if n)
    lines = ["| run | million weights | million tokens | right after conversion | perplexity | with spikes, k = 3 |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for row in rows.values():
        start = f"{row['start']['perplexity']:.1f}" if row["start"] else ""
        lines.append(f"| {row['run']} | {row['parameters'] / 1e6:.2f} | {tokens(row)} | {start} | {row['perplexity']:.2f} | {row['perplexity_spikes_k3']:.2f} |")
    return "\n".join(lines)


def picture(rows: dict[str, dict[str, Any]], path: Path) -> None:
    """Held-out perplexity against tokens of training, one line per run."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    fig, ax = plt.subplots(figsize=(7, 4.2))
    for i, (name, row) in enumerate(rows.items()):
        begin = [[0, row["start"]["perplexity"]]] if row["start"] else []
        x, y = zip(*begin, *row["curve"])
        ax.plot((np.array(x) + row.get("tokens_before", 0)) / 1e6, y, label=name, color=f"C{i}", linestyle=("-", "-", "--", ":", "-.", (0, (5, 1)))[i % 6])  # some lie on each other
    if "Transformer" in rows:
        ax.axhline(rows["Transformer"]["perplexity"], color="grey", linestyle=":", label="the Transformer's end")
    ax.set(xlabel="million tokens seen", ylabel="held-out perplexity", yscale="log")
    ax.legend()
    fig.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(fig)


@told()
def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, default=Path(__file__).parent / "work", help="corpus, runs, results.jsonl, picture (default: work beside this script)")
    p.add_argument("--tokens", type=float, default=3e6, help="of the Transformer, and of the start from random weights; random-half has half of them, the converted runs a quarter, Transformer-long half as many more (default %(default)g)")
    p.add_argument("--only", choices=[run.name for run in RUNS], nargs="+", help="these runs alone")
    p.add_argument("--minutes", type=float, default=math.inf, help="of a run's training, in all; more goes on")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: cuda where there is one)")
    p.add_argument("--micro", type=int, default=2, help="rows of one forward, of runs without spikes: a GPU takes 4 (default %(default)s)")
    p.add_argument("--bf16", action="store_true", help="matrix products in bfloat16")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--eval-every", type=int, default=50, help="steps between validations and saves (default %(default)s)")
    for name, value in (("lr", 1e-3), ("distill", 0.5), ("match", 0.2), ("match-lr", 3e-3)):
        p.add_argument(f"--{name}", type=float, default=value, help="of the converted runs (default %(default)s)")
    args = p.parse_args(argv)
    args.device = device_of(args.device)
    check_ranges(vars(args), OF_THE_LOOP | {"tokens": (4 * BATCH * LENGTH, 2**40)})  # a step of the shortest runs
    for run in RUNS:
        recipe(run, args)
    torch.set_num_threads(args.threads)
    tokens, held_out = prepare(args.data, SMALL.vocab_size)
    for run in RUNS:
        if run.name not in results(args.data) and (not args.only or run.name in args.only) and not do(run, args, tokens, held_out):
            raise SystemExit(f"{run.name}: the time is over; the same command with more --minutes goes on")
    rows = results(args.data)
    picture(rows, args.data / "from_transformer.png")
    print(table(rows))


if __name__ == "__main__":
    main()
