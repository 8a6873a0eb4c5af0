"""The values in OpenAI-shaped answers: why they ended, what was counted, which logprobs stand where, ids and times."""

from __future__ import annotations

import time

import numpy as np
import pytest
from binding_models import ONE, tiny, tokens_of  # noqa: F401

from spikingbrain_cpp import Llama

ENDS = (262, 263, 264)
NO_END = dict.fromkeys(ENDS, -1e9)
PROMPT = tokens_of(12).tolist()
CHAT = [{"role": "user", "content": "hello"}]
A = 65  # a letter of the byte alphabet, see write_bpe


@pytest.fixture(scope="module")
def llm(tiny):  # noqa: F811
    with Llama(tiny, seed=1, **ONE) as model:
        yield model


@pytest.fixture(scope="module")
def short(tiny):  # noqa: F811
    """A model of at most 40 tokens."""
    with Llama(tiny, seed=1, n_ctx=40, **ONE) as model:
        yield model


def complete(llm: Llama, stream: bool, **options) -> tuple[dict, dict | None]:
    """(choice, usage), a stream's chunks joined."""
    options = {"temperature": 0, "logit_bias": NO_END, **options}
    if not stream:
        answer = llm.create_completion(PROMPT, **options)
        return answer["choices"][0], answer["usage"]
    chunks = [c["choices"][0] for c in llm.create_completion(PROMPT, stream=True, **options)]
    return {**chunks[-1], "text": "".join(c["text"] for c in chunks)}, None


def chat(llm: Llama, stream: bool, **options) -> tuple[dict, dict | None]:
    options = {"temperature": 0, "logit_bias": NO_END, **options}
    answer = llm.create_chat_completion(CHAT, stream=stream, **options)
    if not stream:
        return {**answer["choices"][0], "text": answer["choices"][0]["message"]["content"]}, answer["usage"]
    chunks = [c["choices"][0] for c in answer]
    return {**chunks[-1], "text": "".join(c["delta"].get("content", "") for c in chunks)}, None


# what is asked for: (max_tokens, n_ctx 40?, which tokens a criterion stops at, an end token first), and how it ends
ENDINGS = [
    ("max_tokens", {"max_tokens": 3}, "length", 3), ("one token", {"max_tokens": 1}, "length", 1),
    ("n_ctx", {"max_tokens": None}, "length", None), ("n_ctx before max_tokens", {"max_tokens": 500}, "length", None),
    ("n_ctx at a negative max_tokens", {"max_tokens": -1}, "length", None),
    ("an end token", {"logit_bias": {262: 1e9}}, "stop", 0), ("another end token", {"logit_bias": {264: 1e9}}, "stop", 0),
    ("a criterion", {"stopping_criteria": "after 2"}, "stop", 2),
    ("a criterion that is never true", {"stopping_criteria": "never", "max_tokens": 4}, "length", 4),
    ("n_ctx under a criterion", {"stopping_criteria": "never", "max_tokens": None}, "length", None)]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("call", [complete, chat])
@pytest.mark.parametrize("options, reason, n", [row[1:] for row in ENDINGS], ids=[row[0] for row in ENDINGS])
def test_why_an_answer_ended_and_how_long_it_was(short, call, stream, options, reason, n):
    n_prompt = len(PROMPT) if call is complete else len(short.tokenize(short.apply_chat_template(CHAT), special=True))
    criteria = {"after 2": lambda ids, row: ids.size >= n_prompt + 2, "never": lambda ids, row: False}
    if "stopping_criteria" in options:
        options = {**options, "stopping_criteria": criteria[options["stopping_criteria"]]}
    choice, usage = call(short, stream, **options)
    assert choice["finish_reason"] == reason and choice["index"] == 0 and choice["logprobs"] is None
    n = 40 - n_prompt if n is None else n
    if usage is not None:
        assert usage == {"prompt_tokens": n_prompt, "completion_tokens": n, "total_tokens": n_prompt + n}
    if n == 0:
        assert choice["text"] == ""


def test_a_stop_string_ends_it_even_at_the_last_token_allowed(llm):
    full = complete(llm, False, max_tokens=6, logit_bias={**NO_END, A: 1e6})[0]["text"]
    assert set(full) == {full[0]} and len(full) == 6
    choice, usage = complete(llm, False, max_tokens=3, stop=full[:3], logit_bias={**NO_END, A: 1e6})
    assert (choice["text"], choice["finish_reason"], usage["completion_tokens"]) == ("", "stop", 3)
    choice, usage = complete(llm, False, max_tokens=2, stop=full[:3], logit_bias={**NO_END, A: 1e6})
    assert (choice["text"], choice["finish_reason"]) == (full[:2], "length")  # what was held back for it is shown


def greedy_rows(llm: Llama, n: int, bias: dict[int, float]) -> list[tuple[int, np.ndarray]]:
    """(token, log probabilities) of a greedy answer, read token by token."""
    out = []
    llm.reset()
    llm.eval(PROMPT)
    for _ in range(n):
        row = llm.logits.astype(np.float64)
        biased = row.copy()
        for token, value in bias.items():
            biased[token] += value
        out.append((int(biased.argmax()), row - row.max() - np.log(np.exp(row - row.max()).sum())))
        llm.eval([out[-1][0]])
    return out


@pytest.mark.parametrize("n_top", [0, 1, 5, 288, 1000])
def test_logprobs_are_the_likeliest_ones_and_the_tokens_own(llm, n_top):
    rows = greedy_rows(llm, 5, NO_END)
    answer = complete(llm, False, max_tokens=5, logprobs=n_top)[0]["logprobs"]
    assert answer["token_logprobs"] == pytest.approx([row[t] for t, row in rows], abs=1e-4)
    assert answer["tokens"] == [llm.detokenize([t], special=True).decode("utf-8", "ignore") for t, _ in rows]
    for found, (token, row) in zip(answer["top_logprobs"], rows):
        want: dict[str, float] = {}
        for i in {*np.argsort(-row)[:n_top].tolist(), token}:  # of those that look the same, the likeliest
            text = llm.detokenize([i], special=True).decode("utf-8", "ignore")
            want[text] = max(row[i], want.get(text, -np.inf))
        assert found == pytest.approx(want, abs=1e-4)


@pytest.mark.parametrize("n_top", [0, 1, 20])
def test_a_chats_logprobs_fall_and_hold_each_token_once(llm, n_top):
    answer = llm.create_chat_completion(CHAT, max_tokens=4, temperature=0, logit_bias=NO_END, logprobs=True, top_logprobs=n_top)
    content = answer["choices"][0]["logprobs"]["content"]
    assert len(content) == 4 and answer["choices"][0]["logprobs"]["refusal"] is None
    for entry in content:
        top = entry["top_logprobs"]
        assert len(top) == n_top and [t["logprob"] for t in top] == sorted((t["logprob"] for t in top), reverse=True)
        shown = [bytes(t["bytes"]) for t in top if t["bytes"]]  # tokens that no text has are empty
        assert len(set(shown)) == len(shown) >= n_top // 2
        assert all(t["token"] == bytes(t["bytes"]).decode("utf-8", "ignore") for t in [entry, *top])
        if n_top and entry["logprob"] > top[-1]["logprob"]:
            assert entry["logprob"] in [t["logprob"] for t in top]
        assert np.exp([t["logprob"] for t in top]).sum() <= 1 + 1e-5


@pytest.mark.parametrize("arguments, ok", [
    ({"logprobs": True, "top_logprobs": 20}, True), ({"logprobs": True, "top_logprobs": 0}, True), ({"logprobs": False}, True), ({"logprobs": None}, True),
    ({"logprobs": True, "top_logprobs": 21}, False), ({"logprobs": True, "top_logprobs": -1}, False), ({"top_logprobs": 2}, False),
    ({"logprobs": False, "top_logprobs": 2}, False), ({"logprobs": 1}, False), ({"logprobs": True, "top_logprobs": True}, False)])
def test_which_logprobs_a_chat_can_ask_for(llm, arguments, ok):
    if ok:
        got = llm.create_chat_completion(CHAT, max_tokens=1, logit_bias=NO_END, **arguments)["choices"][0]["logprobs"]
        assert (got is not None) == bool(arguments["logprobs"])
        return
    with pytest.raises((ValueError, TypeError), match="logprobs: got"):
        llm.create_chat_completion(CHAT, max_tokens=1, **arguments)


def test_text_offsets_begin_where_the_tokens_texts_do(llm):
    """ASCII letters alone: each token's text begins where the texts before it end, behind the prompt."""
    bias = {t: -1e9 for t in range(288) if t not in range(32, 94)}
    answer = complete(llm, False, max_tokens=8, logprobs=2, logit_bias=bias, presence_penalty=5.0)[0]
    probs, begin = answer["logprobs"], len(llm.detokenize(PROMPT, special=True).decode("utf-8", "ignore"))
    want = [begin + sum(map(len, probs["tokens"][:i])) for i in range(8)]
    assert probs["text_offset"] == want and "".join(probs["tokens"]) == answer["text"] and len(set(probs["tokens"])) > 1


def test_ids_times_and_models(llm):
    begun = int(time.time())
    answers = [llm.create_completion(PROMPT, max_tokens=1, logit_bias=NO_END), llm.create_completion(PROMPT, max_tokens=1, model="mine"),
               llm.create_chat_completion(CHAT, max_tokens=1), llm.create_chat_completion(CHAT, max_tokens=1, model="mine")]
    assert len({a["id"] for a in answers}) == 4
    assert [a["id"].split("-")[0] for a in answers] == ["cmpl", "cmpl", "chatcmpl", "chatcmpl"]
    assert [a["model"] for a in answers] == [llm.model_path, "mine"] * 2
    assert all(begun <= a["created"] <= time.time() for a in answers)
    for stream in (llm.create_completion(PROMPT, max_tokens=3, stream=True, model="mine"), llm.create_chat_completion(CHAT, max_tokens=3, stream=True, model="mine")):
        chunks = list(stream)
        assert len({(c["id"], c["created"], c["model"], c["object"]) for c in chunks}) == 1 and chunks[0]["model"] == "mine"


@pytest.mark.parametrize("stream", [False, True])
def test_echo_shows_the_prompt_once(llm, stream):
    shown = llm.detokenize(PROMPT, special=True).decode("utf-8", "ignore")
    plain, usage = complete(llm, stream, max_tokens=4)
    echoed, with_echo = complete(llm, stream, max_tokens=4, echo=True)
    assert echoed["text"] == shown + plain["text"] and usage == with_echo
