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
COPY = ROOT / "build" / "upstream-tests"
MODEL = ROOT / "build" / "upstream-q8_0.gguf"

# name -> arguments; with the local model where a test wants one
CPP = {
    "test-json-schema-to-grammar": [], "test-grammar-parser": [], "test-grammar-integration": [], "test-llama-grammar": [], "test-chat": [],
    "test-chat-template": [], "test-chat-peg-parser": [], "test-jinja": [], "test-sampling": [], "test-gguf": [], "test-quantize-fns": [],
    "test-save-load-state": ["-m", MODEL, "-ngl", "0"],
    "test-state-restore-fragmented": ["-m", MODEL],
    "test-thread-safety": ["-m", MODEL, "-ngl", "0", "-p", "The meaning of life is", "-n", "128", "-c", "256", "-ub", "32", "-np", "4", "-t", "2"],
}
SECONDS = 900


def tree() -> tuple[Path, Path]:
    """(build folder, llama.cpp with our overlay)."""
    built = sorted(ROOT.glob("build/cp*/llama.cpp"))
    if not built:
        sys.exit("test-upstream: build: got none, expected llama.cpp's tree; do make build")
    return built[0].parent, built[0]


def server_tests(upstream: Path, arguments: list[str]) -> int:
    shutil.rmtree(COPY, ignore_errors=True)
    shutil.copytree(upstream / "tools/server/tests", COPY)
    (COPY / "models").mkdir()
    # some tests name a template or a model's file by its path from the tests' own folder
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
        try:
            done = subprocess.run([build / "bin" / name, *map(str, arguments)], cwd=upstream, capture_output=True, text=True, errors="replace", timeout=SECONDS)
            rc, tail = done.returncode, (done.stdout + done.stderr)[-1500:]
        except subprocess.TimeoutExpired:
            rc, tail = "no end", ""
        print(f"{name}: {'passed' if rc == 0 else f'failed ({rc})'}" + ("" if rc == 0 else f"\n{tail}"), flush=True)
        failed += [name] if rc else []
    return failed


def main() -> int:
    build, upstream = tree()
    subprocess.run([BIN / "sb-convert", ROOT / "examples/small", "-o", MODEL, "--outtype", "q8_0", "--force"], check=True)
    arguments = sys.argv[1:]
    failed = [] if arguments else cpp_tests(build, upstream)
    rc = server_tests(upstream, arguments)
    if failed:
        print(f"test-upstream: failed: {' '.join(failed)}", file=sys.stderr)
    return 1 if failed or rc else 0


if __name__ == "__main__":
    sys.exit(main())
