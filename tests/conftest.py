"""Fixtures: checkpoints of any shape in the published format, written with numpy alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# a job started in the background of a script begins with SIGINT ignored, and hands that on to what the tests start
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "checkpoints"

TINY = {"model_type": "gla_swa", "architectures": ["GLAswaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2,
        "intermediate_size": 96, "vocab_size": 288, "num_attention_heads": 4, "num_key_value_heads": 2, "attn_layers": [1],
        "sliding_window": 8, "rope_theta": 1e6, "norm_eps": 1e-6, "max_position_embeddings": 512, "tie_word_embeddings": False,
        "use_short_conv": False, "hidden_act": "swish", "bos_token_id": 262, "eos_token_id": 262, "torch_dtype": "bfloat16"}
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ t", "Ġt he"]
SPECIAL = {"<|endoftext|>": 262, "<|im_start|>": 263, "<|im_end|>": 264}
TEMPLATE = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"


def shared(name: str) -> Path:
    """A folder of ../shared/checkpoints; the test is skipped where it is absent."""
    if not (SHARED / name).is_dir():
        pytest.skip(f"../shared/checkpoints/{name} is not here")
    return SHARED / name


def tiny_tensors(c: dict[str, Any], gate_rank: int, seed: int) -> dict[str, np.ndarray]:
    """Random float32 tensors under the checkpoint's names; gate_rank 0: full gate."""
    e, ff, d = c["hidden_size"], c["intermediate_size"], c["hidden_size"] // c["num_attention_heads"]
    kv = c["num_key_value_heads"] * d
    shapes: dict[str, tuple[int, ...]] = {"model.embeddings.weight": (c["vocab_size"], e), "model.norm.weight": (e,)}
    if not c["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (c["vocab_size"], e)
    for il in range(c["num_hidden_layers"]):
        layer = {"attn_norm.weight": (e,), "mlp_norm.weight": (e,), "mlp.gate_proj.weight": (ff, e), "mlp.up_proj.weight": (ff, e),
                 "mlp.down_proj.weight": (e, ff), "attn.q_proj.weight": (e, e), "attn.q_proj.bias": (e,), "attn.k_proj.weight": (kv, e),
                 "attn.k_proj.bias": (kv,), "attn.v_proj.weight": (kv, e), "attn.v_proj.bias": (kv,), "attn.o_proj.weight": (e, e)}
        if il not in c["attn_layers"]:
            layer["attn.g_norm.weight"] = (d,)
            layer |= {"attn.gk_proj.0.weight": (gate_rank, e), "attn.gk_proj.1.weight": (kv, gate_rank), "attn.gk_proj.1.bias": (kv,)} if gate_rank \
                else {"attn.gk_proj.weight": (kv, e), "attn.gk_proj.bias": (kv,)}
        shapes |= {f"model.layers.{il}.{name}": shape for name, shape in layer.items()}
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape, np.float32) * np.float32(0.1) + np.float32("norm" in name) for name, shape in shapes.items()}


def add_scales(tensors: dict[str, np.ndarray], seed: int) -> None:
    """Makes it a W8ASpike checkpoint: scales [out, in / 128, 1] of every projection, such that about 2% of the codes leave int8."""
    rng = np.random.default_rng(seed + 1)
    for name in [n for n in tensors if n.endswith("_proj.weight")]:
        n_out, n_in = tensors[name].shape
        deviation = np.sqrt(np.square(tensors[name].reshape(n_out, -1, 128)).mean(-1, keepdims=True)) + 1e-6
        spread = 1 + 0.1 * rng.standard_normal((n_out, n_in // 128, 1), np.float32)
        tensors[name.removesuffix("weight") + "weight_quantizer.scales"] = (deviation * spread * 2.3 / 127).astype(np.float32)


def as_bf16(x: np.ndarray) -> np.ndarray:
    """float32 -> uint16 words, nearest even."""
    n = x.view(np.uint32)
    return ((n + 0x7FFF + ((n >> 16) & 1)) >> 16).astype(np.uint16)


def write_safetensors(path: Path, tensors: dict[str, np.ndarray], dtype: str = "BF16") -> None:
    raw = {n: {"BF16": as_bf16, "F16": np.float16, "F32": np.float32}[dtype](t) for n, t in tensors.items()}
    header, at = {}, 0
    for name, t in raw.items():
        header[name] = {"dtype": dtype, "shape": list(t.shape), "data_offsets": [at, at + t.nbytes]}
        at += t.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(t.tobytes() for t in raw.values()))


def write_weights(folder: Path, tensors: dict[str, np.ndarray], form: str, dtype: str, n_shards: int) -> None:
    """form "safetensors" or "bin"; n_shards > 1: shards and their index."""
    stem, suffix = {"safetensors": ("model", "safetensors"), "bin": ("pytorch_model", "bin")}[form]
    names = list(tensors)
    parts = [names[i::n_shards] for i in range(n_shards)]
    files = [f"{stem}.{suffix}"] if n_shards == 1 else [f"{stem}-{i + 1:05d}-of-{n_shards:05d}.{suffix}" for i in range(n_shards)]
    for file, part in zip(files, parts):
        held = {n: tensors[n] for n in part}
        if form == "safetensors":
            write_safetensors(folder / file, held, dtype)
        else:
            torch = pytest.importorskip("torch")
            kind = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}[dtype]
            torch.save({n: torch.from_numpy(t).to(kind) for n, t in held.items()}, folder / file)
    if n_shards > 1:
        weight_map = {n: file for file, part in zip(files, parts) for n in part}
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def write_bpe(folder: Path) -> None:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    tokens = [chr(b) for b in printable] + [chr(0x100 + i) for i in range(256 - len(printable))] + [m.replace(" ", "") for m in MERGES]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n", encoding="utf-8")
    (folder / "added_tokens.json").write_text(json.dumps(SPECIAL))
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "add_bos_token": False, "added_tokens_decoder": {str(i): {"content": t, **flags} for t, i in SPECIAL.items()},
        "bos_token": None, "eos_token": "<|endoftext|>", "chat_template": TEMPLATE, "tokenizer_class": "Qwen2Tokenizer"}))


def write_spm(folder: Path, algorithm: str, vocab_size: int) -> None:
    spm = pytest.importorskip("sentencepiece")
    text = folder / "text.txt"
    text.write_text("\n".join(f"the cat number {i} sat on mat {i * 7 % 31} and said hello to all {i % 5} of them" for i in range(200)))
    spm.SentencePieceTrainer.train(input=str(text), model_prefix=str(folder / "tokenizer"), model_type=algorithm, vocab_size=vocab_size,
                                   byte_fallback=True, user_defined_symbols=["<sep>"], minloglevel=2)
    text.unlink()



def write_checkpoint(folder: Path, form="safetensors", dtype="BF16", n_shards=1, gate_rank=16, tokenizer="bpe", tensors=None, seed=0, scales=False, **config) -> Path:
    """A checkpoint of random weights in folder.

    scales: a W8ASpike checkpoint, float32, with a full gate and sizes that are multiples of 128.
    tokenizer: "bpe", "spm_bpe", "spm_unigram" or "" for none. tensors: a function that may change the dict of float32 arrays before it is written.
    """
    folder.mkdir(exist_ok=True)
    if scales:
        dtype, gate_rank = "F32", 0
        config = {"hidden_size": 128, "intermediate_size": 256, "torch_dtype": "float32", **config}
    c = {**TINY, **config}
    (folder / "config.json").write_text(json.dumps(c))
    held = tiny_tensors(c, gate_rank, seed)
    if scales:
        add_scales(held, seed)
    if tensors is not None:
        held = tensors(held) or held
    write_weights(folder, held, form, dtype, n_shards)
    if tokenizer == "bpe":
        write_bpe(folder)
    elif tokenizer:
        write_spm(folder, tokenizer.removeprefix("spm_"), min(c["vocab_size"] - 4, 310))
    return folder


@pytest.fixture
def make_checkpoint(tmp_path: Path):
    """make_checkpoint(name=, ...) -> folder: write_checkpoint below tmp_path."""
    def make(*args, name="checkpoint", **keywords) -> Path:
        return write_checkpoint(tmp_path / name, *args, **keywords)
    return make


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--histories", type=int, default=60, help="random histories per model in test_memory_history.py")


@pytest.fixture
def one_thread():
    """Models this small are faster on one, and it keeps the other tests' threads apart."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def converter_peak(folder: Path, output: Path, *options: str) -> float:
    """MiB of anonymous memory that sb-convert takes at most, in a process of its own."""
    code = ("import sys, threading, time\nfrom sb_convert.cli import main\n"
            "peak = 0\n"
            "def watch():\n    global peak\n    while True:\n"
            "        peak = max(peak, *(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('RssAnon')))\n        time.sleep(0.01)\n"
            "threading.Thread(target=watch, daemon=True).start()\n"
            "code = main(sys.argv[1:])\nprint('peak', peak)\nsys.exit(code)")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "converter"), os.environ.get("PYTHONPATH", "")])}
    run = subprocess.run([sys.executable, "-c", code, str(folder), "-o", str(output), "--force", *options], env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return int(run.stdout.split()[-1]) / 1024
