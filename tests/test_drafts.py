"""Drafts and edits in sb-server and sb-cli: what is not accepted is taken back, and the text stays what it was."""

from __future__ import annotations

import re
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from running_server import BIN, Server
from test_cpp import converted

N_BACK = 32  # what can be taken back by default
CODE = "".join(f"def area_{i}(width, height):\n    return width * height\n\n" for i in range(6))
DRAFTS = {
    "n-grams": ["--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", 3],
    "n-grams, longer than what can be taken back": ["--spec-type", "ngram-mod", "--spec-ngram-mod-n-match", 4, "--spec-ngram-mod-n-min", 1, "--spec-ngram-mod-n-max", 60],
    "micro-batches of one token": ["--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", 3, "-ub", 1],
    "a draft model": ["--spec-draft-n-max", 8],
    "a draft model that drafts more than it can take back": ["--spec-draft-n-max", 60, "--spec-draft-p-min", 0],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("drafts")


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    return converted(ROOT / "examples/small", folder / "q4_0.gguf", "--outtype", "q4_0", "--spike")


@pytest.fixture(scope="module")
def draft_model(folder: Path) -> Path:
    return converted(ROOT / "examples/small", folder / "q8_0.gguf", "--outtype", "q8_0")


@pytest.fixture(scope="module")
def alone(model: Path, folder: Path) -> Iterator[Server]:
    with Server(model, folder / "alone.log", "-np", 2, "--metrics") as server:
        yield server


@pytest.mark.parametrize("kind", DRAFTS)
def test_greedy_text_is_the_same_with_drafts(kind: str, alone: Server, model: Path, draft_model: Path, folder: Path) -> None:
    options = [*DRAFTS[kind], "-np", 2, *(["-md", draft_model] if "model" in kind else [])]
    with Server(model, folder / "drafts.log", *options) as server:
        for prompt in (CODE, "Once upon a time"):
            for _ in range(2):  # the second time with what the slot holds
                got, want = server.complete(prompt, 240), alone.complete(prompt, 240)
                # token by token, since products of several tokens may round another way: where the best two are that close
                assert got["tokens"] == want["tokens"], (kind, server.log.read_text()[-2000:])
            timings = got["timings"]
            if prompt is CODE:
                assert timings["draft_n"] >= timings["draft_n_accepted"] > 0, "no draft was accepted where they help"
        assert server.process.poll() is None


@pytest.mark.parametrize("spec, most", [("ngram-simple", 48), ("ngram-mod", 64)])
def test_drafts_that_are_always_refused_soon_end(spec: str, most: int, model: Path, folder: Path) -> None:
    with Server(model, folder / "refused.log", "--spec-type", spec, "--spec-synth-rates", ",".join(["0"] * most)) as server:
        timings = server.complete(CODE, 400)["timings"]
    assert timings["draft_n_accepted"] == 0 and 0 < timings["draft_n"] <= (6 + 0.02 * 400) / 0.5, "a draft cost more than drafts saved"


def test_an_edit_within_what_can_be_taken_back_evaluates_the_new_tokens_only(alone: Server) -> None:
    words = " ".join(f"word{i}" for i in range(120))
    tokens = alone.post("/tokenize", content=words)["tokens"]
    for n_answer in (4, 10):
        for n_edit in (1, 5, N_BACK - n_answer - 2):
            alone.complete(tokens, n_answer, id_slot=0, cache_prompt=True)
            edited = [*tokens[:-n_edit], tokens[0], tokens[1]]
            got = alone.complete(edited, 6, id_slot=0, cache_prompt=True)
            assert got["timings"]["prompt_n"] == 2, (n_answer, n_edit, got["timings"])
            fresh = alone.complete(edited, 6, id_slot=1, cache_prompt=False)
            assert got["tokens"] == fresh["tokens"]


def test_a_saved_slot_is_not_restored_beside_a_draft_model(model: Path, draft_model: Path, folder: Path) -> None:
    with Server(model, folder / "slot.log", "-np", 1, "-md", draft_model, "--slot-save-path", folder) as server:
        want = server.complete(CODE, 4)["tokens"]
        server.post("/slots/0?action=save", filename="drafted")
        server.complete("Another text", 4)
        status, message = server.refused("/slots/0?action=restore", b'{"filename": "drafted"}')
        assert status == 400 and "got a server with a draft model, expected one without" in message
        assert server.complete(CODE, 4)["tokens"] == want


def test_how_much_can_be_taken_back_is_an_option(model: Path, folder: Path) -> None:
    with Server(model, folder / "few.log", "--n-rs-seq", 4, "-np", 1) as server:
        tokens = list(range(300, 360))
        for n_edit, n_read in ((3, 1), (9, None)):
            server.complete(tokens, 1, cache_prompt=True)
            read = server.complete([*tokens[:-n_edit], 299], 1, cache_prompt=True)["timings"]["prompt_n"]
            assert read == n_read if n_read else read > 1
    for wrong in ("0", "-1", "70000"):
        done = subprocess.run([str(BIN / "sb-server"), "-m", str(model), "--n-rs-seq", wrong], capture_output=True, text=True, timeout=60)
        assert done.returncode != 0 and f"--n-rs-seq: got {wrong}, expected 1 .. 65536" in done.stderr + done.stdout


def n_read(server: Server) -> int:
    """Prompt tokens evaluated since the server started."""
    with urllib.request.urlopen(server.url + "/metrics", timeout=60) as answer:
        return int(re.search(r"^llamacpp:prompt_tokens_total (\d+)", answer.read().decode(), re.M)[1])


def test_several_answers_to_one_prompt_read_it_once(alone: Server) -> None:
    before = n_read(alone)
    got = alone.post("/v1/completions", prompt="These words are asked for once. " + CODE, n=2, max_tokens=4, temperature=0)  # in no slot so far
    assert len(got["choices"]) == 2 and got["choices"][0]["text"] == got["choices"][1]["text"]
    assert n_read(alone) - before == got["usage"]["prompt_tokens"]


def test_the_cli_writes_the_same_text_with_drafts(model: Path) -> None:
    def text(*options: object) -> str:
        done = subprocess.run([str(x) for x in (BIN / "sb-cli", "-m", model, "-st", "-n", 60, "--temp", 0, "-p", CODE, "--simple-io", "--no-display-prompt", "-t", 1, *options)],
                              capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr
        return "\n".join(line for line in done.stdout.splitlines() if not line.startswith("["))  # not the times

    alone = text()
    assert len(alone) > 100 and text("--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", 3) == alone
