"""Spiking GGUFs in the fork: the buffers their weights lie in, overrides at load, bad keys, every tool."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import ROOT, shared
from test_tools import BIN, Server, perplexity, tool

from sb_convert.cli import main
from sb_convert.numerics import kl_divergence

pytestmark = pytest.mark.skipif(not (BIN / "sb-server").exists(), reason="the package is not installed: run make build")

KEYS = {name: f"spikingbrain.spike.{name}" for name in ("enable", "k", "scope")}
TOKENS = [3, 250, 17, 99, 5, 111, 42, 7, 200, 31] * 6


def converted(tmp: Path, *options: str, checkpoint: Path = ROOT / "examples" / "tiny") -> Path:
    out = tmp / ("-".join(o.strip("-") for o in options) + ".gguf")
    assert main([str(checkpoint), "-o", str(out), *options]) in (0, None)
    return out


@pytest.fixture(scope="module")
def q8(tmp_path_factory: Any) -> Path:
    return converted(tmp_path_factory.mktemp("spiking"), "--outtype", "q8_0", "--spike")


def logits(model: Path, **options: Any) -> Any:
    from spikingbrain_cpp import Llama

    with Llama(model_path=str(model), logits_all=True, n_threads=1, n_threads_batch=1, **options) as llm:
        llm.eval(TOKENS)
        return llm.scores.copy()


def divergence(a: Any, b: Any) -> float:
    """Mean KL divergence of the rows' distributions."""
    return float(kl_divergence(a, b).mean())


# --- golden ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("piece", [96, 7, 1])
@pytest.mark.parametrize("down, limit", [("f16", 2e-4), ("f32", 1e-5)])
def test_golden_w8aspike(tmp_path: Path, piece: int, down: str, limit: float) -> None:
    from spikingbrain_cpp import Llama

    golden = np.load(shared("golden-w8aspike") / "golden.npz")
    model = converted(tmp_path, "--spike-down-type", down, checkpoint=shared("golden-w8aspike"))
    with Llama(model_path=str(model), logits_all=True, n_threads=1, n_threads_batch=1) as llm:
        tokens = [int(t) for t in golden["tokens"]]
        for i in range(0, len(tokens), piece):
            llm.eval(tokens[i:i + piece])
        assert divergence(golden["logits"], llm.scores) < limit


# --- where the weights lie ------------------------------------------------------------------------------------

@pytest.mark.parametrize("options", [("--outtype", "int8", "--spike"), ("--outtype", "q8_0", "--spike"), ("--outtype", "q4_0", "--spike")], ids=lambda o: o[1])
def test_weights_are_interleaved_unless_told_otherwise(tmp_path: Path, options: tuple[str, ...]) -> None:
    model = converted(tmp_path, *options)
    command = ("-m", model, "-p", "Once", "-n", 16, "--temp", 0, "-no-cnv", "-t", 1, "-v")
    packed, plain = tool("sb-completion", *command), tool("sb-completion", *command, "--no-repack")
    assert re.search(r"CPU_SPK model buffer size =", packed.stderr + packed.stdout)
    assert not re.search(r"CPU_(SPK|REPACK) model buffer size =", plain.stderr + plain.stdout)
    assert packed.stdout.strip() == plain.stdout.strip()


def test_other_models_keep_upstreams_buffers(tmp_path: Path) -> None:
    floats, q8 = converted(tmp_path, "--outtype", "f16"), converted(tmp_path, "--outtype", "q8_0")
    for model, options, env in ((floats, (), {}), (q8, ("--no-repack",), {}), (q8, (), {"SPIKINGBRAIN_ISA": "generic"})):
        out = tool("sb-completion", "-m", model, "-p", "Once", "-n", 1, "-no-cnv", "-v", *options, env={**os.environ, **env})
        assert "CPU_SPK model buffer" not in out.stderr + out.stdout, (model.name, options, env)


# llama.cpp's kernels compute the other side, in a process of its own: the choice is made once
def logits_by_isa(model: Path, tmp_path: Path) -> dict[str, np.ndarray]:
    """With kernels of ours (""), whose weights lie in CPU_SPK, and with llama.cpp's ("generic")."""
    from spikingbrain_cpp import system_info

    found = {}
    for isa in ("", "generic"):
        code = (f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r}); import numpy as np; from pathlib import Path; from test_spiking_models import logits; "
                f"np.save({str(tmp_path / 'logits.npy')!r}, logits(Path({str(model)!r}), verbose=True))")
        env = {**os.environ, **({"SPIKINGBRAIN_ISA": isa} if isa else {})}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr
        assert ("CPU_SPK model buffer" in done.stderr) == (isa == "" and system_info()["spike_kernels"] != "generic")
        found[isa] = np.load(tmp_path / "logits.npy")
    return found


@pytest.mark.parametrize("type_", ["q8_0", "q4_0"])
def test_ordinary_activations_are_multiplied_in_integers(tmp_path: Path, type_: str) -> None:
    found = logits_by_isa(converted(tmp_path, "--outtype", type_), tmp_path)
    assert divergence(found["generic"], found[""]) < 5e-4  # each is 1e-4 from float activations


@pytest.mark.parametrize("spikes", [(), ("--spike",)], ids=["ordinary", "spikes"])
@pytest.mark.parametrize("type_", ["Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "IQ4_XS"])
def test_superblocks_are_multiplied_in_integers(tmp_path: Path, type_: str, spikes: tuple[str, ...]) -> None:
    from spikingbrain_cpp import system_info

    if system_info()["spike_kernels"] == "generic":
        pytest.skip("no kernels of ours on this CPU: superblocks take llama.cpp's")
    tool("sb-quantize", converted(tmp_path, "--outtype", "f16", *spikes), tmp_path / "k.gguf", type_)
    tool("sb-quantize", "--allow-requantize", tmp_path / "k.gguf", tmp_path / "floats.gguf", "F32")  # the same weights
    found, exact = logits_by_isa(tmp_path / "k.gguf", tmp_path), logits(tmp_path / "floats.gguf")
    ours, theirs = divergence(exact, found[""]), divergence(exact, found["generic"])
    assert ours < theirs / 2 if spikes else ours < 5e-4, (ours, theirs)  # counts are multiplied exactly, llama.cpp rounds them to 8 bits


@pytest.mark.parametrize("spikes", [(), ("--spike",)], ids=["ordinary", "spikes"])
@pytest.mark.parametrize("type_", ["Q4_1", "Q5_1", "IQ4_NL"])
def test_blocks_with_minima_or_a_table_are_multiplied_in_integers(tmp_path: Path, type_: str, spikes: tuple[str, ...]) -> None:
    tool("sb-quantize", converted(tmp_path, "--outtype", "f16", *spikes), tmp_path / "blocks.gguf", type_)
    tool("sb-quantize", "--allow-requantize", tmp_path / "blocks.gguf", tmp_path / "floats.gguf", "F32")  # the same weights
    assert divergence(logits(tmp_path / "floats.gguf"), logits(tmp_path / "blocks.gguf")) < (1e-4 if spikes else 5e-4)  # llama.cpp's product of spikes: 8e-3


# --- overrides and bad keys -----------------------------------------------------------------------------------

def test_spikes_are_switched_and_k_is_set_at_load(tmp_path: Path, q8: Path) -> None:
    plain = converted(tmp_path, "--outtype", "q8_0")
    spiking, off = logits(q8), logits(q8, kv_overrides={KEYS["enable"]: False})
    assert np.array_equal(off, logits(plain))
    assert np.array_equal(spiking, logits(plain, kv_overrides={KEYS["enable"]: True}))
    errors = [divergence(off, logits(q8, kv_overrides={KEYS["k"]: k})) for k in (1.0, 3.0, 30.0)]
    assert errors[0] > errors[1] > errors[2] > 0  # more spikes, nearer to ordinary activations


def test_scope_cannot_be_overridden(q8: Path) -> None:
    with pytest.raises(RuntimeError, match="spike.scope: got an override"):
        logits(q8, kv_overrides={KEYS["scope"]: "released"})


@pytest.mark.parametrize("k", [0.0, -1.0, float("nan"), float("inf")])
def test_k_must_be_positive(q8: Path, k: float) -> None:
    with pytest.raises(RuntimeError, match="spike.k: got .*, expected a positive number"):
        logits(q8, kv_overrides={KEYS["k"]: k})


def edited(model: Path, out: Path, find: bytes, replace: bytes) -> Path:
    data = model.read_bytes()
    assert data.count(find) == 1 and len(find) == len(replace)
    out.write_bytes(data.replace(find, replace))
    return out


def test_unknown_scope_is_refused(tmp_path: Path, q8: Path) -> None:
    bad = edited(q8, tmp_path / "bad.gguf", b"\x05\0\0\0\0\0\0\0paper", b"\x05\0\0\0\0\0\0\0papes")
    with pytest.raises(RuntimeError, match="spike.scope: got papes, expected paper or released"):
        logits(bad)


def test_int8_without_scales_is_refused(tmp_path: Path) -> None:
    model = converted(tmp_path, "--outtype", "int8", "--spike")
    bad = edited(model, tmp_path / "bad.gguf", b"blk.0.attn_q.scales", b"blk.0.attn_q.scalez")
    with pytest.raises(RuntimeError, match="attn_q.scales"):
        logits(bad)


def test_outliers_out_of_order_are_refused(tmp_path: Path, make_checkpoint: Any) -> None:
    import gguf

    model = converted(tmp_path, "--outtype", "int8", checkpoint=make_checkpoint(scales=True, hidden_size=128, intermediate_size=128))
    index = next(t for t in gguf.GGUFReader(model, "r+").tensors if t.name == "blk.1.ffn_up.outlier_index").data
    assert len(index) > 10
    index[[3, 7]] = index[[7, 3]]
    index.base.flush() if hasattr(index.base, "flush") else None
    with pytest.raises(RuntimeError, match="blk.1.ffn_up.weight: outlier 4: got index"):
        logits(model)


def write_adapter(path: Path, b: Any) -> None:
    """A LoRA adapter of rank 4 for the first layer's value projection; its second matrix is b [n_out, 4]."""
    import gguf

    w = gguf.GGUFWriter(path, "spikingbrain")
    w.add_type("adapter")
    w.add_string("adapter.type", "lora")
    w.add_float32("adapter.lora.alpha", 4.0)
    w.add_tensor("blk.0.attn_v.weight.lora_a", np.random.default_rng(1).standard_normal((4, 256)).astype(np.float32))
    w.add_tensor("blk.0.attn_v.weight.lora_b", b.astype(np.float32))
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()


@pytest.mark.parametrize("outtype", ["int8", "q8_0", "f16"])
def test_lora_adds_to_integer_products(tmp_path: Path, outtype: str) -> None:
    model = converted(tmp_path, "--outtype", outtype, "--spike")
    corpus = tmp_path / "corpus.txt"
    corpus.write_text((ROOT / "examples" / "make_example.py").read_text()[:6000])
    write_adapter(tmp_path / "none.gguf", np.zeros((128, 4)))
    write_adapter(tmp_path / "some.gguf", np.full((128, 4), 0.5))
    base = perplexity(model, corpus)
    assert perplexity(model, corpus, 128, "--lora", tmp_path / "none.gguf") == base
    assert perplexity(model, corpus, 128, "--lora", tmp_path / "some.gguf") != base


def test_a_float_window_is_refused(q8: Path) -> None:
    with pytest.raises(RuntimeError, match="type_k: got f32, expected the default"):
        logits(q8, type_k=0)


# --- the tools ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("outtype", ["int8", "q8_0", "q4_0", "f16"])
def test_perplexity_is_near_that_of_ordinary_activations(tmp_path: Path, outtype: str) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text((ROOT / "examples" / "make_example.py").read_text())
    model = converted(tmp_path, "--outtype", outtype, "--spike")
    spiking = perplexity(model, corpus)
    ordinary = perplexity(model, corpus, 128, "--override-kv", f"{KEYS['enable']}=bool:false")
    assert spiking != ordinary and abs(spiking / ordinary - 1) < 0.05


def test_server_answers_several_slots_at_once(tmp_path: Path, q8: Path) -> None:
    prompts = ["Once", "def f(", "The window", "0 1 2 3"]
    with Server(q8, tmp_path / "server.log", "-t", 1) as server, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda p: server.complete(p, 12)["tokens"], prompts))
        again = [server.complete(p, 12)["tokens"] for p in prompts]
    assert all(len(a) == 12 for a in answers + again)


@pytest.mark.parametrize("name, options", [("sb-bench", ("-p", 16, "-n", 4, "-r", 1, "-t", 1)),
                                           ("sb-batched-bench", ("-npp", 16, "-ntg", 4, "-npl", "1,3", "-t", 1, "-c", 512))])
def test_benchmarks_run(q8: Path, name: str, options: tuple[object, ...]) -> None:
    assert re.search(r"\d", tool(name, "-m", q8, *options).stdout)


def test_quantised_file_keeps_its_spikes(tmp_path: Path) -> None:
    source = converted(tmp_path, "--outtype", "f16", "--spike", "--spike-k", "2.5")
    tool("sb-quantize", source, tmp_path / "q4km.gguf", "Q4_K_M")
    assert np.isfinite(logits(tmp_path / "q4km.gguf")).all()
    from spikingbrain_cpp import Llama

    with Llama(model_path=str(tmp_path / "q4km.gguf"), vocab_only=True) as llm:
        assert llm.metadata[KEYS["enable"]] == "true" and float(llm.metadata[KEYS["k"]]) == 2.5 and llm.metadata[KEYS["scope"]] == "paper"
