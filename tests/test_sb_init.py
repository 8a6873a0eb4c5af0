"""sb-init: a Transformer's checkpoint becomes a SpikingBrain's; window layers compute what the base does, experts what the MLP does, bad input is told."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from base_checkpoints import BASES, LLAMA3, base_tensors, transformer, write_base
from conftest import ROOT, write_checkpoint

sys.path.insert(0, str(ROOT / "training"))  # before an installed one

from sb_convert.sources import open_checkpoint  # noqa: E402
from sb_init.base import config_of, theirs  # noqa: E402
from sb_init.choices import Choices  # noqa: E402
from sb_init.cli import main, parser  # noqa: E402
from sb_init.gates import gate_bias, span_of  # noqa: E402
from sb_init.init import init  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

TOKENS = np.random.default_rng(5).integers(0, 288, 40)


def read(folder: Path) -> dict[str, np.ndarray]:
    return {name: t.rows(0, None) for name, t in open_checkpoint(folder).items()}


def config_of_made(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def reference(folder: Path) -> Any:
    pytest.importorskip("torch")
    from sb_convert.reference import Model
    return Model.from_pretrained(folder)


def logits(model: Any, tokens: np.ndarray = TOKENS) -> np.ndarray:
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        return model(torch.tensor(tokens[None]))[0][0].double().numpy()


def error_of(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    assert main([str(a) for a in args]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("sb-init: ") and ": got " in said and ", expected " in said and "; " in said
    return said


# --- what is carried over ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", BASES)
def test_window_layers_are_the_bases_attention(tmp_path: Path, kind: str) -> None:
    """All of them window layers, a text within the window: the base's own logits, to float32's rounding."""
    init(write_base(tmp_path / "base", kind), tmp_path / "out", Choices(layers=(0, 1, 2, 3), window=64), say=lambda _: None)
    want = transformer(base_tensors(BASES[kind]), BASES[kind], TOKENS)
    np.testing.assert_allclose(logits(reference(tmp_path / "out")), want, atol=2e-5 * np.abs(want).max())


@pytest.mark.parametrize("kind", ["llama 3.2", "qwen2.5", "qwen3"])
def test_window_layers_are_what_transformers_computes(tmp_path: Path, kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    base = write_base(tmp_path / "base", kind)
    init(base, tmp_path / "out", Choices(layers=(0, 1, 2, 3), window=64), say=lambda _: None)
    theirs_ = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    with torch.no_grad():
        want = theirs_(torch.tensor(TOKENS[None])).logits[0].double().numpy()
    np.testing.assert_allclose(logits(reference(tmp_path / "out")), want, atol=2e-5 * np.abs(want).max())


@pytest.mark.parametrize("dtype, n_shards", [("BF16", 1), ("F16", 3), ("F32", 2)])
@pytest.mark.parametrize("kind", ["llama 3.2", "qwen2.5", "qwen3"])
def test_every_tensor_of_the_base_is_in_it_bit_for_bit(tmp_path: Path, kind: str, dtype: str, n_shards: int) -> None:
    base = write_base(tmp_path / "base", kind, dtype, n_shards, torch_dtype="bfloat16")
    init(base, tmp_path / "out", Choices(shard_bytes=50_000), say=lambda _: None)
    was, now = open_checkpoint(base), open_checkpoint(tmp_path / "out")
    names = {name: theirs(name) for name in now if "gk_proj" not in name and "g_norm" not in name}
    assert set(names.values()) == set(was) and len(list((tmp_path / "out").glob("*.safetensors"))) > 3
    assert all(now[ours].dtype == dtype and np.array_equal(now[ours].rows(0, None), was[name].rows(0, None)) for ours, name in names.items())
    assert all(t.dtype == dtype for t in now.values())
    assert config_of_made(tmp_path / "out")["torch_dtype"] == {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}[dtype]


def test_config_says_what_the_base_and_the_options_say(tmp_path: Path) -> None:
    init(write_base(tmp_path / "base", "llama 5"), tmp_path / "out", say=lambda _: None)
    c = config_of_made(tmp_path / "out")
    assert c["model_type"] == "gla_swa" and c["attn_layers"] == [1, 3] and c["sliding_window"] == 256 and c["norm_eps"] == 1e-5 and c["rope_theta"] == 500.0
    assert c["rope_scaling"] == LLAMA3 and c["qkv_bias"] is False and c["eos_token_id"] == [262, 264] and c["pad_token_id"] == 263
    assert not {"use_qk_norm", "head_dim", "num_local_experts", "rope_parameters", "rms_norm_eps"} & c.keys()
    init(write_base(tmp_path / "base3", "qwen3"), tmp_path / "out3", Choices(layers=(3, 0), window=17), say=lambda _: None)
    c = config_of_made(tmp_path / "out3")
    assert c["attn_layers"] == [0, 3] and c["sliding_window"] == 17 and c["use_qk_norm"] is True and c["head_dim"] == 32 and c["qkv_bias"] is False
    init(write_base(tmp_path / "base2", "qwen2.5", use_sliding_window=True, max_window_layers=2), tmp_path / "out2", say=lambda _: None)
    c = config_of_made(tmp_path / "out2")
    init(write_base(tmp_path / "base4", "qwen2.5", use_sliding_window=True, max_window_layers=4), tmp_path / "out4", say=lambda _: None)
    assert config_of_made(tmp_path / "out4")["sliding_window"] == 256  # whose windows begin behind its last layer
    assert c["sliding_window"] == 128 and "qkv_bias" not in c and c["tie_word_embeddings"] is True  # no more than the base's own layers see


def test_tokenizer_files_are_carried_over_and_the_result_converts(tmp_path: Path) -> None:
    """Through sb-convert, with the tokenizer's and generation's settings."""
    import gguf

    from sb_convert.cli import main as sb_convert
    base = write_base(tmp_path / "base")
    (base / "generation_config.json").write_text('{"temperature": 0.6, "eos_token_id": [262, 264]}')
    (base / "additional_chat_templates").mkdir()
    (base / "additional_chat_templates" / "tool.jinja").write_text("{{ messages }}")
    (base / "LICENSE.txt").write_text("do what you like")
    (base / "README.md").write_text("about another model")
    assert main([str(base), "-o", str(tmp_path / "out")]) == 0
    texts = {str(p.relative_to(base)): p.read_bytes() for p in base.rglob("*") if p.is_file() and p.name not in ("config.json", "model.safetensors", "README.md")}
    assert {str(p.relative_to(tmp_path / "out")): p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file() and p.name not in ("config.json", "model.safetensors")} == texts
    assert len(texts) == 7 and sb_convert([str(tmp_path / "out"), "-o", str(tmp_path / "x.gguf"), "--outtype", "q8_0"]) == 0
    assert gguf.GGUFReader(tmp_path / "x.gguf").get_field("general.sampling.temp").contents() == pytest.approx(0.6)


# --- what is made ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("rank", [16, 3, 0])
def test_states_forget_in_the_chosen_span(tmp_path: Path, rank: int) -> None:
    """Whatever the input: an impulse in the state is down to 1/e after the span of its channel, and spans run from a head's first pair to its last."""
    torch = pytest.importorskip("torch")
    init(write_base(tmp_path / "base", "qwen3"), tmp_path / "out", Choices(forget=(4, 400), gate_rank=rank), say=lambda _: None)
    attn = reference(tmp_path / "out").model.layers[2].attn
    with torch.no_grad():
        g = torch.nn.functional.logsigmoid(attn.heads(attn.gk_proj(torch.randn(1, 5, 64)))) / 16  # [1, K, 5, D]
    spans = -1 / g.double().numpy()
    want = np.tile(np.geomspace(4, 400, 16), 2)
    np.testing.assert_allclose(spans, np.broadcast_to(want, spans.shape), rtol=1e-3)
    assert spans.min() == pytest.approx(4, rel=1e-3) and spans.max() == pytest.approx(400, rel=1e-3)
    held = read(tmp_path / "out")
    if rank:
        drawn = held["model.layers.2.attn.gk_proj.0.weight"]
        assert drawn.shape == (rank, 64) and 0.5 < np.square(drawn).sum(1).mean() < 1.5 and not np.array_equal(drawn, held["model.layers.0.attn.gk_proj.0.weight"])
    else:
        assert not held["model.layers.2.attn.gk_proj.weight"].any()


@pytest.mark.parametrize("span", [1, 16, 1e4, 1e7])
@pytest.mark.parametrize("normalizer", [1.0, 16.0])
def test_gate_biases_are_finite_and_say_their_span(span: float, normalizer: float) -> None:
    bias = gate_bias((span, span), 8, normalizer)
    assert np.isfinite(bias).all() and span_of(bias[0], normalizer) == pytest.approx(span, rel=1e-6)


def test_gates_can_be_trained(tmp_path: Path) -> None:
    """They begin where the gradient is not zero: the second matrix moves first, and then the first does."""
    torch = pytest.importorskip("torch")
    init(write_base(tmp_path / "base"), tmp_path / "out", say=lambda _: None)
    model = reference(tmp_path / "out")
    first, second = model.model.layers[0].attn.gk_proj
    for moves in ((second,), (second, first)):
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(torch.tensor(TOKENS[None]))[0][0, :-1], torch.tensor(TOKENS[1:])).backward()
        assert all(m.weight.grad.abs().max() > 0 for m in moves)
        with torch.no_grad():
            second.weight -= 0.1 * second.weight.grad


def test_outputs_are_as_large_as_the_bases_values(tmp_path: Path) -> None:
    """The norm behind the gla gives its rows the size that values have, times --norm-scale."""
    base = write_base(tmp_path / "base")
    for scale in (1.0, 0.25):
        init(base, tmp_path / f"out{scale}", Choices(norm_scale=scale), say=lambda _: None)
        held, t = read(tmp_path / f"out{scale}"), base_tensors(BASES["qwen2.5"])
        p = "model.layers.2."
        h = np.random.default_rng(0).standard_normal((4000, 64)) * t[p + "input_layernorm.weight"]
        values = h @ t[p + "self_attn.v_proj.weight"].T + t[p + "self_attn.v_proj.bias"]
        np.testing.assert_allclose(held[p + "attn.g_norm.weight"], scale * np.sqrt(np.square(values).mean()), rtol=0.03)
        assert held[p + "attn.g_norm.weight"].shape == (16,)


def test_the_same_seed_makes_the_same_files(tmp_path: Path) -> None:
    base, digests = write_base(tmp_path / "base"), []
    for n, seed in enumerate((0, 0, 1)):
        init(base, tmp_path / f"{n}", Choices(seed=seed, n_experts=2), say=lambda _: None)
        digests.append(hashlib.sha256((tmp_path / f"{n}" / "model.safetensors").read_bytes()).hexdigest())
    assert digests[0] == digests[1] != digests[2]


# --- experts -----------------------------------------------------------------------------------------------------------------

def test_experts_are_the_papers(tmp_path: Path) -> None:
    """Equations 15 to 18: copies times alpha, a shared one, a drawn router whose choice is worth about 1/E."""
    base = write_base(tmp_path / "base")
    result = init(base, tmp_path / "out", Choices(n_experts=4, moe_layers=(0, 2)), say=lambda _: None)
    held, t, alpha = read(tmp_path / "out"), base_tensors(BASES["qwen2.5"]), (4 / 5) ** (1 / 3)
    for which in ("gate", "up", "down"):
        for name in ("shared_mlp", *(f"block_sparse_moe.experts.{e}" for e in range(4))):
            np.testing.assert_allclose(held[f"model.layers.2.{name}.{which}_proj.weight"], alpha * t[f"model.layers.2.mlp.{which}_proj.weight"], rtol=1e-6)
    assert np.array_equal(held["model.layers.1.mlp.up_proj.weight"], t["model.layers.1.mlp.up_proj.weight"])
    c = config_of_made(tmp_path / "out")
    assert (c["num_local_experts"], c["dense_mlp_layers"], c["shared_intermediate_size"], c["norm_topk_prob"]) == (4, [1, 3], 96, False)
    assert sorted(result.errors) == [0, 2] and all(0.25 < e.p < 0.35 and 0.001 < e.relative < 0.2 for e in result.errors.values())
    assert "alpha = 0.9283 on every matrix: error against the dense MLP" in result.summary() and "(1/E = 0.250)" in result.summary()
    h = np.random.default_rng(1).standard_normal((2000, 64)) * t["model.layers.2.post_attention_layernorm.weight"]
    scores = h @ held["model.layers.2.block_sparse_moe.gate.weight"].T
    assert scores.std() == pytest.approx(0.1, rel=0.2) and np.bincount(scores.argmax(1), minlength=4).min() > 300


@pytest.mark.parametrize("dtype, limit", [("F32", 2e-6), ("BF16", 2e-6)])
def test_scaled_down_projections_alone_compute_what_the_dense_mlp_does(tmp_path: Path, dtype: str, limit: float) -> None:
    """1/2 of both experts, which no type rounds: to the last digits of the products; the paper's alpha is reported and is not."""
    base = write_base(tmp_path / "base", "qwen3", dtype)
    exact = init(base, tmp_path / "exact", Choices(n_experts=3, moe_scale="down"), say=lambda _: None)
    paper = init(base, tmp_path / "paper", Choices(n_experts=3), say=lambda _: None)
    init(base, tmp_path / "dense", say=lambda _: None)
    assert max(e.relative for e in exact.errors.values()) < 1e-12 and min(e.relative for e in paper.errors.values()) > 1e-3
    assert config_of_made(tmp_path / "exact")["norm_topk_prob"] is True and "1/2 on the down projections" in exact.summary()
    want = logits(reference(tmp_path / "dense"))
    assert np.abs(logits(reference(tmp_path / "exact")) - want).max() < limit * np.abs(want).max()
    assert np.abs(logits(reference(tmp_path / "paper")) - want).max() > 1e-3 * np.abs(want).max()


def test_the_error_that_is_told_is_the_references(tmp_path: Path) -> None:
    """On the model as it is written: the MoE block of a layer against the dense one's MLP."""
    torch = pytest.importorskip("torch")
    base = write_base(tmp_path / "base")
    told = init(base, tmp_path / "moe", Choices(n_experts=4), say=lambda _: None).errors[1]
    init(base, tmp_path / "dense", say=lambda _: None)
    moe, dense = (reference(tmp_path / name).model.layers[1] for name in ("moe", "dense"))
    u = torch.nn.functional.rms_norm(torch.randn(512, 64, generator=torch.Generator().manual_seed(0)), (64,)) * dense.mlp_norm.weight
    with torch.no_grad():
        y, want = moe.shared_mlp(u) + moe.block_sparse_moe(u), dense.mlp(u)
        p = moe.block_sparse_moe.route(u)[0].mean()
    assert float((y - want).norm() / want.norm()) == pytest.approx(told.relative, rel=0.1) and float(p) == pytest.approx(told.p, rel=0.02)


def test_the_fork_computes_what_is_made(tmp_path: Path) -> None:
    """Experts, gla and window, norms, heads: through sb-convert, which verifies the graph against the reference."""
    pytest.importorskip("torch")
    from sb_convert.cli import main as sb_convert
    assert main([str(write_base(tmp_path / "base", "qwen3")), "-o", str(tmp_path / "out"), "--moe", "3", "--window", "16"]) == 0
    assert sb_convert([str(tmp_path / "out"), "-o", str(tmp_path / "x.gguf"), "--outtype", "f32", "--verify"]) == 0


# --- what is refused ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind, change, message", [
    ("qwen2.5", {"architectures": ["MistralForCausalLM"]}, "config.json: architectures: got ['MistralForCausalLM'], expected one of LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM; "),
    ("qwen2.5", {"architectures": ["Qwen2ForSequenceClassification"]}, "architectures: got ['Qwen2ForSequenceClassification'], "),
    ("qwen3", {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe"}, "architectures: got ['Qwen3MoeForCausalLM'], "),
    ("qwen2.5", {"architectures": KeyError, "model_type": "gemma2"}, "architectures: got none, and model_type 'gemma2', "),
    ("qwen2.5", {"model_type": "qwen3"}, "model_type: got 'qwen3', expected 'qwen2'; "),
    ("llama 3.2", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling: got {'rope_type': 'yarn', 'factor': 4.0}, expected null; "),
    ("llama 3.2", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling: got {'type': 'linear', 'factor': 2.0}, expected null; "),
    ("llama 3.2", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope_scaling: got "),
    ("llama 3.2", {"rope_scaling": LLAMA3 | {"factor": 0.5}}, "rope_scaling.factor: got 0.5, expected 1 or more"),
    ("qwen2.5", {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e6}}, "rope_parameters: got "),
    ("llama 3.2", {"attention_bias": True}, "attention_bias: got True, expected false; a bias of the output projection"),
    ("qwen3", {"attention_bias": True}, "attention_bias: got True, expected false; "),
    ("llama 3.2", {"mlp_bias": True}, "mlp_bias: got True, expected false; "),
    ("llama 3.2", {"hidden_act": "gelu"}, "hidden_act: got 'gelu', expected 'swish' or 'silu'; "),
    ("llama 3.2", {"sliding_window": 4096}, "sliding_window: got 4096, expected null; Llama has no window"),
    ("llama 3.2", {"layer_types": ["chunked_attention"] * 4}, "layer_types: got "),
    ("qwen2.5", {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 0}, "sliding_window: got None, expected an integer from 1"),
    ("qwen2.5", {"use_sliding_window": "yes"}, "use_sliding_window: got 'yes', expected true or false; "),
    ("qwen2.5", {"sliding_window": "128"}, "sliding_window: got '128', expected null or an integer; "),
    ("qwen2.5", {"layer_types": ["full_attention"] * 3}, "layer_types: got ['full_attention', 'full_attention', 'full_attention'], expected 'full_attention' or 'sliding_attention' for each of 4 layers; "),
    ("qwen2.5", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantization_config: got {'quant_method': 'gptq', 'bits': 4}, expected {}; "),
    ("qwen2.5", {"num_local_experts": 8}, "num_local_experts: got 8, expected no such field; "),
    ("qwen2.5", {"num_experts": 8}, "num_experts: got 8 and no num_local_experts, "),
    ("qwen2.5", {"partial_rotary_factor": 0.5}, "partial_rotary_factor: got 0.5, expected 1; "),
    ("qwen2.5", {"rms_norm_eps": "1e-6"}, "rms_norm_eps: got '1e-6' (str), expected float; "),
    ("qwen2.5", {"hidden_size": None}, "hidden_size: got None (NoneType), expected int; "),
    ("qwen2.5", {"num_hidden_layers": "4"}, "num_hidden_layers: got '4' (str), expected int; "),
    ("qwen2.5", {"num_hidden_layers": 0}, "num_hidden_layers: got 0, expected 1 to 512; "),
    ("qwen2.5", {"max_position_embeddings": KeyError}, "max_position_embeddings: got nothing, expected a value (int); "),
    ("qwen2.5", {"num_hidden_layers": 3}, "tensors: got 12 left over: model.layers.3."),
    ("qwen2.5", {"num_hidden_layers": 5}, "tensors: got 12 missing: model.layers.4."),
    ("qwen2.5", {"tie_word_embeddings": False}, "lm_head.weight: got nothing, expected an output matrix, as tie_word_embeddings is false; "),
    ("qwen3", {"tie_word_embeddings": True}, "lm_head.weight: got a matrix of its own, expected the embedding (tie_word_embeddings is true); "),
    ("qwen3", {"head_dim": KeyError}, "model.layers.0.self_attn.q_proj.weight: got shape [128, 64], expected [512, 64]; "),
    ("qwen2.5", {"intermediate_size": 128}, "model.layers.0.mlp.gate_proj.weight: got shape [96, 64], expected [128, 64]; "),
])
def test_bases_that_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, change: dict[str, Any], message: str) -> None:
    """In one sentence, with nothing written."""
    base = write_base(tmp_path / "base", kind)
    c = {k: v for k, v in (BASES[kind] | change).items() if v is not KeyError}
    (base / "config.json").write_text(json.dumps(c))
    assert message in error_of(capsys, base, "-o", tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base"]


def bad_tensors(change: Any) -> Any:
    def changed(t: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        change(t)
        return t
    return changed


@pytest.mark.parametrize("change, message", [
    (lambda t: t.pop("model.layers.2.self_attn.k_proj.bias"), "tensors: got 1 missing: model.layers.2.self_attn.k_proj.bias, expected "),
    (lambda t: t.update({"model.layers.0.self_attn.o_proj.bias": np.zeros(64, np.float32)}), "tensors: got 1 left over: model.layers.0.self_attn.o_proj.bias, expected "),
    (lambda t: t.update({"model.layers.0.self_attn.q_proj.weight.absmax": np.zeros(64, np.float32)}), "tensors: got 1 left over: "),
    (lambda t: t["model.layers.3.mlp.down_proj.weight"].__setitem__((5, 7), np.nan), "model.layers.3.mlp.down_proj.weight: got 1 NaN or infinite values, the first at [5, 7], "),
    (lambda t: [t.update({"module." + n: t.pop(n)}) for n in list(t)], "tensors: got names like 'module.model.embed_tokens.weight', of DistributedDataParallel or DeepSpeed, "),
    (lambda t: [t.update({n.removeprefix("model."): t.pop(n)}) for n in list(t)], "tensors: got names like 'embed_tokens.weight', expected 'model.embed_tokens.weight' among them; "),
    (lambda t: t.update({"model.layers.1.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32)}), "inv_freq: got other rotary frequencies, "),
])
def test_weights_that_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any, message: str) -> None:
    base = write_base(tmp_path / "base", tensors=bad_tensors(change))
    assert message in error_of(capsys, base, "-o", tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base"]


@pytest.mark.parametrize("args, message", [
    (["--window", "257"], "--window: tokens: got 257, expected 1 to 256, max_position_embeddings of the base; "), (["--window", "0"], "--window: tokens: got 0, expected 1 to 256"),
    (["--layers", "1,4"], "--layers: layer: got 4, expected 0 to 3; "), (["--layers", "1,0-2"], "--layers: layers: got 1,0,1,2, expected each once; "),
    (["--moe", "1"], "--moe: experts: got 1, expected 2 to 512; "), (["--moe", "4", "--moe-layers", "none"], "--moe-layers: layers: got none, expected some"),
    (["--moe", "4", "--moe-layers", "7"], "--moe-layers: layer: got 7, expected 0 to 3; "), (["--gate-rank", "65"], "--gate-rank: rank: got 65, expected 0 (a full matrix) to 64"),
])
def test_choices_that_a_base_does_not_allow(tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], message: str) -> None:
    assert message in error_of(capsys, write_base(tmp_path / "base"), "-o", tmp_path / "out", *args)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base"]


def test_a_window_wider_than_the_bases_own_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = write_base(tmp_path / "base", use_sliding_window=True, layer_types=["full_attention", "sliding_attention"] * 2)
    assert "--window: tokens: got 129, expected 1 to 128, which the base's own layers see; " in error_of(capsys, base, "-o", tmp_path / "out", "--window", "129")
    assert main([str(base), "-o", str(tmp_path / "out"), "--window", "128"]) == 0


@pytest.mark.parametrize("args", [["--layers", "1;2"], ["--layers", "\uff11"], ["--layers", "3-1"], ["--layers", ""], ["--window", "-1"], ["--window", "1e3"], ["--forget", "0"], ["--forget", "9:3"], ["--forget", "1:2:3"],
                                  ["--forget", "nan"], ["--norm-scale", "0"], ["--norm-scale", "inf"], ["--moe-layers", "1"], ["--moe-scale", "down"], ["--router-std", "0.2"],
                                  ["--moe", "2", "--moe-scale", "other"], ["--seed", "-3"], ["--max-shard-size", "5"], ["--gate-rank", "x"], ["more"]])
def test_options_that_mean_nothing(capsys: pytest.CaptureFixture[str], args: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["base", "-o", "out", *args])
    assert ("got" in capsys.readouterr().err) or args == ["more"] or "--moe-scale" in args


def test_every_option_has_a_row_with_its_default() -> None:
    rows = [line for line in (ROOT / "training" / "README.md").read_text().split("## sb-train")[0].splitlines() if line.startswith("| `-")]
    said = {row.split("`")[1] if "`--out`" not in row else "-o": row.split("|")[2] for row in rows}
    own = {a.option_strings[0]: a.default for a in parser()._actions if a.option_strings and a.option_strings[0] not in ("-h", "--version")}
    assert own.keys() == said.keys()
    for name, default in own.items():
        if isinstance(default, (int, float)) and not isinstance(default, bool) and default < 1000:
            assert f"{default:g}" in said[name], name
    assert "1:128" in said["--forget"] and own["--forget"] == (1, 128) and f"`{own['--moe-scale']}`" in said["--moe-scale"]


def test_where_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that is not there yet; what is there stays as it is."""
    base = write_base(tmp_path / "base")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "there").mkdir()
    before = sorted(p.name for p in tmp_path.rglob("*"))
    for name, message in (("file", "output: got an existing file, expected none; "), ("there", "output: got an existing folder, expected none; "), ("base", "got an existing folder"),
                          ("link", "output: got an existing file"), ("no/out", "output folder: got no such folder")):
        assert message in error_of(capsys, base, "-o", tmp_path / name)
    assert "no name" in error_of(capsys, base, "-o", "") and "standard output" in error_of(capsys, base, "-o", "-")
    assert "none: base: got no such folder" in error_of(capsys, tmp_path / "none", "-o", tmp_path / "out") and "got a file" in error_of(capsys, tmp_path / "file", "-o", tmp_path / "out")
    assert "got a LoRA adapter only" in error_of(capsys, adapter_only(tmp_path / "adapter"), "-o", tmp_path / "out")
    assert "tokenizer: got none, expected " in error_of(capsys, write_base(tmp_path / "mute", tokenizer=False), "-o", tmp_path / "out")
    assert "config.json: architectures: got ['GLAswaForCausalLM'], expected one of LlamaForCausalLM" in error_of(capsys, write_checkpoint(tmp_path / "own"), "-o", tmp_path / "out")
    assert sorted(p.name for p in tmp_path.rglob("*") if p.parts[len(tmp_path.parts)] not in ("adapter", "mute", "own")) == before


def adapter_only(folder: Path) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    return folder


def test_what_fails_or_is_killed_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk and an interrupt in the middle; a kill leaves a hidden folder, which the next run removes, but not one in use."""
    from sb_init import write
    base = write_base(tmp_path / "base")

    def fail(error: BaseException) -> Any:
        def blocks(item: Any) -> Any:
            if item.name.startswith("model.layers.2"):
                raise error
            yield b"\0" * item.nbytes
        return blocks
    with monkeypatch.context() as m:
        m.setattr(write, "blocks", fail(OSError(28, "No space left on device")))
        assert "disk space: got No space left on device, expected room; " in error_of(capsys, base, "-o", tmp_path / "out")
        m.setattr(write, "blocks", fail(KeyboardInterrupt()))
        assert main([str(base), "-o", str(tmp_path / "out")]) == 130 and "nothing was written" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base"]
    code = ("import sys, time\nfrom sb_init import write\nfrom sb_init.cli import main\n"
            "def blocks(item):\n    print('writing', flush=True)\n    time.sleep(60)\n    yield b''\nwrite.blocks = blocks\nmain(sys.argv[1:])")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "training"), str(ROOT / "converter")])}
    other = subprocess.Popen([sys.executable, "-c", code, str(base), "-o", str(tmp_path / "out")], env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "writing\n"
        left = [p.name for p in tmp_path.iterdir() if p.name.startswith(".out.")]
        assert len(left) == 1 and main([str(base), "-o", str(tmp_path / "out2")]) == 0 and main([str(base), "-o", str(tmp_path / "out")]) == 0
        assert (tmp_path / left[0]).is_dir()  # its writer lives
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
    (tmp_path / "out").rename(tmp_path / "out3")
    assert main([str(base), "-o", str(tmp_path / "out")]) == 0 and not [p for p in tmp_path.iterdir() if p.name.startswith(".out.")]


def test_memory_is_a_block_of_a_tensor(tmp_path: Path) -> None:
    """Of a hundred megabytes and more a few are held at a time."""
    base = write_base(tmp_path / "base", hidden_size=512, intermediate_size=2048, num_hidden_layers=4, num_attention_heads=8, dtype="BF16", torch_dtype="bfloat16")
    code = ("import sys, threading, time\nfrom sb_init.cli import main\n"
            "def held():\n    return next(int(l.split()[1]) >> 10 for l in open('/proc/self/status') if l.startswith('RssAnon'))\n"
            "before, peak = held(), 0\n"
            "def watch():\n    global peak\n    while True:\n        peak = max(peak, held())\n        time.sleep(0.005)\n"
            "threading.Thread(target=watch, daemon=True).start()\nassert main(sys.argv[1:]) == 0\nprint(peak - before)")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "training"), str(ROOT / "converter")])}
    done = subprocess.run([sys.executable, "-c", code, str(base), "-o", str(tmp_path / "out"), "--moe", "4"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sum(f.stat().st_size for f in (tmp_path / "out").glob("*.safetensors")) > 120e6 and int(done.stdout.split()[-1]) < 48, done.stdout


def test_fields_of_real_configs_are_understood(caplog: pytest.LogCaptureFixture) -> None:
    """config.json of published models, as they are: no warning, no refusal."""
    llama = {"architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 128000, "eos_token_id": 128001, "head_dim": 64, "hidden_act": "silu",
             "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": False, "model_type": "llama",
             "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
             "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"},
             "rope_theta": 500000.0, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "transformers_version": "4.45.0.dev0", "use_cache": True, "vocab_size": 128256}
    qwen = {"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 896,
            "initializer_range": 0.02, "intermediate_size": 4864, "max_position_embeddings": 32768, "max_window_layers": 24, "model_type": "qwen2", "num_attention_heads": 14,
            "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": True,
            "torch_dtype": "bfloat16", "transformers_version": "4.40.1", "use_cache": True, "use_mrope": False, "use_sliding_window": False, "vocab_size": 151936}
    for raw, head in ((llama, 64), (qwen, 64)):
        assert config_of(raw, "config.json").head_dim == head
    assert not caplog.text
