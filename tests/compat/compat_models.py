"""llama_cpp is spikingbrain_cpp.compat, before the packages import it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from spikingbrain_cpp import compat

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))
compat.install()


@pytest.fixture(scope="session")
def path(tmp_path_factory) -> Path:
    """examples/small as Q4_0, whose template is ChatML without tools."""
    from sb_convert.cli import main as sb_convert

    out = tmp_path_factory.mktemp("compat") / "model.gguf"
    assert sb_convert([str(ROOT / "examples" / "small"), "-o", str(out), "--outtype", "q4_0", "--spike"]) == 0
    return out


@pytest.fixture(scope="session")
def llm(path):
    with compat.Llama(path, n_threads=1, n_threads_batch=1, n_ctx=2000, seed=1) as model:
        yield model


@pytest.fixture(scope="session")
def ends(llm) -> dict[int, float]:
    """Draws an answer to its end as soon as a grammar lets it."""
    return {llm.token_eos(): 40.0, llm.tokenize("<|im_end|>", special=True)[0]: 40.0}


@pytest.fixture(scope="session")
def url(path, tmp_path_factory):
    """sb-server's OpenAI endpoints."""
    from running_server import Server

    program = Path(compat.__file__).parents[5] / "bin" / "sb-server"  # of the environment that the package is installed in
    with Server(path, tmp_path_factory.mktemp("server") / "log", "-c", 2000, program=program) as server:
        yield server.url + "/v1"
