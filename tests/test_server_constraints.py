"""What a request to sb-server demands of its answer is kept, on every endpoint, or refused with HTTP 400 and the field's name."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from chat_models import TOOL_TEMPLATE, tiny_with
from running_server import BIN, Server

pytestmark = pytest.mark.skipif(not (BIN / "sb-server").exists(), reason="the package is not installed: run make build")

HELLO = [{"role": "user", "content": "hello"}]
CODE = {"type": "object", "properties": {"code": {"type": "string", "pattern": r"^\d{2}$"}, "share": {"type": "number", "minimum": 0.5, "maximum": 0.75}},
        "required": ["code", "share"]}
NOT_HELD = {"type": "array", "items": {"type": "null"}, "maxItems": 2, "uniqueItems": True}
CHAT, RESPONSES, PLAIN = "/v1/chat/completions", "/v1/responses", "/completion"
SEEDS = range(2)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("constraints")
    with Server(tiny_with(folder, TOOL_TEMPLATE), folder / "log", "-c", "4096") as s:
        yield s


def check_code(text: str) -> None:
    value = json.loads(text)
    assert len(value["code"]) == 2 and value["code"].isdigit() and 0.5 <= value["share"] <= 0.75, text


def chat(server: Server, **more) -> dict:
    return server.post(CHAT, messages=HELLO, max_tokens=200, temperature=1, **more)["choices"][0]["message"]


def ring(**more) -> dict:
    return {"type": "function", "function": {"name": "ring", "parameters": {**CODE, **more}}}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_schema_is_kept_wherever_it_stands(server, seed):
    check_code(chat(server, seed=seed, response_format={"type": "json_schema", "json_schema": {"name": "c", "schema": CODE}})["content"])
    check_code(chat(server, seed=seed, response_format={"type": "json_object", "schema": CODE})["content"])
    check_code(server.post(PLAIN, prompt="x", n_predict=200, seed=seed, temperature=1, json_schema=CODE)["content"])
    answer = server.post(RESPONSES, input="x", max_output_tokens=200, seed=seed, temperature=1, text={"format": {"type": "json_schema", "name": "c", "schema": CODE}})
    check_code(answer["output"][0]["content"][0]["text"])


def body(**more) -> dict:
    return {"messages": HELLO, "max_tokens": 3, **more}


def form(schema: dict) -> dict:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


BAD = [
    (CHAT, body(response_format=form(NOT_HELD)), "uniqueItems"), (CHAT, body(tools=[ring(properties={"a": NOT_HELD})]), "tools: ring: #/properties/a: uniqueItems"),
    (CHAT, body(json_schema=NOT_HELD), "uniqueItems"), (PLAIN, {"prompt": "x", "json_schema": NOT_HELD}, "uniqueItems"),
    ("/v1/completions", {"prompt": "x", "json_schema": NOT_HELD}, "uniqueItems"), (RESPONSES, {"input": "x", "text": {"format": {"type": "json_schema", "schema": NOT_HELD}}}, "uniqueItems"),
    (RESPONSES, {"input": "x", "text": {"format": {"type": "xml"}}}, "type: got \"xml\""), (CHAT, body(response_format={"type": "xml"}), "type: got \"xml\""),
    (CHAT, body(response_format={"type": "json_schema"}), "schema: got null"), (CHAT, body(response_format={"type": "json_object", "schema": 5}), "schema: got 5"),
    (CHAT, body(response_format="json"), "response_format"), (CHAT, body(response_format=form(CODE), grammar='root ::= "a"'), "more than one"),
    (CHAT, body(response_format=form(CODE), tools=[ring()]), "more than one"), (PLAIN, {"prompt": "x", "json_schema": CODE, "grammar": 'root ::= "a"'}, "json_schema: got one and a grammar"),
    (CHAT, body(lenient_schema="yes", response_format=form(CODE)), "lenient_schema: got \"yes\""), (RESPONSES, {"input": "x", "max_tool_calls": 2}, "max_tool_calls"),
    (PLAIN, {"prompt": "x", "echo": True, "n_probs": 1, "post_sampling_probs": True}, "echo"), ("/v1/completions", {"prompt": "x", "echo": True, "stream": True}, "echo"),
    ("/v1/completions", {"prompt": "x", "echo": True, "n": 2}, "n: got 2"),
    ("/v1/messages", {"messages": HELLO, "max_tokens": 3, "tools": [{"name": "a", "input_schema": {"type": "object", "properties": {"a": NOT_HELD}}}]}, "uniqueItems"),
]


@pytest.mark.parametrize(("path", "request_body", "words"), BAD, ids=[f"{path}-{words}" for path, _, words in BAD])
def test_what_is_not_kept_is_refused(server, path, request_body, words):
    status, message = server.refused(path, json.dumps(request_body).encode())
    assert status == 400 and words in message, (status, message)


def test_leniency_is_asked_for_by_its_name(server):
    text = server.post(PLAIN, prompt="x", n_predict=40, json_schema=NOT_HELD, lenient_schema=True, temperature=0)["content"]
    assert json.loads(text) in ([], [None], [None, None])
    assert "uniqueItems" in Path(server.log).read_text()
    assert chat(server, response_format=form(NOT_HELD), lenient_schema=True)["content"]


def test_tools_refuse_a_schema_by_the_same_rules(tmp_path):
    for option, value in (("--json-schema", json.dumps(NOT_HELD)), ("--json-schema-file", tmp_path / "schema.json")):
        (tmp_path / "schema.json").write_text(json.dumps(NOT_HELD))
        ran = subprocess.run([BIN / "sb-completion", "-m", tmp_path / "none.gguf", option, value, "-p", "x"], capture_output=True, text=True, timeout=60)
        assert ran.returncode != 0 and "uniqueItems: got true" in ran.stderr, ran


def test_a_model_that_cannot_rank_does_not(tmp_path):
    with Server(tiny_with(tmp_path, TOOL_TEMPLATE), tmp_path / "log", "--reranking", "-c", "512") as s:
        status, message = s.refused("/v1/rerank", json.dumps({"query": "a", "documents": ["b", "c"]}).encode())
    assert status == 501 and "rank head" in message
