"""The licences of what a build bundles of llama.cpp, one file each: `python3 licenses.py LLAMA_FOLDER OUT [OURS]`. CMake runs it for the
wheel, whose metadata hold our own, Gradle for the Android library."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

FILES = {  # name -> in llama.cpp's tree
    "LICENSE-llama.cpp": "LICENSE",
    "LICENSE-cpp-httplib": "vendor/cpp-httplib/LICENSE",
    "LICENSE-xxhash": "vendor/hash/xxhash/LICENSE",
    "LICENSE-rotate-bits": "vendor/hash/rotate-bits/LICENSE.md",
}
FOLDER = "licenses"  # all of it
FIRST_COMMENT = {"LICENSE-llamafile-sgemm": "ggml/src/ggml-cpu/llamafile/sgemm.cpp"}


def collect(llama: Path) -> dict[str, bytes]:
    """Name -> text. OSError: llama.cpp has moved one."""
    out = {p.name: p.read_bytes() for p in sorted((llama / FOLDER).iterdir())}
    out |= {name: (llama / path).read_bytes() for name, path in FILES.items()}
    out |= {name: (llama / path).read_bytes().partition(b"\n\n")[0] + b"\n" for name, path in FIRST_COMMENT.items()}
    return out


def main(llama: str, out: str, ours: str | None = None) -> None:
    try:
        texts = collect(Path(llama)) | ({"LICENSE-spikingbrain_cpp": Path(ours).read_bytes()} if ours else {})
    except OSError as e:
        sys.exit(f"licenses: {e.filename}: got {e.strerror}, expected a licence of what is bundled; do see where this llama.cpp keeps it")
    shutil.rmtree(out, ignore_errors=True)
    Path(out).mkdir(parents=True)
    for name, text in texts.items():
        (Path(out) / name).write_bytes(text)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: python3 licenses.py LLAMA_FOLDER OUT [OURS]")
    main(*sys.argv[1:])
