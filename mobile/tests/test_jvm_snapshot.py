"""Snapshots: read by another process without evaluating anything, by Python and from Python, whole or not at all."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time

import pytest
from jvm import ROOT, convert, greedy, jvm, llama, prompt, spiking, tiny  # noqa: F401

RAN = {"Java API, JNI, native part": "on a desktop JVM (OpenJDK 17, `-Xcheck:jni`, x86-64 Linux)"}


def test_restored_in_another_process_nothing_is_evaluated(jvm, spiking, prompt, tmp_path):
    saved = jvm("Snapshots", "save", spiking, prompt, tmp_path / "s.snapshot")
    said = jvm("Snapshots", "restore", spiking, prompt, tmp_path / "s.snapshot")
    assert said["restore"] == "none" and said["held"] == saved["n"]
    assert said["evaluated"] == 0 and said["text"] == saved["text"]


@pytest.mark.parametrize("options, args", [({}, []), ({"spike": False}, ["false"]), ({"spike_k": 2.0}, ["true", "2.0"]), ({"spike": True, "spike_k": 3.0}, ["true", "3"])])
def test_java_and_python_write_the_same_bytes(jvm, spiking, prompt, tmp_path, options, args):
    text = prompt.read_text(encoding="utf-8")
    saved = jvm("Snapshots", "save", spiking, prompt, tmp_path / "java", *args)
    with llama(spiking, **options) as llm:
        llm.eval(llm.tokenize(text, special=True))
        llm.snapshot(tmp_path / "python")
        want = greedy(llm, text)
    assert saved["text"] == want
    assert (tmp_path / "java").read_bytes() == (tmp_path / "python").read_bytes()
    with llama(spiking, **options) as llm:
        llm.restore(tmp_path / "java")
        assert greedy(llm, text) == want and llm.n_evaluated == 23  # the last one chosen is not read
    said = jvm("Snapshots", "restore", spiking, prompt, tmp_path / "python", *args)
    assert said["restore"] == "none" and said["evaluated"] == 0 and said["text"] == want


def test_a_descriptor_has_the_same_fingerprint(jvm, spiking, prompt, tmp_path):
    by_path = jvm("Snapshots", "save", spiking, prompt, tmp_path / "a")
    with open(spiking, "rb") as file:
        by_fd = jvm("Snapshots", "save", f"fd:{file.fileno()}", prompt, tmp_path / "b", fds=[file.fileno()])
    assert by_fd == by_path
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("n", [1023, 1024, 2048, 3500])
def test_a_long_sequence_is_known_by_its_tail_and_a_hash(jvm, tiny, tmp_path, n):
    said = jvm("Snapshots", "longer", tiny, tmp_path / "s", n)
    base = max(0, n // 1024 - 1) * 1024
    assert said["unknown"] == base and said["same_tail"] is True
    assert said["extended"] == 2 and said["other"] == n + 2
    assert (tmp_path / "s").read_bytes() == (tmp_path / "s.second").read_bytes()
    with llama(tiny) as llm:
        llm.restore(tmp_path / "s")
        assert llm.n_tokens == n


def test_what_is_no_snapshot_of_this_model_is_refused(jvm, tiny, spiking, prompt, tmp_path):
    good = tmp_path / "good"
    jvm("Snapshots", "save", tiny, prompt, good)
    other, long = tmp_path / "other", tmp_path / "long"
    jvm("Snapshots", "save", spiking, prompt, other)
    jvm("Snapshots", "longer", tiny, long, 2100)
    raw = good.read_bytes()
    files = {"short": raw[:-100], "flipped": raw[:3000] + bytes([raw[3000] ^ 1]) + raw[3001:], "version": raw[:8] + b"\x09" + raw[9:], "empty": b"",
             "text": b"no snapshot at all, but long enough for a head and its sum......"}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    header = raw[16:16 + int.from_bytes(raw[12:16], "little")]
    for name, old, new in (("counts", b'"n_data": ', b'"n_data": 9'), ("nested", b'{"finger', b'{"x":{},"finger'), ("negative", b'"n_tail": ', b'"n_tail": -')):
        (tmp_path / name).write_bytes(resealed(raw, header.replace(old, new, 1)[:len(header)]))
    names = ["short", "flipped", "version", "empty", "text", "counts", "nested", "negative", "other", "long", "missing"]
    said = jvm.all("Snapshots", "refuse", tiny, *(tmp_path / n for n in names))
    failures = dict(zip(names, [v for k, v in said if k == "failure"]))
    assert all(v == [5, 6] for k, v in said if k == "tokens")
    for name, words in {"short": "checksum", "flipped": "checksum", "version": "version: got 9, expected 3", "empty": "got 0 bytes", "text": "expected \"SBSNAP\"",
                        "counts": "header", "nested": "header", "negative": "header", "other": "model: got a snapshot of", "long": "n_ctx=300"}.items():
        assert failures[name].startswith("IOException: ") and words in failures[name], (name, failures[name])
    assert failures["missing"].startswith("NoSuchFileException: ")


def resealed(raw: bytes, header: bytes) -> bytes:
    import hashlib
    body = raw[:16] + header + raw[16 + len(header):-32]
    return body + hashlib.sha256(body).digest()


def test_a_full_disk_leaves_what_was_there(jvm, tiny, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)], capture_output=True).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        (disk / "s").write_bytes(b"old")
        said = jvm("Snapshots", "once", tiny, disk / "s") if small_enough(disk) else None
        assert said["failure"].startswith(f"IOException: snapshot: {disk / 's'}: got ") and "make room" in said["failure"]
        assert said["tokens"] == 301
        assert {p.name: p.read_bytes() for p in disk.iterdir()} == {"s": b"old", "ballast": (disk / "ballast").read_bytes()}
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def small_enough(disk) -> bool:
    (disk / "ballast").write_bytes(bytes(500 << 10))
    return shutil.disk_usage(disk).free < 128 << 10


def test_a_folder_that_cannot_be_synchronised_is_told_with_the_new_file_in_its_place(jvm, tiny, tmp_path):
    said = jvm.all("Snapshots", "folderSync", tiny, tmp_path / "s", "Input/output error", "Invalid argument", "Operation not supported", "No space left on device")
    told = "NotDurableException: snapshot: {}: output: written, but its folder could not be synchronised (java.io.IOException: {}): a power cut may undo it; do check the disk"
    assert [v for k, v in said if k == "failure"] == [
        told.format(tmp_path / "s", "Input/output error"), "none", "none", told.format(tmp_path / "s", "No space left on device")]
    assert [v for k, v in said if k == "new"] == [True] * 4


def test_a_folder_that_is_not_there(jvm, tiny, tmp_path):
    said = jvm("Snapshots", "once", tiny, tmp_path / "none" / "s")
    assert said["failure"].startswith("IOException: snapshot: ") and said["tokens"] == 301


def killed_while_writing(command, folder) -> None:
    """Stopped again and again until a file that is being written is seen, then killed: no luck is needed."""
    before = set(folder.glob(".s.*"))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline().startswith("written\t0")  # the old one
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                process.send_signal(signal.SIGSTOP)
                os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
                assert process.poll() is None
                if set(folder.glob(".s.*")) - before:
                    return
                process.send_signal(signal.SIGCONT)
                time.sleep(0.0007)
            raise AssertionError("no file was being written in 60 s")
        finally:
            process.kill()


def test_killed_while_writing_it_leaves_a_whole_one(jvm, tiny, tmp_path):
    from spikingbrain_cpp import Snapshot
    file = tmp_path / "s"
    for _ in range(4):
        killed_while_writing(jvm.command("Snapshots", "forever", tiny, file), tmp_path)
        assert Snapshot.load(file).n_tokens % 3 == 0
    assert [*tmp_path.glob(".s.*")]
    jvm("Snapshots", "once", tiny, file)
    assert [p.name for p in tmp_path.iterdir()] == ["s"]  # what was left is cleared away


def test_numbers_are_printed_as_python_prints_them(jvm, spiking, prompt, tmp_path):
    """A threshold that has no short decimal: the snapshot of one belongs to the other."""
    for k in (2 / 3, 0.1 + 0.2):
        said = jvm("Snapshots", "save", spiking, prompt, tmp_path / "s", "true", repr(k))
        with llama(spiking, spike_k=k) as llm:
            llm.restore(tmp_path / "s")
            assert llm.snapshot().fingerprint == said["fingerprint"]


def test_what_another_computation_left_is_refused_by_name(jvm, spiking, tiny, prompt, tmp_path):
    text, names = prompt.read_text(encoding="utf-8"), {}
    others = {"settings": (spiking, {"spike_k": 2.0}), "no spikes": (spiking, {"spike": False}), "adapters": (spiking, {"lora_path": adapter(spiking, tmp_path)}),
              "model": (convert(ROOT / "examples" / "small", tmp_path / "q8.gguf", "--outtype", "q8_0", "--spike"), {})}
    for name, (file, options) in others.items():
        with llama(file, **options) as llm:
            llm.eval(llm.tokenize(text, special=True))
            llm.snapshot(tmp_path / name)
        names[name] = "settings" if name == "no spikes" else name
    said = jvm.list("failure", "Snapshots", "refuse", spiking, *(tmp_path / n for n in others))
    for (name, part), failure in zip(names.items(), said):
        assert failure.startswith(f"IOException: restore: {part}: got a snapshot of"), (name, failure)


def adapter(base, folder):
    import gguf
    import numpy as np
    writer = gguf.GGUFWriter(folder / "lora.gguf", "spikingbrain")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 4.0)
    shape = next(t.shape for t in gguf.GGUFReader(base).tensors if t.name == "blk.0.attn_v.weight")
    writer.add_tensor("blk.0.attn_v.weight.lora_a", np.ones((4, int(shape[0])), np.float32))
    writer.add_tensor("blk.0.attn_v.weight.lora_b", np.ones((int(shape[1]), 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "lora.gguf"
