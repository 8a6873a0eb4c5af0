"""What is fuzzed: every door through which other people's bytes and values come in."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import struct
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from .bytes_of import EDGES, JSON, edited, mutated, mutations
from .engine import Broken, Target

ROOT = Path(__file__).resolve().parent.parent.parent
TINY = ROOT / "examples" / "tiny"
ONE = {"n_threads": 1, "n_threads_batch": 1, "n_ctx": 64, "n_batch": 16, "n_ubatch": 16}


def tiny_model(folder: Path, *options: str) -> Path:
    """examples/tiny as GGUF."""
    from sb_convert.cli import main

    model = folder / "tiny.gguf"
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        if main([str(TINY), "-o", str(model), *(options or ("--outtype", "f32")), "--force"]):
            raise Broken("tiny: cannot be converted")
    return model


def is_sentence(error: BaseException) -> None:
    """Broken: an error that does not say where and what, or that memory was not there for a small file."""
    text = str(error)
    if not text or any(word in text for word in ("bad_alloc", "bad allocation", "length_error", "Traceback")):
        raise Broken(f"got {type(error).__name__} {text!r}, expected a sentence: where, what") from error


# --- files ---------------------------------------------------------------------------------------------------------------

def gguf_file(folder: Path):
    """A model file with changes in its header, tensor infos or values: a model that evaluates a token, or one error."""
    from spikingbrain_cpp import Llama

    raw = tiny_model(folder, "--outtype", "q8_0", "--spike").read_bytes()
    header = raw.index(b"output_norm.weight") + 4096 if b"output_norm.weight" in raw else len(raw)
    path = folder / "mutated.gguf"

    def check(changes: Any) -> str:
        path.write_bytes(mutated(raw, changes))
        try:
            with Llama(str(path), **ONE) as llama:
                llama.eval([1, 2, 3])
            return "taken"
        except (ValueError, RuntimeError) as error:
            is_sentence(error)
            return "refused"
    return mutations(min(header, len(raw))) | mutations(len(raw)), check


JSON_FILES = ("config.json", "tokenizer_config.json", "vocab.json", "added_tokens.json", "generation_config.json", "tokenizer.json")


def checkpoint(folder: Path):
    """A checkpoint with changes in one of its JSON files, its merges or its safetensors header, of either layout: converted, or refused."""
    from moe_checkpoints import write_moe

    small, moe = folder / "checkpoint", write_moe(folder / "moe", intermediate_size=32, shared_intermediate_size=32, num_hidden_layers=2, full_attn_layers=[0], dense_mlp_layers=[0])
    shutil.copytree(TINY, small)
    (small / "generation_config.json").write_text(json.dumps({"eos_token_id": [1], "temperature": 0.7}))
    (moe / "config.json").write_text(json.dumps(json.loads((moe / "config.json").read_text()) | {
        "interleaved_sliding_window": [0, 6], "num_layer_experts": [1, 3], "k_clamp_max": 0.95, "linear_q_activation": "relu", "norm_topk_prob": False}))
    strategies, checks = zip(*(_changed_checkpoint(source, folder / "out.gguf") for source in (small, moe)))
    return st.one_of(*(st.tuples(st.just(i), strategy) for i, strategy in enumerate(strategies))), lambda change: checks[change[0]](change[1])


def _changed_checkpoint(source: Path, out: Path):
    from sb_convert.convert import Options, convert
    from sb_convert.errors import ConvertError

    names = [name for name in JSON_FILES if (source / name).is_file()]
    trees = {name: json.loads((source / name).read_text(encoding="utf-8")) for name in names}
    texts = {name: (source / name).read_bytes() for name in [*names, "merges.txt", "model.safetensors"] if (source / name).is_file()}
    weights = texts["model.safetensors"]
    n_header = 8 + int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8:n_header])

    def rebuilt(tree: Any) -> bytes:
        text = json.dumps(tree).encode()
        return struct.pack("<Q", len(text)) + text + weights[n_header:]

    strategy = st.one_of(
        *[st.tuples(st.just(name), st.just("tree"), edited(tree)) for name, tree in trees.items()],
        *[st.tuples(st.just(name), st.just("bytes"), mutations(len(text) if name != "model.safetensors" else n_header)) for name, text in texts.items()],
        st.tuples(st.just("model.safetensors"), st.just("tree"), edited(header)))

    def check(change: Any) -> str:
        name, kind, value = change
        new = mutated(texts[name], value) if kind == "bytes" else rebuilt(value) if name == "model.safetensors" else json.dumps(value).encode()
        (source / name).write_bytes(new)
        try:
            convert(source, Options(outfile=out, outtype="q8_0", force=True), say=lambda *_: None)
            return "taken"
        except ConvertError as error:
            is_sentence(error)
            return "refused"
        finally:
            (source / name).write_bytes(texts[name])
            if left := [p.name for p in out.parent.iterdir() if p.name.startswith((".out", "out.gguf."))]:
                raise Broken(f"left behind: {left}")
    return strategy, check


def snapshot(folder: Path):
    """The bytes of a snapshot or state with changes and, for some, a right checksum: restored, or refused; the model goes on."""
    import hashlib

    from spikingbrain_cpp import Llama, LlamaError, LlamaState

    llama = Llama(str(tiny_model(folder)), **ONE)
    llama.eval(list(range(1, 20)))
    raws = [llama.snapshot().to_bytes(), llama.save_state().to_bytes()]

    def check(change: Any) -> str:
        which, sealed, changes = change
        blob = mutated(raws[which], changes)
        if sealed and len(blob) > 32:
            blob = blob[:-32] + hashlib.sha256(blob[:-32]).digest()
        try:
            llama.restore(blob) if which == 0 else llama.load_state(LlamaState.from_bytes(blob))
            result = "taken"
        except (ValueError, LlamaError) as error:
            is_sentence(error)
            result = "refused"
        if result == "taken" and llama.n_tokens + 1 < llama.n_ctx():
            llama.eval([1])
        return result
    return st.tuples(st.integers(0, 1), st.booleans(), mutations(2048) | mutations(max(map(len, raws)))), check


# --- arguments -----------------------------------------------------------------------------------------------------------

VALUES = JSON | st.binary(max_size=8) | st.lists(st.integers(-2, 300), max_size=5) | st.sampled_from([float("nan"), float("inf"), 1e-30, -1.5, object])


def arguments(folder: Path):
    """The class's methods with any values: an answer or a ValueError, TypeError, LlamaError; the model goes on, alike."""
    import inspect

    from spikingbrain_cpp import Llama, LlamaError

    llama = Llama(str(tiny_model(folder)), logits_all=True, embedding=True, **ONE)
    skipped = {"self", "cancel", "progress", "stream", "verbose", "return_count"}
    calls = {}
    for name in ("create_completion", "create_chat_completion", "sample", "generate", "eval", "tokenize", "detokenize", "embed", "create_embedding", "restore",
                 "generate_many", "set_seed", "batch"):
        calls[name] = [p for p in inspect.signature(getattr(llama, name)).parameters if p not in skipped]
    good = {"prompt": "hello", "prompts": ["a", "b"], "messages": [{"role": "user", "content": "hi"}], "tokens": [1, 2], "text": b"hi", "input": "hi", "source": b"", "seed": 1,
            "n_seq_max": 2, "max_tokens": 2}

    @st.composite
    def call(draw):
        name = draw(st.sampled_from(sorted(calls)))
        given = {p: good[p] for p in calls[name] if p in good}
        for p in draw(st.lists(st.sampled_from(calls[name]), min_size=1, max_size=3)):
            given[p] = draw(VALUES)
        return name, given

    def check(value: Any) -> str:
        name, given = value
        llama.reset()
        llama.eval([1, 2])
        try:
            result = getattr(llama, name)(**given)
            if name == "generate":
                next(result, None)
                result.close()
            if name == "batch":
                result.close()
        except (ValueError, TypeError, LlamaError, FileNotFoundError, IsADirectoryError, IndexError, StopIteration, OverflowError) as error:
            is_sentence(error)
            if isinstance(error, OverflowError) or isinstance(error, TypeError) and "incompatible function arguments" in str(error):
                raise Broken(f"{name}: {error!r}, expected an error of this package's") from error
            return "refused"
        return "taken"
    return call(), check


# --- HTTP ------------------------------------------------------------------------------------------------------------------

GOOD = {
    "/completion": {"prompt": "hello", "n_predict": 2, "temperature": 0.5, "top_k": 4, "stop": ["x"], "n_probs": 2, "echo": True, "logit_bias": [[1, 1.0]], "seed": 1, "samplers": ["top_k"],
                    "cache_prompt": True, "json_schema": {"type": "object"}, "id_slot": -1, "t_max_predict_ms": 50, "lora": [], "response_fields": ["content"]},
    "/v1/completions": {"prompt": ["hello"], "max_tokens": 2, "logprobs": 1, "n": 1, "echo": True, "stop": "x", "suffix": ""},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "tools": [{"type": "function", "function": {
        "name": "f", "description": "d", "parameters": {"type": "object", "properties": {"a": {"type": "string", "pattern": "^a$"}}}}}], "tool_choice": "auto",
        "response_format": {"type": "json_object"}, "logprobs": True, "top_logprobs": 1, "parallel_tool_calls": False, "stop": ["x"], "stream_options": {"include_usage": True}},
    "/v1/responses": {"input": [{"role": "user", "content": "hi"}], "max_output_tokens": 2, "instructions": "x", "text": {"format": {"type": "text"}}, "tools": []},
    "/v1/messages": {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}], "max_tokens": 2, "system": "x", "stop_sequences": ["x"], "tool_choice": {"type": "auto"},
                     "tools": [{"name": "f", "input_schema": {"type": "object"}}]},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "hi"}]},
    "/tokenize": {"content": "hi", "add_special": False, "with_pieces": True},
    "/detokenize": {"tokens": [1, 2]},
    "/apply-template": {"messages": [{"role": "user", "content": "hi"}]},
    "/infill": {"input_prefix": "a", "input_suffix": "b", "input_extra": [{"filename": "f", "text": "t"}], "n_predict": 2},
    "/v1/embeddings": {"input": ["hi"], "encoding_format": "float"},
    "/lora-adapters": [{"id": 0, "scale": 1.0}],
    "/slots/0?action=save": {"filename": "a.bin"},
}


def http_body(folder: Path):
    """Bodies of requests to sb-server that are almost right: an answer or the client's error; never 5xx but 501, never a silence."""
    import atexit

    from running_server import Server

    server = Server(tiny_model(folder), folder / "server.log", "-c", "256", "--slot-save-path", f"{folder}/", "-np", "1")
    server.__enter__()
    atexit.register(server.__exit__)

    def check(value: Any) -> str:
        path, tree, raw = value
        if isinstance(tree, dict):
            tree = {k: v for k, v in tree.items() if k != "stream"}
        body = raw if raw is not None else json.dumps(tree).encode("utf-8", "surrogatepass")
        request = urllib.request.Request(server.url + path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=300) as response:
                json.load(response)
            return "taken"
        except urllib.error.HTTPError as error:
            text = error.read().decode("utf-8", "replace")
            if error.code >= 500 and error.code != 501:
                raise Broken(f"{path} {body[:300]!r}: got {error.code} {text[:300]}, expected the client's error") from None
            return "refused"
        except (OSError, ValueError) as error:
            raise Broken(f"{path} {body[:300]!r}: {error!r}; server: {server.process.poll()} {server.log.read_text(errors='replace')[-1500:]}") from None

    paths = sorted(GOOD)
    trees = st.sampled_from(paths).flatmap(lambda p: st.tuples(st.just(p), edited(GOOD[p]), st.none()))
    raws = st.sampled_from(paths).flatmap(
        lambda p: st.tuples(st.just(p), st.none(), mutations(len(json.dumps(GOOD[p]))).map(lambda c: mutated(json.dumps(GOOD[p]).encode(), c))))
    return trees | trees | trees | raws, check


def slot_file(folder: Path):
    """A slot's file with changes, half of them with a right checksum: restored, or refused; the server goes on."""
    import atexit

    from running_server import Server

    server = Server(tiny_model(folder), folder / "server.log", "-c", "256", "--slot-save-path", f"{folder}/", "-np", "1")
    server.__enter__()
    atexit.register(server.__exit__)
    server.complete("the quick brown fox", 4, id_slot=0)
    server.post("/slots/0?action=save", filename="good.bin")
    raw = (folder / "good.bin").read_bytes()

    def check(change: Any) -> str:
        sealed, changes = change
        blob = mutated(raw, changes)
        (folder / "bad.bin").write_bytes(blob[:-8] + checksum(blob[:-8]) if sealed else blob)
        request = urllib.request.Request(server.url + "/slots/0?action=restore", b'{"filename": "bad.bin"}', {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=300) as response:
                json.load(response)
            return "taken"
        except urllib.error.HTTPError as error:
            return "refused" if error.code < 500 else "refused as 5xx"
        except (OSError, ValueError) as error:
            raise Broken(f"{error!r}; server: {server.process.poll()} {server.log.read_text(errors='replace')[-1500:]}") from None
    return st.tuples(st.booleans(), mutations(len(raw)) | mutations(2048)), check


def checksum(data: bytes) -> bytes:
    """What closes a slot's file (server-slot-file.h, mix)."""
    h, mask, by = 0, 2**64 - 1, 0x9E3779B97F4A7C15
    for begin in range(0, len(data), 1 << 20):
        block = data[begin:begin + (1 << 20)]
        for (word,) in struct.iter_unpack("<Q", block + bytes(-len(block) % 8)):
            h = ((h ^ word) * by) & mask
            h ^= h >> 29
        h = ((h ^ len(block)) * by) & mask
    return struct.pack("<Q", h)


ALL: dict[str, Target] = {"gguf_file": gguf_file, "checkpoint": checkpoint, "snapshot": snapshot, "arguments": arguments, "http_body": http_body, "slot_file": slot_file}
