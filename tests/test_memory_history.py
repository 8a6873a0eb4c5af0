"""Random histories of sequences against a plain model of them (tests/cpp/test-history.cpp), shrunk where one fails.

By hand, any number:  python -m pytest tests/test_memory_history.py --histories 20000
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_cpp import KINDS, built, converted

SEQ = st.integers(0, 7)
FEW = st.integers(0, 1)  # most of what happens, happens to the same ones
# short micro-batches beside ones longer than a window (of 16 tokens), and than what can be taken back
COUNT = st.one_of(st.integers(1, 4), st.integers(1, 9), st.integers(1, 60))
SHARED = st.builds("{}:{}{}".format, st.integers(1, 255), COUNT, st.sampled_from(["", ":r"]))
ALONE = st.builds("{}:{}".format, st.sampled_from([1, 2]), COUNT)
DECODE = st.builds("dec {}".format, ALONE)
BACK = st.builds("back {} {}".format, FEW, st.integers(1, 100))
STEP = st.one_of(
    DECODE, DECODE, DECODE, BACK, BACK, BACK,
    st.builds("dec {}".format, st.lists(st.one_of(ALONE, SHARED), min_size=1, max_size=4).map(" ".join)),
    st.builds("cut {} {}".format, st.integers(0, 150), st.one_of(ALONE, SHARED)),
    st.builds("rm {} {}".format, SEQ, st.integers(0, 40)),
    st.builds("cp {} {}".format, FEW, SEQ),
    st.builds("{} {} {}".format, st.sampled_from(["save", "load", "row", "mid"]), FEW, st.integers(0, 1)),
    st.builds("{} {} {}".format, st.sampled_from(["save", "load", "del", "keep"]), SEQ, st.integers(0, 1)),
    st.builds("bad {} {}".format, st.integers(0, 3), SEQ),
    st.builds("part {} {}".format, SEQ, SEQ),
    st.sampled_from(["saveall", "loadall", "clear 0", "clear 1"]),
)
HISTORY = st.builds("{} {} {} | {}".format, st.one_of(st.integers(1, 3), st.integers(1, 8)), st.integers(1, 24), st.integers(1, 12),
                    st.lists(STEP, min_size=8, max_size=40).map(" | ".join))


class Driver:
    """The C++ program, started again after a crash."""

    def __init__(self, model: Path, limit: float) -> None:
        self.command = [str(built("test-history")), str(model), str(limit)]
        self.process: subprocess.Popen[str] | None = None
        self.n_steps = 0

    def run(self, history: str) -> None:
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(history + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        assert answer.startswith("ok "), f"{answer or f'the program died: {self.process.wait()}'}\n  history: {history}"
        self.n_steps += int(answer.split()[1])

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Driver]]:
    from conftest import write_checkpoint  # the generator behind make_checkpoint

    made = {}
    for kind, options, config, limit in (
        ("float", ["--outtype", "f32"], KINDS["low-rank gate"], 1e-3),
        ("full gate, window 20", ["--outtype", "f32"], {"gate_rank": 0, "sliding_window": 20, "num_hidden_layers": 3}, 1e-3),
        ("int8, spikes off", ["--outtype", "int8", "--no-spike"], {"scales": True, "hidden_size": 128, "intermediate_size": 128}, 0.1),
    ):
        folder = tmp_path_factory.mktemp("history")
        made[kind] = Driver(converted(write_checkpoint(folder / "checkpoint", **config), folder / "model.gguf", *options), limit)
    yield made
    for driver in made.values():
        driver.close()


@pytest.mark.parametrize("kind", ["float", "full gate, window 20", "int8, spikes off"])
def test_any_history_agrees_with_the_tokens_computed_anew(kind: str, drivers: dict[str, Driver], request: Any) -> None:
    n = request.config.getoption("--histories")

    @settings(max_examples=n, deadline=None, database=None, derandomize=n == 60, suppress_health_check=list(HealthCheck))
    @given(HISTORY)
    def hold(history: str) -> None:
        drivers[kind].run(history)

    hold()
    assert drivers[kind].n_steps >= 8*n, "too few steps to mean anything"
