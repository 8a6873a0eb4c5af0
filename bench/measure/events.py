"""Event-driven decoding beside ours: the product of spike counts whose silent input channels are not read, over the one that we ship."""

from __future__ import annotations

import contextlib
import statistics

from ..cases import Case
from ..errors import BenchError
from ..rows import Row, ratio_row
from .driver import Driver
from .operators import BEYOND_CACHE, rate, repeat_for
from .session import Bench

MOST_ERROR = 1e-6  # of a sum of floats, over the sum of magnitudes


def event_driven(driver: Driver, silent: float, **how: int) -> list[float]:
    """Seconds of a pass. Raises BenchError: the product is not what the plain loop computes."""
    answer = driver.ask("events_time", silent=silent, **how)
    if answer["difference"] > MOST_ERROR:
        raise BenchError(f"bench: events: got a difference of {answer['error']:g} at {silent:.0%}, expected at most {MOST_ERROR:g}; do report this")
    return list(answer["seconds"])


def events(bench: Bench, case: Case) -> list[Row]:
    """For each granularity and share of silent channels: the event-driven product, and ours over as many weights in the same
    turn, A B A B; ours reads all whatever is silent."""
    p = case.params
    n, m = p["shape"]
    count = 1 if bench.small else BEYOND_CACHE // (n * m * 9 // 16) + 1
    bench.check_memory(4 * n * m * count, "two sets of products")
    rows: list[Row] = []
    with contextlib.ExitStack() as stack:
        ours, other = (stack.enter_context(bench.driver("ours")) for _ in range(2))
        built = ours.ask("op_build", op="products", type="q4_0", activations="spikes", n_threads=1, products=[[n, m, count]])
        n_ours = repeat_for(ours, p["seconds"])
        for group in p["groups"]:
            made = other.ask("events_build", n=n, m=m, count=count, group=group)
            for silent in p["silent"]:
                once = statistics.median(event_driven(other, silent, runs=3))
                n_other = max(1, int(p["seconds"] / 5 / once))
                a, b = [], []
                for _ in range(p["repetitions"]):
                    a += ours.ask("op_time", repeat=n_ours)["seconds"]
                    b += event_driven(other, silent, repeat=n_other)
                where = {"unit": "s", "type": "q4_0", "spikes": True, "n_prompt": 1}
                pair = [bench.row(f"{who} {silent:.0%}", values=[x / count for x in v], extra={"group": group, "silent": silent, **rate(of, v)}, **where)
                        for who, of, v in ((f"ours beside group {group}", built, a), (f"group {group}", made, b))]
                rows += [*pair, ratio_row(pair[1], pair[0]) | {"extra": {"group": group, "silent": silent}}]
    return rows
