"""A GGUF file with one thing changed loads and computes, or is refused in one sentence: no signal, no hang, no memory out of proportion.

One child process opens the files one after the other, by every door of the package; where it dies the file is named and a new one goes on.
"""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from binding_models import make_tiny
from conftest import TINY, add_scales, tiny_tensors, write_bpe, write_weights
from gguf import GGMLQuantizationType as Type
from gguf import GGUFValueType as Value
from gguf_parts import Parts, key, zeros
from test_tools import BIN, tool

from sb_convert.cli import main as sb_convert

pytestmark = pytest.mark.skipif(not (BIN / "sb-quantize").exists(), reason="the package is not installed: run make build")

MOST_MIB, SECONDS = 200, 20
WORKER = """
import resource, sys
import numpy as np
from spikingbrain_cpp import Llama, memory_estimate

def door(f):
    try:
        return f()
    except (RuntimeError, ValueError) as error:
        return "refused " + str(error).replace(chr(10), " ")

def run(path):
    with Llama(path, n_threads=1, n_threads_batch=1, n_batch=4, n_ubatch=4) as llm:
        llm.eval([1, 2, 3])
        return "loaded" if np.isfinite(llm.logits).all() else "not finite"

for line in sys.stdin:
    path = line.rstrip()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    estimate = door(lambda: memory_estimate(path, n_batch=4, n_ubatch=4) and "loaded")
    answer = door(lambda: run(path))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    print(answer if answer[:7] == estimate[:7] else f"doors differ: {answer} | {estimate}", "| MiB", grown, flush=True)
"""


class Opener:
    """open(path) -> what became of it: "loaded", "refused ...", or what went wrong."""

    def __init__(self) -> None:
        self.child = None

    def open(self, path: Path) -> str:
        if self.child is None:
            self.child = subprocess.Popen([sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                          text=True, bufsize=1, env={**os.environ, "GGML_NO_BACKTRACE": "1"})
        self.child.stdin.write(f"{path}\n")
        ready, _, _ = select.select([self.child.stdout], [], [], SECONDS)
        line = self.child.stdout.readline() if ready else ""
        if not line:
            if not ready:
                self.child.kill()
            code = self.child.wait()
            self.child = None
            return f"died of {code}" if ready else "hung"
        answer, grown = line.rstrip().rsplit(" | MiB ", 1)
        return answer if int(grown) < MOST_MIB else f"took {grown} MiB: {answer}"

    def close(self) -> None:
        if self.child is not None:
            self.child.stdin.close()
            self.child.wait(SECONDS)


@pytest.fixture(scope="module")
def opener() -> Iterator[Opener]:
    it = Opener()
    yield it
    it.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("refusals")


@pytest.fixture(scope="module")
def plain(folder: Path) -> Parts:
    """Rows of 256, which every type has whole blocks of; a low-rank gate, an output of its own."""
    return Parts(make_tiny(folder / "plain", "q4_0", hidden_size=256, intermediate_size=256, gate_rank=256))


@pytest.fixture(scope="module")
def int8_path(folder: Path) -> Path:
    """INT8 codes with outliers, spiking, a full gate."""
    checkpoint, c = folder / "w8", {**TINY, "hidden_size": 256, "intermediate_size": 256, "torch_dtype": "float32"}
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text(json.dumps(c))
    held = tiny_tensors(c, 0, 0)
    add_scales(held, 0)
    write_weights(checkpoint, held, "safetensors", "F32", 1)
    write_bpe(checkpoint)
    assert sb_convert([str(checkpoint), "-o", str(folder / "int8.gguf"), "--outtype", "int8", "--spike"]) == 0
    return folder / "int8.gguf"


@pytest.fixture(scope="module")
def int8(int8_path: Path) -> Parts:
    return Parts(int8_path)


def complaints(results: dict[str, str]) -> dict[str, str]:
    return {name: said for name, said in results.items() if said != "loaded" and not re.match(r"refused .*(got|expected|not found|wrong|missing|unknown|invalid)", said)}


# --- types of tensors -------------------------------------------------------------------------------------------

FLOATS = {t.name for t in Type} - {"I8", "I16", "I32", "I64", "F64", "Q8_1", "Q8_K"}
MATRIX, VECTOR = FLOATS, {"F32"}
ALLOWED = {
    "plain": {"token_embd.weight": MATRIX, "output.weight": MATRIX, "output_norm.weight": VECTOR, "blk.0.attn_norm.weight": VECTOR, "blk.0.ssm_norm.weight": VECTOR,
              "blk.1.attn_q.weight": MATRIX, "blk.1.attn_q.bias": VECTOR, "blk.0.ffn_down.weight": MATRIX, "blk.0.time_mix_decay_w1.weight": MATRIX,
              "blk.0.time_mix_decay_w2.weight": MATRIX, "blk.0.time_mix_decay_w2.bias": VECTOR},
    # a matrix of another type leaves its scales without a reader
    "int8": {"blk.1.attn_q.weight": {"I8"}, "blk.0.attn_gate.bias": VECTOR, "blk.1.attn_q.scales": VECTOR,
             "blk.1.attn_q.outlier_index": {"I32"}, "blk.1.attn_q.outlier_value": {"I16"}},
}


@pytest.mark.parametrize("model", ALLOWED)
def test_every_type_of_every_tensor_computes_or_is_refused(model, request, opener, folder):
    parts, wrong = request.getfixturevalue(model), {}
    for name, allowed in ALLOWED[model].items():
        dims, own, _ = parts.tensors[name]
        for kind in Type:
            if kind == own:
                continue
            said = opener.open(parts.write(folder / "changed.gguf", tensors={name: zeros(dims, kind)}))
            ok = said == "loaded" if kind.name in allowed else said.startswith("refused") and (name.rsplit(".", 1)[0] in said or "gguf_init_from" in said)
            if not ok:
                wrong[f"{name} {kind.name}"] = said
    assert not wrong


def test_spiking_inputs_take_every_type_of_a_matrix(int8, opener, folder):
    """Without the scales that belong to codes; the input is encoded, in integers or as floats."""
    without = {n: None for n in int8.tensors if n.startswith("blk.1.ffn_down.")}
    results = {}
    for kind in Type:
        if kind.name in FLOATS:
            changed = {**without, "blk.1.ffn_down.weight": zeros([256, 256], kind)}
            results[kind.name] = opener.open(int8.write(folder / "changed.gguf", tensors=changed))
    assert set(results.values()) == {"loaded"}, results


def test_a_tensor_that_nothing_reads_is_named(plain, int8, opener, folder):
    one = zeros([1], Type.F32)
    for parts, name, extra in ((plain, "blk.0.attn_q.scale", one), (plain, "blk.0.attn_q.input_scale", one), (plain, "extra.weight", one),
                               (plain, "blk.2.attn_norm.weight", zeros([256], Type.F32)), (plain, "blk.1.attn_q.scales", zeros([2, 256], Type.F32)),
                               (int8, "blk.0.time_mix_decay_w1.weight", zeros([256, 16], Type.F32)), (plain, "rope_factors_long.weight", zeros([32], Type.F32))):
        said = opener.open(parts.write(folder / "changed.gguf", tensors={name: extra}))
        assert said.startswith("refused") and name in said, (name, said)


def test_outliers_in_more_codes_than_an_index_can_tell_are_refused(int8, folder):
    """By its header: the file is sparse, and nothing of it is read."""
    from spikingbrain_cpp import Llama, ModelLoadError, memory_estimate

    n_ff = 2**31 // 256 + 128
    path = folder / "huge.gguf"
    big = {f"blk.{i}.{name}.{part}": None for i in range(2) for name in ("ffn_up", "ffn_gate", "ffn_down") for part in ("outlier_index", "outlier_value")}
    big |= {"blk.0.ffn_down.outlier_index": ([1], Type.I32, bytes(4)), "blk.0.ffn_down.outlier_value": ([1], Type.I16, bytes(2))}
    for i in range(2):
        big |= {f"blk.{i}.{name}.weight": ([256, n_ff], Type.I8, b"") for name in ("ffn_up", "ffn_gate")}
        big |= {f"blk.{i}.{name}.scales": ([2, n_ff], Type.F32, b"") for name in ("ffn_up", "ffn_gate")}
        big |= {f"blk.{i}.ffn_down.weight": ([n_ff, 256], Type.I8, b""), f"blk.{i}.ffn_down.scales": ([n_ff // 128, 256], Type.F32, b"")}
    int8.write_sparse(path, keys={"spikingbrain.feed_forward_length": key("spikingbrain.feed_forward_length", Value.UINT32, n_ff)}, tensors=big)
    for door in (Llama, memory_estimate):
        with pytest.raises(ModelLoadError, match=r"blk\.0\.ffn_down\.weight: got outliers in 2147516416 codes, expected at most 2\^31 - 1"):
            door(path)


# --- keys ---------------------------------------------------------------------------------------------------------

def mutations(parts: Parts, name: str) -> Iterator[tuple[str, bytes | None]]:
    """(what, the key's bytes), None: without it."""
    kind, sub, value = parts.fields[name]
    yield "removed", None
    if kind == Value.ARRAY:
        yield "a scalar", key(name, Value.UINT32, 1)
        yield "of another type", key(name, Value.ARRAY, [0.5] * len(value), Value.FLOAT64)
        for what, items in (("empty", []), ("too short", value[:-1]), ("too long", [*value, value[0]])):
            yield what, key(name, Value.ARRAY, items, sub)
        return
    yield "an array", key(name, Value.ARRAY, [1], Value.UINT32)
    yield "a string", key(name, Value.STRING, "x")
    yield "a flag", key(name, Value.BOOL, True)
    for number in (0, -1, 2**31, 2**32 - 1):
        yield f"u32 {number}", key(name, Value.UINT32, number & 0xffffffff)
    for number in (0.0, -1.0, float("nan"), float("inf"), 1e-45):
        yield f"f32 {number}", key(name, Value.FLOAT32, number)
    yield "i64 -1", key(name, Value.INT64, -1)


@pytest.mark.parametrize("model", ["plain", "int8"])
def test_every_key_wrong_in_every_way_computes_or_is_refused(model, request, opener, folder):
    parts, results = request.getfixturevalue(model), {}
    for name in parts.fields:
        if model == "int8" and not name.startswith("spikingbrain.spike."):
            continue
        for what, changed in mutations(parts, name):
            results[f"{name}: {what}"] = opener.open(parts.write(folder / "changed.gguf", keys={name: changed}))
    assert complaints(results) == {}
    for name, (kind, _, _) in parts.fields.items():  # what the graph reads is never taken as another type
        if name.startswith("spikingbrain.") and f"{name}: a string" in results and kind != Value.STRING:
            assert results[f"{name}: a string"].startswith("refused") and name.split(".", 1)[1] in results[f"{name}: a string"]
            assert kind == Value.BOOL or results[f"{name}: a flag"].startswith("refused")


REFUSED = {  # of a file that is right but for one key: what the sentence says
    "attention.head_count": (Value.UINT32, 0, "got 0, expected a positive int"),
    "attention.head_count_kv": (Value.UINT32, 3, "got 3, expected a divisor of 4"),
    "attention.sliding_window": (Value.UINT32, 513, "got 513, expected at most context_length 512"),
    "attention.recurrent_layers": (Value.ARRAY, [True, False, True], "got 3 values, expected 2, one per layer"),
    "vocab_size": (Value.UINT32, 289, "got 289, expected 288, the number of tokens"),
    "rope.scaling.type": (Value.STRING, "yarn", "got yarn, expected none or linear"),
    "rope.scaling.attn_factor": (Value.FLOAT32, 2.0, "got a key that is not known here"),
    "attention.causal": (Value.BOOL, False, "got a key that is not known here"),
    "expert_count": (Value.UINT32, 2000, "got 2000, expected 0 to 1024"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_key_that_does_not_fit_is_named(name, plain, opener, folder):
    kind, value, expected = REFUSED[name]
    full = "spikingbrain." + name
    said = opener.open(plain.write(folder / "changed.gguf", keys={full: key(full, kind, value, Value.BOOL)}))
    assert said.startswith("refused") and f"{name}: {expected}" in said, said


def test_a_token_that_is_none_is_no_special_token(plain, opener, folder):
    name = "tokenizer.ggml.eos_token_id"
    said = opener.open(plain.write(folder / "changed.gguf", keys={name: key(name, Value.UINT32, 288)}))
    assert f"{name}: got 288, expected a token below 288" in said


# --- the tools --------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def model(folder: Path, plain: Parts) -> Path:
    return plain.write(folder / "model.gguf")


OVERRIDES = {
    "spikingbrain.spike.enable=int:1": "override of spikingbrain.spike.enable: got type int, expected bool",
    "spikingbrain.spike.k=int:3": "override of spikingbrain.spike.k: got type int, expected f32",
    "spikingbrain.attention.recurrent_layers=bool:true": "override of spikingbrain.attention.recurrent_layers: got type bool, expected none: it is an array",
    "spikingbrain.spike.enabel=bool:true": "override of spikingbrain.spike.enabel: got a key that the architecture does not have",
    "tokenizer.ggml.eos_token_id=str:x": "override of tokenizer.ggml.eos_token_id: got type str, expected u32",
    "tokenizer.ggml.add_sep_token=int:1": "override of tokenizer.ggml.add_sep_token: got type int, expected bool",
    "general.nmae=str:x": "override of general.nmae: got a key that nothing reads from an override",
    "tokenizer.ggml.eos_token_id=int:4294967299": "override of tokenizer.ggml.eos_token_id: got 4294967299, expected 0 to 4294967295",
    "spikingbrain.spike.k=float:1e999": "spike.k: got inf, expected a positive number",
    "spikingbrain.spike.k=float:2,general.name=int:x": "got 'general.name=int:x', expected a number",
    "spikingbrain.spike.k=float:2,spikingbrain.spike.k=float:3": "override of spikingbrain.spike.k: got two values, expected one",
}


@pytest.mark.parametrize("override", OVERRIDES)
def test_an_override_that_cannot_be_meant_ends_the_tool(override, model):
    done = tool("sb-completion", "-m", model, "-p", "a", "-n", 1, "-no-cnv", "-t", 1, "--override-kv", override, ok=False, timeout=60)
    assert done.returncode == 1 and OVERRIDES[override] in done.stderr, (done.returncode, done.stderr[-2000:])


def test_the_same_override_is_refused_in_python(model):
    from spikingbrain_cpp import Llama, ModelLoadError
    for overrides, said in (({"spikingbrain.spike.enable": 1}, "got type int, expected bool"), ({"spikingbrain.spike.enabel": True}, "check the spelling"),
                            ({"tokenizer.chat_template": "x"}, "that nothing reads")):
        with pytest.raises(ModelLoadError, match=said):
            Llama(model, n_threads=1, n_threads_batch=1, kv_overrides=overrides)
    Llama(model, n_threads=1, n_threads_batch=1, kv_overrides={"llama.context_length": 5}).close()  # a draft model gets its target's


BAD_FOR_TOOLS = {"norm F16": {"tensors": {"output_norm.weight": zeros([256], Type.F16)}},
                 "head_count 0": {"keys": {"spikingbrain.attention.head_count": key("spikingbrain.attention.head_count", Value.UINT32, 0)}},
                 "block_count 0": {"keys": {"spikingbrain.block_count": key("spikingbrain.block_count", Value.UINT32, 0)}}}


@pytest.mark.parametrize("bad, name", [*((bad, name) for bad in BAD_FOR_TOOLS for name in ("sb-completion", "sb-quantize")),
                                       ("norm F16", "sb-bench"), ("norm F16", "sb-perplexity")])
def test_a_bad_file_ends_every_tool_alike(bad, name, plain, folder):
    path = plain.write(folder / "bad.gguf", **BAD_FOR_TOOLS[bad])
    (folder / "text.txt").write_text("a b c " * 400)
    more = {"sb-completion": ["-p", "a", "-n", 1, "-no-cnv", "-m", path], "sb-bench": ["-v", "-p", 4, "-n", 1, "-r", 1, "-m", path],
            "sb-perplexity": ["-f", folder / "text.txt", "-c", 32, "-m", path], "sb-quantize": ["--allow-requantize", path, folder / "out.gguf", "Q8_0"]}[name]
    done = tool(name, *more, ok=False, timeout=60)
    assert done.returncode == 1 and re.search(r"(got type f16, expected f32|got 0, expected)", done.stderr), (done.returncode, done.stderr[-1500:])
    assert not (folder / "out.gguf").exists()


# --- adapters ---------------------------------------------------------------------------------------------------------

ADAPTER = {"adapter.lora.alpha": (Value.FLOAT32, 1.0), "general.architecture": (Value.STRING, "spikingbrain"), "general.type": (Value.STRING, "adapter"),
           "adapter.type": (Value.STRING, "lora")}
BAD_ADAPTERS = {"codes": ({}, Type.I8, "blk.1.attn_q.weight.lora_a: got type i8, expected floats"), "alpha of another type": ({"adapter.lora.alpha": (Value.UINT32, 1)}, Type.F32, "adapter.lora.alpha: got type u32"),
                "alpha nan": ({"adapter.lora.alpha": (Value.FLOAT32, float("nan"))}, Type.F32, "adapter.lora.alpha: got nan"), "type of another type": ({"general.type": (Value.UINT32, 1)}, Type.F32, "general.type: got type u32")}


@pytest.mark.parametrize("bad", BAD_ADAPTERS)
def test_an_adapter_that_no_product_reads_is_refused(bad, model, plain, folder):
    from spikingbrain_cpp import Llama
    keys, kind, said = BAD_ADAPTERS[bad]
    a, b = zeros([256, 4], kind), zeros([4, 256], Type.F32)
    keys = {n: key(n, *v) for n, v in {**ADAPTER, **keys}.items()}
    path = plain.write(folder / "adapter.gguf", keys={**{n: None for n in plain.keys}, **keys},
                       tensors={**{n: None for n in plain.tensors}, "blk.1.attn_q.weight.lora_a": a, "blk.1.attn_q.weight.lora_b": b})
    with pytest.raises((ValueError, RuntimeError), match=re.escape(said)):
        Llama(model, n_threads=1, n_threads_batch=1, lora_path=str(path))


# --- sb-quantize ------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def floats(folder: Path) -> Path:
    """Three layers: linear attention, window, linear attention."""
    return make_tiny(folder / "floats", "f16", hidden_size=256, intermediate_size=256, num_hidden_layers=3)


def test_pruned_layers_take_their_entries_along(floats, folder):
    from spikingbrain_cpp import Llama
    for pruned, kept in (("0", [False, True]), ("1", [True, True]), ("0,2", [False])):
        out = folder / f"pruned-{pruned}.gguf"
        tool("sb-quantize", "--prune-layers", pruned, floats, out, "Q8_0", 1)
        parts = Parts(out)
        assert parts.fields["spikingbrain.attention.recurrent_layers"][2] == kept and parts.fields["spikingbrain.block_count"][2] == len(kept)
        with Llama(out, n_threads=1, n_threads_batch=1) as llm:
            llm.eval([1, 2, 3])
            assert np.isfinite(llm.logits).all()


QUANTIZE = {  # options and type -> what is said; nothing is written
    ("--prune-layers 3", "Q8_0"): "--prune-layers: got 3, expected layers 0 to 2",
    ("--prune-layers 0,1,2", "Q8_0"): "--prune-layers: got all 3 layers",
    ("--tensor-type attn_q=i8", "Q8_0"): "attn_q.weight: got i8 to quantise to, expected a type of weights",
    ("--tensor-type attn_qq=q4_0", "Q8_0"): "--tensor-type attn_qq: got no tensor",
    ("--tensor-type attn_q=q4_0", "F16"): "--tensor-type: got it beside the type f16",
    ("--tensor-type time_mix_decay_w1=q8_0", "Q8_0"): "--tensor-type time_mix_decay_w1: got no tensor",
    ("--output-tensor-type i32", "Q8_0"): "output.weight: got i32 to quantise to",
    ("--token-embedding-type q8_k", "Q8_0"): "token_embd.weight: got q8_K to quantise to",
    ("--pure", "COPY"): "COPY: got options that choose types",
    ("--override-kv spikingbrain.spike.enable=int:1", "Q8_0"): "override of spikingbrain.spike.enable: got type int",
    ("--override-kv spikingbrain.spike.k=float:3x", "Q8_0"): "got 'spikingbrain.spike.k=float:3x', expected a number",
    ("--include-weights attn_q", "Q8_0"): "--include-weights: got it without --imatrix",
    ("--override-kv general.new=int:-5", "Q8_0"): "override of general.new: got -5",
}


@pytest.mark.parametrize("options, kind", QUANTIZE)
def test_quantize_refuses_what_it_could_not_mean(options, kind, floats, folder):
    out = folder / "refused.gguf"
    done = tool("sb-quantize", *options.split(), floats, out, kind, 1, ok=False, timeout=60)
    assert done.returncode == 1 and QUANTIZE[options, kind] in done.stderr and not out.exists(), (done.returncode, done.stderr[-1500:])


def test_quantize_does_not_requantize_half_a_file(model, folder):
    done = tool("sb-quantize", model, folder / "half.gguf", "Q8_0", 1, ok=False)
    assert done.returncode == 1 and "got type q4_0, expected floats" in done.stderr and not (folder / "half.gguf").exists()


FINE = {("--leave-output-tensor", "Q4_K_M"): ("output.weight", "F16"), ("--output-tensor-type q5_K", "Q8_0"): ("output.weight", "Q5_K"),
        ("--token-embedding-type q6_K", "Q4_0"): ("token_embd.weight", "Q6_K"), ("--tensor-type attn_v=q6_k", "Q4_0"): ("blk.0.attn_v.weight", "Q6_K"),
        ("--pure", "Q5_0"): ("output.weight", "Q5_0"), ("", "COPY"): ("blk.0.attn_q.weight", "F16"), ("", "BF16"): ("blk.0.attn_q.weight", "BF16")}


@pytest.mark.parametrize("options, kind", FINE)
def test_quantize_does_what_is_meant(options, kind, floats, folder):
    out, (name, expected) = folder / "fine.gguf", FINE[options, kind]
    tool("sb-quantize", *options.split(), floats, out, kind, 1)
    from spikingbrain_cpp import Llama
    assert Parts(out).tensors[name][1].name == expected
    with Llama(out, n_threads=1, n_threads_batch=1) as llm:
        llm.eval([1, 2, 3])
        assert np.isfinite(llm.logits).all()
