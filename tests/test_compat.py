"""spikingbrain_cpp.compat: what programs import of llama-cpp-python, what they pass, what they look into, and what stays refused."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
import tarfile
import typing
import warnings

import gguf
import numpy as np
import pytest
from binding_models import ONE
from chat_models import END, TOOL_TEMPLATE, tiny_with, tool
from conftest import ROOT
from upstream_python import archive

import spikingbrain_cpp
from spikingbrain_cpp import compat

CHAT = [{"role": "system", "content": "short"}, {"role": "user", "content": "hello"}]
PICK = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "pick", "description": "takes one", "parameters": PICK}}
OPTIONS = {**ONE, "n_ctx": 2000, "seed": 1}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """ChatML without tools, random weights, 512 tokens."""
    return tiny_with(tmp_path_factory.mktemp("compat"), None)


@pytest.fixture(scope="module")
def llm(path):
    with compat.Llama(path, **OPTIONS, logits_all=True) as model:
        yield model


def source(name: str) -> ast.Module:
    """Of a module of llama-cpp-python."""
    with tarfile.open(archive()) as tar:
        return ast.parse(tar.extractfile(next(m for m in tar if m.name.endswith(f"/llama_cpp/{name}.py"))).read())


def quietly(call):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return call()


# --- names ---------------------------------------------------------------------------------------------------------------


def test_modules_and_names_that_programs_import():
    for module, names in {
            "": "Llama LlamaGrammar LlamaState LlamaCache LlamaRAMCache LlamaDiskCache BaseLlamaCache LlamaTokenizer BaseLlamaTokenizer LogitsProcessor "
                "LogitsProcessorList StoppingCriteria StoppingCriteriaList MinTokensLogitsProcessor LlamaDraftModel CreateChatCompletionResponse "
                "ChatCompletionRequestMessage LLAMA_POOLING_TYPE_NONE GGML_TYPE_Q8_0 llama_chat_format __version__",
            ".llama": "Llama LlamaState LogitsProcessorList StoppingCriteriaList", ".llama_cache": "BaseLlamaCache LlamaRAMCache LlamaDiskCache",
            ".llama_speculative": "LlamaDraftModel LlamaPromptLookupDecoding", ".llama_tokenizer": "BaseLlamaTokenizer LlamaTokenizer LlamaHFTokenizer",
            ".llama_grammar": "LlamaGrammar json_schema_to_gbnf JSON_GBNF JSON_ARR_GBNF LLAMA_GRAMMAR_DEFAULT_ROOT",
            ".llama_chat_format": "ChatFormatterResponse ChatFormatter Jinja2ChatFormatter register_chat_format register_chat_completion_handler "
                                  "get_chat_completion_handler format_chatml format_llama2 format_mistral_instruct Llava15ChatHandler LlamaChatCompletionHandler",
    }.items():
        found = importlib.import_module("spikingbrain_cpp.compat" + module)
        assert [name for name in names.split() if not hasattr(found, name)] == []
    assert compat.__version__ == "0.3.36" and issubclass(compat.Llama, spikingbrain_cpp.Llama)


def test_constants_have_llama_cpps_values():
    its = {t.id: ast.literal_eval(n.value) for n in source("llama_cpp").body if isinstance(n, ast.Assign) and isinstance(n.value, (ast.Constant, ast.UnaryOp))
           for t in n.targets if isinstance(t, ast.Name) and re.match("LLAMA_|GGML_", t.id)}
    missing = {name for name in its if not hasattr(compat.llama_cpp, name)}
    assert len(its) > 150 and {name for name in missing if not name.startswith("LLAMA_VOCAB_PRE_TYPE_")} == set()
    assert {name: getattr(compat, name) for name in set(its) - missing} == {name: its[name] for name in set(its) - missing}
    for kind in gguf.GGMLQuantizationType:
        assert getattr(compat, f"GGML_TYPE_{kind.name}", kind) == kind


def test_types_have_its_names_and_keys():
    ours, tree = compat.llama_types, source("llama_types")
    for node in tree.body:
        for name in [node.name] if isinstance(node, ast.ClassDef) else [t.id for t in getattr(node, "targets", ())]:
            assert hasattr(ours, name) and hasattr(compat, name), name
        if isinstance(node, ast.ClassDef):
            keys = {item.target.id for item in node.body if isinstance(item, ast.AnnAssign)}
            assert keys <= set(typing.get_type_hints(getattr(ours, node.name))), node.name


def test_install_puts_it_in_its_place(path):
    program = ("import sys, spikingbrain_cpp.compat as c; c.install(); c.install(); import llama_cpp, llama_cpp.llama_types; from llama_cpp.llama_chat_format import "
               "register_chat_format; from llama_cpp import Llama, LLAMA_DEFAULT_SEED; assert llama_cpp is c and Llama is c.Llama; print(llama_cpp.__version__)")
    taken = "import sys, types; sys.modules['llama_cpp'] = types.ModuleType('llama_cpp'); import spikingbrain_cpp.compat as c; c.install()"
    good, bad = (subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60) for code in (program, taken))
    assert good.stdout == "0.3.36\n", good.stderr
    assert "ImportError: compat: install: got llama_cpp of None imported before" in bad.stderr


# --- what is passed --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given, said", [
    ({"flash_attn": False, "numa": False, "n_gpu_layers": 0, "main_gpu": 0, "split_mode": 1, "tensor_split": None, "offload_kqv": True, "rope_freq_base": 0.0}, None),
    ({"n_gpu_layers": -1, "main_gpu": 2, "tensor_split": [0.5, 0.5]}, r"n_gpu_layers=-1, main_gpu=2, tensor_split=\[0.5, 0.5\]: taken and left out: this build computes on CPUs"),
    ({"n_gpu_layers": 99}, "n_gpu_layers=99: taken and left out: this build computes on CPUs"),
    ({"rope_freq_base": 10000.0, "rope_freq_scale": 1.0, "n_parts": -1}, "rope_freq_base=10000.0, rope_freq_scale=1.0, n_parts=-1: taken .* the file's own hold"),
    ({"f16_kv": True, "n_gpu_layers": 3}, "n_gpu_layers=3: taken and left out: .*; f16_kv=True: taken and left out: the memory keeps its own types")])
def test_habits_are_taken_with_one_warning(path, given, said):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compat.Llama(path, **given, **ONE, vocab_only=True).close()
    assert [str(w.message) for w in caught] == [] if said is None else len(caught) == 1 and re.search(said, str(caught[0].message))
    with pytest.raises((ValueError, TypeError)) if said else pytest.raises((ValueError, TypeError), match="flash_attn"):
        spikingbrain_cpp.Llama(path, **given, **ONE).close()


@pytest.mark.parametrize("given", [{"rope_freq_base": 5000.0}, {"rope_freq_scale": 0.5}, {"n_parts": 2}, {"n_gpu_layers": "all"}, {"numa": "yes"}, {"numa": 77},
                                   {"lora_base": "x"}, {"swa_full": True}, {"spm_infill": True}, {"yarn_ext_factor": 1.0}, {"chat_format": "none-such"}, {"tokenizer": 3}])
def test_other_values_are_refused_by_name(path, given):
    with pytest.raises((ValueError, TypeError), match=f"llama: {next(iter(given))}: got"):
        compat.Llama(path, **given, **ONE, vocab_only=True)


def test_an_unknown_argument_is_refused_by_name(llm, path):
    for call in (lambda: compat.Llama(path, n_ctxx=3), lambda: llm("a", n_ctxx=3), lambda: llm.create_chat_completion(CHAT, n_ctxx=3)):
        with pytest.raises(TypeError, match="n_ctxx"):
            call()


def test_none_says_nothing(llm):
    want = llm("hello", max_tokens=3, seed=5)["choices"]
    assert llm("hello", suffix="", max_tokens=3, seed=5, temperature=None, top_p=None, top_k=None, echo=None, stream=None, repeat_penalty=None)["choices"] == want
    llm.create_chat_completion(CHAT, max_tokens=2, temperature=None, presence_penalty=None, stream=None)
    assert llm("hello", max_tokens=None, stop=["e"], logit_bias=END)["choices"][0]["finish_reason"] == "stop"


# --- chats -----------------------------------------------------------------------------------------------------------------

DIFFER = {"alpaca", "vicuna", "openbuddy", "phind", "intel", "open-orca", "saiga"}  # an answer's own header, a chat's own system message: see formats.py


def test_formats_are_those_of_their_names():
    tree = source("llama_chat_format")
    wanted = [n for n in tree.body if isinstance(n, ast.FunctionDef) and (n.name.startswith(("_format", "_map", "_get_system", "format")))]
    its = {}
    space = {"ChatFormatterResponse": compat.llama_chat_format.ChatFormatterResponse, "logger": type("", (), {"debug": lambda *a: None}),
             "register_chat_format": lambda name: lambda f: its.setdefault(name, f)}
    code = ast.Module([ast.ImportFrom("__future__", [ast.alias("annotations")], 0), *wanted], [])
    exec(compile(ast.fix_missing_locations(code), "formats", "exec"), space)
    assert set(its) == set(compat.formats.FORMATS)
    turns = [{"role": "system", "content": "S"}, {"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}, {"role": "user", "content": "C"}]
    for name in set(its) - DIFFER:
        got, want = (f(messages=turns) for f in (compat.llama_chat_format.formatter_of(name), its[name]))
        assert (got.prompt, got.stop) == (want.prompt, want.stop), name


@pytest.mark.parametrize("name", ["llama-2", "mistral-instruct", "alpaca", "gemma", "chatml-function-calling"])
def test_an_old_name_answers(path, name):
    with compat.Llama(path, chat_format=name, **OPTIONS) as one:
        answer = one.create_chat_completion(CHAT, max_tokens=3, logprobs=True, top_logprobs=1)
        assert one.chat_format == name and answer["choices"][0]["message"]["role"] == "assistant" and answer["choices"][0]["logprobs"]["content"]


def test_ones_own_format_and_handler(path):
    chat = compat.llama_chat_format
    seen = []

    @chat.register_chat_format("test-own")
    def own(messages, **given):
        seen.append(given["tools"])
        return chat.ChatFormatterResponse("say: " + messages[-1]["content"], stop="!")

    @chat.register_chat_completion_handler("test-handler")
    def handler(llama, messages, temperature=0.2, **_):
        return llama.create_completion(messages[0]["content"], max_tokens=2, temperature=temperature)

    try:
        with compat.Llama(path, chat_format="test-own", **OPTIONS) as one:
            got = one.create_chat_completion(CHAT, max_tokens=2, temperature=0)
            assert got["usage"]["prompt_tokens"] == len(one.tokenize("say: hello", special=True)) and seen == [None]
            direct = chat.get_chat_completion_handler("test-own")(llama=one, messages=CHAT, max_tokens=2, temperature=0)
            assert direct["choices"] == got["choices"]
            one.chat_format = "test-handler"
            assert one.create_chat_completion(CHAT)["object"] == "text_completion"
        with pytest.raises(ValueError, match="twice"):
            chat.register_chat_format("test-own")(own)
    finally:
        for name in ("test-own", "test-handler"):
            chat.LlamaChatCompletionHandlerRegistry().unregister_chat_handler(name)


def test_functions_are_asked_and_answered_under_their_names(llm):
    named = {"functions": [TOOL["function"]], "function_call": {"name": "pick"}, "logit_bias": END, "max_tokens": 200}
    message = llm.create_chat_completion(CHAT, **named)["choices"][0]["message"]
    assert message["function_call"]["name"] == "pick" and json.loads(message["function_call"]["arguments"])["a"] in (1, 2)
    assert message["tool_calls"][0]["function"] == message["function_call"]
    deltas = [chunk["choices"][0]["delta"] for chunk in llm.create_chat_completion(CHAT, stream=True, **named)]
    parts = [d["function_call"] for d in deltas if "function_call" in d]
    assert parts[0]["name"] == "pick" and json.loads("".join(p["arguments"] for p in parts))["a"] in (1, 2)
    assert llm.create_chat_completion(CHAT, functions=[TOOL["function"]], function_call="none", max_tokens=2)["choices"][0]["message"]["content"] is not None
    called = {"role": "assistant", "content": None, "function_call": {"name": "pick", "arguments": "{}"}}
    history = [*CHAT, called, {"role": "function", "name": "pick", "content": "7"}]
    legacy = importlib.import_module("spikingbrain_cpp.compat.legacy").as_tools({"messages": history, "functions": None, "function_call": None, "tools": None})
    assert [m["role"] for m in legacy["messages"]] == ["system", "user", "assistant", "tool"]
    assert legacy["messages"][2]["tool_calls"][0]["id"] == legacy["messages"][3]["tool_call_id"] and history[2] is called
    assert llm.create_chat_completion(history, functions=[TOOL["function"]], max_tokens=2)["usage"]["completion_tokens"] <= 2


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "function": {"name": "pick"}}])
def test_a_template_without_tools_takes_some(llm, choice):
    other = tool("other", b={"$ref": "#/$defs/B"})
    other["function"]["parameters"]["$defs"] = {"B": {"enum": ["x"]}}
    given = {"tools": [TOOL, other], "tool_choice": choice, "max_tokens": 300, "temperature": 0.9}
    history = [*CHAT, {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "pick", "arguments": "{\"a\": 1}"}}]},
               {"role": "tool", "tool_call_id": "1", "content": "7"}]
    for seed, first in ((0, "functions"), (1, "functions"), (2, "message")):  # what the answer is drawn to begin with
        given["logit_bias"] = {**END, llm.tokenize(first)[0]: 30.0}
        whole = llm.create_chat_completion(history, seed=seed, **given)["choices"][0]
        chunks = list(llm.create_chat_completion(history, seed=seed, stream=True, **given))
        assert chunks[-1]["choices"][0]["finish_reason"] == whole["finish_reason"]
        calls = [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in whole["message"].get("tool_calls", [])]
        assert all(arguments in {"pick": [{"a": 1}, {"a": 2}], "other": [{"b": "x"}]}[name] for name, arguments in calls)
        if choice == "auto" and first == "message":
            assert not calls and whole["message"]["content"] is not None
        else:
            assert calls and whole["finish_reason"] == "tool_calls" and whole["message"]["content"] is None
        assert not isinstance(choice, dict) or [name for name, _ in calls] == ["pick"]


def test_tools_are_shown_to_the_model(llm):
    texts = importlib.import_module("spikingbrain_cpp.compat.tool_texts")
    shown = texts.explained([*CHAT, {"role": "assistant", "content": "well"}], {"pick": TOOL})
    assert shown[0]["content"].startswith("short\n\n") and '"takes one"' in shown[0]["content"] and '"enum": [1, 2]' in shown[0]["content"]
    assert shown[1]["content"] == "hello" and shown[2]["content"] == "message: well"


@pytest.mark.parametrize("text, deltas", [
    ("message: hi there", "hi there"), ("message:\nfunctions: no", "functions: no"), ('functions:\n[{"name": "f", "arguments": {"a": [1, {"b": 2}]}}]', [("f", {"a": [1, {"b": 2}]})]),
    ('functions:[{"name": "f", "arguments": {}}, {"name": "g", "arguments": {"x": "}"}}]', [("f", {}), ("g", {"x": "}"})]), ('functions:\n[{"name": "f", "arg', []), ("mess", "mess")])
def test_an_answer_in_words_is_read_however_it_is_cut(text, deltas):
    from spikingbrain_cpp.chat_answer import join
    from spikingbrain_cpp.compat.tool_texts import CallsText

    for step in (1, 3, len(text)):
        reader = CallsText()
        found = [d for i in range(0, len(text), step) for d in reader.push(text[i:i + step])] + reader.end(True)
        message = join(found)
        calls = [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in message.get("tool_calls", [])]
        assert (message["content"] if isinstance(deltas, str) else calls) == deltas and reader.has_calls() == bool(calls)


def test_tools_of_a_template_that_knows_them_are_its_own(tmp_path):
    with compat.Llama(tiny_with(tmp_path, TOOL_TEMPLATE), **OPTIONS) as one:
        answer = one.create_chat_completion(CHAT, tools=[TOOL], tool_choice="required", logit_bias=END, max_tokens=300)
        assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "pick"
        assert one._formats["chat_template.default"]._format._jinja


# --- echo with logprobs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["hello the cat sat on the mat " * 12, [1, 2, 3, 260]])
def test_echo_says_what_the_prompt_was_worth(llm, path, prompt):
    with compat.Llama(path, **OPTIONS) as other:  # without logits_all
        got = other(prompt, max_tokens=2, echo=True, logprobs=2, temperature=0)["choices"][0]
        chunks = [c["choices"][0] for c in other(prompt, max_tokens=2, echo=True, logprobs=2, temperature=0, stream=True)]
    ids = llm.tokenize(prompt, special=True) if isinstance(prompt, str) else prompt
    llm.reset()
    llm.eval(ids)
    values = llm.logits_to_logprobs(llm.scores)
    found = got["logprobs"]
    assert len(found["tokens"]) == len(ids) + 2 and found["token_logprobs"][0] is None and found["top_logprobs"][0] is None
    assert np.allclose(found["token_logprobs"][1:len(ids)], [values[i, t] for i, t in enumerate(ids[1:])], atol=2e-4)
    assert np.allclose([max(top.values()) for top in found["top_logprobs"][1:len(ids)]], values[:-1].max(1), atol=2e-4)
    assert got["text"] == "".join(c["text"] for c in chunks) and chunks[0]["logprobs"]["token_logprobs"] == found["token_logprobs"][:len(ids)]
    assert all(got["text"][at:].startswith(token) for at, token in zip(found["text_offset"], found["tokens"]) if "\ufffd" not in token and token)


# --- what is looked into ------------------------------------------------------------------------------------------------------


def test_what_programs_look_into(llm):
    llm.reset()
    llm.eval([1, 2, 3])
    assert list(llm.eval_tokens) == [1, 2, 3] == llm._input_ids.tolist() and llm._scores.shape == (3, llm.n_vocab()) and len(llm.eval_logits) == 3
    llm.n_tokens = 2
    llm.eval([4])
    assert llm.input_ids.tolist() == [1, 2, 4] and llm.longest_token_prefix([1, 2, 3], [1, 2, 4]) == 2
    assert llm.ctx.kv_cache_seq_rm(-1, 1, -1) and llm.n_tokens == 1 and llm.ctx.n_ctx() == 2000 == llm.context_params.n_ctx
    with pytest.raises(ValueError, match="n_tokens: got 5"):
        llm.n_tokens = 5
    assert llm._model.token_get_text(511) == "<|im_end|>" and llm._model.n_ctx_train() == llm.model.n_ctx_train()
    with pytest.raises(AttributeError, match="no_such"):
        llm._model.no_such
    assert llm.model.n_vocab() == 512 and llm.model.token_get_text(llm.token_eos()) and llm.model.desc() and llm.model.n_ctx_train() > 0
    assert np.allclose(np.exp(llm.logits_to_logprobs([[0, 0], [1, -np.inf]])), [[0.5, 0.5], [1, 0]])
    text = llm.tokenizer()
    assert text.decode(text.encode("hello the")) == "hello the" and llm.tokenizer_ is text


def test_the_last_row_is_there_without_all_of_them(path):
    with compat.Llama(path, **OPTIONS) as one:
        one.eval([1, 2, 3])
        assert one._scores.shape == (1, 512) and np.array_equal(one._scores[-1], one.logits) and len(one.eval_logits) == 1


def test_min_tokens(llm):
    least = compat.LogitsProcessorList([compat.MinTokensLogitsProcessor(4, 511), compat.MinTokensLogitsProcessor(4, 509)])
    assert llm("hello", max_tokens=9, logit_bias=END)["usage"]["completion_tokens"] == 0
    eager = {"logit_bias": {511: 30.0, 509: 30.0}, "temperature": 0, "max_tokens": 9}
    assert llm("hello", logits_processor=least, **eager)["usage"]["completion_tokens"] == 4


class Duck:
    """A cache that is of no class of ours; empty, it is false."""

    def __init__(self):
        self.states = {}

    def __len__(self):
        return len(self.states)

    def __contains__(self, key):
        return any(tuple(key[:len(k)]) == k for k in self.states)

    def __getitem__(self, key):
        return self.states[max((k for k in self.states if tuple(key[:len(k)]) == k), key=len)] if key in self else {}[1]

    def __setitem__(self, key, value):
        assert value.llama_state_size == len(value.llama_state) and value.input_ids.tolist() == list(key)
        self.states[tuple(key)] = value


def test_a_cache_of_another_kind(path):
    duck, prompt = Duck(), list(range(40))
    with compat.Llama(path, **OPTIONS) as one, compat.Llama(path, **OPTIONS) as two:
        one.set_cache(duck)
        two.cache = duck
        assert one.cache is duck is two.cache
        want = one(prompt, max_tokens=2, temperature=0)["choices"]
        assert len(duck) == 1 and two(prompt, max_tokens=2, temperature=0)["choices"] == want and two.n_evaluated <= 3
        with pytest.raises(TypeError, match="set_cache: cache: got int without __getitem__"):
            one.set_cache(3)
    with spikingbrain_cpp.Llama(path, **ONE) as strict, pytest.raises(TypeError):
        strict.set_cache(duck)


def test_a_tokenizer_in_place_of_the_files(path):
    class Letters(compat.BaseLlamaTokenizer):
        def tokenize(self, text, add_bos=True, special=True):
            return [b + (500 if text == b"bad" else 0) for b in text]

        def detokenize(self, tokens, prev_tokens=None, special=False):
            return bytes(t % 256 for t in tokens)

    with compat.Llama(path, tokenizer=Letters(), **OPTIONS) as one:
        assert one.tokenize(b"abc") == [97, 98, 99] and one.detokenize([97]) == b"a" and one("abc", max_tokens=1)["usage"]["prompt_tokens"] == 3
        assert isinstance(one.tokenizer_, Letters)
        with pytest.raises(spikingbrain_cpp.LlamaError, match="llama: tokenizer: got token"):
            one.tokenize(b"bad")


def test_schemas_are_as_lenient_as_there(llm):
    with pytest.warns(UserWarning, match="uniqueItems"):
        grammar = compat.LlamaGrammar.from_json_schema('{"type": "array", "items": {"enum": [1]}, "uniqueItems": true}')
    assert llm("x", grammar=grammar, max_tokens=50, logit_bias=END)["choices"][0]["text"].startswith("[") and grammar._grammar == grammar.text
    text = compat.llama_grammar.json_schema_to_gbnf(json.dumps({"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}}}), ["b", "a"])
    assert compat.LlamaGrammar.from_string(text).matches('{"b": null, "a": null}') or compat.LlamaGrammar.from_string(text).matches('{"b":null,"a":null}')
    assert compat.LlamaGrammar.from_string(compat.llama_grammar.JSON_GBNF).matches('{"a": [1, {}]}')


# --- keys and values as INT8 ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{}, {"spike": True}])
def test_q8_0_is_the_int8_window(tmp_path, given):
    from binding_models import make_tiny

    model, ids = make_tiny(tmp_path, hidden_size=256, intermediate_size=128), np.random.default_rng(3).integers(0, 260, 90, dtype=np.int32)
    rows, sizes = [], []
    for types in ({}, {"type_k": compat.GGML_TYPE_Q8_0, "type_v": compat.GGML_TYPE_Q8_0}):
        with compat.Llama(model, logits_all=True, **types, **given, **ONE) as one:
            one.eval(ids[:60])
            for token in ids[60:]:
                one.eval([token])
            rows.append(one.logits_to_logprobs(one.scores))
            sizes.append(one.state_bytes())
    if given:
        assert np.array_equal(*rows) and sizes[0] == sizes[1]
    else:
        assert sizes[1] < sizes[0] and 0 < (np.exp(rows[0])*(rows[0] - rows[1])).sum(1).max() < 1e-4
    with spikingbrain_cpp.Llama(model, type_k=8, type_v=8, **given, **ONE) as one:  # llama.cpp's own name for it, heads of 64
        assert one.state_bytes() == sizes[1]
    for types in ({"type_k": 8}, {"type_v": 8}):  # one of them holds for both
        with compat.Llama(model, **types, **given, **ONE) as one:
            assert one.state_bytes() == sizes[1]
    for types in ({"type_k": 8, "type_v": 1}, {"type_k": 0, "type_v": 8}):
        with pytest.raises(ValueError, match="llama: type_v: got .* expected both 8"):
            compat.Llama(model, **types, **given, **ONE)


# --- the C functions that ask -----------------------------------------------------------------------------------------------------


def test_a_text_is_tokenized_by_the_c_functions(path, llm):
    import ctypes

    c, text = compat.llama_cpp, b"hello the cat"
    c.llama_backend_init()
    model = c.llama_model_load_from_file(str(path).encode(), c.llama_model_default_params())
    asked = c.llama_context_default_params()
    asked.n_ctx = 64
    ctx, vocab = c.llama_init_from_model(model, asked), c.llama_model_get_vocab(model)
    tokens = (c.llama_token * 64)()
    n = c.llama_tokenize(vocab, text, len(text), tokens, 64, True, False)
    assert tokens[:n] == llm.tokenize(text) and c.llama_tokenize(vocab, text, len(text), tokens, 2, True, False) == -n
    buffer = (ctypes.c_char * 32)()
    pieces = [bytes(buffer[:c.llama_token_to_piece(vocab, t, buffer, 32, 0, False)]) for t in tokens[:n]]
    assert b"".join(pieces) == text == bytes(buffer[:c.llama_detokenize(vocab, tokens, n, buffer, 32, False, False)])
    assert c.llama_n_ctx(ctx) == 64 and c.llama_vocab_n_tokens(vocab) == 512 and c.llama_vocab_is_eog(vocab, c.llama_vocab_eos(vocab))
    asked.n_ctxx = 3
    with pytest.raises(TypeError, match="n_ctxx"):
        c.llama_init_from_model(model, asked)
    c.llama_free(ctx)
    c.llama_model_free(model)


def test_the_log_goes_where_it_is_told(path, capfd):
    lines = []

    @compat.llama_log_callback
    def keep(level, text, user_data):
        lines.append(text)

    compat.llama_log_set(keep, None)
    try:
        compat.Llama(path, verbose=True, **ONE, vocab_only=True).close()
        assert any(b"general.architecture" in line or b"vocab" in line for line in lines) and capfd.readouterr().err == ""
    finally:
        compat.llama_log_set(None)
    before = len(lines)
    compat.Llama(path, **ONE, vocab_only=True).close()
    assert len(lines) == before and capfd.readouterr().err == ""
    with pytest.raises(TypeError, match="llama_log_set: callback: got builtin"):
        compat.llama_log_set(print)


# --- what stays refused -----------------------------------------------------------------------------------------------------------


IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]}]


def far_back(llm):
    llm.reset()
    llm.eval(list(range(100)))
    llm.n_tokens = 1


def imported(name):
    compat.install()
    try:
        importlib.import_module(name)
    finally:
        for module in [m for m in sys.modules if m.split(".")[0] == "llama_cpp"]:
            del sys.modules[module]


# the first column of the table in bindings/README.md: calls that must fail, and what they say
REFUSED = {
    '`suffix="text"`, `spm_infill=True`': {"suffix: got a text": lambda llm, make: llm("a", suffix="text"), "spm_infill: got True": lambda llm, make: make(spm_infill=True)},
    "messages with images, `Llava15ChatHandler` and its like, `llama_cpp.mtmd_cpp`": {
        "got a part 'image_url'": lambda llm, make: llm.create_chat_completion(IMAGE), "Llava15ChatHandler: .*sees or hears": lambda llm, make: compat.llama_chat_format.Llava15ChatHandler("x"),
        "Qwen25VLChatHandler: .*sees or hears": lambda llm, make: compat.llama_chat_format.Qwen25VLChatHandler.from_pretrained(repo_id="x"),
        "llama_cpp.mtmd_cpp': no model here sees": lambda llm, make: imported("llama_cpp.mtmd_cpp")},
    "`llama_cpp.server`": {"llama_cpp.server': sb-server is the server": lambda llm, make: imported("llama_cpp.server"), "sb-server is": lambda llm, make: imported("llama_cpp.server.app")},
    '`chat_format="functionary-v2"`': {"chat_format: got 'functionary-v2', expected .*chatml-function-calling": lambda llm, make: make(chat_format="functionary-v2")},
    "`llama_batch_init`, `llama_decode`, `llama_sampler_chain_init`, `llama_cpp._internals`": {
        "'llama_batch_init': what evaluates": lambda llm, make: compat.llama_batch_init(8, 0, 1), "'llama_decode': what evaluates": lambda llm, make: compat.llama_cpp.llama_decode,
        "'llama_sampler_chain_init': what evaluates": lambda llm, make: compat.llama_sampler_chain_init, "_internals': there are no ctypes": lambda llm, make: imported("llama_cpp._internals")},
    "`rope_freq_base=5000.0`, `rope_scaling_type=2`, `yarn_ext_factor=1.0`": {
        "rope_freq_base: got 5000.0": lambda llm, make: make(rope_freq_base=5000.0), "rope_scaling_type: got 2": lambda llm, make: make(rope_scaling_type=2),
        "yarn_ext_factor: got 1.0": lambda llm, make: make(yarn_ext_factor=1.0)},
    "`attention_type=1`": {"attention_type: got 1": lambda llm, make: make(attention_type=1)},
    "`swa_full=True`": {"swa_full: got True": lambda llm, make: make(swa_full=True)},
    '`lora_base="x"`': {"lora_base: got 'x'": lambda llm, make: make(lora_base="x")},
    "`type_k=8, type_v=1`, `type_k=2`": {"type_v: got 1 with type_k=8": lambda llm, make: make(type_k=8, type_v=1), "type_k: got q4_0": lambda llm, make: make(type_k=2, vocab_only=False)},
    "`tfs_z=0.5`, `penalize_nl=False`": {"tfs_z: got 0.5": lambda llm, make: llm("a", tfs_z=0.5), "penalize_nl: got False": lambda llm, make: llm.sample(penalize_nl=False)},
    "an empty prompt": {"prompt: got no tokens": lambda llm, make: llm("")},
    "`n_tokens = 1` far back": {"n_tokens: got 1, expected 0 or what the memory": lambda llm, make: far_back(llm)},
    "`n_ctxx=3`": {"n_ctxx: got an argument": lambda llm, make: make(n_ctxx=3)},
}


def test_the_table_of_what_stays_refused_is_true(llm, path):
    text = (ROOT / "bindings" / "README.md").read_text(encoding="utf-8").partition("What stays refused")[2]
    assert [row.split(" | ")[0].removeprefix("| ") for row in text.splitlines() if row.startswith("| ")][2:len(REFUSED) + 2] == list(REFUSED)
    for row, calls in REFUSED.items():
        for said, call in calls.items():
            with pytest.raises((ValueError, TypeError, RuntimeError, AttributeError, ImportError), match=said):
                call(llm, lambda **given: compat.Llama(path, **{"vocab_only": True, **given}, **ONE))
