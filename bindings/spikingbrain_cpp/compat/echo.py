"""echo with logprobs: what the model thought of the prompt's own tokens, before the answer's."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from .. import _core
from ..arguments import integer
from ..asynchronous import current_token
from ..llama import Llama
from ..model import Ids
from ..sampling import logprobs_of
from ..sequence import Context, Rows, Sequence
from ..tokenizer import TEXT, as_str

_STEP = 64  # tokens whose rows are there at a time


class _Scored(Sequence):
    """A sequence whose rows are looked at and forgotten."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.scratch = np.empty((context.step, context.model.n_vocab()), np.float32)

    def rows_of(self, at: int, n: int) -> Rows:
        self._row = None
        return self.scratch[:n]


def _prompt_rows(llama: Llama, ids: Ids, cancel: _core.CancelToken) -> Iterator[Rows]:
    """The logits after each token of a prompt, some at a time; computed in a state beside the sequence."""
    step = min(_STEP, llama.n_batch)
    context = Context(llama._model, "create_completion", "create_completion: got a closed model, expected an open one; load it again", n_batch=step,
                      n_ubatch=step, n_outputs_max=step)
    try:
        sequence = _Scored(context)
        with context.changing("create_completion"), context.cancels.running(cancel) as token:
            for i in range(0, ids.size, step):
                part = ids[i:i + step]
                sequence.append(part, token)
                yield sequence.scratch[:part.size]
    finally:
        context.close()


def completion(llama: Llama, complete: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    """create_completion with echo and logprobs. complete: the one without both together."""
    n = integer("create_completion: logprobs", given["logprobs"])
    answer = complete(**{**given, "echo": False})
    prompt = given["prompt"]
    ids = llama._model.prompt("create_completion", prompt)
    text = as_str(prompt) if isinstance(prompt, TEXT) else llama.detokenize(ids, special=True).decode("utf-8", "ignore")
    if isinstance(answer, dict):
        return _before(answer, text, _logprobs(llama, ids, n, given.get("cancel")))
    return _stream(llama, answer, text, ids, n, given.get("cancel"))


def _stream(llama: Llama, chunks: Iterator[dict[str, Any]], text: str, ids: Ids, n: int, cancel: Any) -> Iterator[dict[str, Any]]:
    found = _logprobs(llama, ids, n, cancel)
    for i, chunk in enumerate(chunks):
        if i == 0:
            choice = {**chunk["choices"][0], "text": text, "logprobs": found, "finish_reason": None}
            yield {**chunk, "choices": [choice]}
        yield chunk


def _before(answer: dict[str, Any], text: str, found: dict[str, list[Any]]) -> dict[str, Any]:
    choice = answer["choices"][0]
    choice["text"] = text + choice["text"]
    choice["logprobs"] = {name: found[name] + choice["logprobs"][name] for name in found}
    return answer


def _logprobs(llama: Llama, ids: Ids, n: int, cancel: Any) -> dict[str, list[Any]]:
    """Of the prompt's tokens, as a completion's: the first one has none."""
    def piece(token: int) -> bytes:
        return llama._model.detokenize([int(token)], special=True)

    def shown(token: int) -> str:
        return piece(token).decode("utf-8", "ignore")

    out: dict[str, list[Any]] = {"tokens": [], "text_offset": [], "token_logprobs": [None], "top_logprobs": [None]}
    characters, offset = codecs.getincrementaldecoder("utf-8")("ignore"), 0
    for own in map(piece, ids):
        out["tokens"].append(own.decode("utf-8", "ignore"))
        out["text_offset"].append(offset)
        offset += len(characters.decode(own))
    for rows in _prompt_rows(llama, ids, cancel or current_token() or _core.CancelToken()):
        for row in rows[:ids.size - len(out["token_logprobs"])]:
            token = int(ids[len(out["token_logprobs"])])
            values = logprobs_of(row)
            top = np.argsort(-values, kind="stable")[:n]
            out["token_logprobs"].append(float(values[token]))
            out["top_logprobs"].append({shown(i): float(values[i]) for i in [*top[::-1].tolist(), token]})  # of those that look the same, the likeliest
    return out
