"""Makes the drivers of the sides (sides.py): engines built here from their source, one on the package's libraries."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ..checkout import ROOT, commit, pin
from ..errors import BenchError
from ..sides import PIN, SIDES, Side

BACKEND = PIN.parent
WORK = Path(os.environ.get("SPIKINGBRAIN_BENCH_WORK") or ROOT / "build" / "bench").absolute()  # builds and models


@dataclass(frozen=True)
class Drivers:
    """Executables by side, and what they are made of."""
    paths: dict[str, Path]
    pin: str      # llama-cpp-python==0.3.36
    commit: str   # of this repository; ends in + where the tree has changes
    build: str    # hash of the pin, the package's libraries and the driver: rows of another build do not mix


def package_libs() -> Path:
    spec = importlib.util.find_spec("spikingbrain_cpp")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / "lib" / "libllama.so").is_file():
            return Path(folder) / "lib"
    raise BenchError("bench: spikingbrain_cpp: got no installed package with lib/libllama.so, expected one; do run `make build`")


def tool(name: str) -> str:
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if not found:
        raise BenchError(f"bench: {name}: got no such program, expected it beside {sys.executable}; do run `make build`")
    return found


def run(command: list[str], what: str, log: Path) -> None:
    """Appends the output to log. Raises BenchError with its end when the command fails."""
    with log.open("ab") as f:
        rc = subprocess.run(command, stdout=f, stderr=subprocess.STDOUT).returncode
    if rc:
        tail = "\n  ".join(log.read_text(errors="replace").splitlines()[-12:])
        raise BenchError(f"bench: {what}: got exit code {rc}, expected 0; do read {log}\n  {tail}")


def materialise(side: Side, folder: Path, log: Path) -> Path:
    """The engine's pinned tree; ours with overlay and patches."""
    command = [sys.executable, str(BACKEND / "upstream.py"), "--dest", str(folder / "llama.cpp"), "--lock", str(side.lock)]
    if not side.installed:
        empty = folder / "nothing"
        empty.mkdir(parents=True, exist_ok=True)
        command += ["--overlay", str(empty), "--patches", str(empty)]
    if (source := os.environ.get("SPIKINGBRAIN_LLAMA_DIR")) and side.lock == PIN:
        command += ["--source", source]
    run(command, f"{side.engine}'s source", log)
    return folder / "llama.cpp"


def forget_other_checkout(cache: Path) -> None:
    """CMake refuses a build folder that was made from another place; what is compiled stays."""
    home = f"CMAKE_HOME_DIRECTORY:INTERNAL={ROOT / 'bench' / 'cpp'}\n"
    if cache.exists() and home not in cache.read_text():
        cache.unlink()


def build_side(side: Side, jobs: int) -> Path:
    folder = WORK / side.name
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "build.log"
    log.write_bytes(b"")
    tree = materialise(side, folder, log)
    forget_other_checkout(folder / "build" / "CMakeCache.txt")
    options = {"SB_BENCH_TREE": tree, "SB_BENCH_LIBS": package_libs() if side.installed else "", "SB_BENCH_DIALECT": side.dialect,
               "CMAKE_MAKE_PROGRAM": tool("ninja")} | side.options
    run([tool("cmake"), "-G", "Ninja", "-S", str(ROOT / "bench" / "cpp"), "-B", str(folder / "build"), *(f"-D{k}={v}" for k, v in options.items())],
        f"cmake ({side.name})", log)
    run([tool("cmake"), "--build", str(folder / "build"), "-j", str(jobs)], f"build ({side.name})", log)
    return folder / "build" / "sb-bench-driver"


def build_hash(libs: Path) -> str:
    digest = hashlib.sha256("".join(side.lock.read_text() for side in SIDES.values()).encode())
    sources = sorted((ROOT / "bench" / "cpp").iterdir())
    for path in [*sorted(libs.glob("libggml*.so")), libs / "libllama.so", *sources]:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def drivers(sides: Iterable[str] = tuple(SIDES), jobs: Optional[int] = None) -> Drivers:
    """Builds what is missing or out of date (an engine takes minutes the first time). Raises BenchError with cause and cure."""
    libs = package_libs()
    paths = {}
    for side in (SIDES[name] for name in SIDES if name in sides):
        if not side.installed and not (WORK / side.name / "build" / "sb-bench-driver").exists():
            print(f"bench: building {side.engine} in {WORK / side.name} (minutes, once)", flush=True)
        paths[side.name] = build_side(side, jobs or len(os.sched_getaffinity(0)))
    return Drivers(paths, pin(), commit(), build_hash(libs))
