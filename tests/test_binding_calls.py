"""No call of a Llama reaches into another: what would change a sequence under a running call is refused by name, and a cancel reaches all."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import threading
import time

import numpy as np
import pytest
from binding_models import ONE, logits_of, tiny, tokens_of  # noqa: F401

from spikingbrain_cpp import BaseLlamaCache, Cancelled, CancelToken, Llama, LlamaError, LlamaRAMCache, _core

PROMPT = tokens_of(9).tolist()
NEVER = {t: -1e9 for t in (262, 263, 264)}  # end-of-generation tokens
LONG = 60_000


@pytest.fixture(scope="module")
def llm(tiny):  # noqa: F811
    with Llama(tiny, embedding=True, logits_all=True, **ONE) as model:
        yield model


def goes_on(llm: Llama, path) -> None:
    """The session is a sequence of tokens as any other: its next logits are those of the tokens that it says it holds."""
    llm.eval([5, 6])
    assert np.abs(llm.logits - logits_of(path, llm.input_ids)[-1]).max() < 1e-4


# --- a callback that calls the same Llama -----------------------------------------------------------------------------


class Asking(BaseLlamaCache):
    """A user's own cache, whose methods call something."""

    def __init__(self, call, when: str):
        super().__init__()
        self.call, self.when, self.depth = call, when, 0

    def longest(self, key, fingerprint, tokenizer):
        if self.when == "longest":
            self.depth += 1  # what is called asks it, too
            self.call()
            self.depth -= 1
        raise KeyError

    def __setitem__(self, key, value):
        if self.when == "set":
            self.call()


def with_cache(llm: Llama, call, when: str) -> None:
    llm.set_cache(Asking(call, when))
    try:
        next(llm.generate(PROMPT))
    finally:
        llm.set_cache(None)


# callback: a call of the Llama that runs it
CALLBACKS = {
    "logits_processor": lambda m, f: next(m.generate(PROMPT, logits_processor=lambda ids, row: f() or row)),
    "logits_processor of a completion": lambda m, f: m.create_completion(PROMPT, max_tokens=3, logits_processor=lambda ids, row: f() or row),
    "logits_processor of a chat": lambda m, f: m.create_chat_completion([{"role": "user", "content": "a"}], max_tokens=2, logits_processor=lambda ids, row: f() or row),
    "logits_processor of sample": lambda m, f: (m.reset(), m.eval(PROMPT), m.sample(logits_processor=lambda ids, row: f() or row)),
    "stopping_criteria": lambda m, f: next(m.generate(PROMPT, stopping_criteria=lambda ids, row: f())),
    "progress of eval": lambda m, f: (m.reset(), m.eval(tokens_of(600), progress=lambda done, total: f())),
    "progress of generate": lambda m, f: (m.reset(), next(m.generate(PROMPT, progress=lambda done, total: f()))),
    "a cache that is given": lambda m, f: with_cache(m, f, "set"),
}
CHANGES = {
    "eval": lambda m: m.eval([1]), "reset": lambda m: m.reset(), "restore": lambda m: m.restore(m.made), "load_state": lambda m: m.load_state(m.state),
    "generate": lambda m: next(m.generate([1, 2])), "create_completion": lambda m: m.create_completion([1, 2], max_tokens=1),
    "stream": lambda m: list(m.create_completion([1, 2], max_tokens=1, stream=True)), "close": lambda m: m.close(),
    "chat": lambda m: m.create_chat_completion([{"role": "user", "content": "b"}], max_tokens=1), "goes on": lambda m: next(m.other),
}
READS = {
    "tokenize": lambda m: m.tokenize("hello"), "detokenize": lambda m: m.detokenize(m.input_ids), "n_tokens": lambda m: m.n_tokens,
    "snapshot": lambda m: m.snapshot(), "save_state": lambda m: m.save_state(), "embed": lambda m: m.embed("hello"),
    "generate_many": lambda m: m.generate_many([[1, 2]], max_tokens=2), "batch": lambda m: eval_beside(m), "state_bytes": lambda m: m.state_bytes(),
    "default_max_tokens": lambda m: m.default_max_tokens(4), "set_seed": lambda m: m.set_seed(3), "token_eos": lambda m: m.token_eos(),
}


def eval_beside(llm: Llama) -> None:
    with llm.batch(1) as batch:
        batch.eval({0: [1, 2]})


@pytest.mark.parametrize("callback", CALLBACKS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_callback_may_not_change_what_is_being_read(llm, tiny, callback, change):  # noqa: F811
    llm.reset()
    llm.eval([3, 4])
    llm.made, llm.state, llm.other = llm.snapshot(), llm.save_state(), llm.generate([3, 4, 5])
    with pytest.raises(LlamaError, match="got a call from inside"):
        CALLBACKS[callback](llm, lambda: CHANGES[change](llm))
    goes_on(llm, tiny)


@pytest.mark.parametrize("callback", CALLBACKS)
def test_a_callback_may_ask_and_compute_beside(llm, tiny, callback):  # noqa: F811
    for ask in READS.values():
        CALLBACKS[callback](llm, lambda: ask(llm) and None)
    goes_on(llm, tiny)


@pytest.mark.parametrize("change", ["eval", "reset", "restore", "load_state", "generate", "create_completion", "goes on"])
def test_a_cache_that_is_asked_may_change_the_sequence(llm, change):
    want = next(llm.generate(PROMPT, temp=0))
    llm.reset()
    llm.eval([3, 4])
    llm.made, llm.state, llm.other = llm.snapshot(), llm.save_state(), llm.generate([3, 4, 5])
    llm.set_cache(Asking(lambda: CHANGES[change](llm) if llm.cache.depth == 1 else None, "longest"))
    try:
        assert next(llm.generate(PROMPT, temp=0)) == want
    finally:
        llm.set_cache(None)


def test_a_signals_handler_may_not_change_what_is_being_read(llm, tiny):  # noqa: F811
    def handler(*_):
        llm.reset()
    llm.reset()
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(LlamaError, match="got a call from inside eval"):
            llm.eval(tokens_of(LONG)[:8000], progress=lambda done, total: time.sleep(0.01))
    finally:
        signal.signal(signal.SIGALRM, before)
    llm.reset()
    goes_on(llm, tiny)


def test_an_interrupt_between_two_lines_leaves_no_call_under_way(tiny, monkeypatch):  # noqa: F811
    from spikingbrain_cpp.sequence import _Changing

    def interrupted(self, *_):
        raise KeyboardInterrupt
    with Llama(tiny, **ONE) as model:
        with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
            m.setattr(_Changing, "__exit__", interrupted)
            model.eval([3, 4])
        goes_on(model, tiny)


# --- between two tokens of a stream ------------------------------------------------------------------------------------


def cancelled_shorter(llm: Llama) -> None:
    """A generation that makes the sequence another, and then is cancelled before it reads a token."""
    token = CancelToken()
    with pytest.raises(Cancelled):
        next(llm.generate([7] * 600, progress=lambda done, total: token.cancel(), cancel=token))


@pytest.mark.parametrize("change", ["eval", "reset", "restore", "load_state", "create_completion", "chat", "cancelled"])
def test_a_stream_whose_sequence_was_changed_says_so(llm, change):
    llm.reset()
    llm.eval([3, 4])
    llm.made, llm.state = llm.snapshot(), llm.save_state()
    stream = llm.generate(PROMPT, temp=0, logit_bias=NEVER)
    next(stream)
    (cancelled_shorter if change == "cancelled" else CHANGES[change])(llm)
    with pytest.raises(LlamaError, match="another call changed"):
        next(stream)


def test_a_stream_goes_on_beside_calls_that_leave_its_sequence(llm):
    want = list(itertools.islice(llm.generate(PROMPT, temp=0, logit_bias=NEVER), 4 * len(READS)))
    stream = llm.generate(PROMPT, temp=0, logit_bias=NEVER)
    got = []
    for ask in READS.values():
        got += list(itertools.islice(stream, 4))
        ask(llm)
    assert got == want


# --- cancel -----------------------------------------------------------------------------------------------------------

WORK = {
    "generate_many": lambda m: m.generate_many([PROMPT, [1, 2]], max_tokens=8000, logit_bias=NEVER),
    "generate_many, its prompts": lambda m: m.generate_many([tokens_of(LONG, seed=s).tolist() for s in (1, 2)], max_tokens=1),
    "embed": lambda m: m.embed([tokens_of(LONG).tolist()]), "embed, many": lambda m: m.embed([PROMPT] * 8000),
    "create_embedding": lambda m: m.create_embedding(["hello the " * LONG]),
    "completion": lambda m: m.create_completion(PROMPT, max_tokens=20_000, logit_bias=NEVER), "batch": lambda m: read_beside(m),
    "chat": lambda m: m.create_chat_completion([{"role": "user", "content": "a"}], max_tokens=20_000, logit_bias=NEVER),
}


def read_beside(llm: Llama) -> None:
    with llm.batch(2) as batch:
        batch.eval({0: tokens_of(LONG), 1: tokens_of(LONG)})


@contextlib.contextmanager
def cancelling(llm: Llama):
    """Cancels again and again: whenever the call has begun."""
    over = threading.Event()

    def run():
        while not over.wait(0.03):
            llm.cancel()
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.fixture(scope="module")
def plain(tiny):  # noqa: F811
    with Llama(tiny, embedding=True, **ONE) as model:
        yield model


@pytest.mark.parametrize("work", WORK)
def test_a_cancel_reaches_whatever_is_computed(plain, tiny, work):  # noqa: F811
    with cancelling(plain), pytest.raises(Cancelled, match="got a cancel"):
        WORK[work](plain)
    plain.cancel()  # nothing under way
    plain.reset()
    goes_on(plain, tiny)
    assert len(plain.generate_many([PROMPT], max_tokens=2, logit_bias=NEVER)[0]["tokens"]) == 2 and plain.embed("a")


def test_a_token_given_to_two_calls_cancels_both(plain):
    token = CancelToken()
    stream = plain.generate(PROMPT, temp=0, logit_bias=NEVER, cancel=token)
    next(stream)
    with plain.batch(1) as batch:
        batch.eval({0: [1]})
    list(itertools.islice(plain.generate(PROMPT, temp=0, logit_bias=NEVER, cancel=token), 2))  # over, and forgotten
    stream = plain.generate(PROMPT, temp=0, logit_bias=NEVER, cancel=token)
    next(stream)
    plain.cancel()
    assert token.cancelled
    with pytest.raises(Cancelled):
        next(stream)


def test_a_cancelled_task_ends_what_it_computes(plain):
    async def main(work) -> float:
        from spikingbrain_cpp.asynchronous import iterate

        async def compute():
            async for answer in iterate(lambda: iter([work(plain)])):
                return answer
        task = asyncio.create_task(compute())
        await asyncio.sleep(0.05)
        task.cancel()
        began = time.perf_counter()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.perf_counter() - began
    for name in ("generate_many", "embed"):
        assert asyncio.run(main(WORK[name])) < 3


# --- closing what is used ----------------------------------------------------------------------------------------------


def in_thread(work) -> tuple[threading.Thread, list[BaseException]]:
    errors: list[BaseException] = []

    def run():
        try:
            work()
        except BaseException as error:
            errors.append(error)
    thread = threading.Thread(target=run)
    thread.start()
    return thread, errors


def test_a_batch_closed_during_its_eval_is_closed_after_it(tiny):  # noqa: F811
    with Llama(tiny, **ONE) as model:
        batch = model.batch(2)
        thread, errors = in_thread(lambda: batch.eval({0: tokens_of(LONG)}))
        while model.n_evaluated == 0:
            time.sleep(0.001)
        batch.close()
        thread.join()
        assert errors == [] and model.n_evaluated == LONG
        with pytest.raises(LlamaError, match="closed"):
            batch.eval({0: [1]})
        batch.close()


@pytest.mark.parametrize("work", [*WORK, "eval", "stream"])
def test_a_model_closed_while_it_computes_ends_that_call(tiny, work):  # noqa: F811
    model = Llama(tiny, embedding=True, **ONE)
    calls = {**WORK, "eval": lambda m: m.eval(tokens_of(LONG)), "stream": lambda m: list(itertools.islice(m.generate(PROMPT), 5000))}
    began = threading.Event()
    thread, errors = in_thread(lambda: (began.set(), calls[work](model)))
    began.wait()
    time.sleep(0.03)
    if work in ("stream", "generate_many", "generate_many, its prompts", "embed, many"):
        model.close()
    else:  # a whole call at a time
        closer, none = in_thread(model.close)
        with cancelling(model):
            closer.join()
        assert none == []
    thread.join(30)
    assert not thread.is_alive()
    assert all(isinstance(error, LlamaError) for error in errors), errors
    with pytest.raises(LlamaError, match="closed"):
        model.eval([1])


def test_what_outlives_its_llama_works_on(tiny):  # noqa: F811
    batch, stream = Llama(tiny, **ONE).batch(1), Llama(tiny, **ONE).generate(PROMPT, temp=0)
    batch.eval({0: PROMPT})
    assert next(stream) == int(np.argmax(batch.logits(0)))
    batch.close()


def test_a_handle_is_not_closed_under_a_call_that_uses_it(tiny):  # noqa: F811
    model = _core.Model(str(tiny))
    thread, errors = in_thread(lambda: model.tokenize(b"hello the " * 60_000, False, False))
    refused = 0
    while thread.is_alive() and not model.closed:
        try:
            model.close()
        except RuntimeError as error:
            assert "second caller" in str(error)
            refused += 1
    thread.join()
    assert refused or errors  # it was closed before the call began
    model.close()
    with pytest.raises(RuntimeError, match="closed"):
        model.tokenize(b"a", False, False)


# --- rows of logits ---------------------------------------------------------------------------------------------------


def one_context(path) -> _core.Context:
    ctx = _core.Context(_core.Model(str(path)), n_seq_max=2, n_outputs_max=2)
    ctx.decode(tokens_of(3, seed=1), 0, 1)
    ctx.decode(tokens_of(5), 0, 0)
    return ctx


FORGETS = {
    "clear": lambda c: c.clear(), "seq_rm": lambda c: c.seq_rm(0), "seq_keep": lambda c: c.seq_keep(1), "seq_cp": lambda c: (c.seq_rm(0), c.seq_cp(1, 0)),
    "state_set": lambda c: c.state_set(c.state_get(1), 0), "decode_batch": lambda c: c.decode_batch(
        tokens_of(1), np.array([3], np.int32), np.array([1], np.int32), np.array([1], np.int8))}


@pytest.mark.parametrize("change", FORGETS)
def test_no_row_outlives_its_token(tiny, change):  # noqa: F811
    ctx = one_context(tiny)
    assert np.isfinite(ctx.logits()).all()
    FORGETS[change](ctx)
    assert ctx.logits_pos() == -1 and np.isnan(ctx.logits()).all()


def test_scores_of_what_was_cleared_are_not_those_of_what_came(llm, tiny):  # noqa: F811
    llm.reset()
    llm.eval(tokens_of(40))
    state = llm.save_state()
    llm.reset()
    assert llm.scores.shape == (0, 288)
    with pytest.raises(LlamaError, match="got none"):
        llm.logits
    llm.eval(tokens_of(50, seed=1))
    llm.load_state(state)
    assert np.isnan(llm.scores[:39]).all() and np.array_equal(llm.scores[39], llm.logits)
    with Llama(tiny, logits_all=True, **ONE) as other:
        cache = LlamaRAMCache()
        cache[state.tokens.tolist()] = state
        other.eval(tokens_of(50, seed=1))
        other.set_cache(cache)
        next(other.generate(tokens_of(40).tolist() + [1]))
        assert np.isnan(other.scores[:39]).all() and not np.isnan(other.scores[39:]).any()
