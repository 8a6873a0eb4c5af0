"""The plain PyTorch model: equal to the published implementation, in any split of the input, and a round trip of the format."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from conftest import shared  # noqa: E402
from sb_convert.config import Config  # noqa: E402
from sb_convert.reference import (CHUNK, GatedLinearAttention, Model, Spike, gla_chunked, gla_recurrent, rounded_int8, spike)  # noqa: E402

SHAPE = dict(hidden_size=64, num_hidden_layers=3, intermediate_size=96, vocab_size=50, num_attention_heads=4, num_key_value_heads=2,
             attn_layers=(1,), sliding_window=8, rope_theta=1e4, norm_eps=1e-6, initializer_range=0.2)


pytestmark = pytest.mark.usefixtures("one_thread")


def in_pieces(model: Model, tokens: "torch.Tensor", n: int) -> "torch.Tensor":
    state, out = None, []
    for t in range(0, tokens.shape[1], n):
        logits, state = model(tokens[:, t:t + n], state)
        out.append(logits)
    return torch.cat(out, 1)


def mean_kl(got: "torch.Tensor", expected: "torch.Tensor") -> float:
    p, q = expected.double().log_softmax(-1), got.double().log_softmax(-1)
    return float((p.exp() * (p - q)).sum(-1).mean())


@pytest.mark.parametrize("pieces", [96, 7, 1])
@torch.no_grad()
def test_golden_float(pieces):
    folder = shared("golden-float")
    golden = np.load(folder / "golden.npz")
    got = in_pieces(Model.from_pretrained(folder), torch.tensor(golden["tokens"])[None].long(), pieces)[0]
    expected = torch.tensor(golden["logits"])
    assert (got - expected).abs().max() <= 2e-3
    assert (got.argmax(-1) == expected.argmax(-1)).all()


@pytest.mark.parametrize("pieces", [96, 7, 1])
@torch.no_grad()
def test_golden_w8aspike(pieces):
    folder = shared("golden-w8aspike")
    golden = np.load(folder / "golden.npz")
    tokens, expected = torch.tensor(golden["tokens"])[None].long(), torch.tensor(golden["logits"])
    assert mean_kl(in_pieces(Model.from_pretrained(folder), tokens, pieces)[0], expected) <= 1e-4
    paper = Model.from_pretrained(folder, spike=Spike(scope="paper"))  # the other scope is another model: checkpoint-format.md says 3e-3
    assert 1e-3 < mean_kl(paper(tokens)[0][0], expected) < 1e-2


@pytest.mark.parametrize("n_tokens", [1, CHUNK - 1, CHUNK, 2 * CHUNK + 5])
@pytest.mark.parametrize("strength", [1.0, 200.0])  # gates of -200 / 16 a token: a factored form would overflow
def test_chunked_equals_recurrent(n_tokens, strength):
    torch.manual_seed(0)
    q, k, v, g = torch.randn(2, 2, 3, n_tokens, 8), *(torch.randn(3, 2, 2, n_tokens, 8))
    g, S = torch.nn.functional.logsigmoid(g * strength) / 16, torch.randn(2, 2, 8, 8)
    for a, b in zip(gla_chunked(q, k, v, g, S), gla_recurrent(q, k, v, g, S)):
        assert torch.isfinite(a).all()
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_chunked_gradients_equal_recurrent():
    torch.manual_seed(0)
    grads = []
    inputs = [torch.randn(1, 2, 2, 40, 8), *torch.randn(2, 1, 2, 40, 8), torch.nn.functional.logsigmoid(30 * torch.randn(1, 2, 40, 8))]
    for form in (gla_chunked, gla_recurrent):
        leaves = [x.clone().requires_grad_() for x in inputs]
        form(*leaves, torch.zeros(1, 2, 8, 8))[0].square().sum().backward()
        grads.append([x.grad for x in leaves])
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("change", [{}, {"gate_low_rank_dim": 0}, {"num_key_value_heads": 1}, {"attn_layers": ()}, {"attn_layers": (0, 1, 2)}])
@pytest.mark.parametrize("pieces", [1, 5])
@torch.no_grad()
def test_pieces_equal_whole(change, pieces):
    model = Model(Config(**{**SHAPE, **change})).init_weights(0)
    tokens = torch.arange(41)[None] % 50
    torch.testing.assert_close(in_pieces(model, tokens, pieces), model(tokens)[0], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_one_token_is_a_step_and_several_are_chunks(monkeypatch):
    """Both give the same; a prompt that is read step by step takes many times as long."""
    from sb_convert import reference

    taken = []
    for name in ("gla_recurrent", "gla_chunked"):
        monkeypatch.setattr(reference, name, lambda *a, name=name, f=getattr(reference, name): taken.append(name) or f(*a))
    in_pieces(Model(Config(**SHAPE)), torch.zeros(1, 5, dtype=torch.long), 2)
    assert taken == ["gla_chunked"] * 4 + ["gla_recurrent"] * 2  # two such layers; pieces of 2, 2 and 1


@torch.no_grad()
def test_state_does_not_grow():
    model, tokens = Model(Config(**SHAPE)).init_weights(0), torch.arange(64)[None] % 50
    state = model(tokens)[1]
    assert state.n == 64 and state.layers[0].shape == (1, 2, 16, 16)
    assert [t.shape for t in state.layers[1]] == [(1, 2, 8, 16)] * 2


@pytest.mark.parametrize("change", [{}, {"gate_low_rank_dim": 0}, {"gate_low_rank_dim": 8}, {"tie_word_embeddings": True}])
@pytest.mark.parametrize("shard_bytes", [0, 20000])
@torch.no_grad()
def test_save_and_load(tmp_path, change, shard_bytes):
    model, tokens = Model(Config(**{**SHAPE, **change})).init_weights(0), torch.arange(20)[None]
    model.save_pretrained(tmp_path, torch.float32, shard_bytes)
    assert (tmp_path / "model.safetensors").exists() == (shard_bytes == 0)
    again = Model.from_pretrained(tmp_path)
    assert again.config.gate_low_rank_dim == model.config.gate_low_rank_dim
    assert torch.equal(again(tokens)[0], model(tokens)[0])


def test_spike_counts():
    s, v_th = spike(torch.tensor([[0.5, -0.5, 4.0, 0.0, 1.0]]), 3.0)  # mean 1.2, v_th 0.4
    assert v_th.item() == pytest.approx(0.4)
    assert s.tolist() == [[1, -1, 10, 0, 2]]  # 1.25, -1.25, 10, 0, 2.5 -> half to even
    assert spike(torch.zeros(1, 4), 3.0)[1].item() == pytest.approx(1e-5)


def test_int8_rows():
    x = torch.tensor([[127.0, 63.4, -0.6]])
    assert rounded_int8(x).tolist() == [[127.0, 63.0, -1.0]]


def test_scopes_differ_in_the_down_projection_only():
    released, paper = (Model(Config(**{**SHAPE, "gate_low_rank_dim": rank}), Spike(scope=scope)) for scope, rank in (("released", 16), ("paper", 0)))
    assert released.model.layers[0].mlp.down_proj.spike is None and released.model.layers[0].mlp.up_proj.spike is not None
    assert all(p.spike is not None for p in (paper.model.layers[0].mlp.down_proj, paper.model.layers[0].attn.gk_proj))
    assert isinstance(released.model.layers[0].attn, GatedLinearAttention)
    assert not hasattr(released.model.layers[0].attn.gk_proj[0], "spike")  # a low-rank gate stays in floating point
