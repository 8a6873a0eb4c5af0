"""The programs of the zip under Wine: the text and the files that Linux makes, any path, one CPU library alone, an interrupt."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ROOT, Models, Wine, on_linux

from spikingbrain_cpp.tools import TOOLS

RAN = {"programs": "Windows x86-64: Wine 8"}
SMALL = ROOT / "examples" / "small"
SPIKING = ("--outtype", "q4_0", "--spike")
PROMPT, N = "The file is opened", 32
OLD = ("x64", "sse42", "sandybridge", "ivybridge", "haswell")  # CPU libraries of CPUs without AVX-512; all run here


def words(model: object, n: int = N) -> list[object]:
    return ["-m", model, "-p", PROMPT, "-n", n, "--temp", 0, "-no-cnv", "-t", 1, "--no-warmup", "--ignore-eos"]


def text_of(said: bytes) -> str:
    return said.decode(errors="replace").replace("\r\n", "\n").strip()  # a token may end within a character


@pytest.fixture(scope="module")
def linux(models: Models) -> Iterator[dict[tuple[str, ...], str]]:
    """Greedy text of this machine's package, by the options of the model."""
    yield {options: text_of(on_linux("sb-completion", *words(models(SMALL, *options)))) for options in (("--outtype", "f32"), SPIKING)}


# --- what is in the zip -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", TOOLS)
def test_every_tool_of_the_package_is_there_and_starts(wine: Wine, programs: Path, name: str) -> None:
    done = wine.run(programs / f"{name}.exe", "--help", code=None, timeout=60)
    assert done.returncode in (0, 1) and b"usage" in (done.stdout + done.stderr).lower()  # llama.cpp's quantize and gguf-split end with 1


def test_licences_and_first_words_are_there(programs: Path) -> None:
    assert {"LICENSE.txt", "README.txt", "licenses"} <= {p.name for p in programs.iterdir()}
    assert any("mingw" in p.name.lower() for p in (programs / "licenses").iterdir())


def test_programs_need_nothing_but_windows_and_say_what_they_ask_of_it(programs: Path) -> None:
    """DLLs of their own or of every Windows 10; UTF-8 and long paths by the manifest."""
    windows = rb"(advapi32|kernel32|shell32|ws2_32|api-ms-win-crt-[a-z]+-l1-1-0)\.dll"
    own = {p.name.lower().encode() for p in programs.iterdir()}
    for path in programs.iterdir():
        if path.suffix in (".exe", ".dll"):
            blob = path.read_bytes()
            named = {name.lower() for name in re.findall(rb"\0([A-Za-z0-9_.-]+\.(?:dll|DLL))\0", blob)}
            assert [n for n in named - own if not re.fullmatch(windows, n)] == [], path.name
            assert path.suffix == ".dll" or b"activeCodePage" in blob and b"longPathAware" in blob, path.name


# --- text ----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("isa", ["zen4", "avx512", "avxvnni", "avx2", "generic"])
@pytest.mark.parametrize("options", [("--outtype", "f32"), SPIKING], ids=" ".join)
def test_greedy_text_is_that_of_linux(wine: Wine, programs: Path, models: Models, linux: dict[tuple[str, ...], str], options: tuple[str, ...], isa: str) -> None:
    done = wine.run(programs / "sb-completion.exe", *words(wine.path(models(SMALL, *options))), env={"SPIKINGBRAIN_ISA": isa})
    assert text_of(done.stdout) == linux[options] and len(linux[options]) > len(PROMPT) + N


@pytest.mark.parametrize("library", OLD)
def test_an_older_cpu_writes_the_same_with_its_library_alone(wine: Wine, programs: Path, models: Models, linux: dict[tuple[str, ...], str], tmp_path: Path, library: str) -> None:
    if not (programs / f"ggml-cpu-{library}.dll").exists():
        pytest.skip(f"the zip was built without {library}")
    for path in programs.iterdir():
        if path.is_file() and (not path.name.startswith("ggml-cpu-") or path.name == f"ggml-cpu-{library}.dll"):
            os.link(path, tmp_path / path.name)
    kernels = {} if library == "haswell" else {"SPIKINGBRAIN_ISA": "generic"}
    done = wine.run(tmp_path / "sb-completion.exe", *words(wine.path(models(SMALL, *SPIKING))), env=kernels)
    assert text_of(done.stdout) == linux[SPIKING]


# --- files ------------------------------------------------------------------------------------------------------------------

def test_quantize_writes_the_file_that_linux_writes(wine: Wine, programs: Path, models: Models, tmp_path: Path) -> None:
    source = models(SMALL, "--outtype", "f32")
    (tmp_path / "windows.gguf").write_bytes(b"old")  # renamed over
    wine.run(programs / "sb-quantize.exe", wine.path(source), wine.path(tmp_path / "windows.gguf"), "Q4_0", 1)
    on_linux("sb-quantize", source, tmp_path / "linux.gguf", "Q4_0", 1)
    assert (tmp_path / "windows.gguf").read_bytes() == (tmp_path / "linux.gguf").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["linux.gguf", "windows.gguf"]


@pytest.mark.parametrize("splits_on", ["windows", "linux"])
def test_a_split_file_is_joined_on_the_other_system(wine: Wine, programs: Path, models: Models, tmp_path: Path, splits_on: str) -> None:
    source = models(SMALL, *SPIKING)
    split, merge = ("--split", "--split-max-tensors", 20), ("--merge",)
    parts, joined = tmp_path / "part", tmp_path / "joined.gguf"
    if splits_on == "windows":
        wine.run(programs / "sb-gguf-split.exe", *split, wine.path(source), wine.path(parts))
        first = sorted(tmp_path.iterdir())[0]
        on_linux("sb-gguf-split", *merge, first, joined)
    else:
        on_linux("sb-gguf-split", *split, source, parts)
        first = sorted(tmp_path.iterdir())[0]
        wine.run(programs / "sb-gguf-split.exe", *merge, wine.path(first), wine.path(joined))
    on_linux("sb-gguf-split", *merge, first, tmp_path / "here.gguf")
    assert joined.read_bytes() == (tmp_path / "here.gguf").read_bytes() and first.name.startswith("part-00001-of-")


@pytest.mark.parametrize("writes", ["windows", "linux"])
def test_a_session_file_is_read_on_the_other_system(wine: Wine, programs: Path, models: Models, linux: dict[tuple[str, ...], str], tmp_path: Path, writes: str) -> None:
    model, file = models(SMALL, *SPIKING), tmp_path / "session"

    def windows() -> tuple[bytes, bytes]:
        done = wine.run(programs / "sb-completion.exe", *words(wine.path(model)), "-lv", 4, "--prompt-cache", wine.path(file))
        return done.stdout, done.stderr

    def here() -> tuple[bytes, bytes]:
        log = tmp_path / "log"
        said = on_linux("sb-completion", *words(model), "-lv", 4, "--log-file", log, "--prompt-cache", file)
        return said, log.read_bytes()

    first, second = (windows, here) if writes == "windows" else (here, windows)
    first()
    kept = file.read_bytes()
    said, log = second()
    assert linux[SPIKING] in text_of(said)
    assert b"session file has exact match for prompt" in log + said or b"loaded a session with prompt size of" in log + said
    assert kept[:8] == file.read_bytes()[:8]


LONG = "x" * 120 + "/" + "y" * 120 + "/" + "z" * 100


@pytest.mark.parametrize("name", ["with space", "Schön 模型 и", LONG], ids=["space", "unicode", "long"])
def test_models_are_found_and_written_under_any_path(wine: Wine, programs: Path, models: Models, linux: dict[tuple[str, ...], str], tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir(parents=True)
    shutil.copy(models(SMALL, *SPIKING), folder / "m é.gguf")
    for options in ((), ("--load-mode", "none")):
        assert text_of(wine.run(programs / "sb-completion.exe", *words(wine.path(folder / "m é.gguf")), *options).stdout) == linux[SPIKING]
    wine.run(programs / "sb-quantize.exe", wine.path(models(SMALL, "--outtype", "f32")), wine.path(folder / "new ü.gguf"), "Q8_0", 1)
    assert sorted(p.name for p in folder.iterdir()) == ["m é.gguf", "new ü.gguf"]
    for _ in range(5):  # the last line of the log, whichever thread is ended first
        assert "none é.gguf" in wine.run(programs / "sb-completion.exe", *words(wine.path(folder / "none é.gguf")), code=1).stderr.decode()


def test_programs_run_from_any_path(wine: Wine, programs: Path, models: Models, linux: dict[tuple[str, ...], str], tmp_path: Path) -> None:
    folder = tmp_path / "Programme für 模型"
    shutil.copytree(programs, folder, copy_function=os.link)
    assert text_of(wine.run(folder / "sb-completion.exe", *words(wine.path(models(SMALL, *SPIKING))), cwd=tmp_path).stdout) == linux[SPIKING]


def test_a_prompt_in_any_script_is_what_was_typed(wine: Wine, programs: Path, models: Models) -> None:
    given = ["-m", models(SMALL, "--outtype", "f32"), "-p", "naïve 模型 и é", "-n", 8, "--temp", 0, "-no-cnv", "-t", 1, "--no-warmup"]
    said = wine.run(programs / "sb-completion.exe", *given[:1], wine.path(models(SMALL, "--outtype", "f32")), *given[2:])
    assert text_of(said.stdout) == text_of(on_linux("sb-completion", *given))


# --- Ctrl-C -------------------------------------------------------------------------------------------------------------------

class Terminal:
    """A program of Windows in a pseudo-terminal, which Wine shows to it as a console; ended at the end of the `with` block."""

    def __init__(self, wine: Wine, *words: object) -> None:
        self.text, self.code = b"", None
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(wine.program, [wine.program, *map(str, words)], {**wine.environment, "TERM": "xterm"})

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)

    def read(self) -> None:
        if select.select([self.fd], [], [], 0.1)[0]:
            try:
                self.text += os.read(self.fd, 65536)
            except OSError:  # the other end is closed
                time.sleep(0.1)

    def read_until(self, pattern: bytes, timeout: float) -> None:
        end = time.monotonic() + timeout
        while not re.search(pattern, re.sub(rb"\x1b\[[?0-9;]*[a-zA-Z]|\r", b"", self.text)):  # Wine draws by many moves of the cursor
            assert time.monotonic() < end, self.text[-3000:].decode(errors="replace")
            self.read()

    def wait(self, timeout: float) -> int:
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            self.read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                return self.code
        raise AssertionError("it did not end: " + self.text[-3000:].decode(errors="replace"))


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "long.txt"
    path.write_text("The file is opened and read again. " * 40000)
    return path


def test_ctrl_c_ends_a_completion_whose_prompt_is_read(wine: Wine, programs: Path, models: Models, long: Path) -> None:
    given = ["-m", wine.path(models(SMALL, "--outtype", "f32")), "-f", wine.path(long), "-t", 1, "-n", 4, "-no-cnv", "--no-warmup", "--no-display-prompt"]
    with Terminal(wine, programs / "sb-completion.exe", *given) as terminal:
        terminal.read_until(rb"% of \d+ tokens", 60)
        os.write(terminal.fd, b"\x03")
        assert terminal.wait(20) == 130


def test_ctrl_c_leaves_a_prompt_of_a_chat_which_goes_on(wine: Wine, programs: Path, models: Models, long: Path) -> None:
    with Terminal(wine, programs / "sb-cli.exe", "-m", wine.path(models(SMALL, "--outtype", "f32")), "-f", wine.path(long), "-n", 8, "-t", 1, "--color", "off") as terminal:
        terminal.read_until(rb"% of \d+ tokens", 60)
        os.write(terminal.fd, b"\x03")
        terminal.read_until(rb"\n> *$", 60)
        os.write(terminal.fd, b"/exit\r")
        assert terminal.wait(20) == 0


@pytest.mark.parametrize(("more", "code"), [(0, 0), (1, 1)], ids=["once", "twice"])  # a second one does not wait for the batch
def test_ctrl_c_ends_a_server_that_reads_a_prompt(wine: Wine, programs: Path, models: Models, long: Path, more: int, code: int) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]

    def ask() -> None:
        body = json.dumps({"prompt": long.read_text(), "n_predict": 1}).encode()
        with contextlib.suppress(OSError, http.client.HTTPException):
            urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/completion", body, {"Content-Type": "application/json"}), timeout=120).read()

    with Terminal(wine, programs / "sb-server.exe", "-m", wine.path(models(SMALL, "--outtype", "f32")), "--port", port, "-np", 1, "-t", 1, "--no-warmup") as terminal:
        terminal.read_until(rb"listening on", 60)
        asking = threading.Thread(target=ask)
        asking.start()
        terminal.read_until(rb"progress = 0\.[0-9]", 60)
        os.write(terminal.fd, b"\x03")
        terminal.read_until(rb"cleaning up", 20)
        os.write(terminal.fd, b"\x03" * more)
        assert terminal.wait(20) == code
        asking.join(30)
        assert not asking.is_alive()
