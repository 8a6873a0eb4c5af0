"""create_chat_completion: OpenAI's shape, JSON formats, tools, streams, log probabilities, chats that grow."""

from __future__ import annotations

import inspect
import json
import re

import numpy as np
import pytest
from binding_models import ONE
from chat_models import ADD, END, NO_END, TOOL_TEMPLATE, WEATHER, llm, tiny_with, tool, tool_llm  # noqa: F401
from spikingbrain_cpp import Llama, LlamaGrammar
from spikingbrain_cpp.chat_answer import join

HELLO = [{"role": "user", "content": "hello"}]
CALL_ADD = {"type": "function", "function": {"name": "add"}}
AB = {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"enum": [1, 2]}}, "required": ["a", "b"]}


def message_of(answer: dict) -> dict:
    return answer["choices"][0]["message"]


def streamed(chunks) -> tuple[dict, str]:
    """(the message its deltas add up to, finish_reason)."""
    chunks = list(chunks)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant"} and chunks[-1]["choices"][0]["delta"] == {}
    assert {c["object"] for c in chunks} == {"chat.completion.chunk"} and len({c["id"] for c in chunks}) == 1
    assert all(c["choices"][0]["finish_reason"] is None for c in chunks[:-1])
    return join([c["choices"][0]["delta"] for c in chunks[1:]]), chunks[-1]["choices"][0]["finish_reason"]


# --- text --------------------------------------------------------------------------------------------------------

def test_shape_of_an_answer(llm):
    answer = llm.create_chat_completion(HELLO, max_tokens=5, logit_bias=NO_END)
    assert set(answer) == {"id", "object", "created", "model", "choices", "usage"} and answer["object"] == "chat.completion"
    assert set(answer["choices"][0]) == {"index", "message", "logprobs", "finish_reason"}
    assert answer["choices"][0]["finish_reason"] == "length" and answer["choices"][0]["logprobs"] is None
    prompt = llm.tokenize(llm.apply_chat_template(HELLO), special=True)
    assert answer["usage"] == {"prompt_tokens": len(prompt), "completion_tokens": 5, "total_tokens": len(prompt) + 5}


def test_chat_is_completion_of_the_rendered_template(llm):
    chat = [{"role": "system", "content": "be brief"}, *HELLO, {"role": "assistant", "content": "hi"}, {"role": "user", "content": [{"type": "text", "text": "more"}]}]
    plain = [{**m, "content": m["content"] if isinstance(m["content"], str) else m["content"][0]["text"]} for m in chat]
    want = llm(llm.apply_chat_template(plain), max_tokens=12, temperature=0, logit_bias=NO_END)["choices"][0]["text"]
    llm.reset()
    answer = llm.create_chat_completion(chat, max_tokens=12, temperature=0, logit_bias=NO_END)
    assert message_of(answer) == {"role": "assistant", "content": want} and want


def test_end_of_generation_is_stop(llm):
    answer = llm.create_chat_completion(HELLO, logit_bias=END)
    assert message_of(answer)["content"] == "" and answer["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("seed", range(3))
def test_stream_joins_to_the_answer(llm, seed):
    options = dict(max_tokens=40, seed=seed, temperature=1.5, logit_bias=NO_END)
    whole = llm.create_chat_completion(HELLO, **options)
    llm.reset()
    message, finish = streamed(llm.create_chat_completion(HELLO, stream=True, **options))
    assert message == message_of(whole) and finish == whole["choices"][0]["finish_reason"] == "length"


def test_stop_string_cuts_an_answer_between_its_chunks(llm):
    grammar = LlamaGrammar.from_string('root ::= "abc" "STOP" "def"')
    for stop in ("STOP", ["nothing", "STOP"]):
        message, finish = streamed(llm.create_chat_completion(HELLO, grammar=grammar, stop=stop, stream=True))
        assert message["content"] == "abc" and finish == "stop"


def test_characters_of_many_bytes_come_whole(llm):
    chunks = list(llm.create_chat_completion(HELLO, grammar=LlamaGrammar.from_string('root ::= "é水🌊"'), stream=True))
    assert [c["choices"][0]["delta"].get("content") for c in chunks] == [None, "é", "水", "🌊", None]


def test_logprobs_need_no_kept_logits(llm):
    options = dict(max_tokens=4, temperature=0, logit_bias=NO_END, logprobs=True, top_logprobs=3)
    content = llm.create_chat_completion(HELLO, **options)["choices"][0]["logprobs"]["content"]
    llm.reset()
    llm.eval(llm.tokenize(llm.apply_chat_template(HELLO), special=True))
    row = llm.logits.astype(np.float64)
    want = row - np.log(np.exp(row).sum())
    assert len(content) == 4 and all(len(t["top_logprobs"]) == 3 for t in content)
    assert [t["logprob"] for t in content[0]["top_logprobs"]] == pytest.approx(sorted(want)[:-4:-1], abs=1e-4)
    biased = want + [NO_END.get(t, 0.0) for t in range(512)]
    assert bytes(content[0]["bytes"]) == llm.detokenize([int(biased.argmax())])
    chunks = list(llm.create_chat_completion(HELLO, stream=True, **options))
    found = [t for c in chunks if c["choices"][0]["logprobs"] for t in c["choices"][0]["logprobs"]["content"]]
    assert [t["token"] for t in found] == [t["token"] for t in content]
    none = llm.create_chat_completion(HELLO, max_tokens=2, logprobs=True, logit_bias=NO_END)
    assert [t["top_logprobs"] for t in none["choices"][0]["logprobs"]["content"]] == [[], []]


def test_stopping_criteria_and_processors(llm):
    answer = llm.create_chat_completion(HELLO, stopping_criteria=lambda ids, logits: ids.size >= 25, logit_bias=NO_END)
    assert answer["usage"]["total_tokens"] == 25 and answer["choices"][0]["finish_reason"] == "stop"

    def only_a(ids, logits):
        logits[:] = -np.inf
        logits[llm.tokenize(b"a")[0]] = 0
        return logits

    assert message_of(llm.create_chat_completion(HELLO, logits_processor=only_a, max_tokens=3))["content"] == "aaa"


# --- JSON --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("form", [
    {"type": "json_object", "schema": AB}, {"type": "json_schema", "json_schema": {"name": "ab", "strict": True, "schema": AB}},
])
@pytest.mark.parametrize("seed", range(3))
def test_json_schema_is_satisfied(llm, form, seed):
    answer = llm.create_chat_completion(HELLO, response_format=form, seed=seed, temperature=1.0)
    value = json.loads(message_of(answer)["content"])
    assert answer["choices"][0]["finish_reason"] == "stop" and value["a"] in (True, False) and value["b"] in (1, 2)


def test_json_object_without_schema_is_an_object(llm):
    quotes = {t: 20.0 for t in range(509) if llm.detokenize([t]) in (b'"', b"}")}
    answer = llm.create_chat_completion(HELLO, response_format={"type": "json_object"}, logit_bias={**END, **quotes}, seed=1)
    assert isinstance(json.loads(message_of(answer)["content"]), dict)


def test_response_format_text_is_none(llm):
    options = dict(max_tokens=6, temperature=0, logit_bias=NO_END)
    assert message_of(llm.create_chat_completion(HELLO, response_format={"type": "text"}, **options)) == message_of(llm.create_chat_completion(HELLO, **options))


# --- tools -------------------------------------------------------------------------------------------------------

def check_call(answer: dict, allowed: dict[str, str]) -> None:
    assert answer["choices"][0]["finish_reason"] == "tool_calls" and message_of(answer)["content"] is None
    for call in message_of(answer)["tool_calls"]:
        name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
        assert call["type"] == "function" and call["id"] and list(arguments) == [allowed[name]]
        assert arguments[allowed[name]] in (True, False, "Oslo", "Rome")


@pytest.mark.parametrize("seed", range(3))
def test_required_tool_is_called(tool_llm, seed):
    answer = tool_llm.create_chat_completion(HELLO, tools=[WEATHER, ADD], tool_choice="required", logit_bias=END, seed=seed, temperature=1.0)
    check_call(answer, {"get": "city", "weather": "city", "add": "round"})


@pytest.mark.parametrize("seed", range(3))
def test_named_tool_is_called(tool_llm, seed):
    answer = tool_llm.create_chat_completion(HELLO, tools=[WEATHER, ADD], tool_choice=CALL_ADD, logit_bias=END, seed=seed, temperature=1.0)
    check_call(answer, {"add": "round"})


@pytest.mark.parametrize("choice", ["required", CALL_ADD])
def test_streamed_calls_join_to_the_answer(tool_llm, choice):
    options = dict(tools=[WEATHER, ADD], tool_choice=choice, logit_bias=END, seed=5, logprobs=True)
    answer = tool_llm.create_chat_completion(HELLO, **options)
    whole = message_of(answer)
    tool_llm.reset()
    chunks = list(tool_llm.create_chat_completion(HELLO, stream=True, **options))
    message, finish = streamed(chunks)
    probs = [t["logprob"] for c in chunks if c["choices"][0]["logprobs"] for t in c["choices"][0]["logprobs"]["content"]]
    assert len(probs) == answer["usage"]["completion_tokens"]
    for call in (*whole["tool_calls"], *message["tool_calls"]):
        call.pop("id")
    assert message == whole and finish == "tool_calls"


def test_prompt_shows_all_tools_whichever_is_chosen(tool_llm):
    sizes = {tool_llm.create_chat_completion(HELLO, tools=[WEATHER, ADD], tool_choice=choice, max_tokens=1)["usage"]["prompt_tokens"]
             for choice in ("none", "auto", "required", CALL_ADD, None)}
    assert len(sizes) == 1
    assert sizes.pop() > tool_llm.create_chat_completion(HELLO, max_tokens=1)["usage"]["prompt_tokens"]


def test_auto_leaves_the_choice_to_the_model(tool_llm):
    """Text by itself; a call when the model begins one, from there on constrained to be right."""
    options = dict(tools=[WEATHER, ADD], temperature=0, max_tokens=300)
    answer = tool_llm.create_chat_completion(HELLO, logit_bias=NO_END, **{**options, "max_tokens": 5})
    assert answer["choices"][0]["finish_reason"] == "length" and "tool_calls" not in message_of(answer)

    start = tool_llm.tokenize(b"so: <tool_call>\n", special=True)
    begin = answer["usage"]["prompt_tokens"]

    def begins_a_call(ids, logits):
        n = ids.size - begin
        if n < len(start):
            logits[:] = -np.inf
            logits[start[n]] = 0
        return logits

    answer = tool_llm.create_chat_completion(HELLO, logits_processor=begins_a_call, logit_bias=END, **options)
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    [call] = message_of(answer)["tool_calls"]
    assert call["function"]["name"] in ("weather", "add") and json.loads(call["function"]["arguments"])
    assert message_of(answer)["content"].startswith("so:")


def test_choice_none_calls_nothing(tool_llm):
    answer = tool_llm.create_chat_completion(HELLO, tools=[ADD], tool_choice="none", max_tokens=5, logit_bias=NO_END)
    assert "tool_calls" not in message_of(answer) and answer["choices"][0]["finish_reason"] == "length"


def test_call_cut_short_says_so(tool_llm):
    answer = tool_llm.create_chat_completion(HELLO, tools=[ADD], tool_choice=CALL_ADD, max_tokens=45, seed=1)
    assert answer["choices"][0]["finish_reason"] == "length"


def test_calls_and_results_go_back_into_the_chat(tool_llm):
    answer = message_of(tool_llm.create_chat_completion(HELLO, tools=[ADD], tool_choice=CALL_ADD, logit_bias=END))
    chat = [*HELLO, answer, {"role": "tool", "tool_call_id": answer["tool_calls"][0]["id"], "content": "7"}]
    tool_llm.create_chat_completion(chat, tools=[ADD], tool_choice="none", max_tokens=1)
    text = tool_llm.detokenize(tool_llm.input_ids, special=True).decode()
    assert re.search(r'assistant\n<tool_call>\n\{"name": "add", "arguments": \{"round": (true|false)\}\}\n</tool_call><\|im_end\|>', text)
    assert "<tool_response>\n7\n</tool_response>" in text


def test_template_without_tools_takes_one_by_its_name(llm):
    for choice, tools in ((CALL_ADD, [WEATHER, ADD]), ("required", [ADD])):
        check_call(llm.create_chat_completion(HELLO, tools=tools, tool_choice=choice, logit_bias=END), {"add": "round"})
    message, finish = streamed(llm.create_chat_completion(HELLO, tools=[tool("now")], tool_choice="required", logit_bias=END, stream=True))
    assert message["tool_calls"][0]["function"]["name"] == "now" and json.loads(message["tool_calls"][0]["function"]["arguments"]) == {}
    assert finish == "tool_calls"


# --- a chat that grows -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("stream", [False, True])
def test_chat_that_grows_evaluates_its_new_tokens_only(llm, stream):
    llm.reset()
    chat = list(HELLO)
    for _ in range(4):
        held, before = llm.n_tokens, llm.n_evaluated
        answer = llm.create_chat_completion(chat, max_tokens=9, temperature=1.0, logit_bias=NO_END, stream=stream)
        content = streamed(answer)[0]["content"] if stream else message_of(answer)["content"]
        new = [*([{"role": "assistant", "content": ""}] if held else []), *chat[-1:]]
        text = llm.apply_chat_template(new).removeprefix("<|im_start|>assistant\n") if held else llm.apply_chat_template(chat)
        # what the last turn wrote last was not evaluated yet, and nor is what this one wrote last
        assert llm.n_evaluated - before == len(llm.tokenize(text, special=True)) + (1 if held else 0) + 8
        chat += [{"role": "assistant", "content": content}, {"role": "user", "content": "and then?"}]


def test_grown_chat_is_what_it_would_be_read_afresh(llm):
    """With an answer that the tokenizer splits as the model wrote it."""
    grammar = LlamaGrammar.from_string('root ::= "." "." "."')
    chat = [*HELLO, message_of(llm.create_chat_completion(HELLO, grammar=grammar)), {"role": "user", "content": "more"}]
    options = dict(max_tokens=12, temperature=0, logit_bias=NO_END)
    before = llm.n_evaluated
    warm = llm.create_chat_completion(chat, **options)
    assert llm.n_evaluated - before < warm["usage"]["total_tokens"] - 15
    llm.reset()
    assert message_of(llm.create_chat_completion(chat, **options)) == message_of(warm)


def test_edited_last_message_is_answered_as_if_read_afresh(llm):
    options = dict(max_tokens=12, temperature=0, logit_bias=NO_END)
    first = message_of(llm.create_chat_completion(HELLO, **options))
    edited = [*HELLO, first, {"role": "user", "content": "one"}]
    llm.create_chat_completion([*edited[:2], {"role": "user", "content": "two"}], **options)
    warm = message_of(llm.create_chat_completion(edited, **options))
    llm.reset()
    assert message_of(llm.create_chat_completion(edited, **options)) == warm


def test_answer_cut_by_a_stop_string_is_read_again(llm):
    grammar = LlamaGrammar.from_string('root ::= "ab" "STOP"')
    chat = [*HELLO, message_of(llm.create_chat_completion(HELLO, grammar=grammar, stop="STOP"))]
    assert chat[1]["content"] == "ab"
    llm.create_chat_completion([*chat, *HELLO], max_tokens=1)
    assert b"STOP" not in llm.detokenize(llm.input_ids, special=True)


# --- templates and handlers ----------------------------------------------------------------------------------------

def test_chat_format_names_a_template_of_upstream(tmp_path):
    model = tiny_with(tmp_path, TOOL_TEMPLATE)
    for name, want in (("chatml", "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"), ("llama2", "[INST] hello [/INST]"), ("chat_template.default", None)):
        with Llama(model, chat_format=name, **ONE) as llama:
            llama.create_chat_completion(HELLO, max_tokens=1)
            read = llama.detokenize(llama.input_ids, special=True).decode().strip()
            assert read == (want or llama.apply_chat_template(HELLO)).strip()
            if name == "llama2":
                with pytest.raises(ValueError, match="tools: got some with a chat_format"):
                    llama.create_chat_completion(HELLO, tools=[ADD])


def test_chat_handler_gets_the_arguments_and_answers(tmp_path):
    seen = {}

    def handler(llama, messages, **others):
        seen.update(others)
        return llama, messages

    with Llama(tiny_with(tmp_path, None), chat_handler=handler, **ONE) as llama:
        assert llama.create_chat_completion(HELLO, temperature=0.5) == (llama, HELLO)
    names = [n for n in inspect.signature(Llama.create_chat_completion).parameters if n not in ("self", "messages")]
    assert seen["temperature"] == 0.5 and list(seen) == names


def test_answers_have_the_types_of_the_openai_package(llm):
    pytest.importorskip("openai")
    answer = llm.create_chat_completion_openai_v1(HELLO, max_tokens=2, logprobs=True, top_logprobs=1)
    assert isinstance(answer.choices[0].message.content, str) and answer.usage.completion_tokens <= 2
    assert list(llm.create_chat_completion_openai_v1(HELLO, max_tokens=2, stream=True))[-1].choices[0].finish_reason
