"""Measurements on whole models. Ratios are taken round by round (rounds.py)."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ..cases import Case
from ..errors import Skip
from ..rows import Row, make_row, ratio_row
from .rounds import Context, Sample, ratios, sampled
from .session import Bench, Seat


VALIDATED = 4096  # tokens: longer prompts that were run validate the fit from shorter ones
TURNS = 4         # of each depth in a process


def steps_of(seat: Seat, p: dict[str, Any], n_seq: int = 1) -> Sample:
    """Tokens decoded for p["seconds"] at the depth that is there, after a warm-up; they are taken back where the memory can."""
    seat.driver.ask("decode", n=2, seqs=n_seq, seconds=0.3, back=True)
    depth = seat.driver.ask("position")["next"]
    steps = seat.driver.ask("decode", n=p["n_gen"], seqs=n_seq, seconds=p["seconds"], back=True)["seconds"]
    return Sample(n_seq * len(steps) / sum(steps), steps, depth + len(steps) / 2)


def decode(bench: Bench, case: Case) -> list[Row]:
    """Tokens per second of all sequences together, at a depth filled synthetically."""
    p, n_seq = case.params, case.params.get("n_seq", 1)

    def measure(bench: Bench, case: Case, seat: Seat) -> dict[str, Sample]:
        bench.fill(seat, p["depth"], n_seq)
        return {"decode": steps_of(seat, case.params, n_seq)}
    rows = sampled(bench, case, Context(n_seq * (p["depth"] + 2 * p["n_gen"] + 256), n_seq), measure, "tokens/s")
    return rows + ratios(rows, case.players)


def depths(bench: Bench, case: Case) -> list[Row]:
    """Decode speed at several depths in one process, and over that at the first what the bytes allow: 1 is all of it. Depths take turns,
    so that a machine that drifts meets all of them."""
    p, order = case.params, random.Random(case.id)

    def measure(bench: Bench, case: Case, seat: Seat) -> dict[str, Sample]:
        turns: dict[int, list[Sample]] = {depth: [] for depth in sorted(p["depths"])}
        for _ in range(TURNS):
            for depth in order.sample(p["depths"], len(p["depths"])):
                bench.fill(seat, depth)
                turns[depth].append(steps_of(seat, case.params | {"seconds": case.params["seconds"] / TURNS}))
        steps = {depth: [t for s in its for t in s.steps] for depth, its in turns.items()}
        return {f"decode {depth}": Sample(len(steps[depth]) / sum(steps[depth]), steps[depth], its[0].depth) for depth, its in turns.items()}
    rows = sampled(bench, case, Context(max(p["depths"]) + 2 * p["n_gen"] + 256), measure, "tokens/s")
    first, out = f"decode {p['depths'][0]}", []
    for row in (r for r in rows if r["kind"].startswith("decode ")):
        row["depth"] = int(row["kind"].split()[1])
        base = next(r for r in rows if r["name"] == row["name"] and r["kind"] == first)
        if base is not row:
            allowed = base["extra"]["bytes_per_step"] / row["extra"]["bytes_per_step"]
            share = ratio_row(row, base)
            out.append(make_row(**share | {"kind": f"share {row['depth']}", "name": row["name"], "values": [v / allowed for v in share["values"]]}))
    return rows + out


def shared(bench: Bench, case: Case) -> list[Row]:
    """Tokens per second of `processes` together, each with a model and as many threads as it would have alone."""
    p = case.params
    context = Context(p["depth"] + 2 * p["n_gen"] + 256)

    def measure(bench: Bench, case: Case, seat: Seat) -> dict[str, Sample]:
        n = p["processes"] - 1
        with bench.seated((seat.player,) * n, context.n_ctx, p["n_threads"]) as others, ThreadPoolExecutor(n + 1) as pool:
            for each in (seat, *others):
                bench.fill(each, p["depth"])
            found = list(pool.map(lambda each: steps_of(each, case.params), (seat, *others)))
        return {"shared": Sample(sum(s.value for s in found), [t for s in found for t in s.steps], found[0].depth)}
    rows = sampled(bench, case, context, measure, "tokens/s")
    return rows + ratios(rows, case.players)


def prefill(bench: Bench, case: Case) -> list[Row]:
    """Seconds for a prompt in chunks of 512, one row for each number of chunks that is a power of two; or, with `depth`,
    seconds for n_prompt tokens that come after so many. Short prompts are read again until p["seconds"] are over."""
    p, n, depth = case.params, case.params["n_prompt"], case.params.get("depth", 0)
    chunk, most = min(n, 512), case.params.get("most", 64)

    def measure(bench: Bench, case: Case, seat: Seat) -> dict[str, Sample]:
        if depth:
            bench.fill(seat, depth)
        seat.driver.ask("prefill", n=min(n, 32), keep=bool(depth))  # warm-up
        times: list[Any] = []
        while not times or (sum(map(sum, times)) < case.params["seconds"] and len(times) < most):
            times.append(seat.driver.ask("prefill", n=n, keep=bool(depth))["seconds"])
        total = np.cumsum(np.mean(times, axis=0))
        return {f"prefill {min(n, chunk * 2 ** k)}": Sample(float(total[2 ** k - 1])) for k in range(20) if 2 ** k <= len(total)}
    rows = sampled(bench, case, Context(depth + n * (1 + most * bool(depth)) + 256, n_batch=chunk), measure, "s")
    for row in rows:
        row["n_prompt"] = int(row["kind"].split()[1])
    return rows + ratios(rows, case.players)


def seconds_per_token(known: Iterable[Row], name: str, longest: int = 1 << 30) -> list[tuple[float, float]]:
    """(depth, seconds per token there) of a player, from real prefills of at most `longest` tokens and from chunks at depth."""
    points = {}
    its = [r for r in known if r["name"] == name and r["kind"].startswith("prefill ") and r["median"] and not r["fitted"]]
    real = sorted({r["n_prompt"]: r["median"] for r in its if r["case"].startswith("prefill-1b-n") and r["n_prompt"] <= longest}.items())
    for (n0, t0), (n1, t1) in zip([(0, 0.0), *real], real):
        points[(n0 + n1) / 2] = (t1 - t0) / (n1 - n0)
    for r in its:
        if r["depth"]:
            points[r["depth"] + r["n_prompt"] / 2] = r["median"] / r["n_prompt"]
    return sorted(points.items())


def fitted(points: list[tuple[float, float]], n: int) -> float:
    """Seconds of a prompt of n tokens: the integral of the seconds per token, linear between the measured depths."""
    depth, seconds = np.array(points).T
    x = np.linspace(0, n, 4097)
    y = np.interp(x, depth, seconds)
    return float(np.sum((y[1:] + y[:-1]) / 2 * np.diff(x)))


def fit(bench: Bench, case: Case) -> list[Row]:
    """Seconds for prompts that were not run; and what the same fit, from prompts up to 4096 and chunks at depth, says of those that were."""
    rows = []
    for player in case.players:
        its = [r for r in bench.known if r["name"] == player.name and r["kind"].startswith("prefill ") and not r["depth"] and r["median"]]
        if not its and player.side != "ours":
            continue  # a setting that was not the fastest
        real, model = {r["n_prompt"]: r["median"] for r in its}, {"model": player.shape.name, "type": player.type, "spikes": player.spikes}
        points = seconds_per_token(bench.known, player.name)
        if len(points) < 3:
            raise Skip(f"{player.name}: {len(points)} measured depths, at least 3 needed to fit; the cases prefill-1b-* come first")
        for n in (n for n in case.params["prompts"] if n not in real and n <= points[-1][0] + 256):
            rows.append(bench.row(player.name, kind=f"prefill {n}", n_prompt=n, unit="s", values=[fitted(points, n)], fitted=True, **model))
        for n in (n for n in real if n > VALIDATED):
            share = fitted(seconds_per_token(bench.known, player.name, VALIDATED), n) / real[n]
            rows.append(bench.row(f"{player.name} fitted / measured at {n}", kind="ratio fit", n_prompt=n, unit="x", values=[share], **model))
    return rows


def validate(bench: Bench, case: Case) -> list[Row]:
    """Decoding after a filled context over decoding after a real prefill of the same length, pair by pair, in one context."""
    p, rows = case.params, []
    n_ctx = 2 * (p["depth"] + p["n_gen"] * (p["repetitions"] + 1) + 256)
    for player in case.players:
        values: dict[int, list[float]] = {0: [], 1: []}
        with bench.seated((player,), n_ctx, p["n_threads"], n_seq=2, n_batch=min(512, p["depth"])) as (seat,):
            seat.driver.ask("prefill", n=p["depth"], seq=1)
            seat.driver.ask("fill", depth=p["depth"], seq=0, layers=player.shape.layers(p["depth"]))
            for i in range(p["repetitions"] + 1):
                for seq in (0, 1):
                    steps = seat.driver.ask("decode", n=p["n_gen"], first=seq, back=True)["seconds"]
                    if i:  # the first pair is the warm-up
                        values[seq].append(len(steps) / sum(steps))
            both = [bench.row(f"{player.name} {how}", seat, unit="tokens/s", values=values[seq]) for seq, how in ((0, "filled"), (1, "prefilled"))]
        rows += [*both, ratio_row(*both)]
    return rows


def forget_file(path: Any) -> None:
    """Takes a file out of the page cache, as after a restart."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def load(bench: Bench, case: Case) -> list[Row]:
    """Seconds from the file to a model in memory: read before (warm) and not in the page cache (cold)."""
    rows = []
    for player in case.players:
        bench.check_memory(bench.memory_needed(player, 512, 1, 1), player.name)
        values: dict[str, list[float]] = {"warm": [], "cold": []}
        with bench.driver(player.side) as d:
            path, digest = bench.models.get(player)
            for _, how in itertools.product(range(case.params["repetitions"]), ("cold", "warm")):
                if how == "cold":
                    d.ask("close")
                    forget_file(path)
                values[how].append(d.ask("load", path=str(path), settings=player.settings)["seconds"])
            seat = Seat(player, d, digest, {})
            rows += [bench.row(player.name, seat, kind=f"load {how}", unit="s", values=v) for how, v in values.items()]
    return rows
