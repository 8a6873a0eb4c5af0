"""Snapshot and LlamaState: what a Llama has read so far, as one object that can leave the process."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import numpy.typing as npt
from sb_convert.whole import write_whole

from .history import BLOCK

VERSION = 3
_HEAD = struct.Struct("<8sII")  # magic, version, bytes of the JSON header
_PAD = 512                      # the header is padded to a multiple: files of one model have one size
_N_TAIL = 2 * BLOCK - 1         # most tokens in a snapshot

AnyPath = Union[str, "os.PathLike[str]"]


def _pack(magic: bytes, version: int, header: Mapping[str, Any], *parts: bytes) -> bytes:
    """Little-endian on every machine, closed by a SHA-256 of all that precedes it."""
    text = json.dumps(header).encode()
    text += b" " * (-(_HEAD.size + len(text)) % _PAD)
    body = b"".join([_HEAD.pack(magic, version, len(text)), text, *parts])
    return body + hashlib.sha256(body).digest()


def _unpack(what: str, magic: bytes, blob: bytes) -> tuple[dict[str, Any], memoryview]:
    """(header, what follows it). ValueError: another kind of bytes, another version, cut short or damaged."""
    if len(blob) < _HEAD.size + 32 or blob[:8] != magic:
        raise ValueError(f"{what}: got {len(blob)} bytes that begin with {blob[:8]!r}, expected {magic!r}; give what to_bytes returned")
    _, version, n_header = _HEAD.unpack_from(blob)
    if version != VERSION:
        raise ValueError(f"{what}: version: got {version}, expected {VERSION}; save it again")
    if hashlib.sha256(memoryview(blob)[:-32]).digest() != blob[-32:]:
        raise ValueError(f"{what}: checksum: got another sum, expected the one at its end; the bytes are cut short or damaged, save it again")
    try:
        header = json.loads(blob[_HEAD.size:_HEAD.size + n_header])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what}: header: got no JSON, expected an object: {error}; save it again") from error
    if not isinstance(header, dict):
        raise ValueError(f"{what}: header: got a {type(header).__name__}, expected an object; save it again")
    return header, memoryview(blob)[_HEAD.size + n_header:-32]


def _check_sizes(what: str, header: Mapping[str, Any], names: Sequence[str], size: int, n_bytes: Sequence[int]) -> None:
    bad = [name for name in names if not isinstance(header.get(name), int) or isinstance(header[name], bool) or header[name] < 0]
    total = -1 if bad else sum(header[name] * n for name, n in zip(names, n_bytes))
    if total != size:
        raise ValueError(f"{what}: header: got {bad or f'{total} bytes'}, expected counts that fit {size} bytes; save it again")


def _check_hashes(what: str, header: Mapping[str, Any], names: Sequence[str]) -> None:
    bad = [name for name in names if not isinstance(header.get(name), str) or not re.fullmatch("[0-9a-f]{64}", header[name])]
    if bad:
        raise ValueError(f"{what}: header: got {bad}, expected 64 hex digits each; save it again")


# The four parts of a fingerprint, 16 hex digits each, and what helps where they differ.
_PARTS = (("model", "load the model that it was saved from"),
          ("settings", "load the model with the spikes and kv_overrides that it was saved with"),
          ("adapters", "load the model with the lora_path and lora_scale that it was saved with"),
          ("types", "load the model with the type_k and type_v that it was saved with"))


def difference(got: str, want: str) -> Optional[tuple[str, str, str, str]]:
    """What two fingerprints (_core.Context.fingerprint) differ in first: its name, the part of each, what to do. None: they are equal.

    "model" is all tensors of all parts of its file; of one above 256 MiB a sample of each tensor, which notices every tensor that was made
    anew, though not a few bytes patched inside a large one. "settings" are hyperparameters and spikes with the overrides applied.
    """
    if got == want:
        return None
    for i, (name, advice) in enumerate(_PARTS):
        one, other = str(got)[16 * i:16 * i + 16], want[16 * i:16 * i + 16]
        if one != other:
            return name, one, other, advice
    return _PARTS[0][0], str(got), want, _PARTS[0][1]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A sequence after n_tokens tokens, of the same size whatever n_tokens is. Made by Llama.snapshot, used by Llama.restore.

    fingerprint: of what computed it, see difference(); tokenizer: SHA-256 of its vocabulary; prefix: hash of the tokens before the tail;
    tail: int32, the last tokens, at most 2047; data: llama.cpp's own bytes for the sequence; logits: float32 [n_vocab], the row
    after the last token, or empty when there was none.
    """

    fingerprint: str
    tokenizer: str
    n_tokens: int
    prefix: bytes
    tail: npt.NDArray[np.int32]
    data: bytes
    logits: npt.NDArray[np.float32]
    version: int = VERSION

    _MAGIC = b"SBSNAP\0\0"

    def to_bytes(self) -> bytes:
        """The snapshot as bytes, the same on every machine."""
        header = {"fingerprint": self.fingerprint, "tokenizer": self.tokenizer, "n_tokens": self.n_tokens, "prefix": self.prefix.hex(),
                  "n_tail": int(self.tail.size), "n_logits": int(self.logits.size), "n_data": len(self.data)}
        padding = bytes(4 * (_N_TAIL - self.tail.size))
        return _pack(self._MAGIC, self.version, header, self.tail.astype("<i4").tobytes(), padding, self.logits.astype("<f4").tobytes(), self.data)

    @classmethod
    def from_bytes(cls, blob: bytes) -> Snapshot:
        """The inverse of to_bytes. ValueError: no snapshot, another version, cut short or damaged."""
        header, body = _unpack("snapshot", cls._MAGIC, bytes(blob))
        _check_sizes("snapshot", header, ("n_logits", "n_data"), len(body) - 4 * _N_TAIL, (4, 1))
        _check_hashes("snapshot", header, ("fingerprint", "tokenizer", "prefix"))
        n, n_tail, begin = header.get("n_tokens"), header.get("n_tail"), 4 * _N_TAIL
        if not (isinstance(n, int) and isinstance(n_tail, int) and 0 <= n_tail <= min(n, _N_TAIL) and (n - n_tail) % BLOCK == 0):
            raise ValueError(f"snapshot: header: got {n} tokens and a tail of {n_tail}, expected counts that fit; save it again")
        logits = np.frombuffer(body, "<f4", header["n_logits"], begin).astype(np.float32)
        return cls(header["fingerprint"], header["tokenizer"], n, bytes.fromhex(header["prefix"]),
                   np.frombuffer(body, "<i4", n_tail).astype(np.int32), bytes(body[begin + 4 * logits.size:]), logits)

    def save(self, path: AnyPath) -> None:
        """Write a file, whole or not at all. OSError: no regular file, no room, no permission; what was there before is still there."""
        write_whole(path, self.to_bytes())

    @classmethod
    def load(cls, path: AnyPath) -> Snapshot:
        """Read a file that save() wrote. OSError: there is none. ValueError: no snapshot, another version, cut short or damaged."""
        with open(path, "rb") as file:
            magic = file.read(8)
            if magic != cls._MAGIC:
                raise ValueError(f"snapshot: {os.fspath(path)}: got a file that begins with {magic!r}, expected {cls._MAGIC!r}; give a snapshot")
            return cls.from_bytes(magic + file.read())

    def __reduce__(self) -> tuple[Any, ...]:
        return Snapshot.from_bytes, (self.to_bytes(),)


@dataclass(frozen=True, eq=False)
class LlamaState:
    """A snapshot and all its tokens. Made by Llama.save_state; Llama.load_state continues from it without evaluating.

    tokens: int32 [n_tokens]; -1 for those that a sequence restored from a snapshot knew by their hash alone.
    """

    snapshot: Snapshot
    tokens: npt.NDArray[np.int32]

    _MAGIC = b"SBSTATE\0"

    @property
    def n_tokens(self) -> int:
        """Tokens evaluated when the state was saved."""
        return self.snapshot.n_tokens

    @property
    def fingerprint(self) -> str:
        """Of what computed the state: model, settings, adapters, types of keys and values."""
        return self.snapshot.fingerprint

    @property
    def tokenizer(self) -> str:
        """Of the vocabulary that its tokens belong to."""
        return self.snapshot.tokenizer

    @property
    def version(self) -> int:
        """Of the format."""
        return self.snapshot.version

    @property
    def input_ids(self) -> npt.NDArray[np.int32]:
        """llama-cpp-python's name for tokens."""
        return self.tokens

    @property
    def logits(self) -> npt.NDArray[np.float32]:
        """float32 [n_vocab], the row after the last token, or empty."""
        return self.snapshot.logits

    @property
    def data(self) -> bytes:
        """llama.cpp's own bytes for the sequence."""
        return self.snapshot.data

    @property
    def llama_state(self) -> bytes:
        """llama-cpp-python's name for data."""
        return self.data

    @property
    def llama_state_size(self) -> int:
        """Bytes of data."""
        return len(self.data)

    def to_bytes(self) -> bytes:
        """The state as bytes, the same on every machine."""
        inner = self.snapshot.to_bytes()
        return _pack(self._MAGIC, self.snapshot.version, {"n_tokens": int(self.tokens.size), "n_snapshot": len(inner)},
                     self.tokens.astype("<i4").tobytes(), inner)

    @classmethod
    def from_bytes(cls, blob: bytes) -> LlamaState:
        """The inverse of to_bytes. ValueError: no such state, another version, cut short or damaged."""
        header, body = _unpack("state", cls._MAGIC, bytes(blob))
        _check_sizes("state", header, ("n_tokens", "n_snapshot"), len(body), (4, 1))
        n = header["n_tokens"]
        return cls(Snapshot.from_bytes(bytes(body[4 * n:])), np.frombuffer(body, "<i4", n).astype(np.int32))

    def __reduce__(self) -> tuple[Any, ...]:
        return LlamaState.from_bytes, (self.to_bytes(),)
