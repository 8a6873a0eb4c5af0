"""sb-server: "echo" gives the prompt back, and with logprobs what the model thought of each of its tokens, as Llama's own logits say."""

from __future__ import annotations

import threading

import numpy as np
import openai
import pytest
from binding_models import ONE, make_tiny, tokens_of
from running_server import BIN, Server

from spikingbrain_cpp import Llama

pytestmark = pytest.mark.skipif(not (BIN / "sb-server").exists(), reason="the package is not installed: run make build")
TEXT = "hello the hello, the <|im_start|>the\n\u00e9 hello"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A vocabulary so large that a batch has not room for all rows of a prompt."""
    return make_tiny(tmp_path_factory.mktemp("echo"), vocab_size=100_000)


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    with Server(model, tmp_path_factory.mktemp("echo-log") / "log", "-np", 2, "-c", 4096) as s:
        yield s


@pytest.fixture(scope="module")
def complete(server):
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", timeout=60, max_retries=0) as client:
        yield lambda **body: client.completions.create(model="x", temperature=0, **body)


@pytest.fixture(scope="module")
def llm(model):
    with Llama(model, logits_all=True, **ONE) as llm:
        yield llm


def logprobs(llm, ids):
    """float64 [n, n_vocab], after each token."""
    llm.reset()
    llm.eval(ids)
    s = llm.scores.astype(np.float64)
    return s - s.max(1, keepdims=True) - np.log(np.exp(s - s.max(1, keepdims=True)).sum(1, keepdims=True))


def check(choice, llm, ids, n_top):
    rows, found = logprobs(llm, ids), choice.logprobs
    assert found.token_logprobs[0] is None and found.top_logprobs[0] is None and found.text_offset[0] == 0
    own = rows[np.arange(len(ids) - 1), np.array(ids[1:])]
    assert np.allclose(found.token_logprobs[1:len(ids)], own, atol=1e-3)
    likeliest = -np.sort(-np.partition(rows, -n_top, axis=1)[:, -n_top:], axis=1)
    for row, top in zip(likeliest, found.top_logprobs[1:]):
        assert 1 <= len(top) <= n_top and max(top.values()) == pytest.approx(row[0], abs=1e-3)
    assert [p == max(t.values()) for p, t in zip(found.token_logprobs[1:len(ids)], found.top_logprobs[1:])] == (own == likeliest[:-1, 0]).tolist()


def test_several_prompts_as_ids_and_as_text(complete, llm):
    prompts = [llm.tokenize(TEXT, special=True), tokens_of(180, 260, seed=3).tolist(), [5, 6]]
    answer = complete(prompt=prompts, max_tokens=1, logprobs=2, echo=True, seed=1)
    assert [c.index for c in sorted(answer.choices, key=lambda c: c.index)] == [0, 1, 2] and answer.usage.completion_tokens == 1
    for ids, choice in zip(prompts, sorted(answer.choices, key=lambda c: c.index)):
        check(choice, llm, ids, 2)
        assert all(len(part) == len(ids) + 1 for part in (choice.logprobs.tokens, choice.logprobs.token_logprobs, choice.logprobs.top_logprobs, choice.logprobs.text_offset))
        assert choice.logprobs.token_logprobs[-1] == pytest.approx(logprobs(llm, ids)[-1].max(), abs=1e-3)
    text = complete(prompt=TEXT, max_tokens=1, logprobs=1, echo=True).choices[0]
    check(text, llm, prompts[0], 1)
    assert text.text.startswith(TEXT) and "".join(text.logprobs.tokens[:4]) == text.text[:text.logprobs.text_offset[4]]


@pytest.mark.parametrize("n", [0, 3])
def test_the_answer_follows_the_prompt(complete, llm, n):
    echoed, plain = (complete(prompt=TEXT, max_tokens=n, logprobs=1, echo=echo).choices[0] for echo in (True, False))
    assert echoed.text == TEXT + plain.text and echoed.finish_reason == plain.finish_reason
    assert len(echoed.logprobs.tokens) == len(llm.tokenize(TEXT, special=True)) + n
    assert complete(prompt=TEXT, max_tokens=n, echo=True).choices[0].logprobs is None
    check(complete(prompt=TEXT, max_tokens=n, logprobs=0, echo=True).choices[0], llm, llm.tokenize(TEXT, special=True), 1)


def test_a_prompt_that_is_cached_is_scored_whole(complete, llm):
    ids = tokens_of(100, 260, seed=4).tolist()
    complete(prompt=ids, max_tokens=1)
    first, again = (complete(prompt=ids, max_tokens=1, logprobs=1, echo=True).choices[0] for _ in range(2))
    check(again, llm, ids, 1)
    assert first.logprobs == again.logprobs


def test_what_others_generate_meanwhile_stays_as_it_is(complete, llm):
    """A batch that is divided for the rows of one prompt has other slots' tokens in it."""
    plain = complete(prompt="the", max_tokens=40).choices[0].text
    answers: list = []
    thread = threading.Thread(target=lambda: answers.append(complete(prompt="the", max_tokens=40).choices[0].text))
    thread.start()
    ids = tokens_of(250, 260, seed=5).tolist()
    choice = complete(prompt=ids, max_tokens=1, logprobs=1, echo=True).choices[0]
    thread.join(60)
    check(choice, llm, ids, 1)
    assert answers == [plain]


def test_the_servers_own_endpoint_says_the_same(server, llm):
    ids = llm.tokenize(TEXT, special=True)
    answer = server.post("/completion", prompt=TEXT, n_predict=1, n_probs=1, echo=True, temperature=0)
    assert answer["content"].startswith(TEXT) and len(answer["completion_probabilities"]) == len(ids)
    own = logprobs(llm, ids)[np.arange(len(ids) - 1), np.array(ids[1:])]
    assert np.allclose([row["logprob"] for row in answer["completion_probabilities"][:-1]], own, atol=1e-3)
    assert server.post("/completion", prompt=TEXT, n_predict=0, echo=True)["content"] == TEXT
    fields = server.post("/completion", prompt=TEXT, n_predict=1, n_probs=1, echo=True, response_fields=["tokens_evaluated"])
    assert fields == {"tokens_evaluated": len(ids)}
