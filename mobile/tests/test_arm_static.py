"""The static tools, one flavour after the other: no library needed, the same text, the same file, an answering server."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from conftest import FULL, ROOT, STATIC, Machine, Models

pytestmark = pytest.mark.skipif(not FULL, reason="static tools are tried with SPIKINGBRAIN_MOBILE=full")

SMALL = ROOT / "examples" / "small"
CPUS = {"armv8.0": ["cortex-a53", "cortex-a72", "max"], "armv8.2-dotprod": ["cortex-a76", "neoverse-n1", "max"]}
PROMPT, N = "The file is opened", 32
TOOLS = ["llama-cli", "llama-completion", "llama-server", "llama-bench", "llama-quantize", "llama-perplexity", "llama-batched-bench", "llama-imatrix", "llama-gguf-split", "llama-rpc-server"]


def bare(cpu: str) -> Machine:
    """No sysroot: what a static program runs on."""
    program = shutil.which("qemu-aarch64")
    assert program
    return Machine(f"qemu-{cpu}", Path(), (program, "-cpu", cpu))


@pytest.fixture(params=[(f, c) for f, cpus in CPUS.items() for c in cpus], ids=":".join)
def tools(request: pytest.FixtureRequest) -> tuple[Machine, Path]:
    flavour, cpu = request.param
    return bare(cpu), STATIC / flavour


@pytest.fixture(params=CPUS)
def folder(request: pytest.FixtureRequest) -> Path:
    return STATIC / request.param


def test_every_tool_is_one_stripped_file_without_a_loader(folder: Path) -> None:
    for name in TOOLS:
        said = subprocess.run(["readelf", "-hlSW", folder / name], capture_output=True, text=True, check=True).stdout
        assert "AArch64" in said and "INTERP" not in said and "DYNAMIC" not in said and ".symtab" not in said, name
        aligned = {int(line.split()[-1], 16) for line in said.splitlines() if line.split()[:1] == ["LOAD"]}
        assert aligned and min(aligned) >= 16384, name  # kernels with pages of 16 KiB


@pytest.mark.parametrize("options", [("--outtype", "f32"), ("--outtype", "q4_0", "--spike")], ids=" ".join)
def test_greedy_text_is_that_of_x86(tools: tuple[Machine, Path], here: Machine, models: Models, options: tuple[str, ...]) -> None:
    machine, folder = tools
    words = ["-m", models(SMALL, *options), "-p", PROMPT, "-n", N, "--temp", 0, "-no-cnv", "-t", 1, "--no-warmup", "--ignore-eos"]
    want = here.run(Path(here.python).with_name("sb-completion"), *words).stdout
    got = machine.run(folder / "llama-completion", *words, env={"LLAMA_ARG_FIT": "off"}).stdout
    assert got == want and len(want) > len(PROMPT) + N


def test_quantize_writes_the_file_that_x86_writes(folder: Path, here: Machine, models: Models, tmp_path: Path) -> None:
    source = models(SMALL, "--outtype", "f32")
    here.run(Path(here.python).with_name("sb-quantize"), source, tmp_path / "x86.gguf", "Q4_0", 1)
    bare("max").run(folder / "llama-quantize", source, tmp_path / "arm.gguf", "Q4_0", 1)
    assert (tmp_path / "arm.gguf").read_bytes() == (tmp_path / "x86.gguf").read_bytes()


def test_bench_says_json(tools: tuple[Machine, Path], models: Models) -> None:
    machine, folder = tools
    said = machine.run(folder / "llama-bench", "-m", models(SMALL, "--outtype", "q4_0", "--spike"), "-p", 16, "-n", 4, "-r", 1, "-t", 1, "-o", "json").stdout
    rows = json.loads(said)
    assert [(r["n_prompt"], r["n_gen"]) for r in rows] == [(16, 0), (0, 4)] and all(r["avg_ts"] > 0 for r in rows)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def ask(url: str, body: Any = None, patience: float = 120) -> Any:
    """The JSON answer; asked again until the server is there."""
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None, {"Content-Type": "application/json"})
    until = time.monotonic() + patience
    while True:
        try:
            return json.load(urllib.request.urlopen(request, timeout=patience))
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)


def test_the_server_answers(folder: Path, models: Models, tmp_path: Path) -> None:
    port = free_port()
    words = ["-m", models(SMALL, "--outtype", "q4_0", "--spike"), "--port", port, "-t", 1, "-fit", "off", "--no-warmup", "-b", 512, "-np", 1, "-ctxcp", 4]
    machine = bare("cortex-a76")
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen([*machine.prefix, folder / "llama-server", *map(str, words)], stdout=log, stderr=log)
    try:
        assert ask(f"http://127.0.0.1:{port}/health")["status"] == "ok"
        answer = ask(f"http://127.0.0.1:{port}/completion", {"prompt": PROMPT, "n_predict": 8, "temperature": 0})
        assert answer["tokens_predicted"] == 8 and answer["content"]
    finally:
        server.terminate()
        server.wait(60)


OLD = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
NEW = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
ADB_RUN = ROOT / "mobile" / "arm64" / "adb-run.sh"
# stands for adb and a phone: its shell is this machine's, its programs run under qemu
ADB = """#!/bin/sh
echo "$@" >> "$PHONE/calls"
case "$1 $2" in
    "get-state ") echo device ;;
    "shell cat") cat "$PHONE/cpuinfo" ;;
    push*) cp "$2" "$3" ;;
    shell*) shift; sh -c "$(printf %s "$*" | sed "s|'./|qemu-aarch64 -cpu cortex-a76 './|")" ;;
esac
"""


def cpuinfo(*features: str) -> str:
    return "\n".join(f"processor\t: {i}\r\nFeatures\t: {f}\r\nCPU implementer\t: 0x41\r\n" for i, f in enumerate(features))


@pytest.mark.parametrize("cores, want", [([OLD], "armv8.0"), ([NEW], "armv8.2-dotprod"), ([OLD, NEW], "armv8.0"), ([], "armv8.0")], ids=["old", "new", "mixed", "unknown"])
def test_adb_run_picks_the_flavour_that_every_core_has(cores: list[str], want: str) -> None:
    done = subprocess.run(["sh", ADB_RUN, "--flavour"], input=cpuinfo(*cores).replace("\r", ""), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == want


def test_adb_run_pushes_and_runs(models: Models, tmp_path: Path) -> None:
    """With a program in adb's place: what it is asked to do, and that a prompt with quotes and spaces arrives as it is."""
    (tmp_path / "cpuinfo").write_text(cpuinfo(NEW))
    (tmp_path / "adb").write_text(ADB)
    (tmp_path / "adb").chmod(0o755)
    model, phone = models(SMALL, "--outtype", "q4_0", "--spike"), tmp_path / "phone"
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PHONE": str(tmp_path), "ADB_DIR": str(phone)}
    prompt = "it's a \"file\" $HOME"
    done = subprocess.run(["sh", ADB_RUN, model, "llama-completion", "-p", prompt, "-n", "4", "--temp", "0", "-no-cnv", "-t", "1"], env=env, capture_output=True, text=True, check=True)
    assert prompt in done.stdout and "armv8.2-dotprod" in done.stderr
    assert (phone / "llama-completion").read_bytes() == (STATIC / "armv8.2-dotprod" / "llama-completion").read_bytes()
    assert (phone / model.name).is_file()
