"""sb-spikes: tables, JSON, pictures, one HTML page; what is wrong is told in a line. The wrappers of imatrix and quantize."""

from __future__ import annotations

import argparse
import base64
import json
import re
import struct
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from binding_models import convert, make_tiny

from spikingbrain_cpp import Llama, refusals
from spikingbrain_cpp.spikes import CountHistogram, ExpertChoices, SpikeInput, SpikeStats, plots
from spikingbrain_cpp.spikes.cli import main, pictures

TEXT = "hello the hello world. " * 30
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def spiking(tmp_path_factory, plain):
    return convert(plain, tmp_path_factory.mktemp("spiking") / "spiking.gguf", "--spike")


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path / "text.txt"


def run(*args: object) -> int:
    return main([*map(str, args), "-t", "1"])


def size_of(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", png[16:24])


def test_tables_and_json_hold_what_the_model_counted(spiking, text, tmp_path, capsys):
    assert run(spiking, "--text", text, "--n-tokens", 100, "--json", tmp_path / "out.json") == 0
    out = capsys.readouterr()
    d = json.loads((tmp_path / "out.json").read_text())
    with Llama(spiking, spike_stats=True, n_threads=1, n_threads_batch=1) as llm:
        tokens = llm.tokenize(TEXT)
        llm.eval(tokens[:100])
        assert d == json.loads(llm.spike_stats().to_json())
    assert d["n_tokens"] == 100 and f"the first 100 of {len(tokens):,} tokens" in out.err
    model = next(line for line in out.out.splitlines() if line.startswith("model"))
    assert f"{d['model']['silent_share']:.2%}" in model and f"{d['model']['sparsity']:.2%}" in model
    for word in ("attn_q", "ffn_down", "layer 1", "69.15%", "energy: ", "memory access"):
        assert word in out.out


def test_json_alone_on_standard_output(spiking, text, capsys):
    assert run(spiking, "--text", text, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["k"] == 3.0


def test_a_model_that_does_not_spike_needs_to_be_told(plain, text, capsys):
    assert run(plain, "--text", text) == 1
    assert re.fullmatch(r"sb-spikes: .*does not spike, expected one that does; .*--spike\)\n", capsys.readouterr().err)
    assert run(plain, "--text", text, "--spike", "--spike-k", 4, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["k"] == 4.0


def test_more_spikes_with_a_larger_k(spiking, text, capsys):
    figures = []
    for k in (2, 3, 4):
        assert run(spiking, "--text", text, "--spike-k", k, "--json", "-") == 0
        figures.append(json.loads(capsys.readouterr().out)["model"])
    assert [f["mean_spikes"] for f in figures] == sorted(f["mean_spikes"] for f in figures)
    assert [f["share_to_7"] for f in figures] == sorted((f["share_to_7"] for f in figures), reverse=True)


def test_pictures_and_page(spiking, text, tmp_path):
    pytest.importorskip("matplotlib")
    assert run(spiking, "--text", text, "--png", tmp_path / "png", "--html", tmp_path / "out.html", "--layer", 0) == 0
    pngs = [(tmp_path / "png" / name).read_bytes() for name in ("counts.png", "firing.png")]
    assert all(w > 900 and h > 400 for w, h in map(size_of, pngs))
    assert len(list((tmp_path / "png").iterdir())) == 2  # experts.png is of a model with experts
    page = (tmp_path / "out.html").read_text()
    assert [base64.b64decode(b) for b in re.findall(r"data:image/png;base64,([^\"]+)", page)] == pngs
    assert not re.search(r"(src|href)=\"(?!data:)", page) and "<script" not in page  # one file, nothing fetched
    for word in ("Table 11", "paper, k = 3.5", "this model, k = 3<", "Assumptions", "memory access", "attn_output"):
        assert word in page, word


@pytest.mark.parametrize("layer, shown", [(None, 1), (0, 0), (1, 1), (2, 2)])
def test_which_layer_is_drawn(monkeypatch, layer, shown):
    monkeypatch.setattr(plots, "count_distribution", lambda histogram, k, n_tokens: b"counts")
    monkeypatch.setattr(plots, "firing_maps", lambda kept, what, first: what.encode())
    kept = [np.full((5, 4), il + 7, np.int32) for il in range(3)]
    stats = SpikeStats(3.0, "paper", tuple(SpikeInput(il, "attn", 4, 5, 0, ("attn_q", "attn_k"), CountHistogram.of(kept[il]), kept[il]) for il in range(3)))
    (_, _, counts), (_, _, firing) = pictures(argparse.Namespace(layer=layer), stats)
    assert counts == b"counts" and re.fullmatch(f"layer {shown}, input of attn_q, attn_k: the first 5 tokens, neurons 0 to 3 of 4 .*: {shown + 7}\\)", firing.decode())


@pytest.mark.parametrize("args, code, words", [
    (["--text", "absent.txt"], 1, "absent.txt: got No such file or directory, expected"), (["--text", "TEXT", "--spike-k", "0"], 1, "spike_k: got 0.0, expected"),
    (["--text", "TEXT", "--spike-k", "nan"], 1, "spike_k"), (["--text", "TEXT", "--n-tokens", "0"], 2, "above 0"), ([], 2, "--text"),
    (["--text", "EMPTY"], 1, "got no tokens"), (["--text", "LATIN"], 1, "expected UTF-8"), (["--text", "TEXT", "--json", "no/such/out.json"], 1, "no/such: output folder: got no such folder"),
    (["--text", "TEXT", "--html", "no/such/out.html"], 1, "no/such: output folder: got no such folder"), (["--text", "TEXT", "--png", "TEXT"], 1, "File exists"), (["--text", "TEXT", "--layer", "2"], 1, "--layer: got 2, expected 0 to 1"),
])
def test_errors_in_a_line(spiking, text, tmp_path, capsys, args, code, words):
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    named = {"TEXT": text, "EMPTY": tmp_path / "empty.txt", "LATIN": tmp_path / "latin.txt"}
    try:
        got = run(spiking, *(named.get(a, a) for a in args))
    except SystemExit as stop:
        got = stop.code
    err = capsys.readouterr().err
    assert got == code and words in err
    assert code == 2 or (err.startswith("sb-spikes: ") and err.count("\n") == 1)


def test_files_that_are_no_model(text, tmp_path, capsys):
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    for path in ("absent.gguf", tmp_path / "bad.gguf"):
        assert run(path, "--text", text) == 1
        assert capsys.readouterr().err.startswith("sb-spikes: llama: ")


def test_without_matplotlib(monkeypatch, spiking, text, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run(spiking, "--text", text, "--png", tmp_path / "png") == 1
    assert "pip install 'spikingbrain_cpp[plot]'" in capsys.readouterr().err
    assert run(spiking, "--text", text) == 0


# --- pictures ------------------------------------------------------------------------------------------------------


def test_a_map_has_a_mark_for_every_spike():
    pytest.importorskip("matplotlib")
    from spikingbrain_cpp.spikes import encode
    figure = plots._figure(4, 4)
    ax = figure.add_subplot()
    spikes = encode([[3, -1], [0, 2]], "bitwise_bidirectional")  # [step, token, neuron]
    plots._map(ax, spikes)
    marks = {tuple(np.floor(p.vertices.min(0)).astype(int)): value for value, c in zip((1, -1), ax.collections) for p in c.get_paths()}
    assert marks == {(0, 0): 1, (1, 0): 1, (1, 1): -1, (2, 1): 1}


def test_a_map_is_of_neurons_without_the_rare_huge_count():
    counts = np.random.default_rng(0).integers(-9, 10, (4, 5 * plots.MAP_NEURONS))
    counts[1, 7] = 4000
    shown = plots.typical_neurons(counts)
    assert shown.stop - shown.start == plots.MAP_NEURONS and np.abs(counts[:, shown]).max() < 10
    assert plots.typical_neurons(counts[:, :20]) == slice(0, 20)


@pytest.mark.parametrize("counts", [[0], [0] * 1000, [2**40, 0, 1], [5000] * 3, list(range(-300, 300))])
def test_pictures_of_extreme_counts(counts):
    pytest.importorskip("matplotlib")
    assert size_of(plots.count_distribution(CountHistogram.of(counts), 3.0))
    small = np.clip(np.array(counts), -9000, 9000)[None, :]
    assert size_of(plots.firing_maps(small, "title"))


@pytest.mark.parametrize("n_layers, n_experts", [(1, 2), (21, 40)])
def test_pictures_of_experts(n_layers, n_experts):
    pytest.importorskip("matplotlib")
    n = np.random.default_rng(0).multinomial(500, np.full(n_experts, 1 / n_experts), n_layers)
    w, h = size_of(plots.expert_choices([ExpertChoices(il, row, 0 * row, 0 * row, np.zeros(0, np.int32)) for il, row in enumerate(n)]))
    assert w > 800 and 200 < h < 4000


def test_pictures_of_nothing():
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="got none"):
        plots.expert_choices([ExpertChoices(0, *[np.zeros(4, int)] * 3, np.zeros(0, np.int32))])
    with pytest.raises(ValueError, match="got none"):
        plots.count_distribution(CountHistogram(), 3.0)
    with pytest.raises(ValueError, match="expected \\[token, neuron\\]"):
        plots.firing_maps(np.zeros((0, 4), int))


# --- the tools that cannot -------------------------------------------------------------------------------------------


def test_imatrix_on_spikes_says_how(spiking, plain):
    off, on = "spikingbrain.spike.enable=bool:false", "spikingbrain.spike.enable=bool:true"
    reason = refusals.imatrix(["-m", str(spiking), "-f", "text"])
    assert reason.startswith("sb-imatrix: ") and f"--override-kv {off}" in reason
    assert refusals.imatrix(["--model", str(plain), "--override-kv", f"a.b=int:1,{on}"]) is not None
    assert "--repack" in refusals.imatrix(["--model", str(plain), "--repack"])
    for fine in (["-m", str(plain)], ["-m", str(spiking), "--override-kv", off], ["-m", str(spiking), "--override-kv", f"a.b=int:1,{off}"],
                 ["-m", "absent.gguf"], ["--help"], [], ["-m"]):
        assert refusals.imatrix(fine) is None, fine


@pytest.mark.skipif(not (BIN / "sb-imatrix").exists(), reason="the package is not installed: run make build")
def test_imatrix_refuses_and_runs_with_the_cure(spiking, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT * 10)
    command = [BIN / "sb-imatrix", "-m", spiking, "-f", tmp_path / "text.txt", "-o", tmp_path / "imatrix.gguf", "-c", "64", "--chunks", "2", "-t", "1"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1 and refused.stderr.startswith("sb-imatrix: ") and not (tmp_path / "imatrix.gguf").exists()
    cure = re.search(r"do add (--override-kv \S+)", refused.stderr)[1].split()
    assert subprocess.run([*command, *cure], capture_output=True, timeout=120).returncode == 0
    assert any("ffn_down" in t.name for t in gguf.GGUFReader(tmp_path / "imatrix.gguf").tensors)


@pytest.mark.skipif(not (BIN / "sb-quantize").exists(), reason="the package is not installed: run make build")
def test_quantize_keeps_the_spike_keys(spiking, tmp_path):
    out = tmp_path / "q8.gguf"
    subprocess.run([BIN / "sb-quantize", spiking, out, "Q8_0", "1"], check=True, capture_output=True, timeout=120)
    before, after = (gguf.GGUFReader(p) for p in (spiking, out))
    for key in ("enable", "k", "scope"):
        key = f"spikingbrain.spike.{key}"
        assert before.get_field(key).contents() == after.get_field(key).contents()
    with Llama(out, n_threads=1, n_threads_batch=1) as llm:
        assert llm.spiking and llm.spike_k == 3.0
        llm.eval([1, 2, 3])


@pytest.mark.skipif(not (BIN / "sb-quantize").exists(), reason="the package is not installed: run make build")
def test_quantize_of_int8_says_what_to_do(make_checkpoint, tmp_path):
    path = convert(make_checkpoint(scales=True), tmp_path / "int8.gguf")
    done = subprocess.run([BIN / "sb-quantize", path, tmp_path / "out.gguf", "Q4_0"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and re.fullmatch(r"sb-quantize: .*int8.gguf: got INT8 weights, expected .*; do sb-convert .*\n", done.stderr)
    assert not (tmp_path / "out.gguf").exists()
    plain = convert(make_checkpoint(name="plain"), tmp_path / "f32.gguf", "--outtype", "f32")
    assert refusals.quantize([str(plain), str(path), "Q4_0"]) is None  # written over, not read
    assert refusals.quantize(["--imatrix", str(plain), str(path), "out.gguf", "Q4_0"]) is not None
    assert refusals.quantize(["absent.gguf", "Q4_0"]) is None and refusals.quantize([str(Path(__file__)), "Q4_0"]) is None
