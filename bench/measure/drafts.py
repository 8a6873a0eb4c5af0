"""Tokens per second of `sb-server` with n-gram drafts over those without, on texts where they help and where they do not."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Optional

from ..cases import Case
from ..checkout import ROOT
from ..errors import BenchError
from ..rows import Row, ratio_row
from .build import tool
from .session import Bench

DRAFT_MAX = {"ngram-simple": 48, "ngram-mod": 64}  # llama.cpp's defaults, tokens
START = 60.0  # seconds in which a server must be there


@dataclass(frozen=True)
class Text:
    """`prompts`: one for each repetition, since ngram-mod remembers the answer to an earlier request. `refused`: every draft is, whatever
    it says (llama.cpp's synthetic acceptance with rate 0)."""
    name: str
    prompts: list[str]
    temperature: float = 0.0
    refused: bool = False


def texts(n: int) -> list[Text]:
    """n prompts each whose continuation repeats what was there, and some whose does not."""
    function = "def scale_{0}(self, factor):\n    self.width = self.width * factor\n    self.height = self.height * factor\n    return self\n\n\n"
    sentence = "If you have {0} packages, you need to override the package name before they are installed. "
    record = '  {{"id": {0}, "name": "item {0}", "price": {1}, "tags": ["new", "small"]}},\n'
    words = sorted({w for w in (ROOT / "examples" / "README.md").read_text().split() if w.isalpha()})
    code = ["".join(function.format(name + str(i)) for name in ("box", "page", "image")) + "def scale_" for i in range(n)]
    return [
        Text("editing code", code),
        Text("quoting", [2 * sentence.format(i) + "\n\nThe text says: \"" + sentence.format(i)[:40] for i in range(n)]),
        Text("JSON", ["[\n" + "".join(record.format(j, 3 * j + i) for j in range(8)) for i in range(n)]),
        Text("random words", [" ".join(random.Random(i).choices(words, k=200)) for i in range(n)], temperature=1.0),
        Text("every draft refused", code, refused=True),
    ]


class Server:
    """sb-server with one slot on a free local port, for the length of a `with` block. Raises BenchError where it does not answer."""

    def __init__(self, model: Path, n_threads: int, *options: str) -> None:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.command = [tool("sb-server"), "-m", str(model), "--host", "127.0.0.1", "--port", str(self.port), "-t", str(n_threads), "-np", "1", *options]

    def __enter__(self) -> "Server":
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True)
        end = time.monotonic() + START
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError):
                self.ask("/health")
                return self
            time.sleep(0.05)
        self.log.seek(0)
        last = self.log.read().decode(errors="replace").strip().split("\n")[-1]
        self.__exit__(None, None, None)
        raise BenchError(f"bench: sb-server: got no answer within {START:.0f} s ({last}), expected one; do read its options {self.command[1:]}")

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()

    def ask(self, path: str, **body: Any) -> dict[str, Any]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode() if body else None, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=600) as answer:
            return dict(json.load(answer))

    def timings(self, text: Text, i: int, n: int) -> dict[str, Any]:
        """What the server says of an answer of n tokens. Raises BenchError where it refuses."""
        try:
            return dict(self.ask("/completion", prompt=text.prompts[i], n_predict=n, temperature=text.temperature, seed=i + 1, ignore_eos=True, cache_prompt=False)["timings"])
        except (urllib.error.URLError, OSError, KeyError) as e:
            raise BenchError(f"bench: sb-server: got {e}, expected an answer; do try the request by hand") from e


def drafts(bench: Bench, case: Case) -> list[Row]:
    """Tokens per second of answers with and without drafts, two servers in turn, on one thread: a server's other threads need
    CPUs, too. Ratios say how many tokens were drafted and accepted."""
    p, (player,) = case.params, case.players
    bench.check_memory(3 * bench.memory_needed(player, 4096, 1, 512), f"{player.name} three times")
    path, digest = bench.models.get(player)
    model = {"model": player.shape.name, "model_hash": digest, "type": player.type, "spikes": player.spikes}
    options = ["--spec-type", p["spec"]]
    rows = []
    with Server(path, p["n_threads"]) as alone, Server(path, p["n_threads"], *options) as helped, \
            Server(path, p["n_threads"], *options, "--spec-synth-rates", ",".join(["0"] * DRAFT_MAX[p["spec"]])) as refused:
        for text in (t for t in texts(p["repetitions"] + 1) if t.name in p.get("texts", [t.name])):
            found: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
            for i in range(p["repetitions"] + 1):
                for server, its in zip((alone, refused if text.refused else helped), found):
                    its.append(server.timings(text, i, p["n_gen"]))
            without, with_ = (bench.row(text.name + which, unit="tokens/s", values=[t["predicted_per_second"] for t in its[1:]], **model)
                              for which, its in zip(("", f" {p['spec']}"), found))  # the first pair is the warm-up
            counts = {name: sum(t.get(name, 0) for t in found[1][1:]) for name in ("draft_n", "draft_n_accepted")}
            rows += [without, with_, ratio_row(with_, without) | {"extra": counts}]
    return rows
