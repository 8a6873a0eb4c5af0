"""Measurements of single operators and of matrix products, without a model."""

from __future__ import annotations

import contextlib
from typing import Any

from ..cases import Case
from ..rows import Row, ratio_row
from .driver import Driver
from .session import Bench

BEYOND_CACHE = 192 << 20  # bytes of weights a product runs over, so that none stay in a cache


def describe(op: dict[str, Any]) -> str:
    """`swa d=64 H=32 G=8 T=1 f16 window=4096`"""
    numbers = " ".join(f"{k}={op[k]}" for k in ("n", "d", "H", "G", "T", "window") if k in op)
    return " ".join(x for x in (op["op"], numbers, op.get("type", "")) if x)


def repeat_for(driver: Driver, seconds: float) -> int:
    """How often the built operator runs in a fifth of so many seconds; runs it to warm up."""
    driver.ask("op_time", repeat=1, runs=2)
    once = min(driver.ask("op_time", repeat=1, runs=3)["seconds"])
    return max(1, int(seconds / 5 / max(once, 1e-7)))


def rate(built: dict[str, Any], seconds: list[float]) -> dict[str, float]:
    """GB/s and GOP/s at the median time."""
    middle = sorted(seconds)[len(seconds) // 2]
    return {"gb_per_s": round(built["bytes"] / middle * 1e-9, 3), "gop_per_s": round(built["ops"] / middle * 1e-9, 3)}


def operators(bench: Bench, case: Case) -> list[Row]:
    """GLA, window attention, encoding: seconds, GB/s and GOP/s of each. Their data lie in caches where they fit, as in a model."""
    rows, n_threads = [], case.params["n_threads"]
    with bench.driver("ours") as d:
        for op in case.params["operators"]:
            built = d.ask("op_build", n_threads=n_threads, **op)
            seconds = d.ask("op_time", repeat=repeat_for(d, case.params["seconds"]), runs=5)["seconds"]
            rows.append(bench.row(describe(op), unit="s", values=seconds, type=op.get("type"), n_prompt=op["T"], extra=rate(built, seconds)))
    return rows


def alternate(drivers: list[Driver], seconds: float, repetitions: int) -> list[list[float]]:
    """Seconds of each driver's operator, A B A B."""
    repeat = [repeat_for(d, seconds) for d in drivers]
    out: list[list[float]] = [[] for _ in drivers]
    for _ in range(repetitions):
        for values, d, n in zip(out, drivers, repeat):
            values += d.ask("op_time", repeat=n)["seconds"]
    return out


def products(bench: Bench, case: Case) -> list[Row]:
    """Each shape of a layer: upstream's product beside ours on spikes, over enough weights to come from memory.
    INT8 has no product upstream: Q8_0, the nearest in bytes, stands in for it."""
    p, rows = case.params, []
    todo = [(n, m, T, type_) for n, m in p["shapes"] for T in p["T"] for type_ in p["types"]]
    for n, m, T, type_ in todo:
        count = 1 if bench.small else max(1, BEYOND_CACHE // (n * m) if T == 1 else 1)
        sides = (("upstream", {"i8": "q8_0"}.get(type_, type_), False), ("ours", type_, True))
        with contextlib.ExitStack() as stack:
            drivers = [stack.enter_context(bench.driver(side)) for side, _, _ in sides]
            built = [d.ask("op_build", op="products", type=t, activations="spikes" if s else "float", T=T, n_threads=p["n_threads"], products=[[n, m, count]])
                     for d, (_, t, s) in zip(drivers, sides)]
            times = alternate(drivers, p["seconds"], 5)
        what = f"{n}x{m} T={T}"
        both = [bench.row(f"{side} {what} {t}" + " spikes" * s + f" for {type_}" * (t != type_), unit="s", values=[x / count for x in v], type=t, spikes=s, n_prompt=T,
                          extra=rate(b, v)) for (side, t, s), b, v in zip(sides, built, times)]
        rows += [*both, ratio_row(both[1], both[0])]
    return rows


def step(bench: Bench, case: Case) -> list[Row]:
    """All matrix products of one decoded token, each over weights of its own: the same plain work on both sides, and ours on spikes."""
    p = case.params
    shapes = [[256, 256, 4]] if bench.small else p["products"]
    sides = (("upstream", False), ("ours", False), ("ours", True))
    need = 3 * sum(n * m * k for n, m, k in shapes)
    bench.check_memory(need, "three sets of products")
    with contextlib.ExitStack() as stack:
        drivers = [stack.enter_context(bench.driver(side)) for side, _ in sides]
        built = [d.ask("op_build", op="products", type=p["type"], activations="spikes" if s else "float", n_threads=p["n_threads"], products=shapes)
                 for d, (_, s) in zip(drivers, sides)]
        times = alternate(drivers, 0.3, p["repetitions"])
    rows = [bench.row(f"{side} {p['type']}" + " spikes" * s, unit="s", values=v, type=p["type"], spikes=s, extra=rate(b, v))
            for (side, s), b, v in zip(sides, built, times)]
    return [*rows, ratio_row(rows[1], rows[0]), ratio_row(rows[2], rows[0])]
