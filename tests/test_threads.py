"""More threads than CPUs, of one process or of several: they share what there is, and do not wait for time slices of the system."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from binding_models import tiny  # noqa: F401

TOKENS = 24
ONE_CPU = f"""
import os, sys, time
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
from spikingbrain_cpp import Llama
llm = Llama(sys.argv[1], n_threads=int(sys.argv[2]), n_threads_batch=int(sys.argv[2]))
llm.eval([5])
begin = time.monotonic()
for token in range({TOKENS}):
    llm.eval([token])
print(time.monotonic() - begin)
"""

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="CPUs cannot be taken away from a process here")


def start(model: Path, n_threads: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", ONE_CPU, str(model), str(n_threads)], stdout=subprocess.PIPE, text=True)


def seconds(process: subprocess.Popen[str]) -> float:
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return float(out)


def test_three_threads_on_one_cpu(tiny: Path) -> None:  # noqa: F811
    """A barrier that waits for a time slice costs milliseconds, one that gives way microseconds: two layers have about forty."""
    alone, three = (seconds(start(tiny, n)) for n in (1, 3))
    assert three < 10*alone + 0.05*TOKENS, (alone, three)


def test_two_processes_on_one_cpu(tiny: Path) -> None:  # noqa: F811
    alone = seconds(start(tiny, 1))
    both = [start(tiny, 2), start(tiny, 2)]
    assert max(map(seconds, both)) < 20*alone + 0.05*TOKENS, alone
