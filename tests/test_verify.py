"""--verify finds a wrong tensor by name and a wrong graph by its logits, and passes what is right."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from conftest import ROOT, shared

from sb_convert import formats
from sb_convert import verify as verify_module
from sb_convert.cli import main
from sb_convert.convert import Options, convert
from sb_convert.spike import SpikeOptions
from sb_convert.verify import MEAN_KL, MEAN_KL_SPIKE, difference, reference_logits, reference_of, sample_tokens, verify_logits, verify_tensors

OUTTYPES = ["f32", "f16", "bf16", "q8_0", "q4_0"]


def written(folder: Path, outtype: str, **options):
    return convert(folder, Options(folder / "out.gguf", outtype, force=True, **options), say=lambda _: None)


@pytest.mark.parametrize("outtype", OUTTYPES)
def test_right_tensors_pass(make_checkpoint, outtype):
    said = []
    assert verify_tensors(written(make_checkpoint(), outtype), said.append)
    assert len(said) == 1 and said[0].endswith(": ok")


def test_split_tensors_pass(make_checkpoint):
    result = written(make_checkpoint(hidden_size=256, intermediate_size=1024, vocab_size=2048), "q8_0", split_max_bytes=10**6)
    assert len(result.files) > 1 and verify_tensors(result, lambda _: None)


@pytest.mark.parametrize("outtype", OUTTYPES)
@pytest.mark.parametrize("name", ["blk.1.ffn_down.weight", "blk.0.attn_q.bias", "token_embd.weight"])
def test_damaged_tensor_is_named(make_checkpoint, outtype, name):
    result = written(make_checkpoint(), outtype)
    tensor = next(t for t in gguf.GGUFReader(result.files[0]).tensors if t.name == name)
    with open(result.files[0], "r+b") as f:
        f.seek(int(tensor.data_offset) + tensor.n_bytes // 2)
        at = f.tell()
        swapped = bytes(b ^ 0x55 for b in f.read(16))
        f.seek(at)
        f.write(swapped)
    said = []
    with np.errstate(invalid="ignore"):
        assert not verify_tensors(result, said.append)
    assert said[0].startswith(f"verify: {name}: beyond the error bound") and f"worst {name}" in said[-1]


@pytest.mark.parametrize("outtype", OUTTYPES)
@pytest.mark.parametrize("change", [{}, {"gate_rank": 0, "tie_word_embeddings": True}])
def test_reference_runs_on_the_written_weights(make_checkpoint, outtype, change):
    torch = pytest.importorskip("torch")
    from sb_convert.reference import Model
    folder = make_checkpoint(**change)
    result = written(folder, outtype)
    tokens = sample_tokens(result.plan.config)
    assert len(tokens) > 2 * result.plan.config.sliding_window
    with torch.no_grad():
        own = Model.from_pretrained(folder)(torch.tensor([tokens]))[0][0].double().numpy()
    diff = difference(reference_logits(result, tokens), own)
    assert diff.mean_kl <= {"f32": 1e-9, "f16": 1e-5, "bf16": 1e-9, "q8_0": 1e-3, "q4_0": 0.1}[outtype]


def test_difference():
    a = np.zeros((3, 4))
    b = a.copy()
    b[1, 2] = 1.0
    d = difference(b, a)
    assert d.max_logit == 1.0 and d.position == 1 and d.mean_kl > 0.01
    b[2, 0] = np.nan
    assert difference(b, a).position == 2 and not difference(b, a).ok({"mean KL": 1e-1})


def test_wrong_logits_lead_to_the_layer(make_checkpoint, monkeypatch):
    """A graph that is wrong in layer 2 only: the bisection over cut models must end there."""
    pytest.importorskip("torch")
    folder = make_checkpoint(num_hidden_layers=5, attn_layers=[1, 2])
    result = written(folder, "f32")

    def fork(path, tokens):  # stands for the fork: the reference on the file's weights, wrong from layer 2 on
        n_layer = int(gguf.GGUFReader(path).get_field("spikingbrain.block_count").contents())
        cut = convert(folder, Options(folder / "again.gguf", "f32", force=True, n_layer=n_layer), say=lambda _: None)
        return reference_logits(cut, tokens) + (1.0 if n_layer > 2 else 0.0) * np.arange(288)
    monkeypatch.setattr(verify_module, "fork_logits", fork)
    said = []
    assert not verify_logits(folder, result, said.append)
    assert "WRONG; expected at most largest difference 0.002" in said[0] and "layer whose output differs is 2 (swa)" in said[1]


# of its random weights a count lies so near the edge between two integers that float32 sums in another order move it
ON_AN_EDGE = {"num_hidden_layers": 3, "attn_layers": [0, 2], "hidden_size": 384, "num_attention_heads": 6, "num_key_value_heads": 3, "intermediate_size": 640}
SUMS = verify_module.DISTURBANCE


@pytest.fixture
def on_an_edge(make_checkpoint):
    """-> its conversion, and fork_logits that stand for a fork that adds up in another order: beyond the limit in the first text."""
    pytest.importorskip("torch")
    result = written(make_checkpoint(scales=True, **ON_AN_EDGE), "int8", spike=SpikeOptions(scope="paper"))
    reference, tokens = reference_of(result, rounded=True), sample_tokens(result.plan.config)
    beyond = next(s for s in range(100, 200) if difference(reference(tokens, SUMS, s), reference(tokens)).mean_kl > MEAN_KL_SPIKE["int8"])
    return result, lambda _, tokens: reference(tokens, SUMS, beyond)


def test_a_count_on_an_edge_is_right(on_an_edge, monkeypatch):
    result, fork = on_an_edge
    said = []
    monkeypatch.setattr(verify_module, "fork_logits", fork)
    assert verify_logits(result.files[0].parent, result, said.append) and len(said) == 1
    assert " in the best of " in said[0] and said[0].endswith(": ok")


def test_where_every_text_has_one_the_reference_says_how_much_that_is(on_an_edge, monkeypatch):
    result, fork = on_an_edge
    moved = fork(result.files[0], sample_tokens(result.plan.config))
    monkeypatch.setattr(verify_module, "sample_tokens", lambda config, seed=0: sample_tokens(config))  # the first text again and again
    monkeypatch.setattr(verify_module, "fork_logits", lambda *_: moved)
    for disturbance, right in ((1e-12, False), (1e-4, True)):
        said = []
        monkeypatch.setattr(verify_module, "DISTURBANCE", disturbance)
        assert verify_logits(result.files[0].parent, result, said.append) == right
        assert ("the reference, disturbed by" in said[0]) == right


@pytest.mark.parametrize("wrong", [np.nan, 3.0])
def test_one_text_wrong_by_more_than_an_edge_is_wrong(on_an_edge, monkeypatch, wrong):
    """Others are right: what only some tokens meet."""
    result, fork = on_an_edge
    first = sample_tokens(result.plan.config)

    def wrong_in_the_first(path, tokens):
        logits = fork(path, tokens)
        logits[40:, ::7] += wrong if tokens == first else 0
        return logits
    monkeypatch.setattr(verify_module, "fork_logits", wrong_in_the_first)
    monkeypatch.setattr(verify_module, "first_wrong_layer", lambda *_: 0)
    said = []
    assert not verify_logits(result.files[0].parent, result, said.append) and "WRONG; expected at most mean KL 0.001" in said[0]


@pytest.mark.parametrize("field", ["sliding_window", "norm_eps", "rope_theta"])
def test_a_wrong_graph_is_wrong_beside_counts_on_edges(on_an_edge, monkeypatch, field):
    result = on_an_edge[0]
    config, said = result.plan.config, []
    value = getattr(config, field)
    other = dataclasses.replace(config, **{field: value - 1 if field == "sliding_window" else value * 10})
    wrong = reference_of(dataclasses.replace(result, plan=dataclasses.replace(result.plan, config=other)), rounded=True)
    monkeypatch.setattr(verify_module, "fork_logits", lambda _, tokens: wrong(tokens))
    monkeypatch.setattr(verify_module, "first_wrong_layer", lambda *_: 0)
    assert not verify_logits(result.files[0].parent, result, said.append)
    assert "WRONG; expected at most mean KL 0.001" in said[0]


def test_logits_that_are_no_numbers_on_both_sides_are_wrong():
    nothing = np.full((2, 4), np.nan)
    assert not difference(nothing, nothing).ok({"mean KL": np.inf})


def fork_or_skip():
    pytest.importorskip("torch")
    try:
        import spikingbrain_cpp  # noqa: F401
    except ImportError:
        pytest.skip("spikingbrain_cpp is not built")


@pytest.mark.parametrize("outtype", OUTTYPES)
def test_fork_equals_reference(tmp_path, capsys, outtype):
    fork_or_skip()
    assert main([str(ROOT / "examples" / "tiny"), "-o", str(tmp_path / "x.gguf"), "--outtype", outtype, "--verify"]) == 0
    assert "logits against the reference: " in capsys.readouterr().out


@pytest.mark.parametrize("outtype", OUTTYPES)
def test_fork_equals_reference_on_golden(tmp_path, capsys, outtype):
    fork_or_skip()
    assert main([str(shared("golden-float")), "-o", str(tmp_path / "x.gguf"), "--outtype", outtype, "--verify"]) == 0
    print(capsys.readouterr().out)


@pytest.mark.parametrize("change", [{"gate_rank": 0}, {"tie_word_embeddings": True}, {"num_key_value_heads": 1}, {"attn_layers": [0, 1]}, {"attn_layers": []}])
def test_fork_equals_reference_on_other_shapes(make_checkpoint, change):
    fork_or_skip()
    folder = make_checkpoint(hidden_size=128, **change)
    assert main([str(folder), "-o", str(folder / "x.gguf"), "--outtype", "f32", "--verify"]) == 0


def verified(folder: Path, out: Path, *options: str) -> None:
    """In a process of its own: a fork that aborts fails one test, not the run."""
    fork_or_skip()
    run = subprocess.run([sys.executable, "-m", "sb_convert", str(folder), "-o", str(out), "--verify", *options], capture_output=True, text=True,
                         env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "converter"), *sys.path])})
    assert run.returncode == 0 and "logits against the reference: " in run.stdout, (run.stdout + run.stderr)[-2000:]
    print(run.stdout)


@pytest.mark.parametrize("options", [[], ["--spike-scope", "paper"], ["--spike-down-type", "f32"], ["--no-spike"], ["--spike-k", "2"],
                                     *(["--outtype", t] for t in OUTTYPES)], ids=" ".join)
def test_spiking_fork_equals_reference_on_golden(tmp_path, options):
    verified(shared("golden-w8aspike"), tmp_path / "x.gguf", *options)


@pytest.mark.parametrize("options", [["--spike-scope", "paper"], ["--spike-down-type", "f32"], ["--no-spike"]], ids=" ".join)
@pytest.mark.parametrize("change", [ON_AN_EDGE, {"tie_word_embeddings": True, "num_key_value_heads": 1}])
def test_spiking_fork_equals_reference_on_other_shapes(make_checkpoint, tmp_path, change, options):
    verified(make_checkpoint(scales=True, **change), tmp_path / "x.gguf", *options)


@pytest.mark.parametrize("outtype", ["f32", "f16", "q8_0", "q4_0", "int8"])
@pytest.mark.parametrize("scope", ["paper", "released"])
def test_a_plain_checkpoint_made_spiking_equals_reference(make_checkpoint, tmp_path, outtype, scope):
    verified(make_checkpoint(hidden_size=128, intermediate_size=256), tmp_path / "x.gguf", "--outtype", outtype, "--spike", "--spike-scope", scope)


def test_a_file_the_fork_does_not_load_is_an_error(make_checkpoint, tmp_path, monkeypatch, capsys):
    fork_or_skip()
    import spikingbrain_cpp

    def refuse(**_):
        raise spikingbrain_cpp.LlamaError("llama: no; do")
    monkeypatch.setattr(spikingbrain_cpp, "Llama", refuse)
    assert main([str(make_checkpoint()), "-o", str(tmp_path / "x.gguf"), "--verify"]) == 1
    assert "--verify: x.gguf: got llama: no, expected a file that can be loaded; report it" in capsys.readouterr().err


def test_every_type_has_a_tolerance():
    assert set(MEAN_KL) == set(MEAN_KL_SPIKE) == set(formats.OUTTYPES)
