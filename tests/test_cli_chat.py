"""sb-cli in a terminal: one turn with -st, a chat of two turns; the bar that it and sb-completion draw while a long prompt is read."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest
from binding_models import ONE
from chat_models import tiny_with


def command(name: str, *args: object) -> list[str]:
    """The console script `name` of this Python."""
    code = f"import sys; sys.argv[0] = 'sb-{name}'; from spikingbrain_cpp.tools import {name}; {name}()"
    return [sys.executable, "-c", code, *map(str, args)]


class Terminal:
    """A command in a pseudo-terminal, ended at the end of the `with` block."""

    def __init__(self, *args: object, name: str = "cli") -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm"
            os.execv(sys.executable, command(name, *args))
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


# --- the bar ---------------------------------------------------------------------------------------------------------

BAR = re.compile(rb"\r\[(#*)(\.*)\] +(\d+)% of (\d+) tokens, \d+ s\x1b\[K")
ERASED = b"\r\x1b[K"


SENTENCE = "the lighthouse keeper wrote down every ship "
SECONDS = 4  # to read the long text: a bar is drawn after one, then four times in each


@pytest.fixture(scope="module")
def long(model, tmp_path_factory):
    """A text of 25,000 tokens, or as many more as this machine reads in SECONDS."""
    from spikingbrain_cpp import Llama
    n_sentences = 2500
    with Llama(model, n_ctx=0, **ONE) as llm:
        tokens = llm.tokenize(SENTENCE * n_sentences)
        start = time.monotonic()
        llm.eval(tokens)
        n_sentences = int(n_sentences * max(1, SECONDS / (time.monotonic() - start)))
    path = tmp_path_factory.mktemp("long") / "long.txt"
    path.write_text(SENTENCE * n_sentences)
    return path


def reading(name: str, *more: object) -> tuple[object, ...]:
    """Options with which `name` reads the text and writes a few tokens, without a chat's frame."""
    chat = ("-st",) if name == "cli" else ("-no-cnv",)
    return ("-n", 12, "-t", 1, "--temp", 0, "--ignore-eos", "--color", "off", *chat, *more)


@pytest.mark.parametrize("name, more", [("cli", ()), ("completion", ("--no-display-prompt",))])
def test_a_long_prompt_shows_how_far_it_is(model, long, name, more):
    with Terminal("-m", model, "-f", long, *reading(name, *more), name=name) as terminal:
        assert terminal.wait(300) == 0
    bars = [(len(full), len(empty), int(percent), int(total)) for full, empty, percent, total in BAR.findall(terminal.text)]
    assert len(bars) > 1 and len({total for *_, total in bars}) == 1 and bars[0][3] > 20_000
    percents = [percent for _, _, percent, _ in bars]
    assert percents == sorted(percents) and percents[0] < percents[-1] <= 100
    assert all(full + empty == 24 and 0 <= full - percent * 24 // 100 <= 1 for full, empty, percent, _ in bars)
    after = terminal.text[[m.end() for m in BAR.finditer(terminal.text)][-1]:]
    assert after.startswith(ERASED) and after[len(ERASED):].strip()


@pytest.mark.parametrize("name, more", [("cli", ("--simple-io",)), ("completion", ("--no-display-prompt", "--simple-io")), ("completion", ())])
def test_no_bar_where_the_terminal_is_plain_or_the_prompt_itself_is_shown(model, long, name, more):
    with Terminal("-m", model, "-f", long, *reading(name, *more), name=name) as terminal:
        assert terminal.wait(300) == 0
    assert not BAR.search(terminal.text) and ERASED not in terminal.text


@pytest.mark.parametrize("name", ["cli", "completion"])
def test_no_bar_without_a_terminal(model, long, name):
    run = subprocess.run(command(name, "-m", model, "-f", long, *reading(name)), stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
    assert run.returncode == 0 and b"tokens, " not in run.stdout + run.stderr and b"\x1b[K" not in run.stdout + run.stderr


def test_a_short_prompt_shows_no_bar(model):
    with Terminal("-m", model, *reading("cli"), "-p", "hello") as terminal:
        assert terminal.wait(200) == 0
    assert not BAR.search(terminal.text)


def test_ctrl_c_leaves_a_prompt_that_is_read(model, long):
    """With the bar's events there is something to be interrupted at; the bar is erased and the chat goes on."""
    with Terminal("-m", model, "-n", 12, "-t", 1, "--temp", 0, "--ignore-eos", "--color", "off", "-f", long) as terminal:
        terminal.read_until(BAR.pattern)
        os.kill(terminal.pid, signal.SIGINT)
        terminal.read_until(rb"\n> $", 60)
        assert 100 not in [int(percent) for _, _, percent, _ in BAR.findall(terminal.text)]
        terminal.type("/exit")
        assert terminal.wait() == 0
