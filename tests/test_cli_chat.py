"""sb-cli in a terminal: one turn with -st, and a chat of two turns."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import sys
import time

import pytest
from chat_models import tiny_with

COMMAND = [sys.executable, "-c", "import sys; sys.argv[0] = 'sb-cli'; from spikingbrain_cpp.tools import cli; cli()"]


class Terminal:
    """A command in a pseudo-terminal, ended at the end of the `with` block."""

    def __init__(self, *args: object) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(COMMAND[0], [*COMMAND, *map(str, args)])
        self.text, self.code = b"", None

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_) -> None:
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)

    def read_until(self, pattern: bytes, timeout: float = 200) -> None:
        end = time.monotonic() + timeout
        while not re.search(pattern, self.text, re.DOTALL):
            assert time.monotonic() < end, self.text.decode("utf-8", "replace")
            if select.select([self.fd], [], [], 0.5)[0]:
                try:
                    self.text += os.read(self.fd, 4096)
                except OSError:  # the other end is closed
                    assert re.search(pattern, self.text, re.DOTALL), self.text.decode("utf-8", "replace")

    def type(self, line: str) -> None:
        self.text = b""
        os.write(self.fd, line.encode() + b"\n")

    def wait(self, timeout: float = 60) -> int:
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if select.select([self.fd], [], [], 0.05)[0]:
                try:
                    self.text += os.read(self.fd, 4096)
                except OSError:
                    pass
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                return self.code
        raise AssertionError("it did not end: " + self.text.decode("utf-8", "replace"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    import spikingbrain_cpp.tools as tools
    if not (tools.LIB / "llama-cli").exists():
        pytest.skip("the tools are not installed: run make build")
    return tiny_with(tmp_path_factory.mktemp("cli"), None)


OPTIONS = ("-n", 12, "-t", 1, "--temp", 0, "--ignore-eos", "--simple-io", "--color", "off")


def test_one_turn_ends_by_itself(model):
    with Terminal("-m", model, *OPTIONS, "-p", "hello", "-st") as terminal:
        assert terminal.wait(200) == 0
        assert b"> hello" in terminal.text and b"Generation:" in terminal.text


def test_two_turns_and_out(model):
    with Terminal("-m", model, *OPTIONS) as terminal:
        terminal.read_until(rb"\n> $")
        for line in ("hello", "and then?"):
            terminal.type(line)
            terminal.read_until(rb"Generation: [0-9.]+ t/s.*\n> $")
            answer = terminal.text.split(b"\r\n", 1)[1].split(b"[ Prompt:")[0]
            assert answer.strip(), terminal.text
        terminal.type("/exit")
        assert terminal.wait() == 0
