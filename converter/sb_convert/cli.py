"""The command sb-convert."""

from __future__ import annotations

import argparse
import logging
import re
import signal
import sys
from pathlib import Path

from .convert import Options, convert
from .errors import ConvertError
from .formats import OUTTYPES


def split_size(text: str) -> int:
    """500M, 2G: bytes, as llama.cpp's tools count them (powers of 1000)."""
    match = re.fullmatch(r"([1-9]\d*)([MG])", text)
    if not match:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number with M or G, as 2G")
    return int(match[1]) * {"M": 10**6, "G": 10**9}[match[2]]


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="sb-convert", description="Converts a SpikingBrain checkpoint folder to a GGUF file.")
    p.add_argument("checkpoint", type=Path, metavar="CHECKPOINT_DIR", help="folder with config.json, weights and tokenizer")
    p.add_argument("-o", "--outfile", type=Path, help="file (or folder) to write; default: NAME-TYPE.gguf in the checkpoint's folder")
    p.add_argument("--outtype", choices=["auto", *OUTTYPES], default="auto", help="type of the large matrices; auto: the checkpoint's own (default)")
    p.add_argument("--force", action="store_true", help="overwrite an existing output file")
    p.add_argument("--dry-run", action="store_true", help="print the tensors and their sizes; write nothing")
    p.add_argument("--split-max-size", type=split_size, default=0, metavar="N(M|G)", help="split the output into files of at most N megabytes or gigabytes of tensors")
    p.add_argument("--metadata", type=Path, metavar="FILE", help="JSON file of general.* keys that override the model card's")
    p.add_argument("--model-name", help="name of the model in the GGUF")
    p.add_argument("--vocab-only", action="store_true", help="write keys and tokenizer, no tensors")
    p.add_argument("--verify", action="store_true", help="check the written file: every tensor, then the logits (needs torch)")
    p.add_argument("--verbose", action="store_true", help="say more; tracebacks on errors")
    return p


def main(argv: list[str] | None = None) -> int:
    p = parser()
    args = p.parse_args(argv)
    if args.verify and (args.dry_run or args.vocab_only):
        p.error("--verify: got --dry-run or --vocab-only with it, expected a conversion; give one of them")
    logging.basicConfig(format="%(message)s", level=logging.INFO if args.verbose else logging.WARNING)
    logging.getLogger("gguf").setLevel(logging.INFO if args.verbose else logging.ERROR)
    for end in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(end, _terminated)
    try:
        return run(args)
    except (ConvertError, MemoryError) as e:
        if args.verbose:
            raise
        print(f"sb-convert: {e or 'out of memory'}", file=sys.stderr)
        return 1
    except OSError as e:
        if args.verbose:
            raise
        print(f"sb-convert: {e.filename or args.checkpoint}: file: got {e.strerror}, expected it to be readable; check path, rights and disk", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("sb-convert: interrupted; nothing was written", file=sys.stderr)
        return 130


def _terminated(*_: object) -> None:
    raise KeyboardInterrupt


def run(args: argparse.Namespace) -> int:
    if args.verify:  # torch missing is told before the conversion, not after it
        from .verify import check_requirements
        check_requirements()
    options = Options(args.outfile, args.outtype, args.force, args.dry_run, args.split_max_size, args.metadata,
                      args.model_name, args.vocab_only)
    result = convert(args.checkpoint, options, say=_say)
    if args.dry_run:
        return 0
    print(result.summary())
    if args.verify:
        from .verify import verify
        return 0 if verify(args.checkpoint, result, _say) else 1
    return 0


def _say(line: str) -> None:
    print(line, flush=True)
