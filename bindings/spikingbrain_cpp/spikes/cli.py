"""sb-spikes MODEL.gguf --text FILE: what the projections are fed, as tables, JSON, pictures and one HTML page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Optional, Sequence, Union

import numpy as np
from sb_convert.version import add_version
from sb_convert.whole import WholeFiles, targets

from .. import Llama
from ..pipes import ends_with_the_reader
from . import plots, report
from .stats import SpikeStats

N_TOKENS = 1024
PIECE = 64  # tokens between two moves of the progress bar
PICTURES = ("counts.png", "firing.png", "experts.png")  # the last of a model with experts alone


def _above_0(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected an integer above 0")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    p = argparse.ArgumentParser(prog="sb-spikes", description="Runs a text through a spiking model and tells its spike counts: shares, "
                                "sparsity, energy estimate, per projection and layer, beside the paper's figures; of a model with experts, which were chosen.")
    add_version(p)
    p.add_argument("model", metavar="MODEL.gguf", help="a SpikingBrain model; one that does not spike needs --spike")
    p.add_argument("--text", required=True, metavar="FILE", help="text in UTF-8 to run, - for standard input")
    p.add_argument("-n", "--n-tokens", type=_above_0, default=N_TOKENS, metavar="N", help="most tokens of it (default: %(default)s)")
    p.add_argument("--json", metavar="OUT", help="write all statistics as JSON, - to standard output in place of the tables")
    p.add_argument("--png", type=Path, metavar="DIR", help="write counts.png (Fig. 9) and firing.png (Fig. 10) there, and experts.png of a model "
                   "with experts; needs matplotlib")
    p.add_argument("--html", metavar="OUT", help="write one HTML page with tables and pictures; needs matplotlib")
    p.add_argument("--layer", type=int, metavar="L", help="layer whose q, k, v input the firing maps show (default: the middle one)")
    p.add_argument("--spike", action="store_true", help="let a model spike that does not by itself")
    p.add_argument("--spike-k", type=float, metavar="K", help="threshold = mean |x| / K (default: the model's, else 3)")
    p.add_argument("-t", "--threads", type=_above_0, help="threads (default: all CPUs this process may use)")
    return p


def main(argv: Optional[Sequence[str]] = None) -> int:
    """0: done; 1: an error, told in a line on stderr; 2: wrong arguments; 130: interrupted."""
    args = parser().parse_args(argv)
    try:
        check_outputs(args)
        if args.png or args.html:
            plots.require_matplotlib()  # before the model runs, not after
        stats = measure(args, read_text(args.text))
        write(args, stats)
    except (OSError, ImportError, RuntimeError, TypeError, ValueError) as error:
        print(f"sb-spikes: {explain(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("sb-spikes: interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


def read_text(name: str) -> bytes:
    """The bytes of a file, or of standard input for -. ValueError: no UTF-8."""
    data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: got byte {error.object[error.start]:#04x} at {error.start}, expected UTF-8; convert the text") from None
    return data


def outputs(args: argparse.Namespace) -> dict[str, Union[str, Path]]:
    """What may be written -> the file it goes to, as it was typed."""
    files: dict[str, Union[str, Path]] = {} if args.json in (None, "-") else {"json": args.json}
    if args.png is not None:
        files |= {name: args.png / name for name in PICTURES}
    return files if args.html is None else {**files, "html": args.html}


def inputs(args: argparse.Namespace) -> list[str]:
    """The files that the call reads."""
    return [args.model] if args.text == "-" else [args.model, args.text]


def check_outputs(args: argparse.Namespace) -> None:
    """What cannot be written is said before the model runs."""
    if args.png is not None:
        args.png.mkdir(parents=True, exist_ok=True)
    targets(outputs(args).values(), inputs(args))


def check_layer(layer: Optional[int], n_layer: int) -> None:
    """ValueError: no layer of the model."""
    if layer is not None and not 0 <= layer < n_layer:
        raise ValueError(f"--layer: got {layer}, expected 0 to {n_layer - 1}")


def measure(args: argparse.Namespace, text: bytes) -> SpikeStats:
    """Runs the text; the statistics of its first n_tokens tokens."""
    from tqdm import tqdm  # type: ignore[import-untyped]
    keep = (plots.MAP_TOKENS, 2**31 - 1) if args.png or args.html else None
    with Llama(args.model, spike=True if args.spike else None, spike_k=args.spike_k, spike_stats=True, spike_keep=keep,
               n_threads=args.threads, n_threads_batch=args.threads) as llm:
        check_layer(args.layer, int(llm.metadata["spikingbrain.block_count"]))
        tokens = llm.tokenize(text)
        if not tokens:
            raise ValueError(f"{args.text}: got no tokens, expected a text; give another file")
        if len(tokens) > args.n_tokens:
            print(f"sb-spikes: the first {args.n_tokens:,} of {len(tokens):,} tokens; --n-tokens takes more", file=sys.stderr)
        tokens = tokens[:args.n_tokens]
        with tqdm(total=len(tokens), unit="token", disable=not sys.stderr.isatty()) as bar:
            for at in range(0, len(tokens), PIECE):
                piece = tokens[at:at + PIECE]
                llm.eval(piece)
                bar.update(len(piece))
        return llm.spike_stats()


def pictures(args: argparse.Namespace, stats: SpikeStats) -> list[tuple[str, str, bytes]]:
    """(file name, caption, PNG)"""
    layer = args.layer if args.layer is not None else stats.layers[len(stats.layers) // 2]
    shown = next(i for i in stats.inputs if i.layer == layer)
    if not shown.kept.size:
        raise ValueError(f"layer {layer}: got no row that could be encoded, expected numbers; check the model's weights")
    neurons = plots.typical_neurons(shown.kept)
    what = (f"layer {layer}, input of {', '.join(shown.projections)}: the first {len(shown.kept)} tokens, neurons {neurons.start} to {neurons.stop - 1} "
            f"of {shown.n:,} (a typical window; largest count of all neurons: {np.abs(shown.kept.astype(np.int64)).max():,})")
    drawn = [(PICTURES[0], "Distribution of counts (the paper's Fig. 9)", plots.count_distribution(stats.model(), stats.k, stats.n_tokens)),
             (PICTURES[1], "The same input under four codings (the paper's Fig. 10)", plots.firing_maps(shown.kept[:, neurons], what, neurons.start))]
    if stats.experts:
        drawn.append((PICTURES[2], "Which experts the tokens chose", plots.expert_choices(stats.experts)))
    return drawn


def write(args: argparse.Namespace, stats: SpikeStats) -> None:
    """Prints the tables, or JSON, and writes the files that were asked for."""
    drawn = pictures(args, stats) if args.png or args.html else []
    if args.json == "-":
        print(stats.to_json())
    else:
        print(f"{Path(args.model).name}: {stats.n_tokens:,} tokens, k = {stats.k:g}, scope {stats.scope}\n\n{report.text(stats)}")
    made = {name: png for name, _, png in drawn} | {"json": (stats.to_json() + "\n").encode()}
    if args.html is not None:
        source = None if args.text == "-" else Path(args.text).name
        made["html"] = report.page(stats, Path(args.model).name, [(caption, png) for _, caption, png in drawn], source).encode()
    with WholeFiles() as files:
        for what, path in outputs(args).items():
            if what in made:
                files.begin(path, inputs(args)).write(made[what])
        files.commit()


def explain(error: BaseException) -> str:
    """A failed open or write in the form of the other messages."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: got {error.strerror}, expected to read or write it; check the path"
    return str(error)


def command() -> int:
    """The entry point sb-spikes."""
    with ends_with_the_reader():
        return main()


if __name__ == "__main__":
    sys.exit(command())
