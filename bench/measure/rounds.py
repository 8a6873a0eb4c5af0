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
from ..shapes import state_bytes_per_token, weight_bytes_per_token
from .session import Bench, Seat

READ = 256 << 20   # bytes that lie in no cache


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


def read_rates(bench: Bench, n_threads: int) -> dict[str, float]:
    """GB/s of reading one shared buffer in the kernels' chunk order, with pages of 4 KiB and huge ones; the fastest of 3."""
    with bench.driver("ours") as d:
        return {name: max(d.ask("read", threads=n_threads, bytes=READ >> 8 * bench.small, repeat=3, huge=huge)["gb_per_s"])
                for name, huge in (("4k", False), ("huge", True))}


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
    read: list[dict[str, float]] = []
    draw = random.Random(case.id)
    for _ in range(p["repetitions"]):
        if unit == "tokens/s":
            read.append(read_rates(bench, p["n_threads"]))
        for player in draw.sample(players, len(players)):
            found, fields[player] = once(bench, case, player, context, measure)
            for kind, sample in found.items():
                samples[player, kind].append(sample)
    rates = {name: statistics.median(r[name] for r in read) for name in ("4k", "huge")} if read else {}
    out = []
    for player in players:
        for kind in (k for q, k in samples if q == player):
            its = samples[player, kind]
            extra = {"tried": {n: v for n, v in tried.items() if n.startswith(f"{player.shape.name} {player.type}")}} if player.setting else {}
            if unit == "tokens/s":
                extra |= decode_extra(player, its, rates, context.n_seq)
            out.append(bench.row(player.name, kind=kind, unit=unit, values=[s.value for s in its], extra=extra, **fields[player]))
    if read:
        out += [bench.row(f"read {n}", kind="read", unit="GB/s", values=[r[n] for r in read]) for n in rates]
    return out


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
