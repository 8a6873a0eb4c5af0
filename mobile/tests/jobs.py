"""What the tests let the package do, on this machine or under qemu: `python jobs.py JOBS.json` prints one JSON list of answers.

A job is {"do": NAME, ...arguments of the function of that name below}. One process does many: starting Python takes seconds there.
"""

from __future__ import annotations

import json
import platform
import re
import sys
from pathlib import Path
from typing import Any, Callable

import numpy as np

from spikingbrain_cpp import Llama, system_info

ONE = {"n_threads": 1, "n_threads_batch": 1, "verbose": False}


def info() -> dict[str, Any]:
    """The machine as Python sees it, the CPU library that was loaded, and system_info()."""
    maps = Path("/proc/self/maps").read_text()
    return {"machine": platform.machine(), "libraries": sorted(set(re.findall(r"libggml-cpu-(\S+)\.so", maps))), **system_info()}


def go_on(llm: Llama, n: int) -> list[int]:
    """n greedy tokens after what llm has read."""
    out: list[int] = []
    while len(out) < n:
        out.append(int(llm.logits.argmax()))
        llm.eval(out[-1:])
    return out


def greedy(model: str, prompt: str, n: int) -> dict[str, Any]:
    """n greedy tokens as ids and text; margin: the least distance of the two best logits on the way."""
    with Llama(model, **ONE) as llm:
        llm.eval(llm.tokenize(prompt.encode()))
        out, margin = [], float("inf")
        for _ in range(n):
            best = np.partition(llm.logits, -2)[-2:]
            margin = min(margin, float(best[1] - best[0]))
            out += go_on(llm, 1)
        return {"tokens": out, "text": llm.detokenize(out).decode("utf-8", "replace"), "margin": margin}


def logits(model: str, tokens: list[int], piece: int, out: str) -> None:
    """float32 [n_tokens, n_vocab] to `out`, tokens evaluated `piece` at a time."""
    with Llama(model, logits_all=True, **ONE) as llm:
        for i in range(0, len(tokens), piece):
            llm.eval(tokens[i:i + piece])
        np.save(out, llm.scores)


def save(model: str, prompt: str, snapshot: str, n: int) -> dict[str, Any]:
    """Writes a snapshot after the prompt, then goes on for n tokens."""
    with Llama(model, **ONE) as llm:
        llm.eval(llm.tokenize(prompt.encode()))
        llm.snapshot(snapshot)
        return {"n_tokens": llm.n_tokens, "tokens": go_on(llm, n)}


def restore(model: str, snapshot: str, again: str, n: int) -> dict[str, Any]:
    """Reads a snapshot, writes it to `again`, goes on for n tokens; n_evaluated counts from the start to the second snapshot."""
    with Llama(model, **ONE) as llm:
        llm.restore(snapshot)
        llm.snapshot(again)
        return {"n_evaluated": llm.n_evaluated, "n_tokens": llm.n_tokens, "tokens": go_on(llm, n)}


def convert(words: list[str]) -> int:
    """sb-convert with these arguments; its exit code."""
    from sb_convert.cli import main

    return main(words) or 0


JOBS: dict[str, Callable[..., Any]] = {f.__name__: f for f in (info, greedy, logits, save, restore, convert)}


def main(path: str) -> None:
    jobs = json.loads(Path(path).read_text())
    print("\n" + json.dumps([JOBS[job.pop("do")](**job) for job in jobs]))


if __name__ == "__main__":
    main(sys.argv[1])
