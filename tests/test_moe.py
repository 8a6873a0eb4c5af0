"""SpikingBrain-76B in the fork: both branches in each layer, sinks that are constants, a mixture of experts, against golden models; its memory."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from binding_models import convert
from conftest import ROOT, shared
from hypothesis import HealthCheck, given, settings
from test_memory_history import HISTORY, Driver

from sb_convert.numerics import kl_divergence
from spikingbrain_cpp import Llama, _core, memory_estimate
from spikingbrain_cpp.spikes.cli import main as sb_spikes

N = 96  # tokens of a golden model
WINDOW, N_SINKS, N_EXPERT = 24, 8, 4  # of golden-moe-a


def divergence(a: np.ndarray, b: np.ndarray) -> float:
    """Mean KL divergence of the rows' distributions."""
    return float(kl_divergence(a, b).mean())


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """make(checkpoint, *options): the GGUF, converted once."""
    folder, made = tmp_path_factory.mktemp("moe"), {}

    def one(checkpoint: str, *options: str) -> Path:
        if (checkpoint, options) not in made:
            made[checkpoint, options] = convert(shared(checkpoint), folder / f"{len(made)}.gguf", *options)
        return made[checkpoint, options]
    return one


@pytest.fixture(scope="module")
def model(make: Any) -> Path:
    return make("golden-moe-a", "--outtype", "f32")


@pytest.fixture(scope="module")
def golden() -> Any:
    return np.load(shared("golden-moe-a") / "golden.npz")


def context(path: Path, **options: Any) -> _core.Context:
    loaded = _core.Model(str(path), kv_overrides=options.pop("kv_overrides", {}))
    return _core.Context(loaded, **{"n_ctx": 512, "n_seq_max": 2, "n_batch": N, "n_ubatch": N, "n_outputs_max": N, "n_threads": 1, "n_threads_batch": 1, **options})


def decode(ctx: _core.Context, tokens: np.ndarray, piece: int = N, seq: int = 0) -> np.ndarray:
    rows = np.empty((len(tokens), ctx.logits().size), np.float32)
    at = ctx.seq_pos_max(seq) + 1
    for i in range(0, len(tokens), piece):
        ctx.decode(tokens[i:i + piece], at + i, seq, rows[i:i + piece])
    return rows


def check(got: np.ndarray, want: np.ndarray, limit: float = 1e-8) -> None:
    assert divergence(want, got) < limit
    assert (got.argmax(1) == want.argmax(1)).all()


# --- golden -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("piece", [96, 7, 1])
def test_golden_floats(model: Path, golden: Any, piece: int) -> None:
    check(decode(context(model), golden["tokens"], piece), golden["logits"])


def test_golden_in_f16(make: Any, golden: Any) -> None:
    """Weights, the inputs of products and the window: the window alone costs 7e-7."""
    check(decode(context(make("golden-moe-a", "--outtype", "f16")), golden["tokens"], 7), golden["logits"], 5e-6)


def test_each_token_chooses_the_golden_expert(model: Path, golden: Any) -> None:
    ctx = context(model, spike_stats=True, spike_keep_tokens=N, spike_keep_neurons=1)
    decode(ctx, golden["tokens"], 16)
    chosen = sorted(ctx.expert_stats(), key=lambda layer: int(layer["name"].split("-")[1]))
    assert np.array_equal([layer["kept"] for layer in chosen], golden["experts"])
    assert [list(layer["n"]) for layer in chosen] == [list(np.bincount(row, minlength=N_EXPERT)) for row in golden["experts"]]


@pytest.mark.parametrize("scope", [(), ("--spike-scope", "paper")], ids=["released", "paper"])
def test_statistics_tell_choices_and_spikes_of_experts(make: Any, scope: tuple[str, ...]) -> None:
    """The chosen experts; how silent each one's down projection is, recounted from the counts of its tokens."""
    golden = np.load(shared("golden-moe-spike") / "golden.npz")
    with Llama(make("golden-moe-spike", "--outtype", "int8", *scope), spike_stats=True, spike_keep=(N, 1 << 20), n_threads=1, n_threads_batch=1) as llm:
        llm.eval(golden["tokens"])
        stats = llm.spike_stats()
    (chosen,) = stats.experts
    assert chosen.layer == 1 and chosen.n.sum() == N and np.array_equal(chosen.n, np.bincount(chosen.kept, minlength=N_EXPERT))
    assert scope or np.array_equal(chosen.kept, golden["experts"][0])
    held = [i for i in stats.inputs if i.name == "ffn_down_exps"]
    assert len(held) == bool(scope)
    for expert in range(N_EXPERT):
        rows = held[0].kept[chosen.kept == expert] if held else np.zeros((0, 1))
        assert (chosen.silent[expert], chosen.channels[expert]) == ((rows == 0).sum(), rows.size)


def test_sb_spikes_draws_and_lists_the_choices(make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "text.txt").write_text("hello the hello world. " * 9)
    path = make("golden-moe-spike", "--outtype", "int8", "--spike-scope", "paper")
    assert sb_spikes([str(path), "--text", str(tmp_path / "text.txt"), "-t", "1", "--json", str(tmp_path / "out.json"), "--png", str(tmp_path),
                      "--html", str(tmp_path / "out.html")]) == 0
    said, page, held = capsys.readouterr().out, (tmp_path / "out.html").read_text(), json.loads((tmp_path / "out.json").read_text())
    (layer,) = held["experts"]
    assert layer["layer"] == 1 and sum(layer["n"]) == held["n_tokens"]
    for share in layer["share"] + layer["silent_share"]:
        assert share is None or f"{share:.1%}" in said and f"{share:.1%}" in page
    assert base64.b64encode((tmp_path / "experts.png").read_bytes()).decode() in page


@pytest.mark.parametrize("options, which, limit", [
    (("--outtype", "f32"), "logits", 5e-3), (("--outtype", "int8", "--spike-down-type", "f32"), "logits", 5e-3),
    (("--outtype", "f32", "--spike-scope", "paper"), "logits_paper", 5e-3), (("--outtype", "int8", "--spike-scope", "paper"), "logits_paper", 5e-3)],
    ids=["f32-released", "int8-released", "f32-paper", "int8-paper"])
@pytest.mark.parametrize("piece", [96, 7, 1])
def test_golden_spikes(make: Any, options: tuple[str, ...], which: str, limit: float, piece: int) -> None:
    golden, path = np.load(shared("golden-moe-spike") / "golden.npz"), make("golden-moe-spike", *options)
    assert divergence(golden[which], decode(context(path), golden["tokens"], piece)) < limit


@pytest.mark.parametrize("type_, limit", [("q8_0", 0.15), ("q4_0", 0.9)])
def test_chosen_experts_multiply_in_integers(make: Any, golden: Any, type_: str, limit: float) -> None:
    path = make("golden-moe-a", "--outtype", type_)
    whole = decode(context(path), golden["tokens"])
    assert divergence(golden["logits"], whole) < limit
    assert np.array_equal(whole, decode(context(path, n_threads=2, n_threads_batch=2), golden["tokens"]))
    assert divergence(whole, decode(context(path), golden["tokens"], 1)) < 1e-9 + limit / 10


# --- what sequences remember ----------------------------------------------------------------------------------------

def test_two_sequences_each_as_if_alone(model: Path, golden: Any) -> None:
    other = golden["tokens"][::-1].copy()
    want = [golden["logits"], decode(context(model), other)]
    ctx = context(model)
    got = [np.concatenate(rows) for rows in zip(*[[decode(ctx, text[i:i + 8], seq=s) for s, text in enumerate((golden["tokens"], other))] for i in range(0, N, 8)])]
    for s in range(2):
        check(got[s], want[s])


def test_a_copy_goes_on_like_the_original(model: Path, golden: Any) -> None:
    ctx = context(model)
    decode(ctx, golden["tokens"][:50])
    ctx.seq_cp(0, 1)
    decode(ctx, golden["tokens"][:9])
    check(decode(ctx, golden["tokens"][50:], 5, seq=1), golden["logits"][50:])


def test_a_saved_state_goes_on_in_another_process(model: Path, golden: Any, tmp_path: Path) -> None:
    ctx = context(model)
    decode(ctx, golden["tokens"][:50])
    np.save(tmp_path / "state.npy", np.frombuffer(ctx.state_get(0), np.uint8))
    code = f"""
import sys; sys.path.insert(0, {str(ROOT / "tests")!r})
import numpy as np, test_moe
ctx = test_moe.context({str(model)!r})
ctx.state_set(np.load({str(tmp_path / "state.npy")!r}).tobytes(), 1)
np.save({str(tmp_path / "logits.npy")!r}, test_moe.decode(ctx, np.load({str(shared("golden-moe-a") / "golden.npz")!r})["tokens"][50:], 7, seq=1))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    check(np.load(tmp_path / "logits.npy"), golden["logits"][50:])


def test_a_removed_tail_was_never_there(model: Path, golden: Any) -> None:
    ctx = context(model)
    decode(ctx, golden["tokens"][:40])
    decode(ctx, golden["tokens"][:20], 3)
    assert ctx.seq_rm(0, 40, -1)
    check(decode(ctx, golden["tokens"][40:]), golden["logits"][40:])


@pytest.mark.parametrize("how", ["clear", "remove", "take back"])
def test_an_empty_sequence_starts_behind_the_sinks_again(model: Path, golden: Any, how: str) -> None:
    ctx = context(model)
    decode(ctx, golden["tokens"][::-1][:20 if how == "take back" else 60].copy(), 5)
    if how == "clear":
        ctx.clear()
    else:
        assert ctx.seq_rm(0, 0 if how == "take back" else -1, -1)
    assert ctx.seq_pos_max(0) == -1
    check(decode(ctx, golden["tokens"], 7), golden["logits"])


def test_the_first_tokens_can_be_taken_back(model: Path, golden: Any) -> None:
    ctx = context(model)
    decode(ctx, np.concatenate([golden["tokens"][:1], golden["tokens"][::-1][:20]]), 3)
    assert ctx.seq_rm(0, 1, -1) and ctx.seq_pos_max(0) == 0
    check(decode(ctx, golden["tokens"][1:]), golden["logits"][1:])


def test_any_history_agrees_with_the_tokens_computed_anew(model: Path, request: pytest.FixtureRequest) -> None:
    n, driver = request.config.getoption("--histories"), Driver(model, 1e-3)

    @settings(max_examples=n // 2, deadline=None, database=None, derandomize=n == 60, suppress_health_check=list(HealthCheck))
    @given(HISTORY)
    def hold(history: str) -> None:
        driver.run(history)

    try:
        hold()
    finally:
        driver.close()


# --- n_ctx bounds layers that see everything ------------------------------------------------------------------------

def test_a_text_ends_at_n_ctx(model: Path, golden: Any) -> None:
    ctx = context(model, n_ctx=256, n_seq_max=1)
    tokens = np.resize(golden["tokens"], 256)
    decode(ctx, tokens)
    with pytest.raises(RuntimeError, match="n_ctx"):
        decode(ctx, tokens[:1])
    assert ctx.seq_pos_max(0) == 255


def test_a_longer_state_is_refused(model: Path, golden: Any) -> None:
    long, short = context(model, n_ctx=512, n_seq_max=1), context(model, n_ctx=256, n_seq_max=1)
    decode(long, np.resize(golden["tokens"], 300))
    with pytest.raises(RuntimeError, match="n_ctx"):
        short.state_set(long.state_get(0), 0)
    assert short.seq_pos_max(0) == -1
    check(decode(short, golden["tokens"]), golden["logits"])


def test_the_trained_length_is_the_default(model: Path) -> None:
    loaded = _core.Model(str(model))
    assert loaded.n_ctx_train() == int(loaded.metadata()["spikingbrain.context_length"])


def test_a_cache_takes_memory_as_the_text_grows(model: Path) -> None:
    code = f"""
import sys; sys.path.insert(0, {str(ROOT / "tests")!r})
import numpy as np, test_moe
rss = lambda: int(open("/proc/self/statm").read().split()[1])*4096
before = test_moe.context({str(model)!r}, n_ctx=512); low = rss()
ctx = test_moe.context({str(model)!r}, n_ctx=1 << 20, n_seq_max=1)
test_moe.decode(ctx, np.arange(90, dtype=np.int32))
ctx.clear()
test_moe.decode(ctx, np.arange(90, dtype=np.int32))
print(ctx.state_bytes(), rss() - low)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    reserved, used = map(int, done.stdout.split())
    assert reserved > 1 << 30 and used < reserved / 8


def test_the_estimate_has_both_parts(model: Path) -> None:
    short, long = (memory_estimate(model, n_ctx=n) for n in (1024, 2048))
    rows = 2 * 2 * 2 * 32 * 4  # two layers that see everything, K and V of two heads of 32 F32 numbers
    assert long.state - short.state == long.cache - short.cache == 1024 * rows
    assert short.cache == (1024 + N_SINKS) * rows
    with Llama(model, n_ctx=1024) as llm:
        assert llm.state_bytes() == short.state


# --- what is refused -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("key, value", [("spike.enable", True), ("spike.k", 2.0), ("spike.scope", "released"), ("rope.freq_base", 10000.0), ("gla.k_max", 1.0)])
def test_what_the_constants_were_computed_with_cannot_be_overridden(model: Path, key: str, value: Any) -> None:
    with pytest.raises(RuntimeError, match=f"{key}: got an override, expected none"):
        _core.Model(str(model), kv_overrides={f"spikingbrain.{key}": value})
