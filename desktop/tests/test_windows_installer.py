"""The installer under Wine: what the zip holds, in any folder; it removes what it brought and nothing else."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from conftest import ZIPS, Wine

KEY = r"HKCU\Software\Microsoft\Windows\CurrentVersion\Uninstall\SpikingBrain"


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_it_installs_what_the_zip_holds_and_removes_no_more(wine: Wine, programs: Path, tmp_path: Path) -> None:
    installers = list(ZIPS.glob("*-setup.exe"))
    if len(installers) != 1:
        pytest.fail(f"{ZIPS}: got {len(installers)} installers, expected one; do make windows-installer")
    folder = tmp_path / "für alle"
    wine.run(installers[0], "/S", *f"/D={wine.path(folder)}".split(" "))  # NSIS wants the rest of the line, unquoted
    installed = files(folder)
    installed.pop("uninstall.exe")
    assert installed == files(programs)
    done = wine.run(folder / "sb-cli.exe", "--version")
    assert b"version" in done.stdout + done.stderr
    assert " alle" in wine.run("reg", "query", KEY, "/v", "InstallLocation").stdout.decode(errors="replace")  # in the console's code page
    (folder / "licenses" / "mine.txt").write_text("mine")
    wine.run(folder / "uninstall.exe", "/S", code=None)  # a copy of it goes on
    until = time.monotonic() + 60
    while (folder / "uninstall.exe").exists() and time.monotonic() < until:
        time.sleep(0.2)
    assert files(folder) == {"licenses/mine.txt": b"mine"}
    wine.run("reg", "query", KEY, code=1)
