"""python -m spikingbrain_cpp.demo MODEL: stream text, then one line of figures, measured."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any, Iterator, Optional, Sequence, cast

import numpy as np
from sb_convert.version import add_version

from . import Llama
from .pipes import ends_with_the_reader

PROMPT = "The default value is"
N_SHORT, N_LONG = 10, 10_000  # tokens after which the state is measured


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    p = argparse.ArgumentParser(prog="python -m spikingbrain_cpp.demo", description="Streams text from a GGUF file, "
                                "then says how fast it came and how many bytes of state are allocated.")
    add_version(p)
    p.add_argument("model", help="GGUF file")
    p.add_argument("--prompt", default=PROMPT, help="text to continue (default: %(default)r)")
    p.add_argument("-n", "--n-predict", type=int, default=120, help="most tokens to generate, 0: up to the default limit (default: %(default)s)")
    p.add_argument("--temp", type=float, default=0.7, help="temperature, 0: the likeliest token (default: %(default)s)")
    p.add_argument("--repeat-penalty", type=float, default=1.1, help="above 1: less repetition (default: %(default)s)")
    p.add_argument("-s", "--seed", type=int, default=1, help="seed of sampling, -1: random (default: %(default)s)")
    p.add_argument("-t", "--threads", type=int, help="threads (default: all CPUs this process may use)")
    return p


def stream(llm: Llama, args: argparse.Namespace) -> float:
    """Print the prompt and its continuation; returns generated tokens per second, the prompt's time left out."""
    sys.stdout.write(args.prompt)
    sys.stdout.flush()
    n_before, began = None, 0.0
    chunks = cast(Iterator[dict[str, Any]], llm(args.prompt, max_tokens=args.n_predict, temperature=args.temp, seed=args.seed,
                                                repeat_penalty=args.repeat_penalty, stream=True))
    for chunk in chunks:
        if n_before is None:
            n_before, began = llm.n_evaluated, time.perf_counter()
        sys.stdout.write(chunk["choices"][0]["text"])
        sys.stdout.flush()
    elapsed = time.perf_counter() - began
    sys.stdout.write("\n")
    return (llm.n_evaluated - (n_before or 0)) / elapsed if elapsed else 0.0


def state_after(llm: Llama, n: int) -> int:
    """Bytes of state allocated once the sequence holds n tokens: whole ones, repeated, read in batches."""
    missing = n - llm.n_tokens
    if missing < 0:
        llm.reset()
        missing = n
    text = llm.tokenize(PROMPT.encode())
    llm.eval(np.resize(np.asarray(text, dtype=np.int32), missing))
    return llm.state_bytes()


def size(n: int) -> str:
    """Bytes as MiB or KiB."""
    return f"{n / 2**20:.1f} MiB" if n >= 2**20 else f"{n / 2**10:.1f} KiB"


def main(argv: Optional[Sequence[str]] = None) -> int:
    """The command; returns its exit code: 1 after an error, or where the state has grown."""
    args = parser().parse_args(argv)
    try:
        with Llama(args.model, n_threads=args.threads, n_threads_batch=args.threads) as llm:
            speed = stream(llm, args)
            llm.reset()
            short, long = state_after(llm, N_SHORT), state_after(llm, N_LONG)
            same = short == long
            state = f"{short:,} bytes of state at {N_SHORT} tokens, " + (
                f"the same at {N_LONG:,}" if same else f"{long:,} at {N_LONG:,}")
            print(f"{speed:.1f} tokens/s, model {size(llm.model_size())}, {state}")
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    if not same:
        print(f"demo: state: got {long:,} bytes at {N_LONG:,} tokens, expected {short:,}; report it", file=sys.stderr)
    return 0 if same else 1


if __name__ == "__main__":
    with ends_with_the_reader():
        sys.exit(main())
