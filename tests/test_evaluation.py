"""What an evaluation reports of a text is what the model says of it alone: however many are read together, whatever they share."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from binding_models import ONE, convert
from conftest import ROOT
from other_models import write_recurrent, write_transformer

from spikingbrain_cpp import Llama, ModelNotFoundError, beginnings, eval_command, scoring
from spikingbrain_cpp.evaluation import SpikingBrainLM, read_gen_kwargs

SHOTS = "Question: what reads text?\nAnswer: the model\n\nQuestion: what is a state?\nAnswer: numbers that the model keeps of what it has read\n\n"
CHOICES = (" yes", " no", " a state of fixed size", " numbers of a window", " yes")
PAIRS = [(SHOTS + f"Question: is {thing} kept?\nAnswer:", choice) for thing in ("a token", "every token of a long text", "the weight") for choice in CHOICES]
PAIRS += [("The answer is", " 4"), ("The answer is ", "5 or 6"), ("", "A text alone"), ("  ", "x"), ("<|im_start|>user\nhello", " there"), ("The answer is", " 4")]


def request(*args):
    return SimpleNamespace(args=args)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return convert(ROOT / "examples" / "small", tmp_path_factory.mktemp("small") / "small.gguf", "--outtype", "f32")


@pytest.fixture(scope="module")
def lm(model):
    lm = SpikingBrainLM(str(model), batch_size=4, max_length=256, **ONE)
    yield lm
    lm.close()


def rows_alone(llm):
    """A function of tokens read by themselves: log probabilities float64 [n - 1, n_vocab]."""
    def rows(tokens):
        llm.reset()
        llm.eval(tokens[:-1])
        s = llm.scores.astype(np.float64)
        return s - s.max(1, keepdims=True) - np.log(np.exp(s - s.max(1, keepdims=True)).sum(1, keepdims=True))

    rows.llm = llm
    return rows


@pytest.fixture(scope="module")
def alone(model):
    with Llama(model, logits_all=True, **ONE) as llm:
        yield rows_alone(llm)


def expected(alone, pairs):
    out = []
    for context, continuation in pairs:
        cut = len(context.rstrip())
        before = alone.llm.tokenize(context[:cut], special=True) or [alone.llm.token_eos()]
        more = (before if not cut else []) + alone.llm.tokenize(context + continuation, special=True)
        rows = alone(more)[len(before) - 1:]
        ids = np.array(more[len(before):])
        out.append((rows[np.arange(len(ids)), ids].sum(), bool((rows.argmax(1) == ids).all())))
    return out


@pytest.fixture(scope="module")
def wanted(alone):
    return expected(alone, PAIRS)


# --- log probabilities ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("n_parallel, rows, chunk", [(1, None, None), (4, None, None), (40, None, None), (3, 1, None), (2, None, 50)])
def test_a_continuation_has_the_log_probability_it_has_alone(model, wanted, n_parallel, rows, chunk, monkeypatch):
    if rows:  # as few rows of logits in a decode as there may be
        monkeypatch.setattr(scoring, "ROWS_BYTES", 1)
    if chunk:
        monkeypatch.setattr(scoring, "CHUNK", chunk)
    lm = SpikingBrainLM(str(model), batch_size=n_parallel, **ONE)
    got = lm.loglikelihood([request(*pair) for pair in PAIRS], disable_tqdm=True)
    lm.close()
    assert [g[1] for g in got] == [w[1] for w in wanted]
    assert np.allclose([g[0] for g in got], [w[0] for w in wanted], atol=1e-3)


def test_what_texts_begin_with_is_read_once(lm):
    before = lm.llm.n_evaluated
    lm.loglikelihood([request(*pair) for pair in PAIRS[:15]], disable_tqdm=True)
    shots, alone = len(lm.tok_encode(SHOTS)), [len(lm.tok_encode("".join(pair))) - 1 for pair in PAIRS[:15]]
    assert lm.llm.n_evaluated - before < shots + sum(n - shots for n in alone) < sum(alone) / 2


def test_the_likeliest_continuation_is_greedy(lm, alone):
    context = "The model "
    for _ in range(2):
        ids = lm.tok_encode(context.rstrip())
        best = int(alone([*ids, 0])[-1].argmax())
        continuation = lm.llm.detokenize([best]).decode()
        assert lm.loglikelihood([request(context.rstrip(), continuation)], disable_tqdm=True)[0][1] == (lm.tok_encode(context.rstrip() + continuation) == [*ids, best])
        context = context.rstrip() + continuation


def test_a_text_in_windows_is_the_sum_of_its_windows(lm, alone):
    """Each token once; the last window is as long as the others and scores what is left."""
    texts = ["", "short", (ROOT / "README.md").read_text()[:3000], "short"]
    got = lm.loglikelihood_rolling([request(text) for text in texts], disable_tqdm=True)
    ids = np.array([lm.prefix_token_id, *lm.tok_encode(texts[2])])
    total, size = 0.0, lm.max_length
    for begin in range(1, len(ids), size):
        end = min(begin + size, len(ids))
        window = ids[max(0, end - size - 1):end]
        total += alone(window)[np.arange(len(window) - 1), window[1:]][-(end - begin):].sum()
    assert len(ids) > 2 * size and got == [0.0, got[3], pytest.approx(total, rel=1e-5), pytest.approx(expected(alone, [("", "short")])[0][0], abs=1e-3)]


def test_a_text_that_is_too_long_loses_its_beginning(lm, alone, caplog):
    words = (ROOT / "README.md").read_text()[:2500].rstrip()
    got = lm.loglikelihood([request(words, " and so on")], disable_tqdm=True)
    ids = lm.tok_encode(words + " and so on")
    n = len(ids) - len(lm.tok_encode(words))
    window = np.array(ids[-lm.max_length - 1:])
    assert got[0][0] == pytest.approx(alone(window)[np.arange(len(window) - 1), window[1:]][-n:].sum(), abs=1e-3)
    assert "1 of 1 texts have more than max_length=256 tokens" in caplog.text


def test_each_result_is_stored_when_it_is_there(model):
    stored = []
    lm = SpikingBrainLM(str(model), **ONE)
    lm.cache_hook = SimpleNamespace(add_partial=lambda *what: stored.append(what))
    lm.loglikelihood([request("a", " b"), request("a", " c d")], disable_tqdm=True)
    lm.loglikelihood_rolling([request("a text")], disable_tqdm=True)
    lm.generate_until([request("a", {"max_gen_toks": 2})], disable_tqdm=True)
    lm.close()
    assert [(name, args) for name, args, _ in stored] == [("loglikelihood", ("a", " b")), ("loglikelihood", ("a", " c d")),
                                                          ("loglikelihood_rolling", ("a text",)), ("generate_until", ("a", {"max_gen_toks": 2}))]


def test_a_tree_of_beginnings_reads_each_target_after_its_own_tokens():
    rng = np.random.default_rng(1)
    for _ in range(60):
        stems = [rng.integers(0, 3, rng.integers(1, 60)) for _ in range(3)]
        items = []
        for _ in range(rng.integers(1, 30)):
            tokens = np.concatenate([*(stems[i] for i in rng.integers(0, 3, rng.integers(0, 5))), rng.integers(0, 3, rng.integers(2, 9))]).astype(np.int32)
            items.append(beginnings.Scored(tokens, int(rng.integers(1, tokens.size))))
        order = sorted(range(len(items)), key=lambda i: beginnings.order_key(items[i]))
        found = {i: {} for i in order}

        def walk(part, before, height=0):
            path = np.concatenate([before, part.tokens])
            assert part.start == before.size and height + part.height <= beginnings.MAX_HEIGHT
            assert not part.children or part.tokens.size >= beginnings.MIN_SHARED
            for at, target, number in part.targets:
                assert part.start <= at < part.end and np.array_equal(path[:at + 1], items[number].tokens[:at + 1])
                assert found[number].setdefault(at, target) == target == items[number].tokens[at + 1]
            for child in part.children:
                walk(child, path, height + 1)

        for part in beginnings.parts_of([(i, items[i]) for i in order]):
            walk(part, np.empty(0, np.int32))
        assert all(sorted(found[i]) == list(range(items[i].n_context - 1, items[i].tokens.size - 1)) for i in order)


def test_core_refuses_rows_and_targets_that_are_not_there(model):
    from spikingbrain_cpp import _core
    core = _core.Model(str(model))
    context = _core.Context(core, n_outputs_max=2)
    ids, pos, seq = np.array([1, 2, 3], np.int32), np.arange(3, dtype=np.int32), np.zeros(3, np.int32)
    for rows, targets, error in (([3], [1], "rows: got 3, expected 0 to 2"), ([-1], [1], "rows: got -1"), ([0, 1], [1], "rows: got 2, expected one for each of 1"),
                                 ([0], [10**6], "got 1000000"), ([0, 1, 2], [1, 1, 1], "outputs: got 3, expected at most n_outputs_max=2")):
        with pytest.raises((ValueError, IndexError), match=error):
            context.score(ids, pos, seq, np.array(rows, np.int32), np.array(targets, np.int32))
    logprobs, best = context.score(ids, pos, seq, np.array([2, 2, 0], np.int32), np.array([5, 6, 7], np.int32))
    assert logprobs.shape == (3,) and (logprobs < 0).all() and best[0] == best[1]
    context.close()


# --- answers --------------------------------------------------------------------------------------------------

def test_an_answer_is_the_one_of_a_completion(lm, model):
    asked = [("The model reads", {"until": ["\n"], "max_gen_toks": 12}), ("A", {"until": "e", "max_tokens": 20, "do_sample": False, "temperature": 0.0}),
             ("The state of the model is what", {"until": ["\n", ""], "max_gen_toks": 12})]
    got = lm.generate_until([request(*a) for a in asked], disable_tqdm=True)
    with Llama(model, **ONE) as llm:
        want = [llm(c, temperature=0, max_tokens=20 if "max_tokens" in a else 12, stop=[s for s in a["until"] if s])["choices"][0]["text"] for c, a in asked]
    assert got == want and any(got)


def test_answers_that_are_drawn_differ_and_can_be_drawn_again(lm):
    asked = [request("The model", {"do_sample": True, "temperature": 1.0, "max_gen_toks": 12})] * 3
    first, again = (lm.generate_until(asked, disable_tqdm=True) for _ in range(2))
    assert first == again and len(set(first)) > 1


def test_a_chat_ends_where_the_answer_begins(lm):
    chat = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "It is "}]
    assert lm.chat_template(True) == lm.llm.metadata["tokenizer.chat_template"] and lm.chat_template(False) is None
    assert lm.apply_chat_template(chat[:1]).endswith("2 + 2?<|im_end|>\n<|im_start|>assistant\n")
    assert lm.apply_chat_template(chat, add_generation_prompt=False).endswith("<|im_start|>assistant\nIt is")
    with pytest.raises(ValueError, match="without the template 'tools'"):
        lm.chat_template("tools")
    assert len(lm.tokenizer_name) == 64 and lm.get_model_info()["model_num_parameters"] > 10**6


@pytest.mark.parametrize("write", [write_transformer, write_recurrent])
def test_models_of_other_architectures_can_be_compared(write, model, tmp_path):
    other = write(tmp_path / "other.gguf", model, 4096)
    lm = SpikingBrainLM(str(other), batch_size=4, **ONE)
    got = lm.loglikelihood([request(*pair) for pair in PAIRS[:6]], disable_tqdm=True)
    answers = lm.generate_until([request(PAIRS[i][0], {"max_gen_toks": 4}) for i in (0, 5)], disable_tqdm=True)
    lm.close()
    with Llama(other, logits_all=True, n_ctx=512, **ONE) as llm:
        want = expected(rows_alone(llm), PAIRS[:6])
        assert answers == [llm(PAIRS[i][0], max_tokens=4, temperature=0)["choices"][0]["text"] for i in (0, 5)]
    assert np.allclose([g[0] for g in got], [w[0] for w in want], atol=1e-3)


# --- what is refused ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("given, error", [
    ({}, r"eval: model_args: pretrained: got '', expected the path of a GGUF file"),
    ({"pretrained": "x.gguf", "dtype": "float16"}, r"eval: model_args: dtype: got an argument that does not exist, expected one of .*spike_k"),
    ({"pretrained": "x.gguf", "n_ctx": 10}, r"eval: model_args: n_ctx: got .*max_length"),
    ({"pretrained": "x.gguf", "device": "cuda"}, r"eval: device: got 'cuda', expected cpu"),
    ({"pretrained": "x.gguf", "batch_size": 0}, r"eval: batch_size: got 0, expected 1 to 253"),
    ({"pretrained": "x.gguf", "batch_size": "big"}, r"eval: batch_size: got 'big', expected an integer or auto"),
])
def test_arguments_of_the_model_are_refused_by_name(given, error):
    with pytest.raises((ValueError, TypeError), match=error):
        SpikingBrainLM(**given)


def test_a_missing_file_and_sizes_are_refused(model):
    with pytest.raises(ModelNotFoundError):
        SpikingBrainLM("no.gguf")
    for more, error in (({"max_length": 1}, "max_length: got 1"), ({"prefix_token_id": 4096}, "prefix_token_id: got 4096, expected 0 to 4095"),
                        ({"spike_k": "big"}, "spike_k"), ({"batch_size": 1.5}, "batch_size: got float")):
        with pytest.raises((ValueError, TypeError), match=error):
            SpikingBrainLM(str(model), **more, **ONE)
    lm = SpikingBrainLM(str(model), batch_size="auto", max_batch_size=2, max_length=8, **ONE)
    assert lm.batch_size == 2
    with pytest.raises(ValueError, match="continuation of 0 tokens"):
        lm.loglikelihood([request("a", " b"), request("a", "")], disable_tqdm=True)
    with pytest.raises(ValueError, match="expected 1 to max_length=8"):
        lm.loglikelihood([request("a", " b c d e f g h i j k l m")], disable_tqdm=True)
    with pytest.raises(ValueError, match="max_gen_toks: got 8, expected less than max_length=8"):
        lm.generate_until([request("a", {"max_gen_toks": 8})], disable_tqdm=True)
    assert lm.llm.n_evaluated == 0
    lm.close()


@pytest.mark.parametrize("given, error", [
    ({"beams": 2}, "gen_kwargs: beams: got an argument that does not exist, expected one of do_sample"),
    ({"until": [3]}, "until: stop"),
    ({"max_gen_toks": 0}, "max_gen_toks: got 0"),
    ({"do_sample": True, "top_p": 2}, "top_p: got 2"),
])
def test_arguments_of_an_answer_are_refused_by_name(given, error):
    with pytest.raises((ValueError, TypeError), match=error):
        read_gen_kwargs(given, 16)


# --- sb-eval --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("given, passed", [
    (["--tasks", "a"], ["run", "--tasks", "a", "--model", "spikingbrain", "--batch_size", "auto", "--device", "cpu"]),
    (["run", "-M", "hf", "--batch_size=2", "--device=cuda"], ["run", "-M", "hf", "--batch_size=2", "--device=cuda"]),
    (["ls", "tasks"], ["ls", "tasks"]),
])
def test_the_command_fills_in_the_model(given, passed):
    assert eval_command.arguments(given) == passed


def test_without_the_package_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lm_eval.__main__", None)
    monkeypatch.setattr(sys, "argv", ["sb-eval", "--tasks", "a"])
    with pytest.raises(SystemExit, match=r"sb-eval: lm_eval: got .*; do pip install \"spikingbrain-cpp\[eval\]\""):
        eval_command.command()
    monkeypatch.setattr(sys, "argv", ["sb-eval", "--help"])
    eval_command.command()
    assert "sb-eval --model_args pretrained=model.gguf,spike_k=2.5 --tasks" in capsys.readouterr().out
