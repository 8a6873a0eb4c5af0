"""Which files of a CMake build the Android Gradle plugin packs, from CMake's file API reply, which it reads, too.

The rule is the plugin's (CxxRegularBuilder, readCmakeFileApiReply; read in versions up to 8 and as versions 9 log it): without `targets`,
each target whose file ends in .so; with them, these alone, and a name that is no target is an error. Beside each, the libraries of its link
line that end in .so. Static libraries, object libraries and targets without a file are not packed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable

QUERIES = ("codemodel-v2", "cache-v2", "cmakeFiles-v1")


@dataclass(frozen=True)
class Target:
    name: str
    kind: str                # CMake's, such as MODULE_LIBRARY
    output: Path | None
    linked: tuple[Path, ...]  # shared libraries of its link line


def ask(build: Path) -> None:
    """Before CMake runs: what the plugin asks of it."""
    folder = build / ".cmake" / "api" / "v1" / "query" / "client-agp"
    folder.mkdir(parents=True, exist_ok=True)
    for query in QUERIES:
        (folder / query).touch()


def targets(build: Path) -> list[Target]:
    """All of a configured build. FileNotFoundError: CMake was not asked."""
    reply = build / ".cmake" / "api" / "v1" / "reply"
    indexes = sorted(reply.glob("index-*.json"))
    if not indexes:
        raise FileNotFoundError(f"{reply}: got no index, expected CMake's reply; do ask() before cmake")
    index = json.loads(indexes[-1].read_text())
    model = next(o for o in index["objects"] if o["kind"] == "codemodel")
    configurations = json.loads((reply / model["jsonFile"]).read_text())["configurations"]
    return [target(build, json.loads((reply / t["jsonFile"]).read_text())) for c in configurations for t in c["targets"]]


def target(build: Path, data: dict[str, Any]) -> Target:
    outputs = [build / a["path"] for a in data.get("artifacts", []) if data["type"] != "OBJECT_LIBRARY"]
    fragments = data.get("link", {}).get("commandFragments", [])
    linked = [build / f["fragment"] for f in fragments if f["role"] == "libraries" and f["fragment"].endswith(".so")]
    return Target(data["name"], data["type"], outputs[0] if outputs else None, tuple(linked))


def packed(found: list[Target], named: Iterable[str] = ()) -> list[Path]:
    """The files that the plugin copies for one ABI, sorted; `named`: what externalNativeBuild.cmake.targets lists. ValueError: no such target."""
    named = set(named)
    if unknown := named - {t.name for t in found}:
        raise ValueError(f"targets: got {', '.join(sorted(unknown))}, expected names of targets; do correct library/build.gradle.kts")
    built = [t for t in found if t.output and (t.name in named if named else t.output.suffix == ".so")]
    files = {t.output for t in built if t.output and t.output.suffix == ".so"} | {path for t in built for path in t.linked}
    return sorted(files)
