"""Samples of players: at least two seconds each, every one in a process of its own, in an order that is drawn. Before them, each
setting of a side is tried once, and the fastest plays."""

from __future__ import annotations

import random
import statistics
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ..cases import Case, Player
from ..rows import Row, ratio_row
from ..shapes import model_bytes, state_bytes_per_token, weight_bytes_per_token
from .session import Bench, Seat

PAGES = ("4k", "huge")   # those that are read


@dataclass
class Sample:
    """`value` in the unit of its kind; `steps`: seconds of each token or batch; `depth` on average."""
    value: float
    steps: list[float] = field(default_factory=list)
    depth: float = 0.0


Measure = Callable[[Bench, Case, Seat], dict[str, Sample]]


@dataclass
class Context:
    """What a case's players open: tokens in all, sequences, and the largest batch (0: for decoding)."""
    n_ctx: int
    n_seq: int = 1
    n_batch: int = 0


def once(bench: Bench, case: Case, player: Player, context: Context, measure: Measure) -> tuple[dict[str, Sample], dict[str, Any]]:
    """The samples of one fresh process, by kind, and what a row says of it."""
    with bench.seated((player,), context.n_ctx, case.params["n_threads"], context.n_seq, context.n_batch) as (seat,):
        return measure(bench, case, seat), bench.fields(seat)


def groups(case: Case) -> list[list[Player]]:
    """The settings of one model on one side, which are tried against each other; caches of another type apart where the case says so."""
    found: dict[tuple[Any, ...], list[Player]] = defaultdict(list)
    for p in case.players:
        apart = p.settings.get("kv") if case.params.get("apart") else None
        found[p.side, p.shape.name, p.type, p.spikes, apart].append(p)
    return list(found.values())


def fastest(bench: Bench, case: Case, context: Context, measure: Measure, less: bool) -> tuple[list[Player], dict[str, float]]:
    """One player of each group, and what each setting that was tried gave."""
    shorter = case_with(case, seconds=min(1.0, case.params["seconds"]))
    playing, tried = [], {}
    for group in groups(case):
        known = [p for p in group if p.name in {r["name"] for r in bench.known if r["case"] == case.params.get("as_in")}]
        if known or len(group) == 1:
            playing += known[:1] or group
            continue
        speed = {p: next(iter(once(bench, shorter, p, context, measure)[0].values())).value for p in group}
        tried |= {p.name: round(v, 4) for p, v in speed.items()}
        playing.append((min if less else max)(group, key=lambda p: speed[p]))
    return playing, tried


def case_with(case: Case, **params: Any) -> Case:
    return replace(case, params=case.params | params)


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def bytes_per_token(player: Player, depth: float) -> int:
    """What decoding a token must read: weights once, keys and values or state."""
    return weight_bytes_per_token(player.shape, player.type) + state_bytes_per_token(
        player.shape, int(depth), player.spikes, player.settings.get("kv", "f16"))


def read_rate(bench: Bench, case: Case, pages: str) -> float:
    """GB/s of reading one shared buffer in the kernels' chunk order, for as long as a player decodes. It is as large as the smallest model
    that plays, so that as much of it lies in a cache."""
    n_bytes = min(model_bytes(p.shape, p.type) for p in case.players)
    bench.check_memory(n_bytes, "the read rate")
    with bench.driver("ours") as d:
        read = d.ask("read", threads=case.params["n_threads"], bytes=n_bytes, seconds=case.params["seconds"], huge=pages == "huge")
    return float(len(read["seconds"]) * read["bytes"] / sum(read["seconds"]) * 1e-9)


def decode_extra(player: Player, samples: list[Sample], read: dict[str, float], n_seq: int) -> dict[str, Any]:
    """GB/s, the bound that the bytes and the read rate set (tokens/s of all sequences), and ms per token."""
    depth = statistics.fmean(s.depth for s in samples)
    weights = weight_bytes_per_token(player.shape, player.type)
    per_step = weights + n_seq * (bytes_per_token(player, depth) - weights)
    speed = statistics.median(s.value for s in samples)
    steps = [1e3 * x for s in samples for x in s.steps]
    return {"bytes_per_step": per_step, "gb_per_s": round(per_step * speed / n_seq * 1e-9, 3), "read_gb_per_s": read,
            "bound": round(n_seq * max(read.values()) * 1e9 / per_step, 3),
            "ms_p50": round(percentile(steps, 0.5), 4), "ms_p99": round(percentile(steps, 0.99), 4)}


def sampled(bench: Bench, case: Case, context: Context, measure: Measure, unit: str) -> list[Row]:
    """Rows of all kinds of all players that play; for tokens/s with what the bytes allow."""
    p = case.params
    players, tried = fastest(bench, case, context, measure, unit == "s")
    samples: dict[tuple[Player, str], list[Sample]] = defaultdict(list)
    fields: dict[Player, dict[str, Any]] = {}
    read: dict[str, list[float]] = {pages: [] for pages in PAGES} if unit == "tokens/s" else {}
    draw = random.Random(case.id)
    for _ in range(p["repetitions"]):
        for one in draw.sample([*players, *read], len(players) + len(read)):
            if isinstance(one, str):
                read[one].append(read_rate(bench, case, one))
                continue
            found, fields[one] = once(bench, case, one, context, measure)
            for kind, sample in found.items():
                samples[one, kind].append(sample)
    rates = {pages: statistics.median(values) for pages, values in read.items()}
    out = []
    for player in players:
        for kind in (k for q, k in samples if q == player):
            its = samples[player, kind]
            extra = {"tried": {n: v for n, v in tried.items() if n.startswith(f"{player.shape.name} {player.type}")}} if player.setting else {}
            if unit == "tokens/s":
                extra |= decode_extra(player, its, rates, context.n_seq)
            out.append(bench.row(player.name, kind=kind, unit=unit, values=[s.value for s in its], extra=extra, **fields[player]))
    return out + [bench.row(f"read {pages}", kind="read", unit="GB/s", values=values) for pages, values in read.items()]


def ratios(rows: list[Row], players: tuple[Player, ...]) -> list[Row]:
    """Each of ours over each of the others' in as many bits; over all of them where none has as many."""
    by_name = {p.name: p for p in players}
    bits = {name: 4 if p.type == "q4_0" else 8 for name, p in by_name.items()}
    out = []
    for kind in dict.fromkeys(r["kind"] for r in rows):
        its = [r for r in rows if r["kind"] == kind and r["name"] in by_name]
        of, to = ([r for r in its if (by_name[r["name"]].side == "ours") is ours] for ours in (True, False))
        for a in of:
            for b in [b for b in to if bits[b["name"]] == bits[a["name"]]] or to:
                out.append(ratio_row(a, b) | {"kind": "ratio" if kind in ("decode", "prefill") else f"ratio {kind}"})
    return out
