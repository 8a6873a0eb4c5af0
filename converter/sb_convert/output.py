"""The output file or files: written under temporary names, tensor data by blocks, put in place when complete (whole.py)."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gguf
import numpy as np
from gguf.gguf_writer import WriterState

from . import system
from .constants import ARCH
from .errors import ConvertError, bad
from .whole import AnyPath, NotWritten, WholeFiles, require_space, targets


class Output:
    """One GGUF, split or not. gguf's writer holds the keys and lays out the header; the data goes through `write`.

    inputs: what the call reads (files, checkpoint folders), over which it never writes.
    """

    def __init__(self, path: Path, force: bool, split_max_bytes: int = 0, inputs: Iterable[AnyPath] = ()):
        self.path, self.force, self.inputs = Path(path), force, tuple(inputs)
        self.writer = gguf.GGUFWriter(self.path, ARCH, split_max_size=split_max_bytes)
        self.files = WholeFiles()

    def add_tensor(self, name: str, shape: tuple[int, ...], qtype: gguf.GGMLQuantizationType, nbytes: int) -> None:
        """shape: in PyTorch's order [out, in]; tensors are written in the order in which they are added."""
        self.writer.add_tensor_info(name, shape, np.dtype(np.float16), nbytes, raw_dtype=qtype)

    @property
    def finals(self) -> list[Path]:
        """The files that there will be, in order."""
        return self.writer.format_shard_names(self.path)

    def check_free(self) -> None:
        """Before anything is written: names that may be written, room for all of it."""
        real = targets(self.finals, self.inputs, self.force)
        require_space((path, sum(t.nbytes for t in held.values())) for path, held in zip(real, self.writer.tensors))

    def begin(self) -> None:
        """Opens the files under temporary names and writes their headers. NotWritten: one may not be written."""
        w = self.writer
        w.fout = [self.files.begin(path, self.inputs, self.force, alone=True) for path in self.finals]
        w.state = WriterState.EMPTY  # as if it had opened them
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.write_ti_data_to_file()
        for f in w.fout:
            w.write_padding(f, f.tell())

    def write(self, shard: int, blocks: Iterable[np.ndarray], nbytes: int) -> Iterator[int]:
        """One tensor's data, in order; yields the size of each block written."""
        out = self.writer.fout[shard]  # type: ignore[index]
        start = out.tell()
        for block in blocks:
            out.write(np.ascontiguousarray(block).view(np.uint8).data)
            yield block.nbytes
        if out.tell() - start != nbytes:
            raise AssertionError(f"{self.path}: wrote {out.tell() - start} bytes of {nbytes}")
        self.writer.write_padding(out, nbytes)

    def commit(self) -> None:
        """Puts the files in place, the first of several last."""
        self.writer.fout = None
        self.files.commit()

    def discard(self) -> None:
        """Removes what is left under temporary names; nothing after commit."""
        self.files.discard()


@contextmanager
def opened(output: Output, nbytes: int) -> Iterator[Output]:
    """Begins, commits at the end; whatever is raised in between, a signal included, leaves no file behind."""
    try:
        output.begin()
        yield output
        output.commit()
    except NotWritten:
        raise
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ConvertError(f"{e.filename2 or e.filename or output.path}: write: got {e.strerror}, expected success; check the folder and the disk"
                               f"{', or close what has the file open' if system.WINDOWS else ''}") from e
        raise bad(output.path, "disk space", e.strerror, f"{nbytes / 1e6:.0f} MB", "free some, or choose another folder with -o") from e
    except KeyboardInterrupt:
        if output.files.committed:
            raise KeyboardInterrupt(f"{output.path.name} was written") from None
        raise
    finally:
        output.discard()
