"""A copy of the two packages' Python to change, first on the path of tests that run apart:
where root runs them, devices' names, this repository and what is installed in it cannot be written."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PACKAGES = ("sb_convert", "spikingbrain_cpp")
# a change may take away the check that keeps root from replacing a device: a mount of their own, on which names cannot change
APART = 'for p in /dev "$1"; do mount --rbind "$p" "$p" && mount -o remount,bind,ro "$p" || exit 99; done; shift; exec "$@"'
MOST_BYTES = 6 << 30  # of private memory
POLL, IDLE = 0.5, 120.0  # seconds: how often a run is looked at, and how long it may wait without a tick of CPU time

# sitecustomize.py of every Python started: the copy stands first, whatever PYTHONPATH a test gives it; coverage where it is wanted
FIRST = """import os, sys
sys.path.insert(0, os.path.dirname(__file__))
if os.environ.get("COVERAGE_PROCESS_START"):
    import coverage
    coverage.process_startup()
"""


def _installed(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None or Path(spec.origin).is_relative_to(ROOT / "bindings"):
        raise SystemExit(f"mutate: {package}: got no installed package, expected one; run make build")
    return Path(spec.origin).parent


class Sandbox:
    """folder/packages: the copy; `_core` and lib are links to the installed ones. cpu: the one it runs on: threads that wait by spinning
    make two runs on two CPUs several times slower. Close it, or use it in `with`."""

    def __init__(self, cpu: int | None = None) -> None:
        self._cpu = cpu
        self._running: int | None = None
        self._worker: subprocess.Popen[bytes] | None = None
        self._n_written = 0
        self.folder = Path(tempfile.mkdtemp(prefix="mutate-"))
        self.packages = self.folder / "packages"
        for name in ("data", "home", "tmp"):
            (self.folder / name).mkdir()
        for package in PACKAGES:
            self._copy(_installed(package), self.packages / package)
        (self.packages / "sitecustomize.py").write_text(FIRST)
        if os.geteuid() == 0 and subprocess.run([*self._prefix(), "true"], capture_output=True).returncode:
            raise SystemExit("mutate: got root without the right to mount, expected it, or another user; run it as an ordinary user")

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        if self._worker is not None:
            self._worker.kill()
            self._worker.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    @staticmethod
    def _prefix() -> list[str]:
        return ["unshare", "--mount", "sh", "-c", APART, "sh", str(ROOT)] if os.geteuid() == 0 else []

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        target.mkdir(parents=True)
        for path in source.iterdir():
            if path.suffix == ".py":
                shutil.copyfile(path, target / path.name)
            elif path.is_dir() and (path / "__init__.py").exists():
                Sandbox._copy(path, target / path.name)
            elif path.name != "__pycache__":
                (target / path.name).symlink_to(path)

    def modules(self) -> list[Path]:
        return sorted(p for package in PACKAGES for p in (self.packages / package).rglob("*.py"))

    def write(self, path: Path, text: str) -> None:
        """A module of the copy. Python tells what it compiled by seconds and size: each text gets a second of its own."""
        path.write_text(text)
        self._n_written += 1
        os.utime(path, (self._n_written, self._n_written))

    def _start(self, command: list[str], env: Mapping[str, str], **streams: Any) -> subprocess.Popen[bytes]:
        base = {**os.environ, "PYTHONPATH": str(self.packages), "PYTHONPYCACHEPREFIX": str(self.folder / "pyc"), "HOME": str(self.folder / "home"),
                "TMPDIR": str(self.folder / "tmp"), **env}
        return subprocess.Popen([*self._prefix(), sys.executable, *command], cwd=ROOT, env=base, start_new_session=True,
                                preexec_fn=lambda: _bounded(self._cpu), **streams)

    def _options(self) -> list[str]:
        return ["-p", "no:cacheprovider", "-q", "--basetemp", str(self.folder / "tmp" / "pytest")]

    def whole(self, args: list[str], env: Mapping[str, str], log: IO[Any]) -> None:
        """pytest over the copy, in a process of its own."""
        run = self._start(["-m", "pytest", *self._options(), *args], env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        self._running = run.pid
        try:
            run.wait()
        finally:
            self._end()

    def pytest(self, args: list[str], limit: float) -> int | None:
        """Exit status of a run over the copy; None: it had no end, and was ended with all that it had started: it spent more than `limit`
        seconds of CPU time, or none while it waited. Other programs that slow the machine down count for nothing."""
        if self._worker is None:  # plugins that no test of ours needs take longer to load than many tests
            self._worker = self._start([str(HERE / "worker.py")], {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       stderr=subprocess.DEVNULL)
        into, out = self._worker.stdin, self._worker.stdout
        assert into is not None and out is not None
        into.write(json.dumps([*self._options(), *args]).encode() + b"\n")
        into.flush()
        self._running = int(out.readline())
        spent, n_idle = 0.0, 0
        while spent <= limit and n_idle * POLL < IDLE:
            if select.select([out], [], [], POLL)[0]:
                self._end()
                return int(out.readline())
            before, spent = spent, cpu_seconds(self._running)
            n_idle = 0 if spent > before else n_idle + 1
        self._end()
        out.readline()
        return None

    def _end(self) -> None:
        """All that the last run started, it may be more than the run itself."""
        pid, self._running = self._running, None
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def cpu_seconds(session: int) -> float:
    """What the processes of a session have spent until now, those that they waited for included."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _bounded(cpu: int | None) -> None:
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
