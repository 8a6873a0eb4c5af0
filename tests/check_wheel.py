"""Tries a portable wheel on CPUs this machine is not: `python tests/check_wheel.py WHEEL` (make test-wheel).

Looks at what is in it, installs it alone into a fresh environment, runs its commands, then reads the same prompt with our kernels forced down, under qemu-x86_64
with old CPUs, and with each CPU library alone that this CPU can run. Each must take the best kernels that the CPU has, and end without SIGILL, with the logits of
the plain C++ kernels to within rounding. Takes minutes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "release"))
import kernels  # noqa: E402

OLD_CPUS = {"qemu64": "generic", "Nehalem": "generic", "SandyBridge": "generic", "Haswell": "avx2"}  # SSE2 only; SSE4.2; AVX; AVX2: our kernels there
OLD_NUMPY = "numpy<2.4"  # newer wheels of NumPy begin at SSE4.2
OLD_BLAS = "Prescott"  # NumPy's OpenBLAS otherwise takes AVX kernels under qemu on some hosts, and dies on import
TOLERANCE = 2e-2  # logits of an F32 model are about 1; sums in another order, and F16 keys and values where there is F16C

LICENCES = {part["name"] for part in json.loads((ROOT / "cpp_backend" / "parts.json").read_text()) if part["text"][0] != "mingw"}  # of all that is compiled in, but for Windows
TOOLS = {"cli", "server", "completion", "quantize", "perplexity", "bench", "imatrix", "batched-bench", "gguf-split", "rpc-server"}
PACKAGES = {Path(folder).name for folder in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["scikit-build"]["wheel"]["packages"]}
PROGRAM = """\
import json, sys
from spikingbrain_cpp import Llama, system_info
with Llama(sys.argv[1], n_threads=1, n_threads_batch=1, verbose=False) as llm:
    llm.eval(llm.tokenize(b"the lighthouse keeper wrote down every ship"))
    print(json.dumps({"kernels": system_info()["spike_kernels"], "logits": [float(x) for x in llm.logits]}))
"""


def check_contents(wheel: Path) -> None:
    """Everything that is needed, once, and nothing of the build."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (info,) = {n.split("/")[0] for n in names if n.split("/")[0].endswith(".dist-info")}
        tags = [line for line in archive.read(f"{info}/WHEEL").decode().splitlines() if line.startswith("Tag: ")]
    lib = {n.removeprefix("spikingbrain_cpp/lib/") for n in names if n.startswith("spikingbrain_cpp/lib/")}
    wanted = {f"llama-{t}" for t in TOOLS} | {f"lib{x}.so" for x in ("ggml", "ggml-base", "ggml-rpc", "llama", "llama-common", "sb-c++")}
    wanted |= {f"libggml-cpu-{x}.so" for x in ("x64", "sse42", "haswell")}  # the lowest ones
    modules = {f"spikingbrain_cpp/_core.cpython-{python}-x86_64-linux-gnu.so" for tag in tags for python in re.findall(r"cp(\d+)-", tag)}  # one per Python of its name
    missing = sorted(wanted - lib) + sorted({*modules, "spikingbrain_cpp/py.typed", "spikingbrain_cpp/_core.pyi", "sb_convert/cli.py",
                                              f"{info}/licenses/LICENSE", f"{info}/sboms/spikingbrain_cpp.cdx.json", *(f"{info}/licenses/LICENSE-{x}" for x in LICENCES)} - set(names))
    foreign = [n for n in names if n.split("/")[0] not in {*PACKAGES, info} or
               "/licenses/" not in n and n.endswith((".h", ".hpp", ".cpp", ".cmake", ".a", ".o", ".pc"))]
    if not all(tag.endswith("-manylinux_2_28_x86_64") for tag in tags):
        raise SystemExit(f"check_wheel: {wheel}: got {tags}, expected manylinux_2_28_x86_64; do make wheel")
    if missing or foreign or "libggml-cpu.so" in lib:
        raise SystemExit(f"check_wheel: {wheel}: got no {missing}, and {foreign}, expected all of the first and none of the second")
    print(f"{wheel.name}: {wheel.stat().st_size / 2**20:.1f} MiB, {len(names)} files, {', '.join(tags)}", flush=True)


def run(*command: object) -> str:
    done = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise SystemExit(f"check_wheel: {' '.join(map(str, command))}: got exit code {done.returncode}, expected 0\n{done.stdout[-500:]}{done.stderr[-2000:]}")
    return done.stdout + done.stderr


def check_commands(bin: Path, model: Path) -> None:
    """A checkpoint to text, with nothing installed but the wheel and what it requires."""
    run(bin / "sb-convert", ROOT / "examples" / "tiny", "-o", model, "--outtype", "f32")
    for name, command, words in (("sb-cli", (bin / "sb-cli", "-m", model, "-p", "the ship", "-n", 8, "-st", "-t", 1, "--temp", 0), "the ship"),
                                 ("python -m", (bin / "python", "-m", "spikingbrain_cpp"), "sb-server"),
                                 ("sb-server", (bin / "sb-server", "--help"), "--slot-save-path")):
        if words not in run(*command):
            raise SystemExit(f"check_wheel: {name}: got no {words!r} in its output, expected it")
        print(f"{name:<24} ok", flush=True)


def read(command: list[str], model: Path, **env: str) -> dict[str, Any]:
    """{"kernels": the name of those that ran, "logits": of the prompt}"""
    done = subprocess.run([*command, "-c", PROGRAM, str(model)], capture_output=True, text=True, timeout=600, env={**os.environ, **env})
    if done.returncode != 0:
        raise SystemExit(f"check_wheel: {' '.join(command)}: got exit code {done.returncode}, expected 0\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def check(name: str, got: dict[str, Any], isa: str, expected: list[float]) -> None:
    """These kernels ran, and gave these logits."""
    if got["kernels"] != isa:
        raise SystemExit(f"check_wheel: {name}: got the kernels {got['kernels']}, expected {isa}; do see how spk-isa.cpp, compiled by zig, asks the CPU")
    apart = max(abs(a - b) for a, b in zip(got["logits"], expected, strict=True))
    if not apart < TOLERANCE:
        raise SystemExit(f"check_wheel: {name}: got logits {apart:.3g} apart, expected less than {TOLERANCE}")
    print(f"{name:<24} ok, kernels {isa}, logits at most {apart:.2g} apart", flush=True)


def main(wheel: str) -> None:
    check_contents(Path(wheel))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        python = str(folder / "venv" / "bin" / "python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", wheel, OLD_NUMPY], check=True)
        model = folder / "tiny.gguf"
        check_commands(folder / "venv" / "bin", model)
        lib = next((folder / "venv").rglob("spikingbrain_cpp/lib"))
        variants = sorted(lib.glob("libggml-cpu-*.so"))
        if len(variants) < 2:
            raise SystemExit(f"check_wheel: {wheel}: got {len(variants)} CPU libraries, expected one per instruction set; do make wheel")
        best, expected = kernels.expected(), read([python], model, SPIKINGBRAIN_ISA="generic")["logits"]
        check("this CPU", read([python], model), best, expected)
        for isa in kernels.usable():
            check(f"SPIKINGBRAIN_ISA={isa}", read([python], model, SPIKINGBRAIN_ISA=isa), isa, expected)
        qemu = shutil.which("qemu-x86_64")
        if not qemu:
            raise SystemExit("check_wheel: qemu-x86_64: got no such program, expected qemu-user; do apt-get install qemu-user")
        for cpu, isa in OLD_CPUS.items():
            check(f"qemu-x86_64 -cpu {cpu}", read([qemu, "-cpu", cpu, python], model, OPENBLAS_CORETYPE=OLD_BLAS), isa, expected)
        held = folder / "held"
        held.mkdir()
        for variant in variants:
            shutil.move(variant, held / variant.name)
        for variant in variants:
            shutil.copy(held / variant.name, variant)
            if run(python, "-c", "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).ggml_backend_score())", variant).strip() != "0":
                check(variant.name, read([python], model), best, expected)
            elif variant.name == "libggml-cpu-x64.so":
                raise SystemExit(f"check_wheel: {variant.name}: got a score of 0, expected more: every x86-64 can run it")
            else:
                print(f"{variant.name:<24} not for this CPU", flush=True)
            variant.unlink()
    print(f"{wheel}: {len(variants)} CPU libraries")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/check_wheel.py WHEEL")
    main(sys.argv[1])
