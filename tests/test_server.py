"""sb-server keeps OpenAI's protocol, its slots' independence, its memory's bounds, and what was saved of a slot.

A real server process, the `openai` package as client, greedy answers: what several users get together, or after a
restore, is what one gets alone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from binding_models import convert
from running_server import BIN, Server
from tool_model import CALL, END, TOOL, TOOL_TEMPLATE, tool_model

openai = pytest.importorskip("openai")

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "examples" / "make_example.py").read_text().split('"""')[3]
GREEDY = {"temperature": 0, "extra_body": {"ignore_eos": True}}
NEAR_END = 4  # tokens between the end of a prompt and the checkpoint before it (upstream's number)

pytestmark = pytest.mark.skipif(not (BIN / "sb-server").exists(), reason="the package is not installed: run make build")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def model(folder) -> Path:
    """F32, so that batches of different shapes agree closely enough for greedy text to be compared."""
    return convert(ROOT / "examples" / "tiny", folder / "f32.gguf", "--outtype", "f32")


@pytest.fixture(scope="module")
def server(model, folder):
    with Server(model, folder / "server.log", "--slot-save-path", f"{folder}/", "--metrics") as s:
        yield s


def client_of(server: Server):
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", timeout=60, max_retries=0)


@pytest.fixture(scope="module")
def client(server):
    with client_of(server) as c:
        yield c


def user(text: str) -> list[dict]:
    return [{"role": "user", "content": text}]


def answer(client, text: str, n: int = 24, **more) -> str:
    return client.chat.completions.create(model="any", messages=user(text), max_tokens=n, **GREEDY, **more).choices[0].message.content


def wait_until_idle(server: Server, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(slot["is_processing"] for slot in server.get("/slots")):
            return True
        time.sleep(0.02)
    return False


def metric(server: Server, name: str) -> int:
    with urllib.request.urlopen(server.url + "/metrics", timeout=60) as response:
        return int(float(re.search(rf"^llamacpp:{name} (\S+)$", response.read().decode(), re.M)[1]))


# --- its end ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("body", [{"prompt": TEXT * 2000, "max_tokens": 4}, {"prompt": TEXT, "max_tokens": 10**6, "stream": True}], ids=["reading", "answering"])
def test_one_signal_ends_it_although_a_client_waits(model, tmp_path, body):
    def asked():
        reply = client.completions.create(model="any", **body, **GREEDY)
        return list(reply) if "stream" in body else reply
    with Server(model, tmp_path / "log") as server, client_of(server) as client, ThreadPoolExecutor() as pool:
        waiting = pool.submit(asked)
        deadline = time.monotonic() + 60
        while not any(slot["is_processing"] for slot in server.get("/slots")):
            assert time.monotonic() < deadline and not waiting.done()
            time.sleep(0.02)
        server.process.terminate()
        try:
            assert server.process.wait(20) == 0
        finally:
            server.process.kill()
        with pytest.raises(openai.APIError, match="told to stop"):
            waiting.result(20)


# --- OpenAI's endpoints ---------------------------------------------------------------------------------------

def test_chat_answers_with_usage_and_the_reason_it_ended(client):
    reply = client.chat.completions.create(model="any", messages=user("What is silent?"), max_tokens=24, **GREEDY)
    assert reply.choices[0].finish_reason == "length" and reply.choices[0].message.role == "assistant"
    assert reply.choices[0].message.content
    assert reply.usage.completion_tokens == 24 and reply.usage.prompt_tokens > 4
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + 24


def test_a_streamed_chat_is_the_same_text_in_pieces(client):
    stream = client.chat.completions.create(model="any", messages=user("What is silent?"), max_tokens=24, stream=True,
                                            stream_options={"include_usage": True}, **GREEDY)
    chunks = list(stream)
    pieces = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert len(pieces) > 5 and "".join(pieces) == answer(client, "What is silent?")
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert chunks[-1].usage.completion_tokens == 24


def test_completions_stream_and_give_logprobs(client):
    whole = client.completions.create(model="any", prompt="the lighthouse", max_tokens=12, logprobs=3, **GREEDY)
    pieces = client.completions.create(model="any", prompt="the lighthouse", max_tokens=12, stream=True, **GREEDY)
    assert "".join(c.choices[0].text for c in pieces if c.choices) == whole.choices[0].text != ""
    rows = whole.choices[0].logprobs.model_extra["content"]
    assert len(rows) == 12
    for row in rows:
        assert len(row["top_logprobs"]) == 3
        assert row["logprob"] == max(top["logprob"] for top in row["top_logprobs"]) <= 0  # greedy took the likeliest


def test_several_prompts_in_one_request_are_several_answers(client):
    both = client.completions.create(model="any", prompt=["the lighthouse", "the tide"], max_tokens=8, **GREEDY)
    one = client.completions.create(model="any", prompt="the tide", max_tokens=8, **GREEDY)
    assert [c.index for c in both.choices] == [0, 1] and both.choices[1].text == one.choices[0].text


@pytest.fixture(scope="module")
def tool_client(folder):
    with Server(tool_model(folder), folder / "tools.log", "-np", 1) as s, client_of(s) as c:
        yield c


def test_a_required_tool_is_called_with_arguments_of_its_schema(tool_client):
    asked = {"model": "any", "messages": user("How warm is it?"), "tools": [TOOL], "tool_choice": "required", "max_tokens": 300,
             "temperature": 0, "logit_bias": {str(CALL): 50, str(END): 100}}
    reply = tool_client.chat.completions.create(**asked).choices[0]
    call, = reply.message.tool_calls
    assert reply.finish_reason == "tool_calls" and call.function.name == "get_temperature"
    assert json.loads(call.function.arguments)["unit"] in ("celsius", "kelvin")
    deltas = [c.choices[0].delta for c in tool_client.chat.completions.create(**asked, stream=True) if c.choices]
    streamed = "".join(t.function.arguments or "" for d in deltas for t in d.tool_calls or [])
    assert streamed == call.function.arguments
    answered = [*asked["messages"], reply.message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": call.id, "content": "12"}]
    assert tool_client.chat.completions.create(model="any", messages=answered, max_tokens=8, temperature=0).choices[0].message


def test_tool_choice_none_calls_none(tool_client):
    reply = tool_client.chat.completions.create(model="any", messages=user("How warm is it?"), tools=[TOOL], tool_choice="none",
                                                max_tokens=12, temperature=0).choices[0].message
    assert not reply.tool_calls and reply.content


def test_a_tool_chosen_by_name_is_the_one_that_is_called(tool_client):
    other = {"type": "function", "function": {"name": "close_door", "description": "", "parameters": {"type": "object", "properties": {}}}}
    asked = {"model": "any", "messages": user("How warm is it?"), "tools": [other, TOOL], "max_tokens": 300, "temperature": 0,
             "logit_bias": {str(CALL): 50, str(END): 100}}
    for name in ("get_temperature", "close_door"):
        reply = tool_client.chat.completions.create(**asked, tool_choice={"type": "function", "function": {"name": name}}).choices[0]
        assert [call.function.name for call in reply.message.tool_calls] == [name]
    with pytest.raises(openai.BadRequestError, match="got the function 'absent', expected one of tools"):
        tool_client.chat.completions.create(**asked, tool_choice={"type": "function", "function": {"name": "absent"}})


@pytest.mark.parametrize("more", [{}, {"parallel_tool_calls": False}])
def test_a_tool_chosen_by_name_is_called_once(tool_client, more):
    """Also by a model that would go on calling; its arguments satisfy their schema."""
    schema = {"type": "object", "required": ["code", "share"], "properties": {
        "code": {"type": "string", "pattern": r"^\d{2}$"}, "share": {"type": "number", "minimum": 0.5, "maximum": 0.75}}}
    ring = {"type": "function", "function": {"name": "ring", "parameters": schema}}
    reply = tool_client.chat.completions.create(model="any", messages=user("x"), tools=[TOOL, ring], tool_choice={"type": "function", "function": {"name": "ring"}},
                                                max_tokens=200, temperature=1, seed=1, logit_bias={str(CALL): 50}, **more).choices[0].message
    call, = reply.tool_calls
    arguments = json.loads(call.function.arguments)
    assert call.function.name == "ring" and re.fullmatch("[0-9]{2}", arguments["code"]) and 0.5 <= arguments["share"] <= 0.75


def test_auto_leaves_the_choice_to_the_model(model, folder):
    """Random weights call nothing; nothing forces them to."""
    template = folder / "tools.jinja"
    template.write_text(TOOL_TEMPLATE)
    with Server(model, folder / "auto.log", "-np", 1, "--chat-template-file", template) as s, client_of(s) as c:
        for choice in ({}, {"tool_choice": "auto"}):
            reply = c.chat.completions.create(model="any", messages=user("How warm is it?"), tools=[TOOL], max_tokens=12, **GREEDY, **choice).choices[0]
            assert reply.message.content and not reply.message.tool_calls and reply.finish_reason == "length"


def test_json_mode_gives_json(client):
    reply = client.chat.completions.create(model="any", messages=user("x"), max_tokens=200, temperature=0, response_format={"type": "json_object"})
    assert isinstance(json.loads(reply.choices[0].message.content), dict)


def test_a_json_schema_is_kept_also_when_streamed(client):
    schema = {"type": "object", "properties": {"town": {"enum": ["Oslo", "Rome"]}, "n": {"type": "integer", "minimum": 0, "maximum": 9}},
              "required": ["town", "n"], "additionalProperties": False}
    asked = {"model": "any", "messages": user("Which town?"), "max_tokens": 300, "temperature": 0,
             "response_format": {"type": "json_schema", "json_schema": {"name": "town", "schema": schema}}}
    reply = json.loads(client.chat.completions.create(**asked).choices[0].message.content)
    assert reply["town"] in ("Oslo", "Rome") and 0 <= reply["n"] <= 9 and set(reply) == {"town", "n"}
    pieces = client.chat.completions.create(**asked, stream=True)
    assert json.loads("".join(c.choices[0].delta.content or "" for c in pieces if c.choices)) == reply


def test_stop_words_and_seeds(client):
    text = client.completions.create(model="any", prompt="the tide", max_tokens=40, **GREEDY).choices[0].text
    word = text[10:13]
    cut = client.completions.create(model="any", prompt="the tide", max_tokens=40, stop=[word], **GREEDY).choices[0]
    assert cut.text == text[:text.index(word)] and cut.finish_reason == "stop"
    seeded = [client.completions.create(model="any", prompt="the tide", max_tokens=20, temperature=1.5, seed=s).choices[0].text for s in (1, 1, 2)]
    assert seeded[0] == seeded[1] != seeded[2]


def test_models_health_and_metrics(server, client):
    assert [m.id for m in client.models.list()] and server.get("/health") == {"status": "ok"}
    before = metric(server, "tokens_predicted_total")
    answer(client, "And then?", 16)
    assert metric(server, "tokens_predicted_total") - before == 16
    assert wait_until_idle(server) and metric(server, "requests_processing") == 0


# --- several users ----------------------------------------------------------------------------------------------

def test_eight_users_at_once_each_get_their_solo_answer(server, client):
    """More users than slots: four are decoded together, the others wait for one of them."""
    asked = [f"{i} {TEXT[i * 70:i * 70 + 90]}" for i in range(8)]
    alone = [answer(client, text, 32) for text in asked]

    def ask(text: str) -> str:
        with client_of(server) as own:
            pieces = own.chat.completions.create(model="any", messages=user(text), max_tokens=32, stream=True, **GREEDY)
            return "".join(c.choices[0].delta.content or "" for c in pieces if c.choices)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, asked))
    assert together == alone and len(set(alone)) == 8


def test_a_client_that_leaves_while_text_is_written_frees_its_slot(server, client):
    stream = client.completions.create(model="any", prompt="the tide", max_tokens=10_000_000, stream=True, **GREEDY)
    next(iter(stream))
    assert any(slot["is_processing"] for slot in server.get("/slots"))
    stream.close()
    assert wait_until_idle(server) and answer(client, "still there?", 4)


def test_a_client_that_leaves_while_its_prompt_is_read_frees_its_slot(server, client):
    """Nothing can be written to it then, so the server must ask; looking at /slots keeps its queue busy meanwhile."""
    prompt, before = [t % 500 for t in range(60_000)], metric(server, "prompt_tokens_total")
    with client_of(server) as impatient, pytest.raises(openai.APITimeoutError):
        impatient.with_options(timeout=0.5).completions.create(model="any", prompt=prompt, max_tokens=4, **GREEDY)
    assert wait_until_idle(server)
    assert metric(server, "prompt_tokens_total") - before < len(prompt) and answer(client, "still there?", 4)


# --- prompt reuse: what is evaluated again ------------------------------------------------------------------------

def test_a_prompt_that_was_read_is_not_read_again(server):
    """Its end was kept with the logits: whatever samples from them gives what it gave, and no token is evaluated."""
    prompt = server.post("/tokenize", content=TEXT[300:1100])["tokens"]
    more = [{"n_probs": 5}, {"n_probs": 5, "post_sampling_probs": True}, {"temperature": 1.2, "seed": 4},
            {"repeat_penalty": 1.5, "repeat_last_n": 64}, {"logit_bias": [[7, 5.0]]}, {"grammar": 'root ::= "the " [a-z]+'}]
    ask = lambda extra, **kw: server.post("/completion", **{"prompt": prompt, "n_predict": 16, "temperature": 0, "return_tokens": True, "id_slot": 0, **extra, **kw})  # noqa: E731
    for extra in more:
        cold, again = ask(extra, cache_prompt=False), ask(extra)
        assert (cold["timings"]["cache_n"], again["timings"]["cache_n"]) == (0, len(prompt)), extra
        assert again["timings"]["prompt_n"] == 0 and again["tokens"] == cold["tokens"] != [], extra
        assert again.get("completion_probabilities") == cold.get("completion_probabilities"), extra
    changed = [*prompt[:-1], prompt[-1] ^ 1]
    assert ask({"prompt": changed})["tokens"] == ask({"prompt": changed}, cache_prompt=False)["tokens"]


def test_no_checkpoint_of_another_text_is_taken(server):
    """One whose last token is the first that differs: upstream keeps it, and later goes on from it."""
    tokens = server.post("/tokenize", content=TEXT)["tokens"]
    short = [tokens[0] ^ 1, *tokens[1:5]]  # its checkpoint, 4 tokens before its end, holds one token
    for before in ([short, tokens[:100]], [tokens[:60], [*tokens[:59], tokens[59] ^ 1, *tokens[60:100]]]):
        for prompt in before:
            server.complete(prompt, 4, id_slot=2)
        for prompt in (tokens[:50], [*tokens[:59], tokens[59] ^ 1, *tokens[61:70]]):
            warm = server.complete(prompt, 12, id_slot=2, n_probs=1)
            cold = server.complete(prompt, 12, id_slot=1, n_probs=1, cache_prompt=False)
            assert warm["tokens"] == cold["tokens"]
            assert [p["logprob"] for p in warm["completion_probabilities"]] == pytest.approx([p["logprob"] for p in cold["completion_probabilities"]], abs=1e-4)


def test_a_prompt_that_was_read_streams_at_once(server):
    """Also with the events that tell of its progress, of which one is left."""
    messages = user(TEXT[:900])
    text, _, _ = turn(server, messages, cache_prompt=False, id_slot=0)
    events = server.stream("/v1/chat/completions", messages=messages, max_tokens=20, temperature=0, ignore_eos=True, id_slot=0,
                           stream=True, return_progress=True)
    assert [e["prompt_progress"]["processed"] == e["prompt_progress"]["total"] for e in events if "prompt_progress" in e] == [True]
    assert events[-1]["timings"]["prompt_n"] == 0
    assert "".join(e["choices"][0]["delta"].get("content") or "" for e in events if e["choices"]) == text


def test_kept_prompts_start_while_another_slot_reads_and_writes(server):
    """Three of them in one step, in the middle of a prompt of 20,000 tokens; then several answers to one."""
    tokens = server.post("/tokenize", content=TEXT)["tokens"]
    prompts = [tokens[i * 60:i * 60 + 200] for i in range(3)]
    alone = [server.complete(p, 40, id_slot=i, cache_prompt=False)["tokens"] for i, p in enumerate(prompts)]
    long = [t % 500 for t in range(20_000)]
    with ThreadPoolExecutor(4) as pool:
        other = pool.submit(server.complete, long, 20, id_slot=3, cache_prompt=False)
        together = list(pool.map(lambda i: server.complete(prompts[i], 40, id_slot=i), range(3)))
    assert [a["timings"]["prompt_n"] for a in together] == [0, 0, 0] and [a["tokens"] for a in together] == alone
    assert other.result()["tokens"] == server.complete(long, 20, id_slot=3)["tokens"]
    several = server.complete(prompts[0], 40, id_slot=0, n_cmpl=3)
    assert [a["tokens"] for a in several] == [alone[0]] * 3


def turn(server: Server, messages: list[dict], n: int = 20, **more) -> tuple[str, int, int]:
    """The answer, the prompt tokens taken from the slot, those evaluated."""
    reply = server.chat(messages, n, **more)
    return reply["choices"][0]["message"]["content"], reply["timings"]["cache_n"], reply["timings"]["prompt_n"]


def test_a_growing_chat_evaluates_its_new_messages_only(server):
    messages, before = user(TEXT[:600]), 0
    for i in range(6):
        text, cached, evaluated = turn(server, messages, id_slot=1)
        if i:
            assert cached >= before - NEAR_END, f"turn {i}: {cached} of {before} tokens reused"
        before = cached + evaluated
        messages += [{"role": "assistant", "content": text}, *user(f"And then, {i}?")]
    cold, none, _ = turn(server, messages, cache_prompt=False)
    assert none == 0 and turn(server, messages, id_slot=1)[0] == cold


def slot_bytes(server: Server, slot: int) -> int:
    """Of the slot's file without its tokens: its state and its checkpoints."""
    return server.post(f"/slots/{slot}?action=save", filename="grown.bin")["n_written"] - 4 * server.get("/slots")[slot]["n_prompt_tokens"]


def test_checkpoints_stay_within_their_bytes_and_slot_memory_does_not_grow(model, folder):
    """1 MiB holds nine of the example's checkpoints. The newest are kept: a chat edited at its end goes on from one."""
    def anonymous() -> int:
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        return int(re.search(r"^RssAnon:\s+(\d+) kB", status, re.M)[1])
    messages, sizes, memory = user(TEXT[:1200]), [], []
    with Server(model, folder / "bounded.log", "--slot-save-path", f"{folder}/", env={"SPIKINGBRAIN_CHECKPOINT_RAM": "1"}) as server:
        for i in range(12):
            text, cached, _ = turn(server, messages, 120, id_slot=2)
            messages += [{"role": "assistant", "content": text}, *user("More.")]
            sizes.append(slot_bytes(server, 2))
            memory.append(anonymous())
        edited = [*messages[:-3], *user("No, less.")]
        warm, cached, evaluated = turn(server, edited, id_slot=2)
        assert evaluated < 40 and cached > 1000 and warm == turn(server, edited, cache_prompt=False)[0]
    state = sizes[0] // 4  # the first turn leaves three checkpoints and the state itself
    assert 5 * state < max(sizes) < 2 ** 20 + 2 * state, sizes
    assert max(memory[6:]) - memory[6] < 4 * 1024, memory


def test_one_checkpoint_is_kept_even_where_none_fits(folder):
    """A model whose checkpoint is larger than the budget still answers a growing chat from what it has."""
    from sb_convert.cli import main
    checkpoint = folder / "wide"
    shutil.copytree(ROOT / "examples" / "tiny", checkpoint)
    config = json.loads((checkpoint / "config.json").read_text())
    config["sliding_window"] = 4096
    (checkpoint / "config.json").write_text(json.dumps(config))
    assert main([str(checkpoint), "-o", str(folder / "wide.gguf"), "--outtype", "f32"]) == 0
    with Server(folder / "wide.gguf", folder / "wide.log", "-np", 1, "--slot-save-path", f"{folder}/", env={"SPIKINGBRAIN_CHECKPOINT_RAM": "1"}) as s:
        prompt = [t % 500 for t in range(4000)]
        s.complete(prompt, 8, id_slot=0)
        state = slot_bytes(s, 0) // 2
        assert state > 2 ** 20
        again = s.complete(prompt, 8, id_slot=0)
        assert again["timings"]["prompt_n"] <= NEAR_END and slot_bytes(s, 0) < 2.2 * state


@pytest.mark.parametrize("value", ["", "0", "-1", "1.5", "1 GiB", "99999999999999999999"])
def test_a_wrong_bound_of_checkpoints_is_refused(model, folder, value):
    from spikingbrain_cpp import tools
    env = {"SPIKINGBRAIN_CHECKPOINT_RAM": value}
    for command in ("sb-server", "sb-cli"):
        run = subprocess.run([BIN / command, "-m", model], env={**os.environ, **env}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        assert run.returncode == 1 and f"{command}: SPIKINGBRAIN_CHECKPOINT_RAM: got {value!r}, expected" in run.stderr
    with Server(model, folder / "wrong.log", env=env, program=tools.LIB / "llama-server") as s:  # without our command before it
        status, message = s.refused("/completion", b'{"prompt": "the lighthouse keeper wrote down every ship", "n_predict": 2}')
        assert status == 500 and f"SPIKINGBRAIN_CHECKPOINT_RAM: got '{value}', expected" in message


# --- a slot in a file -----------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def saved(server, folder):
    """A chat of two turns saved to chat.bin, with what the saving server answers to its continuations."""
    start = [*user(TEXT[:900]), {"role": "assistant", "content": TEXT[900:1200]}]
    asked = [*start, *user("What is silent?")]
    text, _, _ = turn(server, asked, cache_prompt=False, id_slot=3)
    server.post("/slots/3?action=save", filename="chat.bin")
    more = [*asked, {"role": "assistant", "content": text}, *user("Why?")]
    edited = [*start, *user("Who kept the light after him?")]
    return {name: (m, turn(server, m, cache_prompt=False)[0]) for name, m in (("again", asked), ("more", more), ("edited", edited))}


@pytest.fixture(scope="module")
def other(model, folder):
    """A second server process, which restores what the first one saved."""
    with Server(model, folder / "other.log", "--slot-save-path", f"{folder}/", "-np", 1) as s:
        yield s


@pytest.mark.parametrize("name, most", [("again", 0), ("more", 60), ("edited", 40)])
def test_a_slot_restored_in_a_new_process_reads_the_new_tokens_only(saved, other, name, most):
    """`most`: the new messages' tokens and the few after the last checkpoint, of over 400; none of a prompt that was read."""
    messages, cold = saved[name]
    other.post("/slots/0?action=erase")
    other.post("/slots/0?action=restore", filename="chat.bin")
    text, cached, evaluated = turn(other, messages, id_slot=0)
    assert evaluated <= most and cached > 300 and text == cold


def test_a_saved_prompt_and_what_follows_it_evaluates_no_token_twice(server, other):
    prompt = server.post("/tokenize", content=TEXT[:700])["tokens"]
    first = server.complete(prompt, 30, id_slot=0)["tokens"]
    server.post("/slots/0?action=save", filename="prompt.bin")
    after = server.complete(prompt + first, 10, id_slot=0)["tokens"]
    other.post("/slots/0?action=restore", filename="prompt.bin")
    restored = other.complete(prompt + first, 10, id_slot=0)
    # the last token that was sampled had not been evaluated when the slot was saved
    assert restored["timings"]["prompt_n"] == 1 and restored["tokens"] == after


def test_a_restored_prompt_has_the_same_logits(server, other):
    """The field's complaint: a restored slot is worth nothing. Here: nothing is evaluated, and the log probabilities are equal bits."""
    prompt = server.post("/tokenize", content=TEXT)["tokens"][:500]
    first = server.complete(prompt, 8, id_slot=0, n_probs=50, cache_prompt=False)
    server.post("/slots/0?action=save", filename="logits.bin")
    other.post("/slots/0?action=restore", filename="logits.bin")
    restored = other.complete(prompt, 8, id_slot=0, n_probs=50)
    assert (restored["timings"]["prompt_n"], restored["timings"]["cache_n"]) == (0, len(prompt))
    assert restored["completion_probabilities"] == first["completion_probabilities"]


def spoil(kind: str, data: bytes) -> bytes:
    middle = len(data) // 2
    return {"cut in the state": data[:3000], "cut in the checkpoints": data[:-1000], "cut by a byte": data[:-1],
            "changed": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1:], "empty": b"", "other file": b"GGUF" * 100}[kind]


@pytest.mark.parametrize("kind", ["cut in the state", "cut in the checkpoints", "cut by a byte", "changed", "empty", "other file"])
def test_a_damaged_slot_file_is_refused_and_the_slot_works_on(saved, other, folder, kind):
    (folder / "bad.bin").write_bytes(spoil(kind, (folder / "chat.bin").read_bytes()))
    status, message = other.refused("/slots/0?action=restore", b'{"filename": "bad.bin"}')
    assert status == 400 and message.startswith("Unable to restore slot: ")
    messages, cold = saved["again"]
    assert turn(other, messages, id_slot=0)[:2] == (cold, 0)  # nothing of the bad file was taken


def test_a_slot_of_another_model_of_the_same_shape_is_refused(saved, model, folder):
    weights = bytearray(model.read_bytes())
    weights[-2000:] = bytes(2000)
    (folder / "twin.gguf").write_bytes(weights)
    with Server(folder / "twin.gguf", folder / "twin.log", "--slot-save-path", f"{folder}/", "-np", 1) as twin:
        status, message = twin.refused("/slots/0?action=restore", b'{"filename": "chat.bin"}')
        assert status == 400 and "another model file" in message


def test_a_slot_that_cannot_be_written_leaves_no_file(server, folder):
    (folder / "taken").mkdir()
    (folder / "taken" / "x").touch()
    status, _ = server.refused("/slots/3?action=save", b'{"filename": "taken"}')  # a folder: the client's mistake
    assert status == 400 and not (folder / "taken.part").exists() and (folder / "taken" / "x").exists()
    assert list(folder.glob("*.part")) == []


# --- bad input --------------------------------------------------------------------------------------------------------

BAD = [
    ("/completion", b"{bad"), ("/completion", b""), ("/completion", b"\xff\xfe"), ("/completion", b"[]"),
    ("/completion", b'{"n_predict": 3}'), ("/completion", b'{"prompt": {"a": 1}}'), ("/completion", b'{"prompt": [99999]}'),
    ("/completion", b'{"prompt": [-5]}'), ("/completion", b'{"prompt": "a", "n_predict": "x"}'),
    ("/completion", b'{"prompt": "a", "temperature": "hot"}'), ("/completion", b'{"prompt": "a", "grammar": "root ::= ("}'),
    ("/v1/chat/completions", b"{}"), ("/v1/chat/completions", b'{"messages": "x"}'), ("/v1/chat/completions", b'{"messages": [{"role": "user"}]}'),
    ("/v1/chat/completions", b'{"messages": [{"role": "user", "content": "a"}], "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}}'),
    ("/slots/0?action=restore", b'{"filename": "absent.bin"}'), ("/slots/0?action=restore", b'{"filename": "../x"}'),
    ("/slots/0?action=save", b'{"filename": "/etc/x"}'), ("/slots/0?action=save", b"{}"), ("/slots/0?action=other", b'{"filename": "x"}'),
    ("/slots/x?action=save", b'{"filename": "x"}'), ("/v1/embeddings", b'{"input": "x"}'), ("/absent", b"{}"),
]


def test_bad_requests_are_http_errors_with_a_message_and_the_server_lives(server, client):
    expected = answer(client, "still there?", 8)
    for path, body in BAD:
        status, message = server.refused(path, body)
        assert (status in (400, 404, 501)) and message, (path, body, status, message)
        assert server.process.poll() is None, (path, body)
    assert wait_until_idle(server) and answer(client, "still there?", 8) == expected


def test_a_huge_n_predict_runs_until_the_client_leaves(server, client):
    stream = client.completions.create(model="any", prompt="a", max_tokens=2**31 - 1, stream=True, **GREEDY)
    pieces = [next(stream) for _ in range(50)]
    stream.close()
    assert len(pieces) == 50 and wait_until_idle(server)


@pytest.mark.parametrize("kind", ["absent", "text", "cut"])
def test_a_wrong_model_file_ends_the_server_with_a_message(model, folder, kind):
    path = folder / f"{kind}.gguf"
    if kind != "absent":
        path.write_bytes(b"no model" * 50 if kind == "text" else model.read_bytes()[:200_000])
    run = subprocess.run([BIN / "sb-server", "-m", path, "--port", "0", "-t", "1"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert run.returncode > 0 and str(path) in (run.stdout + run.stderr).decode("utf-8", "replace")
