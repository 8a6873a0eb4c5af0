"""A running sb-bench-driver: one request, one answer, both a line of JSON."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Optional, Union

from ..errors import BenchError


class Driver:
    """One process with at most one model. Ends with `close()` or when this process does: its input is closed then.

    Raises BenchError for what the driver refuses and when it dies."""

    def __init__(self, path: Union[Path, list[str]], name: str = "", cwd: Optional[Path] = None,
                 env: Optional[dict[str, str]] = None) -> None:
        """path: the program, or a command that speaks as it does. `env` is added to the environment."""
        command = path if isinstance(path, list) else [str(path)]
        self.name = name or Path(command[0]).name
        self.errors = tempfile.TemporaryFile()
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
                                            text=True, cwd=cwd, env=os.environ | (env or {}), start_new_session=True)  # Ctrl-C is ours to handle
        except OSError as e:
            raise BenchError(f"bench: {command[0]}: got {e.strerror}, expected the driver; do run `python -m bench build`") from e

    def ask(self, cmd: str, **arguments: Any) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps({"cmd": cmd, **arguments}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            rc = self.process.wait()
            raise BenchError(f"bench: driver {self.name}: {cmd}: got exit code {rc} instead of an answer, expected one; "
                             f"do check the memory (a killed process has code -9) {self.last_words()}".rstrip())
        answer = json.loads(line)
        if "error" in answer:
            log = answer.get("log", "").strip()
            raise BenchError(f"bench: driver {self.name}: {cmd}: {answer['error']}" + (f" ({log})" if log else ""))
        return answer

    def last_words(self) -> str:
        """The end of what it wrote to stderr: an assertion, if one failed."""
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").split("\n")
        found = [x for x in lines if "ASSERT" in x or "error" in x.lower()] or [x for x in lines if x][-1:]
        return f"({found[0].strip()})" if found else ""

    def close(self) -> None:
        """Ends the process, also in the middle of an answer."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                if pipe:
                    pipe.close()
            except BrokenPipeError:
                pass
        self.errors.close()

    def __enter__(self) -> "Driver":
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.close()
