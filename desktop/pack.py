"""The zip for Windows, of a folder that cmake --install filled: python desktop/pack.py FOLDER OUT."""

from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def version() -> str:
    found = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        raise ValueError("pyproject.toml: version: got none, expected one")
    return found[1]


def members(folder: Path) -> list[tuple[str, Path]]:
    """(name in the zip, file), sorted; tools have the names that they have in the package: llama-cli is sb-cli. No import libraries."""
    out = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if not name.endswith((".a", ".lib", ".pdb")):
            out.append((re.sub(r"^llama-([a-z-]+\.exe)$", r"sb-\1", name), path))
    return out


def pack(folder: Path, out: Path) -> Path:
    """The zip's path. ValueError: the folder has no programs or no CPU library."""
    found = members(folder)
    for what, pattern in (("programs", r"sb-.*\.exe"), ("CPU libraries", r"ggml-cpu-.*\.dll"), ("licences", r"licenses/.*")):
        if not any(re.fullmatch(pattern, name) for name, _ in found):
            raise ValueError(f"{folder}: {what}: got none, expected some; do build it again")
    stem = f"spikingbrain_cpp-{version()}-windows-x64"
    out.mkdir(parents=True, exist_ok=True)
    made = out / f"{stem}.zip"
    part = made.with_suffix(".partial")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for name, path in [*found, ("LICENSE.txt", ROOT / "LICENSE"), ("README.txt", ROOT / "desktop" / "README-windows.txt")]:
            info = zipfile.ZipInfo(f"{stem}/{name}", (2020, 1, 1, 0, 0, 0))  # the same bytes from the same files
            info.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(info, path.read_bytes())
    part.replace(made)
    return made


if __name__ == "__main__":
    print(pack(Path(sys.argv[1]), Path(sys.argv[2])))
