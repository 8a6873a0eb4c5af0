"""What differs between Linux, macOS and Windows, decided once for both packages: CPUs, signals, descriptors, how a command becomes another.

Each function is right on all three; what a system lacks is not asked of it. No import beyond the standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import math
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, Optional

WINDOWS = os.name == "nt"
MAX_THREADS = 512

# --- CPUs -----------------------------------------------------------------------------------------------------------


def cpus() -> int:
    """CPUs that this process may use, or whose time it may (`docker --cpus`), at least 1."""
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
        return min(allowed, _quota() or allowed)
    counted = getattr(os, "process_cpu_count", os.cpu_count)()  # on Windows without the process's mask
    return max(1, min(counted or 1, _windows_cpus() or MAX_THREADS))


def threads() -> int:
    """Threads for long computations. Linux: the CPUs this process may use (whoever starts it can choose them); elsewhere physical cores,
    of Apple's processors the fast ones: a slow one would be waited for."""
    if hasattr(os, "sched_getaffinity"):
        return min(cpus(), MAX_THREADS)
    return max(1, min(cpus(), _cores() or MAX_THREADS, MAX_THREADS))


def threads_if_limited() -> Optional[int]:
    """Threads for a program that counts the machine's cores by itself; None: it may use them all."""
    if cpus() >= (os.cpu_count() or 1):
        return None
    return min(threads(), _allowed_cores() or MAX_THREADS)


CPUS, CGROUPS, OWN_CGROUPS = Path("/sys/devices/system/cpu"), Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def _quota() -> Optional[int]:
    """How many CPUs' time the control groups of this process leave it, rounded up; None: no limit, or none that can be read.

    Linux: the least of each group and those around it, of both versions. A container sees its own group as the root, whatever its name outside."""
    limits: list[float] = []
    try:
        groups = [line.split(":", 2) for line in OWN_CGROUPS.read_text().splitlines()]
    except (OSError, ValueError):
        return None
    for controllers, name in (group[1:] for group in groups if len(group) == 3):
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounted = CGROUPS / controllers
        group = mounted / name.lstrip("/")
        for folder in [group, *group.parents]:
            if folder.is_relative_to(mounted):
                limits += _limit(folder)
    return max(1, math.ceil(min(limits))) if limits else None


def _limit(folder: Path) -> list[float]:
    """[CPUs' time] of one control group, [] without a limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return [int(quota) / int(period)] if int(quota) > 0 else []
    except (OSError, ValueError, ZeroDivisionError):  # "max": no limit
        return []


def _allowed_cores() -> Optional[int]:
    """Physical cores of which this process may use a CPU; None: the system does not tell."""
    if not hasattr(os, "sched_getaffinity"):
        return _cores()
    try:
        return len({(CPUS / f"cpu{cpu}/topology/thread_siblings").read_text() for cpu in os.sched_getaffinity(0)})
    except OSError:
        return None


def _cores() -> Optional[int]:
    """Physical cores; None: the system does not tell."""
    try:
        return _windows_cores() if WINDOWS else _apple_cores() if sys.platform == "darwin" else None
    except (OSError, AttributeError, ValueError):
        return None


def _windows_cpus() -> Optional[int]:
    """CPUs of the process's affinity mask, which has those of one group (64) only; None: not Windows, or all of several groups."""
    if not WINDOWS:
        return None
    try:
        kernel = ctypes.windll.kernel32  # type: ignore[attr-defined]
        mask, all_cpus = ctypes.c_size_t(), ctypes.c_size_t()
        kernel.GetCurrentProcess.restype = ctypes.c_void_p
        if not kernel.GetProcessAffinityMask(ctypes.c_void_p(kernel.GetCurrentProcess()), ctypes.byref(mask), ctypes.byref(all_cpus)):
            return None
        return bin(mask.value).count("1") or None  # 0: threads in several groups
    except (OSError, AttributeError):
        return None


RELATION_PROCESSOR_CORE = 0


def _windows_cores() -> Optional[int]:
    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined]
    size = ctypes.c_ulong(0)
    kernel.GetLogicalProcessorInformationEx(RELATION_PROCESSOR_CORE, None, ctypes.byref(size))
    records = ctypes.create_string_buffer(size.value)
    if not size.value or not kernel.GetLogicalProcessorInformationEx(RELATION_PROCESSOR_CORE, records, ctypes.byref(size)):
        return None
    return count_records(records.raw[:size.value])


def count_records(records: bytes) -> int:
    """SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX, one per core: a relation and the record's size, both of 4 bytes, and the rest."""
    n = at = 0
    while at + 8 <= len(records):
        size = int.from_bytes(records[at + 4:at + 8], "little")
        if size < 8:
            raise ValueError("a record without a size")
        n, at = n + 1, at + size
    return n


def _apple_cores() -> Optional[int]:
    return _sysctl("hw.perflevel0.physicalcpu") or _sysctl("hw.physicalcpu")  # Apple's own processors; Intel's


def _sysctl(name: str) -> Optional[int]:
    value, size = ctypes.c_int(0), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int))
    library = ctypes.CDLL(None)
    return value.value if library.sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, 0) == 0 else None


# --- signals ----------------------------------------------------------------------------------------------------------

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name))  # beside an interrupt


def is_closed_pipe(error: OSError) -> bool:
    """Whether whoever read our output has gone; Windows calls it an invalid argument, of no file."""
    return isinstance(error, BrokenPipeError) or WINDOWS and error.errno == errno.EINVAL and error.filename is None


# --- files ------------------------------------------------------------------------------------------------------------


def to_disk(fd: int) -> None:
    """What was written is on the disk, not in the disk's memory. OSError: it is not."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # type: ignore[attr-defined]  # macOS, whose fsync does less
        return
    os.fsync(fd)


def is_locked_away(mode: int, path: Path) -> bool:
    """Whether a folder takes no files. On Windows its read-only mark says how Explorer shows it; making a file tells."""
    return not WINDOWS and not (mode & 0o222 and os.access(path, os.W_OK))


# --- commands ---------------------------------------------------------------------------------------------------------


def program(path: Path) -> Path:
    """The file of a program: with .exe on Windows."""
    return path.with_name(path.name + ".exe") if WINDOWS else path


def run(path: Path, argv: Sequence[str]) -> int:
    """A program with this process's console, to its end; its exit code. Signals are its own."""
    return subprocess.run([*argv], executable=path, restore_signals=False).returncode


def become(path: Path, argv: Sequence[str]) -> NoReturn:
    """This process is that program from here on. On Windows, where exec would let the shell go on at once, it waits for it, and leaves
    Ctrl-C to it."""
    if not WINDOWS:
        return os.execv(path, [*argv])
    for name in ("SIGINT", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    sys.stdout.flush()
    sys.exit(run(path, argv))


def utf8_output() -> None:
    """Of a command: UTF-8 to files and pipes, as on Linux and macOS; Windows' consoles take all of Unicode by themselves."""
    for stream in (sys.stdout, sys.stderr):
        if WINDOWS and stream is not None and hasattr(stream, "reconfigure") and not stream.isatty():
            stream.reconfigure(encoding="utf-8")
