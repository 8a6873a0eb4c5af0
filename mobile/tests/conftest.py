"""Fixtures: the two machines on which the tests run the same jobs, this one and arm64 under qemu, and models converted here."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "checkpoints"
sys.path.append(str(ROOT / "tests"))  # behind this folder, whose conftest is meant
from made_models import Models  # noqa: E402

BUILD = ROOT / "build" / "arm64"
# what the wheel was made of, and the C++ tests: by zig (make arm64) or by Debian's compiler (for the tests alone)
CROSS = (ROOT / "build" / "portable" / "aarch64" if (BUILD / ".wheel-ON").exists() else BUILD) / "cmake" / "bin"
STATIC = ROOT / "build" / "arm64-static"
FULL = os.environ.get("SPIKINGBRAIN_MOBILE") == "full"

# what qemu 7.2 knows -> the CPU library it must get; the vector length of SVE is in bytes
LIBRARY = {
    "cortex-a53": "armv8.0_1", "cortex-a72": "armv8.0_1", "a64fx": "armv8.0_1",       # no dot product
    "cortex-a76": "armv8.2_2", "neoverse-n1": "armv8.2_2",                            # dot product, half precision
    "max,sve=off": "armv8.2_2", "max": "armv8.6_2", "max,sve-default-vector-length=16": "armv8.6_2",
    "max,sve-default-vector-length=32": "armv8.6_2",
}
CPUS = list(LIBRARY) if FULL else ["cortex-a53", "cortex-a76", "max,sve-default-vector-length=16"]  # SVE of 64 bytes takes qemu twice the time


def shared(name: str) -> Path:
    """A folder of ../shared/checkpoints; the test is skipped where it is absent."""
    if not (SHARED / name).is_dir():
        pytest.skip(f"../shared/checkpoints/{name} is not here")
    return SHARED / name


@dataclass
class Machine:
    """Where programs run: `prefix` is what stands before a program, `python` its Python with the package installed."""

    name: str
    python: Path
    prefix: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)

    def run(self, *words: Any, env: dict[str, str] | None = None, check: bool = True, timeout: int = 900) -> subprocess.CompletedProcess[str]:
        command = [*self.prefix, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout, env={**os.environ, **self.env, **(env or {})})
        if check and done.returncode != 0:
            pytest.fail(f"{self.name}: {' '.join(command)}: got exit code {done.returncode}, expected 0\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done

    def jobs(self, folder: Path, *jobs: dict[str, Any], env: dict[str, str] | None = None) -> list[Any]:
        """The answers of jobs.py, all of one process."""
        file = folder / f"{self.name}.json"
        file.write_text(json.dumps(jobs, default=str))
        return json.loads(self.run(self.python, Path(__file__).with_name("jobs.py"), file, env=env).stdout.rstrip().rsplit("\n", 1)[-1])


def qemu(cpu: str) -> Machine:
    """arm64 under qemu as `cpu`, with the sysroot's Python and the cross-compiled wheel."""
    program = shutil.which("qemu-aarch64")
    if not program:
        pytest.fail("qemu-aarch64: got no such program, expected Debian's qemu-user; do apt-get install -y qemu-user (as root)")
    python = sorted((BUILD / "sysroot" / "usr" / "bin").glob("python3.[0-9]*"))
    if not python or not (BUILD / "site" / "spikingbrain_cpp").is_dir():
        pytest.fail("build/arm64: got no wheel for arm64, expected what make test-mobile builds before the tests; do make test-mobile")
    env = {"QEMU_LD_PREFIX": str(BUILD / "sysroot"), "PYTHONPATH": str(BUILD / "site"), "PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": ""}
    return Machine(f"qemu-{cpu}", python[0], (program, "-cpu", cpu), env)


@pytest.fixture(scope="session")
def here() -> Machine:
    """This machine, with the package that make build installed."""
    return Machine("here", Path(sys.executable))


@pytest.fixture(scope="session")
def any_arm() -> Machine:
    """One arm64 CPU, for what does not depend on which."""
    return qemu("cortex-a76")


@pytest.fixture(scope="session", params=CPUS)
def arm(request: pytest.FixtureRequest) -> Machine:
    """arm64, one CPU after the other."""
    return qemu(request.param)


@pytest.fixture(scope="session")
def cpu_of(arm: Machine) -> str:
    return arm.prefix[2]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def minute(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint of 0.1 million weights, made as tests/conftest.py makes its own."""
    spec = importlib.util.spec_from_file_location("checkpoints", ROOT / "tests" / "conftest.py")
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    folder = tmp_path_factory.mktemp("checkpoints") / "minute"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(made.TINY))
    made.write_weights(folder, made.tiny_tensors(made.TINY, 16, 0), "safetensors", "BF16", 1)
    made.write_bpe(folder)
    return folder
