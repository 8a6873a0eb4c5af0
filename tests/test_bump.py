"""A bump: patches are carried over to another llama.cpp with both releases at hand, and what else ours stand on is named."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BACKEND = ROOT / "cpp_backend"
sys.path.insert(0, str(BACKEND))
import bump  # noqa: E402
import upstream  # noqa: E402
import upstream_changes  # noqa: E402

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="bump.py needs git")

OLD = {
    "src/llama-arch.h": "enum {\n    ARCH_ONE,\n    ARCH_LAST,\n    ARCH_UNKNOWN,\n};\n",
    "src/a.cpp": "#include <a>\n\nvoid first() {\n    do_this();\n    do_that();\n}\n\nint limit = 3; // of it\n\nvoid second() {\n    show(1);\n}\n",
    "src/b.cpp": "void gone(int n) {\n    the_thing_that_is_done(n);\n}\n",
    "src/c.cpp": "int c;\n",
    "include/llama.h": "#define LLAMA_SESSION_VERSION 9\n",
}
NEW = OLD | {
    "src/llama-arch.h": "enum {\n    ARCH_ONE,\n    ARCH_OTHER,\n    ARCH_UNKNOWN,\n};\n",
    "src/a.cpp": "#include <a>\n#include <b>\n\nvoid zero() {\n}\n\nvoid first() {\n    do_this();\n    do_that(2);\n}\n\nint limit = 4; // of them\n\n"
                 "struct wrapped {\n    void second() {\n        show(2);\n    }\n};\n",
    "src/b.cpp": "int other;\nvoid went(int n, int m) {\n    the_thing_that_is_done(n, m);\n}\n",
    "include/llama.h": "#define LLAMA_SESSION_VERSION 10\n",
}
PATCHES = {
    "0000-kept.patch": ("src/c.cpp", {"int c;\n": "int c;\nint ours;\n"}),
    "0001-placed.patch": ("src/a.cpp", {"#include <a>\n": "#include <a>\n#include <own>\n"}),
    "0002-merged.patch": ("src/a.cpp", {"void first() {\n": "void first() {\n    ours();\n"}),
    "0003-placed.patch": ("src/llama-arch.h", {"    ARCH_LAST,\n": "    ARCH_LAST,\n    ARCH_OURS,\n"}),
    "0004-indented.patch": ("src/a.cpp", {"void second() {\n": "void second() {\n    ours_too();\n"}),
    "0005-to-mend.patch": ("src/a.cpp", {"int limit = 3; // of it\n": "int limit = 5; // ours\n"}),
    "0006-renamed.patch": ("src/b.cpp", {"void gone(int n) {\n": "void gone(int n) {\n    refuse(n);\n"}),
}


def write(root: Path, files: dict[str, str]) -> Path:
    for rel, text in files.items():
        (root / rel).parent.mkdir(parents=True, exist_ok=True)
        (root / rel).write_text(text)
    return root


def pack(archive: Path, files: dict[str, str]) -> None:
    archive.parent.mkdir(exist_ok=True)
    with tarfile.open(archive, "w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))


@pytest.fixture
def toy(tmp_path) -> Path:
    """A checkout `root` with a pin and patches for OLD, the archive in `cache`, NEW in `next/llama.cpp`."""
    archive, top = tmp_path / "cache/toy-1.0.tar.gz", "toy-1.0/vendor/llama.cpp"
    pack(archive, {f"{top}/{rel}": text for rel, text in (OLD | {"CMakeLists.txt": ""}).items()})
    backend, now = tmp_path / "root/cpp_backend", dict(OLD)
    series = {}
    for name, (file, changes) in PATCHES.items():
        text = now[file]
        for before, after in changes.items():
            text = text.replace(before, after, 1)
        series[name] = f"why {name}\n\nDrop when: upstream does.\n\n{bump.write_hunks(file, now[file], text)}"
        now[file] = text
    write(backend / "patches", series)
    write(backend, {"llama.lock": f"# subdir: {top}\n# tree-sha256: 0\ntoy==1.0 --hash=sha256:{upstream.file_sha256(archive)}\n",
                    "overlay/src/own.cpp": '#include "llama.h"\n', "own.cmake": "read(${llama_dir}/src/b.cpp)\n"})
    write(tmp_path / "next/llama.cpp", NEW)
    return tmp_path


def run(toy: Path, *what: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(BACKEND / "bump.py"), *what, str(toy / "next"), "--root", str(toy / "root"), "--cache", str(toy / "cache")],
                          capture_output=True, text=True)


def git(toy: Path, *args: str) -> str:
    return bump.git(toy / "next/tree", *args)


# --- fetching ---------------------------------------------------------------------------------------------------

def test_the_pin_of_a_fetched_archive_is_one_that_upstream_py_takes(toy):
    archive = toy / "next/toy-2.0.tar.gz"
    pack(archive, {f"toy-2.0/vendor/llama.cpp/{rel}": text for rel, text in (NEW | {"CMakeLists.txt": ""}).items()}
         | {"toy-2.0/CHANGELOG.md": "## [2.0]\n- update llama.cpp to x/llama.cpp@0123abcde\n- x/llama.cpp@fffffffff\n"})
    assert run(toy, "fetch", "2.0").returncode == 0
    lock = upstream.read_lock(toy / "next/llama.lock")
    upstream.verify_archive(archive, lock)
    assert (lock.archive_name, lock.tree_sha256) == ("toy-2.0.tar.gz", upstream.tree_hash(toy / "next/llama.cpp"))
    assert "# build-commit: 0123abcde\n" in lock.path.read_text() and (toy / "next/llama.cpp/src/a.cpp").read_text() == NEW["src/a.cpp"]


def test_what_cannot_be_done_is_one_sentence(toy):
    (toy / "next/toy-2.0.tar.gz").write_bytes((toy / "cache/toy-1.0.tar.gz").read_bytes()[:60])
    (toy / "next/llama.cpp/src/llama-arch.h").unlink()
    for what in (["fetch", "2.0"], ["carry"], ["changed"], ["write"]):
        done = run(toy, *what)
        assert done.returncode == 1 and done.stderr.startswith("bump: ") and "Traceback" not in done.stderr, done.stderr
    assert run(toy, "fetch").returncode == 2


# --- carrying ---------------------------------------------------------------------------------------------------

def test_each_hunk_says_how_it_was_carried(toy):
    done = run(toy, "carry")
    how = dict(re.findall(r"^(\S+)\.patch +(.*)$", done.stdout, re.M))
    assert done.returncode == 1 and done.stderr == "", done.stderr
    assert how == {"0000-kept": "1 kept", "0001-placed": "1 placed", "0002-merged": "1 merged", "0003-placed": "1 placed", "0004-indented": "1 placed",
                   "0005-to-mend": "1 to mend: src/a.cpp:8", "0006-renamed": "1 to mend: src/b.cpp:1"}
    assert "2 hunks to mend (mend.txt), 4 to look at" in done.stdout


def test_carried_lines_stand_where_they_mean_the_same(toy):
    run(toy, "carry")
    a, arch = ((toy / "next/tree/src" / name).read_text() for name in ("a.cpp", "llama-arch.h"))
    assert "#include <a>\n#include <own>\n" in a and "void first() {\n    ours();\n    do_this();\n    do_that(2);\n" in a
    assert "    void second() {\n        ours_too();\n        show(2);\n" in a  # indented as its neighbours are by now
    assert arch == "enum {\n    ARCH_ONE,\n    ARCH_OTHER,\n    ARCH_OURS,\n    ARCH_UNKNOWN,\n};\n"


def test_what_is_to_be_mended_stands_beside_upstreams_present_text(toy):
    run(toy, "carry")
    mend, look = ((toy / "next" / name).read_text() for name in ("mend.txt", "look.txt"))
    assert "+int limit = 5; // ours" in mend and re.search(r"^ +\d+  int limit = 4; // of them$", mend, re.M)
    assert "+    refuse(n);" in mend and re.search(r"^ +2  void went\(int n, int m\) \{$", mend, re.M)
    assert "0003-placed.patch placed: src/llama-arch.h:" in look and "0005" not in look


def test_mended_commits_become_patches_with_their_headers_that_apply(toy):
    run(toy, "carry")
    a = toy / "next/tree/src/a.cpp"
    a.write_text(a.read_text().replace("int limit = 4; // of them", "int limit = 5; // ours"))
    dirty = run(toy, "write")
    assert dirty.returncode == 1 and "in no commit" in dirty.stderr and not (toy / "next/patches").exists()
    commit = git(toy, "log", "--format=%H", "--grep=Patch: 0005").strip()
    git(toy, "commit", "--quiet", "--all", "--fixup", commit)
    assert "squash" in run(toy, "write").stderr
    bump.git(toy / "next/tree", "-c", "sequence.editor=true", "rebase", "--quiet", "--interactive", "--autosquash", "--root")
    done = run(toy, "write")
    assert done.returncode == 0 and done.stdout == "0006-renamed.patch: nothing left\n", done
    out = sorted((toy / "next/patches").iterdir())
    assert [p.name for p in out] == sorted(PATCHES)[:6]
    assert out[5].read_text().startswith("why 0005-to-mend.patch\n\nDrop when: upstream does.\n\n--- a/src/a.cpp\n+++ b/src/a.cpp\n@@ ")
    for _, said in upstream.applied(toy / "next/patches", toy / "next/llama.cpp"):
        assert said.returncode == 0, said.stdout
    assert (toy / "next/llama.cpp/src/a.cpp").read_text() == a.read_text()


def test_what_was_mended_is_not_overwritten(toy):
    run(toy, "carry")
    again = run(toy, "carry")
    assert again.returncode == 1 and again.stderr.startswith("bump: ") and "; do remove it" in again.stderr
    shutil.rmtree(toy / "next")
    assert "do fetch one" in run(toy, "carry").stderr


# --- what else is another -------------------------------------------------------------------------------------

def test_files_headers_and_meanings_that_changed_are_named(toy):
    (toy / "next/llama.cpp/src/b.cpp").unlink()
    write(toy / "next/llama.cpp", {"src/own.cpp": ""})
    write(toy / "root", {"tests/test_it.py": "\nVERSION = '1.0'\n"})
    said = run(toy, "changed").stdout
    assert "src/own.cpp: upstream has one now\nsrc/b.cpp: gone, named by cpp_backend/own.cmake\n" in said
    assert re.search(r"^ +2  include/llama.h +own.cpp$", said, re.M) and "# lines that name 1.0\n\ntests/test_it.py:2\n" in said
    assert "include/llama.h: #define LLAMA_SESSION_VERSION: saved files of another release must be refused\n    -#define LLAMA_SESSION_VERSION 9\n    +" in said


# --- the real pin -----------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def pinned(tmp_path_factory) -> Path:
    lock = upstream.read_lock(BACKEND / "llama.lock")
    archive = upstream.cache_dir() / lock.archive_name
    if not archive.is_file():
        pytest.skip("the archive is not in the cache (built from a named folder)")
    folder = tmp_path_factory.mktemp("pinned")
    upstream.unpack(archive, lock.subdir, folder)
    return folder


def test_all_that_is_watched_is_in_the_pinned_llama_cpp(pinned):
    missing = [(file, begin) for file, begin, _ in upstream_changes.WATCHED if not upstream_changes.passage((pinned / file).read_text(), begin)]
    assert missing == [] and [file for file, _, _ in upstream_changes.FOLLOWED if not (pinned / file).is_file()] == []
    assert [mine for _, mine, _ in upstream_changes.FOLLOWED if not list(BACKEND.glob(f"overlay/{mine}")) + list(BACKEND.glob(mine))] == []


def test_every_patch_is_read_and_applied_as_patch_does(pinned):
    """Without `patch`: line for line what it makes of the pinned llama.cpp."""
    texts: dict[str, str] = {}
    for path in sorted((BACKEND / "patches").glob("*.patch")):
        header, hunks = bump.read_patch(path)
        assert path.read_text().startswith(header) and hunks
        for hunk in hunks:
            texts[hunk.file] = bump.apply(texts.get(hunk.file) or (pinned / hunk.file).read_text(), hunk)
    for _ in upstream.applied(BACKEND / "patches", pinned):
        pass
    assert [file for file, text in texts.items() if text != (pinned / file).read_text()] == []
