"""python -m fuzz.sanitize (in tests/; `make sanitize`): the C++ tests and fuzz-files over a corpus of damaged models, with sanitizers.

Builds the fork with AddressSanitizer and UndefinedBehaviorSanitizer into build/sanitize. Fails on any report of AddressSanitizer, and on
one of UndefinedBehaviorSanitizer in our files; upstream's are counted by place. SANITIZE_FILES: damaged models (600).
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from hypothesis import given, settings

from .bytes_of import EDGES, mutated
from .targets import ROOT, tiny_model

BUILD = ROOT / "build" / "sanitize"
BIN = Path(sys.executable).parent
FLAGS = "-fsanitize=address,undefined -fno-omit-frame-pointer -fno-sanitize=vptr"
OURS = re.compile(r"spikingbrain|/spk-|/gla\.cpp|/swa\.cpp|tests/cpp|runtime/")
N_CORPUS = int(os.environ.get("SANITIZE_FILES", "600"))
PROGRAMS = ("test-spk-ops", "test-spk-matmul", "test-spk-k", "test-spk-experts", "test-sequences", "test-storage", "test-memory", "test-history", "fuzz-files")


def build() -> None:
    options = ["-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", f"-DCMAKE_C_FLAGS={FLAGS}", f"-DCMAKE_CXX_FLAGS={FLAGS}", "-DCMAKE_C_FLAGS_RELEASE=-O1",
               "-DCMAKE_CXX_FLAGS_RELEASE=-O1", "-DSPIKINGBRAIN_TOOLS=OFF", "-DSPIKINGBRAIN_TESTS=ON", f"-DPython_EXECUTABLE={sys.executable}"]
    subprocess.run([BIN / "cmake", "-S", ROOT / "cpp_backend", "-B", BUILD, *options], check=True, stdout=subprocess.DEVNULL)
    progress = [sys.executable, ROOT / "cpp_backend/progress.py", ROOT / "build/sanitize.log"]
    subprocess.run([*progress, BIN / "cmake", "--build", BUILD, "--target", *PROGRAMS], check=True)


def corpus(folder: Path) -> list[Path]:
    """Models of every kind of matrix, and damaged ones: what the fuzzer's mutations make, from a fixed seed."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, paths = random.Random(1), []
    for kind in (("--outtype", "f32"), ("--outtype", "q4_0", "--spike"), ("--outtype", "int8", "--spike"), ("--outtype", "f16", "--spike")):
        raw = tiny_model(folder, *kind).read_bytes()
        n_header = min(len(raw), raw.rindex(b".weight") + 64)
        for i in range(N_CORPUS // 4):
            changes = [(rng.choice(["flip", "u32", "u64", "delete", "insert", "cut"] if rng.random() < 0.2 else ["flip", "u32", "u64"]), rng.randrange(n_header),
                        rng.choice(EDGES) if rng.random() < 0.5 else rng.randrange(8), rng.randbytes(4)) for _ in range(rng.randint(1, 3))] if i else []
            changes = [(k, at, n % 8 if k == "flip" else n % 64 if k == "delete" else n, text) for k, at, n, text in changes]
            paths.append(folder / f"{len(paths)}.gguf")
            paths[-1].write_bytes(mutated(raw, changes))
    return paths


def histories() -> str:
    """What test_memory_history.py would try, the same every time."""
    from test_memory_history import HISTORY

    lines: list[str] = []

    @settings(max_examples=150, deadline=None, database=None, derandomize=True)
    @given(HISTORY)
    def collect(history: str) -> None:
        lines.append(history)

    collect()
    return "\n".join(lines) + "\n"


def reports(log: str) -> tuple[list[str], Counter[str]]:
    """(what is ours or a memory error, upstream's undefined behaviour by place)."""
    bad, upstream = [line for line in log.splitlines() if "ERROR: AddressSanitizer" in line or "ERROR: LeakSanitizer" in line], Counter()
    for line in log.splitlines():
        if "runtime error:" in line:
            place, _, what = line.partition(": runtime error: ")
            if OURS.search(place):
                bad.append(line)
            else:
                upstream[place.rsplit("llama.cpp/", 1)[-1] + ": " + what[:80]] += 1
    return bad, upstream


def run(program: str, *arguments: str, given: str | None = None) -> tuple[int, str]:
    env = {**os.environ, "ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=1:max_allocation_size_mb=2048", "UBSAN_OPTIONS": "print_stacktrace=0"}
    done = subprocess.run([BUILD / "bin" / program, *arguments], input=given, capture_output=True, text=True, errors="replace", env=env)
    return done.returncode, done.stderr + done.stdout


def main() -> int:
    build()
    files = corpus(ROOT / "build" / "sanitize-corpus")
    failed = False
    whole = [str(files[i * (N_CORPUS // 4)]) for i in range(4)]
    lines = histories()
    for program, arguments, text in (*((name, (), None) for name in PROGRAMS[:4]), *(("test-memory", (path, "0.1"), None) for path in whole),
                                     ("test-history", (whole[0],), lines), ("fuzz-files", (), "\n".join(map(str, files)) + "\n")):
        rc, log = run(program, *arguments, given=text)
        bad, upstream = reports(log)
        failed |= rc != 0 or bool(bad) or "\nstep " in log
        print(f"{program} {' '.join(Path(a).name for a in arguments)}: exit status {rc}, {len(bad)} reports, {sum(upstream.values())} of undefined behaviour in upstream's "
              f"files; {log.strip().splitlines()[-1][:120] if log.strip() else ''}", flush=True)
        for line in [*bad[:20], *(f"  upstream: {place} ({n})" for place, n in upstream.most_common(20))]:
            print(line)
        if rc and not bad:
            print(log[-3000:])
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
