"""Text and JSON files of a checkpoint, and what stands in their place after a download that was not finished."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import ConvertError, bad

PLACEHOLDERS = (  # how the first bytes begin, what such a file is, what to do
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch it with git lfs pull"),
    (b"# xet version", "a Git Xet pointer, not the file itself", "fetch it with git xet, or download it again"),
    (b"/annex/objects/", "a git-annex pointer, not the file itself", "fetch it with git annex get"),
    (b"../.git/annex/objects/", "a git-annex pointer, not the file itself", "fetch it with git annex get"),
    (b"<!doctype html", "a web page", "download the file itself, not the page that shows it"),
    (b"<html", "a web page", "download the file itself, not the page that shows it"),
)


def refuse_placeholder(path: Path, expected: str) -> None:
    """Names a pointer or a page that lies where a file should; call it before any of the file's own checks."""
    with open(path, "rb") as f:
        start = f.read(64).lstrip().lower()
    for begins, what, do in PLACEHOLDERS:
        if start.startswith(begins):
            raise bad(path, "content", what, expected, do)


def read_bytes(path: Path, expected: str) -> bytes:
    """A whole file. ConvertError: it is not there, cannot be read, or is a pointer or a page in its place; expected: what it should be."""
    try:
        refuse_placeholder(path, expected)
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise bad(path, "file", "nothing", expected, "give the folder of a complete checkpoint") from None
    except OSError as e:
        raise ConvertError(f"{path}: file: got {e.strerror}, expected a readable file; check the path and its rights") from None


def read_text(path: Path, expected: str = "UTF-8 text") -> str:
    """The text without a byte order mark, line ends as \\n."""
    try:
        text = read_bytes(path, expected).decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise bad(path, "content", e.reason, "UTF-8 text", "download the file again") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object; a byte order mark before it says its encoding and nothing else."""
    try:
        raw = json.loads(read_bytes(path, "a JSON file"))  # of bytes: json finds the encoding, and drops the mark
    except (ValueError, RecursionError) as e:
        raise bad(path, "content", f"malformed JSON ({e})", "a JSON object", "download the file again") from None
    if not isinstance(raw, dict):
        raise bad(path, "content", f"a {type(raw).__name__}", "a JSON object", "download the file again")
    return raw


def read_optional(path: Path) -> dict[str, Any]:
    """As read_json; an empty object where there is no such file."""
    return read_json(path) if path.is_file() else {}
