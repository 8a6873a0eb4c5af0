"""functions= and function_call=, which OpenAI replaced by tools: asked as tools, answered under both names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..chat_request import WHERE


def as_tools(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments with functions as tools. ValueError, TypeError: functions are none, or stand beside tools."""
    functions, choice = given["functions"], given["function_call"]
    out = {**given, "functions": None, "function_call": None}
    if functions is not None:
        if given["tools"] is not None:
            raise ValueError(f"{WHERE}: functions: got some with tools, expected one of the two; leave functions out")
        if not isinstance(functions, (list, tuple)) or not all(isinstance(f, Mapping) for f in functions):
            raise TypeError(f"{WHERE}: functions: got {functions!r:.60}, expected a list of dicts")
        out["tools"] = [{"type": "function", "function": function} for function in functions]
    if choice is not None:
        out["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}} if isinstance(choice, Mapping) else choice
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
