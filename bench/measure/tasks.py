"""lm-evaluation-harness's tasks over k: one row per k with each task's score, their average, and the spikes that this k made of the tasks' own text.

Called by ../quality.py --tasks. Needs the extra `eval`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

Spikes = Callable[[float, list[str]], dict[str, float]]  # spike figures at k, over texts
SPIKE_TEXTS = 64  # of the first task, behind the spike figures


@dataclass(frozen=True)
class Plan:
    """What is asked of one model file. tasks: lm_eval's names, each with ":METRIC" where it is not acc."""
    model: Path
    tasks: tuple[str, ...]
    include_path: Optional[Path]
    num_fewshot: Optional[int]
    limit: Optional[float]
    threads: int


def read_ks(text: str) -> list[Optional[float]]:
    """"off,2,2.5": None is without spikes. SystemExit: something else."""
    try:
        return [None if part.strip() == "off" else float(part) for part in text.split(",")]
    except ValueError:
        raise SystemExit(f"quality: --k: got {text!r}, expected numbers and off, with commas: --k off,2,2.5,3") from None


def name_of(k: Optional[float]) -> str:
    return "no spikes" if k is None else f"k = {k:g}"


def score(found: dict[str, Any], task: str) -> float:
    """Of one task, which may be "NAME:METRIC", out of its metrics {name: value}. SystemExit: it has no such metric."""
    name, _, metric = task.partition(":")
    if (metric or "acc") not in found:
        raise SystemExit(f"quality: --tasks: got {task}, expected a metric of {name}: {', '.join(m for m in found if not m.endswith('_stderr'))}; "
                         f"write {name}:METRIC")
    return float(found[metric or "acc"])


def check_metrics(plan: Plan, manager: Any) -> None:
    """Before hours of computation. SystemExit: a task has not the metric that is asked for (of a group of tasks it is seen at the end)."""
    tasks = manager.load([task.partition(":")[0] for task in plan.tasks])["tasks"]
    for task in plan.tasks:
        if (one := tasks.get(task.partition(":")[0])) is not None:
            score(dict.fromkeys(one.aggregation(), 0.0), task)


def task_manager(plan: Plan) -> Any:
    """lm_eval's index of all tasks. SystemExit: it is not installed."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise SystemExit(f'quality: lm_eval: got {error}, expected the package; do pip install "spikingbrain-cpp[eval]"') from error
    return TaskManager(include_path=str(plan.include_path) if plan.include_path else None)


def evaluated(plan: Plan, k: Optional[float], manager: Any) -> tuple[dict[str, float], list[str]]:
    """({task: score}, texts that were scored)."""
    import lm_eval

    from spikingbrain_cpp.evaluation import SpikingBrainLM

    texts: list[str] = []

    class Listening(SpikingBrainLM):
        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
            texts.extend("".join(request.args) for request in requests[:SPIKE_TEXTS - len(texts)])
            return super().loglikelihood(requests, disable_tqdm)

    spikes = {"spike": False} if k is None else {"spike": True, "spike_k": k}
    lm = Listening(str(plan.model), batch_size="auto", n_threads=plan.threads, n_threads_batch=plan.threads, **spikes)
    try:
        answer = lm_eval.simple_evaluate(
            model=lm, tasks=[task.partition(":")[0] for task in plan.tasks], num_fewshot=plan.num_fewshot, limit=plan.limit, bootstrap_iters=0,
            log_samples=False, task_manager=manager)
    finally:
        lm.close()
    metrics = {name: {key.split(",")[0]: value for key, value in found.items()} for name, found in answer["results"].items()}
    return {task: score(metrics[task.partition(":")[0]], task) for task in plan.tasks}, texts


def finished(path: Path, same: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Rows by their case; SystemExit: rows of another model, other tasks, other settings."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    for row in rows:
        for key in ("model_sha256", "tasks", "num_fewshot", "limit"):
            if row.get(key) != same[key]:
                raise SystemExit(f"{path}: {key}: got {row.get(key)}, expected {same[key]}; move the file away, or give another --out")
    return {row["case"]: row for row in rows}


def measure(plan: Plan, ks: list[Optional[float]], out: Path, origin: dict[str, Any], spikes: Spikes) -> list[dict[str, Any]]:
    """Rows of all k; those that `out` has are kept, new ones are appended as they come. origin: what all rows share."""
    same = {**origin, "tasks": list(plan.tasks), "num_fewshot": plan.num_fewshot, "limit": plan.limit}
    rows = finished(out, same)
    todo = [k for k in ks if name_of(k) not in rows]
    manager = task_manager(plan) if todo else None
    if manager is not None:
        check_metrics(plan, manager)
    out.parent.mkdir(parents=True, exist_ok=True)
    for k in todo:
        began = time.perf_counter()
        scores, texts = evaluated(plan, k, manager)
        row = {"case": name_of(k), "k": k, "scores": scores, "average": sum(scores.values()) / len(scores), "seconds": round(time.perf_counter() - began, 1)}
        if k is not None and texts:
            row |= spikes(k, texts)
        with out.open("a") as f:
            f.write(json.dumps({**row, **same}) + "\n")
        rows[row["case"]] = {**row, **same}
    return [rows[name_of(k)] for k in ks]
