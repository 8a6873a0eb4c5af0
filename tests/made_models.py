"""GGUF files that tests for other machines compare with: made on this one."""

from __future__ import annotations

from pathlib import Path


class Models:
    """Each made once: models(CHECKPOINT, *options of sb-convert) -> path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, checkpoint: Path, *options: str) -> Path:
        from sb_convert.cli import main

        path = self.folder / ("-".join([checkpoint.name, *(o.strip("-") for o in options)]) + ".gguf")
        if not path.exists():
            assert main([str(checkpoint), "-o", str(path), *options]) in (0, None)
        return path
