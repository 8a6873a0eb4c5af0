"""The C++ tests for Windows under Wine, with the kernels of every instruction set of this machine: exact integers, and no crash by a stack
that is aligned to less than a vector."""

from __future__ import annotations

import pytest

from conftest import Wine, cpp_test

RAN = {"integer kernels": "Windows x86-64: Wine 8, each instruction set of a Zen 4"}
ISAS = ("zen4", "avx512", "avxvnni", "avx2", "generic")


@pytest.mark.parametrize("isa", ISAS)
def test_integer_products_are_exact(wine: Wine, isa: str) -> None:
    said = wine.run(cpp_test("test-spk-matmul"), env={"SPIKINGBRAIN_ISA": isa}).stdout.decode()
    if f"spk-matmul {isa}:" not in said:
        pytest.skip(f"this CPU has no {isa}")
    assert " 0 failed" in said


@pytest.mark.parametrize("isa", ISAS)
def test_operators_and_experts_agree_with_plain_loops(wine: Wine, isa: str) -> None:
    for name in ("test-spk-ops", "test-spk-experts"):
        assert " 0 failed" in wine.run(cpp_test(name), env={"SPIKINGBRAIN_ISA": isa}).stdout.decode(), name
