"""sb-server.exe under Wine, asked from outside: the openai client, golden logits, spikes, slot files of both systems."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from running_server import Server

from conftest import ROOT, Models, WindowsServer, Wine, shared

RAN = {"programs": "Windows x86-64: Wine 8"}
SMALL = ROOT / "examples" / "small"
SPIKING = ("--outtype", "q4_0", "--spike")
PROMPT = "The file is opened and read. To install a package, "
OPTIONS = ("-np", 1, "--no-warmup")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def model(models: Models) -> Path:
    return models(SMALL, *SPIKING)


@pytest.fixture(scope="module")
def windows(wine: Wine, programs: Path, model: Path, folder: Path) -> Iterator[Server]:
    with WindowsServer(wine, programs, model, folder / "windows.log", *OPTIONS, "--slot-save-path", f"{folder}/") as server:
        yield server


@pytest.fixture(scope="module")
def linux(model: Path, folder: Path) -> Iterator[Server]:
    with Server(model, folder / "linux.log", *OPTIONS, "--slot-save-path", f"{folder}/") as server:
        yield server


@pytest.fixture(scope="module")
def client(windows: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=windows.url + "/v1", api_key="none", timeout=60, max_retries=0) as client:
        yield client


# --- the openai client ------------------------------------------------------------------------------------------------

def test_completions_are_those_of_linux(client: openai.OpenAI, linux: Server) -> None:
    got = client.completions.create(model="x", prompt=PROMPT, max_tokens=24, temperature=0)
    assert got.choices[0].text == linux.post("/v1/completions", prompt=PROMPT, max_tokens=24, temperature=0)["choices"][0]["text"] != ""


def test_a_chat_is_streamed_piece_by_piece(client: openai.OpenAI, linux: Server) -> None:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "Größe? 模型"}], "max_tokens": 24, "temperature": 0}
    pieces = [event.choices[0].delta.content or "" for event in client.chat.completions.create(model="x", stream=True, **body) if event.choices]
    assert len(pieces) > 8 and "".join(pieces) == linux.post("/v1/chat/completions", **body)["choices"][0]["message"]["content"]


def test_a_wrong_request_is_refused_by_name(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.completions.create(model="x", prompt=PROMPT, max_tokens=2, temperature="warm")  # type: ignore[call-overload]


def test_the_page_is_served(windows: Server, linux: Server) -> None:
    import urllib.request
    pages = [urllib.request.urlopen(server.url, timeout=30).read() for server in (windows, linux)]
    assert pages[0] == pages[1] and b"<html" in pages[0]


# --- numbers ----------------------------------------------------------------------------------------------------------------

def test_spikes_are_the_integers_of_linux(windows: Server, linux: Server) -> None:
    said = []
    for server in (windows, linux):
        server.get("/spikes")  # from now on they are counted
        text = server.post("/completion", prompt=PROMPT, n_predict=24, temperature=0, ignore_eos=True, cache_prompt=False)["content"]
        said.append((text, server.get("/spikes?layer=2&input=attn_out")))
    (text, got), (want_text, want) = said
    assert text == want_text and got["n"] == want["n"] > 0
    assert got["map"]["counts"] == want["map"]["counts"] and got["bins"] == want["bins"]


def distances(server: Server, golden: Any, which: str) -> np.ndarray:
    """Of each token's log probability, and of the likeliest one's, from the golden ones."""
    tokens, rows = golden["tokens"], golden[which].astype(np.float64)
    rows = rows - rows.max(-1, keepdims=True)
    rows -= np.log(np.exp(rows).sum(-1, keepdims=True))
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", timeout=60, max_retries=0) as client:
        answer = client.completions.create(model="m", prompt=[int(t) for t in tokens], max_tokens=1, temperature=0, echo=True, logprobs=1)
    found, n = answer.choices[0].logprobs, len(tokens)
    assert found and found.token_logprobs and found.top_logprobs
    own = np.array(found.token_logprobs[1:n]) - rows[np.arange(n - 1), tokens[1:]]
    likeliest = np.array([max(top.values()) for top in found.top_logprobs[1:n]]) - rows[:-1].max(-1)
    return np.abs(np.concatenate([own, likeliest]))


@pytest.mark.parametrize(("name", "options", "which", "most"), [
    ("golden-float", ("--outtype", "f32"), "logits", 1e-3), ("golden-moe-a", ("--outtype", "f32"), "logits", 1e-3),
    ("golden-moe-spike", ("--outtype", "int8"), "logits", None), ("golden-moe-spike", ("--outtype", "int8", "--spike-scope", "paper"), "logits_paper", None),
    ("golden-w8aspike", (), "logits", None)], ids=lambda v: v if isinstance(v, str) else "")
@pytest.mark.parametrize("isa", ["zen4", "generic"])
def test_golden_logits(wine: Wine, programs: Path, models: Models, tmp_path: Path, name: str, options: tuple[str, ...], which: str, most: float | None, isa: str) -> None:
    """most: None where one spike more or less is a step: as near to them as on Linux."""
    golden, model = np.load(shared(name) / "golden.npz"), models(shared(name), *options)
    with WindowsServer(wine, programs, model, tmp_path / "log", *OPTIONS, env={"SPIKINGBRAIN_ISA": isa}) as server:
        got = distances(server, golden, which)
    if most is None:
        with Server(model, tmp_path / "linux.log", *OPTIONS, env={"SPIKINGBRAIN_ISA": isa}) as server:
            assert got.mean() < 1.2 * distances(server, golden, which).mean() + 1e-3
    else:
        assert got.max() < most


# --- files ------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("saves", ["windows", "linux"])
def test_a_slot_is_restored_on_the_other_system(windows: Server, linux: Server, folder: Path, saves: str) -> None:
    first, second = (windows, linux) if saves == "windows" else (linux, windows)
    prompt = first.post("/tokenize", content=PROMPT * 8)["tokens"]
    start = first.complete(prompt, 20, id_slot=0, cache_prompt=False)["tokens"]
    name = f"{saves} é.bin"
    assert first.post("/slots/0?action=save", filename=name)["n_written"] == (folder / name).stat().st_size
    after = first.complete(prompt + start, 10, id_slot=0)["tokens"]
    second.post("/slots/0?action=erase")
    second.post("/slots/0?action=restore", filename=name)
    restored = second.complete(prompt + start, 10, id_slot=0)
    assert restored["timings"]["prompt_n"] == 1 and restored["tokens"] == after
    assert not list(folder.glob(".*.partial"))
