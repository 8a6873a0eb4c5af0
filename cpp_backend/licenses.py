"""The licences of what a build bundles of llama.cpp, one file each: `python3 licenses.py LLAMA_FOLDER OUT [OURS]`. Gradle runs it for the
Android library; CMake runs parts.py, whose list (parts.json) this one is."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from parts import licence_text, listed


def collect(llama: Path) -> dict[str, bytes]:
    """Name -> text. SystemExit, in a sentence: llama.cpp has moved one."""
    folders = {"llama": llama}
    return {f"LICENSE-{part['name']}": licence_text(part, folders).encode() for part in listed(folders)}


def main(llama: str, out: str, ours: str | None = None) -> None:
    texts = collect(Path(llama)) | ({"LICENSE-spikingbrain_cpp": Path(ours).read_bytes()} if ours else {})
    shutil.rmtree(out, ignore_errors=True)
    Path(out).mkdir(parents=True)
    for name, text in texts.items():
        (Path(out) / name).write_bytes(text)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: python3 licenses.py LLAMA_FOLDER OUT [OURS]")
    main(*sys.argv[1:])
