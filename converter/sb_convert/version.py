"""The version of the package that both Python packages are shipped in."""

from __future__ import annotations

import argparse
import importlib.metadata

NAME = "spikingbrain-cpp"


def version() -> str:
    """As `pip show` has it; run from a checkout that is not installed: "(not installed)"."""
    try:
        return importlib.metadata.version(NAME)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def version_line(command: str) -> str:
    """What a command says to --version."""
    return f"{command} {version()} ({NAME})"


def add_version(parser: argparse.ArgumentParser) -> None:
    """Adds --version, which prints that line and exits."""
    parser.add_argument("--version", action="version", version=version_line(parser.prog), help="print the version and exit")
