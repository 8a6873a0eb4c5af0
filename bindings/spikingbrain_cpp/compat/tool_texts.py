"""Tools for chat templates that know none: they are described in the system message, and the answer is a message or calls, by a grammar.

This is the format chatml-function-calling, and what any other template without tools gets where tools are passed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Optional

from .. import _core
from ..chat import json_text
from ..chat_answer import Delta, call_arguments, call_head
from ..chat_request import ChatFormat, ChatPrompt
from ..grammar import LlamaGrammar, schema_to_gbnf
from ..model import OpenModel
from .formats import text_of
from .llama_chat_format import ChatFormatterResponse

_MESSAGE, _CALLS = "message:", "functions:"
_EXPLAINED = ("You can call these functions; each line is one, with the JSON schema of its arguments:\n{}\n"
              f"Begin an answer in words with {_MESSAGE}\nTo call functions instead, write {_CALLS} and a JSON list of "
              '{{"name": ..., "arguments": {{...}}}}')


class ToolTexts(ChatFormat):
    """A chat template, or a formatter in its place, that takes tools whether it knows any or not."""

    def __init__(self, model: _core.Model, chat_format: Optional[str] = None, formatter: Optional[Callable[..., ChatFormatterResponse]] = None) -> None:
        """formatter: makes the prompt, instead of a template."""
        self._formatter = formatter
        self.criteria: list[Callable[..., bool]] = []
        self._jinja = False
        if formatter is None:
            super().__init__(model, chat_format)
        self._bos = model.token_text(model.token_bos()).decode("utf-8", "replace") if model.add_bos() and model.token_bos() >= 0 else ""

    def _apply(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any], choice: str, pure: bool = False, lenient: bool = False) -> dict[str, Any]:
        if self._formatter is None:
            return super()._apply(messages, tools, choice, pure, lenient)
        made = self._formatter(messages=messages, tools=list(tools) or None, tool_choice=choice)
        self.criteria = list(made.stopping_criteria or [])
        stops = [made.stop] if isinstance(made.stop, str) else list(made.stop or [])
        text = made.prompt.removeprefix(self._bos) if made.added_special and self._bos else made.prompt
        return {"prompt": text, "stops": [s for s in stops if s], "grammar": ""}

    def read(self, *given: Any, **named: Any) -> ChatPrompt:
        """As ChatFormat.read."""
        self.criteria = []
        return replace(super().read(*given, **named), criteria=self.criteria)

    def _refuse_tools(self) -> None:
        """None are."""

    def _with_tools(self, model: OpenModel, messages: Any, named: Mapping[str, Any], choice: str, one: Optional[str], lenient: bool) -> ChatPrompt:
        if self._formatter is None and self._jinja and super()._apply(messages, list(named.values()), choice, lenient=lenient)["grammar"]:
            return super()._with_tools(model, messages, named, choice, one, lenient)
        found = self._apply(explained(messages, named), [], "none", pure=True)
        if one is not None:
            begun = found["prompt"] + f'{_CALLS}\n[{{"name": {json_text(one)}, "arguments": '
            return ChatPrompt(begun, LlamaGrammar(schema_to_gbnf(_parameters(named[one]), lenient)), found["stops"], forced=one)
        grammar = schema_to_gbnf(_calls_schema(named), lenient)
        words = "" if choice == "required" else f'"{_MESSAGE}" [^\\x00]* | '
        return ChatPrompt(found["prompt"], LlamaGrammar(f'{grammar}\nanswer ::= {words}"{_CALLS}" "\\n"? root\n', "answer"), found["stops"], reader=CallsText)


def _parameters(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = tool["function"].get("parameters") or {"type": "object", "properties": {}, "additionalProperties": False}
    return found


def _calls_schema(named: Mapping[str, Any]) -> dict[str, Any]:
    """Of a list of calls; what a tool's parameters refer to is theirs still."""
    places = {name: f"arguments{i}" for i, name in enumerate(named)}
    calls = [{"type": "object", "properties": {"name": {"const": name}, "arguments": {"$ref": f"#/$defs/{place}"}}, "required": ["name", "arguments"],
              "additionalProperties": False} for name, place in places.items()]
    return {"type": "array", "minItems": 1, "items": calls[0] if len(calls) == 1 else {"anyOf": calls},
            "$defs": {place: _moved(_parameters(named[name]), f"#/$defs/{place}") for name, place in places.items()}}


def _moved(tree: Any, place: str) -> Any:
    """A schema whose own places are below this one now."""
    if isinstance(tree, list):
        return [_moved(item, place) for item in tree]
    if not isinstance(tree, Mapping):
        return tree
    return {key: place + value[1:] if key == "$ref" and isinstance(value, str) and value.startswith("#") else _moved(value, place)
            for key, value in tree.items()}


def explained(messages: Sequence[Mapping[str, Any]], named: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The chat with its tools in the system message, and with its calls in words."""
    lines = "\n".join(json_text({key: tool["function"][key] for key in ("name", "description", "parameters") if tool["function"].get(key) is not None})
                      for tool in named.values())
    text, out = _EXPLAINED.format(lines), [_in_words(message) for message in messages]
    if out[0]["role"] == "system":
        return [{**out[0], "content": f"{text_of(out[0])}\n\n{text}"}, *out[1:]]
    return [{"role": "system", "content": text}, *out]


def _in_words(message: Mapping[str, Any]) -> dict[str, Any]:
    calls = [call["function"] for call in message.get("tool_calls") or []]
    if message["role"] == "assistant" and calls:
        body = ", ".join(f'{{"name": {json_text(call["name"])}, "arguments": {_json_of(call["arguments"])}}}' for call in calls)
        return {"role": "assistant", "content": f"{_CALLS}\n[{body}]"}
    if message["role"] == "assistant":
        return {"role": "assistant", "content": f"{_MESSAGE} {text_of(message)}"}
    return dict(message)


def _json_of(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json_text(arguments)


class CallsText:
    """Reads such an answer: a message as it comes, each call once it is complete."""

    def __init__(self) -> None:
        self._text = ""
        self._kind = ""
        self._n_calls = 0

    def push(self, text: str) -> list[Delta]:
        """What more text adds to the message."""
        self._text += text
        if not self._kind:
            self._kind = next((kind for kind in (_MESSAGE, _CALLS) if self._text.startswith(kind)), "")
            self._text = self._text[len(self._kind):]
        if self._kind == _MESSAGE:
            return self._words()
        return self._calls() if self._kind else []

    def end(self, complete: bool) -> list[Delta]:
        """What is left: nothing, but where no kind of answer was begun."""
        return [{"content": self._text}] if not self._kind and self._text else []

    def has_calls(self) -> bool:
        """Whether tools were called."""
        return self._n_calls > 0

    def _words(self) -> list[Delta]:
        out, self._text = self._text, ""
        if not self._n_calls:  # of the first words, the space before them is the format's
            out = out.lstrip()
            self._n_calls = -1 if out else 0
        return [{"content": out}] if out else []

    def _calls(self) -> list[Delta]:
        found: list[Delta] = []
        while "{" in self._text:
            begin = self._text.index("{")
            try:
                call, size = json.JSONDecoder().raw_decode(self._text[begin:])
            except ValueError:  # not complete yet
                break
            self._text = self._text[begin + size:]
            found += [{"tool_calls": [call_head(self._n_calls, call["name"])]}, call_arguments(self._n_calls, json_text(call["arguments"]))]
            self._n_calls += 1
        return found
