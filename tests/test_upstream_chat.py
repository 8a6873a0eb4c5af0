"""llama-cpp-python's own tests on grammars and chat formats pass."""

from __future__ import annotations

import pytest
from upstream_python import run_upstream, upstream_tests  # noqa: F401


@pytest.mark.parametrize(("file", "n"), [("test_llama_grammar.py", 3), ("test_llama_chat_format.py", 2)])
def test_all_but_those_left_out_pass(upstream_tests, file, n):  # noqa: F811
    if "chat_format" in file:
        pytest.importorskip("jinja2")
    found = run_upstream(upstream_tests, file, {})
    assert {name: text[-400:] for name, text in found.items() if text != "passed"} == {} and len(found) == n
