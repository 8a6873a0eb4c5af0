"""GGUF files of SpikingBrain-76B with something changed: blocks in another layout, an adapter, what is refused."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from binding_models import convert, make_tiny
from conftest import ROOT, shared
from gguf import GGMLQuantizationType as Type
from gguf import GGUFValueType as Value
from gguf_parts import Parts, key
from test_moe import N, context, decode, divergence
from test_tools import BIN

from spikingbrain_cpp import Llama, _core

PREFIX = "spikingbrain."


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(shared("golden-moe-a"), tmp_path_factory.mktemp("moe") / "f32.gguf", "--outtype", "f32")


@pytest.fixture(scope="module")
def parts(model: Path) -> Parts:
    return Parts(model)


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    return np.load(shared("golden-moe-a") / "golden.npz")["tokens"]


def floats(t: tuple) -> np.ndarray:
    return np.frombuffer(t[2], np.float32).reshape(t[0][::-1])


def tensor(x: np.ndarray) -> tuple:
    return list(x.shape[::-1]), Type.F32, x.astype(np.float32).tobytes()


# --- blocks do not depend on the layout -------------------------------------------------------------------------------

@pytest.mark.parametrize("type_", ["f32", "q8_0"])
def test_experts_in_a_model_that_alternates(tmp_path: Path, type_: str) -> None:
    """Three experts that are the MLP, of which any may be chosen with weight 1, are the MLP."""
    base = make_tiny(tmp_path, outtype=type_)
    tiny = Parts(base)
    changed: dict[str, Any] = {f"blk.0.ffn_{part}.weight": None for part in ("gate", "up", "down")}
    for part in ("gate", "up", "down"):
        dims, kind, data = tiny.tensors[f"blk.0.ffn_{part}.weight"]
        changed[f"blk.0.ffn_{part}_exps.weight"] = ([*dims, 3], kind, data * 3)
    changed["blk.0.ffn_gate_inp.weight"] = tensor(np.random.default_rng(0).standard_normal((3, 64)))
    keys = {PREFIX + name: key(PREFIX + name, kind, value) for name, kind, value in (
        ("expert_count", Value.UINT32, 3), ("expert_used_count", Value.UINT32, 1), ("expert_feed_forward_length", Value.UINT32, 96), ("expert_weights_norm", Value.BOOL, True))}
    path = tiny.write(tmp_path / "experts.gguf", keys, changed)
    text = np.arange(5, 65, dtype=np.int32)
    ctx = context(path, spike_stats=True, spike_keep_tokens=N, spike_keep_neurons=1)
    assert divergence(decode(context(base), text, 16), decode(ctx, text, 16)) < 1e-12
    assert sum(n > 0 for n in ctx.expert_stats()[0]["n"]) > 1


def test_a_layer_of_a_model_that_alternates_may_see_all_of_the_text(tmp_path: Path) -> None:
    base = make_tiny(tmp_path)
    name, window = PREFIX + "attention.sliding_window_pattern", PREFIX + "attention.sliding_window"
    all_of_it = Parts(base).write(tmp_path / "all.gguf", {name: key(name, Value.ARRAY, [True, False], Value.BOOL)})
    long = Parts(base).write(tmp_path / "long.gguf", {window: key(window, Value.UINT32, 512)})
    text = np.arange(5, 95, dtype=np.int32)
    ctx = context(all_of_it, n_seq_max=1)
    got = decode(ctx, text, 16)
    assert divergence(decode(context(long), text, 16), got) < 1e-12 < divergence(decode(context(base), text, 16), got)
    assert ctx.n_ctx() == 512 and _core.Model(str(all_of_it)).n_ctx_train() == 512  # of a sliding window 2^30
    for _ in range(4):
        decode(ctx, text)
    with pytest.raises(RuntimeError, match="n_ctx"):
        decode(ctx, text)


@pytest.mark.parametrize("checkpoint, options", [("golden-moe-spike", ("--outtype", "int8")), ("golden-moe-a", ("--outtype", "f32")), ("golden-moe-a", ("--outtype", "q4_0"))])
def test_experts_can_stay_in_the_file(tmp_path: Path, checkpoint: str, options: tuple[str, ...]) -> None:
    path, said = convert(shared(checkpoint), tmp_path / "model.gguf", *options), {}
    for mode in ("off", "on"):
        done = subprocess.run([str(BIN / "sb-completion"), "-m", str(path), "--lazy-mode", mode, "-p", "Once", "-n", "16", "--temp", "0", "-no-cnv", "-t", "1", "-v"],
                              capture_output=True, timeout=60)
        assert done.returncode == 0 and (b"lazy read enabled" in done.stderr) == (mode == "on")
        said[mode] = done.stdout
    assert said["on"] == said["off"]


LIMITS = [p for p in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes") if Path(p).exists()]


def test_experts_stay_in_the_file_where_the_weights_are_more_than_the_memory(tmp_path: Path) -> None:
    if not LIMITS or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("no control group's limit to cover, or no right to a mount namespace")
    path, said = convert(shared("golden-moe-spike"), tmp_path / "model.gguf", "--outtype", "int8"), {}
    for limit in (10**6, 10**9):
        (tmp_path / "limit").write_text(f"{limit}\n")
        command = f"mount --bind {tmp_path}/limit {LIMITS[0]} && exec {BIN}/sb-completion -m {path} -p Once -n 16 --temp 0 -no-cnv -t 1 -v"
        done = subprocess.run(["unshare", "-m", "sh", "-c", command], capture_output=True, timeout=60)
        assert done.returncode == 0 and (b"experts stay in the file" in done.stderr) == (b"lazy read enabled" in done.stderr) == (limit == 10**6)
        said[limit] = done.stdout
    assert said[10**6] == said[10**9]
    (tmp_path / "limit").write_text("1000000\n")
    command = f"mount --bind {tmp_path}/limit {LIMITS[0]} && exec {sys.executable} -m bench reread {path} 2"
    done = subprocess.run(["unshare", "-m", "sh", "-c", command], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert re.fullmatch(r"per token: [\d.]+ MiB read, \d+ major faults, [\d.]+ s\n", done.stdout), done.stderr


# --- adapters -----------------------------------------------------------------------------------------------------------

def test_an_adapter_adds_to_experts_and_branches_and_says_what_it_does_not_change(parts: Parts, model: Path, tokens: np.ndarray, tmp_path: Path) -> None:
    rng, merged, rank = np.random.default_rng(3), {}, 4
    writer = gguf.GGUFWriter(tmp_path / "adapter.gguf", "spikingbrain")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    for name in ("blk.1.attn_q.weight", "blk.1.time_mix_key.weight", "blk.3.ffn_gate_exps.weight", "blk.3.ffn_down_exps.weight", "blk.3.ffn_up_shexp.weight"):
        w = floats(parts.tensors[name])
        a = rng.standard_normal((*w.shape[:-2], rank, w.shape[-1])).astype(np.float32) * 0.05
        b = rng.standard_normal((*w.shape[:-2], w.shape[-2], rank)).astype(np.float32) * 0.05
        writer.add_tensor(name + ".lora_a", a)
        writer.add_tensor(name + ".lora_b", b)
        merged[name] = tensor(w + 2.0 * (b @ a))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.warns(UserWarning, match="constants of the sinks"), Llama(model, lora_path=tmp_path / "adapter.gguf", logits_all=True, n_ctx=512, n_threads=1, n_threads_batch=1) as llm:
        llm.eval(tokens)
        got = llm.scores.copy()
    want = decode(context(parts.write(tmp_path / "merged.gguf", tensors=merged)), tokens)
    assert divergence(want, got) < 1e-9
    assert divergence(want, decode(context(model), tokens)) > 1e-4
    done = subprocess.run([str(BIN / "sb-completion"), "-m", str(model), "--lora", str(tmp_path / "adapter.gguf"), "-p", "Hi", "-n", "1", "-no-cnv"], capture_output=True, timeout=60)
    assert b"the constants of the 8 sinks were computed without this adapter" in done.stderr + done.stdout


# --- what is refused ------------------------------------------------------------------------------------------------------

BOOLS = (Value.ARRAY, [True] * 7 + [False], Value.BOOL)
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {  # keys, tensors (by what they become), message
    "another hybrid": ({"hybrid": (Value.STRING, "serial")}, {}, "hybrid: got serial, expected alternate or parallel"),
    "layers without linear attention": ({"attention.recurrent_layers": BOOLS}, {}, "attention.recurrent_layers: got layer 7 without linear attention"),
    "two experts": ({"expert_used_count": (Value.UINT32, 2)}, {}, "expert_used_count: got 2, expected 1"),
    "no count of those used": ({"expert_used_count": None}, {}, "expert_used_count: got 0, expected 1 to expert_count"),
    "no experts": ({"expert_count": None, "expert_used_count": None}, {}, "expected none without expert_count"),
    "another gating": ({"expert_gating_func": (Value.UINT32, 2)}, {}, "expert_gating_func: got 2, expected 1"),
    "no width of experts": ({"expert_feed_forward_length": None}, {}, "expert_feed_forward_length: got no such key"),
    "no width of the shared expert": ({"expert_shared_feed_forward_length": None}, {}, "expert_shared_feed_forward_length: got 0"),
    "no clamp said": ({"gla.k_max": None}, {}, "gla.q_activation, gla.k_max: got no such keys"),
    "no full layers said": ({"attention.sliding_window_pattern": None}, {}, "attention.sliding_window_pattern: got no such key"),
    "a clamp above 1": ({"gla.k_max": (Value.FLOAT32, 1.5)}, {}, "gla.k_max: got 1.5, expected a number above 0, at most 1"),
    "another activation": ({"gla.q_activation": (Value.STRING, "gelu")}, {}, "gla.q_activation: got gelu, expected relu or sigmoid"),
    "a gate": ({"gla.gate_low_rank_dim": (Value.UINT32, 16)}, {}, "there is no gate"),
    "constants with spikes": ({"sink_spike_k": (Value.FLOAT32, 3.0)}, {}, "sink_spike_k: got constants of the sinks for k = 3"),
    "spikes without their constants": ({"spike.enable": (Value.BOOL, True)}, {}, "sink_spike_k: got constants of the sinks for k = 0"),
    "a window pattern that is too short": ({"attention.sliding_window_pattern": (Value.ARRAY, [True], Value.BOOL)}, {}, "sliding_window_pattern: got 1 values, expected 8"),
    "more sinks": ({"sink_count": (Value.UINT32, 9)}, {}, "sinks"),
    "no sinks": ({"sink_count": (Value.UINT32, 0)}, {}, "got a tensor that nothing reads"),
    "sinks without embeddings": ({}, {"token_embd.sinks": None}, "token_embd.sinks"),
    "a layer without its sinks": ({}, {"blk.2.attn_k.sinks": None}, "blk.2.attn_k.sinks"),
    "a layer without its state": ({}, {"blk.2.time_mix_key.state": None}, "blk.2.time_mix_key.state"),
    "a state for each key/value head": ({}, {"blk.1.time_mix_key.state": lambda x: x[:2]}, "blk.1.time_mix_key.state"),
    "a router of another width": ({}, {"blk.3.ffn_gate_inp.weight": lambda x: x[:, :128]}, "blk.3.ffn_gate_inp.weight"),
    "a router of more experts": ({}, {"blk.3.ffn_gate_inp.weight": lambda x: np.concatenate([x, x])}, "blk.3.ffn_gate_inp.weight"),
    "a missing expert": ({}, {"blk.3.ffn_up_exps.weight": lambda x: x[:3]}, "blk.3.ffn_up_exps.weight"),
    "an expert too many": ({}, {"blk.3.ffn_up_exps.weight": lambda x: np.concatenate([x, x[:1]])}, "blk.3.ffn_up_exps.weight"),
    "experts without a router": ({}, {"blk.3.ffn_gate_inp.weight": None}, "blk.3.ffn_gate"),
    "an unknown key": ({"attention.sinks": (Value.UINT32, 8)}, {}, "attention.sinks: got a key that is not known here"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(parts: Parts, tmp_path: Path, case: str) -> None:
    keys, tensors, message = REFUSED[case]
    path = parts.write(tmp_path / "bad.gguf", {PREFIX + n: k and key(PREFIX + n, *k) for n, k in keys.items()},
                       {n: change and tensor(change(floats(parts.tensors[n]))) for n, change in tensors.items()})
    with pytest.raises(RuntimeError) as error:
        context(path)
    assert message in str(error.value)


def test_another_rope_is_refused(model: Path) -> None:
    done = subprocess.run([str(BIN / "sb-completion"), "-m", str(model), "--rope-freq-base", "500", "-p", "Hi", "-n", "1", "-no-cnv"], capture_output=True, timeout=60)
    assert done.returncode != 0 and b"the constants of the sinks were computed with these" in done.stderr + done.stdout
