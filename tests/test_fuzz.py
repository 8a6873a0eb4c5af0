"""Nothing that comes from outside crashes, hangs or is answered without a sentence: a minute of the fuzzer, with a fixed seed (`make fuzz`: hours)."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("hypothesis")
from fuzz.engine import Broken, run  # noqa: E402
from fuzz.targets import ALL  # noqa: E402

SECONDS = 8
INPUTS = {"gguf_file": 500, "checkpoint": 400, "snapshot": 1500, "arguments": 1500, "http_body": 1500, "slot_file": 500}


@pytest.mark.parametrize("target", ALL)
def test_fuzzed(target: str, tmp_path: Path) -> None:
    found = run(target, 14, SECONDS, INPUTS[target], tmp_path)
    assert "failed" not in found, found["failed"] + "\n" + found["log"]
    assert found["inputs"] > 20 and found.get("taken", 0) > 0 and found.get("refused", 0) > 0, found


def always_broken(folder: Path):
    from hypothesis import strategies as st

    def check(_: int) -> str:
        raise Broken("as it should")
    return st.integers(), check


def test_a_broken_promise_is_told_with_its_input(tmp_path: Path) -> None:
    from fuzz import engine

    with pytest.raises(Broken, match="as it should") as told:
        engine.child(always_broken, 1, 5, 10, tmp_path)
    assert "value=0" in "".join(told.value.__notes__)
    assert (tmp_path / "current").is_file()


@pytest.mark.parametrize(("code", "why"), [("import os; os.kill(os.getpid(), 11)", "exit status -11"), ("import time; time.sleep(60)", "no end within 1 s")])
def test_a_crash_and_a_hang_are_seen_from_outside(code: str, why: str, tmp_path: Path) -> None:
    import pickle
    import subprocess
    import sys

    from fuzz import engine

    (tmp_path / "current").write_bytes(pickle.dumps((0, "input")))
    process = subprocess.Popen([sys.executable, "-c", code])
    assert (engine.wait(process, tmp_path / "current", 1) or f"exit status {process.returncode}") == why
