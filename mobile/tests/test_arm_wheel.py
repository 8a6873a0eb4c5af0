"""The cross-compiled wheel as a file: its tag, what is in it, what it needs of the system it is installed on."""

from __future__ import annotations

import os
import re
import subprocess
import zipfile
from pathlib import Path

import pytest

from conftest import FULL, ROOT

NEEDED = {"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "libstdc++.so.6", "libgcc_s.so.1", "ld-linux-aarch64.so.1"}
TOOLS = {"llama-cli", "llama-server", "llama-completion", "llama-quantize", "llama-bench", "llama-perplexity"}


@pytest.fixture(scope="module")
def wheel() -> zipfile.ZipFile:
    found = list((ROOT / "build" / "wheels-arm64").glob("*.whl"))
    assert len(found) == 1, "build/wheels-arm64: expected one wheel; do make test-mobile"
    return zipfile.ZipFile(found[0])


def machine_code(folder: Path, wheel: zipfile.ZipFile) -> list[Path]:
    wheel.extractall(folder)
    return [p for p in folder.rglob("*") if p.is_file() and p.read_bytes()[:4] == b"\x7fELF"]


def test_the_tag_is_that_of_arm64_linux(wheel: zipfile.ZipFile) -> None:
    name = Path(wheel.filename or "").name
    found = re.fullmatch(r"spikingbrain_cpp-[^-]+-(cp3[\d.cp]+)-(cp3[\d.cp]+)-((?:linux|manylinux_2_28)_aarch64)\.whl", name)
    assert found and found[1] == found[2]
    pythons = found[1].split(".")
    meta = next(n for n in wheel.namelist() if n.endswith(".dist-info/WHEEL"))
    assert all(f"Tag: {python}-{python}-{found[3]}" in wheel.read(meta).decode() for python in pythons)
    extensions = {n for n in wheel.namelist() if "/_core." in n and n.endswith(".so")}
    assert extensions == {f"spikingbrain_cpp/_core.cpython-{python[2:]}-aarch64-linux-gnu.so" for python in pythons}


def test_every_program_and_library_is_of_arm64_and_needs_libc_and_libstdcxx_alone(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    files = machine_code(tmp_path, wheel)
    own = {p.name for p in files}
    assert len(files) > 10
    for path in files:
        said = subprocess.run(["aarch64-linux-gnu-readelf", "-hdW", path], capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C"}).stdout
        assert re.search(r"Machine:\s+AArch64", said), path.name
        needed = set(re.findall(r"NEEDED.*\[(.*)\]", said))
        assert needed <= NEEDED | own, path.name
        paths = set(re.findall(r"(?:RUNPATH|RPATH).*\[(.*)\]", said))
        assert paths <= {"$ORIGIN", "$ORIGIN/lib"}, path.name


def test_no_variant_and_no_tool_is_missing(wheel: zipfile.ZipFile) -> None:
    names = {Path(n).name for n in wheel.namelist() if n.startswith("spikingbrain_cpp/lib/")}
    variants = {n for n in names if n.startswith("libggml-cpu-")}
    assert {f"libggml-cpu-armv8.{v}.so" for v in ("0_1", "2_1", "2_2", "2_3", "6_1", "6_2")} <= variants
    if FULL:
        assert TOOLS <= names
