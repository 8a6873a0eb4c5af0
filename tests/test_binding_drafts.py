"""Tails are taken back: an edit reads what is new. Drafts: what is generated is the same, in fewer decodes where they are right."""

from __future__ import annotations

import itertools
import json
import threading

import numpy as np
import pytest
from binding_models import ONE, convert, logits_of, make_tiny, tiny, tokens_of  # noqa: F401
from conftest import ROOT
from other_models import write_recurrent, write_transformer

from spikingbrain_cpp import Cancelled, Llama, LlamaDraftModel, LlamaError, LlamaGrammar, LlamaPromptLookupDecoding, LlamaRAMCache, _core, memory_estimate

NEVER = {t: -1e9 for t in (262, 263, 264)}  # end-of-generation tokens
PROMPT = tokens_of(60).tolist()
REPEATS = "".join(f"def area_{i}(width, height):\n    return width * height\n\n" for i in range(6))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The trained example, in float: rounding is the same in decodes of one token and of several."""
    return convert(ROOT / "examples" / "small", tmp_path_factory.mktemp("small") / "small.gguf", "--outtype", "f32")


# --- tails --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llm(tiny):  # noqa: F811
    with Llama(tiny, n_rs_seq=16, **ONE) as model:
        yield model


def greedy(llm: Llama, prompt, n: int = 4, **options) -> list[int]:
    return list(itertools.islice(llm.generate(prompt, temp=0, logit_bias=NEVER, **options), n))


def read_by(llm: Llama, call) -> int:
    before = llm.n_evaluated
    call()
    return llm.n_evaluated - before


@pytest.mark.parametrize("back", [1, 2, 7, 16])
def test_an_edit_of_the_tail_reads_what_is_new(llm, tiny, back):  # noqa: F811
    llm.reset()
    llm.eval(PROMPT)
    edited = PROMPT[:-back] + [7, 8, 9]
    assert read_by(llm, lambda: next(llm.generate(edited, temp=0))) == 3
    assert llm.input_ids.tolist() == edited
    assert np.abs(llm.logits - logits_of(tiny, np.array(edited, np.int32))[-1]).max() < 1e-5


def test_an_edit_further_back_reads_all_of_it_again(llm):
    llm.reset()
    llm.eval(PROMPT)
    edited = PROMPT[:-17] + [7, 8, 9]
    assert read_by(llm, lambda: next(llm.generate(edited))) == len(edited)


def test_an_answer_is_made_again_by_reading_one_token(llm):
    llm.reset()
    first = greedy(llm, PROMPT, 10)
    assert read_by(llm, lambda: greedy(llm, PROMPT, 10)) == 1 + 9  # the last token's logits are needed again
    assert greedy(llm, PROMPT, 10) == first
    shorter = PROMPT[:-3]
    assert read_by(llm, lambda: next(llm.generate(shorter))) == 1


def test_a_chat_whose_last_message_is_edited_reads_what_is_new(tiny):  # noqa: F811
    with Llama(tiny, n_rs_seq=64, **ONE) as model:
        def ask(text: str) -> str:
            chat = [{"role": "user", "content": "hello the " * 30}, {"role": "assistant", "content": "hello"}, {"role": "user", "content": text}]
            return model.create_chat_completion(chat, temperature=0, max_tokens=5)["choices"][0]["message"]["content"]
        ask("he")
        n = model.n_tokens
        assert read_by(model, lambda: ask("the hello")) < 40 < n
        got = ask("the hello")
        model.reset()
        assert got == ask("the hello")


def test_a_prompt_takes_the_cache_or_the_tail_whichever_reads_less(tiny):  # noqa: F811
    with Llama(tiny, n_rs_seq=16, **ONE) as model:
        model.set_cache(LlamaRAMCache())
        greedy(model, PROMPT[:30], 1)
        greedy(model, PROMPT, 4)
        assert read_by(model, lambda: greedy(model, PROMPT[:55] + [1, 2], 1)) == 2      # the tail
        assert read_by(model, lambda: greedy(model, PROMPT[:31] + [1, 2], 1)) == 3      # a state of 30 tokens
        assert read_by(model, lambda: greedy(model, PROMPT, 1)) == 0                     # the whole prompt's


def test_a_restored_session_goes_on_and_is_edited_where_it_can_be(llm, tiny):  # noqa: F811
    llm.reset()
    llm.eval(PROMPT)
    made = llm.snapshot()
    llm.restore(made)
    assert read_by(llm, lambda: next(llm.generate(PROMPT + [1, 2], temp=0))) == 2
    assert read_by(llm, lambda: next(llm.generate(PROMPT + [1, 3], temp=0))) == 1       # read here, and taken back
    assert read_by(llm, lambda: next(llm.generate(PROMPT[:-1] + [5], temp=0))) == 60    # read elsewhere
    assert np.abs(llm.logits - logits_of(tiny, np.array(PROMPT[:-1] + [5], np.int32))[-1]).max() < 1e-5


@pytest.mark.parametrize("n", [1, 3, 5, 12])
def test_several_answers_to_a_prompt_read_it_once(llm, n):
    prompts = [PROMPT, PROMPT[:20] + [1, 2, 3], PROMPT[:20] + [5]]
    options = {"temperature": 1.5, "seed": 3, "max_tokens": 3, "logit_bias": NEVER}
    for n_parallel in (1, 2, 5, 8, 40):
        n_read = read_by(llm, lambda: llm.generate_many(prompts, n=n, n_parallel=n_parallel, **options))
        assert n_read == 20 + 40 + 3 + 1 + 3 * n * 2
    many = llm.generate_many(prompts, n=n, n_parallel=5, **options)
    alone = [llm.generate_many([p], **{**options, "seed": 3 + i * n + j})[0]["tokens"] for i, p in enumerate(prompts) for j in range(n)]
    assert [m["tokens"] for m in many] == alone and [m["index"] for m in many] == [i for i in range(3) for _ in range(n)]


def test_what_can_be_taken_back_is_a_matter_of_memory(tiny):  # noqa: F811
    sizes = [memory_estimate(tiny, n_rs_seq=n).state for n in (1, 17, 33)]
    assert sizes[2] - sizes[1] == sizes[1] - sizes[0] > 0
    for n, size in zip((1, 17), sizes):
        with Llama(tiny, n_rs_seq=n, **ONE) as model:
            assert model.state_bytes() == size
    assert memory_estimate(tiny).state == memory_estimate(tiny, n_rs_seq=32).state == memory_estimate(tiny, n_rs_seq=0).state


@pytest.mark.parametrize("value, error", [(-1, ValueError), (65537, ValueError), (1.5, TypeError), ("8", TypeError), (True, TypeError)])
def test_a_wrong_count_is_refused_by_name(tiny, value, error):  # noqa: F811
    with pytest.raises(error, match="llama: n_rs_seq: got"):
        Llama(tiny, n_rs_seq=value)
    with pytest.raises(error, match="memory_estimate: n_rs_seq: got"):
        memory_estimate(tiny, n_rs_seq=value)


# --- drafts: the same, whatever is guessed ----------------------------------------------------------------------------


class Told(LlamaDraftModel):
    """Guesses what it was told, or what a function makes of it."""

    def __init__(self, tokens, change=lambda at, guess: guess):
        self.tokens, self.change, self.asked = np.array(tokens, np.intc), change, []

    def __call__(self, input_ids, /, **kwargs):
        self.asked.append(input_ids.size)
        return self.change(input_ids.size, self.tokens[input_ids.size:])


def third_wrong(at: int, guess: np.ndarray) -> np.ndarray:
    return np.where(np.arange(at, at + guess.size) % 3 == 0, 5, guess).astype(np.intc)


GUESSES = {
    "all right": lambda at, guess: guess, "all wrong": lambda at, guess: (guess + 1) % 260, "a third wrong": third_wrong,
    "none": lambda at, guess: guess[:0], "one": lambda at, guess: guess[:1], "int64": lambda at, guess: guess.astype(np.int64),
}
# what is asked for: arguments of create_completion
ASKS = {
    "greedy": {"temperature": 0}, "sampled": {"temperature": 1.2, "seed": 7}, "mirostat": {"temperature": 1.0, "seed": 3, "mirostat_mode": 2},
    "penalties": {"temperature": 0, "repeat_penalty": 1.4, "frequency_penalty": 0.5}, "logprobs": {"temperature": 0.7, "seed": 1, "logprobs": 3},
    "grammar": {"temperature": 0, "grammar": LlamaGrammar.from_string('root ::= ("ab" | "ba")+')}, "processor": {
        "temperature": 0, "logits_processor": lambda ids, row: np.where(np.arange(row.size) % 2 == ids.size % 2, row, -1e9).astype(np.float32)},
    "criterion": {"temperature": 0, "stopping_criteria": lambda ids, row: ids.size >= 79},
}


@pytest.mark.parametrize("ask", ASKS)
def test_what_is_generated_is_the_same(tiny, ask):  # noqa: F811
    options = {"max_tokens": 30, "logit_bias": NEVER, **ASKS[ask]}
    with Llama(tiny, **ONE) as model:
        want = model.create_completion(PROMPT, **options)
        ids, row = model.input_ids, model.logits
    for name, change in GUESSES.items():
        draft = Told(told_of(ids), change)
        with Llama(tiny, draft_model=draft, **ONE) as drafted:
            got = drafted.create_completion(PROMPT, **options)
            assert like(got, want), name
            assert np.array_equal(drafted.input_ids, ids) and np.abs(drafted.logits - row).max() < 1e-4, name
            chunks = list(drafted.create_completion(PROMPT, stream=True, **options))
            assert "".join(c["choices"][0]["text"] for c in chunks) == want["choices"][0]["text"], name
            n = drafted.draft_counts
            assert 0 <= n["draft_n_accepted"] <= n["draft_n"]
            if name == "all right":
                assert n["draft_n_accepted"] == n["draft_n"] or ask == "criterion"
                assert n["draft_n_accepted"] > 10
            if name == "all wrong":
                assert n == {"draft_n": 0, "draft_n_accepted": 0}  # it is tried before it is computed


def like(got: dict, want: dict) -> bool:
    """The same answer; its logprobs but for rounding."""
    (one,), (other,) = ([dict(c) for c in answer["choices"]] for answer in (got, want))
    mine, theirs = one.pop("logprobs"), other.pop("logprobs")
    return one == other and (mine is theirs is None or mine["tokens"] == theirs["tokens"] and [list(t) for t in mine["top_logprobs"]] == [
        list(t) for t in theirs["top_logprobs"]] and np.allclose(mine["token_logprobs"], theirs["token_logprobs"], atol=1e-4))


def told_of(ids: np.ndarray) -> list[int]:
    return ids.tolist() + [0] * 9


def test_a_right_draft_saves_decodes_and_says_so(tiny, monkeypatch):  # noqa: F811
    with Llama(tiny, **ONE) as model:
        model.create_completion(PROMPT, max_tokens=40, temperature=0, logit_bias=NEVER)
        told = model.input_ids.tolist()
    calls, was = [], _core.Context.decode
    monkeypatch.setattr(_core.Context, "decode", lambda *args: (calls.append(args[1].size), was(*args))[1])
    with Llama(tiny, draft_model=Told(told), **ONE) as drafted:
        usage = drafted.create_completion(PROMPT, max_tokens=40, temperature=0, logit_bias=NEVER)["usage"]
    details = usage.pop("completion_tokens_details")
    assert usage == {"prompt_tokens": 60, "completion_tokens": 40, "total_tokens": 100}
    assert details["rejected_prediction_tokens"] == 0 and details["accepted_prediction_tokens"] == 39 - (len(calls) - 1)
    assert len(calls) < 8 and max(calls[1:]) <= 33 and sum(calls) == 60 + 39  # no token that nobody asked for


def test_between_two_tokens_nothing_tells_of_a_draft(tiny):  # noqa: F811
    with Llama(tiny, logits_all=True, **ONE) as model:
        stream = model.generate(PROMPT, temp=0, logit_bias=NEVER)
        want = [(next(stream), model.n_tokens, model.input_ids.tolist(), model.logits, model.scores.copy()) for _ in range(20)]
    with Llama(tiny, logits_all=True, draft_model=Told(want[-1][2] + [1] * 9), **ONE) as drafted:
        stream = drafted.generate(PROMPT, temp=0, logit_bias=NEVER)
        for token, n, ids, row, rows in want:
            assert next(stream) == token and drafted.n_tokens == n and drafted.input_ids.tolist() == ids
            assert np.abs(drafted.logits - row).max() < 1e-4 and np.abs(drafted.scores - rows).max() < 1e-4
        assert drafted.draft_counts["draft_n_accepted"] > 5


INTERRUPTIONS = {
    "eval": lambda m: m.eval([1, 2]), "snapshot": lambda m: m.restore(m.snapshot()), "state": lambda m: m.load_state(m.save_state()),
    "another prompt": lambda m: next(m.generate(PROMPT[:5])), "an edit": lambda m: next(m.generate(m.input_ids[:-2].tolist() + [3])), "reset": lambda m: m.reset(),
}


@pytest.mark.parametrize("call", INTERRUPTIONS)
@pytest.mark.parametrize("after", [2, 3, 5])
def test_what_was_read_ahead_is_no_part_of_the_sequence(tiny, call, after):  # noqa: F811
    with Llama(tiny, **ONE) as model:
        told = PROMPT + greedy(model, PROMPT, 30)
    with Llama(tiny, draft_model=Told(told), **ONE) as drafted:
        stream = drafted.generate(PROMPT, temp=0, logit_bias=NEVER)
        list(itertools.islice(stream, after))
        INTERRUPTIONS[call](drafted)
        drafted.eval([4])
        assert np.abs(drafted.logits - logits_of(tiny, drafted.input_ids)[-1]).max() < 1e-4
        with pytest.raises(LlamaError, match="another call changed"):
            next(stream)


def test_more_tokens_can_be_sent_between(tiny):  # noqa: F811
    def play(model: Llama) -> tuple[list[int], list[int]]:
        stream = model.generate(PROMPT, temp=0, logit_bias=NEVER)
        out = [next(stream), next(stream), stream.send([7, 8]), next(stream), stream.send([9]), next(stream)]
        return out, model.input_ids.tolist()
    with Llama(tiny, **ONE) as model:
        want = play(model)
    with Llama(tiny, draft_model=Told(want[1] + want[0][-1:]), **ONE) as drafted:
        assert play(drafted) == want


@pytest.mark.parametrize("options", [{"n_ctx": 80}, {"n_rs_seq": 1}, {"n_rs_seq": 3}, {"n_ubatch": 2}, {"n_batch": 1}, {"n_ubatch": 1}, {"logits_all": True}])
def test_drafts_keep_to_what_there_is_room_for(tiny, monkeypatch, options):  # noqa: F811
    with Llama(tiny, **ONE) as model:
        told = PROMPT + greedy(model, PROMPT, 40)
    sizes, was = [], _core.Context.decode
    with Llama(tiny, draft_model=Told(told), **{**ONE, **options}) as drafted:
        stream = drafted.generate(PROMPT, temp=0, logit_bias=NEVER)
        next(stream)
        monkeypatch.setattr(_core.Context, "decode", lambda *args: (sizes.append(args[1].size), was(*args))[1])
        got = told[60:61] + list(itertools.islice(stream, 30))
        most = min(options.get("n_rs_seq", 32) + 1, options.get("n_ubatch", 512), options.get("n_batch", 512))
        assert got == told[60:80 if "n_ctx" in options else 91] and max(sizes) <= most and (most == 1 or max(sizes) > 1)


def test_where_nothing_is_right_little_is_tried(tiny):  # noqa: F811
    with Llama(tiny, draft_model=Told([5] * 400), **ONE) as drafted:
        before = drafted.n_evaluated
        greedy(drafted, PROMPT, 128, logits_processor=lambda ids, row: np.where(np.arange(row.size) == 6, 1, 0).astype(np.float32))
        wasted = drafted.n_evaluated - before - 60 - 127
    assert wasted == drafted.draft_counts["draft_n"] == 0
    asked = drafted.draft_model.asked
    assert len(asked) < 14 and max(np.diff(asked)) <= 18  # less and less is tried


def test_a_cancel_reaches_a_draft(tiny):  # noqa: F811
    with Llama(tiny, **ONE) as model:
        told = PROMPT + greedy(model, PROMPT, 20)
    with Llama(tiny, draft_model=Told(told), **ONE) as drafted:
        drafted.draft_model.change = lambda at, guess: (drafted.cancel(), guess)[1]
        stream = drafted.generate(PROMPT, temp=0, logit_bias=NEVER)
        next(stream)
        with pytest.raises(Cancelled):
            next(stream)
        assert drafted.input_ids.tolist() == PROMPT
        drafted.draft_model.change = lambda at, guess: guess
        assert greedy(drafted, PROMPT, 20) == told[60:]


@pytest.mark.parametrize("n", [1, 3])
def test_an_interrupt_behind_a_decode_leaves_what_is_known(tiny, monkeypatch, n):  # noqa: F811
    with Llama(tiny, **ONE) as model:
        told = PROMPT + greedy(model, PROMPT, 20)

    def interrupted(*args):
        was(*args)
        raise KeyboardInterrupt
    was = _core.Context.decode
    with Llama(tiny, draft_model=Told(told), **ONE) as drafted:
        stream = drafted.generate(PROMPT, temp=0, logit_bias=NEVER)
        list(itertools.islice(stream, n))
        with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
            m.setattr(_core.Context, "decode", interrupted)
            list(itertools.islice(stream, 9))
        held = drafted.n_tokens
        assert drafted.input_ids.tolist() == told[:held] and held > 60
        with pytest.raises(LlamaError, match="got none for the last"):
            drafted.logits
        drafted.eval([4])
        assert np.abs(drafted.logits - logits_of(tiny, drafted.input_ids)[-1]).max() < 1e-4
        assert greedy(drafted, PROMPT, 20) == told[60:]


@pytest.mark.parametrize("guess, error", [
    ([1.5, 2.0], TypeError), ([[1, 2]], TypeError), ([-1], ValueError), ([1, 288], ValueError), ("ab", TypeError), (None, TypeError)])
def test_a_draft_that_is_none_is_refused_by_name(tiny, guess, error):  # noqa: F811
    with Llama(tiny, draft_model=lambda ids: guess, **ONE) as drafted:
        with pytest.raises(error, match="draft_model: got"):
            greedy(drafted, PROMPT, 5)
        assert drafted.input_ids.tolist() == PROMPT
        with pytest.raises(AttributeError):
            drafted.draft_model = None  # what it was loaded with: there is room for its logits


@pytest.mark.parametrize("call", [lambda m: m.eval([1]), lambda m: m.reset(), lambda m: m.close(), lambda m: next(m.generate([1]))])
def test_a_draft_may_not_change_what_it_drafts_for(tiny, call):  # noqa: F811
    with Llama(tiny, draft_model=lambda ids: call(drafted) or ids, **ONE) as drafted:
        with pytest.raises(LlamaError, match="got a call from inside generate"):
            greedy(drafted, PROMPT, 5)


# --- prompt lookup ------------------------------------------------------------------------------------------------------


def test_a_text_that_repeats_itself_is_looked_up(small):
    with Llama(small, **ONE) as model:
        want = model(REPEATS, max_tokens=80, temperature=0)["choices"]
    with Llama(small, draft_model=LlamaPromptLookupDecoding(num_pred_tokens=8, max_ngram_size=3), **ONE) as drafted:
        got = drafted(REPEATS, max_tokens=80, temperature=0)
        assert got["choices"] == want and drafted.draft_counts["draft_n_accepted"] >= 15
        details = got["usage"]["completion_tokens_details"]
        assert details["accepted_prediction_tokens"] == drafted.draft_counts["draft_n_accepted"]
        chat = [{"role": "user", "content": "hello"}]
        assert "completion_tokens_details" in drafted.create_chat_completion(chat, max_tokens=4)["usage"]


@pytest.mark.parametrize("ids, size, n, want", [
    ([1, 2, 3, 1, 2, 3, 1, 2, 3], 3, 2, [1, 2]), (range(1, 10), 3, 2, []), ([1, 2, 9, 1, 2], 2, 10, [9, 1, 2]), ([5, 2, 7, 1, 2], 2, 1, [7]),
    ([4, 4], 2, 3, [4]), ([4], 2, 3, []), ([], 2, 3, []), ([1, 2, 8, 3, 2, 9, 3, 2], 2, 1, [9]), ([1, 2, 8, 3, 2, 9, 3, 2], 1, 1, [8])])
def test_the_first_place_of_the_longest_ending_counts(ids, size, n, want):
    found = LlamaPromptLookupDecoding(max_ngram_size=size, num_pred_tokens=n)(np.array(list(ids), np.intc))
    assert found.tolist() == want


@pytest.mark.parametrize("name", ["max_ngram_size", "num_pred_tokens"])
@pytest.mark.parametrize("value, error", [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_its_arguments_are_checked(name, value, error):
    with pytest.raises(error, match=f"draft_model: {name}: got"):
        LlamaPromptLookupDecoding(**{name: value})


# --- a second model ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [{}, {"seed": 1}, {"num_hidden_layers": 1, "attn_layers": [0]}])
@pytest.mark.parametrize("options", [{"temp": 0}, {"temp": 1.1, "seed": 4}])
def test_a_second_model_drafts(tiny, tmp_path, other, options):  # noqa: F811
    with Llama(tiny, **ONE) as model:
        want = list(itertools.islice(model.generate(PROMPT, logit_bias=NEVER, **options), 40))
    path = make_tiny(tmp_path, **other) if other else tiny
    with Llama(path, n_rs_seq=5, **ONE) as draft, Llama(tiny, draft_model=draft, **ONE) as drafted:
        for _ in range(2):
            assert list(itertools.islice(drafted.generate(PROMPT, logit_bias=NEVER, **options), 40)) == want
        counts = drafted.draft_counts
        if not other and options["temp"] == 0:  # the same model is always right
            assert counts["draft_n_accepted"] > 30
        assert draft.n_evaluated < 400  # it takes back what was wrong, too


def test_another_vocabulary_is_refused_by_name(tiny, small):  # noqa: F811
    with Llama(small, **ONE) as draft:
        with pytest.raises(ValueError, match="llama: draft_model: got .* tokens, expected one of the same vocabulary"):
            Llama(tiny, draft_model=draft, **ONE)
    with Llama(tiny, vocab_only=True) as draft, pytest.raises(LlamaError, match="vocab_only"):
        Llama(tiny, draft_model=draft, **ONE)
    with pytest.raises(LlamaError, match="vocab_only"):
        Llama(tiny, draft_model=LlamaPromptLookupDecoding(), vocab_only=True)


def test_a_draft_model_that_is_closed_or_used_elsewhere(tiny):  # noqa: F811
    draft = Llama(tiny, **ONE)
    with Llama(tiny, draft_model=draft, **ONE) as drafted:
        want = greedy(drafted, PROMPT, 20)
        stop = threading.Event()

        def use():
            while not stop.is_set():
                draft.create_completion([1, 2, 3], max_tokens=3)
        thread = threading.Thread(target=use)
        thread.start()
        try:
            assert greedy(drafted, PROMPT, 20) == want
        finally:
            stop.set()
            thread.join()
        draft.close()
        with pytest.raises(LlamaError, match="closed"):
            greedy(drafted, PROMPT[:5], 5)


# --- other architectures ------------------------------------------------------------------------------------------------


def test_other_memories_draft_as_far_as_they_take_back(tiny, tmp_path):  # noqa: F811
    transformer = write_transformer(tmp_path / "llama.gguf", tiny)
    with Llama(transformer, n_ctx=256, **ONE) as model:
        want = greedy(model, PROMPT, 30)
    with Llama(transformer, n_ctx=256, draft_model=Told(PROMPT + want), **ONE) as drafted:
        assert greedy(drafted, PROMPT, 30) == want and drafted.draft_counts["draft_n_accepted"] > 5
    recurrent = write_recurrent(tmp_path / "mamba.gguf", tiny)
    with pytest.raises(ValueError, match="llama: draft_model: .* takes back no tokens"):
        Llama(recurrent, draft_model=Told([]), **ONE)


def test_openais_types_hold_the_counts(small):
    usage = pytest.importorskip("openai.types.completion_usage").CompletionUsage
    with Llama(small, draft_model=LlamaPromptLookupDecoding(), **ONE) as drafted:
        got = usage(**drafted(REPEATS, max_tokens=20, temperature=0)["usage"])
        assert got.completion_tokens_details.accepted_prediction_tokens == drafted.draft_counts["draft_n_accepted"]
        json.dumps(drafted.draft_counts)
