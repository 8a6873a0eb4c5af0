"""Every path and every command that a README names exists, and its Python examples run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    tomllib = None

ROOT = Path(__file__).resolve().parent.parent
MADE = ("build", ".venv")        # folders that come into being


def project() -> Iterator[Path]:
    """Every file and folder of the project. What a build may be changing is not entered."""
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in (*MADE, ".git", "__pycache__", "node_modules")]
        yield from (Path(folder) / name for name in (*folders, *files))


READMES = sorted(p for p in project() if p.name == "README.md")
NO_PATH = re.compile(r"[<>*{}$|()\[\]=:,]|\.\.\.|^-|^/|[A-Z]{3,}(?!\.md)|^\.\w+$|^\d")  # placeholders, patterns, options, suffixes, keys
SUFFIXES = (".py", ".cpp", ".h", ".c", ".md", ".sh", ".txt", ".toml", ".lock", ".patch")


def here() -> set[str]:
    """Every file and folder of the project, as /a/b/c and as each of its endings /b/c and /c: READMEs shorten paths."""
    found = set()
    for path in project():
        parts = path.relative_to(ROOT).parts
        found |= {"/".join(parts[i:]) for i in range(len(parts))}
    return found


def commands(text: str) -> list[list[str]]:
    """The words of every line in a code block, and of inline code that begins with a command of ours."""
    lines = []
    for block in re.findall(r"```(?:sh|bash|console)?\n(.*?)```", text, re.S):
        lines += block.splitlines()
    lines += [line[4:] for line in text.splitlines() if line.startswith("    ")]
    lines += re.findall(r"`((?:make|sb-|python|python3) ?[^`]+)`", text)
    words = []
    for line in lines:
        try:
            words.append(shlex.split(line.lstrip("$ "), comments=True))
        except ValueError:
            continue  # text with a lone quote: not a command
    return [w for w in words if w]


def named_paths(text: str) -> set[str]:
    inline = {word for code in re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S)) for word in code.split()}
    paths = {w.rstrip(".,;") for w in inline if not NO_PATH.search(w) and ("/" in w or w.endswith(SUFFIXES))}
    links = {m.split("#")[0] for m in re.findall(r"\]\(([^)]+)\)", text) if not m.startswith(("http", "#"))}
    return paths | links - {""}


@pytest.mark.parametrize("readme", READMES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_path_named_exists(readme):
    names, known = named_paths(readme.read_text()), here()
    assert [n for n in sorted(names)
            if n.split("/")[0] not in MADE and n.rstrip("/") not in known and not (readme.parent / n).exists()] == []


@pytest.mark.parametrize("readme", READMES, ids=lambda p: p.relative_to(ROOT).as_posix())
@pytest.mark.skipif(tomllib is None, reason="needs Python 3.11's tomllib")
def test_every_command_named_exists(readme):
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M))
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    unknown = []
    for words in commands(readme.read_text()):
        while words and re.match(r"[A-Z_]+=", words[0]):
            words = words[1:]
        if not words:
            continue
        name = words[0].rsplit("/", 1)[-1]
        if name == "make":
            unknown += [f"make {t}" for t in words[1:] if not t.startswith("-") and "=" not in t and t not in targets]
        elif name.startswith("sb-") and "*" not in name:
            unknown += [name] if name not in scripts else []
        elif name in ("python", "python3"):
            unknown += [w for w in words[1:2] if w.endswith(".py") and not (ROOT / w).exists() and not (readme.parent / w).exists()]
    assert unknown == []


def python_blocks() -> list[tuple[str, str]]:
    return [(f"{path.relative_to(ROOT)}:{i}", code) for path in (ROOT / "README.md", ROOT / "bindings" / "README.md")
            for i, code in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.S))]


@pytest.fixture(scope="module")
def readers_folder(tmp_path_factory) -> Path:
    """Where a reader stands after the commands above the examples: the trained model under each name that they use."""
    from sb_convert.cli import main
    folder = tmp_path_factory.mktemp("reader")
    (folder / "build").mkdir()
    assert main([str(ROOT / "examples" / "small"), "-o", str(folder / "model.gguf"), "--outtype", "q8_0"]) == 0
    for name in {n for _, code in python_blocks() for n in re.findall(r'"([^"]+\.gguf)"', code)}:
        (folder / name).symlink_to(folder / "model.gguf")
    return folder


@pytest.mark.parametrize("where, code", python_blocks(), ids=lambda x: x if ":" in x and "\n" not in x else "")
def test_every_python_example_runs(where, code, readers_folder):
    done = subprocess.run([sys.executable, "-c", code], cwd=readers_folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.strip(), f"{where}: {done.stderr[-2000:]}"


def test_the_first_screen_has_both_commands_and_the_packages():
    screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:30])
    assert "make demo" in screen and "make test" in screen and "apt-get install" in screen


def test_make_reads_a_checkout_in_which_the_example_was_trained(tmp_path):
    """What examples/corpus.py unpacks has names that no prerequisite can have."""
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    for folder in ("small", "work/packages/man3"):
        (tmp_path / "examples" / folder).mkdir(parents=True)
    (tmp_path / "examples" / "work" / "packages" / "man3" / "IO::Dir.3perl.gz").touch()
    done = subprocess.run(["make", "-n", "check-system"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
