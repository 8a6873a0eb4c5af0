"""No answer is without end: what a request that names no limit gets, what 0 and other values of a limit mean, what a cache may hold."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from binding_models import ONE, convert, tiny, tokens_of  # noqa: F401
from other_models import write_transformer
from running_server import BIN, Server

from spikingbrain_cpp import Llama

openai = pytest.importorskip("openai")
anthropic = pytest.importorskip("anthropic")

ROOT = Path(__file__).resolve().parent.parent
END, NEW = 32768, 4096   # of prompt and answer together; new tokens in any case
NEVER = {i: -1e9 for i in range(256, 262)}  # the end tokens of binding_models' vocabulary
needs_tools = pytest.mark.skipif(not (BIN / "sb-server").exists(), reason="the package is not installed: run make build")


@pytest.fixture(scope="module")
def llm(tiny):  # noqa: F811
    with Llama(tiny, embedding=True, pooling_type=1, **ONE) as llm:
        yield llm


# --- the class ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("options, n_prompt, want", [
    ({}, 0, END), ({}, 1, END - 1), ({}, END - NEW, NEW), ({}, END - NEW - 1, NEW + 1), ({}, END - 1, NEW), ({}, 10**6, NEW),
    ({}, 2**30 - 5, 5),                                                                # positions end
    ({"n_ctx": 100}, 40, 60), ({"n_ctx": 100}, 100, 0), ({"n_ctx": 50_000}, 1, 49_999), ({"n_ctx": 2**30}, 7, 2**30 - 7),
    ({"kv_overrides": {"spikingbrain.context_length": 100_000}}, 10, 99_990),          # the trained length is more
    ({"kv_overrides": {"spikingbrain.context_length": 100_000}}, 99_999, NEW),
])
def test_the_class_tells_the_limit_of_a_request_that_names_none(tiny, options, n_prompt, want):  # noqa: F811
    with Llama(tiny, **ONE, **options) as llm:
        assert llm.default_max_tokens(n_prompt) == want


def test_another_architectures_answer_ends_with_its_context(tiny, tmp_path):  # noqa: F811
    with Llama(write_transformer(tmp_path / "llama.gguf", tiny), **ONE) as llm:
        assert llm.default_max_tokens(3) == llm.n_ctx() - 3 < END


@pytest.mark.parametrize("max_tokens", [None, 0, -1, -2**40])
def test_every_door_that_names_no_limit_takes_the_default(llm, monkeypatch, max_tokens):
    monkeypatch.setattr(llm, "default_max_tokens", lambda n_prompt=0: n_prompt + 2)
    options = {"max_tokens": max_tokens, "temperature": 0, "logit_bias": NEVER}
    prompt, chat = tokens_of(5).tolist(), [{"role": "user", "content": "hi"}]
    whole, streamed = llm(prompt, **options), list(llm(prompt, stream=True, **options))
    assert whole["usage"]["completion_tokens"] == 7
    assert whole["choices"][0]["finish_reason"] == streamed[-1]["choices"][0]["finish_reason"] == "length"
    assert "".join(c["choices"][0]["text"] for c in streamed) == whole["choices"][0]["text"]
    said = llm.create_chat_completion(chat, **options)
    assert said["usage"]["completion_tokens"] == said["usage"]["prompt_tokens"] + 2 and said["choices"][0]["finish_reason"] == "length"
    assert asyncio.run(llm.acreate_completion(prompt, **options))["usage"]["completion_tokens"] == 7
    many = llm.generate_many([prompt, prompt[:3]], max_tokens=max_tokens, temperature=0, logit_bias=NEVER)
    assert [(len(m["tokens"]), m["finish_reason"]) for m in many] == [(7, "length"), (5, "length")]


def test_a_named_limit_and_a_named_context_hold_alone(llm, tiny):  # noqa: F811
    prompt, options = tokens_of(30).tolist(), {"temperature": 0, "logit_bias": NEVER}
    assert llm(prompt, max_tokens=9, **options)["usage"]["completion_tokens"] == 9
    with Llama(tiny, n_ctx=50, **ONE) as short:
        answer = short(prompt, max_tokens=None, **options)
        assert (answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]) == (20, "length")


# --- text as bytes, offsets ------------------------------------------------------------------------------------------------

BYTES = ["hello the é".encode(), bytearray("hello the é".encode()), memoryview("hello the é".encode())]


@pytest.mark.parametrize("raw", BYTES, ids=lambda raw: type(raw).__name__)
def test_bytes_are_text_wherever_a_text_is_a_prompt(llm, raw):
    text, options = "hello the é", {"max_tokens": 4, "temperature": 0}
    want = llm(text, echo=True, **options)
    got = llm(raw, echo=True, **options)
    assert (got["usage"], got["choices"]) == (want["usage"], want["choices"]) and got["choices"][0]["text"].startswith(text)
    assert llm.create_completion(b"a\xffb", echo=True, **options)["choices"][0]["text"].startswith("a\ufffdb")
    assert asyncio.run(llm.acreate_completion(raw, **options))["choices"][0]["text"] == want["choices"][0]["text"][len(text):]
    assert llm.generate_many([raw], **options)[0]["tokens"] == llm.generate_many([text], **options)[0]["tokens"]
    assert llm.embed(raw) == llm.embed(text) and llm.embed([raw, "x"]) == llm.embed([text, "x"])
    assert llm.create_embedding(raw)["data"] == llm.create_embedding(text)["data"]
    assert llm.tokenize(raw) == llm.tokenize(text)


@pytest.mark.parametrize("call", [
    lambda llm, raw: llm.eval(raw), lambda llm, raw: llm.generate(raw), lambda llm, raw: llm.detokenize(raw),
    lambda llm, raw: llm.detokenize([1], prev_tokens=raw), lambda llm, raw: send(llm.generate([1], temp=0), raw),
    lambda llm, raw: llm.batch(1).eval({0: raw})])
@pytest.mark.parametrize("raw", BYTES, ids=lambda raw: type(raw).__name__)
def test_bytes_are_no_token_ids(llm, call, raw):
    with pytest.raises(TypeError, match=f"got {type(raw).__name__}, expected integers in a list; tokenize it"):
        call(llm, raw)


def send(tokens, more) -> None:
    next(tokens)
    tokens.send(more)


def test_bytes_that_are_no_prompt_are_refused_by_name(llm):
    chat = lambda content: llm.create_chat_completion([{"role": "user", "content": content}], max_tokens=1)  # noqa: E731
    for call in (lambda: llm("a", stop=b"x"), lambda: chat(b"hi"), lambda: chat([{"type": "text", "text": b"hi"}]),
                 lambda: llm.generate_many(b"hi"), lambda: llm("a", stop=[b"x"])):
        with pytest.raises((TypeError, ValueError), match="got"):
            call()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("stop", [[], ["ab{}never"], ["zz", "b{}d never"]])
def test_text_offset_is_where_a_tokens_text_begins(llm, stream, stop):
    """Also while text is held back because it may begin a stop string, and inside of a character."""
    answer = b"ab{}cd\xc3\xa9e ab{}d"
    byte = {llm.detokenize([i]): i for i in range(llm.n_vocab())}
    todo = iter([byte[answer[i:i + 1]] for i in range(len(answer))])
    bias = lambda ids, row: np.where(np.arange(row.size) == next(todo), np.float32(50), np.float32(-50))  # noqa: E731
    made = llm("hello", max_tokens=len(answer), temperature=0, logprobs=0, stop=stop, logits_processor=bias, stream=stream)
    choices = [c["choices"][0] for c in made] if stream else [made["choices"][0]]
    assert "".join(c["text"] for c in choices) == answer.decode()
    offsets = [o for c in choices for o in c["logprobs"]["text_offset"]]
    assert offsets == [len("hello") + len(answer[:i].decode("utf-8", "ignore")) for i in range(len(answer))]


# --- the server --------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("limits")


@pytest.fixture(scope="module")
def model(folder) -> Path:
    return convert(ROOT / "examples" / "tiny", folder / "f32.gguf", "--outtype", "f32")


@pytest.fixture(scope="module")
def server(model, folder):
    with Server(model, folder / "server.log") as s:
        yield s


def limit_of(server: Server, **request) -> int:
    """Of a request: what the server says it is, having ended it after a token."""
    return server.post("/completion", prompt=[1, 2, 3], grammar='root ::= "a"', **request)["generation_settings"]["n_predict"]


@needs_tools
@pytest.mark.parametrize("args, default, given", [
    ((), {"n_total": END, "n_predict_min": NEW}, -1), (("-n", -1), {"n_total": END, "n_predict_min": NEW}, -1),
    (("-n", 5), {"n_predict": 5}, 5), (("-c", 4096, "-np", 1), {"n_total": 4096}, -1), (("-c", 2**30, "-np", 1), {"n_total": 2**30}, -1)])
def test_props_tell_the_limit_and_requests_without_one_get_it(model, folder, args, default, given):
    with Server(model, folder / "props.log", *args) as s:
        props = s.get("/props")
        assert props["default_limit"] == default
        settings = props["default_generation_settings"]
        assert (settings["params"]["n_predict"], settings["params"]["max_tokens"]) == (given, given)
        want = default.get("n_predict", -1 if "-c" in args else END - 3)
        assert [limit_of(s, **request) for request in ({}, {"n_predict": -1}, {"max_tokens": None}, {"max_tokens": 2})] == [want] * 3 + [2]


@needs_tools
@pytest.mark.parametrize("args, default", [((), {"n_total": 512, "n_predict_min": NEW}), (("-c", 256, "--context-shift"), {"n_total": END, "n_predict_min": NEW})])
def test_another_architectures_requests_end_too(tiny, folder, args, default):  # noqa: F811
    """With its context, or where that moves on with the text, as if there were none."""
    path = folder / "llama.gguf"
    with Server(path if path.exists() else write_transformer(path, tiny), folder / "llama.log", "-np", 1, *args) as s:
        assert s.get("/props")["default_limit"] == default and limit_of(s) == END - 3


@needs_tools
def test_limits_of_several_names_all_hold_and_a_negative_one_is_none(server):
    for request, want in [({"n_predict": -1, "max_tokens": 5}, 5), ({"n_predict": 7, "max_tokens": 5}, 5), ({"max_completion_tokens": 3}, 3),
                          ({"max_completion_tokens": 9, "max_tokens": 4}, 4), ({"n_predict": -7}, END - 3), ({"max_tokens": 6.0}, 6)]:
        assert limit_of(server, **request) == want, request


ENDPOINTS = {  # path: (the rest of a body, names of its limit)
    "/completion": ({"prompt": "hello"}, ("n_predict", "max_tokens", "max_completion_tokens")),
    "/v1/completions": ({"prompt": "hello"}, ("max_tokens", "n_predict")),
    "/v1/chat/completions": ({"messages": [{"role": "user", "content": "hi"}]}, ("max_tokens", "max_completion_tokens", "n_predict")),
    "/v1/responses": ({"input": "hi"}, ("max_output_tokens",)),
    "/v1/messages": ({"messages": [{"role": "user", "content": "hi"}]}, ("max_tokens",)),
    "/infill": ({"input_prefix": "a", "input_suffix": "b"}, ("n_predict",)),
}


@needs_tools
@pytest.mark.parametrize("value", [2**31, 2**40, 2**63, 2**64, 1.5, 1e300, "7", True, [7]])
def test_a_limit_that_is_no_number_of_tokens_is_refused(server, value):
    for path, (body, names) in ENDPOINTS.items():
        for name in names:
            if path != "/infill":  # there are no such models here
                status, message = server.refused(path, json.dumps({**body, name: value}).encode())
                assert status == 400 and "got" in message and "expected an integer" in message, (path, name, message)


@needs_tools
@pytest.mark.parametrize("name", ["top_k", "n_keep", "n_probs", "repeat_last_n"])
def test_no_number_of_a_request_wraps(server, name):
    for value in (2**40, 1.5):
        status, message = server.refused("/completion", json.dumps({"prompt": "a", "n_predict": 1, name: value}).encode())
        assert status == 400 and f"Field '{name}': got {value}, expected an integer from" in message


@needs_tools
def test_zero_evaluates_the_prompt_and_says_nothing(server):
    answer = server.post("/completion", prompt="a first word", n_predict=0, return_tokens=True)
    assert (answer["content"], answer["tokens"], answer["tokens_predicted"], answer["stop_type"]) == ("", [], 0, "limit")
    assert answer["tokens_evaluated"] == len(server.post("/tokenize", content="a first word")["tokens"])
    again = server.post("/completion", prompt="a first word", n_predict=1, id_slot=answer["id_slot"])
    assert again["tokens_predicted"] == 1 and again["timings"]["prompt_n"] == 0  # it was kept with its logits
    assert server.stream("/completion", prompt="a first word", n_predict=0, stream=True)[-1]["stop_type"] == "limit"


@needs_tools
def test_zero_is_an_empty_answer_for_the_real_clients(server):
    hi = [{"role": "user", "content": "hi"}]
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", timeout=60, max_retries=0) as client:
        for make, text, body in [(client.chat.completions.create, lambda c: c.message.content, {"messages": hi}),
                                 (client.completions.create, lambda c: c.text, {"prompt": "hi"})]:
            whole = make(model="any", max_tokens=0, **body)
            assert (text(whole.choices[0]), whole.choices[0].finish_reason) == ("", "length")
            assert whole.usage.completion_tokens == 0 and whole.usage.prompt_tokens > 0
            chunks = list(make(model="any", max_tokens=0, stream=True, stream_options={"include_usage": True}, **body))
            assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
            assert chunks[-1].usage == whole.usage or chunks[-1].usage.completion_tokens == 0
        made = client.responses.create(model="any", input="hi", max_output_tokens=0)
        assert made.output_text == "" and made.usage.output_tokens == 0
        kinds = [event.type for event in client.responses.create(model="any", input="hi", max_output_tokens=0, stream=True)]
        assert kinds[0] == "response.created"
    with anthropic.Anthropic(base_url=server.url, api_key="none", timeout=60, max_retries=0) as client:
        said = client.messages.create(model="any", max_tokens=0, messages=hi)
        assert (said.stop_reason, said.usage.output_tokens, [b.text for b in said.content if b.text]) == ("max_tokens", 0, [])
        with client.messages.stream(model="any", max_tokens=0, messages=hi) as stream:
            final = stream.get_final_message()
        assert (final.stop_reason, final.usage.output_tokens) == ("max_tokens", 0)
        assert final.usage.input_tokens + final.usage.cache_read_input_tokens > 0


@needs_tools
def test_openais_client_without_max_tokens_gets_an_answer_that_ends(server):
    """A model that never writes its end token, after a prompt that is longer than the limit already."""
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", timeout=120, max_retries=0) as client:
        answer = client.completions.create(model="any", prompt=[5, 6, 7, 8] * (END // 4), temperature=0, extra_body={"ignore_eos": True})
    assert answer.choices[0].finish_reason == "length"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (END, NEW)


@needs_tools
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
def test_chats_without_a_limit_get_the_default(server, path):
    """The slot says so while the answer is under way."""
    body = json.dumps({**ENDPOINTS[path][0], "stream": True, "ignore_eos": True}).encode()
    request = urllib.request.Request(server.url + path, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        response.read(200)
        running = [s for s in server.get("/slots") if s["is_processing"]]
    assert running and all(END - 100 < s["params"]["n_predict"] < END for s in running), running


# --- the terminal ----------------------------------------------------------------------------------------------------------------

@needs_tools
def test_a_completion_in_the_terminal_ends(model, folder):
    (folder / "long.txt").write_text("the cat sat on the mat. " * 6000)
    done = subprocess.run([BIN / "sb-completion", "-m", model, "-f", folder / "long.txt", "-t", "1", "--ignore-eos", "--temp", "0", "-no-cnv",
                           "--no-display-prompt", "--perf", "-n", "-1"], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    n_prompt = int(re.search(r"prompt eval time =.*?/ +(\d+) tokens", done.stderr)[1])
    assert n_prompt > END and int(re.search(r"\n.*? eval time =.*?/ +(\d+) runs", done.stderr)[1]) == NEW - 1  # the first is the prompt's


@needs_tools
@pytest.mark.parametrize("option, variable, value", [
    ("-n", "LLAMA_ARG_N_PREDICT", "1.5"), ("-c", "LLAMA_ARG_CTX_SIZE", "4k"), ("-c", "LLAMA_ARG_CTX_SIZE", str(2**40)), ("-n", "LLAMA_ARG_N_PREDICT", "")])
def test_an_options_number_is_read_whole_or_refused(model, option, variable, value):
    for args, env in [((option, value), {}), ((), {variable: value})] if value else [((option, value), {})]:
        done = subprocess.run([BIN / "sb-completion", "-m", model, "-p", "a", "-no-cnv", "-t", "1", *args], env={**os.environ, **env},
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
        assert done.returncode == 1 and re.search(f"got ('{value}', expected an integer|{value}, expected 0 to 2147483647)", done.stderr + done.stdout), done


# --- the server's prompt cache ---------------------------------------------------------------------------------------------------

@needs_tools
def test_the_prompt_cache_holds_eight_states_of_the_model_by_default(model, folder):
    with Llama(model, **ONE) as llm:
        n_state = 5 * llm.state_bytes() + 4 * llm.n_vocab()  # with the four checkpoints of a request and its row of logits
    want = -(-8 * n_state // 2**20)
    for args, limit in [((), want), (("--cache-ram", 3), 3)]:
        with Server(model, folder / "cache.log", "-np", 1, "-lv", 4, *args) as s:
            log = s.log.read_text()
            assert f"size limit: {limit} MiB" in log
            assert (f"prompt cache: at most {limit} MiB: 8 slot states" in log) == (args == ())


@needs_tools
def test_the_prompt_cache_stays_within_its_default(model, folder):
    """Sixty users, one slot: each prompt pushes the one before into the cache."""
    with Server(model, folder / "users.log", "-np", 1, "-lv", 4) as s:
        for i in range(60):
            s.complete(tokens_of(40, 250, seed=i).tolist(), 1)
        log = s.log.read_text()
    sizes = [(float(a), float(b)) for a, b in re.findall(r"cache state: \d+ prompts, ([\d.]+) MiB \(limits: ([\d.]+) MiB", log)]
    assert len(sizes) > 50 and all(size <= limit for size, limit in sizes)
