"""This checkout: its folders, its commit, what it is pinned to."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .sides import PIN

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"


def pin(lock: Path = PIN) -> str:
    """The archive of a lock file: llama-cpp-python==0.3.36."""
    words = lock.read_text().split()
    return next(w for w in words if "==" in w)


def commit() -> str:
    """Of this repository, ends in + where the tree has changes; empty where it is none."""
    def git(*args: str) -> str:
        out = subprocess.run(["git", "-C", str(ROOT), *args], capture_output=True, text=True)
        return out.stdout.strip() if out.returncode == 0 else ""
    try:
        head = git("rev-parse", "--short=12", "HEAD")
    except OSError:
        return ""
    return head + ("+" if head and git("status", "--porcelain", "--untracked-files=no") else "")
