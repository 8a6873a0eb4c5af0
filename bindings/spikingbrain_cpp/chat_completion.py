"""Chats: from messages to an answer in OpenAI's shape, turn by turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from . import _core
from .arguments import integer
from .chat_answer import ArgumentsReader, CallsReader, ChatJob, TextReader
from .chat_request import WHERE, ChatFormat, ChatPrompt
from .model import OpenModel


@dataclass
class Turn:
    """The last turn of a chat: its text, prompt and answer, and the tokens that were read and written for it."""

    text: str
    ids: list[int]


class Chats:
    """The chats of a model with one template."""

    def __init__(self, model: OpenModel, make: Callable[[_core.Model], ChatFormat]) -> None:
        """make: makes the template ready, when it is first needed."""
        self._model, self._make = model, make
        self._format: Optional[ChatFormat] = None
        self._turn: Optional[Turn] = None

    def read(self, given: Mapping[str, Any], lenient: bool) -> ChatPrompt:
        """The prompt of create_chat_completion's arguments. Errors: see ChatFormat.read."""
        if self._format is None:
            with self._model.use() as model:
                self._format = self._make(model)
        return self._format.read(self._model, given["messages"], given["tools"], given["tool_choice"], given["response_format"],
                                 given["grammar"], lenient)

    # --- a chat that grows ---------------------------------------------------------------------------------------

    def tokens(self, text: str) -> list[int]:
        """Tokens of a prompt. Where it goes on from the last turn, that turn's own: what a model wrote is not always split
        as the tokenizer would split it, and read again it would be another text to it."""
        turn = self._turn
        if turn is not None and text.startswith(turn.text):
            rest = self._model.tokenize(text[len(turn.text):], add_bos=False, special=True)
            with self._model.use() as model:
                if rest and model.is_control(rest[0]):  # no word goes on across it
                    return turn.ids + rest
        return self._model.tokenize(text, add_bos=True, special=True)

    def whole(self, job: ChatJob, prompt: str, ids: list[int]) -> dict[str, Any]:
        """The finished answer."""
        answer = job.chat_whole()
        self._keep_turn(job, prompt, ids)
        return answer

    def stream(self, job: ChatJob, prompt: str, ids: list[int]) -> Iterator[dict[str, Any]]:
        """Its chunks."""
        for chunk in job.chat_stream():
            if chunk["choices"][0]["finish_reason"] is not None:
                self._keep_turn(job, prompt, ids)
            yield chunk

    def _keep_turn(self, job: ChatJob, prompt: str, ids: list[int]) -> None:
        written = b"".join(map(job.bytes_of, job.answer_ids)).decode("utf-8", "ignore")
        self._turn = Turn(prompt + written, ids + job.answer_ids)


def read_logprobs(logprobs: Optional[bool], top_logprobs: Optional[int]) -> Optional[int]:
    """Alternatives per token, None: no logprobs."""
    if logprobs is not None and not isinstance(logprobs, bool):
        raise TypeError(f"{WHERE}: logprobs: got {type(logprobs).__name__}, expected True or False")
    if top_logprobs is None:
        return 0 if logprobs else None
    if not logprobs:
        raise ValueError(f"{WHERE}: top_logprobs: got {top_logprobs} without logprobs, expected logprobs=True")
    if not 0 <= integer(f"{WHERE}: top_logprobs", top_logprobs) <= 20:
        raise ValueError(f"{WHERE}: top_logprobs: got {top_logprobs}, expected 0 to 20")
    return top_logprobs


def reader(prompt: ChatPrompt) -> Any:
    """What reads the answer to a prompt: a TextReader, ArgumentsReader, CallsReader or the prompt's own."""
    if prompt.reader is not None:
        return prompt.reader()
    if prompt.forced is not None:
        return ArgumentsReader(prompt.forced)
    return TextReader() if prompt.parser is None else CallsReader(prompt.parser)
