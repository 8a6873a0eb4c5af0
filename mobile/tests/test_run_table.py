"""The tables of what has been run where are the tests' own words."""

from __future__ import annotations

import sys

import pytest
from jvm import ROOT

sys.path.insert(0, str(ROOT / "mobile" / "android"))
import run_table  # noqa: E402


@pytest.mark.parametrize("path", run_table.READMES, ids=["library", "app"])
def test_the_readmes_table_is_made_of_the_tests(path):
    text = path.read_text()
    assert text == run_table.with_table(text, run_table.READMES[path]), "do .venv/bin/python mobile/android/run_table.py --write"
    assert text.count(run_table.BEGIN) == 1 and run_table.NOT_RUN in text


def test_a_part_without_a_test_has_not_been_run(tmp_path, monkeypatch):
    monkeypatch.setattr(run_table, "TESTS", tmp_path)
    (tmp_path / "test_one.py").write_text('RAN = {"androidTest": "here"}\n')
    lines = run_table.table(("androidTest", "consumer rules")).splitlines()
    assert lines[2:] == ["| androidTest | here | `test_one.py` |", "| consumer rules | **not yet run** |  |"]
    (tmp_path / "test_two.py").write_text('RAN = {"androidTests": "there"}\n')
    with pytest.raises(ValueError, match='test_two.py: RAN: got "androidTests"'):
        run_table.said()
