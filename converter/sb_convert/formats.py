"""Output types: which type each kind of tensor takes, encoding and decoding row blocks, and the error each may make."""

from __future__ import annotations

from dataclasses import dataclass

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

from .constants import GROUP

BLOCK_VALUES = 1 << 20  # values handled at a time: 4 MiB in float32


@dataclass(frozen=True)
class OutType:
    matrix: T    # projections and embedding
    output: T
    file_type: gguf.LlamaFileType


OUTTYPES = {
    "f32": OutType(T.F32, T.F32, gguf.LlamaFileType.ALL_F32),
    "f16": OutType(T.F16, T.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": OutType(T.BF16, T.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": OutType(T.Q8_0, T.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q4_0": OutType(T.Q4_0, T.Q8_0, gguf.LlamaFileType.MOSTLY_Q4_0),
    "int8": OutType(T.I8, T.F16, gguf.LlamaFileType.MOSTLY_Q8_0),  # llama.cpp has no name for it; this one says 8 bits
}
DOWN_TYPES = {"f32": T.F32, "f16": T.F16, "q8_0": T.Q8_0}  # of the raw down projection of scope `released`
LARGEST = {T.F16: 65504.0, T.BF16: 3.3895314e38, T.Q8_0: 65504.0 * 127, T.Q4_0: 65504.0 * 8}  # beyond it the stored value or scale is infinite


def wanted_type(kind: str, outtype: str) -> T:
    """The type that an --outtype means for a tensor of a kind (tensors.py)."""
    if kind in ("f32", "constant"):
        return T.F32
    return OUTTYPES[outtype].output if kind in ("output", "tied") else OUTTYPES[outtype].matrix


def whole_blocks(qtype: T, shape: tuple[int, ...]) -> T:
    """qtype; a row that is no whole number of its blocks falls back to F16, as in llama.cpp."""
    block = GROUP if qtype == T.I8 else gguf.GGML_QUANT_SIZES[qtype][0]
    return qtype if shape[-1] % block == 0 else T.F16


def nbytes(shape: tuple[int, ...], qtype: T) -> int:
    """Bytes of a tensor's data; its rows are whole blocks of the type."""
    block, size = gguf.GGML_QUANT_SIZES[qtype]
    return int(np.prod(shape, dtype=np.int64)) // block * size


def rows_per_block(shape: tuple[int, ...]) -> int:
    """How many rows are handled at a time: BLOCK_VALUES values, at least one row."""
    return max(1, BLOCK_VALUES // (shape[1] if len(shape) == 2 else 1))


def encode(rows: np.ndarray, qtype: T) -> np.ndarray:
    """float32 rows [n, in] as they are stored in a type; integers (codes, outliers) stay as they are."""
    if rows.dtype != np.float32:  # codes and outliers are what they are
        return rows
    return gguf.quants.quantize(rows, qtype)


def decode(rows: np.ndarray, qtype: T) -> np.ndarray:
    """Stored rows as float32 [n, in]."""
    return gguf.quants.dequantize(rows, qtype)


def error_bound(x: np.ndarray, qtype: T) -> np.ndarray:
    """Largest |stored - x| that a right encoding of x [rows, n] may make, value by value (derived in README.md)."""
    a = np.abs(x)
    if qtype == T.F32:
        return np.zeros_like(a)
    if qtype == T.F16:
        return a * 2.0**-11 + 2.0**-25
    if qtype == T.BF16:
        return a * 2.0**-8 + 2.0**-134
    blocks = x.reshape(-1, gguf.GGML_QUANT_SIZES[qtype][0])
    amax = np.abs(blocks).max(1, keepdims=True)
    if qtype == T.Q8_0:    # d = amax / 127, kept in fp16: half a step, and the scale's rounding times the code
        bound = amax * (0.5 / 127 + 2.0**-11) + 127 * 2.0**-25
    elif qtype == T.Q4_0:  # d = -(largest) / 8, codes -8..7: half a step, up to one at the clipped end
        peak = np.take_along_axis(blocks, np.abs(blocks).argmax(1)[:, None], 1)
        step = np.divide(blocks * -8, peak, out=np.zeros_like(blocks), where=peak != 0)
        bound = amax / 8 * np.maximum(0.5, step - 7) + amax * 2.0**-11 + 8 * 2.0**-25
    else:
        raise NotImplementedError(qtype.name)
    return np.broadcast_to(bound * (1 + 1e-5), blocks.shape).reshape(x.shape)  # 1e-5: float32 arithmetic of the encoder
