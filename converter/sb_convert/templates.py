"""The chat template or templates: chat_template.jinja and additional_chat_templates/*.jinja, tokenizer_config.json, chat_template.json."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from .errors import bad
from .files import read_optional, read_text

log = logging.getLogger("sb_convert")


def chat_template(folder: Path, settings: dict[str, Any]) -> Any:
    """A string, or a list of {"name", "template"}. The .jinja files win, as in transformers, then the settings; chat_template.json is what processors had."""
    held = {name: named(source, folder / name) for name, source in (
        ("tokenizer_config.json", settings.get("chat_template")), ("chat_template.json", read_optional(folder / "chat_template.json").get("chat_template")))}
    files = {}
    if (folder / "chat_template.jinja").is_file():
        files["default"] = read_text(folder / "chat_template.jinja")
    for path in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        if path.stem in files:
            raise bad(path, "name", repr(path.stem), "another than that of chat_template.jinja", "remove one of them")
        files[path.stem] = read_text(path)
    used = held["tokenizer_config.json"] or held["chat_template.json"]
    if files:
        used = files if "default" in files else used | files
    for name, source in held.items():
        if used.get("default") and source.get("default") not in (None, "", used["default"]):
            log.warning("%s: chat_template: another than the one used, that of %s", folder / name, "the .jinja files" if "default" in files else "tokenizer_config.json")
    return written(used, folder)


def named(source: Any, where: Path) -> dict[str, str]:
    """Templates by name, of the three forms they are written in."""
    if isinstance(source, list) and all(isinstance(s, dict) and set(s) >= {"name", "template"} for s in source):
        if len({s["name"] for s in source}) != len(source):
            raise bad(where, "chat_template", "a name twice", "each once", "remove one of them")
        source = {s["name"]: s["template"] for s in source}
    if source is None:
        return {}
    if isinstance(source, str):
        return {"default": source}
    if not isinstance(source, dict) or not all(isinstance(x, str) for item in source.items() for x in item):
        raise bad(where, "chat_template", f"a {type(source).__name__}", "a template, or names and templates", "correct the file")
    return dict(source)


def written(used: dict[str, str], folder: Path) -> Any:
    """As gguf takes them; it spells a name's other characters as _."""
    if not used or set(used) == {"default"}:
        return used.get("default") or None
    spelled = [re.sub(r"[^A-Za-z0-9]", "_", name) for name in used]
    if len(set(spelled)) != len(used):
        raise bad(folder, "chat templates", f"names {', '.join(used)}", "names that differ in letters and digits", "rename one of them")
    return [{"name": name, "template": template} for name, template in used.items()]
