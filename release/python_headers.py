"""CPython's headers in a folder of their own (release/build-wheel.sh runs it): `python python_headers.py FOLDER`, this Python's;
`python python_headers.py FOLDER VERSION ARCHITECTURE`, those of Debian's Python 3.11 or 3.13 for x86_64 or aarch64.

Debian's pyconfig.h includes the architecture's from below /usr/include, where the compiler must not look: that one is copied in its place.
Debian's packages come by an apt with a state of its own: nothing is installed, and any machine with apt-get can have them.
"""

from __future__ import annotations

import re
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

SUITES = {"3.11": "bookworm", "3.13": "trixie"}
DEBIANS = {"x86_64": "amd64", "aarch64": "arm64"}  # its names of architectures
INCLUDED = re.compile(r"#\s*include <([^/>]+-linux-gnu/[^>]+/pyconfig\.h)>")


def copy(headers: Path, folder: Path, architecture: str) -> None:
    """Raises SystemExit where there are none."""
    if not (headers / "Python.h").is_file():
        sys.exit(f"python_headers: {headers}: got no Python.h, expected Python's headers; do apt-get install -y python3-dev (as root)")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(headers, folder)
    config = folder / "pyconfig.h"
    for name in INCLUDED.findall(config.read_text()):
        if name.startswith(architecture):
            shutil.copy(headers.parent / name, config)


def fetch(folder: Path, version: str, architecture: str) -> None:
    if version not in SUITES:
        sys.exit(f"python_headers: SPIKINGBRAIN_PYTHONS: got {version}, expected some of {' '.join(SUITES)}; do leave it out")
    mobile = Path(__file__).resolve().parents[1] / "mobile"
    sys.path[:0] = [str(mobile / "arm64"), str(mobile / "android")]
    from debian_parts import KEYS, mirror
    from sysroot import Apt, unpack

    with tempfile.TemporaryDirectory() as name:
        state = Path(name)
        apt = Apt(state / "apt", DEBIANS[architecture], f"deb [signed-by={KEYS}] {mirror(Path('/etc/apt'))} {SUITES[version]} main\n")
        apt.get("update")
        apt.get("download", f"libpython{version}-dev", cwd=state)
        unpack(sorted(state.glob("*.deb")), state / "all")
        copy(state / "all" / "usr" / "include" / f"python{version}", folder, architecture)


def main(folder: str, *debian: str) -> None:
    if debian:
        fetch(Path(folder).resolve(), *debian)
    else:
        copy(Path(sysconfig.get_path("include")), Path(folder), (sysconfig.get_config_var("MULTIARCH") or "none").split("-")[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
