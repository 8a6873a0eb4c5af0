"""What of llama-cpp-python is refused, and why: one table for modules, names and arguments. bindings/README.md shows it; a test tries each row."""

from __future__ import annotations

import importlib.abc
import re
from typing import NoReturn

_SEES = "no model here sees or hears"
_POINTERS = "there are no ctypes pointers here"
_SERVER = "sb-server is the server here"

# name or pattern: (reason, what to do)
NAMES: dict[str, tuple[str, str]] = {
    r"\w*(Llava|Moondream|NanoLlava|VisionAlpha|MiniCPMv|VL|Gemma4|MTMD|Obsidian)\w*ChatHandler": (_SEES, "leave the images out"),
    r"(llava|mtmd|clip)_\w+|llava_cpp|mtmd_cpp": (_SEES, "leave the images out"),
    r"server(\..*)?": (_SERVER, "start sb-server; it answers OpenAI's clients"),
    r"functionary.*": ("these are prompts of models of their own", "take chat_format='chatml-function-calling'"),
    r"(llama|ggml)_\w+": ("what evaluates in llama.cpp's C interface, and its pointers, are not here", "call Llama's methods"),
    r"_internals|_ctypes_extensions|_ggml|libggml\w*|Llama(Model|Context|Batch|Sampler|TokenDataArray)": (_POINTERS, "call Llama's methods"),
}


def reason(name: str) -> str:
    """Why there is no such name, "": nothing is known of it."""
    for pattern, (why, advice) in NAMES.items():
        if re.fullmatch(pattern, name):
            return f"{why}; {advice}"
    return ""


def missing(module: str, name: str) -> AttributeError:
    """The error of a module that is asked for a name it has not."""
    why = reason(name)
    return AttributeError(f"module {module!r} has no attribute {name!r}" + (f": {why}" if why else ""), name=name)


class Refusing(importlib.abc.MetaPathFinder):
    """Says of an imported module of the table why it is not here."""

    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        """Python asks it of every module that is imported. ModuleNotFoundError: one of the table."""
        package, _, name = fullname.partition(".")
        if package == self._package and reason(name):
            raise ModuleNotFoundError(f"No module named {fullname!r}: {reason(name)}", name=fullname)


def refuse(name: str) -> NoReturn:
    """NotImplementedError: calls what is in the table."""
    raise NotImplementedError(f"compat: {name}: got a call, expected none: {reason(name)}")
