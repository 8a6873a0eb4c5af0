"""llama-cpp-python's own tests on tokenizer, prompt reuse, caches and embeddings pass with local models."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys

import pytest
from binding_models import make_tiny
from other_models import with_key, write_recurrent, write_transformer
from upstream_python import run_upstream, upstream_class, upstream_tests  # noqa: F401

# those not run, and why
LEFT_OUT = {
    "test_real_model": "on its private ctypes layer, and on one downloaded model's tokens",
    "test_real_llama": "on the exact text of one downloaded model",
    "test_real_llama_repeated_prompt_cache": "on the exact text of one downloaded model; its promise, the same answer twice, is in test_binding_llama.py",
}


@pytest.fixture(scope="module")
def results(upstream_tests, tmp_path_factory) -> dict[str, str]:  # noqa: F811
    folder = tmp_path_factory.mktemp("models")
    hybrid = make_tiny(folder)
    models = {
        "ggml-org/models": write_transformer(folder / "llama.gguf", hybrid),
        "QuantFactory/mamba-130m-hf-GGUF": write_recurrent(folder / "mamba.gguf", hybrid),
        "tiiuae/Falcon-H1-Tiny-90M-Instruct-GGUF": hybrid,
        "CompendiumLabs/bge-small-en-v1.5-gguf": with_key(hybrid, folder / "mean.gguf", "spikingbrain.pooling_type", 1),
    }
    found = run_upstream(upstream_tests, "test_llama.py", models)
    return {name: text for name, text in found.items() if name not in LEFT_OUT}


def test_all_but_those_left_out_pass(results):
    failed = {name: text for name, text in results.items() if text != "passed"}
    assert not failed, "\n".join(failed.values())
    assert len(results) == 17


def test_its_tests_of_prompt_lookup_pass(upstream_tests):  # noqa: F811
    assert set(run_upstream(upstream_tests, "test_llama_speculative.py", {}).values()) == {"passed"}


@pytest.mark.parametrize("promise", ["tokenization", "prompt_cache_reset", "exact_cached_prompt_reuse", "ram_cache", "prefix_reuse", "embeddings"])
def test_each_promise_is_among_them(results, promise):
    assert any(promise in name for name in results)


def test_its_methods_are_here_with_its_arguments_in_its_order(upstream_class):  # noqa: F811
    from spikingbrain_cpp.arguments import NEUTRAL
    from spikingbrain_cpp.compat import Llama

    tree = ast.parse(upstream_class)
    its = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Llama")
    methods = [f for f in its.body if isinstance(f, ast.FunctionDef) and (not f.name.startswith("_") or f.name in ("__init__", "__call__"))]
    assert [f.name for f in methods if not hasattr(Llama, f.name)] == []
    for f in methods:
        if callable(getattr(Llama, f.name)):
            ours = [name for name in inspect.signature(getattr(Llama, f.name)).parameters]
            wanted = [a.arg for a in f.args.args if a.arg not in ("self", "cls")]
            assert [n for n in wanted if n not in ours and n not in NEUTRAL] == [], f.name
            assert [n for n in ours if n in wanted] == [n for n in wanted if n in ours], f.name


# a program as its users write them
PROGRAM = """
import json, sys
import numpy as np
from llama_cpp import Llama, LlamaGrammar, LlamaRAMCache, LogitsProcessorList, StoppingCriteriaList

llm = Llama(model_path=sys.argv[1], n_ctx=2048, n_batch=256, n_threads=1, n_threads_batch=1, n_gpu_layers=0, seed=7, use_mmap=True,
            use_mlock=False, logits_all=True, embedding=True, last_n_tokens_size=64, chat_format=None, verbose=False)
llm.set_cache(LlamaRAMCache(capacity_bytes=1 << 24))
no_end = {token: -100.0 for token in (llm.token_eos(), 262, 263, 264)}
out = llm("hello the", max_tokens=8, stop=["zzz"], echo=True, temperature=0.0, logit_bias=no_end)
text = "".join(c["choices"][0]["text"] for c in llm("hello the", max_tokens=8, stream=True, temperature=0.0, logit_bias=no_end))
assert out["choices"][0]["text"] == "hello the" + text and out["usage"]["completion_tokens"] == 8
lp = llm.create_completion("hello the", max_tokens=3, logprobs=2, temperature=0.0, logit_bias=no_end)["choices"][0]["logprobs"]
assert len(lp["tokens"]) == len(lp["token_logprobs"]) == len(lp["top_logprobs"]) == 3

tokens = llm.tokenize(b"hello the")
assert llm.detokenize(tokens) == b"hello the"
llm.reset()
llm.eval(tokens)
assert llm.n_tokens == len(tokens) and list(llm.input_ids[:llm.n_tokens]) == tokens and llm.scores[llm.n_tokens - 1].shape == (llm.n_vocab(),)
token = llm.sample(temp=0.0)
assert token == int(np.argmax(llm.scores[llm.n_tokens - 1]))
state = llm.save_state()
first = [t for t, _ in zip(llm.generate(tokens, temp=0.0), range(5))]
llm.load_state(state)
assert [t for t, _ in zip(llm.generate(tokens, temp=0.0), range(5))] == first and first[0] == token

def only_a(input_ids, scores):
    out = np.full_like(scores, -np.inf)
    out[64] = scores[64]
    return out
stop = StoppingCriteriaList([lambda input_ids, logits: len(input_ids) >= len(tokens) + 2])
found = llm(tokens, max_tokens=20, logits_processor=LogitsProcessorList([only_a]), stopping_criteria=stop)
assert found["choices"][0]["text"] == llm.detokenize([64, 64]).decode() and found["choices"][0]["finish_reason"] == "stop"

grammar = LlamaGrammar.from_string('root ::= "yes" | "no"', verbose=False)
assert llm("hello", grammar=grammar, max_tokens=9)["choices"][0]["text"] in ("yes", "no")
messages = [{"role": "system", "content": "short"}, {"role": "user", "content": "hello"}]
schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}
answer = llm.create_chat_completion(messages=messages, response_format={"type": "json_object", "schema": schema}, max_tokens=200, temperature=0.5)
assert json.loads(answer["choices"][0]["message"]["content"])["a"] in (1, 2)
tool = {"type": "function", "function": {"name": "pick", "parameters": schema}}
call = llm.create_chat_completion(messages=messages, tools=[tool], tool_choice={"type": "function", "function": {"name": "pick"}}, max_tokens=200)
assert call["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "pick"
chunks = list(llm.create_chat_completion(messages=messages, stream=True, max_tokens=4))
assert chunks[0]["choices"][0]["delta"] == {"role": "assistant"} and chunks[-1]["choices"][0]["finish_reason"] in ("stop", "length")
assert len(llm.create_embedding("hello")["data"][0]["embedding"]) and llm.n_ctx() == 2048 and llm.metadata["general.architecture"]
llm.close()
print("done")
"""


def test_a_users_program_runs_with_the_import_changed(tmp_path):
    model = make_tiny(tmp_path)
    program = PROGRAM.replace("from llama_cpp import", "from spikingbrain_cpp import")
    done = subprocess.run([sys.executable, "-c", program, str(model)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout == "done\n", done.stderr[-2000:]


def test_a_users_program_runs_as_it_is(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run([sys.executable, "-m", "spikingbrain_cpp.compat", str(tmp_path / "program.py"), str(make_tiny(tmp_path))],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout == "done\n", done.stderr[-2000:]
