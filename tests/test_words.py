"""What a newcomer reads: --version and --help of every command, the first command to type, downloads by name, words in messages."""

from __future__ import annotations

import ast
import fnmatch
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
from conftest import ROOT, write_checkpoint
from peft_adapters import adapter_tensors, write_adapter

from sb_convert.cli import main as sb_convert, parser
from sb_convert.version import version
from spikingbrain_cpp import __main__ as overview, __version__, tools

BIN = Path(sys.executable).parent
installed = pytest.mark.skipif(not (BIN / "sb-server").exists(), reason="the package is not installed: run make build")


def output(*command: object) -> str:
    run = subprocess.run([str(x) for x in command], capture_output=True, text=True, errors="replace", timeout=60)
    assert run.returncode == 0, run.stderr
    return run.stdout


# --- commands -------------------------------------------------------------------------------------------------

@installed
def test_every_command_tells_its_version():
    for command in tools.COMMANDS:
        assert output(BIN / command, "--version").splitlines()[0] == f"{command} {version()} (spikingbrain-cpp)"
    for module in ("spikingbrain_cpp", "spikingbrain_cpp.demo"):
        assert output(sys.executable, "-m", module, "--version") == f"python -m {module} {version()} (spikingbrain-cpp)\n"
    assert __version__ == version()


@installed
def test_help_has_the_names_that_commands_have_here():
    text = output(BIN / "sb-quantize", "--help")
    assert "usage: sb-quantize [--help]" in text and "llama-quantize" not in text and "/lib/" not in text
    assert tools.renamed("./llama-cli -m x; /a/lib/llama-gguf-split y; llama-simple z") == "sb-cli -m x; sb-gguf-split y; llama-simple z"


def test_the_package_shows_the_first_command_to_type(capsys):
    overview.main([])
    text = capsys.readouterr().out
    first, *_, last = [text.find(f"  {command}") for command in ("sb-convert CHECKPOINT -o model.gguf", "sb-cli -m model.gguf", "sb-spikes ")]
    assert 0 < first < last and text.index("CPU features in use") > last and all(command in text for command in tools.COMMANDS)
    with pytest.raises(SystemExit, match="0"):
        overview.main(["--help"])
    assert "sb-convert CHECKPOINT -o model.gguf --outtype q4_0" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        overview.main(["model.gguf"])


def test_sb_converts_help_has_groups_and_examples():
    p, text = parser(), parser().format_help()
    groups = {g.title: [a.option_strings for a in g._group_actions] for g in p._action_groups if g._group_actions}
    assert ["what is converted", "what is written"] == [t for t in groups if t.startswith("what")] and "checks" in groups and any(t.startswith("spikes (") for t in groups)
    examples = [line.split("   ")[0].split()[1:] for line in text.splitlines() if line.startswith("  sb-convert")]
    assert len(examples) == 4 and all(p.parse_args(e) for e in examples)


# --- ORG/NAME -------------------------------------------------------------------------------------------------

@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A huggingface_hub whose repositories are folders of tmp_path/hub; asked: every pattern asked for."""
    fake = types.SimpleNamespace(asked=[], folder=tmp_path / "hub")

    def snapshot_download(repo_id: str, *, allow_patterns: list[str]) -> str:
        fake.asked += allow_patterns
        if not (fake.folder / repo_id).is_dir():
            raise OSError(f"404 Client Error.\n\nRepository Not Found: {repo_id}")
        out = tmp_path / "cache" / ("models--" + repo_id.replace("/", "--")) / "snapshots" / "0"
        out.mkdir(parents=True, exist_ok=True)
        for path in (p for p in (fake.folder / repo_id).rglob("*") if p.is_file()):
            name = path.relative_to(fake.folder / repo_id).as_posix()
            if any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                (out / name).parent.mkdir(exist_ok=True)
                shutil.copy(path, out / name)
        return str(out)
    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download))
    (tmp_path / "hub" / "org").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return fake


@pytest.mark.parametrize("form, shards", [("safetensors", 1), ("safetensors", 2), ("bin", 1), ("bin", 2)])
def test_a_repository_is_downloaded_and_only_what_is_needed(hub, tmp_path, capsys, form, shards):
    folder = write_checkpoint(hub.folder / "org" / "brain", form=form, n_shards=shards)
    for extra in ("optimizer.pt", "original.safetensors", "model.onnx", "training_args.bin") + (("pytorch_model.bin",) if form == "safetensors" else ()):
        (folder / extra).write_bytes(b"x")
    assert sb_convert(["org/brain"]) == 0
    assert "org/brain: no folder of this name: downloading it from the Hugging Face hub" in capsys.readouterr().out
    assert [p.name for p in tmp_path.glob("*.gguf")] == ["brain-BF16.gguf"]  # here, not in the cache
    held = {p.name for p in (tmp_path / "cache").rglob("*") if p.is_file()}
    assert held == {p.name for p in folder.iterdir()} - {"optimizer.pt", "original.safetensors", "model.onnx", "training_args.bin"} - ({"pytorch_model.bin"} if form == "safetensors" else set())


def test_a_vocabulary_needs_no_weights_and_an_adapter_only_its_own(hub, tmp_path):
    write_checkpoint(hub.folder / "org" / "brain")
    assert sb_convert(["org/brain", "--vocab-only", "-o", "vocab.gguf"]) == 0 and not list((tmp_path / "cache").rglob("*.safetensors"))
    write_adapter(hub.folder / "org" / "poet", adapter_tensors({"model.layers.0.attn.q_proj": ((64, 64), 4)}))
    assert sb_convert(["org/poet", "--base", "org/brain"]) == 0 and (tmp_path / "poet-F32.gguf").is_file()


def test_a_folder_on_disk_wins(hub, tmp_path):
    write_checkpoint(hub.folder / "org" / "brain")
    (tmp_path / "org").mkdir()
    write_checkpoint(tmp_path / "org" / "brain")
    assert sb_convert(["org/brain"]) == 0 and not hub.asked and (tmp_path / "org" / "brain" / "brain-BF16.gguf").is_file()


def test_what_is_said_where_nothing_can_be_downloaded(hub, tmp_path, monkeypatch, capsys):
    def told(name: str) -> str:
        assert sb_convert([name]) == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and not list(tmp_path.glob("*.gguf"))
        return lines[0]
    assert re.search(r"org/none: checkpoint: got no folder of this name, and no download of it \(404 Client Error\), expected a folder, or ORG/NAME .*; check name and network", told("org/none"))
    assert "none: checkpoint: got no such folder, expected one with config.json, weights and tokenizer" in told("none") and "a/b/c: checkpoint: got no such folder" in told("a/b/c")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert re.search(r"org/none: checkpoint: .*no huggingface_hub.*; pip install 'spikingbrain-cpp\[hub\]', or fetch it by hand \(git clone \S+/org/none, with git-lfs; .*modelscope download --model org/none --local_dir none\) and give the folder none", told("org/none"))


# --- messages -------------------------------------------------------------------------------------------------

# words that say something inside this project alone, and constructions that are hard to read
JARGON = [r"\bours\b", r"the fork\b", r"\bgraph\b", r"\bs\., ", r"what is no\b", r", as \d", r"overlay", r"\bil\b"]


def said(path: Path) -> list[tuple[int, str]]:
    """The texts that a module raises, warns of, or puts into help: (line, text) of each."""
    out = []
    for node in ast.walk(ast.parse(path.read_text())):
        name = node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
        if isinstance(node, ast.Raise) or name in ("bad", "warn", "warning", "error", "exit", "say", "print", "add_argument", "ArgumentParser", "add_argument_group") or name.endswith("Error"):
            out += [(n.lineno, n.value) for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return out


def test_no_message_has_words_of_the_project():
    modules = [*(ROOT / "converter" / "sb_convert").glob("*.py"), *(ROOT / "bindings" / "spikingbrain_cpp").rglob("*.py")]
    found = [f"{path.name}:{line}: {text}" for path in modules for line, text in said(path) if any(re.search(word, text) for word in JARGON)]
    assert found == []
    texts = [text for path in modules for _, text in said(path)]
    assert len(texts) > 900 and any("this program does not implement other values" in text for text in texts)


# --- the source -----------------------------------------------------------------------------------------------

PACKAGES = [ROOT / "converter" / "sb_convert", ROOT / "bindings" / "spikingbrain_cpp"]


def public(path: Path) -> list[tuple[str, ast.AST, list[str]]]:
    """Every public function and method of a module, setters left out: its name, its node, the names of its class's bases."""
    out = []

    def walk(body: list[ast.stmt], prefix: str, bases: list[str]) -> None:
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("_"):
                if not any(isinstance(d, ast.Attribute) and d.attr == "setter" for d in node.decorator_list):
                    out.append((prefix + node.name, node, bases))
            elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                walk(node.body, f"{node.name}.", [getattr(b, "id", getattr(b, "attr", "")) for b in node.bases])
    walk(ast.parse(path.read_text()).body, "", [])
    return out


def test_every_public_function_has_a_docstring():
    """Its own, or that of the method which it overrides."""
    found = {path: public(path) for package in PACKAGES for path in sorted(package.rglob("*.py"))}
    told = {name for functions in found.values() for name, node, _ in functions if ast.get_docstring(node)}
    bases: dict[str, set[str]] = {}
    for name, _, of in (f for functions in found.values() for f in functions):
        bases.setdefault(name.partition(".")[0], set()).update(of)

    def inherits(kind: str, method: str) -> bool:
        return any(f"{base}.{method}" in told or base != kind and inherits(base, method) for base in bases.get(kind, ()))
    lacking = [f"{path.name}: {name}" for path, functions in found.items() for name, node, _ in functions
               if not ast.get_docstring(node) and not inherits(*name.rpartition(".")[::2])]
    assert lacking == [] and len(told) > 600


def test_what_the_project_agrees_on_stands_once():
    """Names and numbers of sb_convert.constants; codes times scales and log-softmax of sb_convert.numerics."""
    once = {r'^\w* ?= ?"spikingbrain"|^ARCH, ': 1, r"^GROUP = ": 1, r"^(DEFAULT_K|\w+_K) = 3": 1, r"def log_softmax": 1, r"\* (self\.)?scales\[": 1, r"np\.log\(np\.exp\(": 1}
    text = "\n".join(path.read_text() for folder in (*PACKAGES, ROOT / "bench") for path in folder.rglob("*.py"))
    assert {pattern: len(re.findall(pattern, text, re.M)) for pattern in once} == once
