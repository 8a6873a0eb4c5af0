"""What decides the weights, besides data and model, and what follows from it alone: lengths, rows, learning rates."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sb_convert.constants import DEFAULT_K
from sb_convert.errors import bad

RANGES = {"steps": (1, 2**31), "batch": (1, 2**20), "length": (2, 2**24), "micro": (1, 2**20), "piece": (16, 2**24), "threads": (1, 1024), "warmup": (0, 2**31), "distill": (0, 1), "match": (0, 1),
          "spike_from": (0, 1), "lr": (0, 10), "match_lr": (0, 10), "spike_k": (1e-3, 1e3), "decay": (0, 10), "clip": (1e-6, 1e6), "seed": (0, 2**63 - 1)}
OF_THE_LOOP = {"eval_every": (1, 2**31), "minutes": (0, math.inf)}


def check_ranges(values: Mapping[str, Any], ranges: Mapping[str, tuple[float, float]]) -> None:
    """ConvertError: a value out of its range, or NaN."""
    for name, (low, high) in ranges.items():
        if not low <= values[name] <= high:
            raise bad(f"--{name.replace('_', '-')}", "value", values[name], f"{low} to {high}", "correct it")


@dataclass(frozen=True)
class Recipe:
    """Tokens per step: batch * length. The defaults train from nothing; a converted model wants a smaller lr (README.md). ConvertError: a value out of its range."""
    steps: int
    seed: int = 1
    batch: int = 16            # rows of a step, at the first length
    length: int = 512
    lr: float = 3e-3
    warmup: int = 100
    decay: float = 0.1         # AdamW's, matrices only
    clip: float = 1.0
    micro: int = 2             # rows per forward, at the first length: on a CPU larger ones leave the caches, and are slower
    threads: int = 2           # each computes its share of the rows; two threads in one operator would be slower
    spike_from: float = 1.0    # share of the steps after which every second micro-batch is read as a spiking model
    spike_k: float = DEFAULT_K
    bf16: bool = False         # matrix products of forward and backward; weights and optimiser stay float32
    stages: tuple[tuple[int, float], ...] = ()  # (length, share of the steps), in turn; none: all at `length`
    piece: int = 512           # tokens of a row that are computed at a time; longer rows are recomputed in the backward pass
    distill: float = 0.0       # share of the loss that is the divergence from the teacher's distribution
    match: float = 0.0         # share of the steps, at the beginning, in which each gla layer learns its teacher's attention
    match_lr: float = 3e-3

    def __post_init__(self) -> None:
        check_ranges(vars(self), RANGES)
        shares = sum(share for _, share in self.stages)
        if self.stages and (abs(shares - 1) > 1e-6 or min(share for _, share in self.stages) <= 0):
            raise bad("--stages", "shares", f"{shares:.0%} in all", "shares above 0 that are 100% in all", "correct them")
        for length, _ in self.stages:
            if length < 1 or self.batch * self.length % length:
                raise bad("--stages", "length", str(length), f"a divisor of the {self.batch * self.length} tokens of a step (--batch * the first length)", "choose others")

    @property
    def n_match(self) -> int:
        """Steps of attention matching, the first ones."""
        return round(self.match * self.steps)

    @property
    def longest(self) -> int:
        """The longest rows of the run."""
        return max([self.length, *(length for length, _ in self.stages)])

    def stage(self, step: int) -> tuple[int, int, int]:
        """Which stage a step belongs to, its length, and the step at which the stage begins."""
        begin, share = 0, 0.0
        for i, (length, part) in enumerate(self.stages):
            share += part
            end = self.steps if i + 1 == len(self.stages) else round(share * self.steps)
            if step < end or end == self.steps:
                return i, length, begin
            begin = end
        return 0, self.length, 0

    def spikes(self, step: int) -> bool:
        """Whether every second micro-batch of a step is read as a spiking model."""
        return step >= self.spike_from * self.steps

    def rows(self, length: int) -> int:
        """Rows of a step at a length."""
        return self.batch * self.length // length

    def micro_rows(self, length: int) -> int:
        """Rows of one forward at a length."""
        return max(1, self.micro * self.length // length)


def learning_rate(step: int, r: Recipe) -> float:
    """Linear warm-up, then a cosine down to a hundredth; for the matching steps once, and once more for the others."""
    begin, end, peak = (0, r.n_match, r.match_lr) if step < r.n_match else (r.n_match, r.steps, r.lr)
    warmup = min(r.warmup, end - begin) if r.n_match else r.warmup
    step -= begin
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, end - begin - warmup)
    return peak * (0.01 + 0.99 * (1 + math.cos(math.pi * min(1.0, done))) / 2)


def parse_stages(text: str) -> tuple[tuple[int, float], ...]:
    """256:60%,1024:30%,4096:10% -> ((256, 0.6), ...). ConvertError: anything else."""
    try:
        pairs = [part.split(":") for part in text.split(",")]
        if any(not share.endswith("%") for _, share in pairs):
            raise ValueError
        return tuple((int(length), float(share[:-1]) / 100) for length, share in pairs)
    except ValueError:
        raise bad("--stages", "text", repr(text), "LENGTH:SHARE%,...", "write for example --stages 256:60%,1024:30%,4096:10%") from None


def same_recipe(saved: dict[str, object], saved_inputs: dict[str, str], r: Recipe, inputs: dict[str, str], where: object) -> None:
    """ConvertError: a saved run was begun with other options or other files; the message names the first."""
    before = {**{name: saved.get(name, f.default) for name, f in Recipe.__dataclass_fields__.items()}, **saved_inputs}
    now = {**dataclasses.asdict(r), **inputs}
    for name in now | before:
        if now.get(name) != before.get(name):
            raise bad(where, "recipe", f"{name} = {now.get(name)}", f"{before.get(name)}, with which the run began",
                      "give the first run's options and files, or another folder for this run")
