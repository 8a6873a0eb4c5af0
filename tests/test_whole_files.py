"""All that writes keeps one table of rules: regular files only, links followed, never an input, whole or not at all.

Devices, pipes and links are made in the test's own folder; nothing here touches one of the machine.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from binding_models import ONE, tiny  # noqa: F401
from conftest import ROOT
from running_server import Server

import sb_convert.cli
from sb_convert import whole
from sb_convert.whole import RULES, NotWritten, WholeFiles, write_whole
from spikingbrain_cpp import Llama, LlamaDiskCache, refusals, tools
from spikingbrain_cpp.spikes import cli as spikes_cli

BIN = Path(sys.executable).parent


# --- the writers: (where it may write, its input) -> what it said, "" if it wrote ------------------------------------------

@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):  # noqa: F811
    """A folder with inputs of every kind, and what is slow to make once."""
    folder = tmp_path_factory.mktemp("inputs")
    shutil.copytree(ROOT / "examples" / "tiny", folder / "checkpoint")
    shutil.copy(tiny, folder / "model.gguf")
    (folder / "text.txt").write_text("hello the hello world. " * 10)
    spiking = folder / "spiking.gguf"
    assert sb_convert.cli.main([str(folder / "model.gguf"), "-o", str(spiking), "--spike"]) == 0
    split(folder / "model.gguf", folder / "part")
    with Llama(folder / "model.gguf", **ONE) as llm:
        llm.eval([1, 2, 3])
        yield SimpleNamespace(folder=folder, llm=llm, snapshot=llm.snapshot(), model=folder / "model.gguf", spiking=spiking, text=folder / "text.txt",
                              part=next(folder.glob("part-00001-of-*.gguf")), checkpoint=folder / "checkpoint", slots=folder / "slots")


def run(name: str, *args: object, **kw) -> str:
    """The program itself: its Python wrapper would take most of the time."""
    env = {**os.environ, "LLAMA_ARG_FIT": "off"}
    done = subprocess.run([tools.LIB / name.replace("sb-", "llama-"), *map(str, args)], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, errors="replace", **kw)
    assert done.returncode in (0, 1), (done.returncode, done.stderr[-2000:])
    return "" if done.returncode == 0 else done.stderr or done.stdout


def full_disk(most: int = 20_000) -> None:
    """In a child, for files of more bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def split(model: Path, to: Path) -> None:
    assert run("sb-gguf-split", "--split-max-tensors", "20", model, to) == ""


def told(call: Callable[[], object]) -> str:
    try:
        call()
    except (NotWritten, OSError) as error:
        return str(error)
    return ""


def main(capsys, module, *args: object) -> str:
    code = module.main([*map(str, args)])
    err = capsys.readouterr().err
    assert (code == 0) == (err == ""), err
    return err


def first_tensor_key(made) -> Path:
    return made.checkpoint / "model.safetensors"


# name -> (write(made, path, capsys), input(made))
PYTHON = {
    "write_whole": (lambda m, p, c: told(lambda: write_whole(p, b"new", [m.text])), lambda m: m.text),
    "Llama.snapshot": (lambda m, p, c: told(lambda: m.llm.snapshot(p)), lambda m: m.model),
    "sb-convert": (lambda m, p, c: main(c, sb_convert.cli, m.checkpoint, "-o", p, "--force"), first_tensor_key),
    "sb-convert --vocab-only": (lambda m, p, c: main(c, sb_convert.cli, m.checkpoint, "-o", p, "--force", "--vocab-only"), lambda m: m.checkpoint / "config.json"),
    "sb-convert of a GGUF": (lambda m, p, c: main(c, sb_convert.cli, m.model, "-o", p, "--spike", "--force"), lambda m: m.model),
    "sb-spikes --json": (lambda m, p, c: main(c, spikes_cli, m.spiking, "--text", m.text, "-t", 1, "--json", p), lambda m: m.text),
}
TOOLS = {
    "sb-quantize": (lambda m, p, c: run("sb-quantize", m.model, p, "Q8_0", 1), lambda m: m.model),
    "sb-quantize of parts": (lambda m, p, c: run("sb-quantize", m.part, p, "Q8_0", 1), lambda m: next(m.folder.glob("part-00002-of-*.gguf"))),
    "sb-gguf-split --merge": (lambda m, p, c: run("sb-gguf-split", "--merge", m.part, p), None),  # upstream: never over a file
    "sb-imatrix": (lambda m, p, c: run("sb-imatrix", "-m", m.model, "-f", m.text, "-c", 32, "-t", 1, "-o", p), lambda m: m.model),
    "sb-imatrix, its text": (lambda m, p, c: run("sb-imatrix", "-m", m.model, "-f", m.text, "-c", 32, "-t", 1, "-o", p), lambda m: m.text),
    "sb-perplexity": (lambda m, p, c: run("sb-perplexity", "-m", m.model, "-f", m.text, "-c", 32, "-t", 1, "--save-all-logits", p), lambda m: m.model),
    "sb-completion": (lambda m, p, c: run("sb-completion", "-m", m.model, "-p", "hello", "-n", 2, "-t", 1, "-no-cnv", "--prompt-cache", p), lambda m: m.model),
    "sb-completion, its log": (lambda m, p, c: run("sb-completion", "-m", m.model, "-p", "hello", "-n", 2, "-t", 1, "-no-cnv", "--log-file", p), lambda m: m.model),
}


# --- the scenes: each rule broken in a folder ---------------------------------------------------------------------------------

def node(path: Path) -> Path:
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("making a device needs root")
    return path


def circle(folder: Path) -> Path:
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    return folder / "a"


def holding(path: Path, mode: int) -> Path:
    path.write_bytes(b"old")
    path.chmod(mode)
    return path


def closed(folder: Path) -> Path:
    (folder / "closed").mkdir(mode=0o555)
    return folder / "closed" / "out"


def made_as(path: Path, make: Callable[[Path], object]) -> Path:
    make(path)
    return path


def linked(folder: Path, to: Path) -> Path:
    (folder / "link").symlink_to(to)
    return folder / "link"


# rule -> {scene: folder -> name}
SCENES: dict[str, dict[str, Callable[[Path], object]]] = {
    "no name": {"empty": lambda f: ""},
    "standard output": {"-": lambda f: "-"},
    "links in a circle": {"circle": circle},
    "a folder": {"folder": lambda f: made_as(f / "out", Path.mkdir), "slash": lambda f: f"{f}/new/"},
    "no regular file": {"device": lambda f: node(f / "out"), "pipe": lambda f: made_as(f / "out", os.mkfifo), "link to a device": lambda f: linked(f, node(f / "x"))},
    "write-protected": {"mode 444": lambda f: holding(f / "out", 0o444)},
    "no such folder": {"folder missing": lambda f: f / "none" / "out", "link to nowhere": lambda f: linked(f, f / "none" / "out")},
    "a folder without write permission": {"folder closed": closed},
}
NAMES = [(rule, scene) for rule, scenes in SCENES.items() for scene in scenes]


def seen(folder: Path) -> dict[str, object]:
    """All there is to see of a folder but times: types, inodes, modes, links, bytes."""
    out: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        s = path.lstat()
        out[str(path)] = (s.st_ino, s.st_mode, s.st_nlink, os.readlink(path) if path.is_symlink() else path.read_bytes() if stat.S_ISREG(s.st_mode) else b"")
    return out


def test_every_rule_has_a_scene():
    assert {rule.name for rule in RULES} == {*SCENES, "an input", "an existing file"}


# elsewhere a folder is where the file of the default name goes, and - is the standard output
MEANT = {("sb-convert", "folder"), ("sb-convert --vocab-only", "folder"), ("sb-convert of a GGUF", "folder"), ("sb-spikes --json", "-")}
CASES = [(writer, rule, scene) for writer in PYTHON for rule, scene in NAMES if (writer, scene) not in MEANT]


@pytest.mark.parametrize("writer, rule, scene", CASES, ids=[f"{writer}-{scene}" for writer, _, scene in CASES])
def test_python_keeps_each_rule(writer, rule, scene, made, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = SCENES[rule][scene](tmp_path)
    if isinstance(path, Path):
        path = str(path)
    before = seen(tmp_path)
    said = PYTHON[writer][0](made, path, capsys)
    wanted = next(r for r in RULES if r.name == rule)
    assert f": {wanted.what}: got {wanted.got}, expected {wanted.expected}; do {wanted.do}" in said
    assert seen(tmp_path) == before
    assert "\n" not in said.strip()


@pytest.mark.parametrize("rule, scene", [n for n in NAMES if n[1] not in ("empty", "pipe")], ids=[scene for _, scene in NAMES if scene not in ("empty", "pipe")])
def test_the_tools_keep_each_rule(rule, scene, made, tmp_path):
    """whole-file.h's, which all of them ask. (An empty name is upstream's default; see below for a pipe.)"""
    path = SCENES[rule][scene](tmp_path)
    before = seen(tmp_path)
    said = run("sb-quantize", made.model, path, "Q8_0", 1, cwd=tmp_path)
    wanted = next(r for r in RULES if r.name == rule)
    assert f": {wanted.what}: got {wanted.got}, expected " in said, said
    assert seen(tmp_path) == before


@pytest.mark.parametrize("writer", [w for w in TOOLS if w not in ("sb-completion, its log", "sb-gguf-split --merge")])  # a log may be a stream; see above
def test_each_tool_refuses_a_device_and_a_pipe(writer, made, tmp_path, capsys):
    for path in (node(tmp_path / "device"), made_as(tmp_path / "pipe", os.mkfifo)):
        before = seen(tmp_path)
        assert f"{path}: output: got a device, a pipe or a socket, expected a regular file; do " in TOOLS[writer][0](made, path, capsys)
        assert seen(tmp_path) == before


@pytest.mark.parametrize("how", ["itself", "symbolic link", "hard link"])
@pytest.mark.parametrize("writer", [*PYTHON, *(w for w, (_, of) in TOOLS.items() if of)])
def test_no_input_is_written_over(writer, how, made, tmp_path, capsys):
    write, of = {**PYTHON, **TOOLS}[writer]
    path = of(made)
    if how != "itself":
        (os.symlink if how == "symbolic link" else os.link)(path, tmp_path / "link")
    before = seen(made.folder)
    said = write(made, path if how == "itself" else tmp_path / "link", capsys)
    assert "a file that this c" in said or "input and output files are the same" in said, said
    assert seen(made.folder) == before


def test_the_wrappers_refuse_what_the_tools_cannot(made, tmp_path):
    old, pipe = holding(tmp_path / "old.gguf", 0o644), made_as(tmp_path / "pipe", os.mkfifo)
    quantize = lambda *args: refusals.quantize_output([*map(str, args)])  # noqa: E731
    assert "a file that this call reads" in str(quantize("--pure", "--imatrix", old, made.model, old, "Q8_0"))
    assert "a file that this call reads" in str(quantize("--tensor-type-file", old, "--output-tensor-type", "q8_0", made.model, old, "Q8_0", 2))
    assert "a device, a pipe" in str(quantize(made.model, pipe, "Q8_0")) and "a device, a pipe" in str(refusals.merge_output(["--merge", str(made.part), str(pipe)]))
    assert quantize("--dry-run", made.model, pipe, "Q8_0") is quantize(made.model, "Q8_0") is quantize("--imatrix", old, made.model, tmp_path / "new", "Q8_0") is None
    done = subprocess.run([BIN / "sb-quantize", "--imatrix", old, made.model, old, "Q8_0"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.startswith(f"sb-quantize: {old}: output: got a file that this call reads") and old.read_bytes() == b"old"


def test_split_writes_no_part_over_its_input(made, tmp_path):
    n = len(list(made.folder.glob("part-*")))
    model = tmp_path / f"m-00001-of-{n:05d}.gguf"
    shutil.copy(made.model, model)
    before = seen(tmp_path)
    assert "a file that this command reads" in run("sb-gguf-split", "--split-max-tensors", "20", model, tmp_path / "m")
    assert n > 1 and seen(tmp_path) == before


def test_parts_are_deleted_when_the_merged_file_is_there(made, tmp_path):
    files = sorted(made.folder.glob("part-*"))
    for part in files:
        shutil.copy(part, tmp_path / part.name)

    def merge(*args, preexec_fn=None):
        command = [BIN / "sb-gguf-split", "--merge", "--delete-splits", *args]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, preexec_fn=preexec_fn).stderr
    before, first = seen(tmp_path), tmp_path / files[0].name
    before_last = sum(p.stat().st_size for p in files[:-1]) + 4096
    assert len(files) > 1
    for options, out, limit in ((["--dry-run"], "m.gguf", None), ([], "absent/m.gguf", None), ([], files[-1].name, None), ([], "m.gguf", lambda: full_disk(before_last))):
        merge(*options, first, out, preexec_fn=limit)
        assert seen(tmp_path) == before, (options, out)
    assert merge(first, "m.gguf").count("deleted file") == len(files)
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["m.gguf"] and len((tmp_path / "m.gguf").read_bytes()) > 1000


# --- what is written ----------------------------------------------------------------------------------------------------------

GOOD = {**PYTHON, **{w: TOOLS[w] for w in ("sb-quantize", "sb-gguf-split --merge")}}


@pytest.mark.parametrize("writer", GOOD)
def test_a_link_is_followed_and_stays_and_nothing_else_is_left(writer, made, tmp_path, capsys):
    write = GOOD[writer][0]
    (tmp_path / "disk").mkdir()
    link = linked(tmp_path, Path("disk") / "real")
    (tmp_path / "disk" / ".real.0123456789ab.partial").write_bytes(b"of a process that was killed")
    old = os.umask(0o027)
    try:
        assert write(made, link, capsys) == ""
    finally:
        os.umask(old)
    real = tmp_path / "disk" / "real"
    assert link.is_symlink() and stat.S_IMODE(real.stat().st_mode) == 0o640
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["disk", "link", "real"]
    if writer == "sb-gguf-split --merge":
        return
    real.write_bytes(b"old")
    real.chmod(0o604)
    assert write(made, link, capsys) == ""
    assert link.is_symlink() and stat.S_IMODE(real.stat().st_mode) == 0o604 and real.read_bytes() != b"old"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["disk", "link", "real"]


@pytest.mark.parametrize("writer", ["sb-quantize", "sb-gguf-split --merge"])
def test_a_full_disk_leaves_nothing_of_a_tool(writer, made, tmp_path, capsys):
    args = {"sb-quantize": (made.model, tmp_path / "out", "Q8_0", 1), "sb-gguf-split --merge": ("--merge", made.part, tmp_path / "out")}[writer]
    assert run(writer.split()[0], *args, preexec_fn=full_disk) != ""
    assert [*tmp_path.iterdir()] == []


def test_an_interrupted_tool_leaves_nothing(make_checkpoint, tmp_path):
    big = tmp_path / "big.gguf"
    folder = make_checkpoint(hidden_size=256, intermediate_size=8192, vocab_size=4096, num_hidden_layers=1, attn_layers=[0])
    assert sb_convert.cli.main([str(folder), "-o", str(big), "--outtype", "f32"]) == 0
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "out").write_bytes(b"old")
    process = subprocess.Popen([tools.LIB / "llama-quantize", big, tmp_path / "disk" / "out", "Q2_K", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len([*(tmp_path / "disk").iterdir()]) == 1:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == -signal.SIGINT
    assert {p.name: p.read_bytes() for p in (tmp_path / "disk").iterdir()} == {"out": b"old"}


def test_several_files_appear_together_or_not_at_all(tmp_path, monkeypatch):
    for name in "abc":
        (tmp_path / name).write_bytes(b"old " + name.encode())
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    rename, calls = os.replace, []

    def failing(source, to):
        calls.append(to)
        if len(calls) == 5:  # three old ones aside, then the last but one in place
            raise OSError(5, "Input/output error")
        rename(source, to)
    with WholeFiles() as files:
        for name in "abc":
            files.begin(tmp_path / name).write(b"new")
        monkeypatch.setattr(whole.os, "replace", failing)
        with pytest.raises(OSError, match="Input/output error"):
            files.commit()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    monkeypatch.undo()
    with WholeFiles() as files:
        for name in "abc":
            files.begin(tmp_path / name).write(b"new")
        files.commit()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == dict.fromkeys("abc", b"new")


@pytest.mark.parametrize("there", ["", "a", "bc", "abc"])
@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()], ids=["failed", "interrupted behind it"])
def test_whichever_rename_fails_all_is_as_it_was(tmp_path, monkeypatch, there, error):
    """Old ones aside, then the new ones in place: each of these renames fails once, or is the last one done."""
    rename = os.replace
    for at in range(1, len(there) + 3 + (isinstance(error, OSError))):
        for name in "abc":
            (tmp_path / name).unlink(missing_ok=True)
        for name in there:
            (tmp_path / name).write_bytes(b"old " + name.encode())
        before, calls = seen(tmp_path), []

        def failing(source, to):
            calls.append(to)
            if len(calls) != at or not isinstance(error, OSError):
                rename(source, to)
            if len(calls) == at:
                raise error
        files = WholeFiles()
        for name in "abc":
            files.begin(tmp_path / name).write(b"new")
        with monkeypatch.context() as patched, pytest.raises(type(error)):
            patched.setattr(whole.os, "replace", failing)
            files.commit()
        assert seen(tmp_path) == before and not files.committed, at


@pytest.mark.parametrize("fails", [False, True])
def test_what_another_process_removes_meanwhile_is_no_failure(tmp_path, monkeypatch, fails):
    """It takes the old ones put aside for left by a killed process, or removes what has appeared."""
    for name in "ab":
        (tmp_path / name).write_bytes(b"old")
    rename, calls = os.replace, []

    def meddled(source, to):
        calls.append(to)
        rename(source, to)
        if len(calls) == (3 if fails else 4):
            Path(to).unlink() if fails else [p.unlink() for p in tmp_path.glob("*.old")]
            if fails:
                raise OSError(5, "Input/output error")
    monkeypatch.setattr(whole.os, "replace", meddled)
    with WholeFiles() as files:
        for name in "ab":
            files.begin(tmp_path / name).write(b"new")
        if fails:
            with pytest.raises(OSError, match="Input/output"):
                files.commit()
        else:
            files.commit()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == dict.fromkeys("ab", b"old" if fails else b"new")


@pytest.mark.parametrize("behind", [False, True])
def test_one_file_interrupted_before_or_behind_its_rename(tmp_path, monkeypatch, behind):
    (tmp_path / "a").write_bytes(b"old")
    rename = os.replace

    def interrupted(source, to):
        if behind:
            rename(source, to)
        raise KeyboardInterrupt
    monkeypatch.setattr(whole.os, "replace", interrupted)
    with WholeFiles() as files:
        files.begin(tmp_path / "a").write(b"new")
        with pytest.raises(KeyboardInterrupt):
            files.commit()
    assert files.committed is behind
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"new" if behind else b"old"}


def test_the_first_of_several_appears_last(tmp_path, monkeypatch):
    order = []
    rename = os.replace
    with WholeFiles() as files:
        for name in "abc":
            files.begin(tmp_path / name)
        monkeypatch.setattr(whole.os, "replace", lambda a, b: (order.append(Path(b).name), rename(a, b)))
        files.commit()
    assert order == ["c", "b", "a"]


def test_one_output_for_each(tmp_path, made, capsys):
    (tmp_path / "b").symlink_to("a")
    said = main(capsys, spikes_cli, made.spiking, "--text", made.text, "--json", tmp_path / "a", "--html", tmp_path / "b")
    assert "another output of this call" in said and [p.name for p in tmp_path.iterdir()] == ["b"]


def test_a_file_that_comes_meanwhile_is_not_replaced_unasked(tmp_path):
    with WholeFiles() as files:
        files.begin(tmp_path / "out", overwrite=False).write(b"new")
        (tmp_path / "out").write_bytes(b"another's")
        with pytest.raises(NotWritten, match="an existing file"):
            files.commit()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"out": b"another's"}


def test_two_names_have_two_locks_and_two_writers_of_one_agree(tmp_path):
    with WholeFiles() as q4, WholeFiles() as q8, WholeFiles() as other:
        q4.begin(tmp_path / "m.q4", alone=True).write(b"4")
        q8.begin(tmp_path / "m.q8", alone=True).write(b"8")
        with pytest.raises(NotWritten, match="another process writing it, expected one at a time"):
            WholeFiles().begin(tmp_path / "m.q4", alone=True)
        other.begin(tmp_path / "m.q4").write(b"other")  # who does not mind removes nothing of it
        q4.commit()
        q8.commit()
        other.commit()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"m.q4": b"other", "m.q8": b"8"}


def test_a_temporary_name_that_is_taken_is_not_used(tmp_path, monkeypatch):
    names = iter(["0123456789ab", "0123456789ab", "ba9876543210"])
    monkeypatch.setattr(whole.secrets, "token_hex", lambda _: next(names))
    with WholeFiles() as one, WholeFiles() as two:
        one.begin(tmp_path / "out").write(b"1")
        two.begin(tmp_path / "out").write(b"2")
        assert sorted(p.name for p in tmp_path.iterdir()) == [".out.0123456789ab.partial", ".out.ba9876543210.partial"]


def test_a_system_without_locks_is_served(tmp_path, monkeypatch):
    """As Windows, where an open file cannot be removed or renamed."""
    monkeypatch.setattr(whole, "fcntl", None)
    (tmp_path / ".out.0123456789ab.partial").write_bytes(b"left")
    with WholeFiles() as files:
        file = files.begin(tmp_path / "out")
        file.write(b"new")
        rename = os.replace
        monkeypatch.setattr(whole.os, "replace", lambda a, b: (file.closed or pytest.fail("renamed while open"), rename(a, b)))
        files.commit()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"out": b"new"}


def test_many_threads_write_one_file(tmp_path):
    errors: list[str] = []

    def write(i: int) -> None:
        errors.extend(filter(None, [told(lambda: write_whole(tmp_path / "out", bytes([i]) * 1000)) for _ in range(25)]))
    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert errors == [] and len({*(tmp_path / "out").read_bytes()}) == 1 and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_cannot_be_synchronised_is_no_failure(tmp_path, monkeypatch):
    sync = os.fsync

    def failing(fd):
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(5, "Input/output error")
        sync(fd)
    monkeypatch.setattr(whole.os, "fsync", failing)
    with pytest.warns(RuntimeWarning, match="written, but the folder could not be synchronised"):
        write_whole(tmp_path / "out", b"new")
    assert (tmp_path / "out").read_bytes() == b"new"


def test_file_and_folder_are_synchronised_before_it_is_said(tmp_path, monkeypatch):
    order = []
    sync, rename = os.fsync, os.replace
    monkeypatch.setattr(whole.os, "fsync", lambda fd: (order.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"), sync(fd)))
    monkeypatch.setattr(whole.os, "replace", lambda a, b: (order.append("name"), rename(a, b)))
    write_whole(tmp_path / "out", b"new")
    assert order == ["file", "name", "folder"]


def test_space_is_asked_for_where_the_files_will_lie_and_in_sum(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(whole.shutil, "disk_usage", lambda folder: (asked.append(folder), SimpleNamespace(free=100 + whole.SPACE_MARGIN))[1])
    whole.require_space([(tmp_path / "a", 60), (tmp_path / "b", 40)])
    with pytest.raises(NotWritten, match="disk space: got 67 MB free, expected 67 MB"):
        whole.require_space([(tmp_path / "a", 60), (tmp_path / "b", 41)])
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk/real")
    output = sb_convert.output.Output(tmp_path / "out", force=False)
    output.check_free()
    assert asked[-1] == tmp_path / "disk"


def test_a_converter_goes_on_writing_beside_what_it_wrote_before(made, capsys):
    """A GGUF in the checkpoint's folder is no input."""
    for _ in range(2):
        assert main(capsys, sb_convert.cli, made.checkpoint, "--force") == ""
    next(made.checkpoint.glob("*.gguf")).unlink()


def test_a_long_name_has_room_for_its_temporary_one(tmp_path):
    write_whole(tmp_path / ("é" * 125), b"new")
    assert (tmp_path / ("é" * 125)).read_bytes() == b"new"


def test_interrupted_after_the_file_is_there_says_so(made, tmp_path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt
    monkeypatch.setattr(whole, "sync_folder", interrupted)
    assert sb_convert.cli.main([str(made.checkpoint), "-o", str(tmp_path / "out.gguf")]) == 130
    assert capsys.readouterr().err == "sb-convert: interrupted; out.gguf was written\n" and (tmp_path / "out.gguf").exists()
    rename = os.replace
    monkeypatch.setattr(whole.os, "replace", lambda a, b: (rename(a, b), interrupted()))
    assert sb_convert.cli.main([str(made.checkpoint), "-o", str(tmp_path / "just.gguf")]) == 130
    assert capsys.readouterr().err == "sb-convert: interrupted; just.gguf was written\n" and (tmp_path / "just.gguf").exists()
    monkeypatch.setattr(whole.os, "replace", interrupted)
    assert sb_convert.cli.main([str(made.checkpoint), "-o", str(tmp_path / "other.gguf")]) == 130
    assert capsys.readouterr().err == "sb-convert: interrupted; nothing was written\n" and not (tmp_path / "other.gguf").exists()


def test_the_cache_passes_over_what_is_not_a_file(made, tmp_path):
    for name in ("", ".3-abc.sbstate.0123456789ab.partial", ".other.0123456789ab.partial"):
        (tmp_path / f"{name or 'foreign'}").write_bytes(b"left")
    cache = LlamaDiskCache(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".other.0123456789ab.partial", "foreign"]
    state = made.llm.save_state()
    cache[[1, 2, 3]] = state
    entry = next(tmp_path.glob("*.sbstate"))
    entry.unlink()
    entry.symlink_to(tmp_path / "elsewhere")
    cache[[1, 2, 3]] = state
    assert entry.is_symlink() and not (tmp_path / "elsewhere").exists()
    entry.unlink()
    os.mkfifo(entry)
    cache[[1, 2, 3]] = state
    assert [1, 2, 3] not in cache and stat.S_ISFIFO(entry.lstat().st_mode)


# --- a server's slots ---------------------------------------------------------------------------------------------------------

def test_a_slot_is_saved_by_the_same_rules(made, tmp_path):
    shutil.copy(made.model, tmp_path / "model.gguf")
    node(tmp_path / "device")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    circle(tmp_path)
    holding(tmp_path / "protected", 0o444)
    (tmp_path / "link").symlink_to("elsewhere")
    (tmp_path / ".good.0123456789ab.partial").write_bytes(b"left")
    with Server(tmp_path / "model.gguf", tmp_path / "log", "--slot-save-path", f"{tmp_path}/", "-np", 1) as server:
        server.post("/completion", prompt="hello", n_predict=2)
        before = seen(tmp_path)
        before.pop(str(tmp_path / "log"))
        for name, got in (("device", "a device, a pipe or a socket"), ("pipe", "a device, a pipe or a socket"), ("folder", "a folder"),
                          ("a", "symbolic links in a circle"), ("protected", "a write-protected file"), ("model.gguf", "a file that this command reads")):
            status, message = server.refused("/slots/0?action=save", f'{{"filename": "{name}"}}'.encode())
            assert status == 400 and f": output: got {got}" in message, (name, status, message)
        after = seen(tmp_path)
        after.pop(str(tmp_path / "log"))
        assert after == before
        for name in ("good", "link"):
            assert server.post("/slots/0?action=save", filename=name)["n_written"] == (tmp_path / name).stat().st_size
        assert (tmp_path / "link").is_symlink() and not list(tmp_path.glob(".*"))
        for name in ("pipe", "device", "folder", "a"):
            status, message = server.refused("/slots/0?action=restore", f'{{"filename": "{name}"}}'.encode())
            assert status == 400 and "slot file: got no such file" in message
        server.post("/slots/0?action=restore", filename="good")


def test_a_slot_that_does_not_fit_leaves_the_old_file(made, tmp_path):
    script = f"ulimit -f 40; exec {BIN / 'sb-server'} \"$@\""
    wrapper = tmp_path / "server.sh"
    wrapper.write_text(f"#!/bin/bash\ntrap '' XFSZ\n{script}\n")
    wrapper.chmod(0o755)
    (tmp_path / "slots").mkdir()
    (tmp_path / "slots" / "s").write_bytes(b"old")
    with Server(made.model, tmp_path / "log", "--slot-save-path", f"{tmp_path}/slots/", "-np", 1, program=wrapper) as server:
        server.post("/completion", prompt="hello " * 3000, n_predict=2)
        status, message = server.refused("/slots/0?action=save", b'{"filename": "s"}')
        assert status == 500 and "nable to" in message
    assert {p.name: p.read_bytes() for p in (tmp_path / "slots").iterdir()} == {"s": b"old"}


# --- the Android library ------------------------------------------------------------------------------------------------------

def test_java_keeps_the_same_rules(tmp_path):
    """All scenes in one virtual machine; the class that writes snapshots needs nothing else."""
    if shutil.which("javac") is None:
        pytest.skip("javac: got no such program; the mobile tests install one")
    classes, sources = tmp_path / "classes", ROOT / "mobile/android/library/src/main/java"
    subprocess.run(["javac", "-d", classes, "-sourcepath", sources, sources / "org/spikingbrain/WholeFile.java", ROOT / "mobile/tests/java/org/spikingbrain/WholeFiles.java"], check=True)
    work = tmp_path / "work"
    work.mkdir()
    broken = [(rule, scene) for rule, scene in NAMES if rule not in ("no name", "standard output") and scene != "slash"]  # of typed names
    paths = []
    for i, (rule, scene) in enumerate(broken):
        (work / str(i)).mkdir()
        paths.append(SCENES[rule][scene](work / str(i)))
    (work / "m-00002-of-00002.gguf").write_bytes(b"input")
    os.link(work / "m-00002-of-00002.gguf", work / "hard")
    before = seen(work)
    said = subprocess.run(["java", "-Xshare:auto", "-cp", classes, "org.spikingbrain.WholeFiles", work / "m-00001-of-00002.gguf", *paths, work / "hard"],
                          capture_output=True, text=True, check=True).stdout.splitlines()
    for (rule, scene), line in zip(broken, said):
        wanted = next(r for r in RULES if r.name == rule)
        assert f": {wanted.what}: got {wanted.got}, expected {wanted.expected}; do {wanted.do}" in line, (scene, line)
    assert "got a file that this call reads" in said[-1] and len(said) == len(broken) + 1
    assert seen(work) == before
    (work / "disk").mkdir()
    link = linked(work, Path("disk") / "real")
    (work / "disk" / ".real.0123456789ab.partial").write_bytes(b"left")
    holding(work / "disk" / "real", 0o604)
    assert subprocess.run(["java", "-cp", classes, "org.spikingbrain.WholeFiles", "none", link, work / "disk" / ("x" * 250)],
                          capture_output=True, text=True, check=True).stdout == "written\nwritten\n"
    real = work / "disk" / "real"
    assert link.is_symlink() and real.read_bytes() == b"new" and stat.S_IMODE(real.stat().st_mode) == 0o604
    assert sorted(p.name for p in (work / "disk").iterdir()) == ["real", "x" * 250]


def test_what_each_rule_says():
    from sb_convert.whole import RULES
    assert {r.name: (r.what, r.got, r.expected, r.do) for r in RULES} == {
        "no name": ("output", "no name", "a file name", "give one"),
        "standard output": ("output", "the name of the standard output", "a file name", "give ./- for a file called so"),
        "links in a circle": ("output", "symbolic links in a circle", "a file", "mend the links or choose another name"),
        "a folder": ("output", "a folder", "a file name", "add a name to it, or choose another"),
        "no regular file": ("output", "a device, a pipe or a socket", "a regular file", "choose another name"),
        "an input": ("output", "a file that this call reads", "another file than the inputs", "choose another name"),
        "an existing file": ("output", "an existing file", "none", "choose another name, or overwrite it with --force"),
        "write-protected": ("output", "a write-protected file", "one that may be written", "change its mode, or choose another name"),
        "no such folder": ("output folder", "no such folder", "a writable folder", "create it, or choose another"),
        "a folder without write permission": ("output folder", "a folder without write permission", "a writable folder", "choose another")}
