"""A folder of files that appears whole or not at all, by the rules of whole.py; for commands that write a checkpoint."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from .errors import ConvertError
from .whole import NotWritten, lock, named, sync_folder

LEFT = r"\.[0-9a-f]{12}\.partial"


def check_folder(text: str) -> Path:
    """A name from a command line, of a folder that is not there yet. NotWritten: one that is, or cannot be made."""
    if text in ("", "-"):
        named(text)
    path = Path(text)
    parent = path.resolve().parent
    if os.path.lexists(path):
        got = "an existing folder" if path.is_dir() else "an existing file"
        raise NotWritten(f"{text}: output: got {got}, expected none; do choose another name, or remove it")
    if not parent.is_dir():
        raise NotWritten(f"{text}: output folder: got no such folder {parent}, expected a writable one; do create it, or choose another")
    if not os.access(parent, os.W_OK) or not parent.stat().st_mode & 0o222:
        raise NotWritten(f"{text}: output folder: got a folder without write permission, expected a writable one; do choose another")
    return path


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A hidden folder beside `path` to write files into; at the end it becomes `path`, and whatever is raised in between, a signal included, removes it.
    What a killed process left there is removed first. NotWritten: see check_folder. ConvertError: the disk is full."""
    check_folder(str(path))
    real = path.resolve()
    _remove_left(real)
    partial = real.with_name(f".{real.name}.{secrets.token_hex(6)}.partial")
    partial.mkdir()
    fd = os.open(partial, os.O_RDONLY) if os.name != "nt" else None
    try:
        if fd is not None:
            lock(fd)
        yield partial
        _synchronise(partial)
        check_folder(str(path))  # that came meanwhile
        os.rename(partial, real)
        sync_folder(real.parent)
    except OSError as e:
        if isinstance(e, ConvertError):
            raise
        full = e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise ConvertError(f"{path}: {'disk space' if full else 'write'}: got {e.strerror}, expected {'room' if full else 'success'}; "
                           f"{'free some, or choose another folder' if full else 'check the folder and the disk'}") from e
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if fd is not None:
            os.close(fd)


def _synchronise(folder: Path) -> None:
    for file in (f for f in folder.rglob("*") if f.is_file()):
        fd = os.open(file, os.O_RDWR)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    sync_folder(folder)


def _remove_left(real: Path) -> None:
    """A folder that nobody has locked is a killed process's."""
    for left in real.parent.glob(f".{escape(real.name)}.*.partial"):
        if not re.fullmatch(re.escape(f".{real.name}") + LEFT, left.name) or not left.is_dir() or os.name == "nt":
            continue
        with suppress(OSError):
            fd = os.open(left, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                if lock(fd):
                    shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(fd)
