"""Every call says so of a closed or forked model; a session has no length at which it stops; no memory is an exception."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from binding_models import ONE, tiny, tokens_of  # noqa: F401

from spikingbrain_cpp import Llama, LlamaError, LlamaRAMCache

N_LONG = int(os.environ.get("SPIKINGBRAIN_LONG_TOKENS", "6000"))

CALLS = {
    "snapshot": lambda m: m.snapshot(), "restore": lambda m: m.restore(m.made), "load_state": lambda m: m.load_state(m.state),
    "embed": lambda m: m.embed("a"), "create_embedding": lambda m: m.create_embedding("a"), "batch": lambda m: m.batch(1),
    "generate_many": lambda m: m.generate_many(["a"]), "pooling_type": lambda m: m.pooling_type(),
    "cached completion": lambda m: m.create_completion("a"), "acreate": lambda m: asyncio.run(m.acreate_completion("a")),
    "batch of before": lambda m: m.before.eval({0: [1]}),
}


@pytest.fixture
def model(tiny):  # noqa: F811
    llm = Llama(tiny, embedding=True, **ONE)
    llm.set_cache(LlamaRAMCache())
    llm.eval(tokens_of(9))
    llm.made, llm.state, llm.before = llm.snapshot(), llm.save_state(), llm.batch(1)
    llm.embed("a")
    yield llm
    llm.close()


@pytest.mark.parametrize("call", CALLS)
def test_use_after_close(model, call):
    model.close()
    with pytest.raises(LlamaError, match="closed"):
        CALLS[call](model)


@pytest.mark.parametrize("call", CALLS)
def test_use_in_a_forked_child(model, call):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            CALLS[call](model)
        except LlamaError as error:
            code = 0 if "after os.fork" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    CALLS[call](model)


def test_shared_by_threads_that_do_different_things(model, tiny):  # noqa: F811
    wrong: list[object] = []
    with Llama(tiny, **ONE) as fresh:
        want = fresh.create_completion([1, 2, 3], temperature=0, max_tokens=5)["choices"][0]["text"]
        vector = np.array(model.embed("hello"))

    def work(i: int) -> None:
        for _ in range(8):
            if i == 0 and model.create_completion([1, 2, 3], temperature=0, max_tokens=5)["choices"][0]["text"] != want:
                wrong.append("text")
            if i == 1 and not np.array_equal(model.embed("hello"), vector):
                wrong.append("vector")
            if i == 2 and model.generate_many([[1, 2, 3]], temperature=0, max_tokens=5)[0]["text"] != want:
                wrong.append("many")
            if i == 3:
                model.restore(model.made)
    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert wrong == []


def resident() -> float:
    """MiB."""
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) / 1024


def test_a_session_goes_on_at_one_size(tiny, capsys):  # noqa: F811
    """SPIKINGBRAIN_LONG_TOKENS=100000 pytest -s makes it long, and prints the time of each tenth."""
    with Llama(tiny, **ONE) as llm:
        tokens, state = llm.generate([1, 2, 3], temp=0.8, seed=1), llm.state_bytes()
        used = []
        for _ in range(10):
            began = time.perf_counter()
            assert len(list(itertools.islice(tokens, N_LONG // 10))) == N_LONG // 10
            gc.collect()
            used.append(resident())
            with capsys.disabled() if N_LONG >= 100_000 else contextlib.nullcontext():
                if N_LONG >= 100_000:
                    print(f"{llm.n_tokens} tokens: {(time.perf_counter() - began) / N_LONG * 1e7:.1f} us each, {used[-1]:.1f} MiB")
        assert llm.n_tokens == 3 + N_LONG // 10 * 10 - 1 and llm.state_bytes() == state
        assert used[-1] - used[1] < 2 + N_LONG * 8 / 2**20  # the tokens themselves


STARVED = """
import resource, sys
from spikingbrain_cpp import Llama, LlamaError
llm = Llama(sys.argv[1], n_threads=1, n_threads_batch=1)
llm.eval([1, 2, 3])
row = llm.logits
now = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (now + (64 << 20), now + (64 << 20)))
def refused(call):
    try:
        call()
    except (LlamaError, MemoryError) as error:
        print("refused", type(error).__name__)
refused(lambda: Llama(sys.argv[1], n_threads=1, n_threads_batch=1, n_ubatch=1000000, n_batch=1000000))
refused(lambda: llm.eval([1] * 60_000_000))
llm.eval([4])
print("alive", llm.n_tokens)
"""


def test_no_memory_is_an_exception_and_the_session_goes_on(tiny):  # noqa: F811
    done = subprocess.run([sys.executable, "-c", STARVED, tiny], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-800:]
    assert done.stdout.count("refused") == 2 and done.stdout.endswith("alive 4\n"), done.stdout
