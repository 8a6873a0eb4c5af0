"""From a stream of tokens to text: whole characters, stop strings, OpenAI's shape."""

from __future__ import annotations

import codecs
import time
import uuid
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from .sampling import logprobs_of

if TYPE_CHECKING:
    from .session import Session


class TextStream:
    """Bytes in, text out: whole characters only, and nothing that may still turn out to begin a stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        self._stops = list(stops)
        self._held = ""
        self.stopped = False

    def push(self, piece: bytes) -> str:
        """The text that is certain after these bytes. Sets `stopped` when a stop string is complete."""
        self._held += self._decoder.decode(piece)
        found = [(self._held.find(stop) + len(stop), stop) for stop in self._stops if stop in self._held]
        if found:  # the one complete first, so that it does not matter how the bytes were cut
            end, stop = min(found, key=lambda item: (item[0], -len(item[1])))
            self.stopped = True
            return self._release(end - len(stop), drop=True)
        return self._release(len(self._held) - self._unsure())

    def finish(self) -> str:
        """What was held back, when no more comes; half a character is left out."""
        return "" if self.stopped else self._release(len(self._held))

    def _unsure(self) -> int:
        """Length of the longest end of the held text that a stop string begins with."""
        longest = max(map(len, self._stops), default=0) - 1
        for n in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-n:]) for stop in self._stops):
                return n
        return 0

    def _release(self, n: int, drop: bool = False) -> str:
        text, self._held = self._held[:n], "" if drop else self._held[n:]
        return text


def _no_logprobs() -> dict[str, list[Any]]:
    return {"tokens": [], "text_offset": [], "token_logprobs": [], "top_logprobs": []}


@dataclass
class Job:
    """One completion under way."""

    llama: "Session"
    tokens: Generator[int, Optional[Sequence[int]], None]
    stops: list[str]
    logprobs: Optional[int]
    n_prompt: int
    max_tokens: Optional[int]
    criteria: bool  # are there stopping criteria
    echo: str
    model: str
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4()}")
    created: int = field(default_factory=lambda: int(time.time()))
    n_completion: int = 0
    finish_reason: Optional[str] = None

    def _pieces(self) -> Iterator[tuple[str, dict[str, list[Any]]]]:
        """(text that became certain, logprobs of the tokens behind it) until the completion ends."""
        out = TextStream(self.stops)
        offset, pending = len(self.echo), _no_logprobs()
        for token in self.tokens:
            if self.llama._is_eog(token):
                self.finish_reason = "stop"
                break
            self.n_completion += 1
            text = out.push(self.llama._tokenizer.piece(token))
            if self.logprobs is not None:
                self._add_logprobs(pending, token, offset)
            if text:
                yield text, pending
                offset, pending = offset + len(text), _no_logprobs()
            if out.stopped or self.n_completion == self.max_tokens:
                self.finish_reason = "stop" if out.stopped else "length"
                break
        else:  # the generator ended: a criterion, or n_ctx
            full = self.n_prompt + self.n_completion >= self.llama.n_ctx()
            self.finish_reason = "stop" if self.criteria and not full else "length"
        self.tokens.close()
        yield out.finish(), pending

    def _add_logprobs(self, into: dict[str, list[Any]], token: int, offset: int) -> None:
        row = logprobs_of(self.llama.logits)
        top = np.argsort(-row, kind="stable")[:self.logprobs]

        def show(t: int) -> str:
            return self.llama.detokenize([int(t)], special=True).decode("utf-8", "ignore")

        into["tokens"].append(show(token))
        into["text_offset"].append(offset)
        into["token_logprobs"].append(float(row[token]))
        into["top_logprobs"].append({show(t): float(row[t]) for t in [*top[::-1], token][::-1]})

    def _answer(self, text: str, logprobs: Optional[dict[str, list[Any]]], finish: Optional[str]) -> dict[str, Any]:
        return {
            "id": self.id, "object": "text_completion", "created": self.created, "model": self.model,
            "choices": [{"text": text, "index": 0, "logprobs": logprobs, "finish_reason": finish}],
        }

    def whole(self, echo: bool) -> dict[str, Any]:
        """The finished answer, with usage."""
        text, logprobs = "", _no_logprobs()
        for piece, probs in self._pieces():
            text += piece
            for key, values in probs.items():
                logprobs[key] += values
        answer = self._answer((self.echo if echo else "") + text, None if self.logprobs is None else logprobs,
                              self.finish_reason)
        answer["usage"] = {"prompt_tokens": self.n_prompt, "completion_tokens": self.n_completion,
                           "total_tokens": self.n_prompt + self.n_completion}
        return answer

    def stream(self, echo: bool) -> Iterator[dict[str, Any]]:
        """Chunks as they become certain; the last one carries finish_reason."""
        if echo and self.echo:
            yield self._answer(self.echo, None, None)
        for text, logprobs in self._pieces():
            yield self._answer(text, None if self.logprobs is None else logprobs, self.finish_reason)
