"""The C++ tests of the operators and of the memory, cross-compiled: every CPU library by itself, on a CPU that has what it needs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from conftest import BUILD, CROSS, FULL, Machine, Models, qemu

RAN = {"kernels for arm64": "under qemu (`mobile/arm64/`)"}
MAX = "max,sve-default-vector-length=16"  # of 128 bits, as most CPUs have it
ALONE = [("armv8.0_1", "cortex-a53"), ("armv8.2_1", "cortex-a76"), ("armv8.2_2", "cortex-a76"), ("armv8.2_3", MAX), ("armv8.6_1", MAX), ("armv8.6_2", MAX)]
if FULL:
    ALONE += [("armv8.0_1", "cortex-a72"), ("armv8.0_1", "a64fx"), ("armv8.2_2", "neoverse-n1"), ("armv8.2_2", "max,sve=off"),
              *((library, cpu) for library in ("armv8.2_3", "armv8.6_1", "armv8.6_2") for cpu in ("max", "max,sve-default-vector-length=32"))]
# the smaller set: the slow tests, whose code does not differ between neighbours, on fewer
OPERATORS = ALONE if FULL else [a for a in ALONE if a[0] in ("armv8.0_1", "armv8.6_2")]
MEMORY = OPERATORS
GENERIC = {"cortex-a53", "cortex-a72", "a64fx"}      # CPUs for which we have no faster kernels
FINGERPRINT = "5a70d41030efe8f0"                     # of test-spk-k, as on x86
FORCED = {"armv8.6_2": ["dotprod", "generic"]}       # SPIKINGBRAIN_ISA, downwards


def test_every_variant_is_tried() -> None:
    built = {p.name.removeprefix("libggml-cpu-").removesuffix(".so") for p in (BUILD / "site" / "spikingbrain_cpp" / "lib").glob("libggml-cpu-*.so")}
    assert built and built <= {library for library, _ in ALONE} | {"armv9.2_1", "armv9.2_2"}  # SME: qemu 7.2 has none
    assert {library for library, _ in ALONE} <= built


@pytest.fixture
def alone(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Machine, Path, str]:
    """(machine, folder with the tests and one CPU library, its name)"""
    library, cpu = request.param
    for path in CROSS.iterdir():
        if path.is_file() and (not path.name.startswith("libggml-cpu-") or path.name == f"libggml-cpu-{library}.so") and not path.name.startswith("llama-"):
            shutil.copy(path, tmp_path)
    return qemu(cpu), tmp_path, library


@pytest.mark.parametrize("alone", OPERATORS, ids=":".join, indirect=True)
def test_attention_operators_agree_with_plain_loops(alone: tuple[Machine, Path, str]) -> None:
    machine, folder, _ = alone
    for name in ("test-spk-ops", "test-spk-experts"):
        assert " 0 failed" in machine.run(folder / name).stdout


@pytest.mark.parametrize("alone", ALONE, ids=":".join, indirect=True)
def test_integer_products_are_exact(alone: tuple[Machine, Path, str]) -> None:
    machine, folder, library = alone
    said = machine.run(folder / "test-spk-matmul").stdout
    assert " 0 failed" in said
    assert ("spk-matmul generic:" in said) == (machine.prefix[2] in GENERIC), said
    for isa in FORCED.get(library, []):
        said = machine.run(folder / "test-spk-matmul", env={"SPIKINGBRAIN_ISA": isa}).stdout
        assert f"spk-matmul {isa}:" in said and " 0 failed" in said


@pytest.mark.parametrize("alone", OPERATORS, ids=":".join, indirect=True)  # a minute each
def test_products_with_k_quants_are_exact_and_the_same_on_each(alone: tuple[Machine, Path, str]) -> None:
    machine, folder, library = alone
    said = [machine.run(folder / "test-spk-k", env={"SPIKINGBRAIN_ISA": isa} if isa else {}).stdout for isa in ["", *FORCED.get(library, [])]]
    assert all(" 0 failed" in text and f"fingerprint {FINGERPRINT}" in text for text in said), said


@pytest.mark.parametrize("alone", MEMORY, ids=":".join, indirect=True)
@pytest.mark.parametrize("options, limit", [(("--outtype", "f32"), 0), (("--outtype", "q4_0", "--spike"), 0.1)], ids=["f32", "q4_0 spikes"])
def test_memory_keeps_its_promises(alone: tuple[Machine, Path, str], minute: Path, models: Models, options: tuple[str, ...], limit: float) -> None:
    machine, folder, _ = alone
    words = [models(minute, *options), *([limit] if limit else [])]
    assert " 0 failed" in machine.run(folder / "test-memory", *words).stdout
