"""Bad input becomes an exception with our message, never an abort of the process."""

from __future__ import annotations

import os
import re

import pytest
from jvm import jvm, llama, prompt, spiking, tiny  # noqa: F401

RAN = {"Java API, JNI, native part": "on a desktop JVM (OpenJDK 17, `-Xcheck:jni`, x86-64 Linux)"}


def test_files_that_are_no_models(jvm, tiny, tmp_path):
    raw = tiny.read_bytes()
    bad = {"text": b"hello, this is no GGUF at all", "empty": b"", "short": raw[:len(raw) // 2], "header": raw[:100],
           "layers": patched(raw, b"spikingbrain.block_count", (600).to_bytes(4, "little")), "other": raw.replace(b"spikingbrain", b"spikingbrawn")}
    paths = {name: tmp_path / f"{name}.gguf" for name in bad}
    for name, data in bad.items():
        paths[name].write_bytes(data)
    unicode = tmp_path / "no 模型 🙂.gguf"
    unicode.write_bytes(b"x")
    said = jvm.list("load", "Errors", "files", *paths.values(), unicode, tmp_path / "missing.gguf", tmp_path)
    for (name, path), failure in zip(paths.items(), said):
        assert re.match(rf"ModelLoadException: load: {re.escape(str(path))}: got a file that llama.cpp cannot load: ", failure), failure
    assert "spikingbrain.block_count: got 600, expected 1 to 512" in said[4] and "spikingbrawn" in said[5]
    assert str(unicode) in said[6]
    assert all(f.startswith("FileNotFoundException: load: file: got ") for f in said[7:])


def patched(raw: bytes, key: bytes, value: bytes) -> bytes:
    at = raw.index(key) + len(key) + 4  # its type
    return raw[:at] + value + raw[at + 4:]


def test_descriptors_that_are_no_models(jvm, tmp_path):
    (tmp_path / "text").write_text("hello")
    r, w = os.pipe()
    folder, text = os.open(tmp_path, os.O_RDONLY), os.open(tmp_path / "text", os.O_RDONLY)
    try:
        said = jvm.list("load", "Errors", "files", *(f"fd:{fd}" for fd in (text, r, folder, 999)), fds=[r, folder, text])
    finally:
        for fd in (r, w, folder, text):
            os.close(fd)
    assert all(f.startswith("ModelLoadException: load: descriptor ") for f in said), said
    assert "is no file" in said[1] and "is no file" in said[2] and "Bad file descriptor" in said[3]


def test_arguments(jvm, tiny):
    said = jvm.all("Errors", "arguments", tiny)
    found = [v for k, v in said if k == "e"]
    assert all(re.match(r"IllegalArgumentException: [\w: .]+: got .*, expected ", f) for f in found), found
    assert len(found) == 20 and dict(said)["tokens"] == 0


NULLABLE = [  # "Class.method[types] argument": null has a meaning there
    r".*\bProgress(, \w+)*\] \d+", r".*\bLoadProgress\] \d+", r"Parallel\.\w+\[.*Listener\] \d+", r"ModelOptions\.spike(K)?\[.*", r"GenerateOptions\.grammar\[.*",
    r"Tool\.new\[.*\] [12]"]


def test_null_is_refused_in_a_sentence_wherever_it_means_nothing(jvm, tiny, tmp_path):
    said = jvm.list("call", "Nulls", "arguments", tiny, tmp_path)
    assert len(said) > 45
    nullable = [call for call in said if not re.search(r" \d+: IllegalArgumentException: [\w :.]+: got (null|none)", call)]
    for call in nullable:
        name, _, outcome = call.partition(": ")
        assert any(re.fullmatch(pattern, name) for pattern in NULLABLE) and not outcome.startswith("NullPointerException"), call
        types, i = re.search(r"\[(.*)\] (\d+)", name).groups()
        assert "Progress" not in types or "Progress" in types.split(", ")[int(i)], call
    assert len(nullable) > 10


def test_everything_closes_twice(jvm, tiny, tmp_path):
    assert jvm("Errors", "closeTwice", tiny, tmp_path / "s")["all"] is True


def test_n_ctx_bounds_prompt_and_answer(jvm, tiny):
    said = jvm("Errors", "nCtx", tiny)
    with llama(tiny, n_ctx=16) as llm:
        usage = llm.create_completion([0] * 10, max_tokens=None, temperature=0)["usage"]
    assert said["reason"] == "LENGTH" and said["total"] == usage["total_tokens"]


def test_closed_handles(jvm, tiny):
    said = jvm.all("Errors", "closed", tiny)
    found = [v for k, v in said if k == "e"]
    assert len(found) == 7 and all(re.match(r"IllegalStateException: (session|model): got a closed one, expected an open one; ", f) for f in found), found


def test_memory_that_is_not_there(jvm, tiny):
    said = jvm("Errors", "memory", tiny, 1 << 30)
    assert said["e"].startswith("SpikingBrainException: "), said["e"]
    assert said["tokens"] == 1


def test_spike_options_of_a_model_that_does_not_spike(jvm, tiny):
    said = jvm.all("Errors", "spikes", tiny)
    found = [v for k, v in said if k == "e"]
    assert [f.split(":")[0] for f in found] == ["IllegalArgumentException"] * 3 + ["SpikingBrainException"]
    assert dict(said)["spiking"] is False


@pytest.mark.parametrize("k", [3.0, 2.0])
def test_spike_statistics_are_pythons(jvm, spiking, prompt, k):
    said = jvm.all("Errors", "stats", spiking, prompt, k)
    with llama(spiking, n_ubatch=512, spike=True, spike_k=k, spike_stats=True) as llm:
        llm.eval(llm.tokenize(prompt.read_text(encoding="utf-8"), special=True))
        stats = llm.spike_stats()
    m = stats.model()
    one = dict(said)
    assert one["head"] == [stats.n_tokens, stats.n_refused, len(stats.inputs)] and one["scope"] == stats.scope
    assert one["counts"] == [m.n, m.largest, m.n_over, m.spikes]
    assert [v for n, v in said if n == "figure"] == [m.share_to_7, m.share_above_16, m.silent_share, m.mean_spikes, m.sparsity, m.sparsity_to_7]
    assert [v for n, v in said if n == "bins"] == [i.counts.bins.tolist() for i in stats.inputs]
    assert [v for n, v in said if n == "input"] == [
        f"{i.layer} {i.name} {i.n} {i.n_tokens} [{', '.join(i.projections)}]" for i in stats.inputs]
    assert [v for n, v in said if n == "layer"] == [h.sparsity for h in stats.by_layer().values()]
