"""sb-convert beside upstream's converter and quantiser, on checkpoints of one size (checkpoints.py), to Q4_0."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from ..cases import Case
from ..errors import BenchError
from ..rows import Row, ratio_row
from . import build
from .checkpoints import write_checkpoint
from .session import Bench

# upstream recognises a vocabulary by its hash; ours is made up, so it is told the name
UPSTREAM = """
import runpy, sys
tree = sys.argv.pop(1)
sys.path[:0] = [tree, tree + "/gguf-py"]
import conversion.base
conversion.base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
runpy.run_path(tree + "/convert_hf_to_gguf.py", run_name="__main__")
"""


@dataclass(frozen=True)
class Cost:
    """Seconds, peak resident bytes (mapped files included) and peak anonymous bytes of a process."""
    seconds: float
    resident: int
    anonymous: int


def anonymous_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(x.split()[1]) * 1024 for x in lines if x.startswith("RssAnon:")), 0)


def cost(command: list[str]) -> Cost:
    """Runs a command. Raises BenchError with the end of its output where it fails."""
    with tempfile.TemporaryFile() as output:
        begun, anonymous = time.monotonic(), 0
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        try:
            while True:
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    break
                anonymous = max(anonymous, anonymous_bytes(process.pid))
                time.sleep(0.02)
        except BaseException:
            process.kill()
            process.wait()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            tail = "\n  ".join(output.read().decode(errors="replace").splitlines()[-6:])
            raise BenchError(f"bench: {Path(command[0]).name}: got exit code {process.returncode}, expected 0\n  {tail}")
        return Cost(time.monotonic() - begun, usage.ru_maxrss * 1024, anonymous)


def upstream_python() -> tuple[str, str]:
    """The Python for upstream's converter, and why it cannot be used (or nothing)."""
    python = os.environ.get("SPIKINGBRAIN_BENCH_PYTHON") or sys.executable
    try:
        found = subprocess.run([python, "-c", "import torch, transformers"], capture_output=True, text=True)
    except OSError as e:
        return python, f"{python}: {e.strerror}; SPIKINGBRAIN_BENCH_PYTHON names a Python with torch and transformers"
    missing = "" if found.returncode == 0 else found.stderr.strip().splitlines()[-1]
    return python, missing and f"{missing}; upstream's converter needs torch and transformers: install them, or name a Python that has them with SPIKINGBRAIN_BENCH_PYTHON"


def convert_ours(checkpoint: Path, out: Path, n_threads: int) -> list[Cost]:
    return [cost([sys.executable, "-m", "sb_convert", str(checkpoint), "-o", str(out / "ours.gguf"), "--outtype", "q4_0", "--force"])]


def convert_upstream(python: str, checkpoint: Path, out: Path, n_threads: int) -> list[Cost]:
    """Both of its steps: to BF16, then to Q4_0 (with the package's llama-quantize, which is upstream's)."""
    half = out / "upstream-bf16.gguf"
    tree = str(build.WORK / "upstream" / "llama.cpp")
    first = cost([python, "-c", UPSTREAM, tree, str(checkpoint), "--outfile", str(half), "--outtype", "bf16"])
    second = cost([str(build.package_libs() / "llama-quantize"), str(half), str(out / "upstream.gguf"), "Q4_0", str(n_threads)])
    return [first, second]


def row(bench: Bench, name: str, runs: list[list[Cost]]) -> Row:
    """Seconds of all steps together; memory of the step that takes most."""
    return bench.row(name, unit="s", type="q4_0", values=[sum(c.seconds for c in run) for run in runs],
                     peak_resident_bytes=max(c.resident for run in runs for c in run),
                     extra={"anonymous_bytes": max(c.anonymous for run in runs for c in run), "steps_s": [[round(c.seconds, 3) for c in run] for run in runs]})


def convert(bench: Bench, case: Case) -> list[Row]:
    """Ours and upstream's in turn; upstream's is skipped where its requirements are missing."""
    python, why_not = upstream_python()
    n_threads, folder = case.params["n_threads"], bench.models.folder.parent / "convert"
    shutil.rmtree(folder, ignore_errors=True)
    ours: list[list[Cost]] = []
    theirs: list[list[Cost]] = []
    try:
        write_checkpoint(folder / "gla_swa", "gla_swa", bench.small)
        if not why_not:
            write_checkpoint(folder / "qwen2", "qwen2", bench.small)
        for _ in range(case.params["repetitions"]):
            ours.append(convert_ours(folder / "gla_swa", folder, n_threads))
            if not why_not:
                theirs.append(convert_upstream(python, folder / "qwen2", folder, n_threads))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    mine = row(bench, "sb-convert", ours)
    if why_not:
        return [mine, bench.skipped(why_not, "upstream's converter and quantiser")]
    other = row(bench, "upstream's converter and quantiser", theirs)
    return [mine, other, ratio_row(mine, other)]
