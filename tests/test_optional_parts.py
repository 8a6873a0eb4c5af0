"""Parts of the gla_swa format that a checkpoint may have or not: scaled rotary embeddings, norms of q and k, any head size, no biases, experts.

The plain PyTorch model says what each is; the converter carries it, and the graph computes the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from conftest import TINY, write_bpe  # noqa: E402
from sb_convert.config import Config  # noqa: E402
from sb_convert.errors import ConvertError  # noqa: E402
from sb_convert.reference import Model, State  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = TINY | {"num_hidden_layers": 4, "attn_layers": [1, 3], "torch_dtype": "float32"}
ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
EXPERTS = {"num_local_experts": 3, "shared_intermediate_size": 32}
PARTS: dict[str, dict[str, Any]] = {
    "rope": {"rope_scaling": ROPE, "rope_theta": 100.0},
    "norms": {"use_qk_norm": True},
    "larger heads": {"head_dim": 32},
    "smaller heads": {"head_dim": 8, "tie_word_embeddings": True},
    "no biases": {"qkv_bias": False},
    "experts": EXPERTS,
    "some experts": EXPERTS | {"dense_mlp_layers": [0, 3], "norm_topk_prob": True, "shared_intermediate_size": 96},
    "all": EXPERTS | {"rope_scaling": ROPE, "rope_theta": 100.0, "use_qk_norm": True, "head_dim": 32, "qkv_bias": False, "tie_word_embeddings": True},
}


def random_model(part: str, **change: Any) -> Model:
    """Every part moves the logits: norms and biases are no ones and zeros."""
    generator = torch.Generator().manual_seed(7)
    model = Model(Config.from_json(SHAPE | PARTS[part] | change)).init_weights(7)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(1 + 0.3 * noise if name.endswith("norm.weight") else 0.5 * noise if p.dim() == 1 else noise * 1.3 / p.shape[1] ** 0.5)
    return model.eval()


TOKENS = np.random.default_rng(3).integers(0, TINY["vocab_size"], 48)


def logits_of(model: Model, piece: int = len(TOKENS)) -> np.ndarray:
    state: State | None = None
    out = []
    with torch.no_grad():
        for at in range(0, len(TOKENS), piece):
            logits, state = model(torch.tensor(TOKENS[None, at:at + piece]), state)
            out.append(logits[0].numpy())
    return np.concatenate(out)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """made(part): the checkpoint's folder and the logits of TOKENS, once."""
    folder, held = tmp_path_factory.mktemp("parts"), {}

    def one(part: str) -> tuple[Path, np.ndarray]:
        if part not in held:
            model, path = random_model(part), folder / part.replace(" ", "-")
            model.save_pretrained(path, torch.float32)
            write_bpe(path)
            held[part] = path, logits_of(model)
        return held[part]
    return one


# --- what they are ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("part", PARTS)
def test_pieces_and_files_give_the_same(made: Any, part: str) -> None:
    """And config.json says of a part what reads as it, and nothing of one that is not there."""
    folder, logits = made(part)
    again = Model.from_pretrained(folder)
    assert np.array_equal(logits_of(again), logits)
    np.testing.assert_allclose(logits_of(again, 5), logits, atol=1e-4)
    said = json.loads((folder / "config.json").read_text())
    keys = {"rope_scaling", "use_qk_norm", "head_dim", "qkv_bias", "num_local_experts", "shared_intermediate_size"}
    assert {k for k in keys if said.get(k) is not None} == keys & PARTS[part].keys()
    assert all(said[k] == v for k, v in PARTS[part].items())


@pytest.mark.parametrize("part", ["rope", "norms", "some experts"])
def test_each_part_moves_the_logits(part: str) -> None:
    """Without it, on the same weights, they are others; so tests that compare them see it. (The other parts are tensors or shapes.)"""
    change = {"rope": {"rope_scaling": None}, "norms": {"use_qk_norm": False}, "some experts": {"norm_topk_prob": False}}[part]
    model, other = random_model(part), Model(Config.from_json(SHAPE | PARTS[part] | change))
    other.load_state_dict(model.state_dict(), strict=not PARTS[part].get("use_qk_norm"))
    assert np.abs(logits_of(other) - logits_of(model)).max() > 0.1


def test_rope_factors_are_those_of_llama_3() -> None:
    """Against its own words: by wave length, and smooth between the two bounds."""
    c = Config.from_json(TINY | {"hidden_size": 512, "num_attention_heads": 4, "rope_theta": 5e5,
                                 "rope_scaling": ROPE | {"factor": 32.0, "original_max_position_embeddings": 8192}})
    want = []
    for i in range(0, 128, 2):
        wave = 2 * np.pi * 5e5 ** (i / 128)
        smooth = (8192 / wave - 1) / 3
        want.append(1 if wave < 8192 / 4 else 32 if wave > 8192 else 1 / ((1 - smooth) / 32 + smooth))
    assert c.rope_factors is not None and np.allclose(c.rope_factors, want, rtol=1e-6) and 1 < np.unique(c.rope_factors).size < 64
    assert Config.from_json(TINY).rope_factors is None
    assert np.allclose(c.rope_frequencies * c.rope_factors, 5e5 ** (-np.arange(64) / 64))


@pytest.mark.parametrize("change, message", [
    ({"rope_scaling": ROPE | {"factor": 0.5}}, r"rope_scaling\.factor: got 0\.5, expected 1 or more \(llama3\); "),
    ({"rope_scaling": ROPE | {"factor": "8"}}, r"rope_scaling\.factor: got '8', expected a number above 0 \(llama3\); "),
    ({"rope_scaling": ROPE | {"high_freq_factor": 1.0}}, r"rope_scaling\.high_freq_factor: got 1\.0, expected more than low_freq_factor, 1\.0; "),
    ({"rope_scaling": {k: v for k, v in ROPE.items() if k != "low_freq_factor"}}, r"rope_scaling\.low_freq_factor: got None, expected a number above 0"),
    ({"rope_scaling": ROPE | {"original_max_position_embeddings": 64.5}}, r"rope_scaling\.original_max_position_embeddings: got 64\.5, expected an integer from 1"),
    ({"rope_scaling": ROPE | {"beta_fast": 32}}, r"rope_scaling\.beta_fast: got 32, expected none beside factor, "),
    ({"rope_scaling": ROPE | {"type": "yarn"}}, r"rope_scaling: got .*'yarn'\}, expected null; "),
    ({"rope_parameters": {"sliding_attention": ROPE, "linear_attention": {"rope_type": "default"}}}, r"rope_scaling: got .*expected one value; "),
    ({"rope_parameters": {"sliding_attention": ROPE, "linear_attention": ROPE | {"factor": 4.0}}}, r"rope_scaling: got .*expected one value; "),
    ({"head_dim": 31}, r"head_dim: got 31, expected an even head size"),
    ({"head_dim": 16.0}, r"head_dim: got 16\.0, expected hidden_size / num_attention_heads; "),
    ({"num_attention_heads": 5, "num_key_value_heads": 1}, r"num_attention_heads: got 5, expected a divisor of hidden_size = 64; .* or give head_dim"),
    ({"head_dim": 2**30}, r"head_dim: got 1073741824, expected num_attention_heads \* head_dim below"),
    ({"use_qk_norm": 1}, r"use_qk_norm: got 1 \(int\), expected bool; "),
    ({"qkv_bias": "yes"}, r"qkv_bias: got 'yes' \(str\), expected bool; "),
    ({"num_local_experts": 3}, r"shared_intermediate_size: got 0, expected an integer from 1"),
    ({"num_local_experts": 513, "shared_intermediate_size": 8}, r"num_local_experts: got 513, expected 1 to 512; "),
    ({"num_local_experts": -1, "shared_intermediate_size": 8}, r"num_local_experts: got -1, expected "),
    ({"shared_intermediate_size": 8}, r"shared_intermediate_size: got 8, expected 0 where num_local_experts is 0; "),
    ({"norm_topk_prob": True}, r"norm_topk_prob: got True, expected false where num_local_experts is 0; "),
    (EXPERTS | {"num_experts_per_topk": 2}, r"num_experts_per_topk: got 2, expected 1; "),
    (EXPERTS | {"dense_mlp_layers": [2]}, r"dense_mlp_layers: got \(2,\), expected indices from 0 to 1; "),
    ({"num_experts": 8}, r"num_experts: got 8 and no num_local_experts, expected num_local_experts; "),
    (EXPERTS | {"num_experts": 8}, r"num_experts: got 8, expected what num_local_experts says \(3\); "),
    ({"attention_bias": True}, r"attention_bias: got True, expected false; "),
])
def test_values_that_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConvertError, match=rf"config\.json: {message}"):
        Config.from_json(TINY | change)


@pytest.mark.parametrize("change", [
    {"num_experts": 0, "num_local_experts": None, "moe_intermediate_size": None}, {"head_dim": None, "use_qk_norm": None, "qkv_bias": None}, {"num_local_experts": 0},
    {"rope_theta": None, "rope_parameters": {"sliding_attention": {"rope_theta": 1e6, **ROPE}, "linear_attention": {"rope_theta": 1e6, **ROPE}}, "rope_scaling": ROPE}])
def test_values_that_say_nothing_new(change: dict[str, Any]) -> None:
    plain = TINY | {k: v for k, v in {"rope_scaling": change.get("rope_scaling")}.items() if v}
    assert Config.from_json(TINY | change) == Config.from_json(plain)
