"""The 76B in plain PyTorch: equal to the golden models and to its definition in NumPy, whatever the split of the text, whatever the shape."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from conftest import SHARED, shared  # noqa: E402
from moe_checkpoints import MOE, OTHER, write_moe  # noqa: E402
from sb_convert.config import Config, ModelConfig, ParallelConfig  # noqa: E402
from sb_convert.reference import Experts, Model, ParallelAttention, Spike, State  # noqa: E402
from test_reference import SHAPE, in_pieces, mean_kl  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS = {"bounded": MOE, "other": OTHER, "no sinks": MOE | {"num_meta_tokens": 0}, "all dense": MOE | {"dense_mlp_layers": [0, 1, 2, 3], "tie_word_embeddings": True},
         "weight 1": MOE | {"norm_topk_prob": True, "lower_bound_period": 7, "num_attention_heads": 2}}


@pytest.fixture(scope="module")
def oracle():
    path = SHARED.parent / "reference_76b.py"
    if not path.is_file():
        pytest.skip("../shared/reference_76b.py is not here")
    spec = importlib.util.spec_from_file_location("reference_76b", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def golden_of(name: str) -> tuple[Path, dict[str, np.ndarray], "torch.Tensor"]:
    folder = shared(name)
    golden = dict(np.load(folder / "golden.npz"))
    return folder, golden, torch.tensor(golden["tokens"])[None].long()


def computed(model: Model, tokens: "torch.Tensor", pieces: int) -> "torch.Tensor":
    """pieces 0: sinks and text in one pass."""
    return in_pieces(model, tokens, pieces) if pieces else model.dense(tokens)


def experts_of(model: Model, tokens: "torch.Tensor") -> np.ndarray:
    """[MoE layers, T]: what every text token was routed to."""
    found, start = [], model.start()
    hooks = [m.register_forward_hook(lambda m, u, _: found.append(m.route(u[0])[1][0].numpy())) for m in model.modules() if isinstance(m, Experts)]
    model(tokens, start)
    for hook in hooks:
        hook.remove()
    return np.array(found)


@pytest.mark.parametrize("pieces", [0, 96, 7, 1])
@torch.no_grad()
def test_golden_moe_a(pieces):
    folder, golden, tokens = golden_of("golden-moe-a")
    model, tokens = Model.from_pretrained(folder), tokens[:, :40] if pieces == 1 else tokens  # one by one takes its time
    got, expected = computed(model, tokens, pieces)[0], torch.tensor(golden["logits"])[:tokens.shape[1]]
    assert mean_kl(got, expected) <= 1e-9 and (got.argmax(-1) == expected.argmax(-1)).all()
    if pieces == 96:
        assert (experts_of(model, tokens) == golden["experts"]).all()
        assert mean_kl(computed(Model.from_pretrained(folder, spike=Spike(), dtype=torch.float64), tokens, 96)[0], torch.tensor(golden["logits_spike"])) <= 1e-9


@pytest.mark.parametrize("pieces", [0, 96, 7, 1])
@torch.no_grad()
def test_golden_moe_spike(pieces):
    folder, golden, tokens = golden_of("golden-moe-spike")
    model = Model.from_pretrained(folder)
    assert model.spike == Spike(3.0, "released")
    assert mean_kl(computed(model, tokens, pieces)[0], torch.tensor(golden["logits"])) <= 1e-4
    if pieces == 96:
        assert (experts_of(model, tokens) == golden["experts"]).all()
        paper = computed(Model.from_pretrained(folder, spike=Spike()), tokens, 96)[0]
        assert mean_kl(paper, torch.tensor(golden["logits_paper"])) <= 1e-4 and mean_kl(paper, torch.tensor(golden["logits"])) > 1e-3


@pytest.mark.parametrize("name, spike", [("golden-moe-a", None), ("golden-moe-spike", "auto")])
@torch.no_grad()
def test_constants_are_the_golden_ones(name, spike):
    folder, golden, _ = golden_of(name)
    model = Model.from_pretrained(folder, spike, torch.float64)
    for il, (k, v, S) in enumerate(model.start().layers):
        heads = golden["sink_state"].shape[1] // S.shape[1]  # a group's states are equal where there is one
        for got, expected in ((k, golden["sink_k"][il]), (v, golden["sink_v"][il]), (S.repeat_interleave(heads, 1), golden["sink_state"][il])):
            assert np.abs(got[0].numpy() - expected).max() <= 1e-5


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_random_models_are_their_definition(tmp_path, oracle, kind):
    """Against the NumPy definition, both in float64: floats and spikes of both scopes, text beyond the window."""
    folder = write_moe(tmp_path / "x", base=KINDS[kind], dtype="F32")
    config, weights = oracle.load(folder)
    tokens = np.random.default_rng(1).integers(0, config.vocab_size, 2 * config.sliding_window + 5)
    for spike in (None, Spike(), Spike(2.0, "released")):
        want = torch.tensor(oracle.Model(config, weights, spike and oracle.Spike(spike.k, spike.scope)).run(tokens, [len(tokens)]))
        model = Model.from_pretrained(folder, spike, torch.float64)
        assert mean_kl(model(torch.tensor(tokens)[None])[0][0], want) <= 1e-11, spike


@pytest.mark.parametrize("kind, spike", [("bounded", None), ("bounded", Spike(2.0, "released")), ("other", None), ("all dense", None), ("no sinks", Spike())])
@torch.no_grad()
def test_any_split_and_neighbour_gives_the_same(tmp_path, kind, spike):
    model = Model.from_pretrained(write_moe(tmp_path / "x", base=KINDS[kind]), spike, torch.float64)
    tokens = torch.arange(2 * 41).view(2, -1) * 7 % 288
    want = model.dense(tokens[:1])
    for got in (model(tokens)[0][:1], model(tokens[:1])[0], in_pieces(model, tokens, 5)[:1], in_pieces(model, tokens[:1], 1)):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_the_state_after_the_sinks_does_not_know_the_text(tmp_path):
    model = Model.from_pretrained(write_moe(tmp_path / "x"))
    start, tokens = model.start(), torch.arange(30)[None]
    before = [[x.clone() for x in layer] for layer in start.layers]
    first = model(tokens, start)[0]
    model(tokens + 100, start)
    assert start.n == 0 and all(torch.equal(a, b) for old, new in zip(before, start.layers) for a, b in zip(old, new))
    assert torch.equal(model(tokens, start)[0], first)
    shapes = [[tuple(x.shape) for x in layer] for layer in model(tokens, start)[1].layers]
    assert shapes[1] == [(1, 2, 5 + 6, 32)] * 2 + [(1, 4, 32, 32)]   # sinks and a window, a state per query head
    assert shapes[2] == [(1, 2, 5 + 30, 32)] * 2 + [(1, 2, 32, 32)]  # sinks and all text; no bound: a state per key/value head


@pytest.mark.parametrize("kind", ["bounded", "other"])
@pytest.mark.parametrize("shard_bytes", [0, 200_000])
@torch.no_grad()
def test_save_and_load(tmp_path, kind, shard_bytes):
    model = Model(ModelConfig.from_json(KINDS[kind]), scales=kind == "bounded").init_weights(0)
    model.save_pretrained(tmp_path, torch.float32, shard_bytes)
    again = Model.from_pretrained(tmp_path, spike=None)
    assert isinstance(again.config, ParallelConfig) and again.config == dataclasses.replace(model.config, torch_dtype="float32")
    assert all(torch.equal(x, again.state_dict()[name]) for name, x in model.state_dict().items())


@torch.no_grad()
def test_the_alias_and_a_single_bin_are_read(tmp_path):
    def renamed(tensors):
        return {name.replace("model.norm.weight", "mode.norm.weight"): x for name, x in tensors.items()}
    plain, alias = write_moe(tmp_path / "a"), write_moe(tmp_path / "b", form="bin", tensors=renamed)
    tokens = torch.arange(20)[None]
    assert torch.equal(Model.from_pretrained(plain)(tokens)[0], Model.from_pretrained(alias)(tokens)[0])


@torch.no_grad()
def test_a_tie_goes_to_the_lowest_expert_and_the_weight_is_its_probability():
    config = ModelConfig.from_json(MOE | {"num_local_experts": 4})
    experts = Experts(config, None, False)
    experts.gate.weight.copy_(torch.eye(128)[:1].repeat(4, 1))
    experts.gate.weight[1:3] = 2 * torch.eye(128)[0]
    weight, expert = experts.route(torch.eye(128)[:1])
    assert expert.item() == 1 and weight.item() == pytest.approx(np.exp(2) / (2 * np.exp(2) + 2 * np.exp(1)))
    experts.norm = True
    assert experts.route(torch.eye(128)[:1])[0].item() == 1.0


@torch.no_grad()
def test_a_key_of_one_or_zero_is_no_nan():
    model = Model(ModelConfig.from_json(MOE)).init_weights(0)
    for layer in model.model.layers:
        layer.attn.linear_attn.k_proj.bias[:2] = torch.tensor([1e4, -1e4])
    assert torch.isfinite(model(torch.arange(40)[None])[0]).all()


def test_gradients_reach_sinks_bounds_and_router():
    model = Model(ModelConfig.from_json(MOE)).init_weights(0)
    model(torch.arange(40)[None])[0].square().sum().backward()
    for p in (model.model.meta_tokens, model.model.lower_bounds, model.model.layers[1].block_sparse_moe.gate.weight, model.model.layers[1].attn.linear_attn.k_proj.weight):
        assert torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0


@torch.no_grad()
def test_experts_go_with_any_layout():
    """GLA and windows in turn, with a mixture of experts in one layer: the blocks do not know each other."""
    model = Model(Config(**SHAPE, dense_mlp_layers=(0, 2), num_local_experts=3, shared_intermediate_size=32)).init_weights(0)
    kinds = [(type(layer.attn).__name__, layer.block_sparse_moe is not None) for layer in model.model.layers]
    assert kinds == [("GatedLinearAttention", False), ("SlidingWindowAttention", True), ("GatedLinearAttention", False)]
    tokens = torch.arange(30)[None]
    torch.testing.assert_close(in_pieces(model, tokens, 7), model(tokens)[0], rtol=1e-4, atol=1e-4)
    assert isinstance(model(tokens)[1], State) and not any(isinstance(m, ParallelAttention) for m in model.modules())
