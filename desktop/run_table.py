"""What has been run where: python desktop/run_table.py [--write], from the tests. Each test file of desktop/tests says in its RAN what it runs, and where; a row
that no test names has not been run; what is compiled and linked all the same, check_macos.py says in its BUILT. One table makes the README's, the package's classifiers and what system_info() says of its system."""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TESTS = Path(__file__).parent / "tests"
README, PROJECT, MODULE = Path(__file__).parent / "README.md", ROOT / "pyproject.toml", ROOT / "bindings" / "spikingbrain_cpp" / "tried.py"
LINKED_BY = Path(__file__).parent / "check_macos.py"
BEGIN, END = "<!-- run table: begin -->", "<!-- run table: end -->"
NOT_RUN, LINKED = "not yet run", "compiled and linked, not yet run"
PARTS = ("Python package", "programs", "integer kernels", "sb-convert")


@dataclass(frozen=True)
class System:
    """key: platform.system() and platform.machine(), as system_info() finds it; elsewhere: part -> where, told by tests of other folders."""

    name: str
    key: tuple[str, str]
    classifier: str
    elsewhere: tuple[tuple[str, str], ...] = ()


EVERYWHERE_HERE = tuple((part, "Debian 12, a Zen 4 (`make test`)") for part in PARTS)
UNDER_QEMU = tuple((part, "qemu 7.2 (`make test-mobile`)") for part in PARTS)
SYSTEMS = (
    System("Linux x86-64", ("Linux", "x86_64"), "Operating System :: POSIX :: Linux", EVERYWHERE_HERE),
    System("Linux aarch64", ("Linux", "aarch64"), "Operating System :: POSIX :: Linux", UNDER_QEMU),
    System("Windows x86-64", ("Windows", "AMD64"), "Operating System :: Microsoft :: Windows"),
    System("macOS arm64", ("Darwin", "arm64"), "Operating System :: MacOS"),
    System("macOS x86-64", ("Darwin", "x86_64"), "Operating System :: MacOS"),
)


def constant(path: Path, name: str) -> dict[str, Any]:
    """A file's constant, {} where it has none; read, not imported."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            return dict(ast.literal_eval(node.value))
    return {}


def ran(path: Path) -> dict[str, str]:
    """Part -> "SYSTEM: where", of one test file."""
    return constant(path, "RAN")


def not_run() -> dict[tuple[str, str], str]:
    """(system, part) -> how far it came without being run."""
    linked = {(system, part) for system, parts in constant(LINKED_BY, "BUILT").items() for part in parts}
    return {(s.name, part): LINKED if (s.name, part) in linked else NOT_RUN for s in SYSTEMS for part in PARTS}


def said() -> dict[tuple[str, str], str]:
    """(system, part) -> where. ValueError: a test names a system or a part that the table has not."""
    out = {(system.name, part): where for system in SYSTEMS for part, where in system.elsewhere}
    for path in sorted(TESTS.glob("test_*.py")):
        for part, text in ran(path).items():
            system, _, where = text.partition(": ")
            if part not in PARTS or system not in {s.name for s in SYSTEMS}:
                raise ValueError(f'{path.name}: RAN: got "{part}" on "{system}", expected a part and a system of run_table.py; do add it there or correct it')
            out[system, part] = where
    return out


def table() -> str:
    rows = {key: text.replace(NOT_RUN, f"**{NOT_RUN}**") for key, text in not_run().items()} | said()
    lines = ["| system | " + " | ".join(PARTS) + " |", "| --- |" + " --- |" * len(PARTS)]
    lines += [f"| {s.name} | " + " | ".join(rows[s.name, part] for part in PARTS) + " |" for s in SYSTEMS]
    return "\n".join(lines)


def sentence(system: System) -> str:
    """For system_info()."""
    rows = not_run() | said()
    return "; ".join(f"{part}: {rows[system.name, part]}" for part in PARTS).replace("`", "")


def module() -> str:
    lines = ['"""What has been run on which system; made by desktop/run_table.py."""', "", "TRIED = {  # platform.system(), platform.machine()"]
    return "\n".join(lines + [f"    {s.key!r}: {sentence(s)!r},".replace("'", '"') for s in SYSTEMS] + ["}", ""])


def classifiers() -> list[str]:
    """Of the systems on which the package itself has been run."""
    rows = said()
    return list(dict.fromkeys(s.classifier for s in SYSTEMS if (s.name, "Python package") in rows))


def with_classifiers(text: str) -> str:
    lines = [line for line in text.split("\n") if not line.startswith('    "Operating System ::')]
    at = next(i for i, line in enumerate(lines) if line.startswith('    "Programming Language :: C++"'))
    return "\n".join(lines[:at] + [f'    "{c}",' for c in classifiers()] + lines[at:])


def made() -> dict[Path, str]:
    """What each file should hold."""
    readme = re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n{table()}\n{END}", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    return {README: readme, PROJECT: with_classifiers(PROJECT.read_text(encoding="utf-8")), MODULE: module()}


def main() -> None:
    if sys.argv[1:] != ["--write"]:
        print(table())
        return
    for path, text in made().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
