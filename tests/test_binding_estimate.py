"""What memory_estimate says of a header is what is then used; nothing but the header is needed."""

from __future__ import annotations

import os
import subprocess
import sys

import gguf
import numpy as np
import pytest
from binding_models import ONE, make_tiny, tiny  # noqa: F401
from gguf_parts import Parts
from other_models import write_transformer

from spikingbrain_cpp import Llama, ModelLoadError, ModelNotFoundError, memory_estimate, system_info

# MiB of resident memory that a loaded model adds, its state, buffers and all pages of its weights touched
MEASURE = """
import sys
import numpy as np
from spikingbrain_cpp import Llama
def resident():
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmRSS")) / 1024
with Llama(sys.argv[1], n_threads=1, n_threads_batch=1) as llm:  # the libraries' own pages
    llm.eval([1] * 8)
before = resident()
llm = Llama(sys.argv[2], n_threads=1, n_threads_batch=1, use_mmap=False)
llm.eval(np.ones(1030, np.int32))
print(resident() - before)
"""


@pytest.mark.parametrize("outtype", ["f16", "q8_0"])
def test_within_five_percent_of_what_is_used(tiny, tmp_path, outtype):  # noqa: F811
    path = make_tiny(tmp_path, outtype, hidden_size=512, intermediate_size=1536, num_hidden_layers=8, attn_layers=[1, 3, 5, 7],
                     num_attention_heads=8, vocab_size=8000, sliding_window=512)
    said = memory_estimate(path).total / 2**20
    done = subprocess.run([sys.executable, "-c", MEASURE, tiny, path], capture_output=True, text=True, check=True)
    assert abs(float(done.stdout) - said) < 0.05 * said + 1, (done.stdout, said)  # 1 MiB: the allocator's own


def test_the_state_is_what_the_model_allocates(tiny):  # noqa: F811
    for options in ({}, {"n_ubatch": 64}, {"n_ctx": 5000}, {"type_k": 0, "type_v": 0}):
        with Llama(tiny, **options, **ONE) as llm:
            assert memory_estimate(tiny, **options).state == llm.state_bytes()
    assert memory_estimate(tiny, n_seq=3).state == pytest.approx(3 * memory_estimate(tiny).state, rel=0.01)
    assert memory_estimate(tiny, logits_all=True).output == 512 * memory_estimate(tiny).output


def test_a_header_alone_is_enough(tiny, tmp_path):  # noqa: F811
    raw, data = tiny.read_bytes(), gguf.GGUFReader(tiny).data_offset
    (tmp_path / "header.gguf").write_bytes(raw[:data])
    assert memory_estimate(tmp_path / "header.gguf") == memory_estimate(tiny)
    other = write_transformer(tmp_path / "llama.gguf", tiny)
    assert memory_estimate(other, n_ctx=4096).state > 4 * memory_estimate(other, n_ctx=512).state  # a cache that grows


@pytest.mark.parametrize("rows", [2**40, 2**50, 2**55])
def test_a_header_of_more_than_a_file_can_hold_is_refused(tiny, tmp_path, rows):  # noqa: F811
    parts = Parts(tiny)
    dims, _, data = parts.tensors.pop("token_embd.weight")
    parts.tensors["token_embd.weight"] = ([dims[0], rows], gguf.GGMLQuantizationType.F32, data[:32])
    with pytest.raises(ModelLoadError, match="memory_estimate: .*big.gguf: got "):
        memory_estimate(parts.write(tmp_path / "big.gguf"))


def test_gigabytes_are_estimated_without_reading_them(tmp_path, tiny):  # noqa: F811
    """The 7B's shape, as a header whose tensors are not there."""
    writer = gguf.GGUFWriter(tmp_path / "7b.gguf", "spikingbrain")
    small = gguf.GGUFReader(tiny)
    e, ff, d, kv, n_layer, n_vocab = 3584, 18944, 128, 512, 28, 152064
    sizes = {"block_count": n_layer, "embedding_length": e, "feed_forward_length": ff, "attention.head_count": 28,
             "attention.head_count_kv": 4, "attention.sliding_window": 4096, "context_length": 32768, "vocab_size": n_vocab}
    for field in small.fields.values():
        name = field.name.removeprefix("spikingbrain.")
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        value = field.contents()
        if name in sizes:
            value = sizes[name]
        elif name in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
            value = d
        elif isinstance(value, list) and len(value) == 2 and field.name.startswith("spikingbrain."):
            value = value * (n_layer // 2)
        elif field.name == "tokenizer.ggml.tokens":
            value = value + [f"[more {i}]" for i in range(n_vocab - len(value))]
        elif field.name == "tokenizer.ggml.token_type":
            value = value + [1] * (n_vocab - len(value))
        kind, sub = field.types[0], field.types[-1]
        writer.add_key_value(field.name, value, kind, sub_type=sub if kind == gguf.GGUFValueType.ARRAY else None)
    wide = {64: e, 96: ff, 32: kv, 288: n_vocab, 16: 16}
    n_bytes = 0
    for t in small.tensors:
        shape = [wide[int(n)] for n in reversed(t.shape)] if not t.name.endswith("ssm_norm.weight") else [d]
        for il in range(n_layer // 2) if t.name.startswith("blk.") else [0]:
            name = t.name.replace("blk.0.", f"blk.{2 * il}.").replace("blk.1.", f"blk.{2 * il + 1}.")
            dtype = np.dtype(np.float32 if len(shape) == 1 else np.float16)  # norms and biases are F32
            writer.add_tensor_info(name, shape, dtype, dtype.itemsize * int(np.prod(shape)))
            n_bytes += dtype.itemsize * int(np.prod(shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    raw = (tmp_path / "7b.gguf").read_bytes()
    (tmp_path / "7b.gguf").write_bytes(raw + bytes(-len(raw) % 32))  # to where the tensors would begin
    said = memory_estimate(tmp_path / "7b.gguf")
    assert said.model == pytest.approx(n_bytes, rel=0.01) and n_bytes > 14e9
    assert said.state == pytest.approx(146.1 * 2**20, rel=0.01)  # as state_bytes() of that shape, see cpp_backend/README.md


@pytest.mark.parametrize("options, error", [
    ({"n_ctx": -1}, ValueError), ({"n_batch": 0}, ValueError), ({"n_ubatch": 2**40}, ValueError), ({"n_seq": "2"}, TypeError),
    ({"n_seq": 0}, ValueError), ({"n_seq": 10**6}, ModelLoadError), ({"type_k": 2}, ModelLoadError)])
def test_wrong_arguments(tiny, options, error):  # noqa: F811
    with pytest.raises(error, match="memory_estimate"):
        memory_estimate(tiny, **options)


def test_other_files(tmp_path):
    with pytest.raises(ModelNotFoundError, match="memory_estimate"):
        memory_estimate(tmp_path / "none.gguf")
    (tmp_path / "text.gguf").write_text("no model")
    with pytest.raises(ModelLoadError, match="memory_estimate"):
        memory_estimate(tmp_path / "text.gguf")


def test_system_info_says_which_kernels_run():
    info = system_info()
    assert info["cpus"] >= 1 and info["spike_kernels"] in ("zen4", "avx512", "avxvnni", "avx2", "i8mm", "dotprod", "generic") and all(info["features"])
    code = "import spikingbrain_cpp; print(spikingbrain_cpp.system_info()['spike_kernels'])"
    forced = subprocess.run([sys.executable, "-c", code], env={"SPIKINGBRAIN_ISA": "generic"}, capture_output=True, text=True, check=True)
    assert forced.stdout.strip() == "generic"


def test_a_header_leaves_no_copy_behind(tiny, tmp_path, monkeypatch):  # noqa: F811
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    header = tmp_path / "header.gguf"
    header.write_bytes(tiny.read_bytes()[:gguf.GGUFReader(tiny).data_offset])
    assert memory_estimate(header) == memory_estimate(tiny)
    with pytest.raises(ModelLoadError):
        memory_estimate(header, type_k=2)
    assert not list((tmp_path / "tmp").iterdir())


def test_cpus_are_those_that_this_process_may_use():
    before = os.sched_getaffinity(0)
    try:
        for cpus in (before, {min(before)}):
            os.sched_setaffinity(0, cpus)
            assert system_info()["cpus"] == len(cpus)
    finally:
        os.sched_setaffinity(0, before)
