"""sb-server's page and GET /spikes: served as they are meant, counted as the Python class counts. A browser: page/with_browser.py."""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
import urllib.request

import numpy as np
import pytest
from binding_models import ONE, convert
from conftest import ROOT
from running_server import Server

from spikingbrain_cpp import Llama

PAGE = ROOT / "cpp_backend" / "page"
TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}


@pytest.fixture(scope="module")
def spiking(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    return convert(ROOT / "examples" / "small", folder / "small.gguf", "--outtype", "q4_0", "--spike")


@pytest.fixture(scope="module")
def server(spiking):
    with Server(spiking, spiking.parent / "server.log", "-np", 2) as s:
        yield s


def fetch(server: Server, path: str) -> tuple[int, str, bytes]:
    """Status, content type, content; the path goes out as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.headers["Content-Type"], answer.read()


def refusal(server: Server, path: str) -> tuple[int, str]:
    status, _, content = fetch(server, path)
    return status, json.loads(content)["error"]["message"]


# --- the page -------------------------------------------------------------------------------------------------------

def test_every_file_of_the_page_is_served_with_its_type(server):
    status, kind, index = fetch(server, "/")
    assert (status, kind) == (200, "text/html; charset=utf-8")
    folder = re.search(rb'"(assets-[0-9a-f]{12})/', index)[1].decode()
    assert index.decode().replace(folder, "assets") == (PAGE / "index.html").read_text()
    files = sorted((PAGE / "assets").iterdir())
    assert files
    for path in files:
        assert fetch(server, f"/{folder}/{path.name}") == (200, TYPES[path.suffix[1:]], path.read_bytes())


def test_a_service_worker_of_upstreams_page_finds_one_that_removes_itself(server):
    status, kind, script = fetch(server, "/sw.js")
    assert (status, kind, script) == (200, TYPES["js"], (PAGE / "sw.js").read_bytes()) and b"unregister()" in script


def test_the_page_needs_nothing_from_elsewhere_and_runs_no_text_of_a_model():
    text = {path.name: path.read_text() for path in PAGE.rglob("*") if path.is_file()}
    for name, content in text.items():
        assert not re.search(r"https?://|//[a-z]+\.|@import|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|Function\(", content), name
    index = text["index.html"]
    assert "default-src 'none'" in index and "unsafe" not in index
    assert not re.search(r"<style|<script(?![^>]*src=)|\son\w+=|\sstyle=", index)


@pytest.mark.parametrize("path", [
    "/nothing.html", "/assets/chat.js", "/../CMakeLists.txt", "/assets-0/../../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc/passwd"])
def test_what_is_no_file_of_the_page_is_not_found(server, path):
    status, message = refusal(server, path)
    assert status == 404 and message == "File Not Found"


# --- GET /spikes ------------------------------------------------------------------------------------------------------

def counted_by_the_class(model, prompt: list[int], read: list[int]) -> dict:
    with Llama(model, **ONE, spike_stats=True, spike_keep=(96, 96)) as llm:
        llm.eval(prompt)
        llm.reset_spike_stats()
        for token in read:
            llm.eval([token])
        stats = llm.spike_stats()
    return {"stats": stats, **stats.to_dict()}


def agrees(got: dict, want: dict) -> None:
    assert got["k"] == want["k"] and got["n_tokens"] == want["n_tokens"]
    figures = ("n", "largest", "silent_share", "mean_spikes", "share_to_7")
    assert {f: got[f] for f in figures} == pytest.approx({f: want["model"][f] for f in figures}, rel=1e-12)
    assert got["bins"] == want["model"]["histogram"]["bins"]
    assert len(got["inputs"]) == len(want["inputs"])
    for mine, theirs in zip(got["inputs"], want["inputs"]):
        assert sorted(mine.pop("projections")) == sorted(theirs["projections"])
        assert (mine.pop("layer"), mine.pop("input")) == (theirs["layer"], theirs["input"])
        assert mine == pytest.approx({f: theirs[f] for f in mine}, rel=1e-12)


def test_spikes_of_an_answer_are_those_the_class_counts(server, spiking):
    assert server.get("/spikes")["k"] == 3.0  # from now on it counts
    prompt = server.post("/tokenize", content="To install a package", add_special=True)["tokens"]
    read = server.complete(prompt, 12)["tokens"][:-1]  # the last token is not read on
    got = server.get("/spikes?layer=2&input=attn_out")
    want = counted_by_the_class(spiking, prompt, read)
    agrees(got, want)
    (kept,) = (i.kept for i in want["stats"].inputs if (i.layer, i.name) == (2, "attn_out"))
    assert (got["map"]["layer"], got["map"]["input"], got["map"]["tokens"]) == (2, "attn_out", len(read))
    np.testing.assert_array_equal(got["map"]["counts"], kept)


def test_answers_written_together_have_their_own_spikes(server):
    server.get("/spikes")
    alone = {}
    for slot, text in enumerate(("def f(", "Once upon a time")):
        server.complete(text, 10, id_slot=slot, cache_prompt=False)
        alone[slot] = server.get("/spikes")
    ids = {}

    def run(slot: int, text: str) -> None:
        ids[slot] = server.stream("/v1/completions", prompt=text, max_tokens=60, temperature=0, ignore_eos=True, stream=True, id_slot=slot)[0]["id"]

    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, (0, 1), ("def f(", "Once upon a time")))
    got = {slot: server.get(f"/spikes?id={ids[slot]}") for slot in (0, 1)}
    assert [got[s]["id_slot"] for s in (0, 1)] == [0, 1]
    assert all(50 <= got[s]["n_tokens"] <= 59 for s in (0, 1))
    assert got[0]["bins"] != got[1]["bins"] and got[0]["map"]["counts"][0] == alone[0]["map"]["counts"][0]


def test_the_map_keeps_the_last_tokens(server):
    server.get("/spikes")
    server.complete("def f(", 131)
    got = server.get("/spikes")
    assert (got["n_tokens"], got["map"]["tokens"], len(got["map"]["counts"])) == (130, 96, 96)
    server.complete("def f(", 120)  # the same text, 11 tokens fewer
    assert server.get("/spikes")["map"]["counts"][11:] == got["map"]["counts"][:85]


@pytest.mark.parametrize("query, sentence", [
    ("id=none", 'spikes: id: got "none", expected '), ("layer=99", 'spikes: map: got layer "99"'), ("input=up", 'spikes: map: got layer "", input "up"'),
    ("slot=0", 'spikes: got "slot", expected id, layer, input or none')])
def test_a_wrong_query_is_refused_by_name(server, query, sentence):
    server.get("/spikes")
    server.complete("def f(", 3)
    status, message = refusal(server, f"/spikes?{query}")
    assert status == 400 and message.startswith(sentence), message


def test_a_model_that_does_not_spike_says_so_and_what_is_asked_for_holds(spiking, tmp_path):
    with Server(spiking, tmp_path / "log", "--override-kv", "spikingbrain.spike.enable=bool:false", "--no-ui") as plain:
        assert refusal(plain, "/spikes") == (501, "spikes: got a model that does not spike, expected one that does; do convert it with --spike")
        assert fetch(plain, "/")[0] == 404
        assert plain.get("/props")["memory"]["state_bytes"] > 0


def test_the_page_comes_without_a_key_and_the_spikes_do_not(spiking, tmp_path):
    with Server(spiking, tmp_path / "log", "--api-key", "secret") as guarded:
        status, _, index = fetch(guarded, "/")
        path = re.search(rb'src="([^"]+)"', index)[1].decode()
        assert (status, fetch(guarded, f"/{path}")[0], fetch(guarded, "/spikes")[0]) == (200, 200, 401)
