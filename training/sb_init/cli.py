"""The command sb-init."""

from __future__ import annotations

import argparse
import logging
import re
from pathlib import Path

from sb_convert import hub
from sb_convert.cli import split_size
from sb_convert.command import exit_code
from sb_convert.version import add_version

from .choices import SCALES, Choices
from .init import init

DEFAULT = Choices()
EXAMPLES = """\
examples:
  sb-init Llama-3.2-1B -o brain                       every second layer a window, the others gated linear attention
  sb-init Qwen2.5-0.5B -o brain --layers 3,7,11,15,19,23 --window 2048
  sb-init Qwen3-1.7B -o brain --moe 4                 MLPs upcycled to experts

Then: sb-train (what is made here has yet to learn), sb-convert brain -o brain.gguf, sb-cli -m brain.gguf
"""


def layer_list(text: str) -> tuple[int, ...]:
    """1,3,5 or 0-7,12; `none` for no layer."""
    if text == "none":
        return ()
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", part)
        if not match or match[2] and int(match[2]) < int(match[1]):
            raise argparse.ArgumentTypeError(f"got {text!r}, expected layers from 0 on such as 1,3,5 or 0-7,12, or none")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return tuple(found)


def whole(text: str) -> int:
    """A whole number from 0 on that an int of the files holds."""
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number from 0 to 2147483647")
    return int(text)


def positive(text: str) -> float:
    """A number that has a meaning as a size."""
    try:
        x = float(text)
    except ValueError:
        x = 0.0
    if not 1e-6 <= x <= 1e6:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number from 1e-6 to 1e6")
    return x


def spans(text: str) -> tuple[float, float]:
    """MIN:MAX, or one number for both: tokens."""
    parts = text.split(":")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = []
    if len(values) == 1:
        values *= 2
    if len(values) != 2 or not 1 <= values[0] <= values[1] <= 1e7:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected MIN:MAX in tokens, from 1 to 1e7, such as 1:128")
    return values[0], values[1]


def parser() -> argparse.ArgumentParser:
    """Every option; each has a row in training/README.md, too."""
    p = argparse.ArgumentParser(prog="sb-init", description="Makes a SpikingBrain checkpoint from a Transformer's (Llama, Qwen2, Qwen2.5, Qwen3), to be trained on.",
                                usage="sb-init BASE -o OUT [options]", epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_version(p)
    p.add_argument("--verbose", action="store_true", help="say more; tracebacks on errors")
    g = p.add_argument_group("what is read and written")
    g.add_argument("base", metavar="BASE", help="folder with config.json, safetensors and tokenizer; or ORG/NAME on the Hugging Face hub")
    g.add_argument("-o", "--out", metavar="OUT", required=True, help="folder to make: a checkpoint in the gla_swa format")
    g.add_argument("--max-shard-size", type=split_size, default=DEFAULT.shard_bytes, metavar="N(M|G)", help="at most so many megabytes or gigabytes in a weight file (default 5G)")
    g = p.add_argument_group("attention")
    g.add_argument("--layers", type=layer_list, metavar="LIST", help="layers with a sliding window, from 0 on, such as 1,3,5 or 0-7, or none; all others are gated linear attention "
                   "(default: every second one, from 1 on)")
    g.add_argument("--window", type=whole, metavar="N", help="tokens that such a layer sees (default 4096, or the base's trained length or own window if that is less)")
    g.add_argument("--forget", type=spans, default=DEFAULT.forget, metavar="MIN:MAX", help="tokens after which the states keep 1/e, from a head's fastest channel to its slowest (default 1:128)")
    g.add_argument("--gate-rank", type=whole, default=DEFAULT.gate_rank, metavar="R", help="rank of the gates' projection; 0: one full matrix (default 16)")
    g.add_argument("--norm-scale", type=positive, default=DEFAULT.norm_scale, metavar="X", help="size of a gla layer's output, in sizes of the base's values (default 0.6)")
    g = p.add_argument_group("experts")
    g.add_argument("--moe", type=whole, default=0, metavar="E", help="upcycle MLPs to E routed experts, of which each token takes one, and a shared one")
    g.add_argument("--moe-layers", type=layer_list, metavar="LIST", help="layers that get them (default: all)")
    g.add_argument("--moe-scale", choices=SCALES, default=DEFAULT.moe_scale, help="paper (the default): every matrix times alpha, the routed expert times its probability; "
                   "down: the down projections alone times 1/2 and the routed expert's weight 1, which computes what the dense MLP does")
    g.add_argument("--router-std", type=positive, default=DEFAULT.router_std, metavar="X", help="standard deviation of the drawn routers' logits (default 0.1)")
    g.add_argument("--seed", type=whole, default=DEFAULT.seed, metavar="N", help="of what is drawn: gates and routers (default 0)")
    return p


def choices_of(p: argparse.ArgumentParser, args: argparse.Namespace) -> Choices:
    """The options as Choices; one that has no meaning beside the others ends the program."""
    for name in ("moe_layers", "moe_scale", "router_std"):
        if not args.moe and getattr(args, name) != p.get_default(name):
            p.error(f"--{name.replace('_', '-')}: got it without --moe, expected experts; add --moe E, or leave it out")
    return Choices(args.layers, args.window, args.forget, args.gate_rank, args.norm_scale, args.moe, args.moe_layers, args.moe_scale, args.router_std, args.seed, args.max_shard_size)


def main(argv: list[str] | None = None) -> int:
    """The command. 0: written; 1: an error, told in one line; 2: wrong options; 130: interrupted; 141: nobody reads the output."""
    p = parser()
    args = p.parse_args(argv)
    choices = choices_of(p, args)
    logging.basicConfig(format="%(message)s", level=logging.INFO if args.verbose else logging.WARNING)

    def run() -> int:
        base = Path(args.base)
        if hub.is_repository(base):
            base = hub.fetch(args.base, _say)
        _say(init(base, args.out, choices, _say).summary())
        return 0

    return exit_code("sb-init", run, args.base, args.verbose)


def _say(line: str) -> None:
    print(line, flush=True)
