"""pytest plugin: coverage's context is the running test and its phase, and how long each test takes is written down."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path

import coverage
import pytest

_SECONDS: dict[str, float] = {}
_SETUPS: dict[str, float] = {}  # of a file's fixtures, all together
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
if _WORKER:  # one CPU each: threads that wait by spinning slow two runs on two CPUs down several times
    _cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {_cpus[int(_WORKER.removeprefix("gw")) % len(_cpus)]})


def _switch(item: pytest.Item, phase: str) -> None:
    running = coverage.Coverage.current()
    if running is not None:
        running.switch_context(f"{item.nodeid} ({phase})")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    _switch(item, "setup")
    yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    _switch(item, "call")
    yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    _switch(item, "teardown")
    yield


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed:
        _SECONDS[report.nodeid] = report.duration
    if report.when == "setup":
        file = report.nodeid.split("::")[0]
        _SETUPS[file] = _SETUPS.get(file, 0.0) + report.duration


def pytest_sessionfinish() -> None:
    if not _WORKER:
        Path(os.environ["MUTATE_SECONDS"]).write_text(json.dumps({"seconds": _SECONDS, "setups": _SETUPS}))
