"""A tool that failed says so by its exit code; its stdout holds what it was asked for; a closed pipe ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from binding_models import convert

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.skipif(not (BIN / "sb-server").exists(), reason="the package is not installed: run make build")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fail")
    convert(ROOT / "examples" / "tiny", folder / "m.gguf", "--outtype", "f32")
    (folder / "short.txt").write_text("short text")
    (folder / "long.txt").write_text("A long enough text. " * 60)
    return folder


def run(folder: Path, command: str, *args: object) -> subprocess.CompletedProcess:
    return subprocess.run([str(BIN / command), "-m", "m.gguf", "-t", "1", *map(str, args)], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)


FAILS = {
    "too short a text": ("sb-perplexity", "-f", "short.txt", "-c", 64),
    "no hellaswag tasks": ("sb-perplexity", "-f", "short.txt", "--hellaswag"),
    "no winogrande tasks": ("sb-perplexity", "-f", "short.txt", "--winogrande"),
    "no multiple choice tasks": ("sb-perplexity", "-f", "short.txt", "--multiple-choice"),
    "no base of a divergence": ("sb-perplexity", "-f", "long.txt", "-c", 64, "--kl-divergence", "--kl-divergence-base", "absent"),
    "log probabilities that cannot be written": ("sb-perplexity", "-f", "long.txt", "-c", 64, "--chunks", 1, "--kl-divergence-base", "absent/x"),
    "a matrix that cannot be written": ("sb-imatrix", "-f", "long.txt", "-c", 64, "--chunks", 1, "-o", "absent/x.gguf"),
    "a prompt longer than the context": ("sb-cli", "-f", "long.txt", "-c", 64, "-st", "-n", 2),
}


@pytest.mark.parametrize("args", FAILS.values(), ids=FAILS)
def test_a_failure_is_an_exit_code(folder, args):
    result = run(folder, *args)
    assert result.returncode == 1 and result.stdout + result.stderr, (result.stdout[-300:], result.stderr[-600:])


def test_success_is_another(folder):
    assert run(folder, "sb-perplexity", "-f", "long.txt", "-c", 64, "--chunks", 1).returncode == 0


def test_stdout_of_a_completion_is_its_text(folder):
    """The end token comes at once by a bias; the session file is written at the end."""
    for more in (("-l", "509+100"), ("--prompt-cache", "s.bin", "--prompt-cache-all")):
        result = run(folder, "sb-completion", "-p", "the tide", "-no-cnv", "-n", 3, "--temp", 0, *more)
        assert result.returncode == 0 and b"[end of text]" not in result.stdout and b"session file" not in result.stdout, result.stdout
        assert result.stdout.startswith(b"the tide")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGPIPE there")
@pytest.mark.parametrize("command", ["{python} -m spikingbrain_cpp", "{bin}/sb-bench --help", "{bin}/sb-completion -m m.gguf -t 1 -p a -n 2000000 --ignore-eos -no-cnv"])
def test_a_closed_pipe_ends_a_command_silently(folder, command):
    read, write = os.pipe()
    os.close(read)
    try:
        result = subprocess.run(command.format(python=sys.executable, bin=BIN).split(), cwd=folder, stdin=subprocess.DEVNULL,
                                stdout=write, stderr=subprocess.PIPE, timeout=30)
    finally:
        os.close(write)
    assert result.returncode == -signal.SIGPIPE and b"Traceback" not in result.stderr and b"BrokenPipe" not in result.stderr, result.stderr[-600:]
