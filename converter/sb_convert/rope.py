"""Rotary frequencies: of a plain base, or with the factors of Llama 3's scaling (`rope_scaling` of type llama3)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .errors import bad

TYPE = "llama3"
FIX = "correct config.json"


@dataclass(frozen=True)
class RopeScaling:
    """Pairs that turn less than low_freq_factor times within the old length are slowed by `factor`, those that turn more than high_freq_factor
    times stay, and between them the factor goes from one to the other."""
    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int

    @classmethod
    def of(cls, held: dict[str, Any], where: str, what: str) -> "RopeScaling":
        """held: the fields of a config.json's object, its type and rope_theta taken out; what: the object's name. ConvertError: a field that is missing,
        unknown, or has no meaning."""
        for name, kind in (("factor", float), ("low_freq_factor", float), ("high_freq_factor", float), ("original_max_position_embeddings", int)):
            value = held.get(name)
            if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else int) or not 0 < value < 2**31:
                raise bad(where, f"{what}.{name}", repr(value), f"{'a number above 0' if kind is float else 'an integer from 1 to 2^31 - 1'} ({TYPE})", FIX)
        unknown = held.keys() - set(cls.__dataclass_fields__)
        if unknown:
            raise bad(where, f"{what}.{min(unknown)}", repr(held[min(unknown)]), f"none beside {', '.join(cls.__dataclass_fields__)} ({TYPE})", FIX)
        scaling = cls(*(held[name] for name in cls.__dataclass_fields__))
        if scaling.factor < 1:
            raise bad(where, f"{what}.factor", scaling.factor, f"1 or more ({TYPE})", FIX)
        if not scaling.low_freq_factor < scaling.high_freq_factor:
            raise bad(where, f"{what}.high_freq_factor", scaling.high_freq_factor, f"more than low_freq_factor, {scaling.low_freq_factor}", FIX)
        return scaling

    def to_json(self) -> dict[str, Any]:
        """As config.json has it."""
        return {"rope_type": TYPE, **asdict(self)}

    def factors(self, theta: float, n_rot: int) -> np.ndarray:
        """What each frequency is divided by, float32 [n_rot / 2]: the numbers that a GGUF stores, and that all compute with."""
        wave = 2 * math.pi / plain(theta, n_rot)
        turns = self.original_max_position_embeddings / wave
        share = np.clip((turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor), 0, 1)  # 1: as it is
        return (1 / ((1 - share) / self.factor + share)).astype(np.float32)


def plain(theta: float, n_rot: int) -> np.ndarray:
    """float64 [n_rot / 2]: radians per token of each pair."""
    return theta ** (-np.arange(0, n_rot, 2, dtype=np.float64) / n_rot)
