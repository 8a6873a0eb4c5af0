"""`python -m bench reread MODEL.gguf N`: what N tokens read of a file whose experts stay in it, where none is left in memory: before each
token the experts' pages are dropped. One thread; prints medians of a token's MiB from the disk, major faults and seconds."""

from __future__ import annotations

import ctypes
import os
import resource
import statistics
import time
from pathlib import Path

import gguf

PAGE = os.sysconf("SC_PAGESIZE")
MADV_DONTNEED = 4  # of a mapped file: its pages are mapped no more


def mapped_at(path: Path) -> int:
    """Where this process has the file's first byte."""
    lines = (line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path)))
    return min(int(line.split("-")[0], 16) for line in lines)


def drop(path: Path, fd: int, parts: list[tuple[int, int]]) -> None:
    """Takes parts of a file (first byte, bytes) out of this process's memory and out of the page cache."""
    libc, base = ctypes.CDLL(None, use_errno=True), mapped_at(path)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for at, n in parts:
        first, end = -(-at // PAGE) * PAGE, (at + n) // PAGE * PAGE
        if end > first and libc.madvise(base + first, end - first, MADV_DONTNEED):
            raise OSError(ctypes.get_errno(), "madvise")
        os.posix_fadvise(fd, first, end - first, os.POSIX_FADV_DONTNEED)


def counted() -> tuple[float, int, float]:
    """MiB read from disks, major faults, seconds; of this process, up to now."""
    read = next(line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("read_bytes"))
    return int(read.split()[1]) / 2**20, resource.getrusage(resource.RUSAGE_SELF).ru_majflt, time.perf_counter()


def main(path: Path, n: int) -> None:
    from spikingbrain_cpp import Llama

    parts = [(int(t.data_offset), int(t.n_bytes)) for t in gguf.GGUFReader(path).tensors if "_exps." in t.name]
    fd, rows = os.open(path, os.O_RDONLY), []
    with Llama(model_path=str(path), n_ctx=512, n_threads=1, verbose=False) as llama:
        tokens = llama.generate(list(range(300, 332)), temp=0.0)
        next(tokens)
        for _ in range(n):
            drop(path, fd, parts)
            before = counted()
            next(tokens)
            rows.append([b - a for a, b in zip(before, counted())])
    read, faults, seconds = (statistics.median(column) for column in zip(*rows))
    print(f"per token: {read:.1f} MiB read, {faults:.0f} major faults, {seconds:.3f} s")
