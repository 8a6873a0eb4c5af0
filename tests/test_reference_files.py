"""The reference model's initial weights, defaults and files, to the number."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from sb_convert.config import Config  # noqa: E402
from sb_convert.reference import Model, RMSNorm, Spike, read_tensors, rope, rounded_int8, spike, spiked  # noqa: E402
from test_reference import SHAPE  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def test_initial_weights():
    model = Model(Config(**{**SHAPE, "hidden_size": 128, "intermediate_size": 256, "initializer_range": 0.3})).init_weights(3)
    for name, p in model.named_parameters():
        if p.dim() == 2:
            assert abs(p.std().item() - 0.3) < 0.03 and abs(p.mean().item()) < 0.03, name
        else:
            assert (p == (0.0 if name.endswith("bias") else 1.0)).all(), name
    again, other, drawn = (Model(model.config).init_weights(seed) for seed in (3, 4, None))
    weight = model.lm_head.weight
    assert torch.equal(weight, again.lm_head.weight) and not torch.equal(weight, other.lm_head.weight) and not torch.equal(weight, drawn.lm_head.weight)
    assert not torch.equal(drawn.lm_head.weight, Model(model.config).init_weights().lm_head.weight)


def test_defaults():
    assert Spike() == Spike(3.0, "paper")
    config = Config(**SHAPE)
    assert (config.gate_logit_normalizer, config.gate_low_rank_dim, config.max_position_embeddings, config.torch_dtype) == (16.0, 16, 131072, "bfloat16")


def test_thresholds_have_their_limits():
    assert spike(torch.full((1, 4), 1e9), 3.0)[1].item() == 1e4 and spike(torch.full((1, 4), 1e-9), 3.0)[1].item() == pytest.approx(1e-5)
    assert spiked(torch.tensor([[0.5, -0.5, 4.0, 0.0, 1.0]]), 3.0)[0].tolist() == pytest.approx([0.4, -0.4, 4.0, 0.0, 0.8])
    assert rounded_int8(torch.full((1, 2), 1e9))[0, 0].item() == pytest.approx(1e9)
    assert rounded_int8(torch.full((1, 2), 4e-6))[0, 0].item() == 0.0 and rounded_int8(torch.full((1, 2), 6e-6))[0, 0].item() == pytest.approx(1e-5)
    x = torch.tensor([[254.0, 1.0, 0.9], [127.0, 1.0, 0.4]])
    assert rounded_int8(x).tolist() == [[254.0, 0.0, 0.0], [127.0, 1.0, 0.0]]  # half to even; each row by itself


def test_pieces_by_hand():
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    norm = RMSNorm(4, 0.5)
    torch.testing.assert_close(norm(x), x / torch.tensor(8.0).sqrt())  # mean of squares 7.5
    q = rope(torch.tensor([[[[1.0, 0.0, 0.0, 1.0]]]]), torch.tensor([2]), 100.0)  # angles 2 and 0.2
    angles = torch.tensor([2.0, 0.2])
    torch.testing.assert_close(q[0, 0, 0], torch.stack([angles.cos()[0], -angles.sin()[1], angles.sin()[0], angles.cos()[1]]))


@torch.no_grad()
def test_a_query_sees_its_window_and_no_more():
    """Changing the token just behind the window's far end changes nothing; the one at its end does."""
    model = Model(Config(**{**SHAPE, "attn_layers": (0,), "num_hidden_layers": 1})).init_weights(0)
    tokens = torch.arange(20)[None] % 50
    last = model(tokens)[0][0, -1]
    for age, same in ((8, True), (7, False), (9, True), (0, False)):
        changed = tokens.clone()
        changed[0, 19 - age] = 49
        assert torch.allclose(model(changed)[0][0, -1], last, atol=1e-6) == same


@pytest.mark.parametrize("shard_bytes", [0, 1, 4096 * 2, 60_000])
def test_files_of_a_checkpoint(tmp_path, shard_bytes):
    model = Model(Config(**SHAPE)).init_weights(0)
    model.save_pretrained(tmp_path / "new" / "folder", max_shard_bytes=shard_bytes)
    folder = tmp_path / "new" / "folder"
    config = json.loads((folder / "config.json").read_text())
    assert config["torch_dtype"] == "bfloat16" and config["architectures"] == ["GLAswaForCausalLM"] and "gate_low_rank_dim" not in config
    tensors = {n: 2 * t.numel() for n, t in model.state_dict().items()}  # bytes in bfloat16
    if not shard_bytes:
        assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    else:
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        assert index["metadata"] == {"total_size": sum(tensors.values())} and set(index["weight_map"]) == set(tensors)
        files = sorted(set(index["weight_map"].values()))
        assert files == [f"model-{i + 1:05d}-of-{len(files):05d}.safetensors" for i in range(len(files))]
        held = [sum(n for t, n in tensors.items() if index["weight_map"][t] == f) for f in files]
        count = [sum(index["weight_map"][t] == f for t in tensors) for f in files]
        assert all(h <= shard_bytes or c == 1 for h, c in zip(held, count))
        assert all(held[i] + next(n for t, n in tensors.items() if index["weight_map"][t] == files[i + 1]) > shard_bytes for i in range(len(files) - 1))
    again = Model.from_pretrained(folder)
    assert again.spike is None and again.training is False and next(again.parameters()).dtype == torch.float32
    for name, t in again.state_dict().items():
        assert torch.equal(t, model.state_dict()[name].bfloat16().float())


@pytest.mark.parametrize("given, scope", [("auto", "released"), (None, None), (Spike(2.0, "paper"), "paper")])
def test_scales_make_a_checkpoint_spiking(make_checkpoint, given, scope):
    model = Model.from_pretrained(make_checkpoint(scales=True), spike=given)
    assert (model.spike and model.spike.scope) == scope
    down, up = model.model.layers[0].mlp.down_proj, model.model.layers[0].mlp.up_proj
    assert (up.spike is None) == (scope is None) and (down.spike is not None) == (scope == "paper")
    assert up.weight_quantizer is not None and (up.coded_weight() - up.weight).abs().max() > 0


def test_rotary_frequencies_are_no_weights(make_checkpoint):
    frequencies = {f"model.layers.{i}.attn.rotary_emb.inv_freq": np.ones(8, np.float32) for i in range(2)}
    plain, more = make_checkpoint(), make_checkpoint(tensors=lambda t: t | frequencies)
    assert set(read_tensors(more)) == set(read_tensors(plain))
    Model.from_pretrained(more)
