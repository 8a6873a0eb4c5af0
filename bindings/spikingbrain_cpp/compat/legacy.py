"""functions= and function_call=, which OpenAI replaced by tools: asked as tools, answered under both names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..chat_request import WHERE


def as_tools(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments with functions as tools. ValueError, TypeError: functions are none, or stand beside tools."""
    functions, choice = given["functions"], given["function_call"]
    out = {**given, "functions": None, "function_call": None, "messages": _as_calls(given["messages"])}
    if functions is not None:
        if given["tools"] is not None:
            raise ValueError(f"{WHERE}: functions: got some with tools, expected one of the two; leave functions out")
        if not isinstance(functions, (list, tuple)) or not all(isinstance(f, Mapping) for f in functions):
            raise TypeError(f"{WHERE}: functions: got {functions!r:.60}, expected a list of dicts")
        out["tools"] = [{"type": "function", "function": function} for function in functions]
    if choice is not None:
        out["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}} if isinstance(choice, Mapping) else choice
    return out


def _as_calls(messages: Any) -> Any:
    """Calls and results of functions as those of tools; what is no list of dicts is refused where messages are."""
    if not isinstance(messages, (list, tuple)) or not all(isinstance(m, Mapping) for m in messages):
        return messages
    out, n = [], 0
    for message in messages:
        rest = {key: value for key, value in message.items() if key != "function_call"}
        if message.get("function_call") and not message.get("tool_calls"):
            n += 1
            rest["tool_calls"] = [{"id": f"call_{n}", "type": "function", "function": dict(message["function_call"])}]
        if message.get("role") == "function":
            rest |= {"role": "tool", "tool_call_id": f"call_{n}"}
        out.append(rest if rest != message else message)
    return out


def with_function_call(answer: Any) -> Any:
    """The answer, or its chunks, where a call is a function_call, too."""
    return _renamed(answer) if isinstance(answer, dict) else map(_renamed, answer)


def _renamed(answer: dict[str, Any]) -> dict[str, Any]:
    for choice in answer["choices"]:
        message = choice.get("message") or choice.get("delta") or {}
        calls = message.get("tool_calls")
        if calls:
            message["function_call"] = dict(calls[0]["function"])
    return answer
