"""ChatCompletion: the chats of Llama, in OpenAI's shape."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from . import _core, completion
from .arguments import flag, integer
from .chat_answer import ArgumentsReader, CallsReader, ChatJob, TextReader
from .chat_request import WHERE, ChatFormat, ChatPrompt, Stop
from .grammar import ChatGrammar, LlamaGrammar
from .sampling import Criteria, Processors, as_list
from .session import Progress, Session


@dataclass
class Turn:
    """The last turn of a chat: its text, prompt and answer, and the tokens that were read and written for it."""

    text: str
    ids: list[int]


class ChatCompletion(Session):
    """Chats of a Llama."""

    if TYPE_CHECKING:
        generate: Callable[..., Generator[int, Optional[Sequence[int]], None]]
    _chat: Optional[ChatFormat] = None
    _turn: Optional[Turn] = None

    def create_chat_completion(
        self,
        messages: Sequence[Mapping[str, Any]],
        functions: None = None,
        function_call: None = None,
        tools: Optional[Sequence[Mapping[str, Any]]] = None,
        tool_choice: Optional[Union[str, Mapping[str, Any]]] = None,
        temperature: float = 0.2,
        top_p: float = 0.95,
        top_k: int = 40,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        stream: bool = False,
        stop: Stop = None,
        seed: Optional[int] = None,
        response_format: Optional[Mapping[str, Any]] = None,
        max_tokens: Optional[int] = None,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        model: Optional[str] = None,
        logits_processor: Processors = None,
        grammar: Optional[LlamaGrammar] = None,
        logit_bias: Optional[Mapping[int, float]] = None,
        logprobs: Optional[bool] = None,
        top_logprobs: Optional[int] = None,
        stopping_criteria: Criteria = None,
        progress: Optional[Progress] = None,
        cancel: Optional[_core.CancelToken] = None,
        lenient_schema: bool = False,
    ) -> Any:
        """Answer a chat; the answer, or with stream=True the iterator of chunks, has OpenAI's shape.

        messages: dicts with role and content (a text or text parts); tool calls and their results as OpenAI has them.
        tools, tool_choice: functions to call: "none", "auto" (the default), "required", or one by its name, which is then
        called at once. finish_reason is then "tool_calls", unless max_tokens cut it ("length"). A template that knows no
        tools still takes one by its name. response_format: {"type": "json_object"}, with a "schema" if wanted, or
        {"type": "json_schema", "json_schema": {"schema": ...}}; the answer is then such JSON, unless cut. A keyword of a schema (tools' parameters
        too) that constrains and that no grammar holds is a ValueError, with lenient_schema=True left out with a warning.
        max_tokens: None, 0 or less: default_max_tokens() of the prompt. logprobs, top_logprobs: 0 to 20 alternatives per token; no logits_all needed. The rest: see create_completion.
        functions and function_call are refused: OpenAI replaced them by tools. With a chat_handler everything is its own.
        A chat that only grows evaluates its new tokens only. ValueError, TypeError: an argument, a malformed message, a
        schema, or the template refuses the messages; the sequence is then as it was.
        """
        arguments = dict(locals())
        del arguments["self"]
        if self.chat_handler is not None:
            return self.chat_handler(llama=self, **arguments)
        for name in ("functions", "function_call"):
            if arguments[name] is not None:
                raise ValueError(f"{WHERE}: {name}: got one, expected None; use tools and tool_choice")
        stream, lenient_schema = flag(f"{WHERE}: stream", stream), flag(f"{WHERE}: lenient_schema", lenient_schema)
        n_top = _read_logprobs(logprobs, top_logprobs)
        stops, n_most = completion.read_stops(WHERE, stop), completion.read_max_tokens(WHERE, max_tokens)

        with self._lock:
            prompt = self._chat_template().read(self, messages, tools, tool_choice, response_format, grammar, lenient_schema)
            ids = self._chat_tokens(prompt.text)
            tokens = self.generate(
                ids, top_k=top_k, top_p=top_p, min_p=min_p, typical_p=typical_p, temp=temperature, repeat_penalty=repeat_penalty,
                frequency_penalty=frequency_penalty, presence_penalty=presence_penalty, tfs_z=tfs_z, mirostat_mode=mirostat_mode,
                mirostat_tau=mirostat_tau, mirostat_eta=mirostat_eta, seed=seed, logits_processor=logits_processor,
                stopping_criteria=stopping_criteria, grammar=prompt.grammar, logit_bias=logit_bias, progress=progress, cancel=cancel)
            job = ChatJob(
                llama=self, tokens=tokens, stops=stops + prompt.stops, logprobs=n_top, n_prompt=len(ids),
                max_tokens=n_most or self.default_max_tokens(len(ids)), criteria=bool(as_list(stopping_criteria)), echo="", model=model or self.model_path,
                shown=frozenset(prompt.grammar.preserved) if isinstance(prompt.grammar, ChatGrammar) else frozenset(),
                reader=_reader(prompt))
            if stream:
                return self._chat_stream(job, prompt.text, ids)
            answer = job.chat_whole()
            self._keep_turn(job, prompt.text, ids)
            return answer

    def create_chat_completion_openai_v1(self, *args: Any, **kwargs: Any) -> Any:
        """create_chat_completion with the types of the `openai` package. ImportError: it is not installed."""
        try:
            from openai.types.chat import ChatCompletion as Answer, ChatCompletionChunk as Chunk
        except ImportError as error:
            raise ImportError("create_chat_completion_openai_v1: got no package openai, expected one; do pip install openai") from error
        answer = self.create_chat_completion(*args, **kwargs)
        return Answer(**answer) if isinstance(answer, dict) else (Chunk(**chunk) for chunk in answer)

    def _chat_template(self) -> ChatFormat:
        if self._chat is None:
            with self._locked_model() as model:
                self._chat = ChatFormat(model, self.chat_format)
        return self._chat

    # --- a chat that grows ---------------------------------------------------------------------------------------

    def _chat_tokens(self, text: str) -> list[int]:
        """Tokens of a prompt. Where it goes on from the last turn, that turn's own: what a model wrote is not always split
        as the tokenizer would split it, and read again it would be another text to it."""
        turn = self._turn
        if turn is not None and text.startswith(turn.text):
            rest = self.tokenize(text[len(turn.text):], add_bos=False, special=True)
            with self._locked_model() as model:
                if rest and model.is_control(rest[0]):  # no word goes on across it
                    return turn.ids + rest
        return self.tokenize(text, add_bos=True, special=True)

    def _keep_turn(self, job: ChatJob, prompt: str, ids: list[int]) -> None:
        written = b"".join(map(job.bytes_of, job.answer_ids)).decode("utf-8", "ignore")
        self._turn = Turn(prompt + written, ids + job.answer_ids)

    def _chat_stream(self, job: ChatJob, prompt: str, ids: list[int]) -> Iterator[dict[str, Any]]:
        for chunk in job.chat_stream():
            if chunk["choices"][0]["finish_reason"] is not None:
                self._keep_turn(job, prompt, ids)
            yield chunk


def _read_logprobs(logprobs: Optional[bool], top_logprobs: Optional[int]) -> Optional[int]:
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


def _reader(prompt: ChatPrompt) -> Union[TextReader, ArgumentsReader, CallsReader]:
    if prompt.forced is not None:
        return ArgumentsReader(prompt.forced)
    return TextReader() if prompt.parser is None else CallsReader(prompt.parser)
