"""A pytest plugin for llama.cpp's own server tests: `sb-server` and one local model in place of what they would download.

Read from the environment: SB_UPSTREAM_MODEL (the GGUF file), SB_UPSTREAM_LEFT_OUT (the list of tests that are left out,
`id  # reason` per line, an id may be a test function without its parameters, or a whole file). An entry that matches nothing is an error.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Callable

import pytest


def left_out() -> dict[str, str]:
    """id -> reason."""
    rows = {}
    for line in Path(os.environ["SB_UPSTREAM_LEFT_OUT"]).read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            test, _, reason = line.partition("  # ")
            if not reason.strip():
                raise pytest.UsageError(f"left-out: {test}: got no reason, expected '  # reason' after the id")
            rows[test.strip()] = reason.strip()
    return rows


def names_of(item: pytest.Item) -> tuple[str, ...]:
    """Under which names a list may hold a test: its id, its function, its file."""
    test = item.nodeid.removeprefix("unit/")
    return test, test.split("[")[0], test.split("::")[0]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    rows = left_out()
    names = {name for item in items for name in names_of(item)}
    if unknown := [row for row in rows if row not in names and config.getoption("sb_whole")]:
        raise pytest.UsageError(f"left-out: got {unknown}, expected tests of this llama.cpp; remove them")
    out = [item for item in items if any(name in rows for name in names_of(item))]
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item not in out]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sb-whole", action="store_true", help="every entry of the list must match a test")


WORDS = re.compile(r"\^?\(?[A-Za-z ]+(\|[A-Za-z ]+)*\)?\+?")


def match_what_holds(match_regex: Callable[[str, str], bool]) -> Callable[[str, str], bool]:
    """`match_regex`, except that words alone (`(going|bed)+`) are their model's, and any text will do."""
    return lambda regex, text: bool(text) if WORDS.fullmatch(regex) else match_regex(regex, text)


def use_local_model(server: Any) -> None:
    """One model in place of all that a preset would download; it pools nothing by itself, as BERT does."""
    if server.model_hf_repo or server.model_hf_file or server.model_url:  # the router has none
        server.model_hf_repo = server.model_hf_file = server.model_url = None
        server.model_file = os.environ["SB_UPSTREAM_MODEL"]
        if server.server_embeddings and server.pooling is None:
            server.pooling = "mean"


def local_file(download: Callable[..., str]) -> Callable[..., str]:
    """A model to download, as the draft of another, is the local one."""
    return lambda url, *rest: os.environ["SB_UPSTREAM_MODEL"] if url.endswith(".gguf") else download(url, *rest)


def pytest_configure(config: pytest.Config) -> None:
    import utils

    start = utils.ServerProcess.start

    def with_local_model(self: Any, *args: Any, **kwargs: Any) -> Any:
        use_local_model(self)
        self.n_threads = self.n_threads or 1  # a small model; threads that wait for each other are slow where two servers share two cores
        return start(self, *args, **kwargs)

    utils.ServerProcess.start = with_local_model
    utils.ServerPreset.load_all = staticmethod(lambda: None)  # would download
    utils.match_regex = match_what_holds(utils.match_regex)
    utils.download_file = local_file(utils.download_file)
