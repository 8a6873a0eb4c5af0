"""The output appears whole or not at all, within bounded memory, and never by surprise over another file."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
from conftest import ROOT, converter_peak

from sb_convert import output, whole
from sb_convert.cli import main

BIG = dict(hidden_size=512, intermediate_size=8192, vocab_size=8192, num_hidden_layers=2)  # 50 MB in bf16


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if "gguf" in p.name or "partial" in p.name)


def started(folder: Path, out: Path, *options: str) -> subprocess.Popen:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "converter"), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen([sys.executable, "-m", "sb_convert", str(folder), "-o", str(out), *options], env=env,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(folder: Path, process: subprocess.Popen, size: int) -> None:
    while process.poll() is None and not any(p.stat().st_size > size for p in folder.glob(".out.gguf.*.partial")):
        time.sleep(0.001)


@pytest.mark.parametrize("sig, code, left", [(signal.SIGKILL, -9, ["partial"]), (signal.SIGTERM, 130, []), (signal.SIGINT, 130, [])])
def test_ended_in_the_middle(make_checkpoint, tmp_path, sig, code, left):
    folder, out = make_checkpoint(**BIG), tmp_path / "out.gguf"
    process = started(folder, out, "--outtype", "q4_0")
    wait_for(tmp_path, process, 1_000_000)
    process.send_signal(sig)
    _, err = process.communicate()
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert not out.exists() and bool(files(tmp_path)) == bool(left)
    assert main([str(folder), "-o", str(out), "--outtype", "q4_0"]) == 0  # what a kill left does not stand in the way
    assert files(tmp_path) == ["out.gguf"]


def test_what_a_killed_split_left_is_removed(make_checkpoint, tmp_path):
    (tmp_path / ".out.gguf.0123456789ab.partial").write_text("left")
    assert main([str(make_checkpoint()), "-o", str(tmp_path / "out.gguf")]) == 0
    assert files(tmp_path) == ["out.gguf"]


def test_existing_file_is_kept(make_checkpoint, tmp_path, capsys):
    folder, out = make_checkpoint(), tmp_path / "out.gguf"
    out.write_text("mine")
    assert main([str(folder), "-o", str(out)]) == 1
    assert "out.gguf: output: got an existing file, expected none; " in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert main([str(folder), "-o", str(out), "--force"]) == 0
    assert gguf.GGUFReader(out).tensors


def test_force_keeps_the_old_file_when_it_fails(make_checkpoint, tmp_path):
    def spoil(t):
        t["lm_head.weight"][0, 0] = float("nan")
    out = tmp_path / "out.gguf"
    out.write_text("mine")
    assert main([str(make_checkpoint(tensors=spoil)), "-o", str(out), "--force"]) == 1
    assert out.read_text() == "mine" and files(tmp_path) == ["out.gguf"]


def test_existing_split_is_kept(make_checkpoint, tmp_path):
    folder = make_checkpoint(hidden_size=256, intermediate_size=1024, vocab_size=2048)
    options = ["-o", str(tmp_path / "s.gguf"), "--split-max-size", "1M"]
    assert [main([str(folder), *options]), main([str(folder), *options]), main([str(folder), *options, "--force"])] == [0, 1, 0]


def test_no_space_up_front(make_checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(whole.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    assert main([str(make_checkpoint()), "-o", str(tmp_path / "out.gguf")]) == 1
    assert "disk space: got 1 MB free, expected " in capsys.readouterr().err


def test_no_space_in_the_middle(make_checkpoint, tmp_path, capsys):
    folder, (soft, hard) = make_checkpoint(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        assert main([str(folder), "-o", str(tmp_path / "out.gguf")]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "out.gguf: disk space: got File too large, expected " in capsys.readouterr().err
    assert files(tmp_path) == []


def test_two_at_once(make_checkpoint, tmp_path, capsys):
    folder, out = make_checkpoint(), tmp_path / "out.gguf"
    other = output.Output(out, force=False)
    other.begin()
    assert main([str(folder), "-o", str(out)]) == 1
    assert "got another process writing it, expected one at a time; " in capsys.readouterr().err
    other.discard()
    assert main([str(folder), "-o", str(out)]) == 0


def test_plain_progress_lines(make_checkpoint, tmp_path, capsys):
    assert main([str(make_checkpoint()), "-o", str(tmp_path / "out.gguf")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("out.gguf: bf16, 0.") and " bits per weight, " in out and out.count("\n") == 1


def zero_mlp(tensors):
    """Cheap to make, and the converter does not know."""
    return {n: np.zeros_like(t) if ".mlp." in n else t for n, t in tensors.items()}


def test_bar_on_a_terminal(make_checkpoint, tmp_path):
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 30, 100, 0, 0))
    run = subprocess.run([sys.executable, "-m", "sb_convert", str(make_checkpoint()), "-o", str(tmp_path / "x.gguf")], stdin=theirs, stderr=theirs,
                         env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "converter"), os.environ.get("PYTHONPATH", "")])})
    assert run.returncode == 0
    assert b"blk.1.ffn_down.weight: 100%|" in os.read(ours, 1 << 16)


@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_memory_is_bounded(make_checkpoint, tmp_path, form):
    """Peak anonymous memory must not follow the size of the largest tensor (101 MB in float32, more while it is encoded)."""
    peaks = []
    for n_ff in (4096, 49152):
        folder = make_checkpoint(form=form, name=f"ff{n_ff}", tensors=zero_mlp, **{**BIG, "num_hidden_layers": 1, "attn_layers": [0], "intermediate_size": n_ff})
        peaks.append(converter_peak(folder, tmp_path / f"{form}.gguf", "--outtype", "q8_0"))
    small, large = peaks
    assert large - small < 100, f"{small:.0f} MiB for the small model, {large:.0f} MiB for the large one"
