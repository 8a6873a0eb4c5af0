"""The C++ tests, built beside the package by `make build`."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import pytest

from binding_models import write_adapter
from conftest import ROOT

KINDS = {
    "low-rank gate": {},
    "full gate, tied": {"gate_rank": 0, "tie_word_embeddings": True},
    "one key/value head, window 20": {"num_key_value_heads": 1, "sliding_window": 20, "num_hidden_layers": 3},
}


# a value on a rounding boundary may fall to the other side in another batch: compared within 10% of the largest logit
SPIKING = {
    "W8ASpike, int8": (["--outtype", "int8"], {"scales": True, "hidden_size": 128, "intermediate_size": 128}),
    "W8ASpike, int8, spikes off": (["--outtype", "int8", "--no-spike"], {"scales": True, "hidden_size": 128, "intermediate_size": 128}),
    "scope paper, q4_0": (["--outtype", "q4_0", "--spike"], {}),
    "scope paper, f16": (["--outtype", "f16", "--spike"], {}),
}


def built(name: str) -> Path:
    found = sorted(ROOT.glob(f"build/*/bin/{name}"))
    if not found:
        pytest.fail(f"tests: {name}: got none below build/, expected the one that `make build` leaves there; run make build")
    return found[-1]


def run(*command: Any, env: dict[str, str] | None = None) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=600, env={**os.environ, **(env or {})})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_attention_operators_agree_with_plain_loops() -> None:
    assert " 0 failed" in run(built("test-spk-ops"))


@pytest.mark.parametrize("isa", ["zen4", "avx512", "avxvnni", "avx2", "i8mm", "dotprod", "generic"])
def test_integer_products_are_exact(isa: str) -> None:
    found = run(built("test-spk-matmul"), env={"SPIKINGBRAIN_ISA": isa})
    if f"spk-matmul {isa}:" not in found:
        pytest.skip(f"this CPU has no {isa}")
    assert " 0 failed" in found


def test_products_with_k_quants_agree_with_plain_loops_and_between_instruction_sets() -> None:
    isas = ("i8mm", "dotprod", "generic") if platform.machine() in ("aarch64", "arm64") else ("zen4", "avx512", "avxvnni", "avx2", "generic")
    said = {isa: run(built("test-spk-k"), env={"SPIKINGBRAIN_ISA": isa}) for isa in isas}
    assert all(" 0 failed" in text for text in said.values())
    assert len({line for text in said.values() for line in text.splitlines() if line.startswith("fingerprint")}) == 1


@pytest.mark.parametrize("isa", ["zen4", "avx512", "avxvnni", "avx2", "generic"])
def test_experts_and_sinks_agree_with_plain_loops(isa: str) -> None:
    assert " 0 failed" in run(built("test-spk-experts"), env={"SPIKINGBRAIN_ISA": isa})


def test_threads_share_an_operator() -> None:
    assert " 0 failed" in run(built("test-spk-runs"))


def converted(checkpoint: Path, model: Path, *options: str) -> Path:
    from sb_convert.cli import main

    assert main([str(checkpoint), "-o", str(model), *options]) in (0, None)
    return model


@pytest.mark.parametrize("part", ["sequences", "storage"])
def test_what_a_sequence_remembers_keeps_its_contract(part: str) -> None:
    assert " 0 failed" in run(built(f"test-{part}"))


@pytest.mark.parametrize("kind", KINDS)
def test_memory_keeps_its_promises(kind: str, tmp_path: Path, make_checkpoint: Any) -> None:
    model = converted(make_checkpoint(**KINDS[kind]), tmp_path / "model.gguf", "--outtype", "f32")
    assert " 0 failed" in run(built("test-memory"), model)


@pytest.mark.parametrize("kind", SPIKING)
def test_memory_keeps_its_promises_spiking(kind: str, tmp_path: Path, make_checkpoint: Any) -> None:
    options, config = SPIKING[kind]
    model = converted(make_checkpoint(**config), tmp_path / "model.gguf", *options)
    assert " 0 failed" in run(built("test-memory"), model, 0.1)


# operators in a layer of linear attention, in one of window attention, and after them; RMSNorm and its weight count as one
SPIKES = ["--outtype", "q4_0", "--spike"]
GRAPHS = {
    "spikes": (SPIKES, 0, [], (15, 16, 2)),
    "spikes, low-rank gate": (SPIKES, 16, [], (17, 16, 2)),
    "spikes, embeddings": (SPIKES, 0, ["--embeddings"], (15, 16, 3)),
    "spikes, an adapter": (SPIKES, 0, ["--lora"], (44, 42, 2)),
    "spikes, products of floats": (["--outtype", "f16", "--spike"], 0, [], (27, 26, 2)),
    "ordinary": (["--outtype", "q4_0"], 0, [], (15, 16, 2)),
    "ordinary, products of floats": (["--outtype", "q4_0"], 0, ["--no-repack"], (22, 20, 2)),
}


@pytest.mark.parametrize("kind", GRAPHS)
def test_norms_and_gates_are_no_operators_of_their_own(kind: str, tmp_path: Path, make_checkpoint: Any) -> None:
    from spikingbrain_cpp import system_info

    options, rank, flags, expected = GRAPHS[kind]
    if kind == "ordinary" and system_info()["spike_kernels"] == "generic":
        pytest.skip("llama.cpp's products compute it here")
    checkpoint = make_checkpoint(gate_rank=rank)
    model = converted(checkpoint, tmp_path / "model.gguf", *options)
    if flags == ["--lora"]:
        write_adapter(tmp_path / "lora.gguf", converted(checkpoint, tmp_path / "floats.gguf", "--outtype", "f32"))
        flags = ["--lora", str(tmp_path / "lora.gguf")]
    for n_tokens in (1, 64):
        lines = run(built("test-graph"), model, n_tokens, *flags).splitlines()
        found = {of: [op for op in ops.split() if op != "GET_ROWS"] for of, ops in (line.split(": ") for line in lines)}
        assert tuple(len(found[of]) for of in ("0", "1", "output")) == expected, found
