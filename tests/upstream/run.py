#!/usr/bin/env python3
"""run.py [PYTEST ARGUMENTS]: llama.cpp's own tests, taken from the pinned archive, against what was built here.

Its server tests (tools/server/tests) drive `sb-server` with examples/small; its C++ tests of grammars, chats, states and threads
are compiled against the fork. Nothing of them is kept in the project; what is left out is in left-out.txt, with a reason each.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BIN = Path(sys.executable).parent
COPY = ROOT / "build" / "upstream" / "tools" / "server" / "tests"  # as deep as there: tests name ../../../models/templates
MODEL = ROOT / "build" / "upstream-q8_0.gguf"

# name -> arguments; with the local model where a test wants one, on one thread (a small model's threads mostly wait for each other).
# Not among them: what needs a GPU, another model or the network, and ggml's own tests that take minutes.
CPP = {
    "test-json-schema-to-grammar": [], "test-grammar-parser": [], "test-grammar-integration": [], "test-llama-grammar": [], "test-chat": [],
    "test-chat-template": [], "test-chat-peg-parser": [], "test-jinja": [], "test-sampling": [], "test-gguf": [],
    "test-save-load-state": ["-m", MODEL, "-ngl", "0", "-t", "1"],
    "test-state-restore-fragmented": ["-m", MODEL, "-t", "1"],
    "test-recurrent-state-rollback": ["-m", MODEL, "-t", "1"],  # one of its expectations is another here: patch test-second-removal
    "test-rpc-multi-server": [],
    "test-thread-safety": ["-m", MODEL, "-ngl", "0", "-p", "The meaning of life is", "-n", "128", "-c", "256", "-ub", "32", "-np", "4", "-t", "1"],
}
# name -> the script beside its source that runs it, with this program first
SCRIPTS = {"test-rpc-multi-server": "llama-rpc-server"}
# name -> the one error it may end with. Part 9 of 9 fills the middle of a saved state with 0xff and expects to hit a field of upstream's
# layout; the fork's fields are all in front, and tensors are not summed. Parts 1 to 8 must pass.
KNOWN = {"test-save-load-state": "test_state_restore_failure: buffer: restoring a corrupted state did not fail"}
SECONDS = 900
ROUTED = ("tinygemma3-GGUF/tinygemma3-Q8_0", "test-model-stories260K/stories260K-F32", "test-model-stories260K-infill/stories260K-infill-F32")


def tree() -> tuple[Path, Path]:
    """(build folder, llama.cpp with our overlay)."""
    built = sorted(ROOT.glob("build/cp*/llama.cpp"))
    if not built:
        sys.exit("test-upstream: build: got none, expected llama.cpp's tree; do make build")
    return built[0].parent, built[0]


def fill_cache(folder: Path) -> None:
    """The router's tests ask for models of the Hugging Face cache by name: there they find the local one, under three names."""
    commit = "0" * 40
    for name in ROUTED:
        repo, file = name.split("/")
        home = folder / f"models--ggml-org--{repo}"
        (home / "snapshots" / commit).mkdir(parents=True)
        (home / "snapshots" / commit / f"{file}.gguf").symlink_to(MODEL)
        (home / "refs").mkdir()
        (home / "refs/main").write_text(commit)


def copy_tests(upstream: Path) -> None:
    """The server's tests, at their depth in a tree of their own, in which they find templates and a cache of models."""
    top = COPY.parents[2]
    shutil.rmtree(top, ignore_errors=True)
    shutil.copytree(upstream / "tools/server/tests", COPY)
    (top / "models").symlink_to(upstream / "models")
    subprocess.run(["git", "init", "--quiet", top], check=True)  # one test searches files, and would skip a folder that git ignores
    fill_cache(COPY / "tmp")


def server_tests(arguments: list[str]) -> int:
    env = {**os.environ, "LLAMA_SERVER_BIN_PATH": str(BIN / "sb-server"), "SB_UPSTREAM_MODEL": str(MODEL), "LLAMA_CACHE": str(COPY / "tmp"),
           "SB_UPSTREAM_LEFT_OUT": str(HERE / "left-out.txt"), "PYTHONPATH": f"{HERE}:{COPY}"}
    whole = [] if arguments else ["--sb-whole"]
    command = [sys.executable, "-m", "pytest", "-p", "server_plugin", "-p", "no:cacheprovider", "-n", "2", "--dist", "worksteal", "-m", "not slow",
               "-q", *whole, *arguments]
    return subprocess.run(command, cwd=COPY, env=env).returncode


def cpp_tests(build: Path, upstream: Path) -> list[str]:
    """Names of those that failed."""
    log = ROOT / "build" / "upstream-tests.log"
    subprocess.run([sys.executable, ROOT / "cpp_backend/progress.py", log, BIN / "cmake", "--build", build, "--target", *CPP], check=True)
    failed = []
    for name, arguments in CPP.items():
        script = ["bash", upstream / f"tests/{name}.sh", build / "bin" / SCRIPTS[name]] if name in SCRIPTS else []
        verdict = run_cpp([*script, build / "bin" / name, *map(str, arguments)], KNOWN.get(name))
        print(f"{name}: {verdict or 'passed'}", flush=True)
        failed += [name] if verdict else []
    return failed


def run_cpp(command: list[str | Path], known: str | None) -> str:
    """Nothing, or what went wrong; run in the tree's copy, where tests find models/ and may write."""
    try:
        done = subprocess.run(command, cwd=COPY.parents[2], capture_output=True, text=True, errors="replace", timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return f"failed: no end after {SECONDS} s"
    output = done.stdout + done.stderr
    if "skipping because" in output:
        return f"failed: it skipped a part of itself\n{output[-1500:]}"
    errors = [line for line in output.splitlines() if " E " in line]
    if done.returncode == 0 or (known and len(errors) == 1 and known in errors[0]):
        return ""
    return f"failed ({done.returncode})\n{output[-1500:]}"


def main() -> int:
    build, upstream = tree()
    subprocess.run([BIN / "sb-convert", ROOT / "examples/small", "-o", MODEL, "--outtype", "q8_0", "--force"], check=True)
    arguments = sys.argv[1:]
    copy_tests(upstream)
    failed = [] if arguments else cpp_tests(build, upstream)
    rc = server_tests(arguments)
    if failed:
        print(f"test-upstream: failed: {' '.join(failed)}", file=sys.stderr)
    return 1 if failed or rc else 0


if __name__ == "__main__":
    sys.exit(main())
