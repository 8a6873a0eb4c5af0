"""sb-rpc-server as a process on a free local port, and what may stand between it and its client; every wait is bounded."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Optional

import spikingbrain_cpp

BIN = Path(sys.executable).parent
LIB = Path(spikingbrain_cpp.__file__).parent / "lib"  # the tools themselves, without Python before them
PROGRAM = LIB / "llama-rpc-server"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class RpcServer:
    """Runs from the constructor on; `endpoint` is what --rpc and rpc_servers take."""

    def __init__(self) -> None:
        self.port = free_port()
        self.endpoint = f"127.0.0.1:{self.port}"
        self.process = subprocess.Popen([PROGRAM, "-p", str(self.port), "-t", "1"], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("listening"):
                break
        else:
            raise AssertionError("sb-rpc-server does not listen")
        threading.Thread(target=self.process.stdout.read, daemon=True).start()  # what it prints is not looked at, but must go somewhere

    def __enter__(self) -> RpcServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(20)

    def leave_room(self, n_bytes: int) -> None:
        """Let the process have that many more, and no others."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[0])
        resource.prlimit(self.process.pid, resource.RLIMIT_AS, (pages*resource.getpagesize() + n_bytes,)*2)

    def send(self, what: signal.Signals) -> None:
        os.kill(self.process.pid, what)


class Between:
    """Hands bytes on to a server, until `limit` of the client's went through: then it is silent ("stops") or closes ("dies").

    Without a server it sends `answer` to whoever connects and listens on.
    """

    def __init__(self, port: Optional[int] = None, limit: int = 2**40, how: str = "dies", answer: bytes = b"") -> None:
        self.left, self.how, self.answer, self.port = limit, how, answer, port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Between:
        return self

    def __exit__(self, *_: object) -> None:
        self.left = 0
        self.listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(client,), daemon=True).start()

    def _one(self, client: socket.socket) -> None:
        with client, socket.socket() as server:
            if self.port is None:
                client.sendall(self.answer)
                with contextlib.suppress(OSError):
                    while client.recv(65536):
                        pass
                return
            server.connect(("127.0.0.1", self.port))
            while self.left > 0:
                for one in select.select([client, server], [], [], 0.1)[0]:
                    data = one.recv(65536)
                    if not data:
                        return
                    if one is client:
                        data = data[:self.left]
                        self.left -= len(data)
                    (server if one is client else client).sendall(data)
            while self.how == "stops" and client.recv(65536):  # silent: the client's kernel is answered, the client is not
                pass
