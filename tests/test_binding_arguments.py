"""Arguments of llama-cpp-python's work, are refused by name, or are harmless; embeddings, adapters, caches, the hub, pickles."""

from __future__ import annotations

import os
import pickle
import sys

import gguf
import numpy as np
import pytest
from binding_models import ONE, make_tiny, tiny, tokens_of, write_adapter  # noqa: F401
from conftest import ROOT

from spikingbrain_cpp import Llama, LlamaDiskCache, LlamaError, LlamaRAMCache, ModelLoadError, ModelNotFoundError, hub


@pytest.fixture
def llm(tiny):  # noqa: F811
    with Llama(tiny, **ONE) as model:
        yield model


# what llama-cpp-python's constructor defaults to
DEFAULTS = {"split_mode": 1, "main_gpu": 0, "tensor_split": None, "rope_scaling_type": -1, "pooling_type": -1, "attention_type": -1,
            "rope_freq_base": 0.0, "rope_freq_scale": 0.0, "yarn_ext_factor": -1.0, "yarn_attn_factor": 1.0, "yarn_beta_fast": 32.0,
            "yarn_beta_slow": 1.0, "yarn_orig_ctx": 0, "offload_kqv": True, "op_offload": None, "swa_full": None, "no_perf": False,
            "lora_base": None, "lora_scale": 1.0, "lora_path": None, "numa": False, "draft_model": None, "tokenizer": None,
            "spm_infill": False, "n_gpu_layers": 0, "embedding": False}


def test_its_defaults_change_nothing(llm, tiny):  # noqa: F811
    with Llama(tiny, **DEFAULTS, **ONE) as other:
        for one in (llm, other):
            one.eval(tokens_of(20))
        assert np.array_equal(llm.logits, other.logits)


@pytest.mark.parametrize("name, value", [
    ("draft_model", object()), ("tensor_split", [1.0]), ("main_gpu", 1), ("rope_freq_base", 1e4), ("yarn_ext_factor", 1.0), ("numa", True),
    ("lora_base", "x"), ("tokenizer", object()), ("spm_infill", True), ("swa_full", True), ("n_gpu_layers", 1), ("flash_attn", False),
    ("pooling_type", 4), ("pooling_type", "mean"), ("split_mode", 9)])
def test_what_cannot_be_had_is_refused_by_name(tiny, name, value):  # noqa: F811
    with pytest.raises(ValueError, match=f"llama: {name}: got .*, expected .*"):
        Llama(tiny, **{name: value}, **ONE)


def test_an_unknown_argument_is_a_type_error(tiny):  # noqa: F811
    with pytest.raises(TypeError, match="n_ctxx"):
        Llama(tiny, n_ctxx=3)


def test_the_fused_window_operator_can_be_asked_for(tiny):  # noqa: F811
    with Llama(tiny, flash_attn=True, **ONE) as llm:
        llm.eval(tokens_of(20))


# --- embeddings ---------------------------------------------------------------------------------------------------


def test_embeddings_of_tokens_do_not_touch_the_sequence(tiny):  # noqa: F811
    with Llama(tiny, embedding=True, **ONE) as llm:
        llm.eval(tokens_of(10))
        row = llm.logits
        text = "hello the cat" * 30
        rows = np.array(llm.embed(text))
        assert rows.shape == (len(llm.tokenize(text)), 64) and np.array_equal(llm.logits, row) and llm.n_tokens == 10
        assert np.allclose(rows[:5], llm.embed([llm.tokenize(text)[:5]])[0], atol=1e-4)  # causal, and in pieces
        output = next(t for t in gguf.GGUFReader(tiny).tensors if t.name == "output.weight").data
        llm.reset()
        llm.eval(llm.tokenize(text))
        assert np.abs(output @ rows[-1] - llm.logits).max() < 1e-3  # what the logits are made of


@pytest.mark.parametrize("kind, of", [(1, lambda rows: rows.mean(0)), (2, lambda rows: rows[0]), (3, lambda rows: rows[-1])])
def test_pooled_embeddings_at_any_length(tiny, kind, of):  # noqa: F811
    text = "the hello " * 100
    with Llama(tiny, embedding=True, **ONE) as whole, Llama(tiny, embedding=True, pooling_type=kind, **ONE) as llm:
        want = of(np.array(whole.embed(text)))
        got, n = llm.embed(text, return_count=True)
        assert np.allclose(got, want, atol=1e-5) and n == len(llm.tokenize(text)) and llm.pooling_type() == kind
        assert np.allclose(llm.embed(text, normalize=True), want / np.linalg.norm(want), atol=1e-5)
        answer = llm.create_embedding([text, "the"])
        assert [d["index"] for d in answer["data"]] == [0, 1] and np.allclose(answer["data"][0]["embedding"], want, atol=1e-5)
        assert answer["usage"]["prompt_tokens"] == n + len(llm.tokenize("the"))


def test_embeddings_refused(llm, tiny):  # noqa: F811
    with pytest.raises(LlamaError, match="embedding=True"):
        llm.embed("a")
    with Llama(tiny, embedding=True, n_ctx=8, **ONE) as other:
        for wrong, error in (("", ValueError), (3, TypeError), ([[288]], ValueError), ([[]], ValueError)):
            with pytest.raises(error):
                other.embed(wrong)
        assert len(other.embed("the cat sat on the mat")) == 8
        with pytest.raises(ValueError, match="n_ctx=8"):
            other.embed("the cat sat on the mat", truncate=False)


# --- LoRA ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_an_adapter_equals_merged_weights(tiny, tmp_path, scale):  # noqa: F811
    added = write_adapter(tmp_path / "lora.gguf", tiny)
    merged = bytearray(tiny.read_bytes())
    for t in gguf.GGUFReader(tiny).tensors:
        if t.name in added:
            raw = (t.data + scale * added[t.name]).astype(np.float32).tobytes()
            merged[t.data_offset:t.data_offset + len(raw)] = raw
    (tmp_path / "merged.gguf").write_bytes(merged)
    with (Llama(tiny, **ONE) as plain, Llama(tmp_path / "merged.gguf", **ONE) as want,
          Llama(tiny, lora_path=tmp_path / "lora.gguf", lora_scale=scale, **ONE) as got):
        for llm in (plain, want, got):
            llm.eval(tokens_of(30))
        assert np.abs(got.logits - want.logits).max() < 1e-4 < 0.1 < np.abs(plain.logits - want.logits).max()
        with got.batch(1) as batch:
            batch.eval({0: tokens_of(30)})
            assert np.abs(batch.logits(0) - want.logits).max() < 1e-4
        with pytest.raises(ValueError, match="model"):  # another model as far as states go
            plain.restore(got.snapshot())


def test_adapters_refused(tiny, tmp_path):  # noqa: F811
    with pytest.raises(ModelNotFoundError, match="lora_path"):
        Llama(tiny, lora_path=tmp_path / "none.gguf", **ONE)
    (tmp_path / "text.gguf").write_text("no adapter")
    write_adapter(tmp_path / "wide.gguf", make_tiny(tmp_path / "wide", hidden_size=128))
    for wrong in (tmp_path / "text.gguf", tiny, tmp_path / "wide.gguf"):
        with pytest.raises(ModelLoadError, match="lora_path"):
            Llama(tiny, lora_path=wrong, **ONE)


# --- caches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_a_cache_saves_the_reading_of_a_prompt(tiny, tmp_path, kind):  # noqa: F811
    cache = LlamaRAMCache() if kind == "ram" else LlamaDiskCache(tmp_path / "cache")
    prompt, options = tokens_of(60).tolist(), {"max_tokens": 5, "temperature": 0}
    with Llama(tiny, **ONE) as writer:
        writer.set_cache(cache)
        want = writer.create_completion(prompt, **options)["choices"][0]["text"]
        writer.create_completion(tokens_of(30, seed=8).tolist(), **options)
        before = writer.n_evaluated
        assert writer.create_completion(prompt, **options)["choices"][0]["text"] == want
        assert writer.n_evaluated - before <= 4  # not the prompt
    with Llama(tiny, **ONE) as reader:
        reader.set_cache(cache)
        reader.create_completion([*prompt, 1, 2, 3], **options)
        assert reader.n_evaluated <= 3 + 4
        assert prompt in cache and [9, 9] not in cache
        reader.set_cache(None)
    with pytest.raises(KeyError):
        cache[[9, 9]]


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_a_cache_keeps_to_its_bytes(llm, tmp_path, kind):
    llm.eval(tokens_of(20))
    probe = LlamaRAMCache()
    probe[[1]] = llm.save_state()
    one = probe.cache_size + 1 if kind == "ram" else len(llm.save_state().to_bytes())
    cache = LlamaRAMCache(3 * one) if kind == "ram" else LlamaDiskCache(tmp_path, 3 * one)
    for i in range(8):
        llm.reset()
        llm.eval(tokens_of(20, seed=i))
        cache[tokens_of(20, seed=i).tolist()] = llm.save_state()
        assert cache.cache_size <= 3 * one
    assert tokens_of(20, seed=7).tolist() in cache and tokens_of(20, seed=0).tolist() not in cache
    small = LlamaRAMCache(10) if kind == "ram" else LlamaDiskCache(tmp_path / "small", 10)
    small[[1]] = llm.save_state()
    assert small.cache_size == 0


def test_damaged_and_foreign_files_of_a_cache_are_passed_over(llm, tiny, tmp_path):  # noqa: F811
    cache = LlamaDiskCache(tmp_path)
    llm.set_cache(cache)
    prompt = tokens_of(40).tolist()
    want = llm.create_completion(prompt, temperature=0, max_tokens=3)["choices"][0]["text"]
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-9])
    (tmp_path / "x-y.sbstate").write_text("?")
    with Llama(tiny, **ONE) as other:
        other.set_cache(cache)
        assert other.create_completion(prompt, temperature=0, max_tokens=3)["choices"][0]["text"] == want


def test_wrong_caches(llm, tmp_path):
    for wrong, error in ((3, TypeError), ({}, TypeError)):
        with pytest.raises(error):
            llm.set_cache(wrong)
    for wrong, error in ((-1, ValueError), ("1", TypeError), (True, TypeError)):
        with pytest.raises(error):
            LlamaRAMCache(wrong)


# --- from_pretrained, pickles ---------------------------------------------------------------------------------------


def hub_folder(root, name: str, source):
    """The hub's own cache layout, as a download leaves it."""
    folder = root / "models--someone--tiny"
    commit = "0" * 40
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit / name).parent.mkdir(parents=True, exist_ok=True)
    os.link(source, folder / "snapshots" / commit / name)


def test_from_pretrained_finds_what_was_downloaded(tiny, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(pytest.importorskip("huggingface_hub.constants"), "HF_HUB_OFFLINE", True)
    hub_folder(tmp_path, "tiny-F32.gguf", tiny)
    with Llama.from_pretrained("someone/tiny", "*f32.gguf".upper().replace("GGUF", "gguf"), cache_dir=tmp_path, **ONE) as llm:
        llm.eval([1])
    hub_folder(tmp_path, "one/tiny-F32.gguf", tiny)
    for pattern in ("one/*.gguf", "one/tiny-F32.gguf", "o*/*"):
        assert hub.download("someone/tiny", pattern, None, "auto", cache_dir=tmp_path).parent.name == "one"
    hub_folder(tmp_path, "tiny-Q4_0.gguf", tiny)
    for pattern in (None, "tiny-*.gguf", "none.gguf"):
        with pytest.raises(ModelNotFoundError, match="expected one"):
            Llama.from_pretrained("someone/tiny", pattern, cache_dir=tmp_path)


def test_without_the_hub_package_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"spikingbrain-cpp\[hub\]"):
        Llama.from_pretrained("someone/tiny")
    assert "hub = " in (ROOT / "pyproject.toml").read_text()


def test_a_pickled_model_is_loaded_again(tiny):  # noqa: F811
    with Llama(tiny, n_ctx=100, seed=3, **ONE) as llm:
        llm.eval([1, 2])
        with pickle.loads(pickle.dumps(llm)) as other:
            assert other.n_ctx() == 100 and other.n_tokens == 0
            other.eval([1, 2])
            assert np.array_equal(other.logits, llm.logits)


@pytest.mark.parametrize("name", ["vocab_only", "use_mmap", "use_mlock", "check_tensors", "logits_all", "embedding", "spike_stats", "verbose"])
def test_a_flag_is_true_or_false(name, tiny):  # noqa: F811
    for value in ("no", b"", 2, 0.0, None, []):
        with pytest.raises(TypeError, match=f"llama: {name}: got .*, expected True or False"):
            Llama(str(tiny), **ONE, **{name: value})


FLAGS = [("tokenize", {"text": "a"}, "add_bos"), ("tokenize", {"text": "a"}, "special"), ("detokenize", {"tokens": [1]}, "special"),
         ("generate", {"tokens": [1]}, "reset"), ("create_completion", {"prompt": "a"}, "echo"), ("create_completion", {"prompt": "a"}, "stream"),
         ("create_chat_completion", {"messages": [{"role": "user", "content": "a"}]}, "stream"),
         ("create_chat_completion", {"messages": [{"role": "user", "content": "a"}]}, "lenient_schema"),
         ("embed", {"input": "a"}, "normalize"), ("embed", {"input": "a"}, "truncate"), ("embed", {"input": "a"}, "return_count")]


@pytest.mark.parametrize(("call", "given", "name"), FLAGS, ids=lambda x: x if isinstance(x, str) else "")
def test_a_calls_flag_is_true_or_false(call, given, name, tiny):  # noqa: F811
    with Llama(str(tiny), **ONE, embedding=True) as llama:
        for value in ("no", b"", 2, [], {}):
            with pytest.raises(TypeError, match=f"{name}: got .*, expected True or False"):
                getattr(llama, call)(**given, **{name: value})
