"""The native part compiles and links for arm64 with Debian's cross compiler, without the NDK. Needs what `make jni-host` built."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from jvm import CPP, JAVA, ROOT, built, tool

RUNTIME = ROOT / "cpp_backend" / "runtime"


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    """libspikingbrain_jni.so for aarch64: all sources of ours, warnings as errors, with 16 KiB pages as on Android."""
    compiler = shutil.which("aarch64-linux-gnu-g++")
    if compiler is None:
        pytest.fail("aarch64-linux-gnu-g++: got none, expected Debian's cross compiler; do apt-get install g++-aarch64-linux-gnu")
    java = Path(tool("javac")).resolve().parents[1] / "include"
    upstream = [flag for folder in ("include", "ggml/include", "common", "vendor") for flag in ("-isystem", str(built() / "llama.cpp" / folder))]
    out = tmp_path_factory.mktemp("cross") / "libspikingbrain_jni.so"
    run = subprocess.run([compiler, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-fvisibility=hidden", "-shared", "-Wl,-z,max-page-size=16384", "-o", str(out),
                          f"-I{RUNTIME}", *upstream, f"-I{java}", f"-I{java}/linux", *map(str, [*CPP.glob("*.cpp"), *RUNTIME.glob("*.cpp")])],
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-4000:]
    return out


def symbols(path: Path, *options: str) -> set[str]:
    run = subprocess.run(["nm", "-D", *options, str(path)], capture_output=True, text=True, check=True)
    return {line.split()[-1].split("@")[0] for line in run.stdout.splitlines()}


def test_every_native_method_is_there_and_nothing_else(library):
    declared = re.findall(r"static native [\w\[\]]+ (\w+)\(", (JAVA / "Native.java").read_text())
    assert symbols(library, "--defined-only", "--extern-only") >= {f"Java_org_spikingbrain_Native_{name}" for name in declared}
    exported = {s for s in symbols(library, "--defined-only", "--extern-only") if s.startswith("Java_")}
    assert len(exported) == len(declared)
    assert all(len(p.read_text().splitlines()) < 300 for p in CPP.glob("*.cpp"))


def test_what_it_needs_is_what_the_other_libraries_have(library):
    needed = {s for s in symbols(library, "--undefined-only") if re.match(r"(llama|ggml|gguf)_|_Z\w*(common|json_schema)", s)}
    offered = set().union(*(symbols(p, "--defined-only") for p in (built() / "bin").glob("*.so")))
    assert len(needed) > 40 and needed <= offered, needed - offered


def test_pages_are_16_kib(library):
    run = subprocess.run(["readelf", "-lW", str(library)], capture_output=True, text=True, check=True)
    loads = [line.split() for line in run.stdout.splitlines() if line.split()[:1] == ["LOAD"]]
    assert loads and all(int(line[-1], 16) == 16384 for line in loads)
    assert "AArch64" in subprocess.run(["readelf", "-h", str(library)], capture_output=True, text=True, check=True).stdout
