"""INT8 weights: integer codes and one float32 scale per output row and group of inputs; codes outside int8 are kept aside.

A matrix [out, in] becomes up to four tensors (PARTS), each made a block of rows at a time.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from gguf import GGMLQuantizationType as T

from .constants import GROUP
from .errors import bad
from .formats import rows_per_block
from .numerics import decoded
from .sources import Tensor, first_not_finite

LARGEST_STORED = 127      # of a code in the I8 tensor
LARGEST_CODE = 32767 + LARGEST_STORED  # what is left over must fit the I16 tensor
SCALES = "weight_quantizer.scales"     # in a W8ASpike checkpoint, instead of the projection's "weight"

PARTS = {"weight": T.I8, "scales": T.F32, "outlier_index": T.I32, "outlier_value": T.I16}


@dataclass(frozen=True)
class Codes:
    """A matrix as codes: round half to even of weight / scale in float32, with the checkpoint's scales where it has them."""
    weight: Tensor
    scales: Tensor | None = None
    clip: bool = False  # at int8: where the scales were chosen for that

    def block(self, start: int, stop: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Rows start..stop: codes [rows, in] (integers in float32) and scales [rows, in / GROUP]."""
        w = self.weight.rows(start, stop)
        if not np.isfinite(np.abs(w).max(initial=0.0)):
            raise first_not_finite(self.weight, len(w)) or AssertionError(self.weight.name)
        groups = w.reshape(len(w), -1, GROUP)
        scales = own_scales(groups) if self.scales is None else self.scales.rows(start, stop)[..., 0]
        with np.errstate(over="ignore"):
            codes = np.rint(groups / scales[..., None]).reshape(w.shape)
        if self.clip:
            codes = np.clip(codes, -LARGEST_STORED, LARGEST_STORED)
        if np.abs(codes).max(initial=0.0) > LARGEST_CODE:
            row, col = np.argwhere(np.abs(codes) > LARGEST_CODE)[0]
            weight, at = self.weight.member(row + start)
            raise bad(weight.file, weight.name, f"code {codes[row, col]:.0f} at [{at}, {col}]",
                      f"at most {LARGEST_CODE} in magnitude", "the scale of that row and group is too small; get an undamaged checkpoint")
        return codes, scales

    def starts(self) -> range:
        """The first row of each block that is read at a time."""
        return range(0, self.weight.shape[0], rows_per_block(self.weight.shape))

    def count(self, pool: ThreadPoolExecutor) -> tuple[int, int]:
        """The largest code in magnitude, and how many are stored as outliers."""
        step = self.starts().step

        def one(start: int) -> tuple[int, int]:
            magnitude = np.abs(self.block(start, start + step)[0])
            return int(magnitude.max(initial=0)), int((magnitude > LARGEST_STORED).sum())
        counted = list(pool.map(one, self.starts()))
        return max(c for c, _ in counted), sum(n for _, n in counted)


def own_scales(groups: np.ndarray) -> np.ndarray:
    """Symmetric int8 of groups [rows, n, GROUP]: the largest magnitude becomes 127; 1 where all are zero."""
    largest = np.abs(groups).max(-1)
    scales = np.maximum(largest / np.float32(LARGEST_STORED), np.finfo(np.float32).tiny)
    return np.where(largest == 0, np.float32(1), scales)


@dataclass(frozen=True)
class Part(Tensor):
    """One tensor that codes are stored as, read like a checkpoint's; name, shape and file are the matrix's."""
    what: str = ""      # of PARTS; or "values": codes times scales, float32

    @classmethod
    def of(cls, codes: Codes, what: str) -> "Part":
        """what: a key of PARTS, or "values"."""
        w = codes.weight
        return cls(w.name, w.shape, "F32", codes, w.file, what)

    def rows(self, start: int, stop: int | None) -> np.ndarray:
        """What the matrix's rows start..stop add to the tensor."""
        codes, scales = self.data.block(start, stop)
        if self.what == "scales":
            return scales
        if self.what == "values":
            return decoded(codes, scales)
        stored = np.clip(codes, -LARGEST_STORED, LARGEST_STORED)
        if self.what == "weight":
            return stored.astype(np.int8)
        at = np.flatnonzero(codes != stored)
        if self.what == "outlier_index":
            return (at + start * self.shape[1]).astype(np.int32)
        return (codes - stored).reshape(-1)[at].astype(np.int16)


def part_shapes(codes: Codes, n_outliers: int) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor the codes are stored as, in file order; of a stack as of one matrix."""
    n_out, n_in = codes.weight.shape
    shapes: dict[str, tuple[int, ...]] = {"weight": (n_out, n_in), "scales": (n_out, n_in // GROUP)}
    if n_outliers and n_out * n_in >= 2**31:
        raise bad(codes.weight.file, codes.weight.name, f"{n_out * n_in} weights with codes outside int8", f"fewer than {2**31}",
                  "their places are 32-bit integers; choose --outtype bf16 or q8_0")
    return shapes | ({"outlier_index": (n_outliers,), "outlier_value": (n_outliers,)} if n_outliers else {})


def scales_name(weight: str) -> str:
    """The checkpoint's name of the scales of a weight."""
    return weight.removesuffix("weight") + SCALES


def has_scales(names: object) -> bool:
    """Whether tensors of these names are a W8ASpike checkpoint's."""
    return any(name.endswith("." + SCALES) for name in names)  # type: ignore[attr-defined]


def check_scales(weight: Tensor, tensors: dict[str, Tensor], where: object) -> Tensor:
    """The scales of one projection of a W8ASpike checkpoint, every value checked."""
    name = scales_name(weight.name)
    if name not in tensors:
        raise bad(where, name, "nothing", "the scales of this projection, as the others have them", "get the complete checkpoint")
    scales = tensors[name]
    n_out, n_in = weight.shape
    if n_in % GROUP or scales.shape != (n_out, n_in // GROUP, 1):
        raise bad(scales.file, name, f"shape {list(scales.shape)}", f"[{n_out}, {n_in} / {GROUP}, 1]",
                  f"each scale is that of one row and {GROUP} inputs; get a checkpoint with this group size")
    step = rows_per_block((n_out, n_in))
    for start in range(0, n_out, step):
        part = scales.rows(start, start + step)[..., 0]
        wrong = np.argwhere(~(np.isfinite(part) & (part > 0)))
        if len(wrong):
            row, group = wrong[0]
            raise bad(scales.file, name, f"{part[row, group]:g} at row {row + start}, group {group}", "a finite scale above 0",
                      "get an undamaged checkpoint")
    return scales


def lossless_type(tensor: Tensor) -> T:
    """The smallest of BF16, F16 and F32 that holds every value exactly."""
    if tensor.dtype != "F32":
        return T[tensor.dtype]
    fits = {T.BF16, T.F16}
    for start in range(0, tensor.shape[0], rows_per_block(tensor.shape)):
        rows = np.ascontiguousarray(tensor.rows(start, start + rows_per_block(tensor.shape)))
        with np.errstate(over="ignore", invalid="ignore"):
            exact = {T.BF16: not (rows.view(np.uint32) & 0xFFFF).any(), T.F16: bool((rows.astype(np.float16) == rows).all())}
        fits = {t for t in fits if exact[t]}
        if not fits:
            return T.F32
    return T.BF16 if T.BF16 in fits else T.F16
