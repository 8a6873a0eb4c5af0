"""The command sb-convert."""

from __future__ import annotations

import argparse
import logging
import re
from pathlib import Path

from . import adapter, hub, system
from .command import exit_code
from .convert import Options, convert
from .edit import respike
from .formats import DOWN_TYPES, OUTTYPES
from .spike import SCOPES, SpikeOptions
from .version import add_version
from .whole import named


def split_size(text: str) -> int:
    """500M, 2G: bytes, as llama.cpp's tools count them (powers of 1000)."""
    match = re.fullmatch(r"([1-9]\d*)([MG])", text)
    if not match:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number with M or G, such as 2G")
    return int(match[1]) * {"M": 10**6, "G": 10**9}[match[2]]


def spike_k(text: str) -> float:
    """The number that an option names; one that float32 holds, above 0."""
    try:
        k = float(text)
    except ValueError:
        k = 0.0
    if not 1e-30 < k < 1e30:  # float32 in the file
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number above 0, such as 3")
    return k


EXAMPLES = """\
examples:
  sb-convert SpikingBrain-7B -o model.gguf --outtype q4_0        a folder with config.json, weights and tokenizer
  sb-convert ORG/NAME --outtype int8 --spike                     the same from the Hugging Face hub, spiking
  sb-convert model.gguf -o spiking.gguf --spike                  an existing model made spiking
  sb-convert my-adapter --base SpikingBrain-7B -o adapter.gguf   a LoRA adapter, for sb-cli --lora

Then: sb-cli -m model.gguf
"""


def parser() -> argparse.ArgumentParser:
    """Every option, in groups; each has a row in README.md, too."""
    p = argparse.ArgumentParser(prog="sb-convert", description="Converts a SpikingBrain checkpoint to a GGUF file, which the sb-* commands and Python's Llama load.",
                                usage="sb-convert CHECKPOINT [-o OUTFILE] [--outtype TYPE] [--spike] [options]", epilog=EXAMPLES,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    add_version(p)
    p.add_argument("--verbose", action="store_true", help="say more; tracebacks on errors")
    g = p.add_argument_group("what is converted")
    g.add_argument("checkpoint", type=Path, metavar="CHECKPOINT",
                   help="folder with config.json, weights and tokenizer; or ORG/NAME on the Hugging Face hub; or a SpikingBrain GGUF file, to change its spike keys")
    g.add_argument("--base", type=Path, metavar="FOLDER", help="CHECKPOINT is a PEFT LoRA adapter, FOLDER the checkpoint it was trained on: write the adapter that --lora takes")
    g = p.add_argument_group("what is written")
    g.add_argument("-o", "--outfile", metavar="OUTFILE", help="file (or folder) to write; default: NAME-TYPE.gguf in the checkpoint's folder, or here if it was downloaded")
    g.add_argument("--outtype", choices=["auto", *OUTTYPES], default="auto", help="type of the large matrices; auto (the default): the checkpoint's own, int8 with weight scales")
    g.add_argument("--force", action="store_true", help="overwrite an existing output file")
    g.add_argument("--split-max-size", type=split_size, default=0, metavar="N(M|G)", help="split the output into files of at most N megabytes or gigabytes of tensors")
    g.add_argument("--model-name", help="name of the model in the GGUF")
    g.add_argument("--metadata", type=Path, metavar="FILE", help="JSON file of general.* keys that override the model card's")
    g.add_argument("--vocab-only", action="store_true", help="write keys and tokenizer, no tensors")
    g = p.add_argument_group("spikes (a model whose products read integer spike counts)")
    on = g.add_mutually_exclusive_group()
    on.add_argument("--spike", dest="spike", action="store_true", default=None, help="spiking activations (default where the checkpoint has weight scales)")
    on.add_argument("--no-spike", dest="spike", action="store_false", help="ordinary activations for a checkpoint with weight scales")
    g.add_argument("--spike-k", type=spike_k, metavar="K", help="spike threshold = mean |x| / K (default 3)")
    g.add_argument("--spike-scope", choices=SCOPES, help="paper: every projection spikes; released: not the mlp's down projection (default with weight scales)")
    g.add_argument("--spike-down-type", choices=list(DOWN_TYPES), help="type of the down projection in scope released (default f16)")
    g.add_argument("--spike-calibrate", type=Path, metavar="TEXT", help="find the INT8 weight scales on a text file (needs torch)")
    g = p.add_argument_group("checks")
    g.add_argument("--dry-run", action="store_true", help="print the tensors and their sizes; write nothing")
    g.add_argument("--verify", action="store_true", help="check the written file: every tensor, then the logits (needs torch)")
    return p


def main(argv: list[str] | None = None) -> int:
    """The command. 0: written; 1: an error, told in one line; 2: wrong options; 130: interrupted; 141: nobody reads the output."""
    system.utf8_output()
    p = parser()
    args = p.parse_args(argv)
    if args.verify and (args.dry_run or args.vocab_only):
        p.error("--verify: got --dry-run or --vocab-only with it, expected a conversion; give one of them")
    args.spikes = SpikeOptions(args.spike, args.spike_k, args.spike_scope, args.spike_down_type, args.spike_calibrate)
    if args.vocab_only and args.spikes.given():
        p.error(f"--vocab-only: got {args.spikes.given()[0]} with it, expected no option of the tensors; give one of them")
    args.is_gguf = args.checkpoint.is_file()
    if args.is_gguf:
        _check_edit(p, args)
    elif args.base is not None:
        _check_adapter(p, args)
    logging.basicConfig(format="%(message)s", level=logging.INFO if args.verbose else logging.WARNING)
    logging.getLogger("gguf").setLevel(logging.INFO if args.verbose else logging.ERROR)
    return exit_code("sb-convert", lambda: run(args), args.checkpoint, args.verbose)


def _check_edit(p: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Which options have a meaning for a GGUF."""
    names = ("base", "outtype", "split_max_size", "metadata", "model_name", "vocab_only", "verify", "dry_run", "spike_down_type", "spike_calibrate")
    if given := _given(p, args, names):
        p.error(f"{given}: got a GGUF file to read, expected a checkpoint folder; only spike keys can be changed in a GGUF")
    if not args.spikes.given():
        p.error(f"{args.checkpoint}: got a file and nothing to change in it, expected a checkpoint folder; or give --spike")


def _check_adapter(p: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Which options have a meaning for an adapter."""
    if given := next(iter(args.spikes.given()), None) or _given(p, args, ("split_max_size", "vocab_only", "verify")):
        p.error(f"{given}: got --base with it, expected a whole model; an adapter has none of what it changes")
    if args.outtype not in ("auto", *adapter.TYPES):
        p.error(f"--outtype: got {args.outtype} for an adapter, expected auto or one of {', '.join(adapter.TYPES)}; it is small, and read as floats")


def _given(p: argparse.ArgumentParser, args: argparse.Namespace, names: tuple[str, ...]) -> str | None:
    """The first of these options that was given, as it is written."""
    return next((f"--{name.replace('_', '-')}" for name in names if getattr(args, name) != p.get_default(name)), None)


def run(args: argparse.Namespace) -> int:
    """What parsed arguments ask for; returns the exit code. ConvertError: why not."""
    args.outfile = None if args.outfile is None else named(args.outfile)
    download(args)
    if args.is_gguf:
        _say(respike(args.checkpoint, args.outfile, args.spikes, args.force, _say))
        return 0
    if args.verify:  # torch missing is told before the conversion, not after it
        from .verify import check_requirements
        check_requirements()
    options = Options(args.outfile, args.outtype, args.force, args.dry_run, args.split_max_size, args.metadata,
                      args.model_name, args.vocab_only, args.spikes)
    if args.base is not None:
        _say(adapter.convert_adapter(args.checkpoint, args.base, options, _say))
        return 0
    result = convert(args.checkpoint, options, say=_say)
    if args.dry_run:
        return 0
    _say(result.summary())
    if args.verify:
        from .verify import verify
        try:
            return 0 if verify(args.checkpoint, result, _say) else 1
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"{result.files[0].name} was written, but not verified") from None
    return 0


def download(args: argparse.Namespace) -> None:
    """Puts the downloaded folders in the place of names of the hub; what is on the disk wins."""
    if args.base is not None and hub.is_repository(args.base):
        args.base = hub.fetch(str(args.base), _say)
    if not hub.is_repository(args.checkpoint):
        return
    get = hub.fetch if args.base is None else hub.fetch_adapter
    args.checkpoint = hub.fetch(str(args.checkpoint), _say, weights=False) if args.vocab_only else get(str(args.checkpoint), _say)
    args.outfile = Path() if args.outfile is None else args.outfile  # not into the hub's cache


def _say(line: str) -> None:
    print(line, flush=True)
