"""What taking tails back costs: drafts verified, tokens taken back, and the memory and the time per token that it takes to be able to."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from ..cases import Case, Player
from ..errors import BenchError, Skip
from ..rows import Row, ratio_row
from .driver import Driver
from .operators import alternate
from .rounds import Context, Sample, sampled
from .session import Bench, Seat

BEFORE = "SPIKINGBRAIN_BENCH_BEFORE"  # the sb-bench-driver of another build of the fork


def verify(bench: Bench, case: Case) -> list[Row]:
    """Seconds of one batch of n tokens with the logits of all, which are then taken back, and that time over one token's, round by round."""
    p, rows = case.params, []

    def measure(bench: Bench, case: Case, seat: Seat) -> dict[str, Sample]:
        bench.fill(seat, p["depth"])
        seconds: dict[int, list[float]] = defaultdict(list)
        seat.driver.ask("verify", n=max(p["sizes"]))  # warm-up
        while sum(map(sum, seconds.values())) < case.params["seconds"]:
            for n in p["sizes"]:
                seconds[n] += seat.driver.ask("verify", n=n)["seconds"]
        return {f"verify {n}": Sample(statistics.median(its)) for n, its in seconds.items()}
    for row in sampled(bench, case, Context(p["depth"] + 256, n_batch=512), measure, "s"):
        rows.append(row | {"n_prompt": int(row["kind"].split()[1])})
    one = {r["name"]: r for r in rows if r["n_prompt"] == p["sizes"][0]}
    return rows + [ratio_row(one[many["name"]], many) | {"kind": f"ratio {many['kind']}", "name": many["name"], "n_prompt": many["n_prompt"]}
                   for many in rows if many["n_prompt"] != p["sizes"][0]]


def rollback(bench: Bench, case: Case) -> list[Row]:
    """Seconds to take back n tokens decoded one by one, the state that is replayed from n_rs_seq tokens before them; to take back a draft
    of n, a batch of n and the token before it; and of a decoded token in the same run."""
    p, rows = case.params, []
    for player in case.players:
        seconds: dict[str, list[float]] = defaultdict(list)
        with bench.seated((player,), p["depth"] + 8 * p["repetitions"] * 64 + 256, p["n_threads"]) as (seat,):
            bench.fill(seat, p["depth"])
            for i in range(p["repetitions"] + 1):
                for kind, value in rollbacks(seat, p["n_back"]):
                    seconds[kind] += [value] if i else []
            rows += [bench.row(player.name, seat, kind=kind, unit="s", values=values) for kind, values in seconds.items()]
    return rows


def rollbacks(seat: Seat, n_back: tuple[int, ...]) -> Iterator[tuple[str, float]]:
    """(kind, seconds) of every measurement. It ends as it began: nothing to take back, base is the current state."""
    most = seat.opened["n_rs_seq"]
    sizes = [*(n for n in n_back if n < most), most]
    steps = seat.driver.ask("verify", n=most, one_by_one=True, back=0)["seconds"]
    yield "rollback token", sum(steps) / len(steps)
    for how, one_by_one in (("one by one", True), ("draft", False)):
        for n in sizes:
            yield f"rollback {n} {how}", seat.driver.ask("verify", n=n + (not one_by_one), one_by_one=one_by_one, back=n)["back"]


def state(bench: Bench, case: Case) -> list[Row]:
    """Bytes of memory of a sequence; of the build before, too, where one is named."""
    builds = {"state": bench} | ({"state before": before_bench(bench)} if os.environ.get(BEFORE) else {})
    rows = []
    for player in case.players:
        for kind, its in builds.items():
            with its.seated((player,), 1024, case.params["n_threads"]) as (seat,):
                rows.append(bench.row(player.name, seat, kind=kind, unit="bytes", values=[seat.opened["state_bytes"]], extra={"n_rs_seq": seat.opened.get("n_rs_seq")}))
    return rows


def before_bench(bench: Bench) -> Bench:
    """The same with another build in our place. Raises Skip where none is named, BenchError where it is no driver."""
    path = os.environ.get(BEFORE)
    if not path:
        raise Skip(f"no build to compare with: {BEFORE} names the sb-bench-driver of another build (python -m bench build prints its place)")
    if not Path(path).is_file():
        raise BenchError(f"bench: {BEFORE}: got {path}, expected a driver; do run `python -m bench build` in the other checkout")
    return dataclasses.replace(bench, drivers=dataclasses.replace(bench.drivers, paths=bench.drivers.paths | {"ours": Path(path)}, commit=commit_of(Path(path))))


def commit_of(driver: Path) -> str:
    """Of the checkout that a driver lies in; empty where that is unknown."""
    out = subprocess.run(["git", "-C", str(driver.parent), "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
    return out.stdout.strip() if out.returncode == 0 else ""


def gla_seconds(drivers: list[Driver], player: Player, n_threads: int, repetitions: int) -> list[list[float]]:
    """Seconds of the linear-attention operators of one token in one layer, on each driver."""
    shape = player.shape
    for d in drivers:
        d.ask("op_build", op="gla", n_threads=n_threads, d=shape.head, H=shape.n_head, G=shape.n_head_kv, T=1)
    return alternate(drivers, 0.05, repetitions)


def before(bench: Bench, case: Case) -> list[Row]:
    """Decoding by this build over that by another one, pair by pair; and the linear-attention operators of both, alone. Processes are
    started anew for every round: where their memory lies makes a difference of percents."""
    p, (player,) = case.params, case.players
    builds = (bench, before_bench(bench))
    n_ctx = p["depth"] + p["n_gen"] * (p["repetitions"] + 1) + 256
    speed: tuple[list[float], ...] = ([], [])
    gla: tuple[list[float], ...] = ([], [])
    for i in range(p["rounds"]):
        with contextlib.ExitStack() as stack:
            seats = [stack.enter_context(b.seated((player,), n_ctx, p["n_threads"]))[0] for b in builds]
            for seat in seats:
                bench.fill(seat, p["depth"])
            for j in range(p["repetitions"] + 1):  # the first pair is the warm-up
                for seat, its in zip(seats, speed):
                    steps = seat.driver.ask("decode", n=p["n_gen"])["seconds"]
                    its += [len(steps) / sum(steps)] * bool(j)
            for its, new in zip(gla, gla_seconds([s.driver for s in seats], player, p["n_threads"], 5)):
                its += new
            if i == p["rounds"] - 1:
                named = [(player.name + which, seat, b.drivers.commit) for which, seat, b in zip(("", " before"), seats, builds)]
                now, then = (bench.row(name, seat, unit="tokens/s", values=v, commit=commit) for (name, seat, commit), v in zip(named, speed))
                ops = [bench.row(name, seat, kind="gla", unit="s", values=v, commit=commit) for (name, seat, commit), v in zip(named, gla)]
    per_token = sum(player.shape.recurrent) * (ops[0]["median"] - ops[1]["median"])
    return [now, then, ratio_row(now, then) | {"extra": {"gla_share": round(per_token * then["median"], 5)}}, *ops]
