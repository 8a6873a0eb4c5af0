"""Every argument with bounds is refused just beyond them, by name, and taken at them: all alike, not one of several."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from binding_models import ONE, tiny, tokens_of  # noqa: F401

from spikingbrain_cpp import CancelToken, Llama, LlamaDiskCache, LlamaGrammar, LlamaPromptLookupDecoding, LlamaRAMCache, memory_estimate, system_info
from spikingbrain_cpp.arguments import NEUTRAL, check_batch, check_calls, check_neutral, check_path, check_pooling, check_range, check_scale, check_seed, integer
from spikingbrain_cpp.drafts import check_draft_model
from spikingbrain_cpp.sampling import SamplingParams

NAN, INF = float("nan"), float("inf")
NO_INTEGER = (1.5, "1", True, [1])

# constructor: name -> (refused, taken)
BOUNDS = {
    "last_n_tokens_size": ((-1, 2**31, *NO_INTEGER, None), (0, 1, np.int64(5))),
    "n_batch": ((0, -1, 2**31, *NO_INTEGER, None), (1, 2, 2000)),
    "n_ubatch": ((0, -1, 2**31, *NO_INTEGER, None), (1, 7)),
    "n_threads": ((-1, 513, 1.5, "1", [1]), (1, 2, None, 0)),
    "n_threads_batch": ((-1, 513, 1.5, "1", [1]), (1, 2, None, 0)),
    "n_ctx": ((-1, 2**30 + 1, 1.5, "1", [1]), (None, 0, 1, 64, 2**30)),
    "n_gpu_layers": ((1, 2, -2, "all"), (0, -1)),
    "seed": ((-2, 2**32, *NO_INTEGER, None), (-1, 0, 2**32 - 1, 2**32 - 2)),
    "flash_attn": ((2, "yes"), (None, True)),
    "pooling_type": ((-2, 4, True, False, "mean", None), (-1, 0, 1, 2, 3)),
    "lora_scale": ((NAN, INF, -INF, "1", True, None), (0, -1.5, 2)),
    "type_k": ((1.5, "f16", True), (None, -1, 0)),
    "type_v": ((1.5, "f16", True), (None, -1, 0)),
    "chat_handler": ((1, "f"), (None, len)),
    "spike": ((1, 0, "yes"), (None, True, False)),
    "spike_k": ((0, -1, NAN, INF, 1e-50, 1e39, "3", True), ()),
    "spike_keep": (((1, 1), (0, 0), [1, 1]), (None,)),
    "kv_overrides": (([1], "x", {1: 2}), (None, {})),
    "lora_path": ((1, b"x", 1.5), (None,)),
}


@pytest.mark.parametrize("name", list(BOUNDS))
def test_bounds_of_the_constructors_arguments(tiny, name):  # noqa: F811
    refused, taken = BOUNDS[name]
    for value in refused:
        with pytest.raises((ValueError, TypeError), match=f"llama: {name}: got"):
            Llama(tiny, **{**ONE, name: value})
    for value in taken:
        with Llama(tiny, **{**ONE, name: value}) as llm:
            llm.eval([1, 2, 3] if name != "n_ctx" or value != 1 else [1])


@pytest.mark.parametrize("keep", [(0, 1), (1, 0), (-1, 5), (2**31, 1), (1, 2**31), [3, 4], (3,), (3, 4, 5), (3.0, 4), (True, 4), "ab"])
def test_what_is_kept_of_spikes_is_two_numbers(tiny, keep):  # noqa: F811
    with pytest.raises((ValueError, TypeError), match="llama: spike_keep: got"):
        Llama(tiny, spike=True, spike_stats=True, spike_keep=keep, **ONE)


# --- memory_estimate -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, refused, taken", [
    ("n_batch", (0, -1, 2**31, *NO_INTEGER, None), (1, 512)), ("n_ubatch", (0, -1, 2**31, *NO_INTEGER, None), (1, 512)),
    ("n_seq", (0, -1, 2**31, *NO_INTEGER, None), (1, 4)), ("n_ctx", (-1, 2**31, 1.5, "1"), (None, 0, 64)),
    ("type_k", (1.5, "f16", True), (None, 0)), ("type_v", (1.5, "f16", True), (None, 0))])
def test_bounds_of_an_estimates_arguments(tiny, name, refused, taken):  # noqa: F811
    for value in refused:
        with pytest.raises((ValueError, TypeError), match=f"memory_estimate: {name}: got"):
            memory_estimate(tiny, **{name: value})
    for value in taken:
        assert memory_estimate(tiny, **{name: value}).total > 0


def test_what_an_estimate_adds_up(tiny):  # noqa: F811
    one, four = memory_estimate(tiny), memory_estimate(tiny, n_seq=4)
    assert one.total == one.model + one.state + one.compute + one.output
    assert four.state == pytest.approx(4 * one.state, rel=0.001) and four.model == one.model  # tensors are padded
    assert one.output == 2 * 4 * 288 and four.output == 4 * one.output  # a row of logits for each, twice
    assert memory_estimate(tiny, logits_all=True, n_batch=100, n_ubatch=50).output == 50 * one.output
    assert memory_estimate(tiny, logits_all=True, n_batch=30, n_ubatch=50).output == 30 * one.output
    assert memory_estimate(tiny, logits_all=True, n_batch=2, n_seq=9).output == 9 * one.output
    with Llama(tiny, **ONE) as llm:
        assert one.state == llm.state_bytes()


def test_what_computes_here_is_told():
    info = system_info()
    assert set(info) == {"features", "spike_kernels", "cpus", "llama.cpp", "tried"} and info["cpus"] >= 1
    assert info["features"] and all(isinstance(v, bool) for v in info["features"].values()) and any(info["features"].values())


# --- the checks themselves ------------------------------------------------------------------------------------------------------

# argument: (values that change nothing, values that would change something)
MEANINGLESS = {
    "split_mode": ((0, 1, 2), (3, -1, None, "row")), "main_gpu": ((0, 0.0), (1, -1, None)), "tensor_split": ((None,), ([], [0.5], 0)),
    "offload_kqv": ((True, False), (None, 2)), "op_offload": ((None, True, False), (2, "yes")), "rope_scaling_type": ((None, -1), (0, 1, 2)),
    "rope_freq_base": ((0, 0.0, None), (1, 1e4, -1)), "rope_freq_scale": ((0, 0.0, None), (1, 0.5)), "yarn_ext_factor": ((-1, -1.0, None), (0, 1)),
    "yarn_attn_factor": ((1, 1.0, None), (0, 2)), "yarn_beta_fast": ((32, 32.0, None), (31, 33, 0)), "yarn_beta_slow": ((1, 1.0, None), (0, 2)),
    "yarn_orig_ctx": ((0, None), (1, 4096)), "attention_type": ((-1, 0), (1, None)), "swa_full": ((None, False), (True, "x")),
    "no_perf": ((True, False), (None, 2)), "numa": ((False, 0, None), (True, 1, 2)), "lora_base": ((None,), ("x", False)),
    "draft_model": ((None,), (object(), False)), "tokenizer": ((None,), (object(), False)), "spm_infill": ((False,), (True, None))}


@pytest.mark.parametrize("name", list(MEANINGLESS))
def test_arguments_without_a_meaning_are_taken_where_they_say_nothing(name):
    def take(value):
        check_draft_model(value) if name == "draft_model" else check_neutral({name: value})
    for value in MEANINGLESS[name][0]:
        take(value)
    for value in MEANINGLESS[name][1]:
        with pytest.raises(ValueError, match=f"llama: {name}: got"):
            take(value)


def test_the_list_above_is_whole():
    assert set(MEANINGLESS) - {"draft_model"} == set(NEUTRAL)  # which has a meaning, and a check of its own


@pytest.mark.parametrize("check, good, bad", [
    (lambda v: integer("x", v), (0, -5, 2**70, np.int8(3), np.uint64(2**63)), (True, np.bool_(1), 1.0, "1", None, [1])),
    (lambda v: check_range("x", v), (1, 2, 2**31 - 1), (0, -1, 2**31, 1.0, True)),
    (lambda v: check_range("x", v, low=0, high=3), (0, 3, np.int32(2)), (-1, 4, "0")),
    (lambda v: check_scale("x", v), (0, 1.5, -2, np.float32(0.5)), (NAN, INF, -INF, True, "1", None)),
    (lambda v: check_seed("x", v), (0, 1, 2**32 - 1), (-2, 2**32, 1.5, True, None)),
    (check_pooling, (-1, 0, 1, 2, 3), (-2, 4, True, False, "1", None))])
def test_a_check_gives_back_what_it_takes(check, good, bad):
    for value in good:
        assert check(value) == value and type(check(value)) in (int, float)
    for value in bad:
        with pytest.raises((ValueError, TypeError), match="got"):
            check(value)


def test_a_seed_of_minus_one_is_the_random_one():
    assert check_seed("x", -1) == 2**32 - 1


def test_paths_are_text(tmp_path):
    assert check_path("x", tmp_path) == str(tmp_path) and check_path("x", "a b") == "a b"
    for wrong in (b"x", 1, None, ["x"]):
        with pytest.raises(TypeError, match="x: got .*, expected a path as text"):
            check_path("x", wrong)


@pytest.mark.parametrize("n_batch, n_ubatch, ok", [(2**20, 2**20, True), (2**31 - 1, 2**20, True), (2**20, 2**31 - 1, True), (2**20 + 1, 2**20 + 1, False), (1, 1, True)])
def test_micro_batches_have_a_size(n_batch, n_ubatch, ok):
    if ok:
        check_batch("x", n_batch, n_ubatch)
    else:
        with pytest.raises(ValueError, match="x: n_ubatch: got"):
            check_batch("x", n_batch, n_ubatch)


def test_progress_is_a_function_and_cancel_a_token():
    check_calls("x", None, None)
    check_calls("x", print, CancelToken())
    for progress, cancel, name in ((1, None, "progress"), ("f", None, "progress"), (None, print, "cancel"), (None, True, "cancel"), (print, 1, "cancel")):
        with pytest.raises(TypeError, match=f"x: {name}: got"):
            check_calls("x", progress, cancel)


# --- progress, and what is counted -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n, n_batch, n_ubatch, steps", [(10, 512, 4, [4, 8, 10]), (8, 512, 4, [4, 8]), (3, 512, 4, [3]), (9, 3, 512, [3, 6, 9]), (5, 2, 4, [2, 4, 5])])
@pytest.mark.parametrize("logits_all", [False, True])
def test_progress_after_every_micro_batch(tiny, n, n_batch, n_ubatch, steps, logits_all):  # noqa: F811
    with Llama(tiny, n_batch=n_batch, n_ubatch=n_ubatch, logits_all=logits_all, **ONE) as llm:
        for call in (lambda f: llm.eval(tokens_of(n), progress=f), lambda f: next(llm.generate(tokens_of(n), progress=f))):
            seen = []
            llm.reset()
            before = llm.n_evaluated
            call(lambda done, total: seen.append((done, total)))
            assert seen == [(done, n) for done in steps] and llm.n_evaluated - before == n
        assert llm.n_batch == n_batch


def test_what_is_true_or_false():
    from spikingbrain_cpp.arguments import flag

    for value, meant in ((True, True), (False, False), (1, True), (0, False), (np.True_, True), (np.False_, False)):
        assert flag("x", value) is meant
    for value in (2, -1, 1.0, 0.0, "no", b"0", None, [], np.int64(1)):
        with pytest.raises(TypeError, match="x: got .*, expected True or False"):
            flag("x", value)


# --- defaults: llama-cpp-python's, where it has them ---------------------------------------------------------------------------------

DRAWING = {"top_k": 40, "top_p": 0.95, "min_p": 0.05, "typical_p": 1.0, "repeat_penalty": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0}
WHOLE = {**DRAWING, "tfs_z": 1.0, "mirostat_mode": 0, "mirostat_tau": 5.0, "mirostat_eta": 0.1}
COMPLETION = {**WHOLE, "max_tokens": 16, "temperature": 0.8, "echo": False, "stream": False}


@pytest.mark.parametrize("call, defaults", [
    (Llama.sample, {**WHOLE, "temp": 0.8, "penalize_nl": True}), (Llama.generate, {**WHOLE, "temp": 0.8, "penalize_nl": True, "reset": True}),
    (Llama.create_completion, COMPLETION), (Llama.__call__, COMPLETION), (Llama.create_chat_completion, {**WHOLE, "temperature": 0.2, "stream": False, "lenient_schema": False}),
    (Llama.acreate_completion, {"stream": False}), (Llama.acreate_chat_completion, {"stream": False}),
    (Llama.generate_many, {**DRAWING, "temperature": 0.8, "n": 1, "max_tokens": 16, "n_parallel": 8}), (Llama.embed, {"normalize": False, "truncate": True, "return_count": False}),
    (Llama.tokenize, {"add_bos": True, "special": False}), (Llama.detokenize, {"special": False}), (Llama.apply_chat_template, {"add_generation_prompt": True}),
    (Llama.default_max_tokens, {"n_prompt": 0}), (Llama.from_pretrained, {"local_dir_use_symlinks": "auto"}), (LlamaRAMCache, {"capacity_bytes": 2 << 30}),
    (LlamaDiskCache, {"capacity_bytes": 2 << 30, "cache_dir": ".cache/llama_cache"}), (LlamaGrammar.from_string, {"verbose": False, "root": "root"}),
    (LlamaGrammar.from_file, {"verbose": False, "root": "root"}), (LlamaGrammar.from_json_schema, {"verbose": False, "lenient": False}), (LlamaGrammar, {"root": "root"}),
    (LlamaPromptLookupDecoding, {"max_ngram_size": 2, "num_pred_tokens": 10}), (memory_estimate, {"n_batch": 512, "n_ubatch": 512, "n_seq": 1, "logits_all": False}),
    (Llama.__init__, {"n_batch": 512, "n_ubatch": 512, "seed": 2**32 - 1, "vocab_only": False, "use_mmap": True, "use_mlock": False, "check_tensors": False, "logits_all": False, "last_n_tokens_size": 64,
             "embedding": False, "pooling_type": -1, "lora_scale": 1.0, "spike_stats": False, "verbose": False}),
    (SamplingParams, {**DRAWING, "temp": 0.8, "mirostat_mode": 0, "mirostat_tau": 5.0, "mirostat_eta": 0.1, "logit_bias": ()})])
def test_what_is_not_said_is_llama_cpp_pythons(call, defaults):
    """All but None."""
    held = {name: p.default for name, p in inspect.signature(call).parameters.items() if p.default is not p.empty and p.default is not None}
    assert held == defaults and {name: type(value) for name, value in held.items()} == {name: type(value) for name, value in defaults.items()}
