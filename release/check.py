"""Tries what `make release` left as others would: `python release/check.py build/release` (make test-release runs it; as root, needs mmdebstrap).

The wheel of this machine's architecture, in a clean Debian 12, in Debian 13 (another Python) and in Debian 11 (glibc 2.31, with Debian 12's Python built there):
pip installs it from wheels alone, a checkpoint is converted, the kernels are the best that this CPU has and the text is this machine's, sb-server answers and ends on SIGTERM. Then
the source distribution is built and installed, and the container file's steps are run (release/containerfile.py), by an engine, too, where there is one.
Packages for the chroots are fetched here; the chroots have no network but for apt.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import containerfile
import kernels
from chroot import Process, Root, fail, fresh, make, need_tools

ROOT = Path(__file__).resolve().parent.parent
MADE = ROOT / "build" / "chroots"
PROMPT, LENGTH = "To install a package", 32
PLATFORMS = [f"manylinux_2_{minor}_{platform.machine()}" for minor in range(28, 16, -1)] + [f"manylinux2014_{platform.machine()}"]

# Debian 11 has Python 3.9: Debian 12's, compiled there, is one that a user of an older glibc would have
OLD_PYTHON = """\
mirror=$(awk '$1 == "deb" { for (i = 2; i <= NF; i++) if ($i ~ /:\\/\\//) { print $i; exit } }' /etc/apt/sources.list /etc/apt/sources.list.d/*.list)
echo "deb-src [trusted=yes] $mirror bookworm main" > /etc/apt/sources.list.d/source.list
apt-get update -q
cd /usr/src
apt-get source -q --download-only python3.11
tar xf python3.11_*.orig.tar.*
cd Python-3.11*
./configure --quiet CFLAGS=-O1
make -s -j2
make -s install
cd / && rm -rf /usr/src/*
"""
PROGRAM = """\
import sys
from spikingbrain_cpp import Llama, LlamaGrammar, system_info
print("kernels:", system_info()["spike_kernels"])
with Llama(sys.argv[1], n_threads=1, n_threads_batch=1, verbose=False) as llm:
    print("text:", llm(sys.argv[2], max_tokens=int(sys.argv[3]), temperature=0)["choices"][0]["text"])
    try:
        LlamaGrammar.from_string("root ::= (")  # an exception out of one library through another
    except ValueError as error:
        print("refused:", type(error).__name__)
"""


def check_sums(release: Path) -> None:
    for line in (release / "SHA256SUMS").read_text().splitlines():
        wanted, name = line.split("  ")
        if hashlib.sha256((release / name).read_bytes()).hexdigest() != wanted:
            fail(release / name, "another checksum", wanted, "make release")


def wheelhouse(folder: Path, wheel: Path, python: str) -> None:
    """What the wheel requires, as wheels for this machine, glibc 2.28 and that CPython, such as 3.11."""
    words = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--only-binary=:all:", "--python-version", python, "--implementation", "cp",
             *(word for tag in PLATFORMS for word in ("--platform", tag)), "--dest", folder, wheel]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    if done.returncode != 0:
        fail("pip download", (done.stderr.strip().splitlines() or ["no message"])[-1], "wheels for glibc 2.28", "see that pip reaches its index")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port: int, server: Process, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.outer.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            return
        except OSError:
            time.sleep(0.3)
    server.outer.kill()
    fail("sb-server", f"no answer\n{server.outer.communicate()[0][-2000:]}", f"one within {seconds} s", "read its output")


def completion(port: int) -> str:
    body = json.dumps({"prompt": PROMPT, "max_tokens": LENGTH, "temperature": 0}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/v1/completions", body, {"Content-Type": "application/json"}), timeout=120) as answer:
        return json.load(answer)["choices"][0]["text"]


def expect(where: str, got: object, wanted: object) -> None:
    if got != wanted:
        fail(where, repr(got), repr(wanted), "find out what differs")


def say(where: str, what: str) -> None:
    print(f"{where:<24} {what}", flush=True)


def text_here(model: Path) -> str:
    """What this machine's own build writes, from a model converted here."""
    bin = Path(sys.executable).parent
    subprocess.run([bin / "sb-convert", ROOT / "examples" / "small", "-o", model, "--outtype", "f32", "--force"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    done = subprocess.run([sys.executable, "-c", PROGRAM, model, PROMPT, str(LENGTH)], check=True, capture_output=True, text=True)
    expect("this machine's own build: kernels", re.findall("^kernels: (.*)", done.stdout), [kernels.expected()])
    return done.stdout


def text_of(said: str) -> str:
    """The text in what PROGRAM printed."""
    return said.split("text:", 1)[1].rsplit("refused:", 1)[0].strip()


def check_server(name: str, start: Callable[[int], Process], wanted: str, healthy: Callable[[int], bool] | None = None) -> None:
    port = free_port()
    server = start(port)
    wait_for(port, server)
    if healthy:
        expect(f"{name}: health check of a server that answers", healthy(port), True)
        expect(f"{name}: its user", (Path(f"/proc/{server.inner()}").stat().st_uid), 10001)
    text = completion(port)
    code, said = server.end()
    expect(f"{name}: exit code after SIGTERM", code, 0)
    expect(f"{name}: text by HTTP", text.strip(), text_of(wanted))
    if healthy:
        expect(f"{name}: health check without a server", healthy(port), False)
    say(name, "sb-server answers, and ends on SIGTERM")


def check_wheel(name: str, root: Root, python: str, wanted: str) -> None:
    """pip install, sb-convert, text, sb-server."""
    say(name, root.run("sh", "-c", f"ldd --version | head -n 1; {python} --version").stdout.strip().replace("\n", ", "))
    root.run(python, "-m", "venv", "/opt/venv")
    root.run("/opt/venv/bin/pip", "install", "--no-index", "--only-binary=:all:", "--find-links", "/wheels", "--find-links", "/release", "spikingbrain-cpp")
    root.run("/opt/venv/bin/pip", "check")
    root.run("/opt/venv/bin/sb-convert", "/examples/small", "-o", "/tmp/small.gguf", "--outtype", "f32")
    root.run("/opt/venv/bin/sb-convert", "/examples/small", "-o", "/tmp/spikes.gguf", "--outtype", "q4_0", "--spike")
    expect(f"{name}: text", root.run("/opt/venv/bin/python", "-c", PROGRAM, "/tmp/small.gguf", PROMPT, LENGTH).stdout, wanted)
    said = root.run("/opt/venv/bin/sb-cli", "-m", "/tmp/spikes.gguf", "-p", PROMPT, "-n", 16, "-st", "--temp", 0).stdout
    expect(f"{name}: sb-cli", PROMPT in said, True)
    say(name, f"pip install, sb-convert, kernels {kernels.expected()}, the same {LENGTH} tokens as here, sb-cli")
    check_server(name, lambda port: root.start("/opt/venv/bin/sb-server", "-m", "/tmp/small.gguf", "--port", port, "-t", 1), wanted)


def build_source(archive: Path, folder: Path) -> Path:
    """The wheel that pip makes of it in `folder`, as for a user with a compiler: tools and all, what it builds with fetched; git does not work."""
    git, log = folder / "bin" / "git", ROOT / "build" / "from-source.log"
    git.parent.mkdir()
    git.write_text("#!/bin/sh\nexit 127\n")
    git.chmod(0o755)
    words = [sys.executable, ROOT / "cpp_backend" / "progress.py", log, sys.executable, "-m", "pip", "--disable-pip-version-check",
             "wheel", "--verbose", "--no-deps", "--wheel-dir", folder, archive]
    done = subprocess.run(list(map(str, words)), cwd=folder, env={**os.environ, "PATH": f"{git.parent}{os.pathsep}{os.environ['PATH']}"})
    expect(f"{archive.name}: exit code of its build", done.returncode, 0)
    (wheel,) = folder.glob("*.whl")
    return wheel


def check_source(release: Path, packages: Path, model: Path, wanted: str) -> None:
    """The source distribution is built, without this folder around it, and what it built runs."""
    (archive,) = release.glob("*.tar.gz")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        say(archive.name, "compiling (a quarter of an hour or so; build/from-source.log tells)")
        wheel = build_source(archive, folder)
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        bin = folder / "venv" / "bin"
        subprocess.run([bin / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index", "--find-links", packages, wheel], check=True)
        said = subprocess.run([bin / "python", "-c", PROGRAM, model, PROMPT, str(LENGTH)], cwd=folder, check=True, capture_output=True, text=True).stdout
        expect(f"{archive.name}: text", said, wanted)
        version = subprocess.run([bin / "sb-server", "--version"], check=True, capture_output=True, text=True)
        say(archive.name, f"builds {wheel.name} without git; the same {LENGTH} tokens, {(version.stdout + version.stderr).splitlines()[0]}")


def check_container(release: Path, root: Root, model: Path, wanted: str) -> None:
    """The container file's steps; its server as the engine would start it."""
    image = containerfile.build(release / "Containerfile", root, {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheelhouse"})
    say("Containerfile", f"{image.base}, user {image.user}, volumes {image.volumes}, port {image.ports}")
    binds = {model: "/models/model.gguf"}
    check_server("Containerfile", lambda port: image.start("-t", "1", binds=binds, env={"LLAMA_ARG_PORT": str(port)}), wanted,
                 lambda port: image.healthy({"LLAMA_ARG_PORT": str(port)}))
    nothing = image.start()
    said = nothing.outer.communicate(timeout=60)[0]
    expect("Containerfile: without a model, exit code", nothing.outer.returncode, 1)
    expect("Containerfile: without a model, its error", "/models/model.gguf" in said, True)
    say("Containerfile", "without a model it ends, and names the file")


def engine() -> str | None:
    """A container engine that runs here."""
    return next((name for name in ("podman", "docker") if shutil.which(name) and subprocess.run([name, "info"], capture_output=True).returncode == 0), None)


def check_engine(release: Path, model: Path, wanted: str) -> None:
    name = engine()
    if not name:
        say("container engine", "none runs here: the container file's steps were run in a chroot only")
        return
    subprocess.run([name, "build", "-q", "-t", "spikingbrain-check", release], check=True, stdout=subprocess.DEVNULL)
    port = free_port()
    started = subprocess.run([name, "run", "-d", "--rm", "-p", f"127.0.0.1:{port}:8080", "-v", f"{model}:/models/model.gguf:ro", "spikingbrain-check", "-t", "1"],
                             check=True, capture_output=True, text=True).stdout.strip()
    try:
        for _ in range(200):
            try:
                text = completion(port)
                break
            except OSError:
                time.sleep(0.3)
        else:
            fail(name, "no answer from the container", "one", f"read {name} logs")
    finally:
        begun = time.monotonic()
        subprocess.run([name, "stop", "-t", "20", started], check=True, stdout=subprocess.DEVNULL)
    expect(f"{name}: text by HTTP", text.strip(), text_of(wanted))
    expect(f"{name}: it ends on its stop signal, before it would be killed", time.monotonic() - begun < 15, True)
    say(name, "the image is built, answers, and stops")


def main(words: list[str]) -> None:
    if len(words) != 1:
        sys.exit("usage: python release/check.py FOLDER")
    release = Path(words[0]).resolve()
    wheels = sorted(release.glob(f"*_{platform.machine()}.whl"))
    if not wheels:
        fail(release, f"no wheel for {platform.machine()}", "what make release leaves", "make release")
    need_tools()
    check_sums(release)
    with tempfile.TemporaryDirectory() as folder:
        model, packages = Path(folder) / "small.gguf", Path(folder) / "packages"
        model.parent.chmod(0o755)
        wanted = text_here(model)
        for python in ("3.11", "3.13"):
            wheelhouse(packages, wheels[0], python)
        binds = {release: "/release", packages: "/wheels", ROOT / "examples": "/examples"}
        with fresh(make(MADE / "bookworm", "bookworm", ["python3", "python3-venv"]), binds=binds) as root:
            check_wheel("Debian 12", root, "python3", wanted)
        with fresh(make(MADE / "trixie", "trixie", ["python3", "python3-venv"]), binds=binds) as root:
            check_wheel("Debian 13", root, "python3", wanted)
        with fresh(make(MADE / "bookworm-bare", "bookworm"), binds={packages: "/wheelhouse"}) as root:
            check_container(release, root, model, wanted)
        check_engine(release, model, wanted)
        old = make(MADE / "bullseye", "bullseye", ["build-essential", "ca-certificates", "zlib1g-dev", "libffi-dev", "libssl-dev"], OLD_PYTHON)
        with fresh(old, binds=binds) as root:
            check_wheel("Debian 11", root, "/usr/local/bin/python3.11", wanted)
        check_source(release, packages, model, wanted)


if __name__ == "__main__":
    main(sys.argv[1:])
