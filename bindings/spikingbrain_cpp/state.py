"""LlamaState: what a Llama has read so far, as one object that can leave the process."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping

import numpy as np
import numpy.typing as npt

MAGIC = b"SBSTATE\0"
VERSION = 1
_HEAD = struct.Struct("<8sII")  # magic, version, bytes of the JSON header


@dataclass(frozen=True, eq=False)
class LlamaState:
    """A sequence after n tokens. Made by Llama.save_state; Llama.load_state continues from it without evaluating.

    fingerprint: of the model file the state belongs to; tokens: int32 [n]; data: llama.cpp's own bytes for the
    sequence; logits: float32 [n_vocab], the row after the last token, or empty when there was none.
    """

    fingerprint: str
    tokens: npt.NDArray[np.int32]
    data: bytes
    logits: npt.NDArray[np.float32]
    version: int = VERSION

    @property
    def n_tokens(self) -> int:
        """Tokens evaluated when the state was saved."""
        return int(self.tokens.size)

    def to_bytes(self) -> bytes:
        """The state as bytes, little-endian on every machine, closed by a SHA-256 of all that precedes it."""
        header = json.dumps({
            "fingerprint": self.fingerprint,
            "n_tokens": self.n_tokens,
            "n_logits": int(self.logits.size),
            "n_data": len(self.data),
        }).encode()
        body = b"".join([
            _HEAD.pack(MAGIC, self.version, len(header)),
            header,
            self.tokens.astype("<i4").tobytes(),
            self.logits.astype("<f4").tobytes(),
            self.data,
        ])
        return body + hashlib.sha256(body).digest()

    @classmethod
    def from_bytes(cls, blob: bytes) -> "LlamaState":
        """The inverse of to_bytes. ValueError: no such state, another version, cut short or damaged."""
        blob = bytes(blob)
        if len(blob) < _HEAD.size + 32 or blob[:8] != MAGIC:
            raise ValueError(f"state: got {len(blob)} bytes that begin with {blob[:8]!r}, expected {MAGIC!r}; "
                             "give what LlamaState.to_bytes returned")
        _, version, n_header = _HEAD.unpack_from(blob)
        if version != VERSION:
            raise ValueError(f"state: version: got {version}, expected {VERSION}; save the state again")
        if hashlib.sha256(blob[:-32]).digest() != blob[-32:]:
            raise ValueError("state: checksum: got another sum, expected the one at its end; "
                             "the bytes are cut short or damaged, save the state again")
        header = json.loads(blob[_HEAD.size:_HEAD.size + n_header])
        at = _HEAD.size + n_header
        tokens = np.frombuffer(blob, "<i4", header["n_tokens"], at).astype(np.int32)
        at += 4 * tokens.size
        logits = np.frombuffer(blob, "<f4", header["n_logits"], at).astype(np.float32)
        at += 4 * logits.size
        return cls(header["fingerprint"], tokens, blob[at:at + header["n_data"]], logits)

    def __reduce__(self) -> tuple[Any, ...]:
        return LlamaState.from_bytes, (self.to_bytes(),)


_SPLIT = re.compile(r"^(.*)-(\d{5})-of-(\d{5})\.gguf$")
_N_SAMPLES = 64      # blocks read of each file
_BLOCK = 4096        # bytes


def fingerprint(model_path: str, kv_overrides: Mapping[str, Any] | None) -> str:
    """Tells one model file from another without reading gigabytes: a SHA-256 over its size, 64 blocks spread over
    it from first to last byte (all parts of a split one), and the overrides."""
    digest = hashlib.sha256(repr(sorted((kv_overrides or {}).items())).encode())
    split = _SPLIT.match(model_path)
    paths = [model_path] if not split else [
        f"{split[1]}-{i + 1:05d}-of-{split[3]}.gguf" for i in range(int(split[3]))]
    for path in paths:
        size = Path(path).stat().st_size
        digest.update(struct.pack("<Q", size))
        with open(path, "rb") as file:
            for i in range(_N_SAMPLES):
                file.seek(max(0, size - _BLOCK) * i // (_N_SAMPLES - 1))
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()
