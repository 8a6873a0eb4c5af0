"""The paper's energy estimate (section 5.5, Eq. 24): what a count costs as spikes, beside a multiply-accumulate."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

# pJ per operation at 45 nm, as the paper takes them
FP16_MAC = 1.5
INT8_MAC = 0.23
INT8_ADD = 0.03

ASSUMPTIONS = (
    "idealised event-driven hardware: only a spike costs anything, one INT8 addition each (0.03 pJ); silence is free",
    "memory access, control and routing are not counted (the paper's appendix C.2)",
    "45 nm figures of the paper: FP16 multiply-accumulate 1.5 pJ, INT8 multiply-accumulate 0.23 pJ, INT8 addition 0.03 pJ",
    "per channel and weight, in the projections that spike; attention, norms, embedding and output are left out",
    "an estimate for such hardware: this program ran on a CPU, whose energy it says nothing about",
)


@dataclass(frozen=True)
class Energy:
    """pJ for one channel of one input times one weight."""
    mean_spikes: float         # per channel, bitwise coding
    spikes_pj: float           # Eq. 24: mean_spikes * 0.03
    fp16_pj: float = FP16_MAC
    int8_pj: float = INT8_MAC

    @property
    def below_fp16(self) -> float:
        """Share saved against an FP16 multiply-accumulate; negative: it costs more."""
        return 1 - self.spikes_pj / self.fp16_pj

    @property
    def below_int8(self) -> float:
        """The share that is saved against INT8 products."""
        return 1 - self.spikes_pj / self.int8_pj

    def to_dict(self) -> dict[str, object]:
        """As JSON holds it."""
        return {**asdict(self), "below_fp16": self.below_fp16, "below_int8": self.below_int8, "assumptions": list(ASSUMPTIONS)}

    def __str__(self) -> str:
        return (f"{self.mean_spikes:.3f} spikes x {INT8_ADD} pJ = {self.spikes_pj:.4f} pJ: "
                f"{_against(self.below_fp16)} FP16 ({self.fp16_pj} pJ), {_against(self.below_int8)} INT8 ({self.int8_pj} pJ)")


def energy(mean_spikes: float) -> Energy:
    """Energy at a mean number of spikes per channel (SpikeStats' mean_spikes)."""
    if not (math.isfinite(mean_spikes) and mean_spikes >= 0):
        raise ValueError(f"energy: mean_spikes: got {mean_spikes}, expected a number of 0 or more")
    return Energy(mean_spikes, mean_spikes * INT8_ADD)


def _against(saved: float) -> str:
    return f"{abs(saved):.1%} {'below' if saved >= 0 else 'above'}"
