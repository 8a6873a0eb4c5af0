"""Rows to Markdown tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Optional

from ..cases import PAPER_FIGURE_7
from ..rows import Row
from ..shapes import shape_named, state_bytes_per_token, weight_bytes_per_token
from ..sides import SIDES
from . import events

MIB = 1 << 20


def table(head: Iterable[str], body: Iterable[Iterable[Any]]) -> str:
    lines = [list(head), *([str(x) for x in line] for line in body)]
    if len(lines) == 1:
        return "_not measured_"
    return "\n".join(["| " + " | ".join(lines[0]) + " |", "| " + " | ".join(["---"] * len(lines[0])) + " |",
                      *("| " + " | ".join(line) + " |" for line in lines[1:])])


def number(x: Optional[float]) -> str:
    """Three significant digits."""
    if x is None:
        return "-"
    return f"{x:.0f}" if abs(x) >= 100 else f"{x:.1f}" if abs(x) >= 10 else f"{x:.2f}" if abs(x) >= 0.1 else f"{x:.3g}"


def value(row: Optional[Row], scale: float = 1) -> str:
    """Median +- spread, or why there is none; `fitted` values are marked."""
    if row is None or row["median"] is None:
        return "-"
    text = number(row["median"] * scale) + ("x" if row["unit"] == "x" else "")
    return text + " (fitted)" if row["fitted"] else f"{text} ±{row['spread']:.0%}" if row["repetitions"] > 1 else text


def mib(n: Optional[float]) -> str:
    return "-" if n is None else number(n / MIB)


def size(n: int) -> str:
    return f"{n // 1024}k" if n >= 1024 else str(n)


def decode_rows(rows: list[Row], prefix: str) -> list[Row]:
    return [r for r in rows if r["case"].startswith(prefix) and r["kind"] == "decode" and r["median"]]


def names(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(r["name"] for r in rows))


def depths(rows: Iterable[Row]) -> list[int]:
    return sorted({r["depth"] for r in rows})


def find(rows: Iterable[Row], **wanted: Any) -> Optional[Row]:
    return next((r for r in rows if all(r[k] == v for k, v in wanted.items())), None)


def ours(row: Row) -> bool:
    return bool(shape_named(row["model"]).window)


def cache(row: Row) -> str:
    """Type of an engine's keys and values."""
    return str((row.get("settings") or {}).get("kv", "f16"))


def label(row: Row) -> str:
    """Ours by name; of another engine its model, and its settings only where their cache is another one: the fastest counts."""
    if ours(row):
        return str(row["name"])
    return f"{row['model']} {row['type']}, {SIDES[row.get('side') or 'upstream'].engine}" + f", {cache(row)} cache" * (cache(row) != "f16")


def labels(found: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(label(r) for r in found))


def fastest(found: Iterable[Row], **wanted: Any) -> Optional[Row]:
    """Of the rows with these values; `label` as label() says."""
    name = wanted.pop("label", None)
    return max((r for r in found if all(r[k] == v for k, v in wanted.items()) and name in (None, label(r))), key=lambda r: r["median"], default=None)


def best_other(rows: Iterable[Row], depth: int) -> Optional[Row]:
    """The fastest engine beside ours at a depth, at its fastest setting."""
    return fastest((r for r in rows if not ours(r)), depth=depth)


def speed_ratio(rows: list[Row], mine: Row, theirs: Optional[Row]) -> Optional[float]:
    """Round by round where both played; else of the medians."""
    if theirs is None:
        return None
    pair = find(rows, case=mine["case"], kind="ratio", name=f"{mine['name']} / {theirs['name']}")
    return pair["median"] if pair else mine["median"] / theirs["median"]


def bytes_per_token(row: Row) -> int:
    shape = shape_named(row["model"])
    return weight_bytes_per_token(shape, row["type"]) + state_bytes_per_token(shape, row["depth"], row["spikes"], cache(row))


def decode(rows: list[Row], prefix: str, paper: dict[int, float]) -> str:
    """Tokens per second by depth; ratios to the fastest of the others, and to it what the bytes of a token allow."""
    found = decode_rows(rows, prefix)
    theirs, mine = (labels(r for r in found if ours(r) is side) for side in (False, True))
    head = ["depth", *theirs, *(x for n in mine for x in (n, "ratio", "bytes allow"))] + (["paper"] if paper else [])
    body = []
    for d in depths(found):
        base = best_other(found, d)
        line = [size(d), *(value(fastest(found, depth=d, label=n)) for n in theirs)]
        for n in mine:
            row = fastest(found, depth=d, label=n)
            line += [value(row), *((number(speed_ratio(rows, row, base)) + "x", number(bytes_per_token(base) / bytes_per_token(row)) + "x")
                                   if row and base else ("-", "-"))]
        body.append(line + ([f"{paper[d]}x" if d in paper else "-"] if paper else []))
    return table(head, body)


def figure7(rows: list[Row]) -> str:
    return decode(rows, "decode-1b-d", PAPER_FIGURE_7)


def big(rows: list[Row]) -> str:
    return decode([r for r in rows if "int8" not in r["case"]], "decode-7b", {}) + "\n\n" + decode(rows, "decode-7b-int8", {})


def memory(rows: list[Row]) -> str:
    """State and peak resident MiB over depth."""
    found = decode_rows(rows, "decode-1b-d")
    order = labels(found)
    def cells(d: int, n: str) -> tuple[str, str]:
        row = fastest(found, depth=d, label=n) or {}
        return mib(row.get("state_bytes")), mib(row.get("peak_resident_bytes"))
    return table(["depth", *(x for n in order for x in (f"{n}: state MiB", "peak resident MiB"))],
                 [[size(d), *(x for n in order for x in cells(d, n))] for d in depths(found)])


def prompts(rows: list[Row]) -> list[Row]:
    """Times of whole prompts of the 1B shapes."""
    return [r for r in rows if r["kind"].startswith("prefill ") and not r["depth"] and r["median"] and not r["case"].startswith(("prefill-moe", "types-"))]


def prefill(rows: list[Row]) -> str:
    """Seconds to the first token by prompt length."""
    found = prompts(rows)
    order = names(found)
    lengths = sorted({r["n_prompt"] for r in found})
    return table(["prompt tokens", *(f"{n}, s" for n in order)],
                 [[size(n), *(value(next((r for r in reversed(found) if r["n_prompt"] == n and r["name"] == name), None)) for name in order)]
                  for n in lengths])


def moe(rows: list[Row]) -> str:
    """A mixture of experts: speed, the bytes of what a token chooses and what they allow, and ratios to each of the other models; then seconds of a prompt."""
    decoded, read = decode_rows(rows, "decode-moe"), [r for r in rows if r["case"].startswith("prefill-moe") and r["kind"].startswith("prefill ") and r["median"]]
    models = list(dict.fromkeys(r["model"] for r in decoded + read if not ours(r)))

    def over(r: Row, its: list[Row]) -> list[str]:
        others = [find(its, case=r["case"], model=m, kind=r["kind"]) if ours(r) else None for m in models]
        pairs = [o and find(rows, case=r["case"], name=f"{r['name']} / {o['name']}") for o in others]
        return [value(p or None) for p in pairs]
    body = [[size(r["depth"]), label(r), value(r), mib(r["extra"]["bytes_per_step"]), number(r["extra"]["bound"]), *over(r, decoded)] for r in decoded]
    lines = [[size(r["n_prompt"]), label(r), value(r), *over(r, read)] for r in read]
    ratios = [f"over {m}" for m in models]
    both = [table(["depth", "model", "tokens/s", "MiB per token", "bytes allow", *ratios], body), table(["prompt tokens", "model", "s", *ratios], lines)]
    return "\n\n".join(dict.fromkeys(both))


def roofline(rows: list[Row]) -> str:
    """GB/s of a decoded token over the read rate of the same rounds, and the speed that its bytes allow at that rate."""
    body = []
    for r in (r for r in decode_rows(rows, "roofline-") if "bound" in (r.get("extra") or {})):
        x, read = r["extra"], r["extra"]["read_gb_per_s"]
        body.append([r["threads"], label(r), value(r), number(x["bound"]), number(x["bytes_per_step"] / MIB), number(x["gb_per_s"]), number(read["4k"]),
                     number(read["huge"]), f"{x['gb_per_s'] / max(read.values()):.0%}", number(x["ms_p50"]), number(x["ms_p99"])])
    return table(["threads", "model", "tokens/s", "bytes allow", "MiB per token", "GB/s", "read GB/s, 4 KiB pages", "huge", "of it", "ms, p50", "p99"], body)


def operators(rows: list[Row]) -> str:
    return table(["operator", "threads", "µs", "GB/s", "GOP/s"],
                 [[r["name"], r["threads"], value(r, 1e6), number(r["extra"]["gb_per_s"]), number(r["extra"]["gop_per_s"])]
                  for r in rows if r["kind"] == "operators" and r["median"]])


def products(rows: list[Row]) -> str:
    """Upstream's product, ours on spikes, and the ratio, for each shape."""
    body = []
    for pair in (r for r in rows if r["case"].startswith("products-") and r["kind"] == "ratio"):
        ours, theirs = (find(rows, case=pair["case"], name=n) for n in pair["name"].split(" / "))
        if ours and theirs:
            body.append([ours["name"].removeprefix("ours "), value(theirs, 1e6), number(theirs["extra"]["gb_per_s"]), value(ours, 1e6),
                         number(ours["extra"]["gb_per_s"]), number(ours["extra"]["gop_per_s"]), value(pair)])
    return table(["product", "upstream µs", "GB/s", "ours µs", "GB/s", "GOP/s", "ratio"], body)


def step(rows: list[Row]) -> str:
    return products([r for r in rows if r["case"].startswith("products-step")])


def shapes_of_products(rows: list[Row]) -> str:
    return products([r for r in rows if not r["case"].startswith("products-step")])


def batch(rows: list[Row]) -> str:
    found = decode_rows(rows, "batch-")
    order = names(found)
    return table(["sequences", *order], [[n, *(value(find(found, n_seq=n, name=name)) for name in order)]
                                         for n in sorted({r["n_seq"] for r in found})])


def load(rows: list[Row]) -> str:
    found = [r for r in rows if r["kind"].startswith("load ") and r["median"]]
    return table(["model", "cold, s", "warm, s", "peak resident MiB"],
                 [[n, value(find(found, name=n, kind="load cold")), value(find(found, name=n, kind="load warm")),
                   mib((find(found, name=n) or {}).get("peak_resident_bytes"))] for n in names(found)])


def validate(rows: list[Row]) -> str:
    """What stands in for a measurement over the measurement: a filled context at 4096, a fitted prompt of 16,384."""
    found = [r for r in rows if (r["case"].startswith("validate-") and r["kind"] == "ratio") or r["kind"] == "ratio fit"]
    return table(["stands in / measured", "ratio"], [[r["name"] if r["kind"] == "ratio fit" else r["name"].split(" filled")[0] + ", decode speed after a filled 4k", value(r)]
                                                     for r in found])


def python(rows: list[Row]) -> str:
    """Where the time of a token goes, and what a call to decode from Python takes beside one from C."""
    body = []
    for r in (r for r in rows if r["kind"] == "python share" and r["median"]):
        us, pair = r["extra"], find(rows, case=r["case"], kind="ratio", name=f"{r['name']} decode / {r['name'].rsplit(' ', 1)[0]} C decode")
        body.append([r["name"], *(number(us[k]) for k in ("all", "decode", "sample", "python")),
                     f"{r['median']:.2%} ±{r['spread'] * r['median']:.2%}", value(pair)])
    return table(["tokens through", "µs per token", "of it decode", "sampling", "Python", "Python's share", "decode, speed over C"], body)


def verify(rows: list[Row]) -> str:
    """Milliseconds of one token, and the time of more at once over it."""
    found = [r for r in rows if r["kind"].startswith("verify ") and r["median"]]
    sizes = sorted({r["n_prompt"] for r in found})
    body = []
    for case, name in dict.fromkeys((r["case"], r["name"]) for r in found):
        one = find(found, case=case, name=name, n_prompt=sizes[0])
        ratios = (find(rows, case=case, name=name, kind=f"ratio verify {n}") for n in sizes[1:])
        body.append([one["threads"] if one else "-", name, value(one, 1e3), *(value(r) for r in ratios)])
    return table(["threads", "model", "ms for 1", *(f"{n} tokens" for n in sizes[1:])], body)


def shared(rows: list[Row]) -> str:
    """Tokens per second of all processes together, ours over the others'."""
    found = [r for r in rows if r["kind"] == "shared" and r["median"]]
    pairs = [r for r in rows if r["kind"] == "ratio shared" and r["median"]]
    others = list(dict.fromkeys(r["name"].split(" / ")[1] for r in pairs))
    body = [[r["name"], value(r), *(value(find(pairs, case=r["case"], name=f"{r['name']} / {other}")) for other in others)] for r in found]
    return table(["model", "tokens/s of all", *(f"over {other}" for other in others)], body)


def other_types(rows: list[Row]) -> str:
    """Of each other type than Q4_0 tokens per second, and seconds of a prompt; ours over the others'."""
    def part(case: str) -> str:
        its = [r for r in rows if r["case"] == case and r["median"]]
        found, pairs = [r for r in its if not r["kind"].startswith("ratio")], [r for r in its if r["kind"].startswith("ratio")]
        others = list(dict.fromkeys(r["name"].split(" / ")[1] for r in pairs))
        body = [[r["name"], value(r), *(value(find(pairs, case=case, name=f"{r['name']} / {other}")) for other in others)] for r in found]
        return table(["model", "tokens/s" if "decode" in case else "s, prompt of 512", *(f"over {other}" for other in others)], body)
    return "\n\n".join(part(case) for case in dict.fromkeys(r["case"] for r in rows) if case.startswith("types-")) or part("")


def rollback(rows: list[Row]) -> str:
    """Milliseconds to take tokens back beside that of a decoded token."""
    found = [r for r in rows if r["kind"].startswith("rollback ") and r["median"]]
    kinds = list(dict.fromkeys(r["kind"] for r in found if r["kind"] != "rollback token"))
    body = [[name, *(value(find(found, name=name, kind=kind), 1e3) for kind in ("rollback token", *kinds))] for name in names(found)]
    return table(["ms", "a decoded token", *(kind.removeprefix("rollback ") for kind in kinds)], body)


def before(rows: list[Row]) -> str:
    """Decode speed over that of the build before."""
    body = []
    for pair in (r for r in rows if r["case"].startswith("before-") and r["kind"] == "ratio" and r["median"]):
        now, then = (find(rows, case=pair["case"], name=n, kind="before") for n in pair["name"].split(" / "))
        gla = [find(rows, case=pair["case"], name=n, kind="gla") for n in pair["name"].split(" / ")]
        if now and then:
            body.append([pair["threads"], now["name"], value(then), value(now), f"{pair['median']:.3f}x ±{pair['spread']:.1%}", pair["repetitions"],
                         *(value(r, 1e6) for r in reversed(gla)), f"{pair['extra']['gla_share']:.2%}"])
    return table(["threads", "model", "before, tokens/s", "now", "ratio", "pairs", "gla of a layer before, µs", "now", "of a token"], body)


def state(rows: list[Row]) -> str:
    """MiB of a sequence, and of it what is there to take tails back."""
    found = [r for r in rows if r["kind"] in ("state", "state before") and r["median"]]
    body = []
    for name in names(found):
        then, now = (find(found, name=name, kind=kind) for kind in ("state before", "state"))
        both = bool(then and now)
        body.append([name, mib(then["median"] if then else None), mib(now["median"] if now else None),
                     mib(now["median"] - then["median"]) if both else "-"])  # type: ignore[index]
    return table(["a sequence, MiB", "before", "now", "more"], body)


def drafts(rows: list[Row]) -> str:
    """Tokens per second with n-gram drafts over those without."""
    body = []
    for pair in (r for r in rows if r["case"].startswith("drafts-") and r["kind"] == "ratio" and r["median"]):
        with_, without = (find(rows, case=pair["case"], name=n, kind="drafts") for n in pair["name"].split(" / "))
        body.append([pair["case"].removeprefix("drafts-"), without["name"] if without else "-", value(without), value(with_), value(pair),
                     pair["extra"]["draft_n"], pair["extra"]["draft_n_accepted"]])
    return table(["--spec-type", "text", "without, tokens/s", "with", "ratio", "drafted", "accepted"], body)


def convert(rows: list[Row]) -> str:
    return table(["conversion", "s", "peak resident MiB", "of it not mapped files"],
                 [[r["name"], value(r), mib(r["peak_resident_bytes"]), mib(r["extra"]["anonymous_bytes"])] for r in rows if r["kind"] == "convert" and r["median"]])


def skipped(rows: list[Row]) -> str:
    return "\n".join(f"- `{r['case']}`: {r['skipped']}" for r in rows if r["skipped"]) or "none"


def machine(rows: list[Row]) -> str:
    """One paragraph: where, when, with what."""
    if not rows:
        return "_not measured_"
    r = rows[-1]
    noisy = len({x["case"] for x in rows if (x["noise"] or {}).get("noisy")})
    return (f"{r['machine']['cpu']}, {r['machine']['cpus']} CPUs, {r['machine']['memory_bytes'] / 2**30:.0f} GiB; {', '.join(r['cpu_features'])}; "
            f"pin {r['pin']}, commit {r['commit']}, {r['date'][:10]}; "
            f"{len({x['case'] for x in rows})} cases, {noisy} of them on a noisy machine and not shown.")


def event_driven(rows: list[Row]) -> str:
    head, *body = events.table_lines(rows) or [[]]
    return table(head, body)


TABLES: dict[str, Callable[[list[Row]], str]] = {
    "machine": machine, "figure7": figure7, "memory": memory, "prefill": prefill, "roofline": roofline, "operators": operators,
    "step": step, "products": shapes_of_products, "batch": batch, "types": other_types, "shared": shared, "load": load, "validate": validate, "convert": convert, "python": python,
    "big": big, "moe": moe, "verify": verify, "rollback": rollback, "before": before, "state": state, "drafts": drafts, "events": event_driven, "skipped": skipped,
}

# what a generated file has of them, in this order
CAPTIONS = {
    "figure7": "Decode speed in tokens/s over depth, ratios to the fastest of the others and what the bytes of a token allow of them",
    "memory": "Memory over depth", "prefill": "Time to the first token", "roofline": "Roofline and threads",
    "batch": "Several sequences, tokens/s of all together at a depth of 512", "shared": "Two processes at once, each with as many threads as there are cores",
    "types": "Q4_K_M, the type that most files have, and others: decode speed at a depth of 1024, time to the first token",
    "big": "7B shapes",
    "moe": "SpikingBrain-76B-small, a mixture of experts, beside upstream's dense and mixture models of that size; bytes of the weights that a token chooses",
    "validate": "What is filled or fitted against what was run", "python": "Python's share of the time per token", "load": "Load time",
    "convert": "Conversion of a checkpoint of Qwen2.5-1.5B's dimensions (3.1 GB; Qwen2 layout beside ours) to Q4_0",
    "verify": "Time to verify tokens in one batch, over that of one, at a depth of 1024", "rollback": "Time to take tokens back, and to decode one",
    "before": "Decode speed over that of the build before", "state": "Memory of a sequence", "drafts": "examples/small with n-gram drafts",
    "events": "Event-driven products of one token, by input channel, on one thread: speed over ours by the share of silent channels",
    "step": "The matrix products of one decoded token of the 1B shape", "operators": "Single operators", "products": "Single products",
    "skipped": "Cases that could not run"}
