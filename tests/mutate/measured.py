"""Which tests run which line: the suite under coverage, once, kept under build/mutate until a test or a module changes."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import coverage

from sandbox import HERE, ROOT, Sandbox

# tests of servers, builds, texts, fuzzing and training: slow, or of what is no Python of these packages
LEFT_OUT = re.compile(r"test_(server.*|upstream.*|bench.*|cpp|fuzz|mutate|packaging|patches|quality|readme|spiking_models|train)\.py")
RC = """[run]
parallel = true
data_file = {data}
source_pkgs = sb_convert, spikingbrain_cpp
context = ${{PYTEST_CURRENT_TEST-}}
core = ctrace
patch = _exit, execv
disable_warnings = no-data-collected, module-not-measured, module-not-imported
"""


@dataclass(frozen=True)
class Measured:
    """Tests by line: {file: {line: {test: whether only its setup ran the line}}}, each passing test's seconds, and those of each file's fixtures."""

    tests: dict[str, dict[int, dict[str, bool]]]
    seconds: dict[str, float]
    setups: dict[str, float] = field(default_factory=dict)

    def of(self, file: str, lines: range, imported: bool, uses: Mapping[str, set[int]] = MappingProxyType({}), named: Set[str] = frozenset()) -> list[str]:
        """Tests that run one of the lines, those that run it themselves first, quickest first, with its file's fixtures; a shared setup counts for its whole file.
        imported: where none does, all that run any line of the file; those that run a line of uses, and the named ones, before all others."""
        found: dict[str, bool] = {}
        for line in lines:
            for test, setup in self.tests.get(file, {}).get(line, {}).items():
                found[test] = found.get(test, True) and setup
        if not found and imported:
            lines = range(1, 1 + max(self.tests.get(file, {}), default=0))
            found = {test: setup for line in lines for test, setup in self.tests.get(file, {}).get(line, {}).items() if not setup}
        shared = {test.split("::")[0] for test, setup in found.items() if setup}
        found |= {test: True for test in self.seconds if test not in found and test.split("::")[0] in shared}
        near = {test for f, held in uses.items() for line in held for test, setup in self.tests.get(f, {}).get(line, {}).items() if not setup}
        near |= {test for test in self.seconds if test.split("[")[0] in named}
        return sorted((t for t in found | dict.fromkeys(near, False) if t in self.seconds),
                      key=lambda t: (t not in near, found.get(t, False), self.seconds[t] + self.setups.get(t.split("::")[0], 0.0)))

    def only(self, files: set[str]) -> Measured:
        """Of these test files."""
        tests = {f: {n: {t: s for t, s in held.items() if t.split("::")[0] in files} for n, held in lines.items()} for f, lines in self.tests.items()}
        return Measured(tests, {t: s for t, s in self.seconds.items() if t.split("::")[0] in files}, {f: s for f, s in self.setups.items() if f in files})

    def moved(self, old: dict[str, str], new: dict[str, str]) -> Measured:
        """Of the modules as they are now: a line's tests go where its text went; new lines take those of the line before."""
        out: dict[str, dict[int, dict[str, bool]]] = {}
        for file, lines in self.tests.items():
            if old.get(file) == new.get(file):
                out[file] = lines
            elif file in new:
                before, after = old[file].splitlines(), new[file].splitlines()
                at = {b + i + 1: a + i + 1 for a, b, n in difflib.SequenceMatcher(None, before, after, False).get_matching_blocks() for i in range(n)}
                out[file] = {n: lines[at[near]] for n in range(1, len(after) + 1)
                             if (near := next((k for k in range(n, max(0, n - 4), -1) if at.get(k) in lines), None)) is not None}
        return Measured(out, self.seconds, self.setups)

    def joined(self, other: Measured) -> Measured:
        tests = {f: {n: self.tests.get(f, {}).get(n, {}) | other.tests.get(f, {}).get(n, {}) for n in {*self.tests.get(f, {}), *other.tests.get(f, {})}}
                 for f in {*self.tests, *other.tests}}
        return Measured(tests, self.seconds | other.seconds, self.setups | other.setups)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def measure(sandbox: Sandbox, out: Path, workers: int, keep: bool) -> Measured:
    """Test files that are new or changed are run under coverage, all of them once a module or a helper changed, but with keep: what
    is known of lines is then taken over by their text. SystemExit: no test passed."""
    kept, made = out / "coverage.json", _state(sandbox)
    raw = json.loads(kept.read_text()) if kept.is_file() else {"modules": {}, "helpers": {}, "files": {}, "tests": {}, "seconds": {}, "setups": {}}
    if (raw["modules"], raw["helpers"]) != (made["modules"], made["helpers"]) and not keep:
        raw = {**raw, "files": {}}
    old = Measured({f: {int(n): t for n, t in lines.items()} for f, lines in raw["tests"].items()}, raw["seconds"], raw.get("setups", {}))
    stale = [name for name, digest in made["files"].items() if raw["files"].get(name) != digest]
    known = set(made["files"]) - set(stale)
    old = old.only(known).moved(raw["modules"], made["modules"])
    if stale:
        old = old.joined(_run(sandbox, out, workers, stale))
    kept.write_text(json.dumps({**made, "tests": old.tests, "seconds": old.seconds, "setups": old.setups}))
    return old


def _state(sandbox: Sandbox) -> dict[str, dict[str, str]]:
    """What a measurement holds for."""
    tests = sorted((ROOT / "tests").glob("*.py"))
    return {"modules": {str(p.relative_to(sandbox.packages)): p.read_text() for p in sandbox.modules()},
            "helpers": {p.name: _digest(p) for p in tests if not p.name.startswith("test_")},
            "files": {f"tests/{p.name}": _digest(p) for p in tests if p.name.startswith("test_") and not LEFT_OUT.fullmatch(p.name)}}


def _run(sandbox: Sandbox, out: Path, workers: int, files: list[str]) -> Measured:
    print(f"mutate: running {len(files)} test files under coverage, {workers} at a time; {out / 'coverage.log'} tells", flush=True)
    rc, seconds = sandbox.folder / "coveragerc", sandbox.folder / "seconds.json"
    rc.write_text(RC.format(data=sandbox.folder / "data" / "coverage"))
    env = {"COVERAGE_PROCESS_START": str(rc), "MUTATE_SECONDS": str(seconds), "PYTHONPATH": os.pathsep.join([str(sandbox.packages), str(HERE)])}
    with open(out / "coverage.log", "wb") as log:
        sandbox.whole(["-n", str(workers), "--dist", "loadfile", "-p", "contexts", *files], env, log)
    if not seconds.is_file():
        raise SystemExit(f"mutate: coverage: got no passing test, expected the suite to run; read {out / 'coverage.log'}")
    return Measured(_read(sandbox), **json.loads(seconds.read_text()))


def _read(sandbox: Sandbox) -> dict[str, dict[int, dict[str, bool]]]:
    joined = coverage.Coverage(data_file=str(sandbox.folder / "data" / "coverage"), config_file=False)
    joined.combine([str(sandbox.folder / "data")])
    data = joined.get_data()
    out: dict[str, dict[int, dict[str, bool]]] = {}
    for path in sandbox.modules():
        lines: dict[int, dict[str, bool]] = defaultdict(dict)
        for line, contexts in data.contexts_by_lineno(str(path)).items():
            for context in filter(None, contexts):
                test, _, phase = context.rpartition(" (")
                setup = phase != "call)"
                lines[line][test] = lines[line].get(test, True) and setup
        out[str(path.relative_to(sandbox.packages))] = dict(lines)
    return out
