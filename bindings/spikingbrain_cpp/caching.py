"""Caching: a cache of states beside a session, and models from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np
import numpy.typing as npt

from .caches import BaseLlamaCache
from .errors import ModelNotFoundError
from .saving import Saving

if TYPE_CHECKING:
    from typing_extensions import Self


class Caching(Saving):
    """set_cache and from_pretrained."""

    cache: Optional[BaseLlamaCache] = None

    def set_cache(self, cache: Optional[BaseLlamaCache]) -> None:
        """Keep the state after every prompt in `cache`, and begin from the longest that fits; None: no more."""
        if cache is not None and not isinstance(cache, BaseLlamaCache):
            raise TypeError(f"set_cache: cache: got {type(cache).__name__}, expected LlamaRAMCache, LlamaDiskCache or None")
        self.cache = cache

    def _from_cache(self, prompt: npt.NDArray[np.int32]) -> None:
        if self.cache is None:
            return
        n = self.n_tokens
        here = self._history.common(n, prompt)
        try:
            state = self.cache.longest(prompt.tolist(), self._fingerprint(), self._tokenizer_print())
        except KeyError:
            return
        if state.n_tokens > (here if here == n else 0):
            self.load_state(state)

    def _to_cache(self) -> None:
        if self.cache is not None:
            state = self.save_state()
            if state.tokens[0] >= 0:
                self.cache[state.tokens.tolist()] = state

    @classmethod
    def from_pretrained(cls, repo_id: str, filename: Optional[str] = None, additional_files: Optional[Sequence[str]] = None,
                        local_dir: Optional[str] = None, local_dir_use_symlinks: Any = "auto", cache_dir: Optional[str] = None,
                        revision: Optional[str] = None, **options: Any) -> Self:
        """Download a GGUF file of the Hugging Face hub (once: it is kept in its cache) and load it.

        filename: its name or a pattern ("*Q4_0.gguf") that fits one file or the parts of one; additional_files: names or patterns of
        others to download beside it; options: the constructor's. local_dir_use_symlinks: the hub has no such choice any more. Needs the
        extra: pip install "spikingbrain-cpp[hub]". ImportError: without it. ModelNotFoundError: no file, or several, fit.
        """
        if local_dir_use_symlinks != "auto":
            raise ValueError(f"from_pretrained: local_dir_use_symlinks: got {local_dir_use_symlinks!r}, expected 'auto'; leave it out")
        try:
            from huggingface_hub import snapshot_download
        except ImportError as error:
            raise ImportError('from_pretrained: got no huggingface_hub, expected it; do pip install "spikingbrain-cpp[hub]"') from error
        pattern = filename or "*.gguf"
        folder = Path(snapshot_download(repo_id, allow_patterns=[pattern, f"*/{pattern}", *(additional_files or ())], local_dir=local_dir, cache_dir=cache_dir,
                                        revision=revision))
        found = sorted(p for p in folder.rglob("*.gguf") if fnmatch(p.relative_to(folder).as_posix(), pattern) or fnmatch(p.name, pattern))
        whole = [p for p in found if "-of-" not in p.stem or "-00001-of-" in p.stem]
        if len(whole) != 1:
            raise ModelNotFoundError(f"from_pretrained: filename: got {len(whole)} files that fit {pattern!r} in {repo_id}: "
                                     f"{[p.name for p in whole]}, expected one; name it")
        return cls(str(whole[0]), **options)
