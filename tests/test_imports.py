"""No module imports, at its top or inside a function, one that imports it; each can be imported by itself."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGES = {"spikingbrain_cpp": ROOT / "bindings" / "spikingbrain_cpp", "sb_convert": ROOT / "converter" / "sb_convert", "bench": ROOT / "bench", "sb_init": ROOT / "training" / "sb_init",
            "sb_train": ROOT / "training" / "sb_train"}


def modules(package: str) -> dict[str, Path]:
    """Files by the names of their modules."""
    root = PACKAGES[package]
    return {".".join((package, *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__"): path for path in sorted(root.rglob("*.py"))}


def imported(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The package's modules that a file names in an import, wherever it stands, also for types only."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = name.split(".")
            above = parts if path.name == "__init__.py" else parts[:-1]
            base = ".".join([*above[:len(above) - node.level + 1], *([node.module] if node.module else [])]) if node.level else node.module
            members = {f"{base}.{alias.name}" for alias in node.names}
            found |= members & {*known, f"{parts[0]}._core"} or {base}
    return found & set(known) - {name}


@pytest.mark.parametrize("package", PACKAGES)
def test_there_is_no_circle(package):
    known = modules(package)
    assert len(known) > (5 if package in ("sb_init", "sb_train") else 20)
    graph = {name: imported(name, path, known) for name, path in known.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" - ".join(error.args[1]))


def test_the_search_sees_every_form_of_import(tmp_path):
    path = tmp_path / "a.py"
    path.write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .b import B\ndef f():\n    from . import c, x\n    import p.d\n")
    assert imported("p.a", path, dict.fromkeys(("p", "p.a", "p.b", "p.c", "p.d"), path)) == {"p.b", "p.c", "p.d"}


@pytest.mark.parametrize("package", PACKAGES)
def test_each_module_can_be_imported_first(package):
    program = ("import importlib, sys\n"
               "for name in sys.argv[1:]:\n"
               "    for held in [m for m in sys.modules if m.split('.')[0] == name.split('.')[0] and not m.endswith('._core')]:\n"
               "        del sys.modules[held]\n"
               "    importlib.import_module(name)\n")
    names = [name for name in modules(package) if not name.endswith("__main__")]
    done = subprocess.run([sys.executable, "-c", program, *names], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]


def test_measuring_and_reporting_share_data_and_nothing_else():
    """bench: the commands import both, both import data, and neither the other; what lies beside the folders imports neither."""
    def room(name: str) -> str:
        part = name.removeprefix("bench.").split(".")[0]
        return part if part in ("measure", "report") else "commands" if part in ("bench", "cli", "__main__", "quality") else "data"

    known = modules("bench")
    steps = {(room(name), room(other)) for name, path in known.items() for other in imported(name, path, known) - {"bench"}}
    assert steps - {(x, x) for x, _ in steps} == {("commands", "measure"), ("commands", "report"), ("commands", "data"), ("measure", "data"), ("report", "data")}


def test_the_parts_of_the_benchmarks_driver_do_not_know_it():
    folder = ROOT / "bench" / "cpp"
    included = {p.name: set(re.findall(r'#include "([\w.-]+)"', p.read_text())) for p in folder.iterdir() if p.suffix in (".h", ".cpp")}
    graphlib.TopologicalSorter(included).prepare()
    assert not [name for name, others in included.items() if any(o.startswith("driver.") for o in others)]


def test_the_tests_have_one_conftest():
    assert [p.relative_to(ROOT).as_posix() for p in (ROOT / "tests").rglob("conftest.py")] == ["tests/conftest.py"]  # `import conftest` means one of several
