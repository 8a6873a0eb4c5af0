"""Chat templates, rendered by upstream's own Jinja engine (the one that sb-server and sb-cli use)."""

from __future__ import annotations

import json
from typing import Any, Mapping, Optional, Sequence

from . import _core
from .errors import LlamaError


def json_text(value: Any) -> str:
    """JSON whose text is Unicode: half a surrogate pair, which JSON can name and UTF-8 cannot, counts as U+FFFD, as in tokenize.
    TypeError, ValueError, RecursionError: there is none for it."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def render(template: Optional[str], messages: Sequence[Mapping[str, Any]], **variables: Any) -> str:
    """The template's text for (messages, variables), as transformers' apply_chat_template(tokenize=False) gives it."""
    if template is None:
        raise LlamaError("chat template: got none in the model file, expected tokenizer.chat_template; "
                         "pass template=... or convert the model again")
    try:
        document = json_text({"messages": list(messages), **variables})
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"chat template: messages: got something that no JSON can hold ({error}), expected dicts, lists, text, "
                         "numbers, booleans and None") from error
    if not isinstance(template, str):
        raise TypeError(f"chat template: template: got {type(template).__name__}, expected Jinja as text")
    try:
        return _core.render_template(template, document)
    except RuntimeError as error:
        raise ValueError(f"chat template: got an error while rendering: {' '.join(str(error).split())}") from error
