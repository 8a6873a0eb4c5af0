"""What is installed is whole: typed, every command answers, licences of what is bundled, a changelog for the version."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import spikingbrain_cpp
from spikingbrain_cpp.tools import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PACKAGE = Path(spikingbrain_cpp.__file__).parent
SCRIPTS = {e.name: e for e in importlib.metadata.distribution("spikingbrain-cpp").entry_points if e.group == "console_scripts"}


def run(*command: object, **kw) -> subprocess.CompletedProcess:
    return subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, **kw)


# --- types ----------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def mypy(tmp_path_factory):
    pytest.importorskip("mypy")
    cache = tmp_path_factory.mktemp("mypy")
    return lambda *args, cwd: run(sys.executable, "-m", "mypy", "--strict", "--config-file", ROOT / "pyproject.toml", "--cache-dir", cache, *args, cwd=cwd)


def test_the_package_is_clean_under_mypy_strict(mypy):
    done = mypy("-p", "spikingbrain_cpp", cwd=ROOT / "bindings")
    assert done.returncode == 0 and "no issues found" in done.stdout, done.stdout + done.stderr


USER = """\
from spikingbrain_cpp import Llama

with Llama("model.gguf", n_threads=2) as llm:
    tokens: list[int] = llm.tokenize(b"text")
    text: int = llm.detokenize(tokens)
    llm.n_vocab() + "x"
"""


def test_a_users_program_is_checked_against_the_installed_types(mypy, tmp_path):
    (tmp_path / "user.py").write_text(USER)
    done = mypy("user.py", cwd=tmp_path)
    assert re.findall(r"^user\.py:(\d+): error", done.stdout, re.M) == ["5", "6"], done.stdout + done.stderr


# --- commands -------------------------------------------------------------------------------------------------

def test_the_list_of_commands_is_the_metadatas():
    assert set(COMMANDS) == set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_command_explains_itself(name):
    """Its help says what it is for, in an option list of its own; nothing of it needs a model."""
    done = run(BIN / name, "--help")
    assert done.returncode == 0 and len(done.stdout) > 500, done.stdout + done.stderr
    assert "--help" in done.stdout and (name in done.stdout or COMMANDS[name] in done.stdout)


def test_help_names_the_defaults_that_differ_from_llama_cpp():
    out = run(BIN / "sb-server", "--help").stdout
    assert "LLAMA_ARG_FIT=off" in out and "LLAMA_ARG_CACHE_IDLE_SLOTS=off" in out
    assert "--cache-ram -2, the default: room for 8 slot states" in out and "max(trained length, 32768)" in out


def test_help_names_the_bound_of_checkpoints_that_the_server_has():
    header = (ROOT / "cpp_backend/overlay/tools/server/server-checkpoints.h").read_text()
    number = re.search(r"MIB_DEFAULT = (\d+);", header)[1]
    for command in ("sb-server", "sb-cli"):
        assert f"SPIKINGBRAIN_CHECKPOINT_RAM={number}: MiB" in run(BIN / command, "--help").stdout


def test_the_package_says_what_there_is():
    out = run(sys.executable, "-m", "spikingbrain_cpp").stdout
    assert importlib.metadata.version("spikingbrain-cpp") in out and all(name in out for name in SCRIPTS)


# --- what is bundled ---------------------------------------------------------------------------------------------

def metadata_file(*parts: str) -> str:
    """A file of the metadata folder, whose path ends so."""
    files = importlib.metadata.distribution("spikingbrain-cpp").files or []
    return next(f for f in files if f.parts[0].endswith(".dist-info") and f.parts[1:] == parts).read_text()


def test_licences_of_what_is_bundled_are_installed():
    for name, words in {"llama.cpp": "The ggml authors", "jsonhpp": "Niels Lohmann", "cpp-httplib": "yhirose", "pybind11": "Wenzel Jakob",
                        "llamafile-sgemm": "Mozilla", "xxhash": "Yann Collet", "rotate-bits": "MIT", "stb_image": "Sean Barrett", "miniaudio": "ALTERNATIVE 2 - MIT",
                        "subprocess.h": "unencumbered", "yarn": "Jeffrey Quesnelle", "sha1": "Public Domain", "sha256": "Public domain"}.items():
        assert words in metadata_file("licenses", f"LICENSE-{name}"), name


def test_the_bill_of_materials_names_what_is_bundled():
    bill = json.loads(metadata_file("sboms", "spikingbrain_cpp.cdx.json"))
    parts = {part["name"]: part for part in bill["components"]}
    assert bill["metadata"]["component"]["version"] == importlib.metadata.version("spikingbrain-cpp")
    assert parts["llama.cpp"]["version"] == re.search(r"build-commit: (\w+)", (ROOT / "cpp_backend/llama.lock").read_text())[1]
    assert re.fullmatch(r"\d+\.\d+\.\d+", parts["jsonhpp"]["version"]) and re.fullmatch(r"\d+\.\d+\.\d+", parts["xxhash"]["version"])
    assert parts["stb_image"]["licenses"] == [{"expression": "MIT OR Unlicense"}] and parts["pybind11"]["licenses"] == [{"license": {"id": "BSD-3-Clause"}}]


def test_whatever_llama_cpp_brings_from_others_is_on_the_list():
    (tree,) = (ROOT / "build").glob("cp*-linux_*/llama.cpp")
    brought = {p for p in (tree / "vendor").iterdir() if p.is_dir() and p.name != "hash"} | {p for p in (tree / "vendor" / "hash").iterdir() if p.is_dir()}
    listed = {"/".join(text[1].split("/")) for part in json.loads((ROOT / "cpp_backend/parts.json").read_text()) for text in (part["text"], part["version"] or part["text"])}
    assert [p.name for p in sorted(brought) if not any(name.startswith(p.relative_to(tree).as_posix() + "/") for name in listed)] == []


@pytest.mark.parametrize("change, said", [
    ({"text": ["llama", "no-such-file"]}, "no-such-file: got no such file, expected the file that parts.json names"),
    ({"text": ["llama", "a.h", "^/. Licence", "^none"]}, "x: a.h: got nothing from /^/. Licence/ to /^none/, expected its licence"),
    ({"version": ["llama", "a.h", "VERSION (.*)"]}, "x: a.h: got nothing like /VERSION (.*)/, expected its version"),
])
def test_a_part_that_is_not_found_ends_the_build(change, said, tmp_path):
    shutil.copy(ROOT / "cpp_backend/parts.py", tmp_path)
    (tmp_path / "a.h").write_text("/* Licence\nas is\n*/\n")
    part = {"name": "x", "licence": "MIT", "url": "https://x", "use": "x", "version": None, "text": ["llama", "a.h", "^/. Licence", r"^\*/"]}
    for edit, code in (({}, 0), (change, 1)):
        (tmp_path / "parts.json").write_text(json.dumps([part | edit]))
        done = run(sys.executable, tmp_path / "parts.py", "--out", tmp_path / "out", f"llama={tmp_path}")
        assert done.returncode == code, done.stderr
    assert said in done.stderr and done.stderr.count("\n") == 1


def test_the_projects_own_licence_is_in_the_metadata():
    dist = importlib.metadata.distribution("spikingbrain-cpp")
    assert dist.metadata["License-Expression"] == "MIT" and dist.metadata.get_all("License-File") == ["LICENSE"]
    text = next(f for f in dist.files or [] if f.parts[-2:] == ("licenses", "LICENSE")).read_text()
    assert text == (ROOT / "LICENSE").read_text() and text.startswith("MIT License\n\nCopyright (c) 2026 the spikingbrain_cpp authors\n")
    assert dist.metadata["Summary"] and dist.metadata["Keywords"] and "Typing :: Typed" in dist.metadata.get_all("Classifier")
    assert dist.metadata["Description-Content-Type"] == "text/markdown"


def test_a_source_distribution_holds_what_a_build_needs_and_no_more(tmp_path):
    pytest.importorskip("scikit_build_core")
    done = run(sys.executable, "-c", "import sys, scikit_build_core.build as b; b.build_sdist(sys.argv[1])", tmp_path, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,) = tmp_path.iterdir()
    with tarfile.open(archive) as tar:
        names = {m.name.split("/", 1)[1] for m in tar}

    def sources(*folders: str) -> set[str]:
        found = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True).stdout.split()
        return set(found) or pytest.skip("not a git checkout")
    top = {"CMakeLists.txt", "pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md"}
    assert top | sources("cpp_backend", "bindings", "converter", "training") <= names
    assert {n.split("/")[0] for n in names} <= {"cpp_backend", "bindings", "converter", "training", "Makefile", ".gitignore", "PKG-INFO"} | top
    assert archive.stat().st_size < 1 << 20


def test_a_build_without_a_compiler_says_so_in_one_sentence(tmp_path):
    """As `pip install .` meets it: CMake and Ninja from wheels, nothing of the system."""
    tools = [shutil.which(name, path=f"{BIN}{os.pathsep}{os.environ['PATH']}") for name in ("cmake", "ninja")]
    if None in tools:
        pytest.skip("no cmake or ninja here")
    (tmp_path / "bin").mkdir()
    for tool in [*tools, sys.executable]:
        (tmp_path / "bin" / Path(tool).name).symlink_to(tool)
    env = {k: v for k, v in os.environ.items() if k not in ("CC", "CXX")} | {"PATH": str(tmp_path / "bin")}
    done = run(tmp_path / "bin" / "cmake", "-G", "Ninja", "-S", ROOT, "-B", tmp_path / "build", env=env)
    said = " ".join(done.stderr.split())
    assert done.returncode == 1 and said.count("CMake Error") == 1
    assert "spikingbrain_cpp: compiler: got none of cc;gcc;clang, expected one; do apt-get install -y g++ (as root), or set CC" in said


def test_the_changelog_begins_with_this_version():
    heading = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert heading and heading[1] == importlib.metadata.version("spikingbrain-cpp")


def test_nothing_but_the_package_is_installed():
    """No header, test, source or build folder of the fork gets into the wheel."""
    files = importlib.metadata.files("spikingbrain-cpp") or []
    tops = {f.parts[0] for f in files if not f.parts[0].endswith(".dist-info") and ".." not in f.parts}
    assert tops <= {"spikingbrain_cpp", "sb_convert", "sb_init", "sb_train"}
    assert not [f for f in files if "licenses" not in f.parts and f.suffix in (".h", ".cpp", ".cmake", ".a", ".o")]
