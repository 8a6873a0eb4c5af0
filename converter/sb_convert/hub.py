"""Checkpoints of the Hugging Face hub: of a repository the files that a conversion reads, through huggingface_hub."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path

from .adapter import FILES as ADAPTER_WEIGHTS
from .errors import bad
from .sources import WEIGHTS, shards_of

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
TEXTS = ("config.json", "generation_config.json", "README.md", "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "merges.txt",
         "added_tokens.json", "special_tokens_map.json", "chat_template.json", "chat_template.jinja", "additional_chat_templates/*.jinja")
ADAPTER_TEXTS = ("adapter_config.json", "README.md")


def is_repository(path: Path) -> bool:
    """Whether a name that is not on the disk can be a repository's: ORG/NAME."""
    return not path.exists() and REPOSITORY.fullmatch(str(path)) is not None


def fetch(repository: str, say: Callable[[str], None], weights: bool = True) -> Path:
    """The folder of a downloaded checkpoint; only the files of the first form of weights that it has. ConvertError: why not."""
    folder = _download(repository, TEXTS, say)
    for name in WEIGHTS if weights else ():
        _download(repository, (name,))
        if (folder / name).is_file():
            if name.endswith(".json"):
                _download(repository, tuple(shards_of(folder / name)))
            break
    return folder


def fetch_adapter(repository: str, say: Callable[[str], None]) -> Path:
    """The folder of a downloaded LoRA adapter."""
    folder = _download(repository, ADAPTER_TEXTS, say)
    for name in ADAPTER_WEIGHTS:
        _download(repository, (name,))
        if (folder / name).is_file():
            break
    return folder


def by_hand(repository: str) -> str:
    """How to get the files without huggingface_hub."""
    name = repository.rpartition("/")[2]
    return (f"fetch it by hand (git clone https://huggingface.co/{repository}, with git-lfs; from ModelScope, where SpikingBrain's authors publish: "
            f"modelscope download --model {repository} --local_dir {name}) and give the folder {name}")


def _download(repository: str, patterns: tuple[str, ...], say: Callable[[str], None] | None = None) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise bad(repository, "checkpoint", "no folder of this name, and no huggingface_hub to download it with", "one of them",
                  f"pip install 'spikingbrain-cpp[hub]', or {by_hand(repository)}") from None
    if say is not None:
        say(f"{repository}: no folder of this name: downloading it from the Hugging Face hub")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        return Path(snapshot_download(repository, allow_patterns=list(patterns)))
    except Exception as e:  # of the hub's own, of the network's, of the disk's
        why = next((line.strip() for line in str(e).splitlines() if line.strip()), type(e).__name__).rstrip(".")
        raise bad(repository, "checkpoint", f"no folder of this name, and no download of it ({why})", "a folder, or ORG/NAME on the Hugging Face hub",
                  f"check name and network (a private one needs: hf auth login), or {by_hand(repository)}") from e
