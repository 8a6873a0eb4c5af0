"""Training the example: the same run again, in one piece or two; a tokenizer that converts; a baseline that is a distribution."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
tokenizers = pytest.importorskip("tokenizers")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))

import corpus  # noqa: E402
import train  # noqa: E402
from ngram import KneserNey  # noqa: E402
from sb_convert.config import Config  # noqa: E402
from sb_convert.errors import ConvertError  # noqa: E402
from sb_convert.reference import Model, Spike, spiked  # noqa: E402

TINY = Config(hidden_size=32, num_hidden_layers=2, intermediate_size=32, vocab_size=64, num_attention_heads=4, num_key_value_heads=2,
              attn_layers=(1,), sliding_window=8, rope_theta=1e4, norm_eps=1e-6, tie_word_embeddings=True, bos_token_id=61, eos_token_id=61)
RECIPE = train.Recipe(steps=20, batch=4, length=32, warmup=3, spike_from=0.7)
TEXTS = ["".join(f"line {i * j % 97}: the value of item_{j} is {j ** i}\n" for j in range(40)) + "naïve café\n" for i in range(60)]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def plain_rounding(monkeypatch):
    """Training replaces these for good; other tests want the definition."""
    for name in ("spiked", "rounded_int8"):
        monkeypatch.setattr(train.reference, name, getattr(train.reference, name))


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    """A cycle with noise: something that a model can learn."""
    rng = np.random.default_rng(0)
    return np.where(rng.random(3000) < 0.1, rng.integers(60, size=3000), np.arange(3000) * 7 % 60).astype(np.uint16)


def run(tokens, folder: Path, *, recipe: train.Recipe = RECIPE, **options) -> tuple[dict, list[dict]]:
    folder.mkdir(exist_ok=True)
    t = train.Trainer(TINY, recipe)
    train.train(t, tokens, tokens[:200], folder, eval_every=5, bar=False, **options)
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    return {n: p.clone() for n, p in t.model.state_dict().items()}, [{k: v for k, v in r.items() if k != "seconds"} for r in rows]


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def documents() -> list[corpus.Document]:
    return [corpus.Document("made", f"{i}.txt", text) for i, text in enumerate(TEXTS)]


# --- training -------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def straight(tokens, tmp_path_factory):
    return run(tokens, tmp_path_factory.mktemp("straight"))


def test_same_seed_same_weights(tokens, straight, tmp_path):
    assert same(run(tokens, tmp_path)[0], straight[0])
    assert not same(run(tokens, tmp_path / "b", recipe=dataclasses.replace(RECIPE, seed=2))[0], straight[0])


@pytest.mark.parametrize("stop_at", [10, 17])
def test_interrupted_run_ends_the_same(tokens, straight, tmp_path, stop_at):
    run(tokens, tmp_path, stop_at=stop_at)
    weights, rows = run(tokens, tmp_path)
    assert same(weights, straight[0])
    assert rows == straight[1] or stop_at == 17  # which adds a row of its own


def test_a_spent_budget_saves_and_goes_on(tokens, straight, tmp_path):
    run(tokens, tmp_path, until=1e-9)  # one step, then over time
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 1
    assert same(run(tokens, tmp_path)[0], straight[0])


@pytest.mark.parametrize("spike_from", [0.0, 1.0])
def test_threads_share_the_rows(tokens, spike_from):
    """As many gradients as rows, whoever computes them: three threads for two micro-batches too."""
    weights = []
    for threads in (1, 2, 3):
        t = train.Trainer(TINY, dataclasses.replace(RECIPE, threads=threads, spike_from=spike_from))
        weights.append((t.train_step(tokens), t.model.model.layers[0].attn.q_proj.weight.detach().clone()))
    for loss, w in weights[1:]:
        assert loss == pytest.approx(weights[0][0], rel=1e-5) and torch.allclose(w, weights[0][1], atol=1e-4)


def test_every_second_micro_batch_spikes(tokens):
    def q_gradient(threads: int, **options) -> torch.Tensor:
        t = train.Trainer(TINY, dataclasses.replace(RECIPE, threads=threads, **options))
        if t.spikes:
            train.with_gradients()
        t.backward(t.model, list(enumerate(train.batch_at(tokens, 0, t.r).split(2))), 4)
        return t.model.model.layers[0].attn.q_proj.weight.grad
    mixed, plain = q_gradient(1, spike_from=0.0), q_gradient(1, spike_from=1.0)
    assert not torch.allclose(mixed, plain, rtol=1e-3)


def test_other_options_do_not_go_on(tokens, tmp_path):
    run(tokens, tmp_path, stop_at=2)
    with pytest.raises(ConvertError, match="recipe: got"):
        run(tokens, tmp_path, recipe=dataclasses.replace(RECIPE, lr=1.0))


@pytest.mark.parametrize(("options", "words"), [
    (("--steps", "0"), "--steps: value: got 0"), (("--steps", "1", "--threads", "0"), "--threads: value: got 0"), (("--steps", "1", "--eval-every", "0"), "--eval-every: value: got 0"),
    (("--minutes", "nan"), "--minutes: value: got nan"), (("--steps", "1", "--eval-tokens", "512"), "--eval-tokens: value: got 512, expected 513 to")])
def test_a_value_that_no_run_can_have_is_refused(tmp_path, options, words):
    with pytest.raises(SystemExit, match=words):
        train.main(["--data", str(tmp_path), *options])
    assert not [*tmp_path.iterdir()]


def test_it_learns_and_says_when_it_spikes(straight):
    rows = straight[1]
    assert rows[-1]["val_ppl"] < 0.9 * TINY.vocab_size and rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert [r["spikes"] for r in rows] == [False, False, True, True]


def test_a_run_without_spikes_says_so_to_its_end(tokens, tmp_path):
    assert [r["spikes"] for r in run(tokens, tmp_path, recipe=dataclasses.replace(RECIPE, spike_from=1.0))[1]] == [False]*4


def test_every_epoch_reads_everything_once():
    r, text = train.Recipe(steps=1, batch=2, length=8), np.arange(200, dtype=np.uint16)
    per_epoch = (200 - 8 - 1) // 8 // 2
    for epoch in (0, 1):
        seen = torch.cat([train.batch_at(text, epoch * per_epoch + i, r)[:, :-1] for i in range(per_epoch)]).flatten()
        assert len(set(seen.tolist())) == len(seen) == per_epoch * 16


def test_gradients_pass_the_rounding():
    x = torch.randn(3, 8, requires_grad=True)
    y = train.straight_through(spiked)(x, 3.0)
    assert torch.allclose(y, spiked(x, 3.0), atol=1e-6)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.ones(3, 8))


# --- measures -------------------------------------------------------------------------------------------------

def test_intact_states_change_nothing_and_empty_ones_do(tokens):
    model = train.new_model(TINY, 1)
    whole, pieces, reset = (train.losses_of(model, tokens[:257], 64, piece, r) for piece, r in ((None, False), (8, False), (8, True)))
    assert torch.allclose(whole, pieces, atol=1e-4) and torch.equal(pieces[:, :8], reset[:, :8])
    assert not torch.allclose(pieces[:, 8:], reset[:, 8:], atol=1e-4)
    assert [row["from"] for row in train.beyond_window(model, tokens[:257], 64)] == list(range(0, 64, 8))


def test_perplexity_with_spikes_leaves_the_model_float(tokens):
    model = train.new_model(TINY, 1)
    plain = train.perplexity(model, tokens[:257], 64)
    assert train.perplexity(model, tokens[:257], 64, Spike(3.0)) != plain == train.perplexity(model, tokens[:257], 64)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_kneser_ney_is_a_distribution(order):
    text = np.array([0, 1, 2, 0, 1, 3, 0, 1, 2, 4, 4, 1], np.uint16)
    model = KneserNey(text, 6, order)
    for context in ([0, 1], [4, 4], [5, 5]):  # often, once, never seen
        p = [math.exp(model.logprobs(np.array([*context, w], np.uint16))[-1]) for w in range(6)]
        assert min(p) > 0 and sum(p) == pytest.approx(1)


def test_longer_ngrams_help(tokens):
    assert KneserNey(tokens, 64, 3).perplexity(tokens[-500:]) < 0.5 * KneserNey(tokens, 64, 1).perplexity(tokens[-500:])


# --- text and tokens ------------------------------------------------------------------------------------------

def test_parts_of_the_corpus_share_nothing():
    docs = documents()
    kept, held = corpus.split(docs)
    assert held and len(kept) + len(held) == len(docs) and not {d.text for d in kept} & {d.text for d in held}


def test_equal_files_are_one_document(tmp_path):
    for name in ("b.txt", "a.txt", "short.txt"):
        (tmp_path / "pkg").mkdir(exist_ok=True)
        (tmp_path / "pkg" / name).write_text(TEXTS[0] if name != "short.txt" else "too short")
    docs = corpus.documents(tmp_path, (corpus.Source("pkg", "*.txt", "none"),))
    assert [d.name for d in docs] == ["a.txt"] and corpus.sizes(docs)["pkg"][0] == 1


def test_html_becomes_text(tmp_path):
    (tmp_path / "a.html").write_text("<head><title>no</title></head><h1>Head\n line</h1><ul><li><p>one<li>two</ul><pre>a\n    b</pre><script>x</script>")
    assert corpus.text_of(tmp_path / "a.html") == "Head line\n\n- one\n- two\n\na\n    b\n"


def test_tokenizer_is_the_published_format(tmp_path):
    """What training encodes with is what sb-convert writes into the GGUF and the example's checkpoint carries."""
    gguf = pytest.importorskip("gguf")
    from sb_convert.cli import main
    corpus.train_tokenizer(tmp_path, TEXTS, 280)
    once = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    corpus.train_tokenizer(tmp_path, TEXTS, 280)
    assert once == {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    t = corpus.load_tokenizer(tmp_path)
    text = "the naïve value of item_12\n    is 1024\t\u4e2d"
    assert t.decode(t.encode(text).ids) == text and t.encode("a<|im_end|>").ids[-1] == 279 and t.get_vocab_size() == 280
    Model(dataclasses.replace(TINY, vocab_size=280, bos_token_id=277, eos_token_id=277)).init_weights(1).save_pretrained(tmp_path)
    assert main([str(tmp_path), "-o", str(tmp_path / "m.gguf"), "--vocab-only"]) == 0
    field = gguf.GGUFReader(tmp_path / "m.gguf").fields["tokenizer.ggml.tokens"]
    assert field.contents() == [t.id_to_token(i) for i in range(280)]


def test_a_text_too_small_for_the_vocabulary_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="vocabulary: got"):
        corpus.train_tokenizer(tmp_path, TEXTS[:1], 4096)


def test_a_document_cannot_end_itself(tmp_path):
    corpus.train_tokenizer(tmp_path, TEXTS, 280)
    t = corpus.load_tokenizer(tmp_path)
    ids = corpus.encode([corpus.Document("", "", "ends with <|endoftext|> twice"), corpus.Document("", "", "x")], t)
    assert (ids == 277).sum() == 2 and ids[-1] == 277 and ids.dtype == np.uint16


def test_finished_checkpoint_is_complete(tokens, tmp_path):
    """The folder that --out writes: a checkpoint that loads, with log, evaluation, samples and curve."""
    pytest.importorskip("matplotlib")
    data, out = tmp_path / "data", tmp_path / "out"
    corpus.train_tokenizer(data / "tokenizer", TEXTS, 280)
    ids = corpus.encode(documents(), corpus.load_tokenizer(data / "tokenizer"))
    (data / "corpus.json").write_text('{"held_out_bytes": 1000, "sources": {"git-doc": [3, 1500000, 0]}}')
    t = train.Trainer(dataclasses.replace(TINY, vocab_size=280, bos_token_id=277, eos_token_id=277), dataclasses.replace(RECIPE, steps=2))
    assert train.train(t, ids, ids[:2000], data, bar=False)
    train.finish(t, data, out, ids, ids[:2000])
    report = json.loads((out / "eval.json").read_text())
    assert report["perplexity"] == pytest.approx(train.perplexity(Model.from_pretrained(out), ids[:2000]))
    assert report["perplexity_kneser_ney_5"] < 20 and (out / "loss.png").read_bytes()[:4] == b"\x89PNG" and (out / "samples.txt").read_text()
    card = (out / "README.md").read_text()
    assert f"| this model | {report['perplexity']:.2f} (" in card and "| git-doc | GPL-2 | 1.50 |" in card
