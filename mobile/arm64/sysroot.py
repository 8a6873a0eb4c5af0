"""Debian's Python for arm64, with what it needs, in a folder: `python3 mobile/arm64/sysroot.py FOLDER` (make arm64 runs it).

apt works in a folder beside it, for arm64 and with no package installed, so it needs no root and the machine's own
package database is neither read nor changed; where packages come from is what /etc/apt says.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

RUN = ("python3", "libstdc++6")  # and what they depend on: libc6, libssl3, ...
CONFIG = """\
APT::Architecture "{architecture}";
#clear APT::Architectures;
APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Debug::NoLocking "true";
Dir::State "{state}";
Dir::State::status "{state}/status";
Dir::Cache "{state}/cache";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Post-Invoke;
"""


def fail(where: str, got: str, expected: str, do: str) -> NoReturn:
    sys.exit(f"sysroot: {where}: got {got}, expected {expected}; do {do}")


class Apt:
    """apt-get with a state of its own below `state`; `sources`: lines in place of what /etc/apt names."""

    def __init__(self, state: Path, architecture: str = "arm64", sources: str | None = None) -> None:
        if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
            fail("apt-get", "no such program", "Debian's package tools", "build on Debian or in a Debian container")
        self.state, self.config = state, state / "apt.conf"
        for folder in ("lists/partial", "cache/archives/partial"):
            (state / folder).mkdir(parents=True, exist_ok=True)
        (state / "status").touch()
        self.config.write_text(CONFIG.format(state=state, architecture=architecture))
        self.architecture = architecture
        if sources is not None:
            (state / "sources.list").write_text(sources)
            with self.config.open("a") as f:
                f.write(f'Dir::Etc::sourcelist "{state}/sources.list";\nDir::Etc::sourceparts "/dev/null";\n')

    def get(self, *words: str, cwd: Path | None = None) -> None:
        done = subprocess.run(["apt-get", f"--config-file={self.config}", "-y", "-q", *words], cwd=cwd, capture_output=True, text=True)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            fail(f"apt-get {' '.join(words)}", f"exit code {done.returncode} ({last})", f"{self.architecture} packages",
                 f"see that /etc/apt names a Debian mirror with {self.architecture} and that it is reachable")

    def packages(self) -> list[Path]:
        return sorted((self.state / "cache" / "archives").glob("*.deb"))


def unpack(packages: list[Path], folder: Path) -> None:
    for package in packages:
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)


def minor_version(folder: Path) -> str:
    """Such as 3.11, of the Python in `folder`."""
    return sorted(p.name.removeprefix("python") for p in (folder / "usr" / "lib").glob("python3.*") if (p / "os.py").is_file())[-1]


def main(target: str) -> None:
    folder = Path(target).resolve()
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    apt = Apt(folder.with_name("apt"))
    apt.get("update")
    apt.get("install", "--download-only", *RUN)
    unpack(apt.packages(), part)
    version = minor_version(part)
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if version != here:
        fail("python3", f"{here} on this machine", f"{version}, which this Debian has for arm64", f"put python{version} first on PATH")
    headers = apt.state / "headers"  # alone: its dependencies are libraries to link with
    shutil.rmtree(headers, ignore_errors=True)
    headers.mkdir()
    apt.get("download", f"libpython{version}-dev", cwd=headers)
    unpack(sorted(headers.glob("*.deb")), part)
    include = part / "usr" / "include"  # Debian's pyconfig.h includes the architecture's from where a native compiler looks
    shutil.copy(include / "aarch64-linux-gnu" / f"python{version}" / "pyconfig.h", include / f"python{version}" / "pyconfig.h")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python3 mobile/arm64/sysroot.py FOLDER")
    main(sys.argv[1])
