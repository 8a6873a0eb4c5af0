"""The same logits as the reference, however the tokens come."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from binding_models import N_GOLDEN, ONE, convert, expected, golden, logits_of, make_tiny, tiny, tokens_of  # noqa: F401

from spikingbrain_cpp import Llama, ModelLoadError, _core

BOUND = 2e-3  # of every logit, F32 weights and window: checkpoint-format.md


def agree(got: np.ndarray, want: np.ndarray, bound: float = BOUND) -> None:
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= bound
    assert (got.argmax(1) == want.argmax(1)).all()


@pytest.mark.parametrize("piece", [N_GOLDEN, 7, 1])
@pytest.mark.parametrize("batch", [dict(), dict(n_batch=13), dict(n_batch=32, n_ubatch=8), dict(n_batch=5, n_ubatch=5)])
def test_golden_logits_in_pieces(golden, expected, piece, batch):  # noqa: F811
    tokens, logits = expected
    with Llama(golden, logits_all=True, **ONE, **batch) as llm:
        for i in range(0, tokens.size, piece):
            llm.eval(tokens[i:i + piece])
        agree(llm.scores, logits)


def test_golden_logits_with_two_threads(golden, expected):  # noqa: F811
    tokens, logits = expected
    agree(logits_of(golden, tokens, n_threads=2, n_threads_batch=2), logits)


def test_last_row_without_logits_all(golden, expected):  # noqa: F811
    tokens, logits = expected
    with Llama(golden, n_batch=10, **ONE) as llm:
        for n in (1, 40, 96):
            llm.eval(tokens[llm.n_tokens:n])
            agree(llm.logits[None], logits[n - 1:n])


def two_sequences(path, n_outputs_max=64, **options) -> tuple[_core.Model, _core.Context]:
    model = _core.Model(str(path))
    return model, _core.Context(model, n_seq_max=2, n_batch=64, n_outputs_max=n_outputs_max, **options)


def test_two_sequences_interleaved(golden, expected):  # noqa: F811
    tokens, logits = expected
    _, ctx = two_sequences(golden)
    other = tokens[::-1].copy()
    alone = logits_of(golden, other)
    got: tuple[list, list] = ([], [])
    at = [0, 0]
    for step in (1, 7, 3, 1, 20, 1, 1, 30, 30, 30):
        pieces = [(s, t[at[s]:at[s] + n]) for s, t, n in ((0, tokens, step), (1, other, step + s_extra(step)))]
        ids = np.concatenate([p for _, p in pieces]).astype(np.int32)
        pos = np.concatenate([np.arange(at[s], at[s] + p.size) for s, p in pieces]).astype(np.int32)
        seq = np.concatenate([np.full(p.size, s) for s, p in pieces]).astype(np.int32)
        if not ids.size:
            break
        rows = ctx.decode_batch(ids, pos, seq, np.ones(ids.size, np.int8))
        for s, p in pieces:
            got[s].append(rows[seq == s])
            at[s] += p.size
    agree(np.concatenate(got[0]), logits[:at[0]])
    agree(np.concatenate(got[1]), alone[:at[1]])
    assert min(at) == N_GOLDEN


def s_extra(step: int) -> int:
    return 2 if step == 3 else 0  # unequal lengths in one batch


@pytest.mark.parametrize("unified", [False, True])
def test_copied_sequence_continues_alike(golden, expected, unified):  # noqa: F811
    tokens, logits = expected
    _, ctx = two_sequences(golden, kv_unified=unified)
    half = 50
    ctx.decode(tokens[:half], 0, 0)
    ctx.seq_cp(0, 1)
    ctx.decode(tokens[::-1][:20].copy(), half, 0)  # the original goes elsewhere; the copy must not notice
    rows = np.empty((N_GOLDEN - half, logits.shape[1]), np.float32)
    ctx.decode(tokens[half:], half, 1, rows)
    agree(rows, logits[half:])


NEW_PROCESS = """
import sys, numpy as np
from spikingbrain_cpp import Llama, LlamaState
model, state, tokens, out = sys.argv[1:]
with Llama(model, logits_all=True, n_threads=1, n_threads_batch=1) as llm:
    saved = LlamaState.from_bytes(open(state, "rb").read())
    llm.load_state(saved)
    assert llm.n_evaluated == 0 and llm.n_tokens == saved.n_tokens
    first = llm.logits
    llm.eval(np.load(tokens))
    np.save(out, np.concatenate([first[None], llm.scores[saved.n_tokens:]]))
"""


@pytest.mark.parametrize("half", [1, 20, 48, 90])
def test_saved_and_restored_in_a_new_process(golden, expected, tmp_path, half):  # noqa: F811
    tokens, logits = expected
    with Llama(golden, **ONE) as llm:
        llm.eval(tokens[:half])
        (tmp_path / "state").write_bytes(llm.save_state().to_bytes())
    np.save(tmp_path / "tokens.npy", tokens[half:])
    subprocess.run([sys.executable, "-c", NEW_PROCESS, golden, tmp_path / "state", tmp_path / "tokens.npy",
                    tmp_path / "out.npy"], check=True, timeout=120)
    agree(np.load(tmp_path / "out.npy"), logits[half - 1:])


SHAPES = [
    dict(),
    dict(gate_rank=0, num_attention_heads=4, num_key_value_heads=1),
    dict(num_hidden_layers=5, attn_layers=[0, 3], sliding_window=5, num_key_value_heads=4),
    dict(num_hidden_layers=3, attn_layers=[], hidden_size=96, num_attention_heads=6, num_key_value_heads=3),
    dict(num_hidden_layers=2, attn_layers=[0, 1], tie_word_embeddings=True, sliding_window=1),
    dict(hidden_size=128, num_attention_heads=2, num_key_value_heads=1, intermediate_size=160, rope_theta=1e4),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_other_shapes_against_the_reference(tmp_path, shape):
    torch = pytest.importorskip("torch")
    from sb_convert.reference import Model
    path = make_tiny(tmp_path, **shape)
    tokens = tokens_of(70)
    with torch.no_grad():
        want = Model.from_pretrained(tmp_path / "checkpoint")(torch.from_numpy(tokens.astype(np.int64))[None])[0][0].numpy()
    agree(logits_of(path, tokens), want)
    agree(logits_of(path, tokens, n_batch=3, n_ubatch=2), want)


@pytest.mark.parametrize("outtype", ["f16", "bf16", "q8_0", "q4_0"])
def test_every_type_gives_the_same_in_pieces(tmp_path, outtype):
    """Batched and single-token kernels differ in rounding only; the window is F16 here."""
    path = make_tiny(tmp_path, outtype, hidden_size=128, intermediate_size=256)
    tokens = tokens_of(40)
    whole = logits_of(path, tokens)
    with Llama(path, logits_all=True, **ONE) as llm:
        for t in tokens:
            llm.eval([t])
        single = llm.scores.copy()
    assert np.abs(whole - single).max() <= 0.05 * np.abs(whole).max()


def test_split_files_load(tmp_path):
    whole = make_tiny(tmp_path, hidden_size=256, intermediate_size=512, num_attention_heads=4)
    convert(tmp_path / "checkpoint", tmp_path / "split.gguf", "--outtype", "f32", "--split-max-size", "1M")
    parts = sorted(tmp_path.glob("split-0*.gguf"))
    assert len(parts) > 3
    tokens = tokens_of(20)
    assert np.array_equal(logits_of(parts[0], tokens), logits_of(whole, tokens))
    parts[-1].unlink()
    with pytest.raises(ModelLoadError, match="split"):
        Llama(parts[0], **ONE)
