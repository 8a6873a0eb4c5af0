"""The output file or files: written under a temporary name, tensor data by blocks, renamed when complete."""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gguf
import numpy as np

from .errors import ConvertError, bad
from .metadata import ARCH

PARTIAL = ".partial"
SPACE_MARGIN = 64 << 20  # keys, tokenizer and the file system's own needs


class Output:
    """One GGUF, split or not. gguf's writer holds the keys and lays out the header; the data goes through `write`."""

    def __init__(self, path: Path, force: bool, split_max_bytes: int = 0):
        self.path, self.force = Path(path), force
        self.partial = self.path.with_name(f".{self.path.stem}{PARTIAL}.gguf")
        self.writer = gguf.GGUFWriter(self.partial, ARCH, split_max_size=split_max_bytes)
        self.lock: int | None = None

    def add_tensor(self, name: str, shape: tuple[int, ...], qtype: gguf.GGMLQuantizationType, nbytes: int) -> None:
        self.writer.add_tensor_info(name, shape, np.dtype(np.float16), nbytes, raw_dtype=qtype)

    @property
    def finals(self) -> list[Path]:
        return self.writer.format_shard_names(self.path)

    @property
    def partials(self) -> list[Path]:
        return self.writer.format_shard_names(self.partial)

    def check_free(self, nbytes: int) -> None:
        """Before anything is written: no file in the way, a folder to write to, room for all of it."""
        for path in self.finals:
            if path.exists() and not path.is_file():
                raise bad(path, "output", "a folder or device of that name", "a file name", "choose another -o")
            if path.exists() and not self.force:
                raise bad(path, "output", "an existing file", "none", "choose another -o, or overwrite it with --force")
        folder = self.path.resolve().parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise bad(folder, "output folder", "no such folder" if not folder.is_dir() else "a folder without write permission",
                      "a writable folder", "create it, or choose another with -o")
        free = shutil.disk_usage(folder).free
        if free < nbytes + SPACE_MARGIN:
            raise bad(folder, "disk space", f"{free / 1e6:.0f} MB free", f"{(nbytes + SPACE_MARGIN) / 1e6:.0f} MB",
                      "free some, or choose another folder with -o")

    def begin(self) -> None:
        self._take_lock()
        for stale in self.path.parent.glob(glob.escape(self.partial.stem) + "*.gguf"):  # of a run that was killed
            if stale not in self.partials:
                stale.unlink()
        w = self.writer
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.write_ti_data_to_file()
        for f in w.fout or []:
            w.write_padding(f, f.tell())

    def _take_lock(self) -> None:
        """Two runs cannot write one partial file; the lock goes with its process, a kill included."""
        self.lock = os.open(self.partial.with_suffix(".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self.lock)
            self.lock = None
            raise bad(self.path, "output", "another sb-convert writing it", "one at a time", "wait for the other to end") from None

    def write(self, shard: int, blocks: Iterable[np.ndarray], nbytes: int) -> Iterator[int]:
        """One tensor's data, in order; yields the size of each block written."""
        out = self.writer.fout[shard]  # type: ignore[index]
        start = out.tell()
        for block in blocks:
            out.write(np.ascontiguousarray(block).view(np.uint8).data)
            yield block.nbytes
        if out.tell() - start != nbytes:
            raise AssertionError(f"{self.partial}: wrote {out.tell() - start} bytes of {nbytes}")
        self.writer.write_padding(out, nbytes)

    def commit(self) -> None:
        """On disk first, then the names. A split model is opened by its first file: that one appears last."""
        for f in self.writer.fout or []:
            f.flush()
            os.fsync(f.fileno())
        self.writer.close()
        partials, finals = self.partials, self.finals
        if len(finals) > 1:
            finals[0].unlink(missing_ok=True)  # no old first file over new others
        for partial, final in reversed(list(zip(partials, finals))):
            os.replace(partial, final)
        folder = os.open(self.path.resolve().parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def discard(self) -> None:
        """Removes what is left under temporary names; nothing after commit."""
        if self.lock is None:
            return
        for f in self.writer.fout or []:
            try:
                f.close()
            except OSError:  # a full disk refuses the last buffer too
                pass
        for path in self.partials:
            path.unlink(missing_ok=True)
        self.partial.with_suffix(".lock").unlink(missing_ok=True)
        os.close(self.lock)
        self.lock = None


@contextmanager
def opened(output: Output, nbytes: int) -> Iterator[Output]:
    """Begins, commits at the end; whatever is raised in between, a signal included, leaves no file behind."""
    try:
        output.begin()
        yield output
        output.commit()
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ConvertError(f"{e.filename or output.path}: write: got {e.strerror}, expected success; check the folder and the disk") from e
        raise bad(output.path, "disk space", e.strerror, f"{nbytes / 1e6:.0f} MB", "free some, or choose another folder with -o") from e
    finally:
        output.discard()
