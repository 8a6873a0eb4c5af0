#!/usr/bin/env python3
"""Move the pin to another release: fetch it, carry the patches over, see what else of it our files stand on.

    fetch VERSION DIR   the archive, DIR/llama.cpp as it is in it, DIR/llama.lock
    carry DIR           DIR/tree: a git repository, that llama.cpp and a commit per patch; says where each hunk went
    write DIR           DIR/patches: those commits, mended and rebased, as patches
    changed DIR         what our files include, name or count of llama.cpp, and how much of it is another

Every hunk is merged with both releases at hand, so that only what upstream changed in the same lines is left to do by hand.
Needs git. README.md has the order of work.
"""

from __future__ import annotations

import argparse
import difflib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import upstream  # noqa: E402
import upstream_changes  # noqa: E402
from upstream import UpstreamError  # noqa: E402

CONTEXT = 2  # lines around a hunk


def git(tree: Path, *args: str, text: str | None = None) -> str:
    done = subprocess.run(["git", "-C", str(tree), *args], input=text, capture_output=True, text=True)
    if done.returncode != 0:
        raise UpstreamError(f"bump: git {args[0]}: got exit code {done.returncode}, expected 0; do read on\n  {done.stderr.strip()}")
    return done.stdout


# --- patches ------------------------------------------------------------------------------------------------

@dataclass
class Hunk:
    file: str
    start: int                                     # line of the old file, from 1
    lines: list[str] = field(default_factory=list)  # with their sign, ending in a newline

    def side(self, *signs: str) -> list[str]:
        return [line[1:] for line in self.lines if line[0] in signs]

    @property
    def old(self) -> list[str]:
        return self.side(" ", "-")

    @property
    def around(self) -> tuple[list[str], list[str]]:
        """The context before the first changed line and after the last one."""
        changed = [i for i, line in enumerate(self.lines) if line[0] != " "]
        return [line[1:] for line in self.lines[:changed[0]]], [line[1:] for line in self.lines[changed[-1] + 1:]]


def read_patch(path: Path) -> tuple[str, list[Hunk]]:
    """(header, hunks in their order)"""
    header, _, rest = path.read_text().partition("\n--- a/")
    hunks: list[Hunk] = []
    file = ""
    for line in ("--- a/" + rest).splitlines(keepends=True):
        if line.startswith("--- a/"):
            file = line[6:].strip()
        elif at := re.match(r"@@ -(\d+)", line):
            hunks.append(Hunk(file, int(at[1])))
        elif hunks and line[0] in " +-\n" and not line.startswith("+++ b/"):
            hunks[-1].lines.append(line if line != "\n" else " \n")
    return header.strip("\n") + "\n", hunks


def write_hunks(file: str, before: str, after: str) -> str:
    return "".join(difflib.unified_diff(before.splitlines(True), after.splitlines(True), "a/" + file, "b/" + file, n=CONTEXT))


def found_at(lines: list[str], wanted: list[str], near: int = 0) -> list[int]:
    """Where `wanted` stands in `lines`, indentation aside, the nearest first."""
    bare, want = [line.strip() for line in lines], [line.strip() for line in wanted]
    at = [i for i in range(len(bare) - len(want) + 1) if bare[i:i + len(want)] == want]
    return sorted(at, key=lambda i: abs(i - near))


def apply(text: str, hunk: Hunk) -> str:
    """The hunk applied to the release that it was written for."""
    lines = text.splitlines(keepends=True)
    at = [i for i in found_at(lines, hunk.old, hunk.start - 1) if lines[i:i + len(hunk.old)] == hunk.old]
    if not at:
        raise UpstreamError(f"bump: {hunk.file}:{hunk.start}: got a hunk that the pinned llama.cpp does not take, expected the patches of this checkout; do mend that first")
    lines[at[0]:at[0] + len(hunk.old)] = hunk.side(" ", "+")
    return "".join(lines)


# --- one hunk carried over ----------------------------------------------------------------------------------

def merged(there: str, base: str, ours: str) -> str | None:
    """Three texts made one, None where upstream changed the same lines."""
    with tempfile.TemporaryDirectory() as tmp:
        paths = [Path(tmp) / name for name in ("there", "base", "ours")]
        for path, text in zip(paths, (there, base, ours)):
            path.write_text(text)
        done = subprocess.run(["git", "merge-file", "-p", *map(str, paths)], capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else None


def placed(there: str, hunk: Hunk) -> str | None:
    """Lines that are only added, beside a neighbour that stands exactly once in the other release; None where there is none."""
    if hunk.side("-"):
        return None
    lines, (before, after) = there.splitlines(keepends=True), hunk.around
    for n in (2, 1):
        for wanted, behind in ((after[:n], 0), (before[-n:], n)):
            beside = re.sub(r"\W", "", wanted[-1 if behind else 0]) if len(wanted) == n else ""
            if len(beside) > 5 and len(at := found_at(lines, wanted)) == 1:
                return insert(lines, at[0] + behind, hunk, wanted[0], lines[at[0]])
    if not after and before:  # the end of a file
        return insert(lines, len(lines), hunk, before[-1], lines[-1])
    return None


def insert(lines: list[str], at: int, hunk: Hunk, was: str, now: str) -> str:
    """The added lines, indented as their neighbour is now."""
    shift = (len(now) - len(now.lstrip())) - (len(was) - len(was.lstrip()))
    added = [" " * shift + line if shift > 0 else line[min(-shift, len(line) - len(line.lstrip())):] for line in hunk.side("+")]
    return "".join(lines[:at] + added + lines[at:])


def likeness(line: str, wanted: list[str]) -> float:
    """0, or from 0.6 to 1: how much a line is like the likest of `wanted`, as texts without indentation."""
    words = set(re.findall(r"\w{4,}", line))
    ratios = [difflib.SequenceMatcher(None, w, line.strip()).ratio() for w in wanted if words & set(re.findall(r"\w{4,}", w))]
    return max((r for r in ratios if r > 0.6), default=0.0)


def likeliest(there: str, hunk: Hunk, margin: int = 4) -> str:
    """Upstream's present text where most of the hunk's lines stand, with line numbers."""
    lines, size = there.splitlines(), len(hunk.old) + 1
    alike = [likeness(line, [w.strip() for w in hunk.old]) for line in lines]
    best = max(range(len(lines)), key=lambda i: sum(alike[i:i + size]), default=0)
    if sum(alike[best:best + size]) == 0:
        return "  (nothing like it)\n"
    return "".join(f"{i + 1:6}  {lines[i]}\n" for i in range(max(0, best - margin), min(len(lines), best + size + margin)))


@dataclass
class Carried:
    hunk: Hunk
    how: str         # kept: in the same lines; merged: upstream changed lines beside it; placed: by one neighbour; mend: by hand
    there: str = ""  # upstream's text, where it is to be mended


def carry_hunk(hunk: Hunk, old: Path, tree: Path) -> Carried:
    """Puts a hunk into both: `old`, for which it was written, and `tree`."""
    base = (old / hunk.file).read_text()
    ours = apply(base, hunk)
    (old / hunk.file).write_text(ours)
    path = tree / hunk.file
    if not path.is_file():
        return Carried(hunk, "mend", "  (no such file)\n")
    there = path.read_text()
    how = "kept" if "".join(hunk.old) in there else "merged"
    if (text := merged(there, base, ours)) is None:
        how, text = "placed", placed(there, hunk)
    if text is None:
        return Carried(hunk, "mend", likeliest(there, hunk))
    path.write_text(text)
    return Carried(hunk, how)


# --- the series as commits ------------------------------------------------------------------------------------

def check_folder(llama: Path) -> None:
    if not (llama / "src" / "llama-arch.h").is_file():
        raise UpstreamError(f"bump: {llama}: got no src/llama-arch.h, expected a llama.cpp folder; do fetch one")


def begin_tree(llama: Path, tree: Path) -> None:
    if tree.exists():
        raise UpstreamError(f"bump: {tree}: got a folder, expected none: it may hold what was mended; do remove it")
    check_folder(llama)
    shutil.copytree(llama, tree, ignore=shutil.ignore_patterns(".git", ".gitignore", ".gitattributes"))
    git(tree, "init", "--quiet")
    for key, value in (("user.name", "bump"), ("user.email", "bump@localhost"), ("commit.gpgsign", "false"), ("core.hooksPath", "/dev/null"), ("core.compression", "0")):
        git(tree, "config", key, value)
    git(tree, "add", "--all", "--force")
    git(tree, "commit", "--quiet", "--message", "llama.cpp")


def carry(folder: Path, lock: upstream.Lock, cache: Path, patches: Path) -> int:
    """The number of hunks to mend by hand."""
    tree = folder / "tree"
    begin_tree(folder / "llama.cpp", tree)
    look, mend = [], []
    with tempfile.TemporaryDirectory() as tmp:
        old = Path(tmp)
        upstream.unpack(upstream.cached_archive(lock, cache), lock.subdir, old)
        for patch in sorted(patches.glob("*.patch")):
            header, hunks = read_patch(patch)
            found = [carry_hunk(hunk, old, tree) for hunk in hunks]
            git(tree, "commit", "--quiet", "--all", "--allow-empty", "--cleanup=verbatim", "--file=-", text=f"{header}\nPatch: {patch.name}\n")
            print(summary(patch.name, found))
            look += [said(patch.name, c) for c in found if c.how in ("merged", "placed")]
            mend += [said(patch.name, c) for c in found if c.how == "mend"]
    (folder / "look.txt").write_text("\n".join(look))
    (folder / "mend.txt").write_text("\n".join(mend))
    print(f"{len(mend)} hunks to mend (mend.txt), {len(look)} to look at: merged or placed (look.txt)")
    return len(mend)


def summary(name: str, found: list[Carried]) -> str:
    counts = [f"{n} {how}" for how in ("kept", "merged", "placed") if (n := sum(c.how == how for c in found))]
    where = [f"{c.hunk.file}:{c.hunk.start}" for c in found if c.how == "mend"]
    return f"{name:40} {', '.join(counts + ([f'{len(where)} to mend: ' + ', '.join(where)] if where else []))}"


def said(name: str, c: Carried) -> str:
    there = f"there, perhaps:\n{c.there}" if c.there else ""
    return f"{name} {c.how}: {c.hunk.file}:{c.hunk.start}\n{''.join(c.hunk.lines)}{there}"


def write(folder: Path, patches: Path) -> int:
    """The number of patches left out because nothing is left in them."""
    tree, out, n_empty = folder / "tree", folder / "patches", 0
    if dirty := git(tree, "status", "--porcelain").strip():
        raise UpstreamError(f"bump: {tree}: got changes that are in no commit, expected none; do commit them (git commit --fixup)\n  {dirty}")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    for commit in git(tree, "rev-list", "--reverse", "HEAD").split()[1:]:
        header, told, name = git(tree, "show", "--no-patch", "--format=%B", commit).strip("\n").rpartition("\n\nPatch: ")
        if not told or "\n" in name:
            raise UpstreamError(f"bump: {tree}: commit {commit[:9]}: got no last line 'Patch: NAME', expected one; do squash it into a patch's commit (git rebase -i --autosquash --root)")
        changed = git(tree, "diff-tree", "-r", "--no-commit-id", "--name-only", commit).split()
        before = [h.file for h in read_patch(patches / name)[1]] if (patches / name).is_file() else []
        changed.sort(key=lambda f: before.index(f) if f in before else len(before))
        blob = lambda at, f: git(tree, "show", f"{at}:{f}")
        text = "".join(write_hunks(f, blob(commit + "^", f), blob(commit, f)) for f in changed)
        if text:
            (out / name).write_text(f"{header}\n\n{text}")
        else:
            n_empty += 1
            print(f"{name}: nothing left")
    return n_empty


def changed(folder: Path, lock: upstream.Lock, cache: Path, root: Path) -> None:
    check_folder(folder / "llama.cpp")
    with tempfile.TemporaryDirectory() as tmp:
        upstream.unpack(upstream.cached_archive(lock, cache), lock.subdir, Path(tmp))
        print(upstream_changes.report(root, lock.requirement.split("==")[1], Path(tmp), folder / "llama.cpp"))


# --- the archive ----------------------------------------------------------------------------------------------

LOCK = """\
# The one pin of upstream: llama.cpp as carried by the llama-cpp-python source distribution.
# pip reads the requirement below; upstream.py reads it and the "# key: value" lines.
# To bump: docs in cpp_backend/README.md.
#
# subdir: {subdir}
# tree-sha256: {tree}
# build-number: 0
# build-commit: {commit}
{name}=={version} \\
    --hash=sha256:{sha256}
"""


def fetch(version: str, folder: Path, name: str) -> None:
    """The archive by pip (or the one that lies there), llama.cpp out of it, and the pin that names both."""
    archive = folder / f"{name.replace('-', '_')}-{version}.tar.gz"
    folder.mkdir(parents=True, exist_ok=True)
    if not archive.is_file():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--no-build-isolation", f"{name}=={version}", "--dest", str(folder)]
        if subprocess.run(command).returncode != 0 or not archive.is_file():
            raise UpstreamError(f"bump: pip download {name}=={version}: got no {archive.name}, expected it; do read what pip says "
                                "(it asks the archive for its metadata: pip install scikit-build-core first)")
    llama, top = folder / "llama.cpp", archive.name.removesuffix(".tar.gz")
    shutil.rmtree(llama, ignore_errors=True)
    upstream.unpack(archive, f"{top}/vendor/llama.cpp", llama)
    with tarfile.open(archive) as tar:
        notes = tar.extractfile(f"{top}/CHANGELOG.md") if f"{top}/CHANGELOG.md" in tar.getnames() else None
        commits = re.findall(r"llama\.cpp@([0-9a-f]{7,40})", notes.read().decode()) if notes else []
    (folder / "llama.lock").write_text(LOCK.format(subdir=f"{top}/vendor/llama.cpp", tree=upstream.tree_hash(llama), commit=commits[0] if commits else "unknown",
                                                   name=name, version=version, sha256=upstream.file_sha256(archive)))
    print(f"{folder}: llama.cpp, llama.lock")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["fetch", "carry", "write", "changed"])
    parser.add_argument("args", nargs="+", metavar="[VERSION] DIR")
    parser.add_argument("--root", type=Path, default=HERE.parent, help="the checkout whose patches and pin are carried over")
    parser.add_argument("--cache", type=Path, default=None, help="where the pinned archive is kept (default: user cache)")
    args = parser.parse_args(argv)
    if len(args.args) != (2 if args.what == "fetch" else 1):
        parser.error(f"{args.what}: got {len(args.args)} arguments, expected {'VERSION DIR' if args.what == 'fetch' else 'DIR'}")
    folder, backend = Path(args.args[-1]).resolve(), args.root.resolve() / "cpp_backend"
    try:
        lock, cache = upstream.read_lock(backend / "llama.lock"), args.cache or upstream.cache_dir()
        if args.what == "fetch":
            fetch(args.args[0], folder, lock.requirement.split("==")[0])
        elif args.what == "carry":
            return 1 if carry(folder, lock, cache, backend / "patches") else 0
        elif args.what == "write":
            write(folder, backend / "patches")
        else:
            changed(folder, lock, cache, args.root.resolve())
    except (UpstreamError, OSError, EOFError, tarfile.TarError) as e:
        print(e if isinstance(e, UpstreamError) else f"bump: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
