"""From the text of an answer to OpenAI's chat messages and chunks."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from . import _core
from .completion import Job, TokenLogprobs

Delta = dict[str, Any]


class TextReader:
    """The answer is text."""

    def push(self, text: str) -> list[Delta]:
        """What more text adds to the message."""
        return [{"content": text}] if text else []

    def end(self, complete: bool) -> list[Delta]:
        """What is added now that no more text comes; complete: the model ended it."""
        return []

    def has_calls(self) -> bool:
        """Whether tools were called."""
        return False


class ArgumentsReader:
    """The answer is the arguments of one tool."""

    def __init__(self, name: str) -> None:
        self._head: Optional[Delta] = call_head(0, name)

    def push(self, text: str) -> list[Delta]:
        """See TextReader.push."""
        head, self._head = self._head, None
        return ([{"tool_calls": [head]}] if head else []) + ([call_arguments(0, text)] if text else [])

    def end(self, complete: bool) -> list[Delta]:
        """See TextReader.end."""
        return self.push("")

    def has_calls(self) -> bool:
        """See TextReader.has_calls."""
        return True


class CallsReader:
    """Text and tool calls in the format of the model's template, read by upstream's parser for it."""

    def __init__(self, parser: tuple[int, bytes, str]) -> None:
        self._parser = _core.ChatParser(*parser)
        self._calls: set[int] = set()
        self._text = ""
        self._shown = False  # was anything read

    def push(self, text: str) -> list[Delta]:
        """See TextReader.push."""
        self._text += text
        with contextlib.suppress(ValueError):  # an answer in no form that the template has: that is certain at its end
            return self._read(text, False)
        return []

    def end(self, complete: bool) -> list[Delta]:
        """See TextReader.end."""
        with contextlib.suppress(ValueError):
            return self._read("", complete)
        return [] if self._shown else [{"content": self._text}]

    def _read(self, text: str, last: bool) -> list[Delta]:
        deltas = [d for item in self._parser.push(text, last) for d in self._deltas(item)]
        self._shown = self._shown or bool(deltas)
        return deltas

    def _deltas(self, item: dict[str, Any]) -> Iterator[Delta]:
        for key in ("reasoning_content", "content"):
            if item[key]:
                yield {key: item[key]}
        index = item["index"]
        if index >= 0 and index not in self._calls:
            self._calls.add(index)
            yield {"tool_calls": [call_head(index, item["name"])]}
        if index >= 0 and item["arguments"]:
            yield call_arguments(index, item["arguments"])

    def has_calls(self) -> bool:
        """See TextReader.has_calls."""
        return bool(self._calls)


def call_head(index: int, name: str) -> Delta:
    """The first delta of a tool call."""
    return {"index": index, "id": f"call_{uuid.uuid4().hex}", "type": "function", "function": {"name": name, "arguments": ""}}


def call_arguments(index: int, text: str) -> Delta:
    """More of its arguments."""
    return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}


def join(deltas: Sequence[Delta]) -> dict[str, Any]:
    """The message that the deltas of a stream add up to."""
    message: dict[str, Any] = {"role": "assistant", "content": None}
    calls: dict[int, dict[str, Any]] = {}
    for delta in deltas:
        for key in ("content", "reasoning_content"):
            if key in delta:
                message[key] = (message.get(key) or "") + delta[key]
        for call in delta.get("tool_calls", ()):
            if "id" in call:
                calls[call["index"]] = {"id": call["id"], "type": "function", "function": dict(call["function"])}
            else:
                calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    if calls:
        message["tool_calls"] = [calls[i] for i in sorted(calls)]
    elif message["content"] is None:
        message["content"] = ""
    return message


@dataclass
class ChatJob(Job):
    """One answer of a chat under way."""

    reader: Any = field(default_factory=TextReader)  # TextReader, ArgumentsReader or CallsReader
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4()}")

    def deltas(self) -> Iterator[tuple[list[Delta], list[TokenLogprobs]]]:
        """What each certain piece of text adds to the message."""
        for text, found in self.pieces():
            yield self.reader.push(text), found
        complete = self.finish_reason == "stop"
        last = self.reader.end(complete)  # cut short, it may end inside of a call: what is there of it counts
        if complete and self.reader.has_calls():
            self.finish_reason = "tool_calls"
        yield last, []

    def _chat_logprobs(self, found: list[TokenLogprobs]) -> Optional[dict[str, Any]]:
        if self.logprobs is None:
            return None

        def entry(token: int, logprob: float) -> dict[str, Any]:
            data = self.show(token)
            return {"token": data.decode("utf-8", "ignore"), "logprob": logprob, "bytes": list(data)}

        return {"content": [{**entry(t.token, t.logprob), "top_logprobs": [entry(i, p) for i, p in t.top]} for t in found],
                "refusal": None}

    def _chunk(self, delta: Delta, found: list[TokenLogprobs], finish: Optional[str] = None) -> dict[str, Any]:
        return {"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model,
                "choices": [{"index": 0, "delta": delta, "logprobs": self._chat_logprobs(found), "finish_reason": finish}]}

    def chat_whole(self) -> dict[str, Any]:
        """The finished answer, with usage."""
        parts = list(self.deltas())
        message = join([d for deltas, _ in parts for d in deltas])
        logprobs = self._chat_logprobs([t for _, found in parts for t in found])
        return {"id": self.id, "object": "chat.completion", "created": self.created, "model": self.model,
                "choices": [{"index": 0, "message": message, "logprobs": logprobs, "finish_reason": self.finish_reason}],
                "usage": self.usage()}

    def chat_stream(self) -> Iterator[dict[str, Any]]:
        """The role, then what becomes certain, then finish_reason by itself."""
        yield self._chunk({"role": "assistant"}, [])
        pending: list[TokenLogprobs] = []
        for deltas, found in self.deltas():
            pending += found
            for delta in deltas:
                yield self._chunk(delta, pending)
                pending = []
        yield self._chunk({}, pending, self.finish_reason)
