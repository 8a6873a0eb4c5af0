"""What is given to others, in one folder: `python release/collect.py FOLDER WHEEL...` (make release runs it).

FOLDER gets the wheels, the source distribution, per wheel its bill of materials (CycloneDX, checked against its schema) as the wheel has it,
LICENSES.txt with every licence, the container file, and SHA256SUMS over all of them. It appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent


def fail(where: object, got: str, expected: str, do: str) -> NoReturn:
    sys.exit(f"release: {where}: got {got}, expected {expected}; do {do}")


def metadata(wheel: Path) -> dict[str, bytes]:
    """Files of the wheel's dist-info folder, by their names below it."""
    with zipfile.ZipFile(wheel) as archive:
        return {name.split(".dist-info/", 1)[1]: archive.read(name) for name in archive.namelist() if ".dist-info/" in name}


def bill_of(wheel: Path) -> bytes:
    """Its bill of materials. Raises SystemExit if it has none or the schema refuses it."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = metadata(wheel).get("sboms/spikingbrain_cpp.cdx.json")
    if text is None:
        fail(wheel, "no sboms/spikingbrain_cpp.cdx.json in its metadata", "a bill of materials", "make wheel")
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text.decode())
    if wrong:
        fail(f"{wheel}: sboms/spikingbrain_cpp.cdx.json", str(wrong)[:300], "CycloneDX 1.6", "correct cpp_backend/parts.py")
    return text


def licence(component: dict[str, Any]) -> str:
    (choice,) = component["licenses"]
    return choice.get("expression") or choice["license"].get("id") or choice["license"]["name"]


def licences(wheels: list[Path]) -> str:
    """A table of what is in any of the wheels, and each text once."""
    parts: dict[str, dict[str, Any]] = {}
    texts: dict[str, str] = {"spikingbrain-cpp": (ROOT / "LICENSE").read_text()}
    for wheel in wheels:
        files = metadata(wheel)
        for part in json.loads(files["sboms/spikingbrain_cpp.cdx.json"])["components"]:
            parts[part["name"]] = part
            texts[part["name"]] = files[f"licenses/LICENSE-{part['name']}"].decode()
    rows = [("spikingbrain-cpp", "", "MIT", "all that is not named below")]
    rows += [(name, part.get("version", ""), licence(part), part["description"]) for name, part in parts.items()]
    table = [f"{name:<18} {version:<12} {spdx:<32} {use}" for name, version, spdx, use in rows]
    return "\n".join([*table, *(f"\n\n--- {name} ---\n\n{text.rstrip()}" for name, text in texts.items())]) + "\n"


def source_distribution(folder: Path) -> Path:
    import scikit_build_core.build as build

    return folder / build.build_sdist(str(folder))


def collect(folder: Path, wheels: list[Path]) -> None:
    """`folder` holds all of it, and nothing that was there before."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for wheel in wheels:
        shutil.copy(wheel, part)
        (part / f"{wheel.stem}.cdx.json").write_bytes(bill_of(wheel))
    source_distribution(part)
    (part / "LICENSES.txt").write_text(licences(wheels), encoding="utf-8")
    shutil.copy(ROOT / "release" / "Containerfile", part)
    files = sorted(part.iterdir())
    (part / "SHA256SUMS").write_text("".join(f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.name}\n" for f in files))
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    for file in sorted(folder.iterdir()):
        print(f"{file.stat().st_size:>12,}  {file}")


def main(words: list[str]) -> None:
    if len(words) < 2:
        sys.exit("usage: python release/collect.py FOLDER WHEEL...")
    wheels = [Path(word) for word in words[1:]]
    for wheel in wheels:
        if not wheel.is_file():
            fail(wheel, "no such file", "a wheel", "make wheel arm64")
    collect(Path(words[0]), wheels)


if __name__ == "__main__":
    main(sys.argv[1:])
