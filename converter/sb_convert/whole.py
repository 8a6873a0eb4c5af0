"""How both packages write a file: one table of rules, and files that appear whole or not at all.

The fork's programs follow the same rules (whole-file.h), and so does the Android library (WholeFile.java); the temporary name,
.NAME.<12 hexadecimal digits>.partial, is the same for all of them. No import beyond the standard library.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Optional, Union

from . import system
from .errors import ConvertError

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be removed
    fcntl = None  # type: ignore[assignment]

AnyPath = Union[str, "os.PathLike[str]"]
SPACE_MARGIN = 64 << 20  # keys, tokenizer and the file system's own needs


class NotWritten(OSError, ConvertError):
    """A file that may not or could not be written; what was there is as it was. str() is one sentence."""


# --- the rules ------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Target:
    """What a name leads to. real: links followed; found: its stat, None if there is nothing; loop: the links have no end."""

    given: AnyPath
    real: Path
    found: Optional[os.stat_result]
    loop: bool = False
    inputs: Sequence[AnyPath] = ()
    overwrite: bool = True

    @classmethod
    def of(cls, path: AnyPath, inputs: Iterable[AnyPath] = (), overwrite: bool = True) -> Target:
        """path: as it was typed. NotWritten: a name that cannot be looked up."""
        loop, found = False, None
        try:
            found = os.stat(path)
        except OSError as error:
            loop = error.errno == errno.ELOOP
            if error.errno not in (errno.ELOOP, errno.ENOENT, errno.ENOTDIR):
                raise NotWritten(f"{os.fspath(path)}: output: got {error.strerror}, expected a file name; do choose another name") from None
        return cls(path, Path(os.path.realpath(path)), found, loop, tuple(inputs), overwrite)

    def text(self) -> Optional[str]:
        """The name as it was typed; a Path has lost its './' and its last '/'."""
        return self.given if isinstance(self.given, str) else None

    def is_folder(self) -> bool:
        """Whether it is one, or its name says that it should be."""
        text = self.text()
        return text is not None and text.endswith(("/", os.sep)) or self.found is not None and stat.S_ISDIR(self.found.st_mode)

    def is_protected(self) -> bool:
        """Whether there is a file that may not be written."""
        return self.found is not None and not (self.found.st_mode & 0o222 and os.access(self.real, os.W_OK))

    def is_input(self) -> bool:
        """Whether it is a file that this call reads."""
        return self.found is not None and any(_is(self.found, path) for path in self.inputs)


@dataclass(frozen=True)
class Rule:
    """One reason not to write; what: the output, or its folder."""

    name: str
    broken: Callable[[Target], bool]
    got: str
    expected: str
    do: str
    what: str = "output"


RULES = (  # in the order in which they are asked
    Rule("no name", lambda t: t.text() == "", "no name", "a file name", "give one"),
    Rule("standard output", lambda t: t.text() == "-", "the name of the standard output", "a file name", "give ./- for a file called so"),
    Rule("links in a circle", lambda t: t.loop, "symbolic links in a circle", "a file", "mend the links or choose another name"),
    Rule("a folder", Target.is_folder, "a folder", "a file name", "add a name to it, or choose another"),
    Rule("no regular file", lambda t: t.found is not None and not stat.S_ISREG(t.found.st_mode), "a device, a pipe or a socket",
         "a regular file", "choose another name"),
    Rule("an input", Target.is_input, "a file that this call reads", "another file than the inputs", "choose another name"),
    Rule("an existing file", lambda t: t.found is not None and not t.overwrite, "an existing file", "none",
         "choose another name, or overwrite it with --force"),
    Rule("write-protected", Target.is_protected, "a write-protected file", "one that may be written", "change its mode, or choose another name"),
    Rule("no such folder", lambda t: not t.real.parent.is_dir(), "no such folder", "a writable folder", "create it, or choose another",
         "output folder"),
    Rule("a folder without write permission", lambda t: system.is_locked_away(t.real.parent.stat().st_mode, t.real.parent),
         "a folder without write permission", "a writable folder", "choose another", "output folder"),
)


def target(path: AnyPath, inputs: Iterable[AnyPath] = (), overwrite: bool = True) -> Path:
    """The regular file that a path names or will name, symbolic links followed. inputs: files, split models by any part, and
    checkpoint folders (all files but GGUFs). NotWritten: a rule says no, or there is no looking at it."""
    found = Target.of(path, inputs, overwrite)
    for rule in RULES:
        if rule.broken(found):
            where = os.fspath(path)
            if rule.what != "output":
                where = str(found.real.parent) if os.path.islink(path) else os.path.dirname(path) or "."
            raise NotWritten(f"{where}: {rule.what}: got {rule.got}, expected {rule.expected}; do {rule.do}")
    return found.real


def named(text: str) -> Path:
    """A name from a command line, of a file or of a folder that is there. NotWritten: one that only looks like a file's."""
    path = Path(text)
    if text in ("", "-") or not path.is_dir() and text.endswith(("/", os.sep)):
        target(text)
    return path


def targets(paths: Iterable[AnyPath], inputs: Iterable[AnyPath] = (), overwrite: bool = True) -> list[Path]:
    """The same for several outputs of one call, which must differ, too."""
    inputs, real = tuple(inputs), []
    for path in paths:
        real.append(target(path, inputs, overwrite))
        if real[-1] in real[:-1]:
            raise NotWritten(f"{os.fspath(path)}: output: got another output of this call, expected one file for each; do choose another name")
    return real


def require_space(sizes: Iterable[tuple[Path, int]]) -> None:
    """(resolved file, bytes): room for all of them where they will lie, each file system by itself. NotWritten: there is not."""
    disks: dict[int, tuple[Path, int]] = {}
    for path, n in sizes:
        disk = path.parent.stat().st_dev
        disks[disk] = (path.parent, disks.get(disk, (path, SPACE_MARGIN))[1] + n)
    for folder, n in disks.values():
        free = shutil.disk_usage(folder).free
        if free < n:
            raise NotWritten(f"{folder}: disk space: got {free / 1e6:.0f} MB free, expected {n / 1e6:.0f} MB; do free some, or choose another folder")


_SPLIT = re.compile(r"(.*-)\d{5}(-of-)(\d{5})(\.gguf)", re.DOTALL)


def _is(found: os.stat_result, path: AnyPath) -> bool:
    """Whether a file is this input, or a part of it."""
    name = os.fspath(path)
    if os.path.isdir(name):
        return any(_same(found, file) and not _is_gguf(file) for pattern in ("*", "*/*") for file in Path(name).glob(pattern))
    split = _SPLIT.fullmatch(name)
    parts = [name] if not split else [f"{split[1]}{i + 1:05d}{split[2]}{split[3]}{split[4]}" for i in range(int(split[3]))]
    return any(_same(found, part) for part in parts)


def _same(found: os.stat_result, path: AnyPath) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(found, os.stat(path))
    return False


def _is_gguf(path: Path) -> bool:
    """What a converter wrote into a checkpoint's folder earlier; no checkpoint has one."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read(4) == b"GGUF"
    return False


# --- what differs between systems -------------------------------------------------------------------------------------

def lock(fd: int) -> Optional[bool]:
    """For as long as it is open. False: another process, or another part of this one, has it; None: there are no locks here."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
    return True


def _remove_unless_used(path: Path) -> bool:
    """False: the process that writes it is alive. Removed under its lock, so that nobody can take it meanwhile."""
    if fcntl is None:
        with contextlib.suppress(OSError):
            os.unlink(path)
        return not path.exists()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        return error.errno == errno.ENOENT
    try:
        free = lock(fd)
        if free:
            with contextlib.suppress(OSError):
                os.unlink(path)
        return free is not False
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """The new names, too, on the disk. They are in place: what goes wrong here is no reason to say that nothing was written."""
    if os.name == "nt":
        return
    try:
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EACCES, errno.ENOTSUP):  # there are file systems that cannot
            warnings.warn(f"{folder}: output: written, but the folder could not be synchronised ({error.strerror}): a power cut may undo it; "
                          "do check the disk", RuntimeWarning, stacklevel=4)


# --- writing ------------------------------------------------------------------------------------------------------------

@dataclass
class _Part:
    file: BinaryIO
    path: Path
    real: Path
    overwrite: bool = True


@dataclass
class WholeFiles:
    """Files that appear together or not at all; a with statement removes what commit() has not put in place.

    Each is written beside its target (symbolic links followed), keeps the mode and owner of a file that it replaces, and is locked
    while it is written, so that what a killed process left can be told from what another one writes.
    """

    _begun: list[_Part] = field(default_factory=list)
    committed: bool = False

    def __enter__(self) -> WholeFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def begin(self, path: AnyPath, inputs: Iterable[AnyPath] = (), overwrite: bool = True, alone: bool = False) -> BinaryIO:
        """A file to write to. alone: refuse while another process writes this one. NotWritten: see target(). OSError: not made."""
        real = target(path, inputs, overwrite)
        used = _remove_left(real)
        if alone and used:
            raise NotWritten(f"{os.fspath(path)}: output: got another process writing it, expected one at a time; do wait for the other to end")
        part = _create(real)
        part.overwrite = overwrite
        self._begun.append(part)
        return part.file

    def commit(self) -> None:
        """On the disk first, then the names: of several files the first one, by which a split model is opened, appears last.
        OSError: not done, and all is as it was."""
        try:
            for part in self._begun:
                part.file.flush()
                system.to_disk(part.file.fileno())
                if fcntl is None:
                    part.file.close()
                if not part.overwrite:
                    target(part.real, overwrite=False)  # that came meanwhile
            self._rename()
        except BaseException:
            self.discard()
            raise
        folders = {part.real.parent for part in self._begun}
        self._close()
        for folder in folders:
            sync_folder(folder)

    def _rename(self) -> None:
        olds: list[tuple[Path, Path]] = []
        try:
            if len(self._begun) > 1:  # one rename is whole by itself; with several no old file may stand among new ones
                for part in self._begun:
                    old = part.path.with_suffix(".old")
                    if part.real.exists():
                        olds.append((old, part.real))
                        os.replace(part.real, old)
            for part in reversed(self._begun):
                os.replace(part.path, part.real)
            self.committed = True
        except BaseException:
            if len(self._begun) == 1:
                self.committed = not self._begun[0].path.exists()  # interrupted just behind its only rename
                raise
            for part in self._begun:
                if not part.path.exists():
                    part.real.unlink(missing_ok=True)
            for old, real in olds:
                if old.exists():
                    os.replace(old, real)
            raise
        for old, _ in olds:
            old.unlink(missing_ok=True)

    def discard(self) -> None:
        """Removes what was begun and not committed."""
        parts, remove = self._begun, not self.committed
        if fcntl is None:  # Windows removes no file that is open
            self._close()
        for part in parts if remove else []:
            part.path.unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        for part in self._begun:
            with contextlib.suppress(OSError):  # a full disk refuses the last buffer too
                part.file.close()
        self._begun = []


def write_whole(path: AnyPath, blob: bytes, inputs: Iterable[AnyPath] = ()) -> None:
    """One file: it holds all of the bytes or is as it was. NotWritten: see target(). OSError: it could not be written."""
    with WholeFiles() as files:
        files.begin(path, inputs).write(blob)
        files.commit()


def _beginning(real: Path) -> str:
    name = real.name
    while len(os.fsencode(name)) > 200:  # the temporary name is longer and must fit, too
        name = name[:-1]
    return f".{name}."


def _create(real: Path) -> _Part:
    for _ in range(100):
        path = real.with_name(f"{_beginning(real)}{secrets.token_hex(6)}.partial")
        try:
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0), 0o666)
        except FileExistsError:
            continue
        if lock(fd) is not False and os.fstat(fd).st_nlink:
            _take_over(fd, real)
            return _Part(os.fdopen(fd, "w+b"), path, real)
        os.close(fd)  # taken for one that was left, before it was locked
    raise NotWritten(f"{real}: output: got no free name beside it, expected to make a file; do check the folder")


def _take_over(fd: int, real: Path) -> None:
    """Mode and owner of the file that will be replaced; a new one has what the umask gives."""
    with contextlib.suppress(OSError, AttributeError):
        old = os.stat(real)
        with contextlib.suppress(OSError):  # only root can give it away
            os.fchown(fd, old.st_uid, old.st_gid)
        os.fchmod(fd, stat.S_IMODE(old.st_mode) & 0o777)


def _remove_left(real: Path) -> bool:
    return remove_left(real.parent, re.escape(_beginning(real)))


def remove_left(folder: Path, beginning: str) -> bool:
    """Removes what killed processes left in a folder, of targets whose temporary names begin so (a pattern); whether a living one
    is writing one of them."""
    ours = re.compile(beginning + r"[0-9a-f]{12}\.(partial|old)", re.DOTALL)
    used = False
    with contextlib.suppress(PermissionError), os.scandir(folder) as entries:  # a folder that may not be listed
        for entry in entries:
            if ours.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                used = not _remove_unless_used(Path(entry.path)) or used
    return used
