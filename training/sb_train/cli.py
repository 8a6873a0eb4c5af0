"""The command sb-train."""

from __future__ import annotations

import argparse
import functools
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

from sb_convert import system
from sb_convert.command import exit_code
from sb_convert.config import Config, ModelConfig
from sb_convert.errors import bad
from sb_convert.sources import import_torch
from sb_convert.tensors import checkpoint_shapes
from sb_convert.version import add_version
from sb_convert.whole_folder import check_folder, whole_folder
from sb_init.write import TEXTS

from .recipe import OF_THE_LOOP, RANGES, Recipe, check_ranges, parse_stages

MAX_SHARD = 5 * 10**9
SMALL = 100 * 10**6  # weights; below it two threads in one operator are slower than two rows at once
EXAMPLES = """\
examples:
  sb-train MODEL -o TRAINED --text a.txt b.txt --steps 2000                       goes on training a checkpoint on these files
  sb-train MODEL -o TRAINED --text corpus.jsonl --teacher BASE --match 0.2 --distill 0.5 --lr 1e-3 --steps 2000
                                                                                  a converted model (sb-init), with the Transformer it was made from as teacher
  sb-train MODEL -o TRAINED --text corpus.jsonl --steps 3000 --length 512 --stages 512:60%,2048:30%,8192:10%
                                                                                  longer and longer rows

Stopped at any time, the same command goes on from the last save.
"""
KINDS = {"lr": float, "warmup": int, "batch": int, "length": int, "micro": int, "piece": int, "decay": float, "clip": float, "seed": int,
         "distill": float, "match": float, "match-lr": float, "spike-from": float, "spike-k": float}


def parser() -> argparse.ArgumentParser:
    """Every option, in groups."""
    p = argparse.ArgumentParser(prog="sb-train", description="Trains a SpikingBrain checkpoint on text: continual pre-training, or distillation from a teacher.",
                                usage="sb-train CHECKPOINT -o OUT --text FILE... --steps N [options]", epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_version(p)
    default = {name: getattr(Recipe, name.replace("-", "_")) for name in KINDS} | {"lr": 1e-3}

    def recipe(g: Any, name: str, text: str) -> None:
        g.add_argument(f"--{name}", type=KINDS[name], default=default[name], metavar="N" if KINDS[name] is int else "X", help=f"{text} (default %(default)s)")
    g = p.add_argument_group("what is trained, and what is written")
    g.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder with config.json, weights and tokenizer (gla_swa; sb-init makes one of a Transformer)")
    g.add_argument("-o", "--out", type=Path, required=True, metavar="OUT", help="folder of the finished checkpoint; it must not exist")
    g.add_argument("--work", type=Path, metavar="FOLDER", help="tokens, state.pt and train.jsonl of the run (default: OUT.work)")
    g.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="of the finished checkpoint (default %(default)s)")
    g.add_argument("--random", action="store_true", help="begin with random weights: of CHECKPOINT only config.json and tokenizer are read")
    g = p.add_argument_group("text")
    g.add_argument("--text", type=Path, nargs="+", required=True, metavar="FILE", help='UTF-8 files, each one document; of a .jsonl file each line\'s "text"')
    g.add_argument("--held-out", type=Path, nargs="+", metavar="FILE", help="text for validation (default: the last 1%% of the tokens, at least one row)")
    g = p.add_argument_group("how long")
    g.add_argument("--steps", type=int, required=True, metavar="N", help="steps of --batch rows of --length tokens")
    g.add_argument("--minutes", type=float, default=math.inf, metavar="X", help="stop after so much training in all; the same command with more goes on")
    g.add_argument("--eval-every", type=int, default=100, metavar="N", help="steps between validations and saves (default %(default)s)")
    recipe(g, "batch", "rows of a step")
    recipe(g, "length", "tokens of a row")
    g.add_argument("--stages", metavar="L:P%,...", help="lengths in turn, each for its share of the steps, with the same tokens per step: 512:60%%,2048:30%%,8192:10%%")
    g = p.add_argument_group("optimiser (AdamW, linear warm-up, then a cosine down to a hundredth)")
    for name, text in (("lr", "largest learning rate"), ("warmup", "steps of warm-up"), ("decay", "weight decay, matrices only"), ("clip", "largest norm of the gradient"), ("seed", "order of the text, and random weights")):
        recipe(g, name, text)
    g = p.add_argument_group("teacher")
    g.add_argument("--teacher", type=Path, metavar="FOLDER", help="checkpoint with the same vocabulary: llama, qwen2, qwen3 or gla_swa")
    recipe(g, "distill", "share of the loss that is the divergence from the teacher's distribution, 0 to 1")
    recipe(g, "match", "share of the steps, the first ones, in which each gla layer learns its teacher's attention; needs a teacher of the same shape")
    recipe(g, "match-lr", "largest learning rate of these steps")
    g = p.add_argument_group("spikes")
    recipe(g, "spike-from", "share of the steps after which every second micro-batch is read as a spiking model, straight-through gradients; 1: never")
    recipe(g, "spike-k", "spike threshold = mean |x| / k")
    g = p.add_argument_group("machine")
    g.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: cuda where there is one)")
    g.add_argument("--bf16", action="store_true", help="matrix products in bfloat16; weights and optimiser stay float32")
    g.add_argument("--threads", type=int, default=system.cpus(), metavar="N", help="of the CPU (default: those this process may use)")
    g.add_argument("--replicas", type=int, metavar="N", help="groups of threads that each compute their share of the rows, with gradients of their own, 4 bytes a weight "
                   f"(default: as many as threads below {SMALL // 10**6} million weights, else 1)")
    recipe(g, "micro", "rows of one forward")
    recipe(g, "piece", "tokens of a row that are computed at a time; longer rows are computed again in the backward pass")
    return p


def main(argv: list[str] | None = None) -> int:
    """The command. 0: done; 1: an error, told in one line; 2: wrong options; 3: the time is over before the last step; 130: interrupted; 141: nobody reads the output."""
    args = parser().parse_args(argv)
    return exit_code("sb-train", lambda: run_in_memory(args), args.out, wanted="readable and writable", unfinished="the same command goes on from the last save")


def run_in_memory(args: argparse.Namespace) -> int:
    """run(), which a GPU's memory may not suffice for: torch says that by a RuntimeError."""
    try:
        return run(args)
    except RuntimeError as e:
        if "memory" not in str(e):
            raise
        print(f"sb-train: memory: got {str(e).splitlines()[0]}, expected it to be enough; give a smaller --micro or --piece", file=sys.stderr)
        return 1


def run(args: argparse.Namespace) -> int:
    """What parsed arguments ask for. ConvertError: why not."""
    recipe, config = checked(args)
    torch = import_torch("sb-train")
    from sb_convert.reference import Model

    from . import data, teacher
    from .trainer import Trainer, train
    device = device_of(args.device)
    torch.set_num_threads(args.threads)
    inner = max(1, args.threads // recipe.threads)
    guide = None if args.teacher is None else teacher.load_teacher(args.teacher, config, args.checkpoint)
    if guide is not None and recipe.match:
        teacher.check_shape(args.teacher, guide.config, config)
    model = None if args.random else Model.from_pretrained(args.checkpoint, spike=None)
    if model is not None and any(name.endswith(".scales") for name in model.state_dict()):
        raise bad(args.checkpoint, "weights", "a W8ASpike checkpoint, with weight scales", "one without", "its scales would not fit the trained weights; train the checkpoint that it was made of")
    work = args.work or args.out.with_name(args.out.name + ".work")
    tokens, held_out, key = texts(args, config, work, recipe.longest)
    data.check_enough(tokens, held_out, recipe)
    inputs = {"checkpoint": data.fingerprint(weights_of(args.checkpoint, args.random)), "text": key,
              "teacher": "" if guide is None else data.fingerprint(weights_of(args.teacher)), "threads of a replica": str(inner)}
    t = Trainer(config, recipe, model, guide, device, inputs, inner)
    print(f"{sum(p.numel() for p in t.model.parameters()) / 1e6:.2f} M parameters on {device}, {len(tokens) / 1e6:.2f} M tokens, {len(held_out) / 1e6:.2f} M held out", flush=True)
    if not train(t, tokens, held_out, work, args.minutes * 60, eval_every=args.eval_every):
        print(f"step {t.step} of {recipe.steps}: the time is over; the same command with more --minutes goes on")
        return 3
    finish(t.model, args, work)
    return 0


def checked(args: argparse.Namespace) -> tuple[Recipe, Config]:
    """Everything that can be wrong before anything is read at length. ConvertError: what is."""
    config = ModelConfig.load(args.checkpoint)
    if not isinstance(config, Config):
        raise bad(args.checkpoint / "config.json", "model_type", repr(config.model_type), "'gla_swa'", "other layouts cannot be trained here")
    check_folder(str(args.out))
    for path in [*args.text, *(args.held_out or [])]:
        if not path.is_file():
            raise bad(path, "text", "no such file", "a UTF-8 text file", "correct --text or --held-out")
    check_ranges(vars(args), OF_THE_LOOP | {"threads": RANGES["threads"]} | ({} if args.replicas is None else {"replicas": (1, args.threads)}))
    for name in ("distill", "match"):
        if getattr(args, name) and args.teacher is None:
            raise bad(f"--{name}", "teacher", "none", "--teacher FOLDER", f"give one, or leave --{name} out")
    if args.teacher is not None and not args.distill and not args.match:
        raise bad("--teacher", "use", "neither --distill nor --match", "one of them", "say what the teacher is for, or leave it out")
    stages = parse_stages(args.stages) if args.stages else ()
    if stages and stages[0][0] != args.length:
        raise bad("--stages", "first length", stages[0][0], f"--length ({args.length})", "give both the same")
    names = [name.replace("-", "_") for name in KINDS] + ["steps", "bf16"]
    large = sum(math.prod(shape) for shape in checkpoint_shapes(config).values()) >= SMALL
    return Recipe(**{name: getattr(args, name) for name in names}, stages=stages, threads=args.replicas or (1 if large else args.threads)), config


def device_of(name: str) -> str:
    """The torch device of --device. ConvertError: one that is not there."""
    import torch
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).item()  # "meta" has no values
    except (RuntimeError, AssertionError) as e:
        raise bad("--device", name, str(e).splitlines()[0], "a device of this machine", "give --device cpu") from None
    return name


def weights_of(folder: Path, config_only: bool = False) -> list[Path]:
    """The files of a checkpoint that decide its weights."""
    names = ["config.json"] if config_only else ["config.json", *sorted(p.name for p in folder.iterdir() if p.suffix in (".safetensors", ".bin"))]
    return [folder / name for name in names]


def texts(args: argparse.Namespace, config: Config, work: Path, longest: int) -> tuple[Any, Any, str]:
    """Tokens to train on and held-out tokens, from work, where they are made the first time; and what they were made of, as a hash."""
    from . import data
    key = data.fingerprint([*args.text, *(args.held_out or []), *data.tokenizer_files(args.checkpoint)]) + f"-{len(args.text)}"
    work.mkdir(parents=True, exist_ok=True)
    made = work / "text.json"
    if not made.is_file() or json.loads(made.read_text()).get("key") != key:
        if (work / "state.pt").is_file():
            raise bad(work, "text", "other files than those with which the run began", "the same", "give the first run's --text, or another --work")
        for old in work.glob("*.bin"):
            old.unlink()
        made.unlink(missing_ok=True)
    encoder = functools.cache(lambda: data.Encoder(args.checkpoint, config, work))
    tokens = data.encoded("train", args.text, encoder, work)
    if args.held_out:
        held_out = data.encoded("held_out", args.held_out, encoder, work)
    else:
        n = max(len(tokens) // 100, 2 * longest + 1)
        tokens, held_out = tokens[:-n], tokens[-n:]
    made.write_text(json.dumps({"key": key, "tokens": len(tokens), "held_out": len(held_out)}) + "\n")
    return tokens, held_out, key


def finish(model: Any, args: argparse.Namespace, work: Path) -> None:
    """The checkpoint, whole or not at all: weights, tokenizer and licence files of the first one, log and curve."""
    import torch
    with whole_folder(args.out) as folder:
        model.to("cpu").save_pretrained(folder, getattr(torch, args.dtype), MAX_SHARD)
        for path in [path for pattern in TEXTS for path in sorted(args.checkpoint.glob(pattern)) if path.is_file()]:
            to = folder / path.relative_to(args.checkpoint)
            to.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, to)
        shutil.copyfile(work / "train.jsonl", folder / "train.jsonl")
        try:
            from .measure import plot
            plot([json.loads(line) for line in (work / "train.jsonl").read_text().splitlines()], folder / "loss.png")
        except ImportError:
            print("no loss.png: matplotlib is not installed")
    print(f"{args.out}: written; {work} can be removed")


if __name__ == "__main__":
    sys.exit(main())
