"""What constrains and chooses the Android library's answers is Python's: penalties, grammars, tools, log probabilities, many answers together."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from jvm import ROOT, convert, jvm, llama, prompt, spiking, tiny  # noqa: F401

END = {509: 50.0, 511: 50.0}  # <|endoftext|>, <|im_end|>: a random model ends as soon as its grammar lets it
TOOL_TEMPLATE = """\
{%- if tools %}{{- '<|im_start|>system\\nYou can call functions:\\n<tools>' }}
{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}
{{- '\\n</tools>\\nCall one so:\\n<tool_call>\\n{"name": ..., "arguments": ...}\\n</tool_call><|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
{%- else %}{{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
{%- for call in message.tool_calls or [] %}
{{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) + '}\\n</tool_call>' }}
{%- endfor %}{{- '<|im_end|>\\n' }}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
RAN = {"Java API, JNI, native part": "on a desktop JVM (OpenJDK 17, `-Xcheck:jni`, x86-64 Linux)"}
REASON = {"stop": "STOP", "length": "LENGTH", "tool_calls": "TOOL_CALLS"}


def tool(name: str, **properties) -> dict:
    return {"type": "function", "function": {"name": name, "description": f"the {name}", "parameters": {
        "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}}}


WEATHER, ADD = tool("weather", city={"enum": ["Oslo", "Rome"]}), tool("add", round={"type": "boolean"})
CALL_ADD = {"type": "function", "function": {"name": "add"}}


def words(options: dict) -> list[str]:
    """The options as Choosing.java reads them."""
    def text(value) -> str:
        return ",".join(f"{k}:{v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
    return [f"{'bias' if name == 'logit_bias' else name}={text(value)}" for name, value in options.items()]


@pytest.fixture(scope="module")
def calling(tmp_path_factory) -> Path:
    """examples/tiny with a template that knows tools."""
    checkpoint = tmp_path_factory.mktemp("calling") / "checkpoint"
    shutil.copytree(ROOT / "examples" / "tiny", checkpoint)
    config = checkpoint / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"chat_template": TOOL_TEMPLATE}))
    return convert(checkpoint, checkpoint.with_name("tools.gguf"), "--outtype", "f32")


@pytest.mark.parametrize("options", [
    {"temperature": 0, "presence_penalty": 1.5, "frequency_penalty": 0.5}, {"temperature": 0, "repeat_penalty": 1.3, "presence_penalty": -0.5},
    {"temperature": 1.1, "seed": 3, "typical_p": 0.5, "top_k": 0}, {"temperature": 0.9, "seed": 4, "logit_bias": {10: 4.0, 11: -50.0}},
], ids=["presence and frequency", "repeat and presence", "typical", "bias"])
def test_every_way_to_choose_is_pythons(jvm, spiking, prompt, options):
    said = jvm("Choosing", "generate", spiking, prompt, *words({**options, "max_tokens": 40}))
    with llama(spiking) as llm:
        got = llm.create_completion(prompt.read_text(encoding="utf-8"), max_tokens=40, **options)["choices"][0]
        plain = llm.create_completion(prompt.read_text(encoding="utf-8"), max_tokens=40, temperature=0)["choices"][0]["text"]
    assert said["text"] == got["text"] != plain and said["reason"] == REASON[got["finish_reason"]]


def test_log_probabilities_are_pythons(jvm, spiking):
    said = jvm.all("Choosing", "chat", spiking, *words({"temperature": 0, "max_tokens": 12, "logprobs": 3}))
    with llama(spiking) as llm:
        got = llm.create_chat_completion([{"role": "user", "content": "hello"}], max_tokens=12, temperature=0, logprobs=True, top_logprobs=3)["choices"][0]
        want = got["logprobs"]["content"]
        ids = [v for k, v in said if k == "tokens"][0]
        assert [v for k, v in said if k == "token"] == [f"{i} {bytes(t['bytes']).hex()} {t['token']}" for i, t in zip(ids, want, strict=True)]
    assert [v for k, v in said if k == "logprob"] == pytest.approx([t["logprob"] for t in want], abs=1e-5)
    top = [v.split() for k, v in said if k == "top"]
    assert [float(p) for _, p in top] == pytest.approx([c["logprob"] for t in want for c in t["top_logprobs"]], abs=1e-5) and len(top) == 36
    assert all(int(top[3 * n][0]) == i for n, i in enumerate(ids))  # greedy


GBNF = 'root ::= ("the " animal " and ")+ "so on."\nanimal ::= "cat" | "dog" | [a-f]{3}\n'
SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"enum": [1, 2]}}, "required": ["a", "b"], "additionalProperties": False}


@pytest.mark.parametrize("seed", [1, 2])
def test_grammars_hold_and_draw_what_python_draws(jvm, tiny, prompt, tmp_path, seed):
    from spikingbrain_cpp import LlamaGrammar
    (tmp_path / "g").write_text(GBNF)
    (tmp_path / "s").write_text(json.dumps(SCHEMA))
    options = {"temperature": 1.0, "seed": seed, "max_tokens": 80, "logit_bias": END}
    with llama(tiny, n_ctx=4000) as llm:
        for kind, file, grammar in (("grammar", "g", LlamaGrammar.from_string(GBNF)), ("schema", "s", LlamaGrammar.from_json_schema(SCHEMA))):
            said = jvm("Choosing", "generate", tiny, prompt, *words({**options, kind: tmp_path / file}))
            got = llm.create_completion(prompt.read_text(encoding="utf-8"), grammar=grammar, **options)["choices"][0]
            assert said["text"] == got["text"] and said["reason"] == REASON[got["finish_reason"]]
            if said["reason"] == "STOP":
                assert grammar.matches(said["text"])
                assert kind != "schema" or set(json.loads(said["text"])) == {"a", "b"}
    assert said["reason"] == "STOP"  # the schema's


@pytest.mark.parametrize("tools, choice", [("two", "required"), ("two", "add"), ("two", "none"), ("one", "auto"), ("one", "required")])
def test_tools_are_called_as_python_calls_them(jvm, calling, tools, choice):
    options = {"temperature": 1.0, "seed": 5, "max_tokens": 300, "logit_bias": END}
    if choice in ("none", "auto"):
        options = {"temperature": 0, "max_tokens": 6, "logit_bias": {509: -100.0, 511: -100.0}}
    said = jvm("Choosing", "chat", calling, *words({**options, "tools": tools, "choice": choice}))
    hello, listed = [{"role": "user", "content": "hello"}], [ADD] if tools == "one" else [WEATHER, ADD]
    with llama(calling, n_ctx=4000) as llm:
        got = llm.create_chat_completion(hello, tools=listed, tool_choice=CALL_ADD if choice == "add" else choice, **options)
        message = got["choices"][0]["message"]
        calls = [f"{c['function']['name']} {c['function']['arguments']}" for c in message.get("tool_calls", [])]
        assert said["text"] == (message["content"] or "") and said["reason"] == REASON[got["choices"][0]["finish_reason"]] and said["joined"] is True
        assert len(said["tokens"]) == got["usage"]["completion_tokens"]
        assert ([said["call"]] if "call" in said else []) == calls and (choice in ("none", "auto")) == (not calls)
        if calls:
            for call in message["tool_calls"]:
                chat = [*hello, message, {"role": "tool", "tool_call_id": call["id"], "content": "7"}]
            llm.reset()
            llm.create_chat_completion(chat, tools=listed, tool_choice="none", max_tokens=1, temperature=0)
            assert said["prompt"] == llm.detokenize(llm.input_ids, special=True).decode()
            assert "<tool_response>\n7\n</tool_response>" in said["prompt"]


def test_a_call_that_was_cut_short_does_not_spoil_the_conversation(jvm, calling):
    said = jvm("Choosing", "cutCall", calling)
    assert said["reason"] == "LENGTH" and said["calls"] == 1 and said["messages"] == "user" and said["draft"] == "hello" and said["next"] is True


def test_a_template_without_tools_takes_one_by_its_name(jvm, tiny):
    options = {"temperature": 1.0, "seed": 2, "max_tokens": 60, "logit_bias": END}
    for tools, choice in (("two", "add"), ("one", "required")):
        said = jvm("Choosing", "chat", tiny, *words({**options, "tools": tools, "choice": choice}))
        with llama(tiny, n_ctx=4000) as llm:
            got = llm.create_chat_completion([{"role": "user", "content": "hello"}], tools=[ADD] if tools == "one" else [WEATHER, ADD],
                                             tool_choice=CALL_ADD if choice == "add" else choice, **options)["choices"][0]
        call = got["message"]["tool_calls"][0]["function"]
        assert said["call"] == f"{call['name']} {call['arguments']}" and said["reason"] == "TOOL_CALLS" and said["text"] == ""


def test_what_cannot_be_meant_is_refused_by_name(jvm, tiny):
    said = jvm.all("Choosing", "refusals", tiny)
    found = [v for k, v in said if k == "e"]
    names = ["chat: tools", "chat: tool_choice", "chat: tool_choice", "chat: grammar", "generate: tools", "generate: tools", "tool: name", "tool: t: parameters",
             "tool: t: parameters", "tool: t: parameters", "grammar", "grammar", "grammar", "json schema", "json schema", "json schema", "generate: typical_p",
             "generate: presence_penalty", "generate: frequency_penalty", "generate: logprobs", "generate: logprobs", "generate: logit_bias", "generate: logit_bias", "session: cpus"]
    assert len(found) == len(names)
    for failure, name in zip(found, names):
        assert failure.startswith(f"IllegalArgumentException: {name}"), (failure, name)
    assert dict(said)["left_out"] == 1 and dict(said)["matches"] is True


@pytest.mark.parametrize("n, together, options", [(1, 3, {"temperature": 0}), (3, 2, {"temperature": 0.9, "seed": 7}), (2, 8, {"temperature": 1.2, "seed": 1, "presence_penalty": 0.5})])
def test_many_answers_are_generate_manys(jvm, spiking, tmp_path, n, together, options):
    texts = ["the cat sat", "the cat said hello", "the", "the cat sat on the mat and then it went to see the dog"]
    (tmp_path / "prompts").write_text("\n".join(texts))
    said = jvm.all("Choosing", "parallel", spiking, tmp_path / "prompts", n, together, *words({**options, "max_tokens": 20}))
    with llama(spiking) as llm:
        want = llm.generate_many(texts, n=n, n_parallel=together, max_tokens=20, **options)
        alone = llm.create_completion(texts[0], max_tokens=20, **options)["choices"][0]["text"]
    assert [v for k, v in said if k == "answer"] == [f"{a['index']} {REASON[a['finish_reason']]} {a['text']}" for a in want]
    assert [v for k, v in said if k == "tokens"] == [a["tokens"] for a in want] and want[0]["text"] == alone
    assert dict(said)["joined"] is True and dict(said)["again"] is True and dict(said)["none"] == 0


def test_chats_are_answered_together_stopped_and_closed_twice(jvm, spiking):
    said = jvm.all("Choosing", "parallelChats", spiking)
    with llama(spiking) as llm:
        want = [llm.create_chat_completion([{"role": "user", "content": text}], max_tokens=12, temperature=0)["choices"][0]["message"]["content"]
                for text in ("say hello", "the cat", "say hello")]
    assert [v for k, v in said if k == "answer"] == want and dict(said)["after"] == want[0]
    assert dict(said)["cancelled"].startswith("CancelledException: ")
    refused = [v for k, v in said if k == "e"]
    assert all(re.match(r"IllegalArgumentException: (parallel|generate|chat)[\w: ]*: got .*, expected ", f) for f in refused) and len(refused) == 6, refused
    assert all(re.match("IllegalStateException: (parallel|model): got a closed one, expected an open one", f) for k, f in said if k == "closed")
