"""The spiking variant's keys: whether it spikes, k, and which projections do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf

from .constants import ARCH, DEFAULT_K
from .errors import bad

SCOPES = ("paper", "released")  # released: the mlp's down projection stays ordinary


@dataclass(frozen=True)
class SpikeOptions:
    """What the command line says; None: nothing."""
    on: bool | None = None
    k: float | None = None
    scope: str | None = None
    down_type: str | None = None
    calibrate: Path | None = None  # text file

    def given(self) -> list[str]:
        """The options that were given, as they are written."""
        named = {"--spike": self.on, "--no-spike": self.on is False, "--spike-k": self.k, "--spike-scope": self.scope,
                 "--spike-down-type": self.down_type, "--spike-calibrate": self.calibrate}
        return [name for name, value in named.items() if value]


@dataclass(frozen=True)
class SpikeKeys:
    """`spikingbrain.spike.*` of a GGUF."""
    enable: bool
    k: float
    scope: str

    def add_to(self, w: gguf.GGUFWriter) -> None:
        """Writes the keys."""
        w.add_bool(f"{ARCH}.spike.enable", self.enable)
        w.add_float32(f"{ARCH}.spike.k", self.k)
        w.add_string(f"{ARCH}.spike.scope", self.scope)

    def __str__(self) -> str:
        return f"{'spikes' if self.enable else 'no spikes'} (k = {self.k:g}, scope {self.scope})"


def add_sink_keys(w: gguf.GGUFWriter, keys: SpikeKeys | None) -> None:
    """What the sinks' constants were computed with: a file whose spikes were changed afterwards can be told. k = 0: ordinary activations."""
    spikes = keys is not None and keys.enable
    w.add_float32(f"{ARCH}.sink_spike_k", keys.k if spikes else 0.0)
    if spikes:
        w.add_string(f"{ARCH}.sink_spike_scope", keys.scope)


def check_widths(keys: SpikeKeys | None, widths: dict[str, int], where: object) -> None:
    """The fork takes counts in blocks of 32."""
    for name, n in widths.items():
        if keys is not None and keys.enable and n % 32:
            raise bad(where, name, n, "a multiple of 32 for a spiking model", "convert it without --spike")


def resolve(options: SpikeOptions, where: object, had: SpikeKeys | None) -> SpikeKeys | None:
    """The keys to write; had: those the checkpoint (or GGUF) has by itself. None: not a spiking model."""
    if had is None and not options.on:
        if options.given():
            raise bad(where, options.given()[0], "a model that does not spike", "a spiking one, or --spike", "add --spike, or leave the option out")
        return None
    scope = options.scope or (had.scope if had else "paper")
    if options.down_type and scope != "released":
        raise bad(where, "--spike-down-type", f"scope {scope}", "scope released", "in scope paper the down projection is stored as all others; leave the option out")
    k = options.k if options.k is not None else had.k if had else DEFAULT_K
    enable = options.on if options.on is not None else had.enable if had else True
    return SpikeKeys(enable, k, scope)
