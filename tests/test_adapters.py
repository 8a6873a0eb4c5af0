"""PEFT LoRA adapters: converted they do what the merged checkpoint does; what a GGUF adapter cannot hold is refused by name."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from binding_models import ONE, convert, logits_of, make_tiny, tokens_of
from conftest import write_checkpoint
from moe_checkpoints import write_moe
from peft_adapters import FIELDS, PREFIX, adapter_tensors, added, write_adapter

from sb_convert.cli import main as sb_convert
from sb_convert.numerics import kl_divergence
from spikingbrain_cpp import Llama, ModelLoadError
from spikingbrain_cpp.tools import tool_path

Q0, V1, DOWN1 = "model.layers.0.attn.q_proj", "model.layers.1.attn.v_proj", "model.layers.1.mlp.down_proj"
SOME = {Q0: (64, 64), V1: (32, 64), DOWN1: (64, 96)}
LOW_RANK = {"model.layers.0.attn.gk_proj.0": (16, 64), "model.layers.0.attn.gk_proj.1": (32, 16)}
ENDS = {"model.embeddings": (288, 64), "lm_head": (288, 64)}
EXPERT = "model.layers.1.block_sparse_moe.experts."
MOE = {"model.layers.0.attn.linear_attn.k_proj": (64, 128), "model.layers.0.attn.vanilla_attn.q_proj": (128, 128), "model.layers.1.attn.out_proj": (128, 128),
       "model.layers.1.block_sparse_moe.gate": (3, 128), "model.layers.1.shared_mlp.down_proj": (128, 256),
       f"{EXPERT}0.up_proj": (128, 128), f"{EXPERT}2.up_proj": (128, 128)}


def ranked(modules: dict[str, tuple[int, int]], **ranks: int) -> dict[str, tuple[tuple[int, int], int]]:
    """Each with its rank: 4, or that of the first key that is in its name."""
    return {m: (shape, next((r for key, r in ranks.items() if key in m), 4)) for m, shape in modules.items()}


def scores(path: Path, n: int = 20, **options: Any) -> np.ndarray:
    return logits_of(path, tokens_of(n), **options)


def converted(adapter: Path, base: Path, out: Path, *options: str) -> Path:
    assert sb_convert([str(adapter), "--base", str(base), "-o", str(out), *options]) == 0
    return out


def refusal(capsys, adapter: Path, base: Path, *options: str) -> str:
    """The one line of an adapter that is not converted; nothing may be written."""
    out = adapter.parent / "refused.gguf"
    assert sb_convert([str(adapter), "--base", str(base), "-o", str(out), *options]) == 1
    assert not [p.name for p in adapter.parent.iterdir() if "refused" in p.name]
    message = capsys.readouterr().err.strip()
    assert "\n" not in message and message.startswith("sb-convert: ")
    return message


# --- what it does ---------------------------------------------------------------------------------------------

# name: base, modules with ranks, fields of adapter_config.json, the factor of each module ("": all others)
MERGED: dict[str, tuple[dict[str, Any], dict[str, tuple[tuple[int, int], int]], dict[str, Any], dict[str, float]]] = {
    "some": ({}, ranked(SOME), {}, {"": 2}),
    "all kinds": ({}, ranked(SOME | LOW_RANK | ENDS), {"lora_alpha": 6}, {"": 1.5}),
    "full gate": ({"gate_rank": 0}, ranked(SOME | {"model.layers.0.attn.gk_proj": (32, 64)}), {}, {"": 2}),
    "rslora": ({}, ranked(SOME), {"use_rslora": True}, {"": 4}),
    "patterns": ({}, ranked(SOME, q_proj=2, down=9), {"rank_pattern": {"layers.0.attn.q_proj": 2, r".*\.mlp\..*": 9}, "alpha_pattern": {"down_proj": 3, "v_proj": 0}},
                 {Q0: 4, V1: 0, DOWN1: 1 / 3}),
    "both": ({}, ranked(SOME, q_proj=1), {"rank_pattern": {Q0: 1}, "alpha_pattern": {V1: -5.5}, "use_rslora": True}, {Q0: 8, V1: -2.75, DOWN1: 4}),
    "no effect": ({}, ranked(SOME), {"lora_alpha": 0}, {"": 0}),
    "tied": ({"tie_word_embeddings": True}, ranked(SOME), {}, {"": 2}),
    "experts": ({"moe": True}, ranked(MOE, **{"experts.2": 7}), {"rank_pattern": {r"experts\.2\.up_proj": 7}, "alpha_pattern": {r"experts\.2\..*": 21}},
                {"": 2, f"{EXPERT}2.up_proj": 3}),
}


@pytest.mark.parametrize("case", MERGED)
def test_an_adapter_equals_the_merged_checkpoint(tmp_path, case):
    config, modules, fields, scaling = MERGED[case]
    tensors = adapter_tensors(modules)
    delta = added(tensors, scaling)

    def write(folder: Path, merge: bool) -> Path:
        add = (lambda t: {n: x + delta[n] if n in delta else x for n, x in t.items()}) if merge else None
        return write_moe(folder, dtype="F32", tensors=add, num_meta_tokens=0) if "moe" in config else write_checkpoint(folder, dtype="F32", tensors=add, **config)
    base = write(tmp_path / "base", False)
    lora = converted(write_adapter(tmp_path / "adapter", tensors, **fields), base, tmp_path / "lora.gguf")
    merged = scores(convert(write(tmp_path / "merged", True), tmp_path / "merged.gguf", "--outtype", "f32"))
    model = convert(base, tmp_path / "base.gguf", "--outtype", "f32")
    assert np.abs(scores(model, lora_path=lora) - merged).max() < 1e-4
    assert case == "no effect" or np.abs(scores(model) - merged).max() > 0.1


@pytest.mark.parametrize("outtype, spiking, bound", [("f32", True, 1e-5), ("int8", False, 1e-2), ("int8", True, 3e-2), ("q4_0", False, 0.1), ("q4_0", True, 0.2)])
def test_adapters_read_the_floats_of_any_base(tmp_path, one_thread, outtype, spiking, bound):
    """As in PEFT: W spike(x) + B A x, whatever W is stored as."""
    torch = pytest.importorskip("torch")
    from sb_convert.reference import Model, Spike
    base, tensors = write_checkpoint(tmp_path / "base", hidden_size=128, intermediate_size=128), adapter_tensors(ranked({Q0: (128, 128), V1: (64, 128), DOWN1: (128, 128)}))
    lora = converted(write_adapter(tmp_path / "adapter", tensors), base, tmp_path / "lora.gguf")
    model = convert(base, tmp_path / "model.gguf", "--outtype", outtype, *(["--spike"] if spiking else []))
    reference = Model.from_pretrained(base, Spike() if spiking else None)
    plain = reference(torch.from_numpy(tokens_of(20)).long()[None])[0][0].detach()
    for module in (Q0, V1, DOWN1):
        a, b = (torch.from_numpy(tensors[f"{PREFIX}{module}.lora_{half}.weight"]) for half in "AB")
        reference.get_submodule(module).register_forward_hook(lambda _, x, y, a=a, b=b: y + x[0] @ a.T @ b.T * 2)
    want = reference(torch.from_numpy(tokens_of(20)).long()[None])[0][0].detach()

    def divergence(got: np.ndarray) -> float:
        return float(kl_divergence(want.numpy(), got).mean())
    assert divergence(scores(model, lora_path=lora)) < bound < divergence(plain.numpy())


def test_the_command_line_takes_several_each_at_its_scale(tmp_path):
    base = write_checkpoint(tmp_path / "base", dtype="F32")
    halves = [adapter_tensors(ranked(modules), seed) for seed, modules in ((3, {Q0: (64, 64)}), (4, SOME))]
    one, two = (added(t, {"": 2}) for t in halves)
    loras = [converted(write_adapter(tmp_path / f"adapter{i}", t), base, tmp_path / f"lora{i}.gguf") for i, t in enumerate(halves)]
    merged = write_checkpoint(tmp_path / "merged", dtype="F32", tensors=lambda t: {n: x + one.get(n, 0) + two.get(n, 0) / np.float32(2) for n, x in t.items()})

    def text(checkpoint: Path, *options: object) -> bytes:
        model = convert(checkpoint, tmp_path / "model.gguf", "--outtype", "f32", "--force")
        command = [tool_path("llama-completion"), "-m", model, "-p", "the cat sat", "-n", "24", "--temp", "0", "-t", "1", "-no-cnv", "--ignore-eos", *options]
        run = subprocess.run([str(x) for x in command], capture_output=True)
        assert run.returncode == 0, run.stderr[-500:]
        return run.stdout
    assert text(base, "--lora", loras[0], "--lora-scaled", f"{loras[1]}:0.5") == text(merged) != text(base)


@pytest.mark.parametrize("form, dtype, outtype", [("safetensors", "BF16", "auto"), ("bin", "BF16", "f32"), ("safetensors", "F16", "f16"), ("safetensors", "F32", "bf16")])
def test_every_form_and_type(tmp_path, form, dtype, outtype):
    base, tensors = write_checkpoint(tmp_path / "base"), adapter_tensors(ranked(SOME))
    lora = converted(write_adapter(tmp_path / "adapter", tensors, form, dtype), base, tmp_path / "lora.gguf", "--outtype", outtype)
    for t in gguf.GGUFReader(lora).tensors:
        assert t.tensor_type.name == {"auto": "F32"}.get(outtype, outtype.upper())
        module = {"blk.0.attn_q.weight": Q0, "blk.1.attn_v.weight": V1, "blk.1.ffn_down.weight": DOWN1}[t.name[:-7]]
        want = tensors[f"{PREFIX}{module}.lora_{t.name[-1].upper()}.weight"]
        assert np.abs(gguf.quants.dequantize(t.data, t.tensor_type) - want).max() < 2e-3


def test_keys_of_the_file(tmp_path, capsys):
    base = write_checkpoint(tmp_path / "base")
    folder = write_adapter(tmp_path / "poet", adapter_tensors(ranked(SOME)), alora_invocation_tokens=[5, 287], base_model_name_or_path="org/model")
    assert sb_convert([str(folder), "--base", str(base)]) == 0  # NAME-TYPE.gguf in the adapter's folder
    assert "poet-F32.gguf: adapter of 3 matrices, rank 4, f32, " in capsys.readouterr().out
    held = {f.name: f.contents() for f in gguf.GGUFReader(folder / "poet-F32.gguf").fields.values()}
    assert {k: held[k] for k in ("general.type", "general.architecture", "adapter.type", "adapter.lora.alpha", "adapter.alora.invocation_tokens",
                                 "general.name", "general.base_model.0.name")} == {
        "general.type": "adapter", "general.architecture": "spikingbrain", "adapter.type": "lora", "adapter.lora.alpha": 8.0,
        "adapter.alora.invocation_tokens": [5, 287], "general.name": "Poet", "general.base_model.0.name": "org/model"}
    assert sb_convert([str(folder), "--base", str(base), "--dry-run", "-o", str(tmp_path / "x.gguf")]) == 0 and not (tmp_path / "x.gguf").exists()
    assert "blk.0.attn_q.weight.lora_a                         64x4 F32            1,024" in capsys.readouterr().out


def test_what_stays_the_bases_own(tmp_path, capsys):
    """The sinks' constants cannot be carried, and that is said; copies of the base's matrices, which PEFT saves, can be left out."""
    base = write_moe(tmp_path / "moe")
    converted(write_adapter(tmp_path / "a", adapter_tensors(ranked(MOE))), base, tmp_path / "a.gguf")
    assert "the constants of the 5 sinks (attn_k.sinks, attn_v.sinks, time_mix_key.state) stay the base's" in capsys.readouterr().out
    converted(write_adapter(tmp_path / "b", adapter_tensors(ranked({"lm_head": (288, 128)}))), base, tmp_path / "b.gguf")
    assert "sinks" not in capsys.readouterr().out
    held: dict[str, np.ndarray] = {}
    base = write_checkpoint(tmp_path / "base", dtype="F32", tensors=held.update)
    tensors = adapter_tensors(ranked({"lm_head": (288, 64)}))
    copy = tensors | {f"{PREFIX}lm_head.base_layer.weight": held["lm_head.weight"], f"{PREFIX}model.embeddings.weight": held["model.embeddings.weight"]}
    converted(write_adapter(tmp_path / "c", copy, dtype="BF16", target_modules=["lm_head"]), base, tmp_path / "c.gguf")
    assert capsys.readouterr().out.count(": the base's own, left out") == 2
    copy[f"{PREFIX}model.embeddings.weight"] = held["model.embeddings.weight"] + 1
    assert "model.embeddings.weight: got shape [288, 64], and other values than the base's" in refusal(capsys, write_adapter(tmp_path / "d", copy, target_modules=["lm_head"]), base)


# --- what is refused ------------------------------------------------------------------------------------------

FIELDS_REFUSED = [
    ({"peft_type": "LOHA"}, "peft_type: got \"LOHA\", expected \"LORA\"; merge the adapter"), ({"peft_type": ...}, "peft_type: got nothing"),
    ({"r": 0}, "r: got 0, expected an integer of 1 or more"), ({"r": ...}, "r: got nothing"), ({"r": True}, "r: got true"), ({"r": "4"}, "r: got \"4\""),
    ({"lora_alpha": ...}, "lora_alpha: got nothing, expected a number below 1e30"), ({"lora_alpha": float("nan")}, "lora_alpha: got NaN"), ({"lora_alpha": "8"}, "lora_alpha: got \"8\""),
    ({"use_rslora": 1}, "use_rslora: got 1, expected true or false"), ({"rank_pattern": {"q_proj": 0}}, "rank_pattern: got {\"q_proj\": 0}"), ({"rank_pattern": []}, "rank_pattern: got []"),
    ({"alpha_pattern": {"q_proj": None}}, "alpha_pattern: got"), ({"alpha_pattern": {"(": 1}}, "alpha_pattern: got '(.*\\\\.)?(()$'"),
    ({"target_modules": None}, "target_modules: got nothing"), ({"target_modules": 5}, "target_modules: got 5"), ({"target_modules": "("}, "target_modules: got"),
    ({"target_modules": ["q_proj", "v_proj", "down_proj"]}, "target_modules: got names for model.layers.0.attn.v_proj, model.layers.0.mlp.down_proj, model.layers.1.attn.q_proj, which have no tensors"),
    ({"target_modules": [Q0, V1]}, f"target_modules: got no name for {DOWN1!r}, which has an adapter"),
    ({"exclude_modules": ["v_proj"]}, f"target_modules: got no name for {V1!r}"), ({"layers_to_transform": [1]}, f"target_modules: got no name for {Q0!r}"), ({"layers_to_transform": "1"}, "layers_to_transform: got \"1\""),
    ({"bias": "all"}, "bias: got \"all\", expected \"none\": another value has trained biases"), ({"fan_in_fan_out": True}, "fan_in_fan_out: got true"),
    ({"modules_to_save": ["lm_head"]}, "modules_to_save: got [\"lm_head\"]"), ({"use_dora": True}, "use_dora: got true"), ({"lora_bias": True}, "lora_bias: got true"),
    ({"trainable_token_indices": [1]}, "trainable_token_indices: got [1]"), ({"target_parameters": ["x"]}, "target_parameters: got"), ({"layer_replication": [[0, 2]]}, "layer_replication: got"),
    ({"use_qalora": True}, "use_qalora: got true"), ({"use_bdlora": {"nblocks": 2}}, "use_bdlora: got"), ({"arrow_config": {"top_k": 3}}, "arrow_config: got"),
    ({"kasa_config": {"beta": 1}}, "kasa_config: got"), ({"monteclora_config": {"a": 1}}, "monteclora_config: got"), ({"megatron_config": {"a": 1}}, "megatron_config: got"),
    *(({"init_lora_weights": how}, f"init_lora_weights: got {json.dumps(how)}, expected one of true") for how in ("pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga", 1)),
    ({"alora_invocation_tokens": [288]}, "alora_invocation_tokens: got 288, expected 0 to 287"), ({"alora_invocation_tokens": "a"}, "alora_invocation_tokens: got \"a\""),
    ({"of_the_future": 0.5}, "of_the_future: got 0.5, expected null: another value has a meaning that is not known here; take the field out"),
]
FIELDS_TAKEN = [{"init_lora_weights": how} for how in ("gaussian", "eva", "orthogonal", "mica", False, None)] + [
    {"lora_dropout": 0.3, "task_type": "CAUSAL_LM", "corda_config": {"corda_method": "ipm"}, "of_the_future": None, "runtime_config": {"a": 1}},
    {"target_modules": r"model\.layers\.(0\.attn\.q_proj|1\.(attn\.v|mlp\.down)_proj)"}, {"target_modules": ["layers.0.attn.q_proj", "1.attn.v_proj", "down_proj"], "exclude_modules": r".*0\.mlp.*"},
    {key: ... for key in FIELDS if key not in ("r", "lora_alpha", "peft_type")}]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("base") / "base")


@pytest.mark.parametrize("fields, message", FIELDS_REFUSED, ids=lambda x: "-".join(map(str, x)) if isinstance(x, dict) else "")
def test_fields_refused_by_name(tmp_path, base, capsys, fields, message):
    assert f"adapter_config.json: {message}" in refusal(capsys, write_adapter(tmp_path / "adapter", adapter_tensors(ranked(SOME)), **fields), base)


def test_fields_that_change_nothing(tmp_path, base):
    for i, fields in enumerate(FIELDS_TAKEN):
        converted(write_adapter(tmp_path / f"{i}", adapter_tensors(ranked(SOME)), **fields), base, tmp_path / f"{i}.gguf")
        assert (tmp_path / f"{i}.gguf").read_bytes()[-2000:] == (tmp_path / "0.gguf").read_bytes()[-2000:]


A, B = f"{PREFIX}{Q0}.lora_A.weight", f"{PREFIX}{Q0}.lora_B.weight"
TENSORS_REFUSED = [
    (lambda t: t.pop(A), f"{Q0}: got lora_B alone, expected lora_A beside it"), (lambda t: t.pop(B), f"{Q0}: got lora_A alone"),
    (lambda t: t.clear(), "weights: got no lora_A and lora_B"),
    (lambda t: t.update({A: t[A][:, :60]}), f"{A}: got shape [4, 60], expected [4, 64] (rank 4, and the base's matrix [64, 64])"),
    (lambda t: t.update({B: t[B][:60]}), f"{B}: got shape [60, 4], expected [64, 4]"), (lambda t: t.update({A: t[A][:3], B: t[B][:, :3]}), f"{A}: got shape [3, 64], expected [4, 64]"),
    (lambda t: t.update({A: t[A].ravel()}), f"{A}: got shape [256], expected [4, 64]"), (lambda t: t.update({A: t[A][None]}), f"{A}: got shape [1, 4, 64]"),
    (lambda t: t.update({A.replace("layers.0", "layers.7"): t.pop(A), B.replace("layers.0", "layers.7"): t.pop(B)}), "got an adapter of 'model.layers.7.attn.q_proj', expected modules of the base"),
    (lambda t: t.update({A.replace("q_proj", "g_norm"): t.pop(A), B.replace("q_proj", "g_norm"): t.pop(B)}), "got an adapter of 'model.layers.0.attn.g_norm'"),
    (lambda t: t.update({A.removeprefix(PREFIX): t.pop(A)}), "expected names that begin with 'base_model.model.'; save the adapter with PEFT's save_pretrained"),
    (lambda t: t.update({A.replace(".weight", ".default.weight"): t.pop(A)}), "got a tensor of a training run's state, expected lora_A and lora_B alone"),
    (lambda t: t.update({f"{PREFIX}{Q0}.lora_magnitude_vector": t[A][0]}), "got a magnitude of DoRA"), (lambda t: t.update({f"{PREFIX}{Q0}.lora_B.bias": t[A][0]}), "got a bias behind lora_B"),
    (lambda t: t.update({f"{PREFIX}{Q0}.base_layer.bias": t[A][0]}), "q_proj.base_layer.bias: got shape [64], and other values than the base's"),
    (lambda t: t.update({f"{PREFIX}score.weight": t[A]}), "score.weight: got no half of a LoRA adapter"),
    (lambda t: t[A].__setitem__((2, 3), np.nan), f"{A}: got 1 NaN or infinite values, the first at [2, 3]"),
]


@pytest.mark.parametrize("edit, message", TENSORS_REFUSED, ids=[m[-40:] for _, m in TENSORS_REFUSED])
def test_tensors_refused_by_name(tmp_path, base, capsys, edit, message):
    tensors = adapter_tensors(ranked(SOME))
    edit(tensors)
    folder = write_adapter(tmp_path / "adapter", tensors, target_modules=list(SOME))
    assert message in refusal(capsys, folder, base)


def test_a_factor_that_float32_does_not_hold(tmp_path, base, capsys):
    for fields in ({"lora_alpha": 1e300}, {"alpha_pattern": {"v_proj": 10**400}}):
        folder = write_adapter(tmp_path / "adapter", adapter_tensors(ranked(SOME)), **fields)
        assert f"{next(iter(fields))}: got " in refusal(capsys, folder, base)
    tensors = adapter_tensors(ranked(SOME))
    tensors[f"{PREFIX}{V1}.lora_B.weight"] *= np.float32(1e30)
    folder = write_adapter(tmp_path / "adapter", tensors, alpha_pattern={"v_proj": 1e29})
    assert "v_proj.lora_B.weight: got 128 NaN or infinite values" in refusal(capsys, folder, base)


@pytest.mark.parametrize("module, message", [("lm_head", "lm_head: got an adapter of it, expected none where one matrix is embedding and output"), ("model.embeddings", "model.embeddings: got an adapter of it")])
def test_tied_embeddings_take_none(tmp_path, capsys, module, message):
    base = write_checkpoint(tmp_path / "base", tie_word_embeddings=True)
    assert message in refusal(capsys, write_adapter(tmp_path / "adapter", adapter_tensors(ranked({module: (288, 64)}))), base)


def test_the_wrong_base_and_the_wrong_folder(tmp_path, base, capsys):
    folder = write_adapter(tmp_path / "adapter", adapter_tensors(ranked(SOME)))
    assert "expected [4, 128] (rank 4, and the base's matrix [128, 128])" in refusal(capsys, folder, write_checkpoint(tmp_path / "wide", hidden_size=128))
    assert "got an adapter of 'model.layers.1.attn.v_proj'" in refusal(capsys, folder, write_checkpoint(tmp_path / "short", num_hidden_layers=1, attn_layers=[]))
    assert f"--base: {tmp_path / 'none'}: got nothing there, expected the folder of the checkpoint" in refusal(capsys, folder, tmp_path / "none")
    assert "adapter_config.json: file: got nothing" in refusal(capsys, base, base)
    os.rename(folder / "adapter_model.safetensors", folder / "model.bin")
    assert "weights: got none of the known files, expected adapter_model.safetensors, adapter_model.bin" in refusal(capsys, folder, base)
    (folder / "adapter_model.safetensors").write_text("version https://git-lfs.github.com/spec/v1")
    assert "got a Git LFS pointer" in refusal(capsys, folder, base)


@pytest.mark.parametrize("options, message", [
    (["--spike"], "--spike: got --base with it"), (["--verify"], "--verify: got --base with it"), (["--vocab-only"], "--vocab-only: got"), (["--split-max-size", "1G"], "--split-max-size: got"),
    (["--spike-k", "3"], "--spike-k: got"), (["--outtype", "q4_0"], "--outtype: got q4_0 for an adapter, expected auto or one of f32, f16, bf16")])
def test_options_that_an_adapter_has_no_use_for(tmp_path, base, capsys, options, message):
    with pytest.raises(SystemExit, match="2"):
        sb_convert([str(tmp_path), "--base", str(base), *options])
    assert message in capsys.readouterr().err


def test_an_existing_file_and_the_inputs_stay(tmp_path, base, capsys):
    folder = write_adapter(tmp_path / "adapter", adapter_tensors(ranked(SOME)))
    (tmp_path / "here.gguf").write_text("mine")
    assert sb_convert([str(folder), "--base", str(base), "-o", str(tmp_path / "here.gguf")]) == 1 and (tmp_path / "here.gguf").read_text() == "mine"
    for held in (folder / "adapter_model.safetensors", folder / "adapter_config.json", base / "model.safetensors"):
        before = held.read_bytes()
        assert sb_convert([str(folder), "--base", str(base), "-o", str(held), "--force"]) == 1 and held.read_bytes() == before
    assert capsys.readouterr().err.count("sb-convert: ") == 4


# --- files that did not come from the converter ---------------------------------------------------------------

EMBD, Q, UP = "token_embd.weight", "blk.0.attn_q.weight", "blk.1.ffn_up_exps.weight"
HOSTILE = [
    ("tied", {f"{EMBD}.lora_a": (288, 4), f"{EMBD}.lora_b": (64, 4)}, "token_embd.weight.lora_a: got an adapter of it, expected none where one matrix is embedding and output"),
    ("plain", {f"{EMBD}.lora_a": (288, 3), f"{EMBD}.lora_b": (64, 4)}, "token_embd.weight.lora_a: got rank 3, expected rank 4, as the other half has"),
    ("plain", {f"{Q}.lora_a": (3, 64), f"{Q}.lora_b": (64, 4)}, "attn_q.weight.lora_a: got rank 3, expected rank 4"),
    ("plain", {f"{Q}.lora_a": (3, 4, 64), f"{Q}.lora_b": (3, 64, 4)}, "attn_q.weight.lora_a: got 3 matrices, expected 1, as blk.0.attn_q.weight has"),
    ("plain", {"blk.0.attn_norm.weight.lora_a": (4, 64), "blk.0.attn_norm.weight.lora_b": (1, 4)}, "attn_norm.weight.lora_a: got an adapter of a tensor that is not a matrix"),
    ("plain", {"blk.0.attn_q.bias.lora_a": (4, 64), "blk.0.attn_q.bias.lora_b": (1, 4)}, "attn_q.bias.lora_a: got an adapter of a tensor that is not a matrix"),
    ("plain", {"blk.0.attn_norm.weight": (64,)}, "attn_norm.weight: got no half of a low-rank adapter"),
    ("plain", {f"{Q}.lora_a": (4, 64)}, "missing one component"), ("plain", {f"{Q}.lora_a": (4, 64), f"{Q}.lora_b": (63, 4)}, "incorrect shape"),
    ("experts", {f"{UP}.lora_a": (4, 128), f"{UP}.lora_b": (128, 4)}, "ffn_up_exps.weight.lora_a: got 1 matrices, expected 3, as"),
    ("experts", {f"{UP}.lora_a": (2, 4, 128), f"{UP}.lora_b": (2, 128, 4)}, "ffn_up_exps.weight.lora_a: got 2 matrices, expected 3"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {"plain": make_tiny(folder / "plain"), "tied": make_tiny(folder / "tied", tie_word_embeddings=True),
            "experts": convert(write_moe(folder / "moe"), folder / "moe.gguf", "--outtype", "f32")}


@pytest.mark.parametrize("model, tensors, message", HOSTILE, ids=[m[:50] for _, _, m in HOSTILE])
def test_adapter_files_that_no_graph_can_take(tmp_path, models, model, tensors, message):
    w = gguf.GGUFWriter(path := tmp_path / "lora.gguf", "spikingbrain")
    w.add_type("adapter"), w.add_string("adapter.type", "lora"), w.add_float32("adapter.lora.alpha", 4.0)
    for name, shape in tensors.items():
        w.add_tensor(name, np.full(shape, 0.1, np.float32))
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()
    with pytest.raises(ModelLoadError, match="lora_path") as e:
        Llama(models[model], lora_path=path, **ONE)
    assert message in str(e.value)


# --- PEFT itself, where it is installed -----------------------------------------------------------------------

@pytest.mark.parametrize("fields", [
    {"target_modules": ["q_proj", "gk_proj.0", "down_proj"], "rank_pattern": {"layers.1.attn.q_proj": 2}, "alpha_pattern": {"down_proj": 3}},
    {"target_modules": "all-linear", "use_rslora": True}, {"target_modules": ["embeddings", "lm_head"]},
    {"target_modules": ["up_proj", "v_proj"], "layers_to_transform": [1]}])
def test_peft_itself(tmp_path, one_thread, fields):
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    from sb_convert.reference import Model
    base = write_checkpoint(tmp_path / "base")
    wrapped = peft.get_peft_model(Model.from_pretrained(base), peft.LoraConfig(r=4, lora_alpha=8, **fields))
    for name, p in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(p, std=0.1)
    wrapped.save_pretrained(tmp_path / "adapter")
    lora = converted(tmp_path / "adapter", base, tmp_path / "lora.gguf")
    with torch.no_grad():
        want = wrapped(torch.from_numpy(tokens_of(20)).long()[None])[0][0].numpy()
    got = scores(convert(base, tmp_path / "base.gguf", "--outtype", "f32"), lora_path=lora)
    assert np.abs(got - want).max() < 1e-4
