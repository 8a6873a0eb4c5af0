"""The last line of make demo is measured, and says so when it is not equal."""

from __future__ import annotations

import re
import subprocess
import sys

from binding_models import tiny  # noqa: F401

from spikingbrain_cpp import demo


def run(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "spikingbrain_cpp.demo", *map(str, arguments)], capture_output=True, text=True, timeout=300)


def test_text_then_one_line(tiny):  # noqa: F811
    done = run(tiny, "-n", 20, "-t", 1, "--prompt", "hello the")
    assert done.returncode == 0 and done.stderr == ""
    *text, line = done.stdout.splitlines()
    assert "\n".join(text).startswith("hello the")
    assert re.fullmatch(r"[\d.]+ tokens/s, model [\d.]+ [KM]iB, [\d,]+ bytes of state at 10 tokens, the same at 10,000", line)


def test_a_state_that_grows_is_an_error(tiny, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(demo.Llama, "state_bytes", lambda self: 1000 + self.n_tokens)
    assert demo.main([str(tiny), "-n", "2", "-t", "1"]) == 1
    out, err = capsys.readouterr()
    assert "1,010 bytes of state at 10 tokens, 11,000 at 10,000" in out and "expected 1,010" in err


def test_a_missing_model_is_one_line(tmp_path):
    done = run(tmp_path / "none.gguf")
    assert done.returncode == 1 and re.fullmatch(r"demo: .*expected a GGUF file.*\n", done.stderr)
