"""How far the conversion is: a bar on a terminal; elsewhere a plain line per tenth, at most one a second."""

from __future__ import annotations

import sys
import time


class Progress:
    def __init__(self, total: int, say=print):
        self.total, self.done, self.say, self.told, self.begun = total, 0, say, 0, time.monotonic()
        self.last = self.begun
        self.bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm
            self.bar = tqdm(total=total, unit="B", unit_scale=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def start(self, name: str) -> None:
        """name: the tensor that is written from now on."""
        if self.bar is not None:
            self.bar.set_description(name, refresh=False)

    def add(self, n: int) -> None:
        """n: bytes written since the last call."""
        self.done += n
        if self.bar is not None:
            self.bar.update(n)
        elif self.done * 10 // self.total > self.told and time.monotonic() - self.last > 1:
            self.told, self.last = self.done * 10 // self.total, time.monotonic()
            self.say(f"{self.told * 10:3d}%  {self.done / 1e6:,.0f} of {self.total / 1e6:,.0f} MB  {time.monotonic() - self.begun:.0f} s")
