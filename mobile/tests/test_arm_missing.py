"""What is missing on this machine is named in one sentence, with what to do about it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT

ARM64 = ROOT / "mobile" / "arm64"
SHELL = shutil.which("sh") or "/bin/sh"


def refused(*words: object, path: str = "", **options: object) -> str:
    """The one line that the command ends with, having failed."""
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=60, env={"PATH": path, "HOME": os.environ.get("HOME", "/")}, **options)
    assert done.returncode not in (0, 127) and not done.stdout, done.stdout
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and re.search(r"^[a-z0-9-]+: .*: got .*, expected .*; do ", lines[0]), done.stderr
    return lines[0]


def with_programs(folder: Path, *names: str) -> str:
    """A PATH on which nothing but these programs is."""
    folder.mkdir()
    for name in names:
        found = shutil.which(name)
        assert found, name
        (folder / name).symlink_to(found)
    return str(folder)


def test_cross_compiler_and_qemu(tmp_path: Path) -> None:
    none = with_programs(tmp_path / "none")
    assert "apt-get install -y g++-aarch64-linux-gnu (" in refused(SHELL, ARM64 / "check-system.sh", "build", path=none)
    assert "apt-get install -y g++-aarch64-linux-gnu qemu-user openjdk-17-jdk-headless aapt" in refused(SHELL, ARM64 / "check-system.sh", "test", path=none)
    some = with_programs(tmp_path / "some", "aarch64-linux-gnu-g++", "aarch64-linux-gnu-gcc", "id", "javac", "aapt", "zipalign", "apksigner", "proguard")
    assert "got no qemu-user, " in refused(SHELL, ARM64 / "check-system.sh", "test", path=some)
    # without apt-get, or without root, --install names them, too
    assert "apt-get install -y qemu-user" in refused(SHELL, ARM64 / "check-system.sh", "test", "--install", path=some)
    everything = with_programs(tmp_path / "all", "aarch64-linux-gnu-g++", "aarch64-linux-gnu-gcc", "qemu-aarch64", "javac", "aapt", "zipalign", "apksigner", "proguard")
    assert subprocess.run([SHELL, ARM64 / "check-system.sh", "test"], env={"PATH": everything}).returncode == 0


def test_package_tools(tmp_path: Path) -> None:
    assert "Debian" in refused(sys.executable, ARM64 / "sysroot.py", tmp_path / "sysroot", path=with_programs(tmp_path / "none"))


def test_an_unreachable_mirror_leaves_no_sysroot(tmp_path: Path) -> None:
    said = refused(sys.executable, ARM64 / "sysroot.py", tmp_path / "sysroot", path=failing_apt(tmp_path))
    assert "apt-get update" in said and "no route to it" in said and "arm64" in said
    assert not (tmp_path / "sysroot").exists()


def failing_apt(folder: Path) -> str:
    (folder / "bin").mkdir()
    for name in ("apt-get", "dpkg-deb"):
        (folder / "bin" / name).write_text(f"#!{SHELL}\necho 'E: no route to it' >&2\nexit 100\n")
        (folder / "bin" / name).chmod(0o755)
    return str(folder / "bin")


def test_ziglang(tmp_path: Path) -> None:
    bin_ = tmp_path / "venv" / "bin"
    bin_.mkdir(parents=True)
    (bin_ / "python").write_text(f"#!{SHELL}\necho\n")  # a Python that finds no ziglang
    (bin_ / "python").chmod(0o755)
    venv = os.path.relpath(tmp_path / "venv", ROOT)
    assert "pip install" in refused(SHELL, ARM64 / "build-static.sh", venv, path=os.environ["PATH"])


@pytest.mark.parametrize("words, programs, said", [
    ([], [], "MODEL.gguf"),
    (["no-such.gguf"], [], "apt-get install -y adb"),
], ids=["no model", "no adb"])
def test_adb(tmp_path: Path, words: list[str], programs: list[str], said: str) -> None:
    assert said in refused(SHELL, ARM64 / "adb-run.sh", *words, path=with_programs(tmp_path / "bin", *programs))
