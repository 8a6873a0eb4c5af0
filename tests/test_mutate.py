"""make mutate: which changes are made, which tests they meet, what the figure says."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest
from conftest import ROOT

pytest.importorskip("libcst", reason="make mutate installs it")
pytest.importorskip("coverage", reason="make mutate installs it")


@pytest.fixture(scope="module")
def mutate():
    """Its modules by name; the program stands apart from the tests' own."""
    folder, names = ROOT / "tests" / "mutate", {"operators": "operators", "sandbox": "sandbox", "measured": "measured", "uses": "uses", "main": "__main__"}
    found = {}
    sys.path.insert(0, str(folder))
    for name, file in names.items():
        spec = importlib.util.spec_from_file_location(name, folder / f"{file}.py")
        found[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found[name])
    yield found
    sys.path.remove(str(folder))
    for name in names:
        del sys.modules[name]


@pytest.mark.parametrize("code, changed", [
    ("def f(a):\n    return a < 3\n", {"return a <= 3", "return a >= 3", "return a < 4", "return a < 2"}),
    ("def f(a, b):\n    g(a, b, k=1)\n", {"g(b, a, k=1)", "g(a, b, k=2)", "pass", "g(a, b, )"}),
    ("def f(a):\n    if not a and a[1:]:\n        del a\n", {"if not (not a and a[1:]):", "if not a or a[1:]:", "if a and a[1:]:", "if not a and a[2:]:", "if not a and a[:]:", "pass"}),
    ("def f(a, b=True):\n    x = min(a, -b)\n", {"def f(a, b=False):", "x = max(a, -b)", "x = min(a, b)"}),
    ("def f(a: int = 0):\n    raise ValueError(f'{a + 1} and {a > 2}')\n", {"def f(a: int = 1):", "pass"}),
    ("def f(a):\n    \"\"\"Not 1.\"\"\"\n    print(1 + 2)\n    assert a > 1\n", {"pass"}),
    ("def __repr__(self):\n    return 1\n", set())])
def test_changes_of_a_piece_of_code(mutate, code, changed):
    found = mutate["operators"].mutants("x.py", code)
    assert {m.lines()[1] for m in found} == changed
    for m in found:
        compile(m.code(), "x.py", "exec")


def test_a_lines_tests_quickest_first_and_a_shared_setup_for_its_file(mutate):
    seconds = {"a.py::slow": 3.0, "a.py::quick": 1.0, "b.py::one": 0.1, "b.py::two": 0.2}
    measured = mutate["measured"].Measured({"m.py": {1: {}, 2: {"a.py::slow": False, "a.py::quick": False}, 5: {"b.py::one": True}}}, seconds)
    assert measured.of("m.py", range(2, 3), False) == ["a.py::quick", "a.py::slow"]
    assert measured.of("m.py", range(5, 6), False) == ["b.py::one", "b.py::two"]
    assert measured.of("m.py", range(1, 2), False) == [] and measured.of("m.py", range(1, 2), True) == ["a.py::quick", "a.py::slow"]
    moved = measured.moved({"m.py": "x\ny\nz\nu\nv"}, {"m.py": "new\nx\ny\nz\nu\nv"})
    assert moved.of("m.py", range(3, 4), False) == ["a.py::quick", "a.py::slow"]
    choose, three = mutate["main"].choose, ["a.py::quick", "b.py::one", "a.py::slow"]
    assert choose(three, measured, 3, 9) == ["a.py::quick", "a.py::slow", "b.py::one"] and choose(three, measured, 3, 1.5) == ["a.py::quick", "b.py::one"]
    dear = mutate["measured"].Measured({"m.py": {2: dict.fromkeys(seconds, False)}}, seconds, {"b.py": 5.0})
    assert dear.of("m.py", range(2, 3), False) == ["a.py::quick", "a.py::slow", "b.py::one", "b.py::two"]
    assert choose(three, dear, 3, 6) == ["a.py::quick"] and choose(["b.py::one", "b.py::two"], dear, 3, 5.4) == ["b.py::one", "b.py::two"]


MODULES = {"p/a.py": "LOW, HIGH = 1, 2\nBOTH = [LOW, HIGH]\n\n\ndef f():\n    return LOW\n\n\ndef g():\n    return BOTH\n",
           "p/b.py": "from .a import BOTH as both, BOTH\n\n\ndef h(n=BOTH):\n    x = 0\n    return x\n\n\ndef i(c):\n    return c.HIGH\n",
           "p/c.py": "LOW = 9\n\n\ndef j():\n    return LOW\n"}


def test_what_an_import_computes_meets_first_the_tests_of_what_uses_it(mutate):
    found = {m.lines()[1]: m.names for m in mutate["operators"].mutants("p/a.py", MODULES["p/a.py"])}
    assert found == {"LOW, HIGH = 2, 2": ("LOW", "HIGH"), "LOW, HIGH = 1, 3": ("LOW", "HIGH"), "LOW, HIGH = 1, 1": ("LOW", "HIGH")}
    assert [m.names for m in mutate["operators"].mutants("x.py", "def f(a=1):\n    b = 2\n\n\nclass C:\n    d: int = 3\n\n    def __init__(self, e=4):\n        pass\n") if m.line != 2] \
        == [("f",)] + [("d",)] * 2 + [("__init__", "C")] * 2
    uses = mutate["uses"].Uses(MODULES, {"tests/test_a.py": "def test_low(x):\n    assert a.LOW\n\n\ndef test_none():\n    low()\n"})
    assert uses.lines("p/a.py", ["LOW"]) == {"p/a.py": {6, 10}, "p/b.py": {5, 6}} and uses.lines("p/a.py", ["HIGH"])["p/b.py"] == {5, 6, 10}
    assert uses.lines("p/c.py", ["LOW"]) == {"p/c.py": {5}} and uses.lines("p/a.py", []) == {}
    assert uses.tests(["LOW", "X"]) == {"tests/test_a.py::test_low"} and uses.tests([]) == set()
    lines = {"m.py": {1: {"a.py::quick": False}, 2: {"a.py::slow": False, "b.py::setup": True}}}
    measured = mutate["measured"].Measured(lines, {"a.py::quick": 0.1, "a.py::slow": 3.0, "b.py::setup": 0.1, "b.py::named[1]": 9.0})
    assert measured.of("m.py", range(1, 3), True)[0] == "a.py::quick"
    assert measured.of("m.py", range(1, 3), True, {"m.py": {2}}, {"b.py::named"}) == ["a.py::slow", "b.py::named[1]", "a.py::quick", "b.py::setup"]


def test_what_survived_is_tried_again(mutate, tmp_path):
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "m.py").write_text("x = 1\ny = 2\n")
    row = {"file": "m.py", "operator": "constant", "old": "y = 2", "new": "y = 3", "noticed": False}
    rows = [row, {**row, "new": "y = 1", "noticed": True}, {**row, "old": "gone = 1"}, {**row, "operator": mutate["main"].CONTROL}]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    copy = type("Copy", (), {"packages": tmp_path / "packages"})
    assert [m.lines() for m in mutate["main"].survivors(copy, tmp_path / "results.jsonl")] == [("y = 2", "y = 3")]


def test_a_run_over_the_copy_ends_by_its_cpu_time_or_its_silence(mutate, tmp_path, monkeypatch):
    pytest.importorskip("spikingbrain_cpp")
    sandbox = mutate["sandbox"]
    (tmp_path / "test_it.py").write_text("""
import time
import sb_convert.errors as errors
def test_copy(): assert "mutate-" in errors.__file__
def test_changed(): assert getattr(errors, "X", 0) == 1
def test_spins():
    while True: pass
def test_waits(): time.sleep(60)
""")
    monkeypatch.setattr(sandbox, "IDLE", 1.5)
    with sandbox.Sandbox() as copy:
        run = lambda name: copy.pytest([f"{tmp_path}/test_it.py::test_{name}"], 1.0)  # noqa: E731
        assert (run("copy"), run("changed"), run("spins"), run("waits")) == (0, 1, None, None)
        path = copy.packages / "sb_convert" / "errors.py"
        for text, status in (("\nX = 1\n", 0), ("\nX = 2\n", 1)):  # as long, and within a second
            copy.write(path, path.read_text().split("\nX")[0] + text)
            assert run("changed") == status


def test_the_figure_and_its_interval(mutate):
    main = mutate["main"]
    low, high = main.interval(85, 100)
    assert (round(low, 3), round(high, 3)) == (0.767, 0.907)  # Wilson's, as in tables
    made = [main.Outcome("m.py", 1, "constant", "a", "b", True, 1, "failed"), main.Outcome("m.py", 2, "constant", "c", "d", False, 3, "survived"),
            main.Outcome("m.py", 2, main.CONTROL, "c", "c", False, 3, "control")]
    text = main.report(made)
    assert "1 of 2 changes noticed: 50.0%" in text and "| m.py | 2 | 1 | 1 |" in text and "0 runs failed" in text and "- m.py:2 constant" in text


def test_every_listed_equivalent_has_its_reason(mutate):
    rows = [line for line in (ROOT / "tests" / "mutate" / "equivalent.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(len(row.split("\t")) == 4 and row.split("\t")[3] for row in rows)
    names = {m[0] for m in mutate["main"].equivalents()}
    assert all(list(ROOT.glob(f"*/{name}")) for name in names)
