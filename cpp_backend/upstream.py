#!/usr/bin/env python3
"""Obtain the pinned llama.cpp, verify it, and lay our overlay and patches over it.

CMake runs this at configure time; nothing of upstream is ever committed.

    archive (pip download, user cache) --verify--> unpack --+ overlay --+ patches --> <dest>.new --sync--> <dest>

`--dest` receives only files whose bytes differ, so a changed overlay file or patch rebuilds only what depends
on it. A stamp beside it (hash of pin, overlay, patches and this script) is removed first and written last:
a tree without its stamp is never taken for a finished one. Standard library only.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

HERE = Path(__file__).resolve().parent


class UpstreamError(Exception):
    """`where: what: got X, expected Y; do Z`."""


# --- the pin ------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Lock:
    path: Path
    requirement: str   # llama-cpp-python==0.3.36
    sha256: str        # of the source archive
    subdir: str        # where llama.cpp lies in the archive
    tree_sha256: str   # tree_hash() of that folder

    @property
    def archive_name(self) -> str:
        name, version = self.requirement.split("==")
        return f"{name.replace('-', '_')}-{version}.tar.gz"


def read_lock(path: Path) -> Lock:
    keys, requirement, sha256 = {}, "", ""
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            key, _, value = line.lstrip("# ").partition(": ")
            keys[key] = value.strip()
        for word in line.split() if not line.startswith("#") else ():
            if "==" in word:
                requirement = word
            elif word.startswith("--hash=sha256:"):
                sha256 = word.removeprefix("--hash=sha256:")
    missing = [k for k in ("subdir", "tree-sha256") if not keys.get(k)]
    if not requirement or not sha256 or missing:
        raise UpstreamError(f"upstream: {path.name}: got no {' or '.join(missing) or 'name==version with --hash=sha256:'}, "
                            "expected a complete pin; do restore the file from git")
    return Lock(path, requirement, sha256, keys["subdir"], keys["tree-sha256"])


# --- hashes -------------------------------------------------------------------------------------------------

def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def files_below(root: Path) -> Iterator[tuple[str, Path]]:
    """(relative posix path, path) of every file, sorted; git's own files are not part of a source tree."""
    found = []
    for folder, dirs, names in os.walk(root):
        dirs[:] = [d for d in dirs if d not in (".git", "__pycache__")]
        for name in names:
            if name != ".git":
                path = Path(folder, name)
                found.append((path.relative_to(root).as_posix(), path))
    return iter(sorted(found))


def tree_hash(root: Path) -> str:
    digest = hashlib.sha256()
    for rel, path in files_below(root):
        digest.update(f"{rel}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()


def stamp_of(lock: Lock, origin: str, overlay: Path, patches: Path) -> str:
    parts = [lock.sha256, lock.tree_sha256, origin, file_sha256(Path(__file__)), tree_hash(overlay), tree_hash(patches)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


# --- obtaining ----------------------------------------------------------------------------------------------

def cache_dir() -> Path:
    base = os.environ.get("SPIKINGBRAIN_CACHE") or os.environ.get("XDG_CACHE_HOME")
    return Path(base) / "spikingbrain_cpp" if base else Path.home() / ".cache" / "spikingbrain_cpp"


def verify_archive(path: Path, lock: Lock) -> None:
    got = file_sha256(path)
    if got != lock.sha256:
        raise UpstreamError(f"upstream: {path}: got sha256 {got}, expected {lock.sha256} ({lock.requirement}); "
                            "do delete this file and configure again, or correct the pin in llama.lock")


def pip_download(lock: Lock, into: Path) -> Path:
    """The archive, fetched by pip (which checks the hash too) with whatever index the user's pip is set up for."""
    # the sdist's metadata hook runs in this environment (needs scikit-build-core), not in one of its own
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--no-binary", ":all:", "--no-build-isolation", "--require-hashes",
               "--requirement", str(lock.path), "--dest", str(into)]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    archive = into / lock.archive_name
    if result.returncode != 0 or not archive.is_file():
        tail = "\n  ".join(result.stdout.strip().splitlines()[-12:])
        raise UpstreamError(f"upstream: pip download {lock.requirement}: got exit code {result.returncode}, expected "
                            f"{lock.archive_name}; do check pip's index settings and the network, or name a copy of the "
                            f"archive or of its llama.cpp folder with SPIKINGBRAIN_LLAMA_DIR\n  {tail}")
    return archive


def cached_archive(lock: Lock, cache: Path) -> Path:
    archive = cache / lock.archive_name
    if not archive.is_file():
        print(f"upstream: downloading {lock.requirement} with pip")
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise UpstreamError(f"upstream: cache {cache}: got {e.strerror}, expected a writable folder; "
                                "do set SPIKINGBRAIN_CACHE") from e
        with tempfile.TemporaryDirectory(dir=cache) as tmp:
            fetched = pip_download(lock, Path(tmp))
            verify_archive(fetched, lock)
            os.replace(fetched, archive)
    verify_archive(archive, lock)
    return archive


def unpack(archive: Path, subdir: str, dest: Path) -> None:
    """Only regular files below `subdir`, without git's; times are those of unpacking, so that builds notice."""
    prefix, count = subdir.rstrip("/") + "/", 0
    with tarfile.open(archive) as tar:
        for member in tar:
            rel = member.name.removeprefix(prefix)
            parts = rel.split("/")
            if rel == member.name or not member.isfile() or ".git" in parts or ".." in parts:
                continue
            out = dest / rel
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_bytes(tar.extractfile(member).read())
            out.chmod(0o755 if member.mode & 0o100 else 0o644)
            count += 1
    if not (dest / "CMakeLists.txt").is_file():
        raise UpstreamError(f"upstream: {archive.name}: got {count} files below {subdir}, expected llama.cpp's tree; "
                            "do correct 'subdir' in llama.lock")


def copy_folder(folder: Path, lock: Lock, dest: Path, unverified: bool) -> None:
    if not (folder / "src" / "llama-arch.h").is_file():
        raise UpstreamError(f"upstream: {folder}: got no src/llama-arch.h, expected a llama.cpp folder or the archive "
                            f"{lock.archive_name}; do name one of these")
    got = tree_hash(folder)
    if got != lock.tree_sha256 and not unverified:
        raise UpstreamError(f"upstream: {folder}: got tree hash {got}, expected {lock.tree_sha256} (llama.cpp as in "
                            f"{lock.requirement}); do name an unmodified folder, or set SPIKINGBRAIN_LLAMA_UNVERIFIED=1 "
                            "to build this one at your own risk")
    print(f"upstream: {folder}: " + ("tree hash as pinned" if got == lock.tree_sha256 else "UNVERIFIED, as asked for"))
    for rel, path in files_below(folder):
        out = dest / rel
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, out)
        shutil.copymode(path, out)


def obtain(lock: Lock, source: Path | None, cache: Path, dest: Path, unverified: bool) -> None:
    if source is not None and source.is_dir():
        return copy_folder(source, lock, dest, unverified)
    if source is not None:
        if not source.is_file():
            raise UpstreamError(f"upstream: {source}: got nothing there, expected a llama.cpp folder or {lock.archive_name}; "
                                "do correct SPIKINGBRAIN_LLAMA_DIR or unset it")
        verify_archive(source, lock)
    unpack(source or cached_archive(lock, cache), lock.subdir, dest)


# --- our additions ------------------------------------------------------------------------------------------

def add_overlay(overlay: Path, tree: Path) -> None:
    for rel, path in files_below(overlay):
        out = tree / rel
        if out.exists():
            raise UpstreamError(f"upstream: overlay/{rel}: got a file that exists upstream, expected new files only; "
                                "do rename it, or change upstream's by a patch")
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, out)


def patch_command() -> list[str]:
    """What applies a patch that is its next word. macOS' own `patch` has other options and rules; git is where its compilers are."""
    for name in ("gpatch", "patch"):  # Homebrew's name of GNU's
        if (found := shutil.which(name)) and "GNU" in subprocess.run([found, "--version"], stdout=subprocess.PIPE, text=True).stdout:
            return [found, "-p1", "--forward", "--batch", "--fuzz=0", "--no-backup-if-mismatch", "-i"]
    if found := shutil.which("git"):
        return [found, "apply", "--verbose"]
    raise UpstreamError("upstream: patch: got no such program, expected GNU patch or git on PATH; do apt-get install patch")


def applied(patches: Path, tree: Path) -> Iterator[tuple[Path, subprocess.CompletedProcess[str]]]:
    """Each patch, and what applying it said."""
    series = sorted(p for p in patches.glob("*.patch"))
    # git must not find the repository around a build folder: there `git apply` skips all, and says that it did well
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | {"GIT_CEILING_DIRECTORIES": str(tree.resolve().parent)}
    command = patch_command() if series else []
    for patch in series:
        yield patch, subprocess.run([*command, str(patch.resolve())], cwd=tree, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def apply_patches(patches: Path, tree: Path, lock: Lock) -> None:
    for patch, result in applied(patches, tree):
        if result.returncode != 0:
            detail = "\n  ".join(result.stdout.strip().splitlines()[-12:])
            raise UpstreamError(f"upstream: {patch.name}: got a hunk that does not apply, expected a clean apply on "
                                f"{lock.requirement}; do rebase the patch on the pinned tree\n  {detail}")


def rejected_at(said: str) -> Iterator[str]:
    """FILE:LINE of each rejected hunk, FILE of what is not there, from what `patch` or `git apply` said."""
    file = ""
    for line in said.splitlines():
        if named := re.match(r"patching file '?([^']+)'?|\|\+\+\+ b/(\S+)", line):
            file = named[1] or named[2]
        elif hunk := re.match(r"Hunk #\d+ FAILED at (\d+)", line):
            yield f"{file}:{hunk[1]}"
        elif line.startswith("No file to patch"):
            yield f"no {file}"
        elif by_git := re.match(r"error: (?:patch failed: (\S+:\d+)|(\S+): No such file)", line):
            yield by_git[1] or f"no {by_git[2]}"


def try_patches(patches: Path, folder: Path) -> int:
    """Says of each patch whether another llama.cpp's folder takes it, in a copy of it; returns how many it does not take."""
    if not (folder / "src" / "llama-arch.h").is_file():
        raise UpstreamError(f"upstream: {folder}: got no src/llama-arch.h, expected a llama.cpp folder; do name one")
    n_rejected, n = 0, 0
    with tempfile.TemporaryDirectory() as tmp:
        tree = Path(tmp) / "llama.cpp"
        shutil.copytree(folder, tree)
        for patch, result in applied(patches, tree):
            n, n_rejected = n + 1, n_rejected + (result.returncode != 0)
            moved = result.stdout.count("(offset")
            print(f"{patch.name:40} {'rejected: ' + ', '.join(rejected_at(result.stdout)) if result.returncode else 'applies'}{f'; moved: {moved}' if moved else ''}")
    print(f"{n - n_rejected} of {n} patches apply")
    return n_rejected


def sync(new: Path, dest: Path) -> int:
    """Make `dest` equal to `new`, touching only what differs; returns the number of files changed or removed."""
    changed = 0
    wanted = dict(files_below(new))
    for rel, path in files_below(dest) if dest.exists() else ():
        if rel not in wanted:
            path.unlink()
            changed += 1
    for rel, path in wanted.items():
        out = dest / rel
        if out.is_file() and out.stat().st_size == path.stat().st_size and out.read_bytes() == path.read_bytes():
            continue
        out.parent.mkdir(parents=True, exist_ok=True)
        os.utime(path)  # newer than any object built from an older version
        os.replace(path, out)
        changed += 1
    return changed


def materialise(lock: Lock, dest: Path, overlay: Path, patches: Path, source: Path | None, cache: Path,
                unverified: bool = False) -> bool:
    """Bring `dest` up to date. False: it already was (and no network, archive or patch program was needed)."""
    stamp = dest.with_name(dest.name + ".stamp")
    origin = f"{source}:{tree_hash(source) if source.is_dir() else ''}:{unverified}" if source else lock.requirement
    want = stamp_of(lock, origin, overlay, patches)
    if stamp.is_file() and stamp.read_text() == want and dest.is_dir():
        return False
    new = dest.with_name(dest.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        obtain(lock, source, cache, new, unverified)
        add_overlay(overlay, new)
        apply_patches(patches, new, lock)
        stamp.unlink(missing_ok=True)
        changed = sync(new, dest)
        stamp.write_text(want)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    print(f"upstream: {dest.name}: {changed} files written, {len(list(patches.glob('*.patch')))} patches, "
          f"{sum(1 for _ in files_below(overlay))} overlay files")
    return True


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dest", type=Path, help="the tree to build from")
    parser.add_argument("--source", type=Path, help="llama.cpp folder or source archive to use instead of pip's")
    parser.add_argument("--lock", type=Path, default=HERE / "llama.lock")
    parser.add_argument("--overlay", type=Path, default=HERE / "overlay")
    parser.add_argument("--patches", type=Path, default=HERE / "patches")
    parser.add_argument("--cache", type=Path, default=None, help="where the archive is kept (default: user cache)")
    parser.add_argument("--unverified", action="store_true", help="accept a --source folder that is not the pinned one")
    parser.add_argument("--tree-hash", type=Path, metavar="DIR", help="print the tree hash of DIR, for llama.lock")
    parser.add_argument("--try-patches", type=Path, metavar="DIR", help="say which patches another llama.cpp's folder takes; exit code 1 where it rejects any")
    args = parser.parse_args(argv)
    if args.tree_hash:
        print(tree_hash(args.tree_hash))
        return 0
    if args.dest is None and args.try_patches is None:
        parser.error("--dest is required")
    unverified = args.unverified or os.environ.get("SPIKINGBRAIN_LLAMA_UNVERIFIED", "") not in ("", "0", "OFF")
    try:
        if args.try_patches:
            return 1 if try_patches(args.patches, args.try_patches.resolve()) else 0
        materialise(read_lock(args.lock), args.dest.resolve(), args.overlay, args.patches,
                    args.source and args.source.resolve(), args.cache or cache_dir(), unverified)
    except (UpstreamError, OSError) as e:
        print(e if isinstance(e, UpstreamError) else f"upstream: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
