"""Bad files and arguments are Python exceptions; none ends the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from binding_models import ONE, tiny, tokens_of  # noqa: F401

from spikingbrain_cpp import Llama, LlamaError, ModelLoadError, ModelNotFoundError, _core, memory_estimate

# loads each file given on standard input and reports; an abort of llama.cpp would end it before "all done"
LOADER = """
import sys
from spikingbrain_cpp import Llama
for line in sys.stdin:
    path = line.rstrip("\\n")
    try:
        with Llama(path, n_threads=1, n_threads_batch=1) as llm:
            llm.eval([1, 2, 3])
        print("loaded", path)
    except (ValueError, RuntimeError) as error:
        assert str(error).startswith("llama: ") or "decode" in str(error), error
        print("refused", path, "|", error)
print("all done")
"""


def load_each(paths: list[Path]) -> dict[str, str]:
    """{file name: "loaded" or "refused ..."}, in one child process."""
    done = subprocess.run([sys.executable, "-c", LOADER], input="\n".join(map(str, paths)), text=True, capture_output=True, timeout=300)
    assert done.returncode == 0 and done.stdout.endswith("all done\n"), (done.returncode, done.stdout[-500:], done.stderr[-2000:])
    lines = done.stdout.splitlines()[:-1]
    return {path.name: line for path, line in zip(paths, lines, strict=True)}


def test_cut_short_anywhere(tiny, tmp_path):  # noqa: F811
    raw = tiny.read_bytes()
    data = gguf.GGUFReader(tiny).data_offset
    rng = np.random.default_rng(0)
    cuts = sorted({0, 1, 3, 4, 8, 23, 24, 25, data - 1, data, data + 1, len(raw) // 2, len(raw) - 1,
                   *rng.integers(0, data, 60).tolist(), *rng.integers(data, len(raw), 20).tolist()})
    paths = []
    for n in cuts:
        paths.append(tmp_path / f"{n}.gguf")
        paths[-1].write_bytes(raw[:n])
    for name, line in load_each(paths).items():
        assert line.startswith("refused"), name


def scalar_mutations(path: Path) -> list[tuple[str, int, bytes]]:
    """(key, offset, bytes to write) for every number, flag and array of the header."""
    kinds = {gguf.GGUFValueType.UINT32: ("<u4", [0, 1, 3, 513, 2**31, 2**32 - 1]),
             gguf.GGUFValueType.FLOAT32: ("<f4", [0, -1, np.nan, np.inf])}
    out = []
    for field in gguf.GGUFReader(path).fields.values():
        if field.name.startswith("GGUF."):
            continue
        type_at = field.offset + field.parts[0].nbytes + field.parts[1].nbytes
        value_at = type_at + 4
        if field.types[0] in kinds:
            dtype, values = kinds[field.types[0]]
            out += [(field.name, value_at, np.array(v, dtype).tobytes()) for v in values]
        elif field.types[0] == gguf.GGUFValueType.ARRAY:
            out += [(field.name, value_at, np.array(t, "<u4").tobytes()) for t in (0, 4, 5, 6, 8)]
            out += [(field.name, value_at + 4, np.array(n, "<u8").tobytes()) for n in (0, 1, 2**40)]
        out += [(field.name, type_at, np.array(t, "<u4").tobytes()) for t in (4, 8, 99)]
    return out


def test_wrong_metadata(tiny, tmp_path):  # noqa: F811
    raw = tiny.read_bytes()
    paths = []
    for i, (key, at, value) in enumerate(scalar_mutations(tiny)):
        paths.append(tmp_path / f"{i}-{key}.gguf")
        paths[-1].write_bytes(raw[:at] + value + raw[at + len(value):])
    results = load_each(paths)
    assert len(results) > 150
    for key in ("block_count", "attention.head_count", "embedding_length", "attention.sliding_window"):
        assert any(f"spikingbrain.{key}.gguf" in name and line.startswith("refused") for name, line in results.items()), key


def test_flipped_bytes_of_the_header(tiny, tmp_path):  # noqa: F811
    raw = tiny.read_bytes()
    data = gguf.GGUFReader(tiny).data_offset
    rng = np.random.default_rng(1)
    paths = []
    for i in range(150):
        bad = bytearray(raw)
        for at in rng.integers(0, data, rng.integers(1, 4)):
            bad[at] = rng.integers(0, 256)
        paths.append(tmp_path / f"{i}.gguf")
        paths[-1].write_bytes(bad)
    load_each(paths)


def test_other_files(tmp_path):
    (tmp_path / "text.gguf").write_text("not a model")
    (tmp_path / "empty.gguf").write_bytes(b"")
    for name in ("text.gguf", "empty.gguf"):
        with pytest.raises(ModelLoadError, match=f"llama: .*{name}: got a file that llama.cpp cannot load"):
            Llama(tmp_path / name)
    for missing in (tmp_path / "none.gguf", tmp_path, "", "/dev/null"):
        with pytest.raises(ModelNotFoundError, match="expected a GGUF file"):
            Llama(missing)
    assert issubclass(ModelNotFoundError, ValueError) and issubclass(ModelNotFoundError, FileNotFoundError)


def test_another_architecture_says_which(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "no_such_arch")
    writer.add_block_count(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelLoadError, match="no_such_arch"):
        Llama(tmp_path / "other.gguf")


@pytest.mark.parametrize("options, error", [
    ({"n_batch": 0}, ValueError), ({"n_ubatch": -1}, ValueError), ({"n_ctx": -1}, ValueError), ({"n_ctx": 2**31}, ValueError),
    ({"n_threads": -1}, ValueError), ({"n_threads": 100_000}, ValueError), ({"n_threads_batch": 1.5}, TypeError),
    ({"n_batch": "8"}, TypeError), ({"n_batch": True}, TypeError), ({"n_gpu_layers": 1}, ValueError), ({"seed": 2**40}, ValueError),
    ({"type_k": 1}, ValueError), ({"type_v": 8}, LlamaError), ({"type_k": 999}, ValueError), ({"type_v": -7}, ValueError), ({"last_n_tokens_size": -1}, ValueError),
    ({"kv_overrides": {"a" * 128: 1}}, ValueError), ({"kv_overrides": {"a": None}}, ValueError),
    ({"kv_overrides": {"a": "b" * 128}}, ValueError), ({"kv_overrides": {"spikingbrain.block_count": 0}}, ModelLoadError),
    ({"kv_overrides": {"spikingbrain.block_count": "two"}}, ModelLoadError),
    ({"kv_overrides": [1]}, TypeError), ({"kv_overrides": {1: 1}}, TypeError), ({"type_k": "f16"}, TypeError), ({"seed": "x"}, TypeError),
    ({"seed": None}, TypeError), ({"seed": 1.5}, TypeError), ({"lora_scale": float("nan")}, ValueError), ({"lora_scale": "x"}, TypeError),
    ({"flash_attn": "yes"}, ValueError), ({"n_batch": 2**30, "n_ubatch": 2**30}, ValueError), ({"lora_path": 5}, TypeError),
    ({"flash_attn": False}, ValueError), ({"draft_model": 3}, ValueError), ({"no_such_thing": 1}, TypeError),
])
def test_arguments_of_the_constructor(tiny, options, error):  # noqa: F811
    with pytest.raises(error, match=": got "):
        Llama(tiny, **{**ONE, **options})


@pytest.mark.parametrize("path", [None, 5, b"model.gguf"])
def test_paths_that_are_none(path):
    with pytest.raises(TypeError, match="model_path: got .*, expected a path"):
        Llama(path)
    with pytest.raises(TypeError, match="model_path: got .*, expected a path"):
        memory_estimate(path)


# what has a check of its own nowhere else; each is named in our words and leaves a session that goes on
CALLS = {
    "prompt None": lambda m: m(None), "prompt 0-d": lambda m: m(np.array(5)), "detokenize None": lambda m: m.detokenize(None),
    "seed text": lambda m: m("a", seed="x"), "seed 1.5": lambda m: m("a", seed=1.5), "set_seed None": lambda m: m.set_seed(None),
    "cancel 5": lambda m: m("a", cancel=5), "progress 5": lambda m: m("a", progress=5), "eval cancel 5": lambda m: m.eval([1], cancel=5),
    "eval progress 5": lambda m: m.eval([1], progress=5), "sample idx": lambda m: m.sample(idx="x"), "bias inf": lambda m: m("a", logit_bias={1: 1e39}),
    "many None": lambda m: m.generate_many(None), "many [None]": lambda m: m.generate_many([None]), "many stop": lambda m: m.generate_many(["a"], stop=""),
    "batch -1": lambda m: m.batch(-1), "batch 10**6": lambda m: m.batch(10**6), "snapshot 5": lambda m: m.snapshot(5),
    "template 5": lambda m: m.apply_chat_template([{"role": "user", "content": "a"}], template=5),
    "estimate n_ubatch": lambda m: memory_estimate(m.model_path, n_batch=2**30, n_ubatch=2**30),
    "estimate type_k": lambda m: memory_estimate(m.model_path, type_k="f16"),
}


@pytest.mark.parametrize("call", CALLS)
def test_wrong_arguments_are_named_and_change_nothing(tiny, call):  # noqa: F811
    with Llama(tiny, **ONE) as llm:
        llm.eval([1, 2])
        row = llm.logits
        with pytest.raises((TypeError, ValueError), match=": got .*, expected "):
            CALLS[call](llm)
        assert llm.n_tokens == 2 and np.array_equal(llm.logits, row)
        llm.eval([3])


@pytest.mark.parametrize("call", [lambda m: m.eval([4]), lambda m: m("hello"), lambda m: next(m.generate([1, 2, 3])),
                                  lambda m: m.generate_many(["hello"])])
def test_a_failure_of_llama_cpp_is_ours(tiny, monkeypatch, call):  # noqa: F811
    def fails(*_):
        raise RuntimeError("decode: llama.cpp: got code -3, expected success")
    with Llama(tiny, **ONE) as llm:
        llm.eval([1, 2])
        with monkeypatch.context() as m:
            m.setattr(_core.Context, "decode", fails)
            m.setattr(_core.Context, "decode_batch", fails)
            with pytest.raises(LlamaError, match="got code -3"):
                call(llm)
        llm.reset()
        llm.eval([1])


def test_more_prompts_at_once_than_llama_cpp_has_sequences(tiny):  # noqa: F811
    with Llama(tiny, **ONE) as llm:
        answers = llm.generate_many([[1, 2]] * 300, n_parallel=10**6, max_tokens=1, temperature=0)
        assert len(answers) == 300 and len({tuple(a["tokens"]) for a in answers}) == 1


def test_gpu_layers_that_mean_nothing_are_accepted(tiny):  # noqa: F811
    for n in (0, -1):
        Llama(tiny, n_gpu_layers=n, **ONE).close()


def test_tokens_that_are_none(tiny):  # noqa: F811
    with Llama(tiny, **ONE) as llm:
        llm.eval(tokens_of(3))
        for tokens, error in (([], ValueError), ([288], ValueError), ([-1], ValueError), ([2**40], ValueError), ([1.0], TypeError),
                              (["a"], TypeError), ([[1, 2]], TypeError), ([True], TypeError), (None, TypeError), (5, TypeError)):
            with pytest.raises(error):
                llm.eval(tokens)
        assert llm.n_tokens == 3
        for call in (lambda: llm.detokenize([288]), lambda: llm.generate([]), lambda: llm.generate([288])):
            with pytest.raises(ValueError):
                call()
        with pytest.raises(TypeError, match="expected bytes or str"):
            llm.tokenize(5)
        llm.eval([1])


def test_a_vocabulary_alone_does_not_evaluate(tiny):  # noqa: F811
    with Llama(tiny, vocab_only=True) as llm:
        assert llm.tokenize(b"hello") and llm.n_vocab() == 288 and llm.n_embd() == 64
        for call in (lambda: llm.eval([1]), lambda: llm("a"), llm.save_state, lambda: llm.n_tokens):
            with pytest.raises(LlamaError, match="vocab_only"):
                call()


def test_logits_that_are_no_numbers_are_said(tiny):  # noqa: F811
    with Llama(tiny, **ONE) as llm:
        llm.eval([1])
        for value in (np.nan, -np.inf):
            with pytest.raises(RuntimeError, match="sample: logits"):
                llm.sample(logits_processor=lambda ids, row: np.full_like(row, value))
        assert 0 <= llm.sample() < 288


def test_verbose_prints_and_quiet_does_not(tiny):  # noqa: F811
    code = "import sys; from spikingbrain_cpp import Llama; Llama(sys.argv[1], verbose=sys.argv[2] == '1')"
    said = [subprocess.run([sys.executable, "-c", code, tiny, v], capture_output=True, text=True, check=True) for v in "01"]
    assert said[0].stderr == said[0].stdout == "" and "llama_model_loader" in said[1].stderr
