"""llama-cpp-python's own tests, out of its source archive, run against spikingbrain_cpp.compat."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "cpp_backend"))
import upstream  # noqa: E402

WANTED = ("/tests/", "/vendor/llama.cpp/models/ggml-vocab-")


def archive() -> Path:
    """The verified source archive; the test is skipped where it is not in the cache."""
    lock = upstream.read_lock(ROOT / "cpp_backend" / "llama.lock")
    path = upstream.cache_dir() / lock.archive_name
    if not path.is_file():
        pytest.skip(f"{path} is not here: cpp_backend/upstream.py fetches it")
    upstream.verify_archive(path, lock)
    return path


@pytest.fixture(scope="session")
def upstream_class() -> str:
    """The source of llama-cpp-python's Llama."""
    with tarfile.open(archive()) as tar:
        return tar.extractfile(next(m for m in tar if m.name.endswith("/llama_cpp/llama.py"))).read().decode()


@pytest.fixture(scope="session")
def upstream_tests(tmp_path_factory) -> Path:
    """The archive's tests and vocabulary files."""
    folder = tmp_path_factory.mktemp("llama_cpp_python")
    with tarfile.open(archive()) as tar:
        for member in tar:
            path = "/" + member.name.split("/", 1)[-1]
            if member.isfile() and path.startswith(WANTED) and ".." not in path:
                out = folder / path[1:]
                out.parent.mkdir(parents=True, exist_ok=True)
                out.write_bytes(tar.extractfile(member).read())
    return folder


def run_upstream(folder: Path, file: str, models: dict[str, Path]) -> dict[str, str]:
    """{test: "passed", "skipped" or the failure's text} of tests/<file>, in a process of its own; models: {repository: file}."""
    report = folder / f"{file}.xml"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "llama_cpp_alias"),
           "SB_LOCAL_MODELS": json.dumps({name: str(path) for name, path in models.items()})}
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "installed", "--rootdir", str(folder), f"tests/{file}",
                           f"--junitxml={report}"], cwd=folder, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    results = {}
    for case in ElementTree.parse(report).iter("testcase"):
        bad = case.find("failure") if case.find("failure") is not None else case.find("error")
        results[case.get("name")] = "skipped" if case.find("skipped") is not None else "passed" if bad is None else bad.text
    return results
