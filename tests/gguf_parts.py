"""A GGUF file taken apart, so that a test can change one thing and put it together again."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import gguf
from gguf import GGMLQuantizationType as Type
from gguf import GGUFValueType as Value

FORMATS = {Value.UINT8: "B", Value.INT8: "b", Value.UINT16: "H", Value.INT16: "h", Value.UINT32: "I", Value.INT32: "i",
           Value.FLOAT32: "f", Value.BOOL: "?", Value.UINT64: "Q", Value.INT64: "q", Value.FLOAT64: "d"}


def text(s: str) -> bytes:
    return struct.pack("<Q", len(s.encode())) + s.encode()


def scalar(kind: Value, value: Any) -> bytes:
    return text(value) if kind == Value.STRING else struct.pack("<" + FORMATS[kind], value)


def key(name: str, kind: Value, value: Any, sub: Value | None = None) -> bytes:
    """The bytes of one key; sub: type of an array's elements."""
    if kind == Value.ARRAY:
        body = struct.pack("<IQ", sub, len(value)) + b"".join(scalar(sub, v) for v in value)
    else:
        body = scalar(kind, value)
    return text(name) + struct.pack("<I", kind) + body


class Parts:
    """keys: {name: its bytes}; fields: {name: (type, element type or None, value)}; tensors: {name: (dims in ggml's order, type, data)}."""

    def __init__(self, path: Path) -> None:
        raw, reader = path.read_bytes(), gguf.GGUFReader(path)
        fields = [f for f in reader.fields.values() if not f.name.startswith("GGUF.")]
        self.keys = {f.name: raw[f.offset:f.offset + sum(p.nbytes for p in f.parts)] for f in fields}
        self.fields = {f.name: (f.types[0], f.types[-1] if f.types[0] == Value.ARRAY else None, f.contents()) for f in fields}
        self.tensors = {t.name: ([int(n) for n in t.shape], Type(t.tensor_type), t.data.tobytes()) for t in reader.tensors}

    def write(self, path: Path, keys: dict[str, bytes | None] | None = None, tensors: dict[str, tuple | None] | None = None) -> Path:
        """With these keys and tensors in place of its own; None leaves one out."""
        return self._write(path, keys, tensors, sparse=False)

    def write_sparse(self, path: Path, keys: dict[str, bytes | None] | None = None, tensors: dict[str, tuple | None] | None = None) -> Path:
        """The same for tensors whose data is left out: the file has its size, and holes for them."""
        return self._write(path, keys, tensors, sparse=True)

    def _write(self, path: Path, keys: dict[str, bytes | None] | None, tensors: dict[str, tuple | None] | None, sparse: bool) -> Path:
        own_keys = [v for v in {**self.keys, **(keys or {})}.values() if v is not None]
        own_tensors = {n: t for n, t in {**self.tensors, **(tensors or {})}.items() if t is not None}
        out, offset = [struct.pack("<4sIQQ", b"GGUF", 3, len(own_tensors), len(own_keys)), *own_keys], 0
        for name, (dims, kind, data) in own_tensors.items():
            out.append(text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset))
            offset += -(-(len(data) or size(dims, kind)) // 32) * 32
        head = b"".join(out)
        with path.open("wb") as f:
            f.write(head + bytes(-len(head) % 32))
            if not sparse:
                for _, _, data in own_tensors.values():
                    f.write(data + bytes(-len(data) % 32))
            f.truncate(len(head) + -len(head) % 32 + offset)
        return path


def size(dims: list[int], kind: Type) -> int:
    """Bytes of a tensor, whole blocks per row."""
    block, size_of_block = gguf.GGML_QUANT_SIZES[kind]
    return -(-dims[0] // block) * size_of_block * math.prod(dims[1:])


def zeros(dims: list[int], kind: Type) -> tuple[list[int], Type, bytes]:
    """A tensor of zeros, whole blocks."""
    return dims, kind, bytes(size(dims, kind))
