"""create_completion: OpenAI's shape, whole characters, stop strings, log probabilities."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from binding_models import ONE, tiny, tokens_of  # noqa: F401

from spikingbrain_cpp import Llama
from spikingbrain_cpp.completion import TextStream

NO_END = {262: -1e9, 263: -1e9, 264: -1e9}  # TINY's special tokens


@pytest.fixture(scope="module")
def llm(tiny):  # noqa: F811
    with Llama(tiny, **ONE) as model:
        yield model


def text_of(chunks) -> str:
    return "".join(c["choices"][0]["text"] for c in chunks)


def pushed(pieces: list[bytes], stops=()) -> tuple[str, list[str], bool]:
    stream, out = TextStream(stops), []
    for piece in pieces:
        out.append(stream.push(piece))
        if stream.stopped:
            break
    out.append(stream.finish())
    return "".join(out), out, stream.stopped


def test_characters_come_whole():
    text = "aé你🙂👩‍👧z"
    for size in (1, 2, 3, 5):
        raw = text.encode()
        whole, parts, _ = pushed([raw[i:i + size] for i in range(0, len(raw), size)])
        assert whole == text and "\ufffd" not in "".join(parts)
    assert pushed([b"a", "🙂".encode()[:3]])[0] == "a"  # half a character at the end is left out
    assert pushed([b"a\xffb"])[0] == "ab"


def test_stop_strings_are_never_shown_in_part():
    rng = random.Random(1)
    for _ in range(500):
        text = "".join(rng.choices("ab<>|", k=40))
        stops = ["".join(rng.choices("ab<>|", k=rng.randrange(1, 5))) for _ in range(rng.randrange(1, 4))]
        cuts = sorted(rng.sample(range(40), 8))
        pieces = [text[a:b].encode() for a, b in zip([0, *cuts], [*cuts, 40])]
        first = min(((text.find(s) + len(s), text.find(s)) for s in stops if s in text), default=None)
        whole, parts, stopped = pushed(pieces, stops)
        assert stopped == (first is not None)
        assert whole == (text if first is None else text[:first[1]])  # the one complete first, wherever the pieces end
        shown = ""
        for part in parts:
            shown += part
            assert text.startswith(shown)


def test_shape_of_the_answer(llm):
    answer = llm("hello the", max_tokens=5, temperature=0, logit_bias=NO_END)
    assert set(answer) == {"id", "object", "created", "model", "choices", "usage"}
    assert answer["object"] == "text_completion" and answer["id"].startswith("cmpl-") and answer["model"] == llm.model_path
    choice = answer["choices"][0]
    assert set(choice) == {"text", "index", "logprobs", "finish_reason"} and choice["finish_reason"] == "length"
    n = len(llm.tokenize("hello the"))
    assert answer["usage"] == {"prompt_tokens": n, "completion_tokens": 5, "total_tokens": n + 5}
    json.dumps(answer)


def test_stream_joins_to_the_answer(llm):
    for arguments in (dict(), dict(stop=["a", "e"]), dict(echo=True), dict(temperature=1.5, seed=4, stop="e")):
        arguments = {"max_tokens": 40, "temperature": 0, "logit_bias": NO_END, **arguments}
        whole = llm("hello", **arguments)
        chunks = list(llm("hello", stream=True, **arguments))
        assert text_of(chunks) == whole["choices"][0]["text"]
        assert [c["choices"][0]["finish_reason"] for c in chunks[:-1]] == [None] * (len(chunks) - 1)
        assert chunks[-1]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
        assert len({c["id"] for c in chunks}) == 1


def test_stop_string_ends_it(llm):
    full = llm("hello", max_tokens=60, temperature=0, logit_bias=NO_END)["choices"][0]["text"]
    stop = full[5:7]
    got = llm("hello", max_tokens=60, temperature=0, logit_bias=NO_END, stop=[stop, "never there"])["choices"][0]
    assert got["text"] == full[:full.index(stop)] and got["finish_reason"] == "stop"


def test_any_end_of_generation_token_ends_it(llm):
    for token in (262, 264):  # <|endoftext|> and <|im_end|>
        answer = llm("hello", max_tokens=9, temperature=0, logit_bias={token: 1e9})
        assert answer["choices"][0]["finish_reason"] == "stop" and answer["choices"][0]["text"] == ""
        assert answer["usage"]["completion_tokens"] == 0


def test_echo_and_tokens_as_prompt(llm):
    a = llm("hello", max_tokens=4, temperature=0, echo=True)["choices"][0]["text"]
    b = llm(llm.tokenize("hello"), max_tokens=4, temperature=0, echo=True)["choices"][0]["text"]
    assert a == b and a.startswith("hello")


def test_logprobs_without_keeping_all_logits(llm):
    answer = llm("hello", max_tokens=6, temperature=0, logprobs=3, logit_bias=NO_END)
    probs = answer["choices"][0]["logprobs"]
    assert [len(probs[k]) for k in ("tokens", "text_offset", "token_logprobs", "top_logprobs")] == [6] * 4
    llm.reset()
    llm.eval(llm.tokenize("hello"))
    row = llm.logits.astype(np.float64)
    want = row - row.max() - np.log(np.exp(row - row.max()).sum())
    best = int(np.where(np.isin(np.arange(288), list(NO_END)), -np.inf, want).argmax())
    assert abs(probs["token_logprobs"][0] - want[best]) < 1e-4
    assert max(probs["top_logprobs"][0].values()) == pytest.approx(want.max(), abs=1e-4)
    chunks = list(llm("hello", max_tokens=6, temperature=0, logprobs=3, logit_bias=NO_END, stream=True))
    streamed = [t for c in chunks for t in c["choices"][0]["logprobs"]["token_logprobs"]]
    assert streamed == pytest.approx(probs["token_logprobs"], abs=1e-5)


def test_abandoned_stream_leaves_a_usable_object(llm):
    stream = llm("hello", max_tokens=50, stream=True, logit_bias=NO_END)
    next(stream)
    del stream
    a = llm("the", max_tokens=5, temperature=0)["choices"][0]["text"]
    llm.reset()
    assert llm("the", max_tokens=5, temperature=0)["choices"][0]["text"] == a


@pytest.mark.parametrize("prompt, arguments, error, words", [
    ("", {}, ValueError, "prompt: got no tokens"), ([], {}, ValueError, "prompt: got no tokens"),
    ("a", {"suffix": "b"}, ValueError, "suffix"), ("a", {"stop": [""]}, ValueError, "stop"),
    ("a", {"stop": [3]}, ValueError, "stop"), ("a", {"top_p": float("nan")}, ValueError, "top_p"),
    ("a", {"top_p": 1.5}, ValueError, "top_p"), ("a", {"min_p": -1}, ValueError, "min_p"),
    ("a", {"repeat_penalty": 0}, ValueError, "repeat_penalty"), ("a", {"mirostat_mode": 3}, ValueError, "mirostat"),
    ("a", {"temperature": float("inf")}, ValueError, "temp"), ("a", {"seed": -2}, ValueError, "seed"),
    ("a", {"seed": 2**32}, ValueError, "seed"), ("a", {"logprobs": -1}, ValueError, "logprobs"),
    ("a", {"logprobs": 1, "echo": True}, ValueError, "echo"), ("a", {"logit_bias": {300: 1}}, ValueError, "token"),
    ([288], {}, ValueError, "got 288"), ([-1], {}, ValueError, "got -1"), (["a"], {}, TypeError, "integers"),
    ([1.5], {}, TypeError, "integers"), ("a", {"tfs_z": 0.5}, ValueError, "tfs_z"), ("a", {"grammar": "root ::= \"a\""}, TypeError, "LlamaGrammar"),
])
def test_bad_arguments(llm, prompt, arguments, error, words):
    with pytest.raises(error, match=words):
        llm(prompt, **arguments)
    assert llm("hello", max_tokens=2)["usage"]["completion_tokens"] <= 2  # still usable
