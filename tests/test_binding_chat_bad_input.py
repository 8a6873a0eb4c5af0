"""What create_chat_completion refuses, in our words, after which the object goes on as if it had not been asked."""

from __future__ import annotations

import pytest
from binding_models import ONE
from chat_models import ADD, NO_END, TOOL_TEMPLATE, WEATHER, llm, tiny_with, tool, tool_llm  # noqa: F401
from spikingbrain_cpp import Llama, LlamaGrammar

HELLO = [{"role": "user", "content": "hello"}]
GRAMMAR = LlamaGrammar.from_string('root ::= "a"')
DEEP: list = []
for _ in range(100_000):
    DEEP = [DEEP]


def refuses(llama, error, words, messages=HELLO, **arguments):
    before = llama.n_evaluated
    with pytest.raises(error, match=words):
        llama.create_chat_completion(messages, **arguments)
    assert llama.n_evaluated == before
    assert llama.create_chat_completion(HELLO, max_tokens=1, logit_bias=NO_END)["usage"]["completion_tokens"] == 1


@pytest.mark.parametrize(("messages", "error", "words"), [
    (None, TypeError, "messages: got NoneType"), ("hello", TypeError, "messages: got str"), (HELLO[0], TypeError, "messages: got dict"),
    ([], ValueError, "messages: got none"), (["hello"], TypeError, r"messages\[0\]: got str"), ([{}], ValueError, "role: got None"),
    ([{"role": 5, "content": "a"}], ValueError, "role: got 5"), ([{"role": "user"}], ValueError, "content: got none"),
    ([{"role": "user", "content": 5}], TypeError, "content: got int"), ([{"role": "user", "content": b"a"}], TypeError, "content: got bytes"),
    ([{"role": "assistant", "content": None}], ValueError, "content: got none"),
    ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a"}}]}], ValueError, "'image_url', expected 'text'"),
    ([{"role": "user", "content": ["a"]}], ValueError, "got a part 'str'"),
    ([{"role": "user", "content": "a", "more": object()}], ValueError, "no JSON"), ([{"role": "user", "content": "a", "more": DEEP}], ValueError, "no JSON"),
    ([{"role": "user", "content": "a", "more": float("nan")}], ValueError, "no JSON"),
    ([{"role": "assistant", "tool_calls": [{"id": 1}]}], ValueError, "create_chat_completion"),
    ([{"role": "assistant", "tool_calls": "add"}], ValueError, "create_chat_completion"),
])
def test_malformed_messages(llm, messages, error, words):
    refuses(llm, error, words, messages)


def test_half_a_surrogate_pair_counts_as_u_fffd(llm):
    texts = [llm.apply_chat_template([{"role": "user", "content": c}]) for c in ("\ud800x", "\ufffdx")]
    assert texts[0] == texts[1] and "\ufffdx" in texts[0]
    answers = [llm.create_chat_completion([{"role": "user", "content": c}], max_tokens=4, temperature=0) for c in ("\ud800x", "\ufffdx")]
    assert answers[0]["choices"] == answers[1]["choices"] and answers[0]["usage"] == answers[1]["usage"]


@pytest.mark.parametrize(("arguments", "error", "words"), [
    ({"functions": []}, ValueError, "functions: .*use tools"), ({"function_call": "auto"}, ValueError, "function_call: .*use tools"),
    ({"stop": ""}, ValueError, "stop"), ({"stop": 5}, TypeError, "stop"), ({"max_tokens": "9"}, TypeError, "max_tokens"),
    ({"max_tokens": 1.5}, TypeError, "max_tokens"), ({"seed": -2}, ValueError, "seed"), ({"temperature": "hot"}, TypeError, "temp"),
    ({"temperature": float("nan")}, ValueError, "temp"), ({"tfs_z": 2}, ValueError, "tfs_z"), ({"logprobs": 3}, TypeError, "logprobs"),
    ({"top_logprobs": 3}, ValueError, "without logprobs"), ({"logprobs": True, "top_logprobs": 21}, ValueError, "0 to 20"),
    ({"logprobs": True, "top_logprobs": 1.5}, TypeError, "top_logprobs"), ({"logit_bias": {512: 1}}, ValueError, "token: got 512"),
    ({"grammar": "root"}, TypeError, "LlamaGrammar"), ({"logits_processor": "x"}, TypeError, "logits_processor"),
    ({"response_format": "json"}, TypeError, "response_format: got str"), ({"response_format": {}}, ValueError, "type: got None"),
    ({"response_format": {"type": "xml"}}, ValueError, "type: got 'xml'"), ({"response_format": {"type": "json_schema"}}, ValueError, "got no schema"),
    ({"response_format": {"type": "json_object", "schema": 5}}, TypeError, "schema: got int"),
    ({"response_format": {"type": "json_object", "schema": {"type": "foo"}}}, ValueError, "json schema: .*foo"),
    ({"response_format": {"type": "json_object"}, "grammar": GRAMMAR}, ValueError, "grammar: got one with"),
    ({"tool_choice": "required"}, ValueError, "without tools"), ({"tool_choice": "sometimes", "tools": [ADD]}, ValueError, "got 'sometimes'"),
    ({"tool_choice": {"function": {"name": "no"}}, "tools": [ADD]}, ValueError, "'no', expected one of the tools: add"),
    ({"tool_choice": {"function": 5}, "tools": [ADD]}, ValueError, "tool_choice: got None"), ({"tool_choice": 5, "tools": [ADD]}, ValueError, "tool_choice: got 5"),
    ({"tools": "add"}, TypeError, "tools: got str"), ({"tools": ["add"]}, ValueError, r"tools\[0\]"), ({"tools": [{"type": "function"}]}, ValueError, r"tools\[0\]"),
    ({"tools": [{"type": "function", "function": {"name": ""}}]}, ValueError, r"tools\[0\]"), ({"tools": [ADD, ADD]}, ValueError, "'add' twice"),
    ({"tools": [{"type": "function", "function": {"name": "a", "parameters": 5}}]}, ValueError, "parameters: got int"),
    ({"tools": [ADD], "grammar": GRAMMAR}, ValueError, "grammar: got one with tools"),
    ({"tools": [ADD], "response_format": {"type": "json_object"}}, ValueError, "JSON with tools"),
    ({"tools": [tool("a", b={"type": "string", "pattern": "(?=x)"})], "tool_choice": "required"}, ValueError, "pattern: got .*looking ahead"),
    ({"tools": [tool("a", b={"type": "foo"})], "tool_choice": "required"}, ValueError, "foo"),
])
def test_bad_arguments(tool_llm, arguments, error, words):
    refuses(tool_llm, error, words, **arguments)


def test_template_that_knows_no_tools_says_so(llm):
    refuses(llm, ValueError, "tools: got some with a chat template that knows none", tools=[WEATHER, ADD])
    refuses(llm, ValueError, "tools: got some with a chat template that knows none", tools=[WEATHER, ADD], tool_choice="required")


def test_refusal_of_a_template_is_its_own_words(tool_llm):
    refuses(tool_llm, ValueError, "nobody may speak", [{"role": "nobody", "content": "a"}])


@pytest.mark.parametrize("template", ["{{ messages[", "{% for m in messages %}"])
def test_broken_template(tmp_path, template):
    with Llama(tiny_with(tmp_path, template), **ONE) as llama:
        with pytest.raises(ValueError, match="chat template"):
            llama.create_chat_completion(HELLO)
        assert llama("a", max_tokens=1)["usage"]["completion_tokens"] <= 1


def test_model_without_a_template(tmp_path):
    model = tiny_with(tmp_path, "")
    with Llama(model, **ONE) as llama:
        with pytest.raises(ValueError, match="chat_format='chatml'"):
            llama.create_chat_completion(HELLO)
    with Llama(model, chat_format="chatml", **ONE) as llama:
        refuses(llama, ValueError, "chat template that knows none", tools=[ADD])


def test_unknown_chat_format_and_handler(tmp_path):
    model = tiny_with(tmp_path, None)
    with pytest.raises(ValueError, match="chat_format: got 'functionary'.*chatml.*llama3"):
        Llama(model, chat_format="functionary")
    with pytest.raises(TypeError, match="chat_handler: got str"):
        Llama(model, chat_handler="me")


def test_chat_longer_than_n_ctx(tmp_path):
    with Llama(tiny_with(tmp_path, None), n_ctx=40, **ONE) as llama:
        refuses(llama, ValueError, "n_ctx=40", [{"role": "user", "content": "hello " * 100}])
        answer = llama.create_chat_completion(HELLO, logit_bias=NO_END)
        assert answer["choices"][0]["finish_reason"] == "length" and answer["usage"]["total_tokens"] == 40


def test_abandoned_stream_leaves_a_usable_object(llm):
    chunks = llm.create_chat_completion(HELLO, stream=True, logit_bias=NO_END)
    for _ in range(5):
        next(chunks)
    chunks.close()
    refuses(llm, ValueError, "messages", [])


def test_nothing_is_printed(llm, tool_llm, capfd):
    for model, words in ((llm, "chat template"), (tool_llm, "nobody")):
        with pytest.raises(ValueError, match=words):
            model.create_chat_completion([{"role": "nobody", "content": "a"}], tools=[ADD])
        model.create_chat_completion(HELLO, max_tokens=2)
    assert capfd.readouterr() == ("", "")
