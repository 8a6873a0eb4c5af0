"""sb-convert in Windows' own Python (the embeddable 3.13), under Wine: the same bytes, the same rules for files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import PYTHON, ROOT, Models, Wine, shared

RAN = {"sb-convert": "Windows x86-64: Wine 8, Python 3.13, NumPy 2.1"}
SMALL = ROOT / "examples" / "small"


@pytest.fixture(autouse=True)
def python() -> None:
    if not PYTHON.exists():
        pytest.fail(f"{PYTHON}: got no such Python, expected what make test-windows fetches; do make test-windows")


@pytest.mark.parametrize("options", [("--outtype", "q4_0", "--spike"), ("--outtype", "q8_0"), ("--outtype", "f32")], ids=" ".join)
def test_the_bytes_are_those_of_linux(wine: Wine, models: Models, tmp_path: Path, options: tuple[str, ...]) -> None:
    wine.run(PYTHON, "-m", "sb_convert", wine.path(SMALL), "-o", wine.path(tmp_path / "out.gguf"), *options)
    assert (tmp_path / "out.gguf").read_bytes() == models(SMALL, *options).read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["out.gguf"]


def test_int8_codes_with_scales_are_those_of_linux(wine: Wine, models: Models, tmp_path: Path) -> None:
    checkpoint = shared("golden-w8aspike")
    wine.run(PYTHON, "-m", "sb_convert", wine.path(checkpoint), "-o", wine.path(tmp_path / "out.gguf"))
    assert (tmp_path / "out.gguf").read_bytes() == models(checkpoint).read_bytes()


def test_names_with_spaces_and_of_any_script(wine: Wine, models: Models, tmp_path: Path) -> None:
    folder = tmp_path / "Schön, 模型 и пробел"
    folder.mkdir()
    wine.run(PYTHON, "-m", "sb_convert", wine.path(ROOT / "examples" / "tiny"), "-o", wine.path(folder / "日本 é.gguf"), "--outtype", "f32")
    said = wine.run(PYTHON, "-m", "sb_convert", wine.path(ROOT / "examples" / "tiny"), "-o", wine.path(folder / "日本 é.gguf"), "--outtype", "f32", code=1).stderr.decode()
    assert "日本 é.gguf: output: got an existing file" in said
    wine.run(PYTHON, "-m", "sb_convert", wine.path(ROOT / "examples" / "tiny"), "-o", wine.path(folder / "日本 é.gguf"), "--outtype", "f32", "--force")
    assert [p.name for p in folder.iterdir()] == ["日本 é.gguf"]


def test_what_a_killed_process_left_goes(wine: Wine, tmp_path: Path) -> None:
    (tmp_path / ".out.gguf.0123456789ab.partial").write_bytes(b"half")
    wine.run(PYTHON, "-m", "sb_convert", wine.path(ROOT / "examples" / "tiny"), "-o", wine.path(tmp_path / "out.gguf"), "--outtype", "f32")
    assert [p.name for p in tmp_path.iterdir()] == ["out.gguf"]


SCRIPT = r"""
import json, os, sys
from sb_convert import system, whole
folder = sys.argv[1]
said = {"cpus": system.cpus(), "threads": system.threads(), "cores": system._cores(), "ending": [s.name for s in system.ENDING]}
path = os.path.join(folder, "file")
whole.write_whole(path, b"old")
try:
    with whole.WholeFiles() as files:
        files.begin(path).write(b"new")
        raise KeyboardInterrupt
except KeyboardInterrupt:
    said["interrupted"] = open(path, "rb").read().decode()
os.chmod(path, 0o444)
try:
    whole.write_whole(path, b"new")
except whole.NotWritten as error:
    said["protected"] = str(error)
os.chmod(path, 0o666)
whole.write_whole(path, b"new")
said["written"] = open(path, "rb").read().decode()
with open(path, "rb") as reader:
    try:
        whole.write_whole(path, b"newer")
        said["open"] = "replaced"
    except OSError as error:
        said["open"] = "refused"
said["left"] = os.listdir(folder)
try:
    whole.target(os.path.join(folder, "none", "file"))
except whole.NotWritten as error:
    said["folder"] = str(error)
print(json.dumps(said))
"""


def test_the_rules_of_whole_files_and_the_counts_of_cpus(wine: Wine, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "folder").mkdir()
    said = json.loads(wine.run(PYTHON, wine.path(tmp_path / "script.py"), wine.path(tmp_path / "folder")).stdout)
    assert said["cores"] >= 1 and 1 <= said["threads"] <= said["cpus"] and said["ending"] == ["SIGTERM", "SIGBREAK"]
    assert said["interrupted"] == "old" and said["written"] == "new" and said["left"] == ["file"]
    assert "a write-protected file" in said["protected"] and "no such folder" in said["folder"]
    assert said["open"] in ("refused", "replaced")  # Windows refuses; whole either way
