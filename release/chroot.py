"""Clean Debians to try things in: folders made by mmdebstrap, entered with a process and mount namespace of their own. Needs root."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def fail(where: object, got: str, expected: str, do: str) -> NoReturn:
    sys.exit(f"check: {where}: got {got}, expected {expected}; do {do}")


def need_tools() -> None:
    """Raises SystemExit, in one sentence, where chroots cannot be made."""
    if os.geteuid() != 0:
        fail("user", f"uid {os.geteuid()}", "root, for chroots", "sudo make test-release")
    missing = [name for name in ("mmdebstrap", "unshare", "chroot") if not shutil.which(name)]
    if missing:
        fail("system packages", f"no {' '.join(missing)}", "all of these", "apt-get install -y mmdebstrap (as root)")


def make(folder: Path, suite: str, packages: Sequence[str] = (), then: str = "") -> Path:
    """A Debian of this `suite` in `folder`, made once: the smallest one, `packages`, and what the shell lines `then` do in it."""
    made = folder.with_name(folder.name + ".made")
    if not made.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        print(f"{suite}: making a chroot", flush=True)
        done = subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", *(f"--include={name}" for name in packages), suite, folder], capture_output=True, text=True)
        if done.returncode != 0:
            fail(f"mmdebstrap {suite}", f"exit code {done.returncode} ({(done.stderr.strip().splitlines() or ['no message'])[-1]})", "a chroot", "see that a Debian mirror is reachable")
        for name in ("/etc/resolv.conf", "/etc/hosts"):  # for apt
            shutil.copy(name, folder / name[1:])
        if then:
            Root(folder, log=folder.with_name(folder.name + ".log")).run("sh", "-ec", then, timeout=3600)
        made.touch()
    return folder


@dataclass
class Root:
    """A folder to run programs in. `binds`: {folder or file of this machine: path inside}."""

    folder: Path
    binds: dict[Path, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    user: str = ""
    log: Path | None = None

    def words(self, command: Sequence[object]) -> list[str]:
        """What runs `command` inside, as process 1 of its namespace."""
        at = self.folder
        lines = [f"mount -t proc proc {at}/proc", f"mount -t tmpfs tmpfs {at}/dev/shm || true"]
        for source, inside in self.binds.items():
            target = shlex.quote(f"{at}{inside}")
            make = f"mkdir -p {target}" if source.is_dir() else f"mkdir -p $(dirname {target}); touch {target}"
            lines.append(f"{make}; mount --bind {shlex.quote(str(source.resolve()))} {target}")
        env = " ".join(shlex.quote(f"{k}={v}") for k, v in ({"PATH": PATH, "HOME": "/root" if not self.user else "/", "LANG": "C.UTF-8"} | self.env).items())
        user = f"--userspec={self.user} " if self.user else ""
        lines.append(f"exec chroot {user}{at} env -i {env} {shlex.join(map(str, command))}")
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", "\n".join(lines)]

    def run(self, *command: object, check: bool = True, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(self.words(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=timeout)
        if self.log:
            with self.log.open("a") as log:
                log.write(done.stdout)
        if check and done.returncode != 0:
            fail(shlex.join(map(str, command))[:200], f"exit code {done.returncode}:\n{done.stdout[-3000:]}", "0", "read its output")
        return done

    def start(self, *command: object) -> Process:
        return Process(subprocess.Popen(self.words(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"))


@dataclass
class Process:
    """Process 1 of a namespace, and `unshare` that waits for it."""

    outer: subprocess.Popen[str]

    def inner(self) -> int:
        """Its number outside."""
        children = Path(f"/proc/{self.outer.pid}/task/{self.outer.pid}/children").read_text().split()
        return int(children[0])

    def end(self, number: int = signal.SIGTERM, timeout: float = 20) -> tuple[int, str]:
        """(exit code, what it printed) after the signal; killed, and an error, where it does not end."""
        os.kill(self.inner(), number)
        try:
            said = self.outer.communicate(timeout=timeout)[0]
        except subprocess.TimeoutExpired:
            self.outer.kill()
            fail("process", f"no end {timeout} s after signal {number}", "one", "see how it treats signals")
        return self.outer.returncode, said


@contextmanager
def fresh(made: Path, **kw: Any) -> Iterator[Root]:
    """A copy of the chroot `made`, for one check."""
    with tempfile.TemporaryDirectory(dir=made.parent) as folder:
        subprocess.run(["cp", "-a", "--reflink=auto", f"{made}/.", folder], check=True)
        yield Root(Path(folder), **kw)
