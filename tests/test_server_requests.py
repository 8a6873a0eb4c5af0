"""sb-server refuses what it cannot mean, by name and with a status that says whose mistake it is; and lives on.

One table: every endpoint that takes a body, times bodies that are wrong in one place.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from binding_models import convert
from running_server import BIN, Server

ROOT = Path(__file__).resolve().parent.parent
CLIENTS_FAULT = (400, 404, 413)
USER = [{"role": "user", "content": "hi"}]

pytestmark = pytest.mark.skipif(not (BIN / "sb-server").exists(), reason="the package is not installed: run make build")

CHATS = {"/v1/chat/completions": "max_tokens", "/apply-template": "max_tokens", "/v1/chat/completions/input_tokens": "max_tokens",
         "/v1/messages": "max_tokens", "/v1/messages/count_tokens": "max_tokens"}
GENERATES = ("/completion", "/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages")
VALID: dict[str, dict] = {
    "/completion": {"prompt": "the tide", "n_predict": 2},
    "/v1/completions": {"prompt": "the tide", "max_tokens": 2},
    **{path: {"messages": USER, limit: 2} for path, limit in CHATS.items()},
    "/v1/responses": {"input": "hi", "max_output_tokens": 2},
    "/v1/responses/input_tokens": {"input": "hi"},
    "/tokenize": {"content": "a"},
    "/detokenize": {"tokens": [1, 2]},
}
EMBEDS: dict[str, dict] = {"/embedding": {"content": "a"}, "/embeddings": {"input": "a"}, "/v1/embeddings": {"input": "a"}}
DEEP = "[" * 100_000
NO_JSON = ["", "{", "null", "5", '"x"', "[]", '{"a": 1e400}', "nan", DEEP, DEEP + "]" * 100_000, '{"prompt": "a", "messages": ' + DEEP + "]" * 100_000 + "}"]

CHAIN = "root ::= x0\n" + "".join(f"x{i} ::= x{i + 1}\n" for i in range(100_000)) + 'x100000 ::= "a"'
HUGE = [2**32 + 1, 2**40, 2**63, -2**40]
INTS = {"n_keep": [2**31], "top_k": [2**31], "seed": [-2, 2**32], "n_probs": [-1], "id_slot": [-2, 4, 99], "repeat_last_n": [-2], "mirostat": [3, -1],
        "min_keep": [-1], "dry_allowed_length": [], "n_cmpl": [0, 5], "sse_ping_interval": [-2]}
FLOATS = {"temperature": [-1], "top_p": [1.5, -0.5], "min_p": [2, -1], "typical_p": [-1, 2], "repeat_penalty": [0, -1], "xtc_probability": [2],
          "frequency_penalty": [], "dry_base": [], "mirostat_tau": [-1]}
FLAGS = ("stream", "cache_prompt", "ignore_eos", "return_tokens", "timings_per_token")
LISTS: dict[str, list] = {
    "stop": [[""], "", [5], 5, {"a": 1}, ["x", ""], [None]],
    "logit_bias": [[[512, 1]], [[1]], [["a"]], [1], "x", 5, [[1, "x"]], [[1, True]], {"512": 1}, {"-1": 1}, {"1": "x"}, [[2**40, 1]], [[1.5, 1]]],
    "samplers": [["absent"], [5], 5, "?", {"a": 1}],
    "lora": [[{"id": 0, "scale": 1}], [{"id": 2**40, "scale": 1}], [{"scale": 1}], "x", [5], {"id": 0}],
    "grammar": ["root ::= (", "root ::= " + "(" * 100_000, CHAIN, "root ::= absent", 5, ["x"]],
    "dry_sequence_breakers": [5, [5], []], "response_fields": [5, [5]], "best_of": [3], "suffix": ["x"],
}
CHAT_FIELDS: dict[str, list] = {
    "messages": [None, "x", 5, {}, [], [5], [None], [[]], ["x"], [{}], [{"content": "a"}], [{"role": "user"}], [{"role": 5, "content": "a"}],
                 [{"role": "user", "content": 5}], [{"role": "user", "content": None}], [{"role": "user", "content": {"text": "a"}}],
                 [{"role": "user", "content": [5]}], [{"role": "user", "content": [{"type": "text"}]}], [{"role": "user", "content": [{"type": "text", "text": 5}]}],
                 [{"role": "user", "content": [{"type": "absent"}]}], [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]],
    "tools": ["x", 5, [5], [{}], [{"type": "absent"}], [{"type": "function"}]],
    "tool_choice": [5, "absent", [], {}, {"type": "absent"}, "required"],
    "chat_template_kwargs": [5, "x", ["a"]],
}
OPENAI_FIELDS: dict[str, list] = {"functions": [[{"name": "a"}]], "function_call": ["auto", {"name": "a"}], "logprobs": [5, "x"], "top_logprobs": [3, "x"],
                                  "response_format": [{"type": "absent"}], "reasoning_format": ["absent", 5]}
RESPONSES_FIELDS: dict[str, list] = {"input": [None, 5, {}, [], [5], [None], [{}], [{"role": "user", "content": 5}], [{"role": "user", "content": [{"type": "absent"}]}]],
                                     "tools": ["x", 5, [5]], "tool_choice": [5, "absent", {}, "required"], "conversation": ["c"], "previous_response_id": ["r"],
                                     "background": [True], "prompt": [{"id": "p"}], "include": [5]}
MESSAGES_FIELDS: dict[str, list] = {"system": [5, {"a": 1}, [5], [{"type": "image"}]], "stop_sequences": [[""], [5], 5],
                                    "tools": [[{"name": "web_search", "type": "web_search_20250305"}], [{"name": "a"}], [{"input_schema": {}}]],
                                    "tool_choice": ["auto", {"type": "absent"}, {"type": "tool"}, {"type": "any"}], "mcp_servers": [[{"url": "x"}]],
                                    "messages": [[{"role": "user", "content": [{"type": "document"}]}], [{"role": "user", "content": [{"type": "tool_result", "content": [{"type": "x"}]}]}]]}


def of_numbers() -> dict[str, list]:
    wrong = ["x", True, [], {}]
    return {**{name: [*HUGE, 1.5, 1e39, *wrong, *more] for name, more in INTS.items()},
            **{name: [1e39, *wrong, *more] for name, more in FLOATS.items()},
            **{name: [5, "x", [], {}] for name in FLAGS}}


def fields(path: str) -> dict[str, list]:
    """Of an endpoint: what each field must not be."""
    if path in ("/tokenize", "/detokenize"):
        ids = [None, 5, {}, [None], [[]], [1.5], [-1], [512], [2**31], [2**32 + 1], [True]]
        return {"content": ids} if path == "/tokenize" else {"tokens": [*ids, "x", ["x"]]}
    found: dict[str, list] = {**of_numbers(), **LISTS} if path in GENERATES else {}
    if path in ("/completion", "/v1/completions"):
        found["prompt"] = [None, 5, {}, {"a": 1}, [], [None], [[None]], [{}], [1.5], [-1], [512], [2**31], [2**32 + 1], [True], {"prompt_string": 5},
                           {"prompt_string": "a", "multimodal_data": ["x"]}]
    if path in CHATS:
        found |= CHAT_FIELDS
        found = {**found, **OPENAI_FIELDS} if "messages" not in path else found
    if path == "/v1/messages":
        found = {**found, **{name: [*found.get(name, []), *more] for name, more in MESSAGES_FIELDS.items()}}
        for name in ("stop", "n_cmpl"):
            found.pop(name)
    if path.startswith("/v1/responses"):
        found |= RESPONSES_FIELDS | {"reasoning_format": ["absent"]}
    return found


def status(server: Server, path: str, body: bytes) -> tuple[int, str]:
    """HTTP status and the error's message, or what was answered."""
    request = urllib.request.Request(server.url + path, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read(300).decode()
    except urllib.error.HTTPError as e:
        return e.code, json.loads(e.read())["error"]["message"]
    except OSError as e:
        return 0, str(e)


def wrong_answers(server: Server, bodies: "list[tuple[str, str]]") -> list[str]:
    """Of bodies that are wrong: those that were not answered as the client's mistake, with what was answered."""
    found = []
    for path, body in bodies:
        code, text = status(server, path, body.encode())
        if code not in CLIENTS_FAULT or not text.strip():
            found.append(f"{path} {body[:160]}: {code} {text[:160]}")
        assert server.process.poll() is None, f"{path} {body[:160]}: the server died"
    return found


def wrong_fields(valid: "dict[str, dict]") -> "list[tuple[str, str]]":
    return [(path, json.dumps({**body, name: value})) for path, body in valid.items() for name, values in fields(path).items() for value in values]


def without(valid: "dict[str, dict]") -> "list[tuple[str, str]]":
    """The first field of each is the required one."""
    return [(path, json.dumps({name: value for name, value in list(body.items())[1:]})) for path, body in valid.items()]


def alive(server: Server) -> bool:
    return all(status(server, path, json.dumps(body).encode())[0] == 200 for path, body in VALID.items())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("requests")


@pytest.fixture(scope="module")
def model(folder) -> Path:
    return convert(ROOT / "examples" / "tiny", folder / "tiny.gguf", "--outtype", "f32")


@pytest.fixture(scope="module")
def server(model, folder):
    with Server(model, folder / "server.log", "--slot-save-path", f"{folder}/") as s:
        yield s


def test_what_is_no_json_or_no_object_is_refused(server):
    assert wrong_answers(server, [(path, body) for path in VALID for body in NO_JSON] + without(VALID)) == []
    assert alive(server)


@pytest.mark.parametrize("path", VALID)
def test_a_field_of_a_wrong_type_or_value_is_refused_by_every_endpoint(server, path):
    assert wrong_answers(server, wrong_fields({path: VALID[path]})) == []
    assert alive(server)


def test_values_at_the_edge_are_taken(server):
    edge = {"seed": -1, "id_slot": 3, "top_k": -1, "top_p": 1, "min_p": 0.0, "temperature": 0, "n_probs": 512, "mirostat": 2, "n_cmpl": 1, "best_of": 1,
            "suffix": None, "stop": None, "lora": [], "logit_bias": {"511": False, "a": 1.5}, "repeat_last_n": 0.0, "samplers": ["top_k", "temp"]}
    for path in ("/completion", "/v1/completions"):
        for name, value in edge.items():
            code, text = status(server, path, json.dumps({**VALID[path], name: value}).encode())
            assert code == 200, (path, name, value, text)
    assert status(server, "/completion", json.dumps({**VALID["/completion"], "seed": 2**32 - 2}).encode())[0] == 200


def test_a_slot_that_is_not_there_is_refused(server):
    bodies = [(f"/slots/{slot}?action={action}", '{"filename": "x.bin"}') for slot in (4, 99, -1, 2**31, "x") for action in ("save", "restore", "erase")]
    assert wrong_answers(server, bodies) == []


def test_an_adapter_that_is_not_there_is_refused(server):
    lists = [[{"id": 0, "scale": 1}], [{"id": -1, "scale": 0}], [{"id": 2**32, "scale": 1}], [{}], [5], {}, 5, [{"id": "0", "scale": 1}], [{"id": 0}]]
    assert wrong_answers(server, [("/lora-adapters", json.dumps(body)) for body in lists]) == []
    assert status(server, "/lora-adapters", b"[]")[0] == 200


def test_embeddings_refuse_what_they_cannot_embed(model, folder):
    """Also a text longer than a batch, which is read at once."""
    values = [None, 5, {}, [], [[]], [None], [1.5], [512], [-1], [2**32 + 1], "", ["a", True], True, [t % 500 for t in range(600)], {"a": 1}]
    more = {"encoding_format": ["x", 5], "dimensions": [7, 2**40], "embd_normalize": ["x", 2**40, 1.5]}
    with Server(model, folder / "embeddings.log", "--embeddings", "--pooling", "mean") as s:
        bodies = [(path, json.dumps({name: value})) for path, body in EMBEDS.items() for name in body for value in values]
        bodies += [("/v1/embeddings", json.dumps({"input": "a", name: value})) for name, wrong in more.items() for value in wrong]
        bodies += [(path, body) for path in EMBEDS for body in (*NO_JSON, "{}")]
        assert wrong_answers(s, bodies) == []
        assert len(s.post("/v1/embeddings", input="a")["data"][0]["embedding"]) > 1
