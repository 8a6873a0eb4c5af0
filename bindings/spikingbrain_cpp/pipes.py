"""What a command does when whoever reads its output has enough."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import contextmanager
from typing import Iterator


@contextmanager
def ends_with_the_reader() -> Iterator[None]:
    """A closed pipe (`| head`) ends the process silently, as it does other commands.

    Python ignores SIGPIPE and raises BrokenPipeError instead; a tool that it then becomes would inherit that and go on writing
    to nobody. For the length of a command, not in a library.
    """
    if not hasattr(signal, "SIGPIPE") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        yield
    finally:
        sys.stdout.flush()
        signal.signal(signal.SIGPIPE, signal.SIG_IGN if before is None else before)
