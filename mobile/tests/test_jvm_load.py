"""The Android library loads models: by path, by descriptor, refused before they fill the memory, freed for good."""

from __future__ import annotations

import os
import re
import shutil

import pytest
from jvm import ROOT, convert, greedy, jvm, large_moe, llama, prompt, spiking, tiny  # noqa: F401

RAN = {"Java API, JNI, native part": "on a desktop JVM (OpenJDK 17, `-Xcheck:jni`, x86-64 Linux)"}


def test_a_descriptor_is_the_same_as_a_path(jvm, spiking):
    by_path = jvm("Loading", "describe", spiking)
    with open(spiking, "rb") as file:
        file.seek(11)
        by_fd = jvm("Loading", "describe", f"fd:{file.fileno()}", fds=[file.fileno()])
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 11
    assert by_fd == by_path
    with llama(spiking) as llm:
        assert by_path["text"] == greedy(llm, "the")
        assert (by_path["n_vocab"], by_path["size"], by_path["state_bytes"], by_path["n_ctx"]) == (
            llm.n_vocab(), llm.model_size(), llm.state_bytes(), llm.n_ctx())


def test_a_descriptor_is_mapped_not_copied(jvm, tiny):
    with open(tiny, "rb") as file:
        said = jvm("Loading", "describe", f"fd:{file.fileno()}", fds=[file.fileno()])
    assert said["maps"] >= said["size"]


@pytest.mark.parametrize("n_ctx, n_batch, n_ubatch, spike", [(0, 512, 512, None), (100, 64, 32, None), (0, 512, 128, True), (0, 2048, 512, False)])
def test_the_estimate_is_pythons(jvm, tiny, spiking, n_ctx, n_batch, n_ubatch, spike):
    from spikingbrain_cpp import memory_estimate
    for path in (tiny, spiking):
        want = memory_estimate(path, n_ctx=n_ctx, n_batch=n_batch, n_ubatch=n_ubatch, spike=spike)
        with open(path, "rb") as file:
            for name, fds in ((path, []), (f"fd:{file.fileno()}", [file.fileno()])):
                said = jvm("Loading", "estimate", name, n_ctx, n_batch, n_ubatch, "none" if spike is None else str(spike).lower(), fds=fds)
                assert said["estimate"] == [want.model, want.state, want.compute, want.output, want.cache]
                assert said["total"] == want.total and said["two"] == 2 * want.total - want.model


def test_go_and_no_go(jvm, tiny):
    said = jvm("Loading", "estimate", tiny, 0, 512, 512, "none")
    assert said["go"] is True and said["no_go"] is False and said["here"] is True
    assert re.fullmatch(r"memory: got \d+ MiB available, expected \d+ MiB; close other apps, .*n_ubatch", said["sentence"])
    available = int(re.search(r"MemAvailable:\s+(\d+)", open("/proc/meminfo").read())[1]) << 10
    assert abs(said["available"] - available) < 1 << 30


def test_a_model_larger_than_the_machine_is_refused_before_it_is_loaded(jvm, tiny, tmp_path):
    gguf = pytest.importorskip("gguf")
    path = tmp_path / "large.gguf"
    make_large(gguf, path, 4 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    said = jvm("Loading", "tooLarge", path)
    assert re.fullmatch(rf"SpikingBrainException: load: {path}: memory: got \d+ MiB available, expected \d+ MiB; close other apps.*", said["failure"])
    assert said["unchecked"] == "none"  # mapped, not read: the caller may know better


@pytest.mark.parametrize("spikes", [False, True])
def test_the_76b_is_refused_with_its_numbers(jvm, tmp_path, spikes):
    """Q4_0, as a file of its size without contents, on a phone of 12 GiB; here, too, where there is no room for it."""
    path = large_moe(tmp_path / "76b.gguf", spikes)
    try:
        said = jvm("Loading", "phone", path, 12 << 30)
        from spikingbrain_cpp import memory_estimate
        want = memory_estimate(path)
    finally:
        path.unlink()
    assert said["estimate"] == [want.model, want.state, want.compute, want.output, want.cache] and want.model > 39 << 30
    assert want.cache > 500 << 20 and said["short"] < want.cache / 20  # of 131072 tokens, of 4096
    needed, cache = (-(-n // 2**20) for n in (want.total + (64 << 20), want.cache))
    numbers = f"expected {needed} MiB, {cache} MiB of them for n_ctx tokens of text; close other apps, or take a smaller model, quantisation, n_ctx or n_ubatch"
    assert said["sentence"] == f"memory: got 12288 MiB available, {numbers}" and said["fits"] is False
    assert said["failure"] == "none" or re.fullmatch(rf"SpikingBrainException: load: {path}: memory: got \d+ MiB available, {numbers}", said["failure"])


def make_large(gguf, path, n_bytes):
    """A sparse GGUF of a plain llama with one huge embedding: a header, and room that the disk does not have."""
    n_embd = 8192
    n_vocab = n_bytes // n_embd // 2
    w = gguf.GGUFWriter(path, "llama")
    for add, value in ((w.add_context_length, 64), (w.add_embedding_length, n_embd), (w.add_block_count, 1), (w.add_feed_forward_length, 32),
                       (w.add_head_count, 64), (w.add_head_count_kv, 64), (w.add_layer_norm_rms_eps, 1e-5), (w.add_vocab_size, n_vocab)):
        add(value)
    w.add_tokenizer_model("none")
    import numpy as np
    shapes = {"token_embd.weight": (n_vocab, n_embd), "output_norm.weight": (n_embd,), "blk.0.attn_norm.weight": (n_embd,), "blk.0.ffn_norm.weight": (n_embd,),
              **{f"blk.0.attn_{k}.weight": (n_embd, n_embd) for k in ("q", "k", "v", "output")},
              "blk.0.ffn_gate.weight": (32, n_embd), "blk.0.ffn_up.weight": (32, n_embd), "blk.0.ffn_down.weight": (n_embd, 32)}
    total = 0
    for name, shape in shapes.items():
        kind, size = (np.float16, 2) if len(shape) == 2 else (np.float32, 4)
        n = size
        for s in shape:
            n *= s
        w.add_tensor_info(name, list(shape), np.dtype(kind), n)
        total += (n + 31) // 32 * 32
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    w.close()
    at = path.stat().st_size
    os.truncate(path, (at + 31) // 32 * 32 + total)


def test_a_thousand_cycles_do_not_grow(jvm, tiny):
    said = jvm("Loading", "cycles", tiny, 1000, heap="24m")
    assert said["late"] - said["early"] < 4096, said  # kB, of 800 cycles: 5 kB each would show


@pytest.mark.parametrize("files, available, want", [
    ({f"cpu{i}/cpu_capacity": c for i, c in enumerate([250] * 4 + [871] * 3 + [1024])}, 8, 4),        # 1 + 3 + 4
    ({f"cpu{i}/cpufreq/cpuinfo_max_freq": c for i, c in enumerate([1800000] * 6 + [2400000] * 2)}, 8, 2),
    ({f"cpu{i}/cpu_capacity": 1024 for i in range(4)}, 4, 4),
    ({f"cpu{i}/cpu_capacity": c for i, c in enumerate([300] * 4 + [1024] * 4)}, 2, 2),   # fewer allowed than there are
    ({}, 6, 6),
    ({"cpu0/cpu_capacity": "what", "cpu1/cpu_capacity": ""}, 3, 3),
])
def test_default_threads_are_the_big_cores(jvm, tmp_path, files, available, want):
    for name, value in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{value}\n")
    (tmp_path / "cpufreq").mkdir()
    assert jvm("Loading", "threads", available, tmp_path)["threads"] == want


CLUSTERS = [  # capacities or MHz of phones, and how many of the fastest count
    ("cpu_capacity", [250] * 4 + [871] * 3 + [1024], 4), ("cpu_capacity", [380] * 6 + [1024] * 2, 2), ("cpu_capacity", [411] * 4 + [1024] * 4, 4),
    ("cpu_capacity", [317] * 3 + [792] * 4 + [1024], 5), ("cpu_capacity", [325] * 2 + [793] * 3 + [832] * 2 + [1024], 6),
    ("cpu_capacity", [160] * 4 + [498] * 2 + [1024] * 2, 2),  # the middle ones have less than half
    ("cpu_capacity", [512] * 4 + [1024] * 4, 0), ("cpu_capacity", [511] * 4 + [1024] * 4, 4), ("cpu_capacity", [1024] * 8, 0),  # 0: all
    ("cpu_capacity", [0] * 4 + [1024] * 4, 0), ("cpu_capacity", [-1] * 8, 0),  # told nothing of some, of any
    ("cpufreq/cpuinfo_max_freq", [1804] * 4 + [2419] * 3 + [2841], 4), ("cpufreq/cpuinfo_max_freq", [5000] * 6 + [5100] * 2, 0),
    ("cpufreq/cpuinfo_max_freq", [900] * 4 + [2000] * 4, 4), ("cpufreq/cpuinfo_max_freq", [600] * 2 + [1000] * 2 + [2400] * 4, 4),
]


def test_big_cores_have_half_of_the_largest_capacity(jvm, tmp_path):
    for n, (file, speeds, _) in enumerate(CLUSTERS):
        for i, speed in enumerate(speeds):
            path = tmp_path / str(n) / f"cpu{i}" / file
            path.parent.mkdir(parents=True)
            path.write_text(f"{speed}\n")
    (tmp_path / "folders" / "cpu0" / "cpu_capacity").mkdir(parents=True)  # not to be read
    said = jvm.list("big", "Loading", "threads", 8, *(tmp_path / str(n) for n in range(len(CLUSTERS))), tmp_path / "folders", tmp_path / "none")
    for (_, speeds, want), big in zip(CLUSTERS, said):
        assert big == list(range(8 - want, 8)) if want else big == [], speeds
    assert said[-2:] == [[], []]


def test_computing_stays_on_the_cpus_asked_for_and_comes_back(jvm, spiking):
    last = max(os.sched_getaffinity(0))
    said = jvm("Loading", "affinity", spiking, last)
    assert said["seen"] is True and said["held"] == [last] and said["after"] == said["before"] != str(last)
    assert said["denied"] == [] and said["anywhere"] == []


def test_a_load_tells_how_far_it_is_and_can_be_ended(jvm, spiking):
    said = jvm("Loading", "progress", spiking, heap="24m")
    assert said["rising"] is True and said["last"] == 1.0 and said["calls"] > 5
    assert said["cancelled"] == "CancelledException: load: got a cancel, expected none; load it again"
    assert said["at_the_end"] == said["cancelled"] and said["thrown"] == "IOException: mine"
    assert said["mapped"] == 0 and said["text"] is True
    assert said["late"] - said["early"] < 16 << 10, said  # kB, of 75 loads that were ended: their weights would be 100 MiB


def test_memory_is_what_the_caller_knows(jvm, tiny):
    said = jvm("Loading", "memory", tiny)
    assert re.fullmatch(rf"SpikingBrainException: load: {tiny}: memory: got 1 MiB available, expected \d+ MiB; .*", said["refused"])
    assert said["go"] == "none" and said["usable"] == [300, 0, 0] and said["wrong"].startswith("IllegalArgumentException: load: available_memory: got -2")


def test_a_split_model_loads_by_its_path_alone(jvm, tiny, prompt, tmp_path):
    convert(ROOT / "examples" / "tiny", tmp_path / "split.gguf", "--outtype", "f32", "--split-max-size", "3M")
    first = sorted(tmp_path.glob("split-00001-of-*.gguf"))[0]
    assert jvm("Loading", "describe", first)["text"] == jvm("Loading", "describe", tiny)["text"]
    jvm("Snapshots", "save", first, prompt, tmp_path / "s")
    with llama(first) as llm:
        llm.restore(tmp_path / "s")
    with open(first, "rb") as file:
        said = jvm.list("load", "Errors", "files", f"fd:{file.fileno()}", fds=[file.fileno()])
    assert "is a part of a split model" in said[0]


def test_system_info_is_pythons(jvm):
    from spikingbrain_cpp import system_info
    said, want = jvm("Loading", "system"), system_info()
    assert said["line"] == want["llama.cpp"] and said["kernels"] == want["spike_kernels"] and said["features"] == len(want["features"])
    assert 1 <= said["default_threads"] <= os.cpu_count()


def test_the_folder_of_cpu_libraries_may_be_named(jvm, tmp_path):
    assert jvm("Loading", "folder", tmp_path)["cpus"] >= 1  # this build links its CPU library


def test_no_jdk_is_said_in_a_sentence(tmp_path):
    import subprocess
    for name in ("make", "sh", "mkdir", "find", "sort", "cmp", "echo", "python3", "touch"):
        (tmp_path / name).symlink_to(shutil.which(name))
    run = subprocess.run(["make", "-o", ".venv/.build-requires", "jni-host"], cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert run.returncode != 0
    assert "jni-host: got no JDK, expected javac; do apt-get install openjdk-17-jdk-headless" in run.stderr
