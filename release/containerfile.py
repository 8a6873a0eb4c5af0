"""Runs a container file's steps in a chroot: what a container engine would do with release/Containerfile, where there is none.

Knows the instructions that file uses, and refuses any other.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from chroot import Process, Root, fail

SHELL = ("sh", "-c")
MOUNT = re.compile(r"--mount=type=bind,target=(\S+)\s+")


@dataclass
class Image:
    """What the instructions have left, beside the files in `root`."""

    root: Root
    base: str = ""
    env: dict[str, str] = field(default_factory=dict)
    user: str = ""
    volumes: list[str] = field(default_factory=list)
    ports: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def inside(self, binds: dict[Path, str], env: dict[str, str], user: str | None = None) -> Root:
        return Root(self.root.folder, binds=self.root.binds | binds, env=self.env | env, user=self.user if user is None else user, log=self.root.log)

    def start(self, *options: str, binds: dict[Path, str] | None = None, env: dict[str, str] | None = None) -> Process:
        """Its entry point with `options`, as its user."""
        return self.inside(binds or {}, env or {}).start(*self.entrypoint, *options)

    def healthy(self, env: dict[str, str] | None = None) -> bool:
        """What its health check says."""
        return self.inside({}, env or {}).run(*self.health, check=False, timeout=60).returncode == 0


def instructions(text: str) -> list[tuple[str, str]]:
    """(INSTRUCTION, the rest of its line), lines joined that end in a backslash."""
    lines = re.sub(r"\\\n", " ", "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))).splitlines()
    return [(word.upper(), rest.strip()) for word, _, rest in (line.strip().partition(" ") for line in lines if line.strip())]


def words(rest: str, where: str) -> list[str]:
    """The list form, ["a", "b"]: the form whose signals arrive."""
    try:
        return [str(word) for word in json.loads(rest)]
    except ValueError:
        fail(where, rest, 'the list form, ["program", "argument"]', "write it so: a shell would keep the signals")


def step(image: Image, name: str, rest: str, context: Path, extra: dict[str, str]) -> None:
    if name == "FROM":
        image.base = rest
    elif name == "RUN":
        binds = {context: MOUNT.match(rest)[1]} if MOUNT.match(rest) else {}
        image.inside(binds, extra, user="").run(*SHELL, MOUNT.sub("", rest), timeout=1800)
    elif name == "ENV":
        image.env |= dict(pair.split("=", 1) for pair in shlex.split(rest))
    elif name == "USER":
        image.user = rest
    elif name == "VOLUME":
        image.volumes.append(rest)
    elif name == "EXPOSE":
        image.ports.append(rest)
    elif name == "ENTRYPOINT":
        image.entrypoint = words(rest, name)
    elif name == "HEALTHCHECK":
        image.health = words(rest.split("CMD", 1)[1].strip(), name)
    else:
        fail(f"Containerfile: {name}", "an instruction that is not known here", "one of those it had", "add it to release/containerfile.py")


def build(file: Path, root: Root, extra: dict[str, str]) -> Image:
    """Its steps, one after the other; its folder is the context, `extra` is in the environment of RUN alone (where pip finds packages)."""
    image = Image(root)
    for name, rest in instructions(file.read_text()):
        step(image, name, rest, file.parent, extra)
    return image
