"""Kernel headers are readable alone: each compiles by itself, and no file of ours includes itself through others."""

from __future__ import annotations

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OVERLAY = ROOT / "cpp_backend/overlay"
KERNELS = OVERLAY / "ggml/src/ggml-cpu/spikingbrain"

AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mfma", "-mf16c"]
# a header that belongs to one instruction set, by a part of its name
FLAGS = {
    "-avx2.h": ["-mavx2", "-mfma", "-mf16c", '-DSPK_SIMD="spk-simd-avx2.h"'],
    "-ymm.h": ["-mavx2", "-mfma", "-mf16c"],
    "pairs-avx512.h": [*AVX512, "-DSPK_PAIRS", '-DSPK_SIMD="spk-simd-avx512.h"'],
    "-avx512.h": [*AVX512, '-DSPK_SIMD="spk-simd-avx512.h"'],
    "-neon.h": None,
}


def flags_of(name: str) -> list[str] | None:
    """None: another machine's."""
    return next((flags for part, flags in FLAGS.items() if name.endswith(part)), [])


def errors_of(header: Path, tree: Path) -> str:
    """What g++ says of a source that includes this header alone."""
    include = [OVERLAY / "ggml/include", tree / "ggml/include", tree / "ggml/src", tree / "ggml/src/ggml-cpu"]
    command = ["g++", "-std=c++17", "-fsyntax-only", "-w", "-x", "c++", *(flags_of(header.name) or []), *(f"-I{d}" for d in include), "-include", str(header), "/dev/null"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return "" if done.returncode == 0 else f"{header.name}: {done.stderr}"


def test_every_kernel_header_compiles_alone():
    trees = sorted(ROOT.glob("build/*/llama.cpp"))
    if not trees or shutil.which("g++") is None:
        pytest.skip("no built tree, or no g++")
    if subprocess.run(["g++", "-dumpmachine"], capture_output=True, text=True).stdout.split("-")[0] != "x86_64":
        pytest.skip("the flags are those of x86-64")
    headers = [h for h in sorted(KERNELS.glob("*.h")) if flags_of(h.name) is not None]
    with ThreadPoolExecutor(2) as pool:
        assert [e for e in pool.map(lambda h: errors_of(h, trees[0]), headers) if e] == []


def test_no_file_includes_itself_through_others():
    files = {p.name: p for p in ROOT.glob("cpp_backend/**/*.[ch]*") if p.suffix in (".h", ".cpp", ".c")}
    files |= {p.name: p for p in ROOT.glob("bindings/*.[ch]*")}
    included = {name: [n for n in re.findall(r'^#\s*include "(?:[^"]*/)?([^"/]+)"', path.read_text(), re.M) if n in files] for name, path in files.items()}
    circles: list[str] = []
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> None:
        if name in way:
            circles.append(" -> ".join([*way[way.index(name):], name]))
        elif name not in done:
            for other in included[name]:
                visit(other, [*way, name])
            done.add(name)

    for name in files:
        visit(name, [])
    assert len(files) > 100 and circles == []
