"""Licences of what is compiled in, and a bill of materials: `python parts.py --out FOLDER llama=FOLDER pybind11=FOLDER ...` (CMake runs it).

parts.json is the list: each part's name, licence (SPDX), home, use, where its text and its version are found below one of the named folders. Writes
FOLDER/licenses/LICENSE-<name> and FOLDER/sboms/spikingbrain_cpp.cdx.json (CycloneDX 1.6). A part of a folder that is not named is left out.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).resolve().parent


def fail(where: object, got: str, expected: str, do: str) -> NoReturn:
    sys.exit(f"parts: {where}: got {got}, expected {expected}; do {do}")


def listed(folders: dict[str, Path]) -> list[dict[str, Any]]:
    """The parts of parts.json whose folders are there."""
    return [part for part in json.loads((HERE / "parts.json").read_text()) if part["text"][0] in folders]


def read(folders: dict[str, Path], root: str, name: str) -> str:
    path = next(iter(sorted(folders[root].glob(name))), None)  # a name may be a pattern
    if not path:
        fail(folders[root] / name, "no such file", "the file that parts.json names", "correct parts.json after a change of the pin")
    return path.read_text(encoding="utf-8", errors="replace")


def excerpt(text: str, begin: str, end: str) -> str | None:
    """The lines from the first that matches `begin` to before the next one that matches `end`."""
    lines = text.splitlines()
    first = next((i for i, line in enumerate(lines) if re.search(begin, line)), None)
    if first is None:
        return None
    last = next((i for i in range(first, len(lines)) if re.search(end, lines[i])), None)
    return None if last is None else "\n".join(lines[first:last]).rstrip() + "\n"


def licence_text(part: dict[str, Any], folders: dict[str, Path]) -> str:
    root, name, *bounds = part["text"]
    text = read(folders, root, name)
    found = excerpt(text, *bounds) if bounds else text
    if not found:
        fail(f"{part['name']}: {name}", f"nothing from /{bounds[0]}/ to /{bounds[1]}/", "its licence", "correct parts.json after a change of the pin")
    return found


def version(part: dict[str, Any], folders: dict[str, Path]) -> str | None:
    """None where the sources do not tell."""
    if part["version"] is None:
        return None
    root, name, pattern = part["version"]
    match = re.search(pattern, read(folders, root, name))
    if not match:
        fail(f"{part['name']}: {name}", f"nothing like /{pattern}/", "its version", "correct parts.json after a change of the pin")
    return ".".join(match.groups())


def component(part: dict[str, Any], folders: dict[str, Path]) -> dict[str, Any]:
    """A CycloneDX component."""
    licence = part["licence"]
    if licence.startswith("LicenseRef-"):
        choice: dict[str, Any] = {"license": {"name": licence.removeprefix("LicenseRef-")}}
    else:
        choice = {"expression": licence} if " " in licence else {"license": {"id": licence}}
    found = version(part, folders)
    return {"type": "library", "bom-ref": part["name"], "name": part["name"], **({"version": found} if found else {}), "description": part["use"],
            "licenses": [choice], "externalReferences": [{"type": "website", "url": part["url"]}]}


def bill(parts: list[dict[str, Any]], folders: dict[str, Path], own_version: str) -> dict[str, Any]:
    """Nothing in it depends on the time or the machine."""
    own = {"type": "library", "bom-ref": "spikingbrain-cpp", "name": "spikingbrain-cpp", "version": own_version, "purl": f"pkg:pypi/spikingbrain-cpp@{own_version}",
           "licenses": [{"license": {"id": "MIT"}}]}
    return {"$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json", "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "metadata": {"component": own},
            "components": [component(part, folders) for part in parts],
            "dependencies": [{"ref": "spikingbrain-cpp", "dependsOn": [part["name"] for part in parts]}]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--version", default="0")
    parser.add_argument("folders", nargs="+", metavar="NAME=FOLDER")
    args = parser.parse_args()
    folders = {"backend": HERE} | {name: Path(folder) for name, folder in (f.split("=", 1) for f in args.folders)}
    parts = listed(folders)
    for kind in ("licenses", "sboms"):
        (args.out / kind).mkdir(parents=True, exist_ok=True)
        for old in (args.out / kind).iterdir():
            old.unlink()
    for part in parts:
        (args.out / "licenses" / f"LICENSE-{part['name']}").write_text(licence_text(part, folders), encoding="utf-8")
    (args.out / "sboms" / "spikingbrain_cpp.cdx.json").write_text(json.dumps(bill(parts, folders, args.version), indent=1) + "\n")


if __name__ == "__main__":
    main()
