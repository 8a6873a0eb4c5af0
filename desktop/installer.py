"""The installer for Windows, of the zip that desktop/pack.py made: python desktop/installer.py ZIP (needs Debian's nsis)."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from pack import version


def removal(names: list[str]) -> str:
    """NSIS' commands that remove these files, and folders that are then empty."""
    folders = sorted({p.as_posix() for name in names for p in PurePosixPath(name).parents if p.name}, reverse=True)
    lines = [f'Delete "$INSTDIR\\{name}"' for name in names] + [f'RMDir "$INSTDIR\\{folder}"' for folder in folders]
    return "\n".join(lines).replace("/", "\\") + "\n"


def build(packed: Path) -> Path:
    """The installer's path, beside the zip."""
    if not shutil.which("makensis"):
        sys.exit("installer: makensis: got no such program, expected NSIS; do apt-get install -y nsis (as root)")
    made = packed.with_name(packed.stem + "-setup.exe")
    part = made.with_suffix(".partial")
    with tempfile.TemporaryDirectory() as name, zipfile.ZipFile(packed) as archive:
        archive.extractall(name)
        (folder,) = Path(name).iterdir()
        files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        (Path(name) / "list.nsh").write_text(removal(files))
        defined = {"VERSION": version(), "FOLDER": folder, "LIST": Path(name) / "list.nsh", "OUT": part.resolve()}
        subprocess.run(["makensis", "-V2", *(f"-D{k}={v}" for k, v in defined.items()), str(Path(__file__).with_name("installer.nsi"))], check=True)
    part.replace(made)
    return made


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
