"""From a chat request to a prompt and what constrains the answer, by upstream's chat layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, Union

from . import _core
from .chat import json_text
from .grammar import ChatGrammar, LlamaGrammar, schema_to_gbnf, warn_of
from .model import OpenModel

WHERE = "create_chat_completion"
Stop = Optional[Union[str, Sequence[str]]]
OWN_TEMPLATE = (None, "chat_template.default")


@dataclass(frozen=True)
class ChatPrompt:
    """What a request becomes."""

    text: str
    grammar: Optional[LlamaGrammar] = None
    stops: list[str] = field(default_factory=list)
    parser: Optional[tuple[int, bytes, str]] = None  # of answers that may hold tool calls: see _core.ChatParser
    forced: Optional[str] = None                     # the answer is nothing but the arguments of this tool
    reader: Optional[Callable[[], Any]] = None       # makes what reads the answer, where that is in no form of upstream's
    criteria: Sequence[Callable[..., bool]] = ()     # what ends it besides


def check_chat_format(name: Optional[str]) -> Optional[str]:
    """None (the model's own template) or the name of one of upstream's built-in templates. ValueError: another."""
    if name in OWN_TEMPLATE:
        return None
    known = _core.builtin_templates()
    if name not in known:
        raise ValueError(f"llama: chat_format: got {name!r}, expected None for the model's own template or one of "
                         f"llama.cpp's: {', '.join(known)}")
    return name


def _object(name: str, value: Any) -> str:
    """A value as JSON text. ValueError: it is none."""
    try:
        return json_text(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{WHERE}: {name}: got something that no JSON can hold ({error}), expected dicts, lists, text, numbers, "
                         "booleans and None") from error


def _check_messages(messages: Any) -> list[Mapping[str, Any]]:
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise TypeError(f"{WHERE}: messages: got {type(messages).__name__}, expected a list of dicts")
    if not messages:
        raise ValueError(f"{WHERE}: messages: got none, expected at least one")
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise TypeError(f"{WHERE}: messages[{i}]: got {type(message).__name__}, expected a dict")
        if not isinstance(message.get("role"), str) or not message["role"]:
            raise ValueError(f"{WHERE}: messages[{i}]: role: got {message.get('role')!r}, expected a text such as 'user'")
        _check_content(i, message)
    return list(messages)


def _check_content(i: int, message: Mapping[str, Any]) -> None:
    content = message.get("content")
    if content is None:
        if message["role"] != "assistant" or not message.get("tool_calls"):
            raise ValueError(f"{WHERE}: messages[{i}]: content: got none, expected a text (only tool calls stand without)")
    elif isinstance(content, (list, tuple)):
        for part in content:
            if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
                raise ValueError(f"{WHERE}: messages[{i}]: content: got a part {kind!r}, expected 'text'; "
                                 "no model here sees or hears")
    elif not isinstance(content, str):
        raise TypeError(f"{WHERE}: messages[{i}]: content: got {type(content).__name__}, expected a text or a list of text parts")


def _check_tools(tools: Any) -> dict[str, Mapping[str, Any]]:
    """Tools by the names of their functions."""
    if tools is None:
        return {}
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Sequence):
        raise TypeError(f"{WHERE}: tools: got {type(tools).__name__}, expected a list of dicts")
    found: dict[str, Mapping[str, Any]] = {}
    for i, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or tool.get("type") != "function" or not isinstance(function.get("name"), str) or not function["name"]:
            raise ValueError(f"{WHERE}: tools[{i}]: got {tool!r:.80}, expected {{'type': 'function', 'function': {{'name': ...}}}}")
        if not isinstance(function.get("parameters", {}), Mapping):
            raise ValueError(f"{WHERE}: tools[{i}]: parameters: got {type(function['parameters']).__name__}, expected a JSON schema")
        if function["name"] in found:
            raise ValueError(f"{WHERE}: tools[{i}]: got {function['name']!r} twice, expected different names")
        found[function["name"]] = tool
    return found


def _check_choice(choice: Any, tools: Mapping[str, Any]) -> tuple[str, Optional[str]]:
    """("none" | "auto" | "required", the name of the one tool that must be called)."""
    if choice is None:
        return ("auto" if tools else "none"), None
    if isinstance(choice, Mapping):
        function = choice.get("function")
        name = function.get("name") if isinstance(function, Mapping) else None
        if choice.get("type", "function") != "function" or name not in tools:
            raise ValueError(f"{WHERE}: tool_choice: got {name!r}, expected one of the tools: {', '.join(tools) or 'there are none'}")
        return "required", name
    if choice not in ("none", "auto", "required"):
        raise ValueError(f"{WHERE}: tool_choice: got {choice!r}, expected 'none', 'auto', 'required' or "
                         "{'type': 'function', 'function': {'name': ...}}")
    if choice == "required" and not tools:
        raise ValueError(f"{WHERE}: tool_choice: got 'required' without tools, expected tools; pass tools=[...]")
    return (choice if tools else "none"), None


def _format_schema(response_format: Any) -> Optional[Mapping[str, Any]]:
    """The schema that an answer must satisfy; None for text."""
    if response_format is None:
        return None
    if not isinstance(response_format, Mapping):
        raise TypeError(f"{WHERE}: response_format: got {type(response_format).__name__}, expected a dict with a type")
    kind = response_format.get("type")
    if kind == "text":
        return None
    if kind not in ("json_object", "json_schema"):
        raise ValueError(f"{WHERE}: response_format: type: got {kind!r}, expected 'text', 'json_object' or 'json_schema'")
    holder = response_format if kind == "json_object" else response_format.get("json_schema")
    schema = holder.get("schema") if isinstance(holder, Mapping) else None
    if kind == "json_schema" and schema is None:
        raise ValueError(f"{WHERE}: response_format: json_schema: got no schema, expected {{'json_schema': {{'schema': {{...}}}}}}")
    if schema is not None and not isinstance(schema, Mapping):
        raise TypeError(f"{WHERE}: response_format: schema: got {type(schema).__name__}, expected a dict")
    return schema or {"type": "object"}


class ChatFormat:
    """A chat template of a model, ready to be applied to requests."""

    def __init__(self, model: _core.Model, chat_format: Optional[str] = None) -> None:
        name = check_chat_format(chat_format)
        self._jinja = name in (None, "chatml")
        if name is None and model.chat_template() is None:
            raise ValueError(f"{WHERE}: chat template: got none in the model file, expected tokenizer.chat_template; "
                             "load the model with chat_format='chatml' or another")
        self._templates = _core.ChatTemplates(model, name or "", self._jinja)

    def read(self, model: OpenModel, messages: Any, tools: Any, tool_choice: Any, response_format: Any,
             grammar: Optional[LlamaGrammar], lenient: bool = False) -> ChatPrompt:
        """TypeError, ValueError: the request, or the template's own refusal of it. lenient: of its JSON schemas, see create_chat_completion."""
        _check_messages(messages)
        named = _check_tools(tools)
        choice, one = _check_choice(tool_choice, named)
        schema = _format_schema(response_format)
        if grammar is not None and (choice != "none" or schema is not None):
            raise ValueError(f"{WHERE}: grammar: got one with tools or a response_format, expected one of them; leave the others out")
        if schema is not None:
            if choice != "none":
                raise ValueError(f"{WHERE}: response_format: got JSON with tools, expected one of them; pass tool_choice='none'")
            grammar = LlamaGrammar.from_json_schema(schema, lenient=lenient)
        if named and not self._jinja:
            self._refuse_tools()
        if choice == "none":
            found = self._apply(messages, list(named.values()), "none", pure=True)
            return ChatPrompt(found["prompt"], grammar, found["stops"])
        return self._with_tools(model, messages, named, choice, one, lenient)

    def _refuse_tools(self) -> None:
        """Of a built-in template."""
        raise ValueError(f"{WHERE}: tools: got some with a chat_format that knows none, expected the model's own template")

    def _with_tools(self, model: OpenModel, messages: Any, named: Mapping[str, Any], choice: str, one: Optional[str],
                    lenient: bool) -> ChatPrompt:
        found = self._apply(messages, list(named.values()), choice, lenient=lenient)
        text = found["prompt"]
        if one is not None and found["grammar"]:  # the prompt shows all tools, the answer may call one
            found = self._apply(messages, [named[one]], choice, lenient=lenient)
        if not found["grammar"]:
            return self._arguments_alone(text, found["stops"], named, choice, one, lenient)
        warn_of(found["warnings"])
        grammar = ChatGrammar(
            found["grammar"], lazy=found["lazy"], trigger_patterns=tuple(found["trigger_patterns"]), trigger_tokens=tuple(found["trigger_tokens"]),
            preserved=tuple(found["preserved"]), prefill=tuple(model.tokenize(found["generation_prompt"], False, True)))
        return ChatPrompt(text, grammar, found["stops"], (found["format"], found["parser"], found["generation_prompt"]))

    def _arguments_alone(self, text: str, stops: list[str], named: Mapping[str, Any], choice: str, one: Optional[str],
                         lenient: bool) -> ChatPrompt:
        """A template that knows no tools: one tool can still be had, as the JSON of its arguments."""
        if one is None and choice == "required" and len(named) == 1:
            one = next(iter(named))
        if one is None:
            raise ValueError(f"{WHERE}: tools: got some with a chat template that knows none, expected tool_choice to name one; "
                             "or convert the model with a template for tools")
        schema = named[one]["function"].get("parameters") or {"type": "object", "properties": {}, "additionalProperties": False}
        return ChatPrompt(text, LlamaGrammar(schema_to_gbnf(schema, lenient)), stops, forced=one)

    def _apply(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any], choice: str, pure: bool = False, lenient: bool = False) -> dict[str, Any]:
        request = _object("messages and tools", {
            "messages": [_plain(m) for m in messages], "tools": tools, "tool_choice": choice, "json_schema": "",
            "parallel_tool_calls": False, "add_generation_prompt": True, "pure": pure})
        try:
            return self._templates.apply(request, lenient)
        except ValueError as error:
            raise ValueError(f"{WHERE}: {' '.join(str(error).split())}") from error


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    """Without the parts that are None, as clients send them back from an answer: upstream takes them for given."""
    return {key: value for key, value in message.items() if value is not None or key == "content"}
