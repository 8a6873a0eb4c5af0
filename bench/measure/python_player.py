"""A player in Python: `Llama` of the installed package behind the driver's protocol, `python -m bench.measure.python_player`.

Two clock reads around each call that computes, Context.decode and Sampler.sample of `_core`, say what is not Python's. All other time
between two tokens is: arguments, history, text, locks, the small calls into `_core`, and the clock reads themselves."""

from __future__ import annotations

import contextlib
import functools
import json
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from spikingbrain_cpp import Llama, _core

COMPUTES = ((_core.Context, "decode"), (_core.Sampler, "sample"))
Seconds = dict[str, float]


def timed(method: Callable[..., Any], name: str, seconds: Seconds) -> Callable[..., Any]:
    """The method, adding to seconds[name] what each call takes."""
    clock = time.perf_counter

    @functools.wraps(method)
    def call(*args: Any) -> Any:
        begin = clock()
        try:
            return method(*args)
        finally:
            seconds[name] += clock() - begin
    return call


@contextlib.contextmanager
def inside() -> Iterator[Seconds]:
    """Seconds spent in each method of COMPUTES, as they grow while the block runs."""
    seconds = {name: 0.0 for _, name in COMPUTES}
    plain = [(cls, name, getattr(cls, name)) for cls, name in COMPUTES]
    for cls, name, method in plain:
        setattr(cls, name, timed(method, name, seconds))
    try:
        yield seconds
    finally:
        for cls, name, method in plain:
            setattr(cls, name, method)


class PythonPlayer:
    """One model. Each command is a method; arguments and answer are JSON objects."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(1)

    def load(self, path: str, n_threads: int) -> dict[str, Any]:
        self.llama = Llama(path, n_threads=n_threads, n_threads_batch=n_threads, seed=1, verbose=False)
        return {"n_vocab": self.llama.n_vocab(), "state_bytes": self.llama.state_bytes()}

    def memory(self) -> dict[str, Any]:
        lines = Path("/proc/self/status").read_text().splitlines()
        return {"peak": next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))}

    def prefill(self, n: int) -> dict[str, Any]:
        """Begins with n tokens; which ones does not matter."""
        self.llama.reset()
        self.llama.eval(self.rng.integers(0, self.llama.n_vocab(), n, dtype=np.int32))
        return {}

    def tokens(self, how: str, n: int, seconds: float, parts: bool) -> dict[str, Any]:
        """n tokens after one that is not counted, fewer where the seconds are over: the time of all, with `parts` that in COMPUTES, too.

        how: "generate", or "stream": the chunks of a completion; one that the model ends is followed by another."""
        sums: Seconds = {}
        count = 0
        while count < n and sums.get("seconds", 0.0) < seconds:
            new, spent = self._stretch(how, n - count, seconds - sums.get("seconds", 0.0), parts)
            count += new
            sums = {name: sums.get(name, 0.0) + value for name, value in spent.items()}
        return {"tokens": count, **sums}

    def _items(self, how: str) -> Generator[Any, None, None]:
        """What one call of the public interface yields; it goes on where the sequence is."""
        ids = [*self.llama.input_ids.tolist(), int(self.rng.integers(self.llama.n_vocab()))]
        return self.llama.generate(ids) if how == "generate" else self.llama(ids, max_tokens=None, stream=True)  # type: ignore[return-value]

    def _stretch(self, how: str, n: int, seconds: float, parts: bool) -> tuple[int, Seconds]:
        clocks: contextlib.AbstractContextManager[Seconds] = inside() if parts else contextlib.nullcontext({})
        with clocks as spent, contextlib.closing(self._items(how)) as items:
            next(items)
            n0, before, begin = self.llama.n_tokens, dict(spent), time.perf_counter()
            end, after = begin, before
            for _ in items:
                end, after = time.perf_counter(), dict(spent)
                if self.llama.n_tokens - n0 >= n or end - begin > seconds:
                    break
            return self.llama.n_tokens - n0, {"seconds": end - begin, **{k: after[k] - before[k] for k in after}}


def main() -> None:
    """One request, one answer, both a line of JSON, until the input ends."""
    player = PythonPlayer()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(player, request.pop("cmd"))(**request)
        except Exception as e:
            answer = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
