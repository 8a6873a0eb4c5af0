"""--spike-calibrate: scales that make the output of the recorded spikes better, written as any others."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from sb_convert import calibrate  # noqa: E402
from sb_convert.cli import main  # noqa: E402
from sb_convert.convert import Options, convert  # noqa: E402
from sb_convert.int8 import own_scales  # noqa: E402
from sb_convert.spike import SpikeOptions  # noqa: E402
from sb_convert.verify import Stored, reference_logits, verify_tensors  # noqa: E402


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def no_tokenizer(monkeypatch):
    """Byte values as tokens: the tokenizer is the built binding's."""
    monkeypatch.setattr(calibrate, "tokenize", lambda folder, text: list(text))
    monkeypatch.setattr(calibrate, "check_requirements", lambda text: None)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(np.random.default_rng(0).integers(32, 127, 16 * 150, np.uint8).tobytes())
    return path


def test_a_large_weight_that_is_never_used_is_clipped():
    w = torch.randn(3, 256, generator=torch.Generator().manual_seed(0))
    w[1, 200] = 8.0
    x = torch.randn(100, 256, generator=torch.Generator().manual_seed(1)).round()
    x[:, 200] = 0
    groups = x.unflatten(-1, (2, 128)).transpose(0, 1)
    best = calibrate.best_scales(w, groups.transpose(1, 2) @ groups)
    ratio = best / torch.from_numpy(own_scales(w.view(3, 2, 128).numpy()))
    assert ratio[1, 1] == pytest.approx(min(calibrate.FACTORS)) and (ratio <= 1).all()
    plain = torch.from_numpy(own_scales(w.view(3, 2, 128).numpy()))
    error = [float(((w - calibrate.coded(w, s)) @ x.T).square().sum()) for s in (plain, best)]
    assert error[1] < error[0]


@pytest.mark.parametrize("scope, gate_rank", [("paper", 16), ("released", 0)])
def test_the_written_file_is_the_calibrated_model(make_checkpoint, tmp_path, text, scope, gate_rank):
    folder = make_checkpoint(hidden_size=128, intermediate_size=256, gate_rank=gate_rank)
    said = []
    result = convert(folder, Options(tmp_path / "x.gguf", "int8", spike=SpikeOptions(True, scope=scope, calibrate=text)), say=said.append)
    assert said[0] == "calibrate: 128 pieces of 16 tokens; perplexity on 16 others:" and len(said) == 4
    plain = convert(folder, Options(tmp_path / "y.gguf", "int8", spike=SpikeOptions(True, scope=scope)), say=said.append)
    found, largest = (Stored.open(r.files).by_name["blk.1.attn_q.scales"].data for r in (result, plain))
    assert (found <= largest).all() and (found < largest).any()
    assert not [n for n in Stored.open(result.files).by_name if "outlier" in n]
    assert verify_tensors(result, said.append)
    sample = list(range(40, 80))  # the perplexity told is that of the model the file holds
    _, held_out = calibrate.pieces(list(text.read_bytes()), text)
    losses = [-torch.from_numpy(reference_logits(result, p[:-1].tolist())).log_softmax(-1).gather(1, p[1:, None]).mean() for p in held_out]
    told = float(said[3].split()[1])
    assert told == pytest.approx(float(torch.stack(losses).mean().exp()), rel=0.02) and np.isfinite(reference_logits(result, sample)).all()


def test_short_texts_and_other_models_are_refused(make_checkpoint, tmp_path, text, capsys):
    folder = make_checkpoint(hidden_size=128, intermediate_size=256)
    options = ["--spike-calibrate", str(text), "-o", str(tmp_path / "x.gguf")]
    assert main([str(folder), *options, "--outtype", "int8"]) == 1
    assert "--spike-calibrate: got a model that does not spike" in capsys.readouterr().err
    assert main([str(folder), *options, "--spike", "--outtype", "q4_0"]) == 1
    assert "--spike-calibrate: got --outtype q4_0, expected --outtype int8 --spike on a checkpoint without weight scales; " in capsys.readouterr().err
    assert main([str(make_checkpoint(scales=True, name="coded")), *options]) == 1
    assert "--spike-calibrate: got weight scales, expected " in capsys.readouterr().err
    text.write_bytes(b"too short")
    assert main([str(folder), *options, "--spike", "--outtype", "int8"]) == 1
    assert "text: got 9 tokens, expected at least 2304; give a longer text" in capsys.readouterr().err
    assert not (tmp_path / "x.gguf").exists()


def test_what_it_needs_is_told_first(make_checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setitem(__import__("sys").modules, "spikingbrain_cpp", None)
    assert main([str(make_checkpoint(hidden_size=128)), "--outtype", "int8", "--spike", "--spike-calibrate", str(tmp_path / "none.txt")]) == 1
    assert "--spike-calibrate: spikingbrain_cpp: got " in capsys.readouterr().err


def test_pieces_are_held_out_evenly():
    sample, held_out = calibrate.pieces(list(range(16 * 144 + 7)), "text")
    assert sample.shape == (128, 16) and held_out.shape == (16, 16)
    assert held_out[:, 0].tolist() == [16 * 9 * i for i in range(16)] and sample[:9, 0].tolist() == [16, 32, 48, 64, 80, 96, 112, 128, 160]
    longest, _ = calibrate.pieces(list(range(144 * calibrate.PIECE + 144)), "text")
    assert longest.shape == (128, calibrate.PIECE)


def test_inputs_are_recorded_by_hand_and_no_hook_stays():
    from sb_convert.reference import spiked
    layer = torch.nn.Module()
    layer.proj, layer.other = torch.nn.Linear(256, 2), torch.nn.Linear(256, 2)
    layer.forward = lambda x: (layer.proj(x), layer.other(2 * x))
    x = [torch.randn(2, 3, 256, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    with torch.no_grad():
        held = calibrate.recorded(layer, 1, ["model.layers.1.proj.weight", "model.layers.10.other.weight", "model.layers.0.other.weight"], x, 3.0, layer)
    s = spiked(torch.cat([h.flatten(0, 1) for h in x]), 3.0)
    assert list(held) == ["model.layers.1.proj.weight"] and not layer.proj._forward_pre_hooks
    for group in range(2):
        part = s[:, 128 * group:128 * (group + 1)]
        assert torch.allclose(held["model.layers.1.proj.weight"][group], part.T @ part, rtol=1e-4, atol=1e-4)
