"""Models from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Optional

from .errors import ModelNotFoundError


def download(repo_id: str, filename: Optional[str], additional_files: Optional[Sequence[str]], local_dir_use_symlinks: Any,
             **where: Any) -> Path:
    """See Llama.from_pretrained; where: local_dir, cache_dir, revision."""
    if local_dir_use_symlinks != "auto":
        raise ValueError(f"from_pretrained: local_dir_use_symlinks: got {local_dir_use_symlinks!r}, expected 'auto'; leave it out")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ImportError('from_pretrained: got no huggingface_hub, expected it; do pip install "spikingbrain-cpp[hub]"') from error
    pattern = filename or "*.gguf"
    folder = Path(snapshot_download(repo_id, allow_patterns=[pattern, f"*/{pattern}", *(additional_files or ())], **where))
    found = sorted(p for p in folder.rglob("*.gguf") if fnmatch(p.relative_to(folder).as_posix(), pattern) or fnmatch(p.name, pattern))
    whole = [p for p in found if "-of-" not in p.stem or "-00001-of-" in p.stem]
    if len(whole) != 1:
        raise ModelNotFoundError(f"from_pretrained: filename: got {len(whole)} files that fit {pattern!r} in {repo_id}: "
                                 f"{[p.name for p in whole]}, expected one; name it")
    return whole[0]
