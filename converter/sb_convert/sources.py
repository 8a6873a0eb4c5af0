"""Checkpoint files, read a block of rows at a time through memory maps: .safetensors without torch, .bin with it."""

from __future__ import annotations

import json
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .files import read_json, refuse_placeholder
from .errors import ConvertError, bad

AGAIN = "download the file again"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
MAX_HEADER = 100 << 20  # safetensors' own limit
SAFETENSORS_DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


@dataclass(frozen=True)
class Tensor:
    """name, shape [out, in] and dtype (F32, F16 or BF16) of one stored tensor; data is a map, not a copy."""
    name: str
    shape: tuple[int, ...]
    dtype: str
    data: Any
    file: Path

    def rows(self, start: int, stop: int | None) -> np.ndarray:
        """Rows start..stop (None: to the end) as float32, not to be changed. A 1-D tensor counts as one column of rows."""
        part = self.data[start:stop]
        if not isinstance(part, np.ndarray):  # torch
            return part.float().numpy()
        if self.dtype == "BF16":
            return (part.astype(np.uint32) << 16).view(np.float32)
        return np.asarray(part, np.float32)

    def members(self) -> list["Tensor"]:
        """The stored tensors that it reads."""
        return [self]

    def member(self, row: int) -> tuple["Tensor", int]:
        """The stored tensor that holds a row, and which of its rows that is."""
        return self, row


def open_checkpoint(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint folder by name, in whichever of the published forms it comes."""
    folder = Path(folder)
    for name in WEIGHTS:
        if (folder / name).is_file():
            weight_map = _read_index(folder / name) if name.endswith(".json") else {}
            files = sorted(set(weight_map.values())) if weight_map else [name]
            return _gather(folder / name, weight_map, [read_weights(folder / f) for f in files])
    refuse_adapter(folder)
    raise bad(folder, "weights", "none of the known files", ", ".join(WEIGHTS), "give the folder of a complete checkpoint")


def refuse_adapter(folder: Path) -> None:
    """Says what a folder is that has a LoRA adapter and no weights."""
    if (folder / "adapter_config.json").is_file() and not any((folder / name).is_file() for name in WEIGHTS):
        raise bad(folder, "weights", "a LoRA adapter only", ", ".join(WEIGHTS), "to convert the adapter, give the checkpoint that it was trained on, too: --base FOLDER")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Every tensor of one file by name: .bin is torch's, any other a safetensors file."""
    return _read_torch(path) if path.suffix == ".bin" else _read_safetensors(path)


def shards_of(index: Path) -> list[str]:
    """The files that an index names; they need not be there. ConvertError: one that is no index."""
    return sorted(set(_read_index(index, False).values()))


def _read_index(path: Path, there: bool = True) -> dict[str, str]:
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(f, str) for f in weight_map.values()):
        raise bad(path, "weight_map", "nothing usable", "an object of tensor names and file names", AGAIN)
    for file in sorted(set(weight_map.values())):
        if Path(file).name != file:
            raise bad(path, "weight_map", repr(file), "a file name without folders", AGAIN)
        if there and not (path.parent / file).is_file():
            raise bad(path, "weight_map", f"{file}, which is absent", "a file beside the index", "download the missing shard")
    return weight_map


def _gather(where: Path, weight_map: dict[str, str], shards: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        for name, tensor in shard.items():
            if name in tensors:
                raise bad(tensor.file, name, f"a second one (the first is in {tensors[name].file.name})", "each tensor once", AGAIN)
            tensors[name] = tensor
    for name, file in weight_map.items():
        if name not in tensors or tensors[name].file.name != file:
            raise bad(where, name, "no such tensor in " + file, "what the index says", "download index and shards again")
    return tensors


# --- safetensors ----------------------------------------------------------------------------------------------

def _read_safetensors(path: Path) -> dict[str, Tensor]:
    refuse_placeholder(path, "a safetensors file")
    size = path.stat().st_size
    header, base = _safetensors_header(path, size)
    raw = np.memmap(path, np.uint8, "r") if size else None
    tensors, spans = {}, []
    for name, entry in header.items():
        tensors[name], span = _safetensors_tensor(path, name, entry, raw, base, size)
        spans.append((*span, name))
    end = 0
    for start, stop, name in sorted(spans):
        if start != end:
            raise bad(path, name, f"data from byte {start}", f"{end}, where the tensor before it ends", AGAIN)
        end = stop
    if base + end != size:
        raise bad(path, "size", f"{size} bytes", f"{base + end} (its header)", AGAIN)
    return tensors


def _safetensors_header(path: Path, size: int) -> tuple[dict[str, Any], int]:
    with open(path, "rb") as f:
        n = int.from_bytes(f.read(8), "little")
        if size < 8 or n > MAX_HEADER or 8 + n > size:
            raise bad(path, "header", f"{size} bytes in all", f"8 + {n} for the header alone", AGAIN)
        try:
            header = json.loads(f.read(n))
        except (ValueError, RecursionError):
            header = None
    if not isinstance(header, dict):
        raise bad(path, "header", "malformed JSON", "a safetensors header", AGAIN)
    header.pop("__metadata__", None)
    return header, 8 + n


def _safetensors_tensor(path: Path, name: str, entry: Any, raw: Any, base: int, size: int) -> tuple[Tensor, tuple[int, int]]:
    try:
        dtype, shape, (start, stop) = str(entry["dtype"]), tuple(entry["shape"]), entry["data_offsets"]
        whole = all(type(n) is int for n in (*shape, start, stop))
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise bad(path, name, "a malformed entry", "dtype, shape and data_offsets", AGAIN) from None
    if dtype not in SAFETENSORS_DTYPES:
        raise bad(path, name, f"type {dtype}", "F32, F16 or BF16", "save the checkpoint in one of these types")
    kind = SAFETENSORS_DTYPES[dtype]
    if start < 0 or stop - start != kind.itemsize * math.prod(shape) or min(shape, default=1) < 0:
        raise bad(path, name, f"{stop - start} bytes", f"shape {list(shape)} of {dtype}", AGAIN)
    if base + stop > size:
        raise bad(path, name, f"a file of {size} bytes", f"at least {base + stop}; it is cut short", AGAIN)
    data = np.ndarray(shape, kind, buffer=raw, offset=base + start)
    return Tensor(name, shape, dtype, data, path), (start, stop)


# --- pytorch_model.bin ----------------------------------------------------------------------------------------

def import_torch(what: str) -> Any:
    """PyTorch. ConvertError: it is not installed; what: who asks for it."""
    try:
        import torch
    except ImportError:
        raise bad(what, "torch", "no such package", "PyTorch", "pip install 'spikingbrain_cpp[torch]'") from None
    return torch


def _read_torch(path: Path) -> dict[str, Tensor]:
    refuse_placeholder(path, "a state dict in the zip format")
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as f:
            cut = f.read(2) == b"PK"
        if cut or path.stat().st_size == 0:
            raise bad(path, "content", "a file cut short", "a complete zip archive", AGAIN)
        raise bad(path, "format", "the legacy (non-zip) one of torch.save", "the zip format of torch 1.6 and later",
                  "load and save it once with torch.save, or use safetensors")
    torch = import_torch(str(path))
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as e:  # torch raises many kinds for a damaged or unsafe file
        raise bad(path, "content", str(e).splitlines()[0], "a state dict that loads with weights_only=True", AGAIN) from e
    if not isinstance(state, dict) or not all(isinstance(t, torch.Tensor) for t in state.values()):
        got = f"a dict of {', '.join(map(str, list(state)[:4]))}" if isinstance(state, dict) else type(state).__name__
        raise bad(path, "content", got, "a state dict (names and tensors)", "save model.state_dict() alone")
    kinds = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    for name, t in state.items():
        if t.dtype not in kinds:
            raise bad(path, name, f"type {t.dtype}", "float32, float16 or bfloat16", "save the checkpoint in one of these types")
    return {name: Tensor(name, tuple(t.shape), kinds[t.dtype], t.detach(), path) for name, t in state.items()}


def first_not_finite(tensor: Tensor, block: int) -> ConvertError | None:
    """The error for a tensor with NaN or infinities: how many, and where the first one is. Of a stack: in the first such matrix."""
    for part in tensor.members():
        count, first = 0, None
        for start in range(0, part.shape[0], block):
            wrong = ~np.isfinite(part.rows(start, start + block))
            if first is None and wrong.any():
                at = np.argwhere(wrong)[0]
                first = [int(at[0]) + start, *map(int, at[1:])]
            count += int(wrong.sum())
        if count:
            return bad(part.file, part.name, f"{count} NaN or infinite values, the first at {first}", "finite weights",
                       "get an undamaged checkpoint; nothing was written")
    return None
