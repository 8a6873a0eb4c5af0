"""What each conversion of the example costs: perplexity on its held-out text, through our runtime, type by type. The command: ../quality.py."""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np
from sb_convert.numerics import log_softmax
from tqdm import tqdm

from ..checkout import ROOT

LENGTH = 512             # tokens per row, each begun without state: as in training
STATS_ROWS = 64          # rows behind the spike figures
CALIBRATION = 512 * 256  # training tokens behind the importance matrix
KS = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)


@dataclass(frozen=True)
class Case:
    """One file and how it is run. convert: options of sb-convert on the checkpoint. quantize: type of sb-quantize, from the
    F32 file. respike: options of sb-convert on the file so made."""
    name: str
    convert: tuple[str, ...] = ()
    quantize: Optional[str] = None
    imatrix: bool = False
    respike: tuple[str, ...] = ()
    k: Optional[float] = None


def pure_q4(name: str, **options: Any) -> Case:
    return Case(name, quantize="Q4_0", **options)


CASES = (
    Case("F32", ("--outtype", "f32")),
    Case("F16", ("--outtype", "f16")),
    Case("BF16", ("--outtype", "bf16")),
    Case("Q8_0", ("--outtype", "q8_0")),
    *(Case(name, quantize=name) for name in ("Q6_K", "Q5_K_M", "Q5_0", "Q4_K_M")),
    Case("Q4_K_M, imatrix", quantize="Q4_K_M", imatrix=True),
    Case("Q4_0, sb-convert", ("--outtype", "q4_0")),
    pure_q4("Q4_0"),
    pure_q4("Q4_0, imatrix", imatrix=True),
    pure_q4("Q4_0 + spikes, k = 3", respike=("--spike",), k=3.0),
    pure_q4("Q4_0, imatrix + spikes, k = 3", imatrix=True, respike=("--spike",), k=3.0),
    *(Case(f"INT8 + spikes, k = {k:g}", ("--outtype", "int8", "--spike", "--spike-k", f"{k:g}"), k=k) for k in KS),
    Case("INT8, no spikes", ("--outtype", "int8")),
)


def of_examples(name: str) -> Any:
    """A module of examples/, whose scripts import each other by name."""
    if (folder := str(ROOT / "examples")) not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(name)


# --- files ----------------------------------------------------------------------------------------------------

def run(*command: str | Path) -> None:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=3600)
    if done.returncode:
        raise SystemExit(f"quality: {command[0]}: got exit code {done.returncode}, expected 0; it said: {(done.stderr or done.stdout).strip()[-2000:]}")


def converted(source: Path, to: Path, *options: str) -> Path:
    run(sys.executable, "-m", "sb_convert", source, "-o", to, "--force", *options)
    return to


def tool(name: str, *arguments: str | Path) -> None:
    run(sys.executable, "-c", f"from spikingbrain_cpp import tools; tools.{name}()", *arguments)


class Files:
    """The files that several cases start from, made when first asked for."""

    def __init__(self, checkpoint: Path, work: Path, calibration: str, threads: int):
        self.checkpoint, self.work, self.calibration, self.threads = checkpoint, work, calibration, threads

    def f32(self) -> Path:
        path = self.work / "f32.gguf"
        return path if path.is_file() else converted(self.checkpoint, path, "--outtype", "f32")

    def imatrix(self) -> Path:
        path, text = self.work / "imatrix.gguf", self.work / "calibration.txt"
        if not path.is_file():
            text.write_text(self.calibration)
            tool("imatrix", "-m", self.f32(), "-f", text, "-o", path, "-c", str(LENGTH), "-t", str(self.threads))
        return path

    def of(self, case: Case) -> Path:
        path = self.work / "case.gguf"
        if case.convert:
            return converted(self.checkpoint, path, *case.convert)
        imatrix = ["--imatrix", self.imatrix()] if case.imatrix else []
        assert case.quantize
        tool("quantize", *imatrix, self.f32(), path, case.quantize, str(self.threads))
        return converted(path, self.work / "spiking.gguf", *case.respike) if case.respike else path


def sha256(path: Path) -> str:
    """Of a file, which may be larger than the memory."""
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# --- measures -------------------------------------------------------------------------------------------------

def rows_of(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets [N, LENGTH]; what does not fill a row is left out."""
    n = (len(tokens) - 1) // LENGTH
    ids = tokens[:n * LENGTH + 1].astype(np.int32)
    return ids[:-1].reshape(n, LENGTH), ids[1:].reshape(n, LENGTH)


def predictions(path: Path, x: np.ndarray, y: np.ndarray, threads: int, name: str) -> tuple[float, np.ndarray]:
    """Mean loss in nats per token, and the likeliest tokens [N, LENGTH]."""
    from spikingbrain_cpp import Llama
    total, best = 0.0, np.empty_like(x)
    with Llama(path, logits_all=True, n_threads=threads, n_threads_batch=threads) as llm:
        for i, (row, target) in enumerate(zip(tqdm(x, desc=name, unit="row", leave=False), y)):
            llm.reset()
            llm.eval(row)
            logits = llm.scores
            best[i] = logits.argmax(1)
            total -= float(log_softmax(logits.astype(np.float64))[np.arange(LENGTH), target].sum())
    return total / x.size, best


def spike_figures(path: Path, x: np.ndarray, threads: int) -> dict[str, float]:
    from spikingbrain_cpp import Llama
    with Llama(path, spike_stats=True, n_threads=threads, n_threads_batch=threads) as llm:
        return spike_shares(llm, x[:STATS_ROWS])


def spike_shares(llm: Any, rows: Any) -> dict[str, float]:
    """Of a model loaded with spike_stats, over rows of tokens, each read without state."""
    for row in rows:
        llm.reset()
        llm.eval(row)
    counts = llm.spike_stats().model()
    return {"sparsity": counts.sparsity, "sparsity_to_7": counts.sparsity_to_7, "share_to_7": counts.share_to_7, "silent_share": counts.silent_share,
            "mean_spikes": counts.mean_spikes}


def bits_per_weight(path: Path) -> tuple[int, float]:
    """Bytes of the file, and bits of tensor data (scales and norms included) per weight of the checkpoint's matrices and vectors."""
    import gguf
    tensors = gguf.GGUFReader(path).tensors
    weights = sum(int(t.n_elements) for t in tensors if not t.name.endswith((".scales", ".outlier_index", ".outlier_value")))
    return path.stat().st_size, 8 * sum(int(t.n_bytes) for t in tensors) / weights


def reference_perplexity(checkpoint: Path, tokens: np.ndarray) -> float:
    """The plain PyTorch model in float32, on the same rows."""
    from sb_convert.reference import Model
    return float(of_examples("train").perplexity(Model.from_pretrained(checkpoint, spike=None), tokens, LENGTH))


def measured(case: Case, files: Files, x: np.ndarray, y: np.ndarray, threads: int) -> tuple[dict[str, Any], np.ndarray]:
    path = files.of(case)
    began = time.perf_counter()
    loss, best = predictions(path, x, y, threads, case.name)
    size, bpw = bits_per_weight(path)
    row = {"case": case.name, "perplexity": math.exp(loss), "bytes": size, "bits_per_weight": bpw, "model_sha256": sha256(path), "k": case.k,
           "seconds": round(time.perf_counter() - began, 1)}
    if case.k is not None:
        row |= spike_figures(path, x, threads)
    return row, best


# --- rows -----------------------------------------------------------------------------------------------------

def origin(checkpoint: Path, x: np.ndarray) -> dict[str, Any]:
    """What all rows of one file share."""
    return {"checkpoint_sha256": sha256(checkpoint / "model.safetensors"), "text_sha256": hashlib.sha256(x.tobytes()).hexdigest(), "tokens": int(x.size),
            "length": LENGTH, **machine()}


def machine() -> dict[str, Any]:
    """What computes."""
    from spikingbrain_cpp import _core
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    pin = re.search(r"# build-commit: (\S+)", (ROOT / "cpp_backend/llama.lock").read_text())
    return {"cpu": _core.system_info(), "commit": commit, "pin": pin[1] if pin else ""}


def finished(path: Path, same: dict[str, Any]) -> dict[str, dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    for row in rows:
        for key in ("checkpoint_sha256", "text_sha256"):
            if row[key] != same[key]:
                raise SystemExit(f"{path}: {key}: got {row[key][:12]}, expected {same[key][:12]}; move the file away, or give another --out")
    return {row["case"]: row for row in rows}


def measure(checkpoint: Path, data: Path, out: Path, threads: int, n_tokens: Optional[int], cases: tuple[Case, ...] = CASES) -> None:
    corpus = of_examples("corpus")
    config = json.loads((checkpoint / "config.json").read_text())
    train, held_out = corpus.prepare(data, config["vocab_size"])
    held_out = held_out[:n_tokens]
    x, y = rows_of(held_out)
    same = origin(checkpoint, x)
    done = finished(out, same)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        files = Files(checkpoint, Path(work), corpus.load_tokenizer(checkpoint).decode(train[:CALIBRATION].tolist()), threads)
        best = None
        for case in tqdm(cases, unit="case", desc="quality"):
            if case.name in done:
                continue
            if best is None and case.name != "F32":
                best = predictions(files.f32(), x, y, threads, "F32, for comparison")[1]
            row, own = measured(case, files, x, y, threads)
            best = own if case.name == "F32" else best
            row |= {"top1_agreement": float((own == best).mean())}
            if case.name == "F32":
                row["reference_perplexity"] = reference_perplexity(checkpoint, held_out)
            with out.open("a") as f:
                f.write(json.dumps({**row, **same}) + "\n")
            tqdm.write(f"{case.name:32} {row['perplexity']:.4f}")
