"""What a phone needs is in the package: the CMake project makes every CPU library and the Android Gradle plugin's rule takes it; an AAR and an
APK, assembled from a build, hold it aligned, stripped, and with nothing exported but what is looked up by name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT
from jvm import CPP

ANDROID = ROOT / "mobile" / "android"
sys.path.insert(0, str(ANDROID / "pack"))
import archive  # noqa: E402
import check  # noqa: E402
import elf  # noqa: E402
import plugin_rule  # noqa: E402

ABIS = ["arm64-v8a", "x86_64"]
SME = {"libggml-cpu-android_armv9.2_1.so", "libggml-cpu-android_armv9.2_2.so"}  # gcc 12 knows none, the NDK's clang does
LINKED = {"libggml-base.so", "libggml.so", "libllama.so", "libllama-common.so", "libspikingbrain_jni.so"}


@pytest.fixture(scope="session", params=ABIS)
def configured(request, tmp_path_factory) -> tuple[str, Path]:
    """The Gradle project's CMake, configured as for Android, nothing built."""
    build = tmp_path_factory.mktemp(request.param)
    return request.param, configure(build, request.param)


def configure(build: Path, abi: str) -> Path:
    plugin_rule.ask(build)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    run = subprocess.run(["cmake", "-S", str(CPP), "-B", str(build), "-G", "Ninja", f"-DCMAKE_TOOLCHAIN_FILE={ROOT}/mobile/tests/android-stand-in.cmake",
                          f"-DANDROID_ABI={abi}", "-DCMAKE_BUILD_TYPE=Release"], env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    return build


def test_the_plugin_packs_every_cpu_library(configured):
    abi, build = configured
    cpu = set(check.cpu_libraries()[abi]) - (SME if without_sme(build) else set())
    targets = plugin_rule.targets(build)
    assert {p.name for p in plugin_rule.packed(targets)} == cpu | LINKED
    # with targets named, the CPU libraries stay out: what was wrong
    assert {p.name for p in plugin_rule.packed(targets, ["spikingbrain_jni", "spikingbrain_upstream"])} == LINKED
    with pytest.raises(ValueError, match="targets: got cpu, expected names of targets"):
        plugin_rule.packed(targets, ["cpu"])


def without_sme(build: Path) -> bool:
    return "COMPILER_KNOWS_ggml_cpu_android_armv9_2_1:INTERNAL=\n" in (build / "CMakeCache.txt").read_text()


def test_the_list_is_llama_cpps(configured):
    """arm64: all of its variants for Android; a bump that brings one is noticed."""
    abi, build = configured
    made = {f"lib{t.name}.so" for t in plugin_rule.targets(build) if t.kind == "MODULE_LIBRARY" and t.name.startswith("ggml-cpu-")}
    named = set(check.cpu_libraries()[abi])
    assert named == made if abi == "arm64-v8a" else named < made and len(named) <= 4
