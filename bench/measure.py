"""Measurements on whole models. Players alternate, A B A B, and ratios are taken pair by pair."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from .cases import Case, Player
from .errors import Skip
from .rows import Row, ratio_row
from .session import Bench, Seat


def ratios(rows: list[Row], players: Iterable[Player]) -> list[Row]:
    """Each of ours over each of upstream's in as many bits; over all of them where none has as many."""
    by_name = {p.name: p for p in players}
    bits = {name: 4 if p.type == "q4_0" else 8 for name, p in by_name.items()}
    of, to = ([r for r in rows if by_name[r["name"]].side == side] for side in ("ours", "upstream"))
    out = []
    for a in of:
        alike = [b for b in to if bits[b["name"]] == bits[a["name"]]] or to
        out += [ratio_row(a, b) for b in alike]
    return out


def read_rate(seat: Seat, n_threads: int, small: bool) -> float:
    """GB/s of reading 256 MiB that lie in no cache, the fastest of 3."""
    return max(seat.driver.ask("read", threads=n_threads, bytes=(1 if small else 256) << 20, repeat=3)["gb_per_s"])


def decode(bench: Bench, case: Case) -> list[Row]:
    """Tokens per second of all sequences together, at a depth filled synthetically."""
    p, n_seq = case.params, case.params.get("n_seq", 1)
    n_ctx = n_seq * (p["depth"] + p["n_gen"] * (p["repetitions"] + 1) + 256)
    values: dict[str, list[float]] = {player.name: [] for player in case.players}
    read: list[float] = []
    with bench.seated(case.players, n_ctx, p["n_threads"], n_seq) as seats:
        for seat in seats:
            bench.fill(seat, p["depth"], n_seq)
            seat.driver.ask("decode", n=2, seqs=n_seq, seconds=0.5, back=True)  # warm-up
        for _ in range(p["repetitions"]):
            if p.get("read"):
                read.append(read_rate(seats[0], p["n_threads"], bench.small))
            for seat in seats:
                steps = seat.driver.ask("decode", n=p["n_gen"], seqs=n_seq, seconds=p["seconds"], back=True)["seconds"]
                values[seat.player.name].append(n_seq * len(steps) / sum(steps))
        rows = [bench.row(s.player.name, s, unit="tokens/s", values=values[s.player.name]) for s in seats]
    out = rows + ratios(rows, case.players)
    if read:
        out.append(bench.row("read", unit="GB/s", values=read))
    return out


def prefill(bench: Bench, case: Case) -> list[Row]:
    """Seconds for a prompt in chunks of 512, one row for each number of chunks that is a power of two; or, with `depth`,
    seconds for n_prompt tokens that come after so many."""
    p, n, depth = case.params, case.params["n_prompt"], case.params.get("depth", 0)
    chunk = min(n, 512)
    chunks: dict[str, list[list[float]]] = {player.name: [] for player in case.players}
    rows = []
    with bench.seated(case.players, depth + n * (p["repetitions"] + 1) + 256, p["n_threads"], n_batch=chunk) as seats:
        for seat in seats:
            if depth:
                bench.fill(seat, depth)
            seat.driver.ask("prefill", n=min(n, 32), keep=bool(depth))  # warm-up
        for _ in range(p["repetitions"]):
            for seat in seats:
                chunks[seat.player.name].append(seat.driver.ask("prefill", n=n, keep=bool(depth))["seconds"])
        for seat in seats:
            times = np.cumsum(chunks[seat.player.name], axis=1)
            for i in (2 ** k - 1 for k in range(20) if 2 ** k <= times.shape[1]):
                n_here = min(n, chunk * (i + 1))
                rows.append(bench.row(seat.player.name, seat, kind=f"prefill {n_here}", n_prompt=n_here, unit="s", values=[float(x) for x in times[:, i]]))
    for kind in dict.fromkeys(r["kind"] for r in rows):
        for row in ratios([r for r in rows if r["kind"] == kind], case.players):
            rows.append(row | {"kind": f"ratio {kind}"})
    return rows


def seconds_per_token(known: Iterable[Row], name: str) -> list[tuple[float, float]]:
    """(depth, seconds per token there) of a player, from real prefills and from chunks at depth."""
    points = {}
    real = sorted((r["n_prompt"], r["median"]) for r in known
                  if r["name"] == name and r["kind"].startswith("prefill ") and r["case"].startswith("prefill-1b-n") and r["median"])
    real = sorted(dict(real).items())
    for (n0, t0), (n1, t1) in zip([(0, 0.0), *real], real):
        points[(n0 + n1) / 2] = (t1 - t0) / (n1 - n0)
    for r in known:
        if r["name"] == name and r["kind"].startswith("prefill ") and r["depth"] and r["median"]:
            points[r["depth"] + r["n_prompt"] / 2] = r["median"] / r["n_prompt"]
    return sorted(points.items())


def fit(bench: Bench, case: Case) -> list[Row]:
    """Seconds for prompts that were not run: the integral of the seconds per token, linear between the measured depths."""
    rows = []
    for player in case.players:
        measured = {r["n_prompt"] for r in bench.known if r["name"] == player.name and r["kind"].startswith("prefill ") and not r["depth"]}
        points = seconds_per_token(bench.known, player.name)
        if len(points) < 3:
            raise Skip(f"{player.name}: {len(points)} measured depths, at least 3 needed to fit; the cases prefill-1b-* come first")
        depth, seconds = np.array(points).T
        for n in case.params["prompts"]:
            if n in measured or n > depth[-1] + 256:
                continue
            x = np.linspace(0, n, 4097)
            y = np.interp(x, depth, seconds)
            total = float(np.sum((y[1:] + y[:-1]) / 2 * np.diff(x)))
            rows.append(bench.row(player.name, kind=f"prefill {n}", n_prompt=n, unit="s", values=[total], fitted=True,
                                  model=player.shape.name, type=player.type, spikes=player.spikes))
    return rows


def validate(bench: Bench, case: Case) -> list[Row]:
    """Decoding after a filled context over decoding after a real prefill of the same length, pair by pair, in one context."""
    p, rows = case.params, []
    n_ctx = 2 * (p["depth"] + p["n_gen"] * (p["repetitions"] + 1) + 256)
    for player in case.players:
        values: dict[int, list[float]] = {0: [], 1: []}
        with bench.seated((player,), n_ctx, p["n_threads"], n_seq=2, n_batch=min(512, p["depth"])) as (seat,):
            seat.driver.ask("prefill", n=p["depth"], seq=1)
            seat.driver.ask("fill", depth=p["depth"], seq=0, recurrent=player.shape.recurrent)
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
