"""A cancel takes effect inside a micro-batch, from anywhere, and leaves an exact session; an event loop stays alive meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time

import numpy as np
import pytest
from binding_models import ONE, make_tiny, tiny, tokens_of  # noqa: F401
from other_models import write_recurrent, write_transformer

from spikingbrain_cpp import Cancelled, CancelToken, Llama, LlamaError

N_LONG = 300_000


@pytest.fixture
def llm(tiny):  # noqa: F811
    with Llama(tiny, **ONE) as model:
        yield model


def cancelled_eval(llm: Llama, tokens: np.ndarray, after: float = 0.1) -> int:
    """Tokens that a cancelled evaluation left."""
    timer = threading.Timer(after, llm.cancel)
    timer.start()
    with pytest.raises(Cancelled, match="got a cancel"):
        llm.eval(tokens)
    timer.join()
    return llm.n_tokens


def is_exact(llm: Llama, path, tokens: np.ndarray, **options) -> None:
    """The session goes on as one that was never cancelled."""
    n = llm.n_tokens
    assert np.array_equal(llm.input_ids, tokens[:n])
    llm.eval(tokens[n:n + 10])
    with Llama(path, **ONE, **options) as fresh:
        fresh.eval(tokens[:n + 10])
        assert np.abs(fresh.logits - llm.logits).max() < 1e-4


def test_prompt_processing_stops_and_the_session_is_exact(llm, tiny):  # noqa: F811
    tokens = tokens_of(N_LONG)
    n = cancelled_eval(llm, tokens)
    assert 0 < n < N_LONG and n % 512 == 0
    is_exact(llm, tiny, tokens)


def test_stops_inside_one_micro_batch(tmp_path):
    path = make_tiny(tmp_path, hidden_size=256, intermediate_size=1024, num_hidden_layers=12)
    with Llama(path, n_batch=8192, n_ubatch=8192, **ONE) as llm:
        tokens = tokens_of(8192 * 2)
        llm.eval(tokens[:100])
        began = time.perf_counter()
        llm.eval(tokens[100:4000])
        whole = (time.perf_counter() - began) * 8192 / 3900  # of one micro-batch, about
        llm.reset()
        llm.eval(tokens[:100])
        began = time.perf_counter()
        n = cancelled_eval(llm, tokens[100:100 + 8192], after=whole / 10)
        assert time.perf_counter() - began < whole * 0.8
        assert n == 100  # the micro-batch under way was undone
        is_exact(llm, path, tokens)


@pytest.mark.parametrize("write", [write_transformer, write_recurrent])
def test_other_architectures_stop_at_a_micro_batch(tiny, tmp_path, write):  # noqa: F811
    path = write(tmp_path / "other.gguf", tiny)
    with Llama(path, n_ctx=20_000, n_ubatch=16, **ONE) as llm:
        tokens = tokens_of(19_000)
        n = cancelled_eval(llm, tokens)
        assert n < 19_000
        is_exact(llm, path, tokens, n_ctx=20_000, n_ubatch=16)


def test_a_token_cancels_its_own_call_only(llm):
    token = CancelToken()
    token.cancel()
    assert token.cancelled
    with pytest.raises(Cancelled):
        llm.eval(tokens_of(5), cancel=token)
    assert llm.n_tokens == 0
    llm.eval(tokens_of(5))
    with pytest.raises(Cancelled):
        next(llm.generate(tokens_of(9), cancel=token))
    assert len(list(itertools.islice(llm.generate(tokens_of(9), temp=0), 3))) == 3


def test_a_stream_ends_at_its_next_token(llm):
    stream = llm.generate(tokens_of(9), temp=0)
    next(stream)
    llm.cancel()
    with pytest.raises(Cancelled):
        next(stream)
    llm.cancel()  # nothing under way
    llm.eval([1])


def test_cancelling_what_is_closed_or_idle_is_harmless(tiny):  # noqa: F811
    llm = Llama(tiny, **ONE)
    llm.cancel()
    llm.close()
    llm.cancel()
    with pytest.raises(LlamaError, match="closed"):
        llm.eval([1])


def test_progress_is_told_after_every_micro_batch(tiny):  # noqa: F811
    with Llama(tiny, n_ubatch=16, **ONE) as llm:
        seen = []
        llm.eval(tokens_of(40), progress=lambda done, total: seen.append((done, total)))
        assert seen == [(16, 40), (32, 40), (40, 40)]
        seen.clear()
        tokens = llm.generate(tokens_of(60), temp=0, progress=lambda done, total: seen.append((done, total)))
        next(tokens), next(tokens)
        assert seen == [(16, 20), (20, 20)]  # what was read before is not counted; nor are generated tokens

        def fails(done, total):
            raise KeyError("mine")
        with pytest.raises(KeyError):
            llm.eval(tokens_of(40), progress=fails)
        llm.eval([1])


# --- asyncio ----------------------------------------------------------------------------------------------------------


async def ticks_during(work) -> tuple[int, object]:
    """How often another task of the loop ran while `work` did, and what it returned."""
    count = 0

    async def tick():
        nonlocal count
        while True:
            count += 1
            await asyncio.sleep(0.001)
    ticker = asyncio.create_task(tick())
    result = await work
    ticker.cancel()
    return count, result


def test_the_event_loop_goes_on_while_tokens_are_computed(tiny):  # noqa: F811
    with Llama(tiny, **ONE) as llm:
        async def first():
            async for token in llm.agenerate(tokens_of(30_000), temp=0):
                return token
        count, token = asyncio.run(ticks_during(first()))
        assert count > 20
        llm.reset()
        assert token == next(llm.generate(tokens_of(30_000), temp=0))


def test_asynchronous_answers_are_the_synchronous_ones(llm):
    prompt, options = tokens_of(30).tolist(), {"max_tokens": 12, "temperature": 0}

    async def both():
        whole = await llm.acreate_completion(prompt, **options)
        stream = await llm.acreate_completion(prompt, stream=True, **options)
        return whole, "".join([chunk["choices"][0]["text"] async for chunk in stream])
    whole, text = asyncio.run(both())
    want = llm.create_completion(prompt, **options)
    assert whole["choices"] == want["choices"] and whole["usage"] == want["usage"] and text == want["choices"][0]["text"]


def test_cancelling_the_task_cancels_the_computation(llm, tiny):  # noqa: F811
    tokens = tokens_of(N_LONG)

    async def main():
        task = asyncio.create_task(llm.acreate_completion(tokens, max_tokens=5))
        while llm.n_evaluated == 0:
            await asyncio.sleep(0.01)
        task.cancel()
        began = time.perf_counter()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.perf_counter() - began
    assert asyncio.run(main()) < 5
    assert 0 < llm.n_tokens < N_LONG
    is_exact(llm, tiny, tokens)


def test_leaving_an_asynchronous_loop_stops_its_thread(llm):
    async def main():
        iterator = llm.agenerate(tokens_of(20), temp=0)
        async for _ in iterator:
            break
        await iterator.aclose()
    before = threading.active_count()
    asyncio.run(main())
    assert threading.active_count() == before
    llm.eval([1])


def test_errors_reach_the_awaiting_task(llm):
    with pytest.raises(ValueError, match="temp"):
        asyncio.run(llm.acreate_completion("a", temperature=float("nan")))
    with pytest.raises(ValueError, match="tokens"):
        asyncio.run(llm.acreate_completion([10**6]))


def test_two_tasks_of_one_model_wait_for_one_another(llm, tiny):  # noqa: F811
    prompts = [tokens_of(20, seed=s).tolist() for s in range(3)]
    options = {"max_tokens": 6, "temperature": 0}

    async def main():
        return await asyncio.gather(*(llm.acreate_completion(p, **options) for p in prompts))
    got = [answer["choices"][0]["text"] for answer in asyncio.run(main())]
    with Llama(tiny, **ONE) as fresh:
        assert got == [fresh.create_completion(p, **options)["choices"][0]["text"] for p in prompts]


def test_chats_are_asynchronous_too(llm):
    messages, options = [{"role": "user", "content": "hello"}], {"max_tokens": 6, "temperature": 0}

    async def both():
        whole = await llm.acreate_chat_completion(messages, **options)
        stream = await llm.acreate_chat_completion(messages, stream=True, **options)
        return whole, "".join([chunk["choices"][0]["delta"].get("content") or "" async for chunk in stream])
    whole, text = asyncio.run(both())
    assert whole["choices"][0]["message"]["content"] == text == llm.create_chat_completion(messages, **options)["choices"][0]["message"]["content"]


def test_cancelling_a_chat_cancels_its_computation(llm):
    messages = [{"role": "user", "content": "hello the " * 60_000}]

    async def main():
        task = asyncio.create_task(llm.acreate_chat_completion(messages, max_tokens=5))
        while llm.n_evaluated == 0:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    asyncio.run(main())
    assert llm.n_tokens < 100_000
    llm.reset()
    llm.eval([1])
