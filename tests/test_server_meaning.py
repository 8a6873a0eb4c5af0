"""One request means the same in every endpoint of sb-server, whole and streamed; with the real clients of OpenAI and Anthropic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import pytest
from running_server import BIN, Server
from tool_model import BIAS, TOOL, tool_model

openai = pytest.importorskip("openai")
anthropic = pytest.importorskip("anthropic")

pytestmark = pytest.mark.skipif(not (BIN / "sb-server").exists(), reason="the package is not installed: run make build")

DOOR: dict[str, Any] = {"type": "function", "function": {"name": "close_door", "description": "", "parameters": {"type": "object", "properties": {}}}}
TOOLS = [DOOR, TOOL]
NAMES = {"close_door", "get_temperature"}
ASK = [{"role": "user", "content": "How warm is it?"}]
GREEDY = {"temperature": 0}
TEXT = {"ignore_eos": True}
CHAT, RESPONSES, MESSAGES = ENDPOINTS = ["chat", "responses", "messages"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("meaning")
    with Server(tool_model(folder), folder / "server.log") as s:
        yield s


@pytest.fixture(scope="module")
def oai(server):
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", timeout=60, max_retries=0) as c:
        yield c


@pytest.fixture(scope="module")
def ant(server):
    with anthropic.Anthropic(base_url=server.url, api_key="none", timeout=60, max_retries=0) as c:
        yield c


# --- which tool is called ---------------------------------------------------------------------------------------

def chat_calls(oai, ant, tools: list, choice: Any) -> set[str]:
    more = {} if choice is None else {"tool_choice": choice}
    reply = oai.chat.completions.create(model="any", messages=ASK, tools=tools, max_tokens=200, **GREEDY, **more, logit_bias=BIAS).choices[0]
    return {call.function.name for call in reply.message.tool_calls or []}


def responses_calls(oai, ant, tools: list, choice: Any) -> set[str]:
    more = {} if choice is None else {"tool_choice": choice}
    flat = [{"type": "function", **tool["function"]} for tool in tools]
    reply = oai.responses.create(model="any", input="How warm is it?", tools=flat, max_output_tokens=200, **GREEDY, **more, extra_body={"logit_bias": BIAS})
    return {item.name for item in reply.output if item.type == "function_call"}


def messages_calls(oai, ant, tools: list, choice: Any) -> set[str]:
    more = {} if choice is None else {"tool_choice": choice}
    flat = [{"name": t["function"]["name"], "description": "", "input_schema": t["function"]["parameters"]} for t in tools]
    reply = ant.messages.create(model="any", messages=ASK, tools=flat, max_tokens=200, extra_body={**more, "logit_bias": BIAS, **GREEDY})
    assert (reply.stop_reason == "tool_use") == any(block.type == "tool_use" for block in reply.content)
    return {block.name for block in reply.content if block.type == "tool_use"}


CALLS: "dict[str, Callable[..., set[str]]]" = {CHAT: chat_calls, RESPONSES: responses_calls, MESSAGES: messages_calls}


def named(endpoint: str, name: str) -> dict:
    return {CHAT: {"type": "function", "function": {"name": name}}, RESPONSES: {"type": "function", "name": name},
            MESSAGES: {"type": "tool", "name": name}}[endpoint]


def allowed(endpoint: str, mode: str, *names: str) -> dict:
    tools = [named(endpoint, name) for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}} if endpoint == CHAT else {"type": "allowed_tools", "mode": mode, "tools": tools}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_tool_chosen_by_name_is_called_by_every_endpoint(oai, ant, endpoint):
    for name in NAMES:
        assert CALLS[endpoint](oai, ant, TOOLS, named(endpoint, name)) == {name}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_any_calls_a_tool_and_none_calls_none(oai, ant, endpoint):
    any_, none = ({"type": "any"}, {"type": "none"}) if endpoint == MESSAGES else ("required", "none")
    found = CALLS[endpoint](oai, ant, TOOLS, any_)
    assert found and found <= NAMES and CALLS[endpoint](oai, ant, TOOLS, none) == set()


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_choice_that_no_tool_has_is_refused(oai, ant, endpoint):
    for tools, choice in ((TOOLS, named(endpoint, "absent")), ([], named(endpoint, "close_door")), (TOOLS, {"type": "absent"})):
        with pytest.raises((openai.BadRequestError, anthropic.BadRequestError), match="tool_choice: got"):
            CALLS[endpoint](oai, ant, tools, choice)


@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES])
def test_only_allowed_tools_are_called(oai, ant, endpoint):
    for name in NAMES:
        assert CALLS[endpoint](oai, ant, TOOLS, allowed(endpoint, "required", name)) == {name}
    assert CALLS[endpoint](oai, ant, TOOLS, allowed(endpoint, "required", *NAMES)) <= NAMES
    with pytest.raises(openai.BadRequestError, match="tool_choice: got the function 'absent'"):
        CALLS[endpoint](oai, ant, TOOLS, allowed(endpoint, "auto", "absent"))


# --- how an answer ended, and what it cost ------------------------------------------------------------------------

def ended_chat(oai, ant, n: int, stop: "list[str]") -> tuple:
    reply = oai.chat.completions.create(model="any", messages=ASK, max_tokens=n, stop=stop or openai.omit, **GREEDY, extra_body=TEXT)
    return reply.choices[0].finish_reason, reply.choices[0].message.content, reply.usage.prompt_tokens, reply.usage.completion_tokens


def ended_responses(oai, ant, n: int, stop: "list[str]") -> tuple:
    reply = oai.responses.create(model="any", input=ASK, max_output_tokens=n, **GREEDY, extra_body={**TEXT, **({"stop": stop} if stop else {})})
    assert reply.usage.output_tokens_details.reasoning_tokens == 0 and reply.usage.input_tokens_details.cached_tokens >= 0
    cut = reply.status == "incomplete"
    assert cut or reply.status == "completed"
    assert (reply.incomplete_details.reason == "max_output_tokens") if cut else reply.incomplete_details is None
    assert [item.status for item in reply.output] in ([], [reply.status])
    return "length" if cut else "stop", reply.output_text, reply.usage.input_tokens, reply.usage.output_tokens


def ended_messages(oai, ant, n: int, stop: "list[str]") -> tuple:
    reply = ant.messages.create(model="any", messages=ASK, max_tokens=n, stop_sequences=stop, extra_body={**TEXT, **GREEDY})
    assert (reply.stop_sequence in stop) if reply.stop_reason == "stop_sequence" else reply.stop_sequence is None
    reason = {"max_tokens": "length", "stop_sequence": "stop"}[reply.stop_reason]
    used = reply.usage.input_tokens + (reply.usage.cache_read_input_tokens or 0)
    return reason, "".join(block.text for block in reply.content), used, reply.usage.output_tokens


def streamed_chat(oai, ant, n: int, stop: "list[str]") -> tuple:
    chunks = list(oai.chat.completions.create(model="any", messages=ASK, max_tokens=n, stop=stop or openai.omit, **GREEDY, extra_body=TEXT, stream=True,
                                              stream_options={"include_usage": True}))
    assert [c.choices[0].delta.role for c in chunks if c.choices and c.choices[0].delta.role] == ["assistant"]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    usage = chunks[-1].usage
    return [c.choices[0].finish_reason for c in chunks if c.choices][-1], text, usage.prompt_tokens, usage.completion_tokens


def streamed_responses(oai, ant, n: int, stop: "list[str]") -> tuple:
    events = list(oai.responses.create(model="any", input=ASK, max_output_tokens=n, **GREEDY, stream=True, extra_body={**TEXT, **({"stop": stop} if stop else {})}))
    assert [e.type for e in events].count("response.created") == 1
    last = events[-1].response
    assert events[-1].type == f"response.{last.status}"
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    done = [e for e in events if e.type == "response.output_item.done"]
    assert [e.item.status for e in done] == [item.status for item in last.output] and text == last.output_text
    assert last.usage.output_tokens_details.reasoning_tokens == 0
    return {"incomplete": "length", "completed": "stop"}[last.status], text, last.usage.input_tokens, last.usage.output_tokens


def streamed_messages(oai, ant, n: int, stop: "list[str]") -> tuple:
    with ant.messages.stream(model="any", messages=ASK, max_tokens=n, stop_sequences=stop, extra_body={**TEXT, **GREEDY}) as stream:
        text = "".join(stream.text_stream)
        reply = stream.get_final_message()
    assert (reply.stop_sequence in stop) if reply.stop_reason == "stop_sequence" else reply.stop_sequence is None
    used = reply.usage.input_tokens + (reply.usage.cache_read_input_tokens or 0)
    return {"max_tokens": "length", "stop_sequence": "stop"}[reply.stop_reason], text, used, reply.usage.output_tokens


WHOLE = {CHAT: ended_chat, RESPONSES: ended_responses, MESSAGES: ended_messages}
STREAMED = {CHAT: streamed_chat, RESPONSES: streamed_responses, MESSAGES: streamed_messages}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_every_endpoint_tells_the_same_of_how_an_answer_ended(oai, ant, endpoint):
    """Cut by the limit, ended by a stop string, cut while a stop string may have begun, or in a character."""
    text = ended_chat(oai, ant, 40, [])[1]
    word = text[20:23]
    for n, stop in ((40, []), (40, [word]), (40, [text[-2:] + "\0"]), *((n, []) for n in (1, 2, 3, 8, 11))):
        expected = ended_chat(oai, ant, n, stop)
        assert WHOLE[endpoint](oai, ant, n, stop) == expected == STREAMED[endpoint](oai, ant, n, stop)
        assert expected[0] == ("stop" if stop == [word] else "length") and "\ufffd" not in expected[1][-1:]


def test_the_streaming_helper_of_openai_reads_a_response(oai):
    """It asks of each event which item of the output it is about."""
    text = ended_responses(oai, None, 30, [])[1]
    for more in ({"max_output_tokens": 30, "extra_body": {**TEXT, "stop": [text[10:13]]}},
                 {"max_output_tokens": 200, "tools": [{"type": "function", **TOOL["function"]}], "tool_choice": "required", "extra_body": {"logit_bias": BIAS}}):
        with oai.responses.stream(model="any", input=ASK, **GREEDY, **more) as stream:
            events = list(stream)
            reply = stream.get_final_response()
        assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == reply.output_text
        calls = [item for item in reply.output if item.type == "function_call"]
        for i, call in enumerate(calls):
            assert "".join(e.delta for e in events if e.type == "response.function_call_arguments.delta" and e.output_index == i) == call.arguments
        assert bool(calls) == ("tools" in more) and (calls or reply.output_text == text[:text.index(text[10:13])])


def test_the_stop_string_is_named_as_the_client_wrote_it(oai, ant):
    text = ended_chat(oai, ant, 40, [])[1]
    reply = ant.messages.create(model="any", messages=ASK, max_tokens=40, stop_sequences=["\0", text[20:23]], extra_body={**TEXT, **GREEDY})
    assert (reply.stop_reason, reply.stop_sequence) == ("stop_sequence", text[20:23]) and reply.content[0].text == text[:text.index(text[20:23])]


# --- a character in several tokens, and log probabilities -----------------------------------------------------------

def rows(of: dict) -> "list[dict]":
    return of.get("completion_probabilities") or []


def whole_and_streamed(server: Server, **body) -> "tuple[dict, list[dict]]":
    asked = {"prompt": "the tide", "n_probs": 2, "temperature": 0, "ignore_eos": True, "return_tokens": True, **body}
    return server.post("/completion", **asked), server.stream("/completion", stream=True, **asked)


EURO = 'root ::= "a" "\u20ac" "b" "\u20ac" "\U0001f600" "c"+'  # no piece of the vocabulary: a token per byte


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 9, 10, 13, 14])
def test_a_character_that_the_limit_cuts_is_left_out_whole_and_streamed(server, n):
    whole, events = whole_and_streamed(server, n_predict=n, grammar=EURO)
    text = "a\u20acb\u20ac\U0001f600cccccc".encode()[:n].decode(errors="ignore")
    assert whole["content"] == text == "".join(e["content"] for e in events)
    assert whole["tokens"] == [t for e in events for t in e["tokens"]] and len(whole["tokens"]) == n
    assert rows(whole) == [r for e in events for r in rows(e)]
    assert bytes(b for r in rows(whole) for b in r["bytes"]) == "a\u20acb\u20ac\U0001f600cccccc".encode()[:n]


def test_a_stop_string_takes_its_own_rows_only(server):
    """Not those of the text before it, whatever tokens the stop string is made of."""
    free, _ = whole_and_streamed(server, n_predict=24)
    pieces = [bytes(r["bytes"]).decode(errors="replace") for r in rows(free)]
    text = free["content"]
    for i in range(4, 16):
        for stop in (pieces[i], pieces[i][-1:] + pieces[i + 1], (pieces[i] + pieces[i + 1])[:-1], pieces[i] + pieces[i + 1] + "\0"):
            if not stop or "\ufffd" in stop:
                continue
            whole, events = whole_and_streamed(server, n_predict=24, stop=[stop])
            expected = text[:text.index(stop)] if stop in text else text
            assert whole["content"] == expected == "".join(e["content"] for e in events), stop
            n = sum(1 for j in range(24) if len("".join(pieces[:j])) < len(expected)) if stop in text else 24
            assert rows(whole) == rows(free)[:n] == [r for e in events for r in rows(e)], stop


def test_log_probabilities_of_a_chat_are_the_same_streamed(oai):
    asked: dict[str, Any] = {"model": "any", "messages": ASK, "logprobs": True, "top_logprobs": 2, "max_tokens": 24, **GREEDY, "extra_body": TEXT}
    text = oai.chat.completions.create(**asked).choices[0].message.content
    for stop in (None, [text[12:14]], [text[-2:] + "\0"]):
        whole = oai.chat.completions.create(**asked, stop=stop).choices[0]
        chunks = [c.choices[0] for c in oai.chat.completions.create(**asked, stop=stop, stream=True) if c.choices]
        streamed = [row for c in chunks if c.logprobs for row in c.logprobs.content]
        assert whole.logprobs.content == streamed != []
        assert bytes(b for row in streamed for b in row.bytes).decode(errors="replace").startswith(whole.message.content)


def test_streamed_tools_have_log_probabilities(oai):
    asked: dict[str, Any] = {"model": "any", "messages": ASK, "tools": TOOLS, "tool_choice": "required", "max_tokens": 200, **GREEDY, "logit_bias": BIAS,
                             "logprobs": True, "top_logprobs": 1}
    whole = oai.chat.completions.create(**asked).choices[0]
    chunks = [c.choices[0] for c in oai.chat.completions.create(**asked, stream=True) if c.choices]
    assert [row for c in chunks if c.logprobs for row in c.logprobs.content] == whole.logprobs.content
    calls = [call for c in chunks for call in c.delta.tool_calls or []]
    assert [c.function.name for c in calls if c.function.name] == [c.function.name for c in whole.message.tool_calls] and chunks[-1].finish_reason == "tool_calls"


def test_log_probabilities_of_a_response_are_asked_for_by_include(oai):
    asked: dict[str, Any] = {"model": "any", "input": ASK, "max_output_tokens": 12, **GREEDY, "include": ["message.output_text.logprobs"], "top_logprobs": 2,
                             "extra_body": TEXT}
    whole = oai.responses.create(**asked).output[0].content[0]
    events = list(oai.responses.create(**asked, stream=True))
    assert len(whole.logprobs) == 12 and all(len(row.top_logprobs) == 2 for row in whole.logprobs)
    final = events[-1].response.output[0].content[0]
    assert final.logprobs == whole.logprobs and final.text == whole.text
    assert [r.logprob for e in events if e.type == "response.output_text.delta" for r in e.logprobs or []] == [r.logprob for r in whole.logprobs]


@pytest.mark.parametrize("field", ["output_format", "output_config"])
def test_an_output_format_of_anthropic_is_kept(ant, field):
    schema = {"type": "object", "properties": {"town": {"enum": ["Oslo", "Rome"]}}, "required": ["town"], "additionalProperties": False}
    form = {"type": "json_schema", "schema": schema}
    reply = ant.messages.create(model="any", messages=ASK, max_tokens=100, extra_body={field: form if field == "output_format" else {"format": form}, **GREEDY})
    assert json.loads(reply.content[0].text)["town"] in ("Oslo", "Rome")


def test_no_alternatives_are_asked_for_with_0(oai):
    reply = oai.chat.completions.create(model="any", messages=ASK, logprobs=True, top_logprobs=0, max_tokens=4, **GREEDY, extra_body=TEXT).choices[0]
    assert len(reply.logprobs.content) == 4
    none = oai.chat.completions.create(model="any", messages=ASK, logprobs=False, max_tokens=4, **GREEDY, extra_body=TEXT).choices[0]
    assert none.logprobs is None
