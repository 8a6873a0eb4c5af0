"""The checkpoint folder: config.json, safetensors (a block of a tensor at a time), and the base's tokenizer files."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sb_convert.config import Config
from sb_convert.errors import bad
from sb_convert.formats import LARGEST, OUTTYPES, encode, rows_per_block
from sb_convert.progress import Progress
from sb_convert.sources import SAFETENSORS_DTYPES, Tensor, first_not_finite
from sb_convert.whole import require_space
from sb_convert.whole_folder import check_folder, whole_folder

from .base import Base

# carried over where the base has them; a model card would describe another model
TEXTS = ("generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json",
         "special_tokens_map.json", "chat_template.json", "chat_template.jinja", "additional_chat_templates/*.jinja", "LICENSE*", "NOTICE*", "USE_POLICY*")


@dataclass(frozen=True)
class Item:
    """One tensor of the output: what its rows are, and the type they are stored in."""
    name: str
    tensor: Tensor
    dtype: str

    @property
    def nbytes(self) -> int:
        """Of its data."""
        return math.prod(self.tensor.shape) * SAFETENSORS_DTYPES[self.dtype].itemsize


def config_json(config: Config, base: Base) -> dict[str, Any]:
    """What config.json will hold; the padding token is bookkeeping that tokenizers look for."""
    pad = base.raw.get("pad_token_id")
    return config.to_json() | ({"pad_token_id": pad} if type(pad) is int else {})


def write(out: Path, base: Base, config: dict[str, Any], items: list[Item], shard_bytes: int, say: Callable[[str], None]) -> None:
    """All of it or nothing."""
    check_folder(str(out))
    texts = [path for pattern in TEXTS for path in sorted(base.folder.glob(pattern)) if path.is_file()]
    total = sum(i.nbytes for i in items)
    require_space([(Path(out).resolve(), total + sum(path.stat().st_size for path in texts))])
    shards = split(items, shard_bytes)
    names = ["model.safetensors"] if len(shards) == 1 else [f"model-{n + 1:05d}-of-{len(shards):05d}.safetensors" for n in range(len(shards))]
    with whole_folder(Path(out)) as folder, Progress(total, say) as progress:
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        for path in texts:
            to = folder / path.relative_to(base.folder)
            to.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, to)
        if len(shards) > 1:
            index = {"metadata": {"total_size": total}, "weight_map": {i.name: name for name, shard in zip(names, shards) for i in shard}}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
        for name, shard in zip(names, shards):
            write_safetensors(folder / name, shard, progress)


def split(items: list[Item], most: int) -> list[list[Item]]:
    """In order, each shard of at most so many bytes, or of one tensor."""
    shards: list[list[Item]] = [[]]
    for item in items:
        if shards[-1] and sum(i.nbytes for i in shards[-1]) + item.nbytes > most:
            shards.append([])
        shards[-1].append(item)
    return shards


def write_safetensors(path: Path, items: list[Item], progress: Progress) -> None:
    """One file; its data begins at a multiple of 8 bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for item in items:
        header[item.name] = {"dtype": item.dtype, "shape": list(item.tensor.shape), "data_offsets": [at, at + item.nbytes]}
        at += item.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for item in items:
            progress.start(item.name)
            for block in blocks(item):
                file.write(block)
                progress.add(len(block))


def blocks(item: Item) -> Iterator[bytes]:
    """The tensor's data as it is stored. ConvertError: a value that is not finite, or beyond its type."""
    kind, step = OUTTYPES[item.dtype.lower()].matrix, rows_per_block(item.tensor.shape)
    for start in range(0, item.tensor.shape[0], step):
        rows = item.tensor.rows(start, start + step)
        largest = float(np.abs(rows).max(initial=0.0))
        if not largest <= LARGEST.get(kind, np.finfo(np.float32).max):
            raise first_not_finite(item.tensor, step) or bad(item.tensor.file, item.name, f"a weight of {largest:g}", f"at most {LARGEST[kind]:g} for {item.dtype}",
                                                             "give a base stored as bfloat16 or float32")
        yield np.ascontiguousarray(encode(rows, kind)).tobytes()
