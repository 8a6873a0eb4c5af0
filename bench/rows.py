"""Rows of results: one JSON object per line, appended case by case, so that an interruption loses at most the case it hits."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sb_convert.whole import write_whole

from .errors import BenchError

Row = dict[str, Any]

# every row has these; what does not apply is None
FIELDS = ("case", "kind", "name", "machine", "cpu_features", "pin", "commit", "build", "model", "model_hash", "type", "spikes",
          "threads", "n_prompt", "n_gen", "n_seq", "depth", "repetitions", "unit", "values", "median", "spread", "fitted",
          "peak_resident_bytes", "state_bytes", "noise", "skipped", "date")
OPTIONAL = ("extra", "interval", "side", "engine", "settings")  # since; rows of before lack them
LESS_IS_BETTER = ("s", "bytes", "share")  # units


def spread(values: Sequence[float]) -> float:
    """Half the distance between the quartiles over the median; of fewer than 4 values (largest - smallest) / 2 over it.
    0 for one value: nothing is known of its scatter."""
    if len(values) < 2:
        return 0.0
    middle = statistics.median(values)
    if len(values) < 4:
        wide = max(values) - min(values)
    else:
        low, _, high = statistics.quantiles(values, n=4)
        wide = high - low
    return wide / 2 / abs(middle) if middle else 0.0


def interval(values: Sequence[float], share: float = 0.95, draws: int = 2000) -> list[float]:
    """Of the median, by bootstrap: of `draws` samples with replacement. The same values give the same interval."""
    v = np.asarray(values, dtype=float)
    medians = np.median(np.random.default_rng(1).choice(v, (draws, len(v))), axis=1)
    return [float(x) for x in np.quantile(medians, [(1 - share) / 2, (1 + share) / 2])]


def make_row(**fields: Any) -> Row:
    """A row with every field; `values` give repetitions, median and spread. Raises BenchError for a field that rows do not have."""
    unknown = set(fields) - set(FIELDS) - set(OPTIONAL)
    if unknown:
        raise BenchError(f"bench: row: got the fields {sorted(unknown)}, expected those of rows.FIELDS; do correct the measurement")
    row: Row = {name: None for name in FIELDS} | fields
    values = row["values"]
    if values:
        row |= {"repetitions": len(values), "median": statistics.median(values), "spread": round(spread(values), 5), "interval": interval(values)}
    row["fitted"] = bool(row["fitted"])
    return row


def ratio_row(of: Row, to: Row) -> Row:
    """How many times as fast `of` is as `to`, pair by pair: the i-th repetitions of both were measured one after the other."""
    pairs = [b / a if of["unit"] == "s" else a / b for a, b in zip(of["values"], to["values"])]
    keep = {name: of[name] for name in FIELDS if name not in ("values", "median", "spread", "unit", "peak_resident_bytes", "state_bytes")}
    return make_row(**keep | {"kind": "ratio", "name": f"{of['name']} / {to['name']}", "unit": "x", "values": pairs})


def key(row: Row) -> tuple[str, str, str]:
    return row["case"], row["kind"], row["name"]


def read(path: Path) -> list[Row]:
    """The rows of a file, a later one in place of an earlier one with its key. A last line cut short is dropped.
    Raises BenchError for a missing file and for anything else that is no row."""
    try:
        lines = path.read_text().split("\n")
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "bytes that are no text"
        raise BenchError(f"bench: {path}: got {reason}, expected rows; do name a file that `python -m bench run` wrote") from e
    rows: dict[tuple[str, str, str], Row] = {}
    for i, line in enumerate(lines):
        if not line:
            continue
        try:
            row = json.loads(line)
            missing = [f for f in FIELDS if f not in row]
        except (json.JSONDecodeError, TypeError):
            if i == len(lines) - 1:
                break  # written while the machine went down
            raise BenchError(f"bench: {path}: line {i + 1}: got no JSON object, expected a row; do restore the file") from None
        if missing:
            raise BenchError(f"bench: {path}: line {i + 1}: got no {', '.join(missing)}, expected every field; do restore the file")
        rows.pop(key(row), None)
        rows[key(row)] = row
    return list(rows.values())


def published(found: Iterable[Row]) -> list[Row]:
    """Without those measured on a noisy machine."""
    return [r for r in found if not (r["noise"] or {}).get("noisy")]


def append(path: Path, rows: Iterable[Row]) -> None:
    """Adds rows in one write and waits until they are on disk; what a kill left of an unfinished line goes first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
    with path.open("ab+") as f:
        f.seek(0)
        whole = f.read().rfind(b"\n") + 1
        f.truncate(whole)
        f.write(text.encode())
        f.flush()
        os.fsync(f.fileno())


def drop(path: Path, case: str) -> None:
    """Takes a case's rows out of the file: it is about to be measured again."""
    if not path.exists():
        return
    kept = [row for row in read(path) if row["case"] != case]
    write_whole(path, "".join(json.dumps(row) + "\n" for row in kept).encode())


def finished(rows: Iterable[Row], build: str, path: Path) -> set[str]:
    """Cases that need not run again: something was measured, by this build. A case skipped as a whole is tried again.
    Raises BenchError where rows of another build are there: their figures would be compared as if of one."""
    done = set()
    for row in rows:
        if row["build"] != build:
            raise BenchError(f"bench: {path}: got rows of build {row['build']}, expected {build}; do name another file with --out, "
                             "or remove this one")
        if not row["skipped"]:
            done.add(row["case"])
    return done
