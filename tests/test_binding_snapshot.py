"""A snapshot has one size, goes on in another process without evaluating, is whole or absent, and is refused where it does not belong."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from binding_models import ONE, make_tiny, tiny, tokens_of  # noqa: F401

from spikingbrain_cpp import Llama, LlamaError, Snapshot


@pytest.fixture
def llm(tiny):  # noqa: F811
    with Llama(tiny, **ONE) as model:
        yield model


def greedy(llm: Llama, prompt, n: int) -> list[int]:
    return list(itertools.islice(llm.generate(prompt, temp=0), n))


OTHER_PROCESS = """
import hashlib, json, sys
from spikingbrain_cpp import Llama
with Llama(sys.argv[1], n_threads=1, n_threads_batch=1) as llm:
    llm.restore(sys.argv[2])
    n, row = llm.n_evaluated, hashlib.sha256(llm.logits.tobytes()).hexdigest()
    out = []
    for _ in range(20):
        out.append(llm.sample(temp=0))
        llm.eval([out[-1]])
    text = llm.detokenize(out, special=True).decode("utf-8", "replace")
    print(json.dumps([n, row, out, text, llm.n_tokens]))
"""


@pytest.mark.parametrize("n", [1, 7, 100, 5000])
def test_goes_on_in_another_process_and_evaluates_nothing(llm, tiny, tmp_path, n):  # noqa: F811
    llm.eval(tokens_of(n))
    llm.snapshot(tmp_path / "s.snap")
    row, out = llm.logits, []
    for _ in range(20):
        out.append(llm.sample(temp=0))
        llm.eval([out[-1]])
    done = subprocess.run([sys.executable, "-c", OTHER_PROCESS, tiny, tmp_path / "s.snap"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [0, hashlib.sha256(row.tobytes()).hexdigest(), out,
                                       llm.detokenize(out, special=True).decode("utf-8", "replace"), n + 20]


def test_one_size_whatever_the_length(llm, tmp_path):
    sizes = set()
    for n in (8, 9, 1023, 1024, 3000, 20_000):
        llm.eval(tokens_of(n - llm.n_tokens))
        llm.snapshot(tmp_path / "s.snap")
        sizes.add((tmp_path / "s.snap").stat().st_size)
    assert len(sizes) == 1
    llm.restore(tmp_path / "s.snap")
    assert len(pickle.dumps(llm.snapshot())) - sizes.pop() < 200


@pytest.mark.parametrize("n", [20, 1024, 2500])
def test_a_chat_that_grows_after_restoring_evaluates_its_new_tokens(llm, tiny, n):  # noqa: F811
    prompt = tokens_of(n)
    llm.eval(prompt)
    made = llm.snapshot()
    longer = np.concatenate([prompt, tokens_of(5, seed=9)])
    want = greedy(llm, longer, 4)
    with Llama(tiny, **ONE) as other:
        other.restore(made)
        assert greedy(other, longer, 4) == want and other.n_evaluated == 5 + 3
        other.restore(made)
        assert greedy(other, prompt, 1) == [int(made.logits.argmax())] and other.n_evaluated == 8
        again = other.snapshot()  # of a session that knows its beginning by the hash alone
        assert again.prefix == made.prefix and np.array_equal(again.tail, made.tail) and again.data == made.data
        other.eval(tokens_of(1500, seed=3))
        third = other.snapshot()
        other.reset()
        other.restore(third)
        whole = np.concatenate([prompt, tokens_of(1500, seed=3)])
        before = other.n_evaluated
        greedy(other, np.append(whole, 3), 1)
        assert other.n_evaluated == before + 1


@pytest.mark.parametrize("at", [0, 500, 1100, 2400])
def test_a_prompt_that_differs_anywhere_is_read_anew(llm, tiny, at):  # noqa: F811
    prompt = tokens_of(2500)
    llm.eval(prompt)
    made, changed = llm.snapshot(), prompt.copy()
    changed[at] = (changed[at] + 1) % 260
    llm.reset()
    llm.restore(made)
    before = llm.n_evaluated
    got = greedy(llm, changed, 3)
    assert llm.n_evaluated - before == 2500 + 2
    assert np.array_equal(llm.input_ids[:2500], changed)
    with Llama(tiny, **ONE) as fresh:
        assert got == greedy(fresh, changed, 3)


def test_tokens_before_the_tail_are_unknown_and_said_so(llm):
    llm.eval(tokens_of(2500))
    llm.restore(llm.snapshot())
    ids = llm.input_ids
    assert ids.size == 2500 and (ids[:1024] == -1).all() and np.array_equal(ids[1024:], tokens_of(2500)[1024:])
    state = llm.save_state()
    llm.reset()
    llm.load_state(pickle.loads(pickle.dumps(state)))
    assert np.array_equal(llm.input_ids, ids)


def test_penalties_see_the_tokens_before_the_snapshot(llm):
    prompt = tokens_of(3000)
    llm.eval(prompt)
    want = llm.sample(temp=0, frequency_penalty=1e6)
    llm.restore(llm.snapshot())
    assert llm.sample(temp=0, frequency_penalty=1e6) == want != llm.logits.argmax() or want not in prompt[-64:]


def test_in_memory_bytes_and_file_are_one(llm, tmp_path):
    llm.eval(tokens_of(50))
    made = llm.snapshot(tmp_path / "a.snap")
    assert (tmp_path / "a.snap").read_bytes() == made.to_bytes() == Snapshot.load(str(tmp_path / "a.snap")).to_bytes()
    row = llm.logits
    for source in (made, made.to_bytes(), tmp_path / "a.snap", str(tmp_path / "a.snap")):
        llm.reset()
        llm.restore(source)
        assert llm.n_tokens == 50 and np.array_equal(llm.logits, row)
    llm.reset()
    made = llm.snapshot()
    llm.eval([1])
    llm.restore(made.to_bytes())
    assert llm.n_tokens == 0


def test_damaged_or_cut_files_are_refused_and_change_nothing(llm, tmp_path):
    llm.eval(tokens_of(50))
    blob, rng = llm.snapshot().to_bytes(), np.random.default_rng(0)
    path = tmp_path / "bad.snap"
    bad = [blob[:n] for n in (0, 7, 8, 40, *rng.integers(0, len(blob), 20))] + [blob + b"x"]
    for at in (0, 9, 14, 100, *rng.integers(0, len(blob), 20)):
        flipped = bytearray(blob)
        flipped[at] ^= 0x41
        bad.append(bytes(flipped))
    for one in bad:
        path.write_bytes(one)
        with pytest.raises(ValueError, match="snapshot: "):
            llm.restore(path)
    other_version = bytearray(blob)
    other_version[8] = 7
    with pytest.raises(ValueError, match="version: got 7, expected 3"):
        llm.restore(bytes(other_version))
    assert np.array_equal(llm.input_ids, tokens_of(50))
    llm.eval([1])


@pytest.mark.parametrize("field", [{"n_tokens": 10**9}, {"n_tail": 5000}, {"n_tokens": None}, {"n_logits": -1}, {"n_data": 10**15},
                                   {"fingerprint": None}, {"fingerprint": "0" * 63}, {"tokenizer": 3}, {"prefix": "z" * 64}])
def test_a_header_that_lies_under_a_right_checksum_is_refused(llm, field):
    llm.eval(tokens_of(50))
    blob = llm.snapshot().to_bytes()
    n = int.from_bytes(blob[12:16], "little")
    header = json.dumps({**json.loads(blob[16:16 + n]), **field}).encode().ljust(n)
    forged = blob[:16] + header + blob[16 + n:-32]
    with pytest.raises((ValueError, LlamaError)):
        llm.restore(forged + hashlib.sha256(forged).digest())
    llm.reset()
    llm.eval([1])


def test_another_model_or_tokenizer_is_refused_with_the_reason(llm, tiny, tmp_path):  # noqa: F811
    llm.eval(tokens_of(10))
    made = llm.snapshot()
    with Llama(make_tiny(tmp_path, seed=1), **ONE) as other, pytest.raises(ValueError, match="restore: model: got a state of"):
        other.restore(made)
    raw = bytearray(tiny.read_bytes())
    at = raw.index(b"hello")  # a token's text
    raw[at:at + 5] = b"hallo"
    (tmp_path / "other.gguf").write_bytes(raw)
    with Llama(tmp_path / "other.gguf", **ONE) as other:
        forged = dataclasses.replace(made, fingerprint=other.snapshot().fingerprint)
        with pytest.raises(ValueError, match="restore: tokenizer: got"):
            other.restore(forged)
    with Llama(tiny, n_ctx=9, **ONE) as other, pytest.raises(ValueError, match="n_ctx=9"):
        other.restore(made)
    with pytest.raises(ValueError, match="begins with"):
        llm.restore(tiny)
    with pytest.raises(FileNotFoundError):
        llm.restore(tmp_path / "none.snap")
    for wrong in (None, 3, llm.save_state(), [1]):
        with pytest.raises(TypeError, match="expected a Snapshot"):
            llm.restore(wrong)


FULL = """
import resource, signal, sys
from spikingbrain_cpp import Llama
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with Llama(sys.argv[1], n_threads=1, n_threads_batch=1) as llm:
    llm.eval([1, 2, 3])
    llm.snapshot(sys.argv[2])
    llm.eval([4])
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    try:
        llm.snapshot(sys.argv[2])
    except OSError as error:
        print("refused", error.errno)
"""


def test_no_room_leaves_the_old_file_and_nothing_beside_it(llm, tiny, tmp_path):  # noqa: F811
    done = subprocess.run([sys.executable, "-c", FULL, tiny, tmp_path / "s.snap"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("refused")
    assert [p.name for p in tmp_path.iterdir()] == ["s.snap"]
    llm.restore(tmp_path / "s.snap")
    assert llm.n_tokens == 3
    with pytest.raises(OSError):
        llm.snapshot(tmp_path / "no folder" / "s.snap")


def test_all_rows_kept_become_nan_but_the_last(tiny):  # noqa: F811
    with Llama(tiny, logits_all=True, **ONE) as llm:
        llm.eval(tokens_of(12))
        row, made = llm.scores[-1].copy(), llm.snapshot()
        llm.reset()
        llm.restore(made)
        assert np.isnan(llm.scores[:11]).all() and np.array_equal(llm.scores[11], row)


def test_the_hash_is_of_what_was_read_last(llm, tiny):  # noqa: F811
    llm.eval(tokens_of(2500))
    first = llm.snapshot()
    llm.reset()
    llm.eval(tokens_of(2500, seed=1))
    second = llm.snapshot()
    with Llama(tiny, **ONE) as fresh:
        fresh.eval(tokens_of(2500, seed=1))
        assert fresh.snapshot().prefix == second.prefix != first.prefix
