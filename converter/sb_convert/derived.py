"""Tensors that a GGUF has and a checkpoint has not, made of those it has while they are read (tensors.py: `made`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .config import ParallelConfig
from .sources import Tensor
from .tensors import BOUNDS


@dataclass(frozen=True)
class Stack(Tensor):
    """Matrices of one shape [out, in], read as the one matrix [n out, in] that they are one after the other."""

    @classmethod
    def of(cls, tensors: list[Tensor]) -> "Stack":
        """tensors: at least one, all [out, in]."""
        first, n = tensors[0], len(tensors)
        return cls(f"{first.name} and {n - 1} like it", (n * first.shape[0], *first.shape[1:]), first.dtype, tensors, first.file)

    def members(self) -> list[Tensor]:
        return self.data

    def member(self, row: int) -> tuple[Tensor, int]:
        e, row = divmod(row, self.data[0].shape[0])
        return self.data[e], row

    def rows(self, start: int, stop: int | None) -> np.ndarray:
        each, stop, parts = self.data[0].shape[0], min(self.shape[0] if stop is None else stop, self.shape[0]), []
        while start < stop:
            tensor, at = self.member(start)
            end = min(each, at + stop - start)
            parts.append(tensor.rows(at, end))
            start += end - at
        return parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else self.data[0].rows(0, 0)


@dataclass(frozen=True)
class Padded(Tensor):
    """A matrix of an adapter times a factor, with zeros behind its rows and columns; without one, zeros alone."""
    factor: float = 1.0

    @classmethod
    def of(cls, tensor: Tensor | None, name: str, shape: tuple[int, ...], factor: float, file: Path) -> "Padded":
        """tensor None: zeros of that shape; name and file are then for messages."""
        held = (tensor.name, tensor.dtype, tensor.file) if tensor is not None else (name, "F32", file)
        return cls(held[0], shape, held[1], tensor, held[2], factor)

    def rows(self, start: int, stop: int | None) -> np.ndarray:
        stop = min(self.shape[0] if stop is None else stop, self.shape[0])
        out = np.zeros((max(0, stop - start), self.shape[1]), np.float32)
        if self.data is not None:
            held = self.data.rows(start, stop)
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is told where it is written
                out[:len(held), :held.shape[1]] = held * np.float32(self.factor)
        return out


@dataclass(frozen=True)
class Transposed(Tensor):
    """A matrix [n, m] as [m, n]."""

    @classmethod
    def of(cls, tensor: Tensor) -> "Transposed":
        """tensor: [n, m]."""
        return cls(tensor.name, (tensor.shape[1], tensor.shape[0]), tensor.dtype, tensor, tensor.file)

    def rows(self, start: int, stop: int | None) -> np.ndarray:
        return np.ascontiguousarray(self.data.rows(0, None)[:, start:stop].T)


@dataclass(frozen=True)
class Half(Tensor):
    """A vector divided by 2: exact."""

    @classmethod
    def of(cls, tensor: Tensor) -> "Half":
        """tensor: [n]."""
        return cls(tensor.name, tensor.shape, tensor.dtype, tensor, tensor.file)

    def rows(self, start: int, stop: int | None) -> np.ndarray:
        return self.data.rows(start, stop) / np.float32(2)


@dataclass(frozen=True)
class Unbounded(Tensor):
    """1 - lb of one layer [n_embd], whose bound adds up the rows 1..row of softmax(lower_bounds) over the layers: what is left of 1."""
    row: int = 0

    @classmethod
    def of(cls, config: ParallelConfig, il: int, tensors: dict[str, Tensor]) -> "Unbounded":
        """il: a layer that has a lower bound (config.bound_row)."""
        bounds = tensors[BOUNDS]
        return cls(bounds.name, (config.hidden_size,), "F32", bounds, bounds.file, config.bound_row(il))

    def members(self) -> list[Tensor]:
        return [self.data]

    def rows(self, start: int, stop: int | None) -> np.ndarray:
        bounds = self.data.rows(0, None)[:, start:stop].astype(np.float64)
        with np.errstate(invalid="ignore"):  # what is not finite is told where it is written
            share = np.exp(bounds - bounds.max(0))
            left = share[0] + share[self.row + 1:].sum(0)
            return (left / share.sum(0)).astype(np.float32)
