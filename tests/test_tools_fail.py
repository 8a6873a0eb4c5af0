"""A tool that failed says so by its exit code; its stdout holds what it was asked for; a closed pipe ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from binding_models import convert

from sb_convert import system
from spikingbrain_cpp import refusals, tools

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


# each of them ended in an assertion, an uncaught exception, no end, or success with another meaning
NUMBERS = [
    ("sb-bench", "-t 0"), ("sb-bench", "-t 0-4"), ("sb-bench", "-t 1,600"), ("sb-bench", "-b 0"), ("sb-bench", "--ubatch-size 0"), ("sb-bench", "-r 0"), ("sb-bench", "-pg -1,5"),
    ("sb-batched-bench", "-c 15"), ("sb-batched-bench", "-npp 8,0"), ("sb-batched-bench", "-ntg -1"), ("sb-batched-bench", "-npl 0"), ("sb-batched-bench", "-npl 257"), ("sb-batched-bench", "-b 0"),
    ("sb-completion", "-b 0"), ("sb-completion", "--ubatch_size -1"), ("sb-completion", "-c -3"), ("sb-completion", "-t 513"), ("sb-completion", "-np 0"), ("sb-completion", "--mirostat 3"),
    ("sb-completion", "-gan 0"), ("sb-completion", "-gan 3"), ("sb-completion", "-gan 4 -gaw 6"), ("sb-cli", "-b 0"), ("sb-cli", "--mirostat -1"), ("sb-server", "-np -2"), ("sb-server", "--port 65536"),
    ("sb-server", "-b 0"), ("sb-perplexity", "-b 0"), ("sb-perplexity", "--ppl-stride -1"), ("sb-imatrix", "-b 0"), ("sb-imatrix", "-c -1")]


@pytest.mark.parametrize("command, options", NUMBERS)
def test_a_number_that_would_end_a_tool_is_refused(command, options, monkeypatch):
    assert (error := refusal(monkeypatch, command, options.split())) and error.startswith(f"{command}: -") and "expected" in error


def refusal(monkeypatch, command: str, options: list[str]) -> str | int | None:
    """What the command says instead of becoming upstream's tool; None where it becomes that."""
    monkeypatch.setattr(sys, "argv", [command, *options])
    monkeypatch.setattr(os, "execv", lambda *_: sys.exit(0))
    monkeypatch.setattr(os, "environ", os.environ.copy())
    with pytest.raises(SystemExit) as ended:
        getattr(tools, command.removeprefix("sb-").replace("-", "_"))()
    return ended.value.code or None


@pytest.mark.parametrize("command, options", [
    ("sb-bench", "-t 1-4,512 -b 1 -ub 1 -r 1 -pg 0,5"), ("sb-batched-bench", "-c 16 -npp 1 -ntg 0 -npl 1,256 -b 1"), ("sb-batched-bench", "-c 0"), ("sb-completion", "-b 1 -ub 0 -c 0 -t 512 -np 1 --mirostat 2"),
    ("sb-completion", "-gan 4"), ("sb-completion", "-gan 4 -gaw 8 -t -1 --mirostat 0"), ("sb-server", "-np -1 --port 0"), ("sb-server", "-np 256 --port 65535"), ("sb-perplexity", "--ppl-stride 0 -b x"),
    ("sb-cli", "-p -b"), ("sb-completion", "-b 0 -b 1")])
def test_the_numbers_beside_them_are_taken(command, options, monkeypatch):
    assert refusal(monkeypatch, command, options.split()) is None


INT = 2**31 - 1
THREADS_BATCH_CONTEXT = {"-t --threads LLAMA_ARG_THREADS": (-1, 512), "-tb --threads-batch": (-1, 512), "-b --batch-size LLAMA_ARG_BATCH": (1, INT),
                         "-ub --ubatch-size LLAMA_ARG_UBATCH": (0, INT), "-c --ctx-size LLAMA_ARG_CTX_SIZE": (0, INT)}
BOUNDS = {
    "sb-cli": THREADS_BATCH_CONTEXT | {"--mirostat": (0, 2)}, "sb-imatrix": THREADS_BATCH_CONTEXT, "sb-perplexity": THREADS_BATCH_CONTEXT | {"--ppl-stride": (0, INT)},
    "sb-server": THREADS_BATCH_CONTEXT | {"--mirostat": (0, 2), "--port LLAMA_ARG_PORT": (0, 65535), "-np --parallel LLAMA_ARG_N_PARALLEL": (-1, 256)},
    "sb-completion": THREADS_BATCH_CONTEXT | {"--mirostat": (0, 2), "-np --parallel LLAMA_ARG_N_PARALLEL": (1, 256), "-gan --grp-attn-n LLAMA_ARG_GRP_ATTN_N": (1, INT)},
    "sb-batched-bench": THREADS_BATCH_CONTEXT | {"-npp": (1, INT), "-ntg": (0, INT), "-npl": (1, 256)},
    "sb-bench": {"-t --threads": (1, 512), "-b --batch-size": (1, INT), "-ub --ubatch-size": (1, INT), "-r --repetitions": (1, INT), "-pg": (0, INT)}}


@pytest.mark.parametrize("command", BOUNDS)
def test_every_bound_of_every_number(command, monkeypatch):
    assert {" ".join(names) for names in refusals.NUMBERS[command]} == {*BOUNDS[command]}
    for names, (low, high) in BOUNDS[command].items():
        for name in names.split():
            for value in (low - 1, low, high, high + 1):
                env = {name: str(value)} if name[0] != "-" else {}
                with monkeypatch.context() as with_it:
                    for key in env:
                        with_it.setenv(key, env[key])
                    told = refusals.numbers(command, [] if env else [name, str(value)])
                expected = f"{low} to {high}" if high < INT or value > high else f"at least {low}"
                assert told == (None if low <= value <= high else f"{command}: {names.split()[0]}: got {value}, expected {expected}; change it")


def test_what_divides_and_what_fits(monkeypatch):
    for n, width, fine in ((1, 7, True), (4, 8, True), (4, 6, False), (3, None, False), (2, None, True), (0, 5, True), ("x", 6, True), (4, "x", True), (8, 4, False)):
        given = ["-gan", str(n)] + ([] if width is None else ["-gaw", str(width)])
        assert (refusals.self_extend(given) is None) == fine, given
    for text, fine in (("0", True), ("1", False), ("15", False), ("16", True), ("x", True), ("-1", True)):
        assert (refusals.context(["-c", text]) is None) == fine, text
        assert (refusals.context(["--ctx-size", "9", "-c", text]) is None) == fine, text


def test_a_number_by_its_variable_is_refused_too(monkeypatch):
    monkeypatch.setenv("LLAMA_ARG_BATCH", "0")
    assert "-b: got 0, expected at least 1" in refusal(monkeypatch, "sb-server", [])
    assert refusal(monkeypatch, "sb-server", ["-b", "1"]) is None


@pytest.mark.parametrize("command", ["sb-cli", "sb-completion", "sb-server"])
def test_a_grammar_that_is_none_is_refused(command, folder, monkeypatch):
    (folder / "bad.gbnf").write_text('start ::= "a"')
    for options in (["--grammar", "root ::= ("], ["--grammar-file", str(folder / "bad.gbnf")]):
        assert refusal(monkeypatch, command, options).startswith(f"{command}: {options[0]}: ")
    for options in (["--grammar", 'root ::= "a"'], ["--grammar", ""], ["--grammar", 'root ::= <[5]>'], ["--grammar-file", "/absent"]):  # of the last the tool tells
        assert refusal(monkeypatch, command, options) is None


FIT, IDLE, BATCH = {"LLAMA_ARG_FIT": "off"}, {"LLAMA_ARG_CACHE_IDLE_SLOTS": "off"}, {"LLAMA_ARG_BATCH": "512"}
BECOMES = {"cli": FIT | BATCH, "completion": FIT | BATCH, "server": FIT | IDLE | BATCH, "quantize": {}, "perplexity": FIT, "bench": {}, "batched-bench": FIT, "imatrix": FIT | {"LLAMA_ARG_REPACK": "off"}, "gguf-split": {}, "rpc-server": {}}


def became(monkeypatch, name: str, options: list[str], environ: dict[str, str], n_threads: int | None = None) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment of the tool; n_threads: all that this process may use, None where it may use the machine."""
    ran: list = []
    monkeypatch.setattr(sys, "argv", [f"sb-{name}", *options])
    monkeypatch.setattr(os, "environ", environ)
    monkeypatch.setattr(system, "threads_if_limited", lambda: n_threads)
    monkeypatch.setattr(os, "execv", lambda path, argv: ran.append((path, argv[0], argv[1:])) or sys.exit(0))
    with pytest.raises(SystemExit, match="0"):
        getattr(tools, name.replace("-", "_"))()
    ((path, zero, argv),) = ran
    assert (path, zero) == (tools.LIB / f"llama-{name}", f"sb-{name}")
    return argv, dict(os.environ)


@pytest.mark.parametrize("name", BECOMES)
def test_each_command_becomes_its_tool_with_its_defaults(name, monkeypatch):
    assert became(monkeypatch, name, ["x"], {"HOME": "/"}) == (["x"], {"HOME": "/", **BECOMES[name]})
    assert {f"sb-{n}" for n in BECOMES} == {*tools.COMMANDS} - {"sb-convert", "sb-init", "sb-eval", "sb-spikes", "sb-train"}


@pytest.mark.parametrize("name", BECOMES)
def test_each_command_uses_the_cpus_it_may(name, monkeypatch):
    argv, env = became(monkeypatch, name, ["x"], {}, 3)
    if name in ("quantize", "gguf-split"):  # no operators
        assert (argv, env) == (["x"], BECOMES[name])
    elif name in ("bench", "rpc-server"):
        assert (argv, env) == (["-t", "3", "x"], BECOMES[name])
    else:
        assert (argv, env) == (["x"], BECOMES[name] | {"LLAMA_ARG_THREADS": "3"})
    for option in ("-t", "--threads"):
        argv, env = became(monkeypatch, name, [option, "2"], {}, 3)
        assert (argv, env) == ([option, "2"], BECOMES[name]), option
    env = became(monkeypatch, name, ["x"], {"LLAMA_ARG_THREADS": "5"}, 3)[1]
    assert env["LLAMA_ARG_THREADS"] == "5"


def test_a_default_gives_way_to_its_options_and_variables(monkeypatch):
    for options, gone in ((["-fit", "on"], FIT), (["--fit", "on"], FIT), (["--cache-idle-slots"], IDLE), (["-b", "9"], BATCH), (["--batch-size", "9"], BATCH), (["-ub", "9"], BATCH), (["--ubatch-size", "9"], BATCH)):
        assert became(monkeypatch, "server", options, {}) == (options, {k: v for k, v in (FIT | IDLE | BATCH).items() if k not in gone}), options


@pytest.mark.parametrize("command", ["sb-cli", "sb-server", "sb-completion"])
def test_who_reads_the_room_of_checkpoints_refuses_a_wrong_one(command, monkeypatch):
    for value in ("0", "-1", "x", "1073741825"):
        monkeypatch.setenv("SPIKINGBRAIN_CHECKPOINT_RAM", value)
        assert (refusal(monkeypatch, command, []) is None) == (command == "sb-completion"), value
    monkeypatch.setenv("SPIKINGBRAIN_CHECKPOINT_RAM", "1073741824")
    assert refusal(monkeypatch, command, []) is None


def test_help_says_what_differs_and_then_the_tools_own(monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["sb-server", "-h"])
    monkeypatch.setattr(system, "threads_if_limited", lambda: None)
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("it should have ended"))
    with pytest.raises(SystemExit, match="0"):
        tools.server()
    said = capfd.readouterr().out.splitlines()
    assert said[:5] == [
        "sb-server: serve OpenAI's endpoints over HTTP. Below is the help of llama.cpp's tool, which this command runs.",
        "Defaults that differ here, by environment variable (an option or a variable of yours wins):",
        "  LLAMA_ARG_FIT=off    (-fit, --fit)", "  LLAMA_ARG_CACHE_IDLE_SLOTS=off    (--cache-idle-slots, --no-cache-idle-slots)",
        "  LLAMA_ARG_BATCH=512    (-b, --batch-size, -ub, --ubatch-size)"]
    assert any("--slot-save-path" in line for line in said) and any("SPIKINGBRAIN_CHECKPOINT_RAM" in line for line in said[5:20])
    assert tools.help_text("sb-bench", {}) == "sb-bench: measure tokens per second. Below is the help of llama.cpp's tool, which this command runs.\n"


@pytest.mark.parametrize("argv, deletes", [
    ("--merge --delete-splits a b", True), ("--delete-splits --merge a b", True), ("--merge a b", False), ("--delete-splits a b", False), ("--merge --delete-splits a", True),
    ("--merge --delete-splits", False), ("--merge --delete-splits --dry-run a b", False), ("--merge --delete-splits --help a b", False), ("--merge --delete-splits a -h", False), ("--merge --delete-splits --version a b", False)])
def test_when_parts_are_deleted(argv, deletes):
    assert refusals.deletes_parts(argv.split()) is deletes


@pytest.mark.parametrize("status, said", [(0, None), (3, 3), (-6, 6)])
def test_merging_deletes_after_success_only(tmp_path, monkeypatch, status, said):
    part = [tmp_path / f"m-0000{i}-of-00002.gguf" for i in (1, 2)]
    for path in part:
        path.write_bytes(b"x")
    ran: list = []
    monkeypatch.setattr(sys, "argv", ["sb-gguf-split", "--merge", "--delete-splits", str(part[0]), str(tmp_path / "out")])
    monkeypatch.setattr(tools.subprocess, "run", lambda command, **kw: ran.append((command, kw)) or subprocess.CompletedProcess(command, status))
    with pytest.raises(SystemExit) as ended:
        tools.gguf_split()
    assert (ended.value.code or None) == said and ran == [([tools.LIB / "llama-gguf-split", "--merge", str(part[0]), str(tmp_path / "out")], {"restore_signals": False})]
    assert [path.exists() for path in part] == [status != 0] * 2


def test_the_parts_of_a_model():
    assert refusals.parts("a/m-00001-of-00003.gguf") == [f"a/m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    for whole in ("m.gguf", "m-00002-of-00003.gguf", "m-00001-of-00003.gguf.x", "m-00001-of-3.gguf"):
        assert refusals.parts(whole) == [whole]


def tasks(n: int, size: int) -> bytes:
    return n.to_bytes(4, "little") + bytes(size - 4)


def test_what_a_tool_would_read_wrongly_is_refused(folder, monkeypatch):
    """Each rule beside what is just within it."""
    for name, blob, good in (("few", tasks(2, 11), False), ("two", tasks(2, 12), True), ("none", tasks(0, 7), False), ("one", tasks(0, 8), True), ("text", b"some", False)):
        (folder / name).write_bytes(blob)
        assert (refusal(monkeypatch, "sb-perplexity", ["--multiple-choice", "-f", str(folder / name)]) is None) == good, name
        assert refusal(monkeypatch, "sb-perplexity", ["-f", str(folder / name)]) is None
    assert refusal(monkeypatch, "sb-perplexity", ["--multiple-choice", "--file", str(folder / "few")]) and refusal(monkeypatch, "sb-perplexity", ["--multiple-choice", "-f", "/absent"]) is None
    monkeypatch.chdir(folder)
    split = lambda *options: refusal(monkeypatch, "sb-gguf-split", [*options])  # noqa: E731
    (folder / "out").write_bytes(b"")
    os.link(folder / "out", folder / "same")
    assert split("--merge", "out", "same") and split("--merge", "-", "out", "same") and split("--merge", "out", "/dev/null")
    assert split("--split", "out", "same") is split("--merge", "out", "new") is split("--merge", "--help", "/dev/null") is split("--merge", "-h", "/dev/null") is None
    assert split("--merge", "--version", "/dev/null") is None


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
