"""sb-server as a process on a free local port, for tests; every wait is bounded."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

BIN = Path(sys.executable).parent


class Server:
    """Runs for the length of the `with` block. `log` gets its output; `threads` are its own; `env` is added to this process's."""

    def __init__(self, model: Path, log: Path, *args: object, threads: int = 1, env: "dict[str, str] | None" = None,
                 program: Path = BIN / "sb-server"):
        self.env = {**os.environ, **(env or {})}
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.url, self.log = f"http://127.0.0.1:{self.port}", log
        self.command = [str(program), "-m", str(model), "--host", "127.0.0.1", "--port", str(self.port),
                        "-t", str(threads), *map(str, args)]

    def __enter__(self) -> "Server":
        with self.log.open("w") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=self.env)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.get("/health") == {"status": "ok"}:
                    return self
            except (urllib.error.URLError, OSError):
                pass
            time.sleep(0.05)
        self.__exit__()
        raise AssertionError("sb-server did not become healthy:\n" + self.log.read_text()[-4000:])

    def __exit__(self, *_) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _open(self, request: urllib.request.Request) -> dict:
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return json.load(response)
        except urllib.error.HTTPError as e:
            raise AssertionError(f"{e.code}: {e.read().decode()}\n{self.log.read_text()[-3000:]}") from None

    def stream(self, path: str, **body) -> list[dict]:
        """The events of a streamed answer."""
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as response:
            data = [line[6:] for line in response.read().decode().splitlines() if line.startswith("data: ")]
        return [json.loads(text) for text in data if text != "[DONE]"]

    def get(self, path: str) -> dict:
        with urllib.request.urlopen(self.url + path, timeout=60) as response:
            return json.load(response)

    def post(self, path: str, **body) -> dict:
        return self._open(urllib.request.Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}))

    def refused(self, path: str, body: bytes) -> tuple[int, str]:
        """HTTP status and error message of a request that must fail."""
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                raise AssertionError(f"{path} {body!r}: accepted: {response.read()[:500]!r}")
        except urllib.error.HTTPError as e:
            return e.code, json.loads(e.read())["error"]["message"]

    def complete(self, prompt, n: int, **more) -> dict:
        return self.post("/completion", prompt=prompt, n_predict=n, temperature=0, ignore_eos=True, return_tokens=True, **more)

    def chat(self, messages: list[dict], n: int = 24, **more) -> dict:
        return self.post("/v1/chat/completions", messages=messages, max_tokens=n, temperature=0, ignore_eos=True, **more)
