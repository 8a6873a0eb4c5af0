"""A model with experts and sinks in the server, the command line and `Llama`: what each offers beside plain decoding, tried once."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from binding_models import ONE, convert
from moe_checkpoints import write_moe
from running_server import BIN, Server

from spikingbrain_cpp import Llama

PROMPT = "the hello of the world, the hello of the "
N = 24

pytestmark = pytest.mark.skipif(not (BIN / "sb-server").exists(), reason="the package is not installed: run make build")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("moe-tools")


@pytest.fixture(scope="module", params=[("--outtype", "f32"), ("--outtype", "q8_0", "--spike")], ids=["float", "spikes"])
def model(request: pytest.FixtureRequest, folder: Path) -> Path:
    return convert(write_moe(folder / "checkpoint"), folder / f"{request.param[1]}.gguf", *request.param)


@pytest.fixture(scope="module")
def llm(model: Path) -> Iterator[Llama]:
    with Llama(model, **ONE) as one:
        yield one


@pytest.fixture(scope="module")
def ids(llm: Llama) -> list[int]:
    """The greedy answer, token by token; what the tests are answered is this one."""
    out: list[int] = []
    llm.reset()
    llm.eval(llm.tokenize(PROMPT.encode()))
    while len(out) < N:
        out.append(int(row(llm).argmax()))
        llm.eval(out[-1:])
    return out


def answer(llm: Llama) -> list[int]:
    n = len(llm.tokenize(PROMPT.encode()))
    llm(PROMPT, max_tokens=N, temperature=0)
    return [int(i) for i in llm.input_ids[n:n + N - 1]]  # the last one is not evaluated


def row(llm: Llama) -> np.ndarray:
    return np.array(llm.logits)


# --- Llama ----------------------------------------------------------------------------------------------------------


def test_a_chat_a_stream_and_an_edited_prompt(llm: Llama, ids: list[int]) -> None:
    """An edit of the tail takes tokens back; an answer to a shorter prompt, too."""
    whole = llm(PROMPT, max_tokens=N, temperature=0)["choices"][0]["text"]
    assert "".join(part["choices"][0]["text"] for part in llm(PROMPT, max_tokens=N, temperature=0, stream=True)) == whole
    llm(PROMPT + "ship", max_tokens=3, temperature=0)
    before = llm.n_evaluated
    assert answer(llm) == ids[:-1] and llm.n_evaluated - before < N + 8
    said = llm.create_chat_completion([{"role": "user", "content": "hello"}], max_tokens=4, temperature=0)
    assert said["usage"]["completion_tokens"] > 0


def test_a_saved_state_goes_on(llm: Llama, model: Path, folder: Path) -> None:
    tokens = llm.tokenize(PROMPT.encode())
    llm.reset()
    llm.eval(tokens)
    state, kept = llm.save_state(), row(llm)
    llm.snapshot(folder / "kept.snapshot")
    llm.eval([5])
    want = row(llm)
    with Llama(model, **ONE) as other:
        other.eval([7, 8, 9])
        for take in (lambda: other.load_state(state), lambda: other.restore(folder / "kept.snapshot")):
            take()
            assert np.array_equal(row(other), kept) and list(other.input_ids) == list(tokens)
            other.eval([5])
            assert np.allclose(row(other), want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_sequences_of_a_batch_are_each_as_if_alone(llm: Llama) -> None:
    texts = [llm.tokenize(t) for t in (b"the hello", b"of the world, and more of it", b"h")]
    want = []
    for tokens in texts:
        llm.reset()
        llm.eval(tokens)
        want.append(row(llm))
    with llm.batch(4) as batch:
        batch.eval(dict(enumerate(texts)))
        batch.fork(1, 3)
        batch.eval({1: [5]})
        batch.reset(1)
        batch.eval({1: texts[1]})
        got = [batch.logits(seq) for seq in range(4)]
    for a, b in zip([*want, want[1]], got):
        assert a.argmax() == b.argmax() and np.abs(a - b).max() < 2e-2 * np.abs(a).max()


def test_drafts_change_no_text(model: Path, llm: Llama, ids: list[int]) -> None:
    """Two right guesses and a wrong one, which is taken back."""
    n = len(llm.tokenize(PROMPT.encode()))

    def guess(held: np.ndarray, **_: object) -> np.ndarray:
        right = ids[len(held) - n:][:2]
        return np.array([*right, (ids[len(held) - n:] + [0, 0, 0])[2] ^ 1], np.intc)

    with Llama(model, draft_model=guess, **ONE) as drafted:
        assert answer(drafted)[:N - 1] == ids[:-1]
        counts = drafted.draft_counts
    assert 0 < counts["draft_n_accepted"] < counts["draft_n"]


# --- the tools ------------------------------------------------------------------------------------------------------


def test_the_server_answers_and_keeps_slots(model: Path, folder: Path, ids: list[int]) -> None:
    """Two slots; one saved, used otherwise and restored reads nothing again."""
    with Server(model, folder / f"{model.stem}.log", "-np", 2, "--slot-save-path", folder) as server:
        assert server.complete(PROMPT, N, id_slot=0, cache_prompt=True)["tokens"] == ids
        server.post("/slots/0?action=save", filename="kept")
        server.complete("another text", 5, id_slot=0, cache_prompt=True)
        server.post("/slots/0?action=restore", filename="kept")
        again = server.complete(PROMPT, N, id_slot=0, cache_prompt=True)
        assert again["tokens"] == ids and again["timings"]["prompt_n"] <= 1
        with ThreadPoolExecutor(2) as pool:
            both = list(pool.map(lambda slot: server.complete(PROMPT, N, id_slot=slot, cache_prompt=False)["tokens"], range(2)))
        assert both == [ids, ids]
        assert server.chat([{"role": "user", "content": "hello"}], 4)["usage"]["completion_tokens"] == 4


def test_the_server_drafts_with_a_model(model: Path, folder: Path, ids: list[int]) -> None:
    with Server(model, folder / f"{model.stem}-draft.log", "-np", 1, "-md", model, "--spec-draft-n-max", 4, "-td", 1) as server:
        got = server.complete(PROMPT, N)
    assert got["tokens"] == ids and got["timings"]["draft_n_accepted"] > 0


def test_the_command_line_writes_the_same(model: Path, llm: Llama, ids: list[int]) -> None:
    done = subprocess.run([str(x) for x in (BIN / "sb-completion", "-m", model, "-no-cnv", "-n", N, "--temp", 0, "-p", PROMPT, "--no-display-prompt", "-t", 1)],
                          capture_output=True, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == llm.detokenize(ids).strip()
