"""From a stream of tokens to text: whole characters, stop strings, OpenAI's shape."""

from __future__ import annotations

import codecs
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, Union

import numpy as np

from .arguments import integer
from .generation import Generation
from .model import OpenModel
from .sampling import logprobs_of


class TextStream:
    """Bytes in, text out: whole characters only, and nothing that may still turn out to begin a stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        self._stops = list(stops)
        self._held = ""
        self.n_chars = 0  # that were pushed, held ones included
        self.stopped = False

    def push(self, piece: bytes) -> str:
        """The text that is certain after these bytes. Sets `stopped` when a stop string is complete."""
        text = self._decoder.decode(piece)
        self._held += text
        self.n_chars += len(text)
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


def read_stops(where: str, stop: Optional[Union[str, Sequence[str]]]) -> list[str]:
    """Stop strings as a list. TypeError, ValueError: none, or empty ones."""
    if stop is not None and not isinstance(stop, (str, list, tuple)):
        raise TypeError(f"{where}: stop: got {type(stop).__name__}, expected a text or a list of them")
    stops = [stop] if isinstance(stop, str) else list(stop or [])
    if not all(isinstance(s, str) and s for s in stops):
        raise ValueError(f"{where}: stop: got {stops!r}, expected texts that are not empty")
    return stops


def read_max_tokens(where: str, value: Optional[int]) -> Optional[int]:
    """None, 0 and less: none is named."""
    n = 0 if value is None else integer(f"{where}: max_tokens", value)
    return n if n > 0 else None


@dataclass
class TokenLogprobs:
    """One generated token, where its text begins, and what the model thought of it and of the likeliest others."""

    token: int
    offset: int
    logprob: float
    top: list[tuple[int, float]]  # falling


Piece = tuple[str, list[TokenLogprobs]]  # text that became certain, and the tokens behind it


@dataclass
class Job:
    """One completion under way."""

    generation: Generation
    stops: list[str]
    logprobs: Optional[int]
    n_prompt: int
    max_tokens: int
    echo: str
    model: str
    shown: frozenset[int] = frozenset()  # control tokens that count as text
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4()}")
    created: int = field(default_factory=lambda: int(time.time()))
    answer_ids: list[int] = field(default_factory=list)
    finish_reason: Optional[str] = None

    @property
    def _model(self) -> OpenModel:
        return self.generation.sequence.context.model

    @property
    def n_completion(self) -> int:
        """Tokens of the answer so far."""
        return len(self.answer_ids)

    def pieces(self) -> Iterator[Piece]:
        """What became certain, until the completion ends."""
        out = TextStream(self.stops)
        pending = []
        self.generation.n_most = self.max_tokens
        tokens = self.generation.run()
        for token in tokens:
            if self._model.is_eog(token):
                self.finish_reason = "stop"
                break
            self.answer_ids.append(token)
            offset = len(self.echo) + out.n_chars
            text = out.push(self.bytes_of(token))
            if self.logprobs is not None:
                pending.append(self._logprobs_of(token, offset, self.logprobs))
            if text:
                yield text, pending
                pending = []
            if out.stopped or self.n_completion == self.max_tokens:
                self.finish_reason = "stop" if out.stopped else "length"
                break
        else:  # the generator ended: a criterion, or n_ctx
            full = self.n_prompt + self.n_completion >= self.generation.sequence.context.n_ctx()
            self.finish_reason = "stop" if self.generation.sampling.criteria and not full else "length"
        tokens.close()
        yield out.finish(), pending

    def bytes_of(self, token: int) -> bytes:
        """What a token adds to the text."""
        return self.show(token) if token in self.shown else self._model.piece(token)

    def _logprobs_of(self, token: int, offset: int, n: int) -> TokenLogprobs:
        row = logprobs_of(self.generation.row)
        n = min(n, row.size)
        likeliest = np.argpartition(-row, n - 1)[:n] if n else np.empty(0, np.int64)
        top = likeliest[np.argsort(-row[likeliest], kind="stable")]
        return TokenLogprobs(token, offset, float(row[token]), [(int(t), float(row[t])) for t in top])

    def show(self, token: int) -> bytes:
        """Bytes of a token by itself, control tokens too."""
        return self._model.detokenize([token], special=True)

    def usage(self) -> dict[str, Any]:
        """Tokens; of drafts, those that were right and wrong, as OpenAI counts predicted ones."""
        usage: dict[str, Any] = {"prompt_tokens": self.n_prompt, "completion_tokens": self.n_completion,
                                 "total_tokens": self.n_prompt + self.n_completion}
        drafts = self.generation.drafts
        if drafts is not None:
            usage["completion_tokens_details"] = {"accepted_prediction_tokens": drafts.n_accepted,
                                                  "rejected_prediction_tokens": drafts.n_drafted - drafts.n_accepted}
        return usage

    # --- the shape of OpenAI's completions --------------------------------------------------------------------------

    def _logprobs(self, found: list[TokenLogprobs]) -> Optional[dict[str, list[Any]]]:
        if self.logprobs is None:
            return None

        def text(token: int) -> str:
            return self.show(token).decode("utf-8", "ignore")

        return {
            "tokens": [text(t.token) for t in found],
            "text_offset": [t.offset for t in found],
            "token_logprobs": [t.logprob for t in found],
            # of tokens that look the same, the likeliest
            "top_logprobs": [{text(i): p for i, p in sorted([*t.top, (t.token, t.logprob)], key=lambda item: item[1])} for t in found],
        }

    def _answer(self, text: str, logprobs: Optional[dict[str, list[Any]]], finish: Optional[str]) -> dict[str, Any]:
        return {
            "id": self.id, "object": "text_completion", "created": self.created, "model": self.model,
            "choices": [{"text": text, "index": 0, "logprobs": logprobs, "finish_reason": finish}],
        }

    def whole(self, echo: bool) -> dict[str, Any]:
        """The finished answer, with usage."""
        pieces = list(self.pieces())
        text = (self.echo if echo else "") + "".join(text for text, _ in pieces)
        found = [t for _, tokens in pieces for t in tokens]
        return {**self._answer(text, self._logprobs(found), self.finish_reason), "usage": self.usage()}

    def stream(self, echo: bool) -> Iterator[dict[str, Any]]:
        """Chunks as they become certain; the last one carries finish_reason."""
        if echo and self.echo:
            yield self._answer(self.echo, None, None)
        for text, found in self.pieces():
            yield self._answer(text, self._logprobs(found), self.finish_reason)
