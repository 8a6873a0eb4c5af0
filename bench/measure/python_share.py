"""What Python costs per token: `Llama` of the installed package, and the same decode through the C interface beside it."""

from __future__ import annotations

import statistics
import sys
from typing import Any

from ..cases import Case
from ..checkout import ROOT
from ..rows import Row, ratio_row
from .driver import Driver
from .session import Bench, Seat

HOWS = ("generate", "stream")


def parts_of(answer: dict[str, Any]) -> dict[str, float]:
    """Microseconds per token of one stretch: all, decode, sample and python, what is left of it."""
    us = {k: answer[k] / answer["tokens"] * 1e6 for k in ("seconds", "decode", "sample")}
    return {"all": us["seconds"], "decode": us["decode"], "sample": us["sample"], "python": us["seconds"] - us["decode"] - us["sample"]}


def python(bench: Bench, case: Case) -> list[Row]:
    """Share of the time per token outside of the calls that compute (see python_player.py); and the stretches without clocks, and the
    calls to decode, over the C driver's. All alternate in one run."""
    p, (player,) = case.params, case.players
    need = bench.memory_needed(player, p["n_prompt"], 1, 512)
    bench.check_memory(2 * need, f"{player.name} twice")
    measured: dict[str, list[dict[str, float]]] = {how: [] for how in HOWS}
    plain: dict[str, list[float]] = {how: [] for how in HOWS}
    c: list[float] = []
    with bench.seated(case.players, p["n_prompt"] + p["n_gen"] * (p["repetitions"] + 1) + 256, p["n_threads"]) as (seat,), \
            Driver([sys.executable, "-m", "bench.measure.python_player"], "python", cwd=ROOT) as driver:
        ours = Seat(player, driver, seat.model_hash, driver.ask("load", path=str(bench.models.get(player)[0]), n_threads=p["n_threads"]))
        ours.opened = ours.loaded
        seat.driver.ask("prefill", n=p["n_prompt"])
        driver.ask("prefill", n=p["n_prompt"])
        for i in range(p["repetitions"] + 1):  # the first is the warm-up
            steps = seat.driver.ask("decode", n=p["n_gen"], seconds=p["seconds"])["seconds"]
            c += [len(steps) / sum(steps)] if i else []
            for how in HOWS:
                answers = [driver.ask("tokens", how=how, n=p["n_gen"], seconds=p["seconds"], parts=parts) for parts in (False, True)]
                if i:
                    plain[how].append(answers[0]["tokens"] / answers[0]["seconds"])
                    measured[how].append(parts_of(answers[1]))
        return _rows(bench, seat, ours, c, plain, measured)


def _rows(bench: Bench, seat: Seat, ours: Seat, c: list[float], plain: dict[str, list[float]],
          measured: dict[str, list[dict[str, float]]]) -> list[Row]:
    name = seat.player.name
    rows = [bench.row(f"{name} C decode", seat, unit="tokens/s", values=c)]
    for how in HOWS:
        found = measured[how]
        middle = {k: round(statistics.median(x[k] for x in found), 2) for k in found[0]}
        rows.append(bench.row(f"{name} {how}", ours, unit="tokens/s", values=plain[how]))
        rows.append(bench.row(f"{name} {how}", ours, kind="python share", unit="share", values=[x["python"] / x["all"] for x in found], extra=middle))
        decode = bench.row(f"{name} {how} decode", ours, unit="tokens/s", values=[1e6 / x["decode"] for x in found])
        rows += [decode, ratio_row(decode, rows[0])]
    return rows
