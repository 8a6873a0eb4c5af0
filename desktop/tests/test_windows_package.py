"""The Python package in Windows' CPython 3.13 under Wine: golden logits, greedy text, snapshots of both systems, a model in use."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import BUILD, PYTHON, ROOT, Models, Wine, shared

from sb_convert.numerics import kl_divergence
from spikingbrain_cpp import Llama

RAN = {"Python package": "Windows x86-64: Wine 8, Python 3.13"}
SMALL = ROOT / "examples" / "small"
SPIKING = ("--outtype", "q4_0", "--spike")
ONE = {"n_threads": 1, "n_threads_batch": 1, "verbose": False}
PROMPT = "The file is opened and read. To install a package, "

SCRIPT = r"""
import hashlib, itertools, json, sys
import numpy as np
from spikingbrain_cpp import Llama, system_info
given = json.loads(open(sys.argv[1], encoding="utf-8").read())
said = {"kernels": system_info()["spike_kernels"]}
with Llama(given["model"], n_threads=1, n_threads_batch=1, verbose=False, logits_all=bool(given.get("tokens"))) as llm:
    if given.get("tokens"):
        llm.eval(np.load(given["tokens"])["tokens"])
        np.save(given["logits"], llm.scores)
    if given.get("restore"):
        llm.restore(given["restore"])
        said["evaluated"] = llm.n_evaluated
        said["row"] = hashlib.sha256(llm.logits.tobytes()).hexdigest()
    if given.get("prompt"):
        said["text"] = llm(given["prompt"], max_tokens=24, temperature=0)["choices"][0]["text"]
    if given.get("snapshot"):
        llm.reset()
        llm.eval(llm.tokenize(given["prompt"]))
        llm.snapshot(given["snapshot"])
        said["row"] = hashlib.sha256(llm.logits.tobytes()).hexdigest()
print(json.dumps(said))
"""


class Package:
    def __init__(self, wine: Wine, folder: Path) -> None:
        self.wine, self.folder = wine, folder
        (folder / "script.py").write_text(SCRIPT)

    def __call__(self, isa: str = "", **given: Any) -> dict[str, Any]:
        """What SCRIPT says; paths as Linux names them."""
        (self.folder / "given.json").write_text(json.dumps({k: self.wine.path(v) if isinstance(v, Path) else v for k, v in given.items()}))
        done = self.wine.run(PYTHON, self.wine.path(self.folder / "script.py"), self.wine.path(self.folder / "given.json"), env={"SPIKINGBRAIN_ISA": isa} if isa else None)
        said: dict[str, Any] = json.loads(done.stdout)
        return said


@pytest.fixture
def package(wine: Wine, tmp_path: Path) -> Package:
    if not list((BUILD / "module" / "spikingbrain_cpp").glob("_core*.pyd")):
        pytest.fail("the package for Windows' Python: got none, expected what make test-windows builds; do make test-windows")
    return Package(wine, tmp_path)


@pytest.mark.parametrize("isa", ["zen4", "avx512", "avxvnni", "avx2", "generic"])
@pytest.mark.parametrize(("name", "options", "which", "most"), [
    ("golden-float", ("--outtype", "f32"), "logits", 1e-8), ("golden-moe-a", ("--outtype", "f32"), "logits", 1e-8),
    ("golden-moe-spike", ("--outtype", "int8"), "logits", 5e-3), ("golden-moe-spike", ("--outtype", "int8", "--spike-scope", "paper"), "logits_paper", 5e-3),
    ("golden-w8aspike", (), "logits", 5e-3)], ids=["float", "moe", "moe-spike", "moe-spike-paper", "w8aspike"])
def test_golden_logits(package: Package, models: Models, tmp_path: Path, name: str, options: tuple[str, ...], which: str, most: float, isa: str) -> None:
    """most: mean KL divergence, as on Linux."""
    said = package(isa, model=models(shared(name), *options), tokens=shared(name) / "golden.npz", logits=tmp_path / "logits.npy")
    golden, got = np.load(shared(name) / "golden.npz")[which], np.load(tmp_path / "logits.npy")
    assert said["kernels"] == isa and kl_divergence(golden, got).mean() < most
    assert most > 1e-6 or (got.argmax(1) == golden.argmax(1)).all()


def test_greedy_text_is_that_of_linux(package: Package, models: Models) -> None:
    model = models(SMALL, *SPIKING)
    with Llama(model, **ONE) as llm:
        assert package(model=model, prompt=PROMPT)["text"] == llm(PROMPT, max_tokens=24, temperature=0)["choices"][0]["text"] != ""


def test_a_snapshot_of_windows_is_restored_on_linux(package: Package, models: Models, tmp_path: Path) -> None:
    model = models(SMALL, *SPIKING)
    said = package(model=model, prompt=PROMPT, snapshot=tmp_path / "é.snap")
    with Llama(model, **ONE) as llm:
        llm.restore(tmp_path / "é.snap")
        assert llm.n_evaluated == 0 and hashlib.sha256(llm.logits.tobytes()).hexdigest() == said["row"]
        restored = llm.sample(temp=0)
        llm.reset()
        llm.eval(llm.tokenize(PROMPT))
        assert restored == llm.sample(temp=0)


def test_a_snapshot_of_linux_is_restored_on_windows(package: Package, models: Models, tmp_path: Path) -> None:
    model = models(SMALL, *SPIKING)
    with Llama(model, **ONE) as llm:
        llm.eval(llm.tokenize(PROMPT))
        llm.snapshot(tmp_path / "linux.snap")
        row = hashlib.sha256(llm.logits.tobytes()).hexdigest()
    said = package(model=model, restore=tmp_path / "linux.snap")
    assert said["evaluated"] == 0 and said["row"] == row
