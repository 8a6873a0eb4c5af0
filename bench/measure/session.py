"""What every measurement needs: drivers, models made and deleted, memory looked at before, rows with the machine in them."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from .. import rows
from ..cases import Case, Player
from ..checkout import pin
from ..errors import BenchError, Skip
from ..shapes import model_bytes
from ..sides import SIDES
from . import machine
from .build import Drivers
from .driver import Driver
from .make_model import convert_model, make_model

RESERVE = 1 << 30  # left to the system, bytes


@dataclass
class Seat:
    """A player at its driver: model loaded, context open."""
    player: Player
    driver: Driver
    model_hash: str
    loaded: dict[str, Any]
    opened: dict[str, Any] = field(default_factory=dict)


class Models:
    """Files made on demand in one folder, and deleted when the next case does not need them. What a killed run left goes first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hashes: dict[str, str] = {}
        self.keep([])

    def keep(self, players: list[Player] | tuple[Player, ...]) -> None:
        """Deletes all but these players' files."""
        wanted = {p.file for p in players}
        for path in self.folder.glob("*.gguf") if self.folder.is_dir() else ():
            if path.name not in wanted:
                path.unlink()
        for path in self.folder.glob(".*.partial") if self.folder.is_dir() else ():
            path.unlink()  # of a run that was killed

    def get(self, player: Player) -> tuple[Path, str]:
        path = self.folder / player.file
        if not path.exists():
            need = model_bytes(player.shape, player.type) * 1.05 + (64 << 20)
            if machine.free_disk(self.folder) < need:
                raise Skip(f"disk: {need / 2**30:.1f} GiB needed for {player.file}, {machine.free_disk(self.folder) / 2**30:.1f} GiB free")
            self.hashes[player.file] = (convert_model(player.checkpoint, player.type, path, player.spikes) if player.checkpoint else
                                        make_model(player.shape, player.type, path, player.spikes))
        return path, self.hashes[player.file]


@dataclass
class Bench:
    """One run of the suite. `step(n)` moves the progress bar by n seconds of the announced time."""
    drivers: Drivers
    models: Models
    small: bool = False
    warn: Callable[[str], None] = print
    known: list[rows.Row] = field(default_factory=list)  # rows measured so far, for cases that build on others
    noise: Optional[dict[str, Any]] = None
    case: Optional[Case] = None

    def driver(self, side: str) -> Driver:
        return Driver(self.drivers.paths[side], side, env=SIDES[side].environment(machine.cpus()))

    def look(self, case: Case) -> dict[str, Any]:
        """How quiet the machine is."""
        with self.driver("ours") as d:
            spin = d.ask("spin", threads=case.params.get("n_threads", 1), repeat=12)["seconds"][2:]
        return machine.noise(spin)

    def begin(self, case: Case) -> None:
        """Looks how quiet the machine is; warns where it is not."""
        self.case = case
        self.noise = self.look(case)
        if self.noise["noisy"]:
            self.warn(f"{case.id}: noisy machine: others use {self.noise['others']:.0%} of the CPUs, the hypervisor took "
                      f"{self.noise['steal']:.0%}, a fixed loop varies by {self.noise['loop_spread']:.0%}")

    def end(self) -> None:
        """Looks again: noise is the greater of both."""
        assert self.case and self.noise
        after = self.look(self.case)
        self.noise = {k: max(v, after[k]) for k, v in self.noise.items()}

    def noisy(self) -> bool:
        return bool(self.noise and self.noise["noisy"])

    def row(self, name: str, seat: Optional[Seat] = None, **fields: Any) -> rows.Row:
        """A row of the current case with the machine, the build and, where given, the seat's model in it."""
        assert self.case
        p = self.case.params
        common: dict[str, Any] = {
            "case": self.case.id, "kind": self.case.kind, "name": name, "machine": machine.describe(), "cpu_features": machine.cpu_features(),
            "pin": self.drivers.pin, "commit": self.drivers.commit, "build": self.drivers.build, "noise": self.noise,
            "threads": p.get("n_threads"), "n_prompt": p.get("n_prompt"), "n_gen": p.get("n_gen"), "depth": p.get("depth"),
            "n_seq": p.get("n_seq", 1), "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}
        if seat:
            common |= self.fields(seat)
        return rows.make_row(**common | fields)

    def fields(self, seat: Seat) -> dict[str, Any]:
        """What a row says of the seat's model."""
        return {"model": seat.player.shape.name, "model_hash": seat.model_hash, "type": seat.player.type, "spikes": seat.player.spikes,
                "side": seat.player.side, "engine": pin(SIDES[seat.player.side].lock), "settings": seat.player.settings, "state_bytes": seat.opened.get("state_bytes"),
                "peak_resident_bytes": seat.driver.ask("memory")["peak"]}

    def skipped(self, reason: str, name: str = "") -> rows.Row:
        return self.row(name or "all", skipped=reason)

    # --- models in drivers

    def memory_needed(self, player: Player, n_ctx: int, n_seq: int, n_batch: int) -> int:
        """Upper estimate in bytes: file, and again where it is repacked, cache or state, attention scores (16 bits more than needed), outputs."""
        s = player.shape
        weights = int(model_bytes(s, player.type) * 1.1) * (1 + bool(player.settings.get("repack")))
        if s.window:
            states = s.n_layer * 8 * s.head ** 2 * (s.n_head if s.parallel else s.n_head_kv)
            cache = n_seq * (s.n_layer * 4 * s.head * s.n_head_kv * (s.window + s.sinks + 512) + states) + s.kv_bytes_per_token() * n_ctx
            scores = 0
        else:
            cache = s.kv_bytes_per_token() * n_ctx
            scores = 0 if player.settings.get("flash_attn") else 6 * n_ctx * n_batch * s.n_head
        return weights + cache + scores + 4 * s.n_vocab * n_batch + (256 << 20)

    def check_memory(self, need: int, what: str) -> None:
        free = machine.free_memory() - RESERVE
        if need > free:
            raise Skip(f"memory: {what}: {need / 2**30:.1f} GiB needed, {free / 2**30:.1f} GiB free beside a reserve of {RESERVE >> 30} GiB")

    def load(self, player: Player) -> Seat:
        path, digest = self.models.get(player)
        driver = self.driver(player.side)
        try:
            return Seat(player, driver, digest, driver.ask("load", path=str(path), settings=player.settings))
        except BaseException:
            driver.close()
            raise

    @contextlib.contextmanager
    def seated(self, players: tuple[Player, ...], n_ctx: int, n_threads: int, n_seq: int = 1, n_batch: int = 0) -> Iterator[list[Seat]]:
        """The players, each in a driver of its own with a context of n_ctx tokens in all; memory is looked at before.

        n_batch 0: for decoding. Upstream's buffer of attention scores is then as small as it can be, and ours is the default 512."""
        ours, theirs = n_batch or 512, n_batch or n_seq + 1  # upstream refuses less than one token per sequence
        self.check_memory(sum(self.memory_needed(p, n_ctx, n_seq, ours if p.shape.window else theirs) for p in players),
                          ", ".join(p.name for p in players))
        seats: list[Seat] = []
        try:
            for player in players:
                seats.append(self.load(player))
                ring = bool(player.shape.window)
                seats[-1].opened = seats[-1].driver.ask(
                    "context", n_ctx=n_ctx, n_threads=n_threads, n_seq=n_seq, n_batch=ours if ring else theirs,
                    unified=n_seq == 1 and not ring)
            yield seats
        finally:
            for seat in seats:
                seat.driver.close()

    def fill(self, seat: Seat, depth: int, n_seq: int = 1) -> None:
        """`depth` tokens of synthetic context in each sequence. Raises BenchError where the positions are not those."""
        p = seat.player
        for seq in range(n_seq):
            seat.driver.ask("fill", depth=depth, seq=seq, layers=p.shape.layers(depth))
            next_ = seat.driver.ask("position", seq=seq)["next"]
            if next_ != depth:
                raise BenchError(f"bench: {p.name}: filled sequence {seq}: got next position {next_}, expected {depth}; do report this")
