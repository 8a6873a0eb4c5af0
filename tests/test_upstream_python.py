"""llama-cpp-python's own tests on tokenizer, prompt reuse, caches and embeddings pass with local models."""

from __future__ import annotations

import pytest
from binding_models import make_tiny
from other_models import with_key, write_recurrent, write_transformer
from upstream_python import run_upstream, upstream_tests  # noqa: F401

# those not run, and why
LEFT_OUT = {
    "test_real_model": "on its private ctypes layer, and on one downloaded model's tokens",
    "test_real_llama": "on the exact text of one downloaded model",
    "test_real_llama_repeated_prompt_cache": "on the exact text of one downloaded model; its promise, the same answer twice, is in test_binding_llama.py",
}


@pytest.fixture(scope="module")
def results(upstream_tests, tmp_path_factory) -> dict[str, str]:  # noqa: F811
    folder = tmp_path_factory.mktemp("models")
    hybrid = make_tiny(folder)
    models = {
        "ggml-org/models": write_transformer(folder / "llama.gguf", hybrid),
        "QuantFactory/mamba-130m-hf-GGUF": write_recurrent(folder / "mamba.gguf", hybrid),
        "tiiuae/Falcon-H1-Tiny-90M-Instruct-GGUF": hybrid,
        "CompendiumLabs/bge-small-en-v1.5-gguf": with_key(hybrid, folder / "mean.gguf", "spikingbrain.pooling_type", 1),
    }
    found = run_upstream(upstream_tests, "test_llama.py", models)
    return {name: text for name, text in found.items() if name not in LEFT_OUT}


def test_all_but_those_left_out_pass(results):
    failed = {name: text for name, text in results.items() if text != "passed"}
    assert not failed, "\n".join(failed.values())
    assert len(results) == 17


@pytest.mark.parametrize("promise", ["tokenization", "prompt_cache_reset", "exact_cached_prompt_reuse", "ram_cache", "prefix_reuse", "embeddings"])
def test_each_promise_is_among_them(results, promise):
    assert any(promise in name for name in results)
