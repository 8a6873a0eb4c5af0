"""How a command ends: its exit code, and one line for what went wrong."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from . import system
from .errors import ConvertError


def exit_code(program: str, run: Callable[[], int], where: str | Path, verbose: bool = False, wanted: str = "readable", unfinished: str = "nothing was written") -> int:
    """That of run(). 1: an error, told in one line; 130: interrupted; 141: nobody reads the output. verbose: errors are raised, with their traceback.

    where: what a file error is about that names no file; wanted: of files; unfinished: what an interrupt left, unless it says so itself."""
    try:
        with ended_by_signals():
            return run()
    except (ConvertError, MemoryError) as e:
        if verbose:
            raise
        print(f"{program}: {str(e) or 'out of memory'}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return nobody_reads()
    except OSError as e:
        if system.is_closed_pipe(e):
            return 141
        if verbose:
            raise
        print(f"{program}: {e.filename or where}: file: got {e.strerror}, expected it to be {wanted}; check path, rights and disk", file=sys.stderr)
        return 1
    except KeyboardInterrupt as e:
        print(f"{program}: interrupted; {str(e) or unfinished}", file=sys.stderr)
        return 130


def nobody_reads() -> int:
    """The exit code where whoever read the output has enough of it, as a shell tells SIGPIPE; what is left of the output goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """What else ends a process (system.ENDING) cleans up as an interrupt does, but where whoever started us had them ignored (nohup). Only a main thread may set them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {end: signal.getsignal(end) for end in system.ENDING}
    taken = {end: handler for end, handler in before.items() if handler == signal.SIG_DFL}
    for end in taken:
        signal.signal(end, _terminated)
    try:
        yield
    finally:
        for end, handler in taken.items():
            signal.signal(end, handler)


def _terminated(*_: object) -> None:
    raise KeyboardInterrupt
