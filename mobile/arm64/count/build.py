"""Makes what counting needs: the driver of bench/cpp for each level of ARM, statically, the qemu plugin, the example models."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from bench.errors import BenchError

from .cases import MARCH

ROOT = Path(__file__).resolve().parents[3]
WORK = ROOT / "build" / "arm64-count"
PACKAGES = {"qemu-aarch64": "qemu-user", "aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu", "gcc": "gcc", "cmake": "cmake", "ninja": "ninja-build",
            "aarch64-linux-gnu-objdump": "binutils-aarch64-linux-gnu", "aarch64-linux-gnu-nm": "binutils-aarch64-linux-gnu"}


def tool(name: str) -> str:
    """Where a program is, beside this Python or on the PATH. Raises BenchError naming Debian's package."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if not found:
        cure = f"apt-get install {PACKAGES[name]}" if name in PACKAGES else "make build"
        raise BenchError(f"count: {name}: got no such program, expected one; do run `{cure}`")
    return found


def run(command: list[str], what: str, log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as f:
        rc = subprocess.run(command, stdout=f, stderr=subprocess.STDOUT).returncode
    if rc:
        tail = "\n  ".join(log.read_text(errors="replace").splitlines()[-12:])
        raise BenchError(f"count: {what}: got exit code {rc}, expected 0; do read {log}\n  {tail}")


def plugin(folder: Path = WORK) -> Path:
    out = folder / "count.so"
    run([tool("gcc"), "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(out), str(Path(__file__).with_name("plugin.c"))],
        "plugin", folder / "plugin.log")
    return out


def driver_path(level: str) -> Path:
    return WORK / level / "bin" / "sb-bench-driver"


def driver(level: str, jobs: int) -> Path:
    """Brought up to date; the first time minutes, once per level (ccache shares what does not depend on it)."""
    folder = WORK / level
    if not driver_path(level).exists():
        print(f"count: building the driver for {MARCH[level]} in {folder} (minutes, once)", flush=True)
    options = {"CMAKE_BUILD_TYPE": "Release", "CMAKE_SYSTEM_NAME": "Linux", "CMAKE_SYSTEM_PROCESSOR": "aarch64",
               "CMAKE_C_COMPILER": tool("aarch64-linux-gnu-gcc"), "CMAKE_CXX_COMPILER": tool("aarch64-linux-gnu-g++"),
               "CMAKE_EXE_LINKER_FLAGS": "-static", "CMAKE_MAKE_PROGRAM": tool("ninja"), "GGML_CPU_ARM_ARCH": MARCH[level],
               "SPIKINGBRAIN_STATIC": "ON", "SPIKINGBRAIN_NATIVE": "OFF", "SPIKINGBRAIN_TOOLS": "OFF", "SPIKINGBRAIN_TESTS": "ON"}
    log = WORK / f"{level}.log"
    run([tool("cmake"), "-G", "Ninja", "-S", str(ROOT / "cpp_backend"), "-B", str(folder), *(f"-D{k}={v}" for k, v in options.items())],
        f"cmake ({level})", log)
    run([tool("cmake"), "--build", str(folder), "-j", str(jobs), "--target", "sb-bench-driver"], f"build ({level})", log)
    return driver_path(level)


def model(name: str, options: list[str]) -> Path:
    """The example checkpoint, converted."""
    out = WORK / f"example-{name.replace(' ', '-')}.gguf"
    run([tool("sb-convert"), str(ROOT / "examples" / "small"), "-o", str(out), "--force", *options], f"sb-convert ({name})", WORK / "convert.log")
    return out
