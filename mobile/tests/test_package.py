"""What a phone needs is in the package: the CMake project makes every CPU library and the Android Gradle plugin's rule takes it; an AAR and an
APK, assembled from a build, hold it aligned, stripped, and with nothing exported but what is looked up by name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import FULL, ROOT
from jvm import CPP
from packed import ABIS, SME, of_stand_in, stripped, wanted, without_sme

RAN = {"which libraries Gradle packs": "by the plugin's rule, from CMake's file API reply, configured as for Android with Debian's compilers",
       "every library of `cpu-libraries.txt`, built": "as for Android with Debian's gcc 12, for both ABIs; not the two with SME, which it does not know; in "
                                                       "`SPIKINGBRAIN_MOBILE=full` alone, else skipped"}
ANDROID = ROOT / "mobile" / "android"
sys.path.insert(0, str(ANDROID / "pack"))
import archive  # noqa: E402
import check  # noqa: E402
import plugin_rule  # noqa: E402

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


def test_the_list_is_llama_cpps(configured):
    """arm64: all of its variants for Android; a bump that brings one is noticed."""
    abi, build = configured
    made = {f"lib{t.name}.so" for t in plugin_rule.targets(build) if t.kind == "MODULE_LIBRARY" and t.name.startswith("ggml-cpu-")}
    named = set(check.cpu_libraries()[abi])
    assert named == made if abi == "arm64-v8a" else named < made and len(named) <= 4


@pytest.mark.parametrize("abi", ABIS)
def test_the_whole_set_is_packed(abi, tmp_path):
    """Of SPIKINGBRAIN_MOBILE=full, which builds it."""
    if not FULL:
        pytest.skip("SPIKINGBRAIN_MOBILE=full make test-mobile builds it; what the smaller set has is packed in test_jvm_cross.py")
    parts = {abi: stripped(abi, of_stand_in(abi), tmp_path)}
    made = archive.write(tmp_path / "whole.aar", archive.natives("jni", parts))
    assert [sentence for sentence in check.check(made, wanted(parts)) if "jni/" in sentence] == []


# --- the command that Gradle runs

def command(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(ANDROID / "pack"), *map(str, words)], capture_output=True, text=True)


def test_the_check_says_what_is_wrong_and_fails(tmp_path):
    archive.write(tmp_path / "empty.aar", {"R.txt": b""})
    run = command("check", tmp_path / "empty.aar")
    lines = run.stderr.splitlines()
    assert run.returncode == 1 and len(lines) > 8 and all(re.match(r"package: .*: got .*, expected .*; do ", line) for line in lines)
    for abi, names in check.cpu_libraries().items():
        assert any(f"jni/{abi}: got" in line and all(name in line for name in names) for line in lines)
    (tmp_path / "text.apk").write_text("no archive")
    for wrong, code in (((tmp_path / "text.apk",), 1), ((tmp_path / "missing.aar",), 1), ((), 2), ((tmp_path / "a.zip",), 2)):
        run = command("check", *wrong)
        assert run.returncode == code and len(run.stderr.splitlines()) == 1 and "Traceback" not in run.stderr


def test_the_same_parts_are_the_same_archive(tmp_path):
    parts = {"a.so": bytes(5), "resources.arsc": b"1234", "b.so": b"x"}
    made = [archive.write(tmp_path / name, parts, {"a.so": archive.PAGE, "resources.arsc": 4, "b.so": archive.PAGE}) for name in ("1.apk", "2.apk")]
    assert made[0].read_bytes() == made[1].read_bytes()
    with zipfile.ZipFile(made[0]) as a:
        assert a.testzip() is None and {n: a.read(n) for n in a.namelist()} == parts
        assert [check.data_offset(made[0], i) % unit for i, unit in zip(a.infolist(), (archive.PAGE, 4, archive.PAGE))] == [0, 0, 0]
