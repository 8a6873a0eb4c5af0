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

import gguf  # noqa: E402
from binding_models import ONE  # noqa: E402
from conftest import TINY, write_bpe  # noqa: E402
from gguf_parts import Parts, zeros  # noqa: E402
from peft_adapters import adapter_tensors, added, write_adapter  # noqa: E402
from sb_convert.cli import main  # noqa: E402
from sb_convert.config import Config  # noqa: E402
from sb_convert.convert import Options, convert  # noqa: E402
from sb_convert.errors import ConvertError  # noqa: E402
from sb_convert.numerics import kl_divergence  # noqa: E402
from sb_convert.reference import Model, State  # noqa: E402
from sb_convert.verify import verify_tensors  # noqa: E402
from spikingbrain_cpp import Llama, LlamaError  # noqa: E402
from test_tools import tool  # noqa: E402

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


def fork_logits(path: Path, tokens: np.ndarray) -> np.ndarray:
    with Llama(path, logits_all=True, **ONE) as llm:
        llm.eval(tokens)
        return llm.scores[:len(tokens)].copy()


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


# --- converter and graph --------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def gguf_of(made: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """gguf_of(part): F32, converted once, its tensors verified."""
    folder, held = tmp_path_factory.mktemp("gguf"), {}

    def one(part: str) -> Path:
        if part not in held:
            result = convert(made(part)[0], Options(folder / f"{part}.gguf", "f32"), say=lambda _: None)
            assert verify_tensors(result, lambda _: None)
            held[part] = result.files[0]
        return held[part]
    return one


@pytest.mark.parametrize("part", PARTS)
def test_golden_floats(made: Any, gguf_of: Any, part: str) -> None:
    """At once, and by the pieces that a chat makes. The reference in double: in float PyTorch is 2.5e-4 off on some processors."""
    want = logits_of(Model.from_pretrained(made(part)[0], dtype=torch.float64))
    np.testing.assert_allclose(fork_logits(gguf_of(part), TOKENS), want, atol=1e-4)
    with Llama(gguf_of(part), logits_all=True, **ONE) as llm:
        for at in range(0, len(TOKENS), 7):
            llm.eval(TOKENS[at:at + 7])
        np.testing.assert_allclose(llm.scores[:len(TOKENS)], want, atol=1e-4)


@pytest.mark.parametrize("options", [("q4_0", "--spike"), ("q8_0",), ("int8", "--spike")])
def test_all_parts_in_blocks_and_spikes(made: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]) -> None:
    """The converter's own check: the graph against the reference, on the weights as they are stored."""
    assert main([str(made("all")[0]), "-o", str(tmp_path / "x.gguf"), "--verify", "--outtype", *options]) == 0, capsys.readouterr()
    assert "verify: logits against the reference" in capsys.readouterr().out


def test_files_say_what_upstreams_do(gguf_of: Any) -> None:
    """Names that upstream's own Llama and Qwen3 files have."""
    reader = gguf.GGUFReader(gguf_of("all"))
    tensors = {t.name: t.shape.tolist() for t in reader.tensors}
    assert tensors["rope_freqs.weight"] == [16] and tensors["blk.0.attn_q_norm.weight"] == tensors["blk.3.attn_k_norm.weight"] == [32]
    assert tensors["blk.1.attn_q.weight"] == [64, 128] and tensors["blk.1.attn_output.weight"] == [128, 64]
    assert not any(name.startswith("blk.") and name.endswith(("attn_q.bias", "attn_k.bias", "attn_v.bias")) for name in tensors) and "output.weight" not in tensors
    assert reader.get_field("spikingbrain.attention.key_length").contents() == 32 and reader.get_field("spikingbrain.expert_count").contents() == 3


F32, F16 = gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16


@pytest.mark.parametrize("part, changed, message", [
    ("norms", {"blk.2.attn_k_norm.weight": None}, r"blk\.2\.attn_k_norm\.weight"),
    ("norms", {f"blk.{il}.attn_q_norm.weight": None for il in range(4)}, r"blk\.0\.attn_q_norm\.weight"),
    ("norms", {"blk.1.attn_q_norm.weight": zeros([8], F32)}, r"blk\.1\.attn_q_norm\.weight"),
    ("norms", {"blk.1.attn_q_norm.weight": zeros([16], F16)}, r"blk\.1\.attn_q_norm\.weight: got type f16, expected f32"),
    ("norms", {"blk.1.attn_v.bias": None}, r"blk\.1\.attn_v\.bias"),
    ("no biases", {"blk.1.attn_v.bias": zeros([32], F32)}, r"blk\.0\.attn_q\.bias"),
    ("rope", {"rope_freqs.weight": zeros([8], F32)}, r"rope_freqs\.weight: got a factor of 0, expected finite numbers above 0"),
    ("rope", {"rope_freqs.weight": ([8], F32, np.full(8, np.nan, np.float32).tobytes())}, r"rope_freqs\.weight: got a factor of -?nan, expected finite"),
    ("rope", {"rope_freqs.weight": zeros([16], F32)}, r"rope_freqs\.weight"),
    ("experts", {"blk.1.ffn_up_exps.weight": None}, r"blk\.1\.ffn_up_exps\.weight"),
])
def test_a_file_without_one_of_them_is_refused(gguf_of: Any, tmp_path: Path, part: str, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(LlamaError, match=message):
        Llama(Parts(gguf_of(part)).write(tmp_path / "x.gguf", tensors=changed), **ONE).close()


def test_a_plain_file_is_what_it_was(gguf_of: Any, tmp_path: Path) -> None:
    """Factors of 1 change nothing; others do, so they are read."""
    plain, tokens = Parts(gguf_of("norms")), TOKENS[:20]
    want = fork_logits(gguf_of("norms"), tokens)
    for factor, same in ((1, True), (2, False)):
        path = plain.write(tmp_path / "x.gguf", tensors={"rope_freqs.weight": ([8], F32, np.full(8, factor, np.float32).tobytes())})
        assert np.array_equal(fork_logits(path, tokens), want) is same


def test_tools_know_them(made: Any, gguf_of: Any, tmp_path: Path) -> None:
    """Quantised, and with an adapter: of heads of another size, and of experts."""
    path = gguf_of("all")
    want, quantised = fork_logits(path, TOKENS), tmp_path / "q8.gguf"
    tool("sb-quantize", path, quantised, "Q8_0", 1)
    assert float(kl_divergence(want, fork_logits(quantised, TOKENS)).mean()) < 0.05
    modules = {"model.layers.1.attn.q_proj": ((128, 64), 4), "model.layers.0.attn.o_proj": ((64, 128), 4),
               "model.layers.2.block_sparse_moe.experts.1.down_proj": ((64, 96), 4)}
    tensors = adapter_tensors(modules)
    assert main([str(write_adapter(tmp_path / "lora", tensors)), "--base", str(made("all")[0]), "-o", str(tmp_path / "lora.gguf")]) == 0
    merged = Model.from_pretrained(made("all")[0])
    with torch.no_grad():
        for name, delta in added(tensors, {"": 2.0}).items():
            merged.get_parameter(name).add_(torch.from_numpy(delta))
    with Llama(path, lora_path=str(tmp_path / "lora.gguf"), logits_all=True, **ONE) as llm:
        llm.eval(TOKENS)
        np.testing.assert_allclose(llm.scores[:len(TOKENS)], logits_of(merged), atol=1e-3)
