"""Fixtures: Wine with one prefix and one server of it, the unpacked zip, sb-server.exe, Windows' Python, models converted here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "checkpoints"
sys.path.append(str(ROOT / "tests"))  # behind this folder, whose conftest is meant
from made_models import Models  # noqa: E402
from running_server import Server  # noqa: E402

BUILD = ROOT / "build" / "desktop"
PYTHON = BUILD / "python" / "python.exe"
BIN = BUILD / "windows" / "cmake" / "bin"  # the C++ tests, beside what the zip is made of
ZIPS = ROOT / "build" / "windows"
LINUX = Path(sys.executable).parent  # the commands of this machine's package
PREFIX = BUILD / "wine"


@dataclass(frozen=True)
class Wine:
    """Runs Windows' programs; answers are bytes, since their ends of lines are a matter of what is tested."""

    program: str

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "WINEPREFIX": str(PREFIX), "WINEDEBUG": "-all", "LC_ALL": "C.UTF-8", "LLAMA_ARG_FIT": "off", "LLAMA_ARG_BATCH": "512"}

    def start(self, program: Path | str, *words: Any, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen([self.program, str(program), *map(str, words)], env={**self.environment, **(env or {})}, stdin=subprocess.DEVNULL, **options)

    def run(self, program: Path | str, *words: Any, env: dict[str, str] | None = None, code: int | None = 0, timeout: int = 600, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
        """code: expected of the program; None: any."""
        done = subprocess.run([self.program, str(program), *map(str, words)], env={**self.environment, **(env or {})}, stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=timeout, cwd=cwd)
        if code is not None and done.returncode != code:
            pytest.fail(f"wine: {program} {words}: got exit code {done.returncode}, expected {code}\n{done.stdout[-2000:].decode(errors='replace')}{done.stderr[-2000:].decode(errors='replace')}")
        return done

    def path(self, path: Path) -> str:
        """As Windows names it: drive Z: is this machine's root."""
        return "Z:" + str(path).replace("/", "\\")


@pytest.fixture(scope="session")
def wine() -> Iterator[Wine]:
    program = next((p for p in ("/usr/lib/wine/wine64", shutil.which("wine64"), shutil.which("wine")) if p and Path(p).exists()), None)
    if not program:
        pytest.fail("wine64: got no such program, expected Debian's wine64; do make test-windows (as root)")
    here = Wine(program)
    if not (PREFIX / ".made").exists():
        PREFIX.mkdir(parents=True, exist_ok=True)
        here.run("wineboot", "-i", code=None)
        here.run("winecfg", "-v", "win10", code=None)  # Debian 12's Wine says that it is Windows 7
        (PREFIX / ".made").touch()
    server = next(p for p in (Path(program).with_name("wineserver64"), Path(program).with_name("wineserver")) if p.exists())
    subprocess.run([server, "-p"], env=here.environment, check=False, stderr=subprocess.DEVNULL)  # stays between two programs
    # the first program starts Wine's services, which keep its outputs open
    here.start("cmd", "/c", "ver", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait(120)
    yield here
    subprocess.run([server, "-k"], env=here.environment, check=False)


def shared(name: str) -> Path:
    """A folder of ../shared/checkpoints; the test is skipped where it is absent."""
    if not (SHARED / name).is_dir():
        pytest.skip(f"../shared/checkpoints/{name} is not here")
    return SHARED / name


def cpp_test(name: str) -> Path:
    """A C++ test of the build tree."""
    path = BIN / f"{name}.exe"
    if not path.exists():
        pytest.fail(f"{path}: got no such program, expected what make windows builds; do make windows")
    return path


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zip, unpacked as a user does."""
    zips = sorted(ZIPS.glob("*.zip"))
    if len(zips) != 1:
        pytest.fail(f"{ZIPS}: got {len(zips)} zips, expected one; do make windows")
    folder = tmp_path_factory.mktemp("zip")
    shutil.unpack_archive(zips[0], folder)
    (unpacked,) = folder.iterdir()
    return unpacked


class WindowsServer(Server):
    """sb-server.exe; the model and other paths as Linux names them."""

    def __init__(self, wine: Wine, programs: Path, model: Path, log: Path, *args: object, env: dict[str, str] | None = None) -> None:
        super().__init__(model, log, *args, env={**wine.environment, **(env or {})})
        self.command = [wine.program, str(programs / "sb-server.exe"), *(wine.path(Path(w)) if w.startswith("/") else w for w in self.command[1:])]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("models"))


def on_linux(name: str, *words: object) -> bytes:
    """What a command of this machine's package prints."""
    return subprocess.run([LINUX / name, *map(str, words)], check=True, capture_output=True, stdin=subprocess.DEVNULL).stdout
