"""Llama: a model file, one sequence, and text out of it, under llama-cpp-python's names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Optional, Union

from . import _core, completion
from .arguments import check_calls, flag, integer
from .asynchronous import current_token, iterate
from .caches import BaseLlamaCache
from .chat_answer import ChatJob
from .chat_completion import Chats, read_logprobs, reader
from .chat_request import WHERE, ChatFormat, Stop
from .drafts import Drafts, ModelGuesser, counts
from .embeddings import Embedder
from .errors import LlamaError
from .generation import Generation, draw
from .grammar import ChatGrammar, LlamaGrammar
from .hub import download
from .model import Ids, Tokens
from .parallel import MAX_PARALLEL, Many
from .sampling import Criteria, Processors, Row, Sampling, as_list, build_chain
from .sequence import Progress
from .session import Session
from .tokenizer import TEXT, Text, as_str

if TYPE_CHECKING:
    from typing_extensions import Self


class Llama(Session):
    """A loaded model and the one sequence it is reading (see Session for loading, tokens, evaluation and snapshots)."""

    _cache: Optional[BaseLlamaCache] = None

    @property
    def cache(self) -> Optional[BaseLlamaCache]:
        """What set_cache() was given; assigning is set_cache()."""
        return self._cache

    @cache.setter
    def cache(self, cache: Optional[BaseLlamaCache]) -> None:
        self.set_cache(cache)

    def set_cache(self, cache: Optional[BaseLlamaCache]) -> None:
        """Keep the state after every prompt in `cache`, and begin from the longest that fits; None: no more."""
        if cache is not None and not isinstance(cache, BaseLlamaCache):
            raise TypeError(f"set_cache: cache: got {type(cache).__name__}, expected LlamaRAMCache, LlamaDiskCache or None")
        self._cache = cache

    _drafts: Optional[Drafts] = None

    @cached_property
    def _chats(self) -> Chats:
        return Chats(self._model, lambda model: ChatFormat(model, self.chat_format))

    @cached_property
    def _embedder(self) -> Embedder:
        return Embedder(self._model)

    def _new_chain(self, sampling: Sampling, seed: Optional[int]) -> _core.Sampler:
        with self._model.use() as model:
            return build_chain(model, sampling.params, self._seeds.next(seed), self.last_n_tokens_size, sampling.grammar)

    def sample(
        self,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        temp: float = 0.80,
        repeat_penalty: float = 1.0,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_eta: float = 0.1,
        mirostat_tau: float = 5.0,
        penalize_nl: bool = True,
        logits_processor: Processors = None,
        grammar: Optional[LlamaGrammar] = None,
        idx: Optional[int] = None,
        logit_bias: Optional[Mapping[int, float]] = None,
    ) -> int:
        """Choose a token from the last one's logits; temp 0 takes the largest. It is not appended: eval it to go on.

        The penalties see the last last_n_tokens_size tokens of the sequence. grammar: holds for the tokens evaluated
        since the first call with it. idx: of the token whose logits are used; any but the last needs logits_all.
        tfs_z and penalize_nl only have their neutral values left. LlamaError: nothing evaluated yet, or the grammar
        allows none, or not what was evaluated meanwhile.
        """
        sampling = Sampling.from_call(locals())
        with self._sequence.context.changing("sample"):
            row = self._row_at(idx)
            return draw(self._sequence, row, self._kept_chain(sampling), sampling)

    def _row_at(self, idx: Optional[int]) -> Row:
        last, n = self._sequence.last_row(), self._sequence.n()
        if idx is None or integer("sample: idx", idx) == n - 1:
            return last
        if not 0 <= idx < n:
            raise ValueError(f"sample: idx: got {idx}, expected 0 to {n - 1}")
        row: Row = self._sequence.rows()[idx]
        return row

    def _kept_chain(self, sampling: Sampling) -> _core.Sampler:
        """The chain of sample(), the same one as long as its arguments are, told of the tokens read meanwhile."""
        n, history, key = self._sequence.n(), self._sequence.history, (sampling.params, sampling.grammar)
        kept = self._chain
        if kept is None or kept[0] != key or kept[2] > n:
            chain, n_seen = self._new_chain(sampling, None), 0
        else:
            _, chain, n_seen = kept
            try:
                for token in history.last(n, n - n_seen):
                    chain.accept_grammar(int(token))
            except RuntimeError as error:
                self._chain = None
                raise LlamaError(f"sample: {error}; use another grammar") from error
        chain.accept(history.last(n, min(n - n_seen, self.last_n_tokens_size)))
        self._chain = (key, chain, n)
        return chain

    def generate(
        self,
        tokens: Tokens,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        temp: float = 0.80,
        repeat_penalty: float = 1.0,
        reset: bool = True,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        penalize_nl: bool = True,
        logits_processor: Processors = None,
        stopping_criteria: Criteria = None,
        grammar: Optional[LlamaGrammar] = None,
        logit_bias: Optional[Mapping[int, float]] = None,
        seed: Optional[int] = None,
        progress: Optional[Progress] = None,
        cancel: Optional[_core.CancelToken] = None,
    ) -> Generator[int, Optional[Sequence[int]], None]:
        """Yield token after token, without end of its own: end-of-generation tokens come out too. The caller ends it.

        reset=True: the sequence becomes `tokens`, and only what it does not hold already is evaluated. reset=False:
        they are appended. send(more) appends tokens after the one just yielded. It ends when a stopping criterion is
        true of (tokens so far, the last token's logits), or when n_ctx tokens are read and yielded together.
        grammar: holds for the tokens yielded, from the first on. tfs_z and penalize_nl: see sample().
        progress(done, total): tokens of the prompt that are evaluated, of those that must be. cancel: see eval; also cancel().
        ValueError: no tokens, unknown ones, or no room for one more. LlamaError: another call changed the sequence
        meanwhile.
        """
        given = dict(locals())
        sampling, reset = Sampling.from_call(given), flag("generate: reset", reset)
        prompt = self._model.ids("generate", tokens)
        if prompt.size == 0 and (reset or self.n_tokens == 0):
            raise ValueError("generate: tokens: got none, expected at least one; start with a token of the prompt")
        return self._generation(prompt, sampling, given).run()

    def _generation(self, prompt: Ids, sampling: Sampling, given: Mapping[str, Any], keep_row: bool = False) -> Generation:
        """What goes on after a prompt; given: the arguments seed, reset, progress and cancel of a call."""
        check_calls("generate", given["progress"], given["cancel"])
        reset = given.get("reset", True)
        self._sequence.check_room("generate", prompt.size + 1 + (0 if reset else self.n_tokens))
        return Generation(self._sequence, prompt, self._new_chain(sampling, given["seed"]), sampling, self.last_n_tokens_size,
                          given["cancel"] or current_token() or _core.CancelToken(), reset, given["progress"], self._cache, self.load_state, self._new_drafts(), keep_row=keep_row)

    def _new_drafts(self) -> Optional[Drafts]:
        if self._guesser is None:
            return None
        with self._sequence.context.use() as handle:
            most = self._sequence.context.n_ahead_most
            self._drafts = Drafts(self._guesser, min(most, handle.n_rs_seq() or most), isinstance(self._guesser, ModelGuesser))
        return self._drafts

    @property
    def draft_counts(self) -> dict[str, int]:
        """Of the last generation begun: "draft_n" tokens that were drafted, "draft_n_accepted" of them that were right. Completions say it in their
        usage, too (completion_tokens_details)."""
        return counts(self._drafts)

    def create_completion(
        self,
        prompt: Union[Text, Sequence[int]],
        suffix: None = None,
        max_tokens: Optional[int] = 16,
        temperature: float = 0.8,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        logprobs: Optional[int] = None,
        echo: bool = False,
        stop: Optional[Union[str, Sequence[str]]] = None,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        top_k: int = 40,
        stream: bool = False,
        seed: Optional[int] = None,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        model: Optional[str] = None,
        stopping_criteria: Criteria = None,
        logits_processor: Processors = None,
        grammar: Optional[LlamaGrammar] = None,
        logit_bias: Optional[Mapping[int, float]] = None,
        progress: Optional[Progress] = None,
        cancel: Optional[_core.CancelToken] = None,
    ) -> Union[dict[str, Any], Iterator[dict[str, Any]]]:
        """Continue a prompt (text, in which control tokens count, or token ids); the answer has OpenAI's shape.

        prompt: bytes are UTF-8 text. max_tokens: None, 0 or less: default_max_tokens() of the prompt. Ends on any end-of-generation token and before any of the
        `stop` strings (finish_reason "stop"), at max_tokens or n_ctx ("length"). stream=True: an iterator of chunks
        whose texts join to the answer; no chunk holds a part of a character or of a stop string. Bytes that are no
        UTF-8 are left out. logprobs: that many alternatives per token; no logits_all needed. grammar: the text matches it,
        unless it ends early. tfs_z: see sample(). progress, cancel: see generate.
        suffix is refused: there are no fill-in-the-middle models here. ValueError: an argument, an empty prompt, or
        one that n_ctx has no room for.
        """
        given = dict(locals())
        echo, stream = flag("create_completion: echo", echo), flag("create_completion: stream", stream)
        if suffix is not None:
            raise ValueError("create_completion: suffix: got a text, expected None; no model here fills in the middle")
        if logprobs is not None and (integer("create_completion: logprobs", logprobs) < 0 or echo):
            raise ValueError(f"create_completion: logprobs: got {logprobs} and echo={echo}, expected 0 or more without "
                             "echo; read scores for a prompt's own")
        stops = completion.read_stops("create_completion", stop)
        n_most = completion.read_max_tokens("create_completion", max_tokens)
        ids = self._model.prompt("create_completion", prompt)
        if not ids.size:
            raise ValueError("create_completion: prompt: got no tokens, expected at least one; write a prompt")
        job = completion.Job(
            generation=self._generation(ids, Sampling.from_call(given), given, logprobs is not None), stops=stops, logprobs=logprobs,
            n_prompt=ids.size, max_tokens=n_most or self.default_max_tokens(ids.size),
            echo=as_str(prompt) if isinstance(prompt, TEXT) else self.detokenize(ids, special=True).decode("utf-8", "ignore"),
            model=model or self.model_path)
        if stream:
            return job.stream(echo)
        with self._model.use():  # whole answers of several threads come one after the other
            return job.whole(echo)

    __call__ = create_completion

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
        return self._answer(self._chats, arguments)

    def _answer(self, chats: Chats, given: dict[str, Any]) -> Any:
        """create_chat_completion by a template; given: its arguments."""
        stream, lenient_schema = flag(f"{WHERE}: stream", given["stream"]), flag(f"{WHERE}: lenient_schema", given["lenient_schema"])
        n_top = read_logprobs(given["logprobs"], given["top_logprobs"])
        stops, n_most = completion.read_stops(WHERE, given["stop"]), completion.read_max_tokens(WHERE, given["max_tokens"])

        with self._model.use():
            prompt = chats.read(given, lenient_schema)
            ids = chats.tokens(prompt.text)
            criteria = [*as_list(given["stopping_criteria"], "stopping_criteria"), *prompt.criteria]
            sampling = Sampling.from_call({**given, "grammar": prompt.grammar, "stopping_criteria": criteria})
            job = ChatJob(
                generation=self._generation(self._model.ids("generate", ids), sampling, given, n_top is not None), stops=stops + prompt.stops,
                logprobs=n_top, n_prompt=len(ids), max_tokens=n_most or self.default_max_tokens(len(ids)), echo="", model=given["model"] or self.model_path,
                shown=frozenset(prompt.grammar.preserved) if isinstance(prompt.grammar, ChatGrammar) else frozenset(), reader=reader(prompt))
            return (chats.stream if stream else chats.whole)(job, prompt.text, ids)

    def create_chat_completion_openai_v1(self, *args: Any, **kwargs: Any) -> Any:
        """create_chat_completion with the types of the `openai` package. ImportError: it is not installed."""
        try:
            from openai.types.chat import ChatCompletion as Answer, ChatCompletionChunk as Chunk
        except ImportError as error:
            raise ImportError("create_chat_completion_openai_v1: got no package openai, expected one; do pip install openai") from error
        answer = self.create_chat_completion(*args, **kwargs)
        return Answer(**answer) if isinstance(answer, dict) else (Chunk(**chunk) for chunk in answer)

    def generate_many(
        self,
        prompts: Sequence[Union[Text, Sequence[int]]],
        *,
        n: int = 1,
        max_tokens: Optional[int] = 16,
        n_parallel: int = 8,
        temperature: float = 0.8,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        repeat_penalty: float = 1.0,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        logit_bias: Optional[Mapping[int, float]] = None,
        stop: Optional[Union[str, Sequence[str]]] = None,
        seed: Optional[int] = None,
    ) -> list[dict[str, Any]]:
        """n continuations of each prompt, at most n_parallel at a time, each as if computed alone.

        prompts: texts (bytes: UTF-8) or token ids. max_tokens: None, 0 or less: default_max_tokens() of each prompt.
        What all prompts begin with is read once and forked. Returned in the prompts' order, n after one another:
        {"index" of the prompt, "tokens", "text", "finish_reason"}, ended as create_completion ends. The session's own sequence
        stays as it is. seed: of the first one; the others' follow it. ValueError: an argument, or a prompt without tokens.
        """
        given = dict(locals())
        n_most = completion.read_max_tokens("generate_many", max_tokens)
        for name, value in (("n", n), ("n_parallel", n_parallel)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"generate_many: {name}: got {value!r}, expected an integer of 1 or more")
        if isinstance(prompts, TEXT) or not isinstance(prompts, Sequence):
            raise TypeError(f"generate_many: prompts: got {type(prompts).__name__}, expected a list of prompts")
        many = Many(self._model, Sampling.from_call(given), completion.read_stops("generate_many", stop), self.last_n_tokens_size)
        ids = [self._model.prompt("generate_many", p) for p in prompts]
        if any(p.size == 0 for p in ids):
            raise ValueError("generate_many: prompts: got one without tokens, expected at least one token each; leave it out")
        for p in ids:
            self._sequence.check_room("generate_many", p.size + 1)
        first = self._seeds.next(seed)
        jobs = [many.job(i // n, ids[i // n], first + i, n_most or self.default_max_tokens(ids[i // n].size)) for i in range(n * len(ids))]
        return many.run(jobs, min(n_parallel, MAX_PARALLEL, len(jobs)), current_token()) if jobs else []

    # --- embeddings ----------------------------------------------------------------------------------------------

    def pooling_type(self) -> int:
        """How a text's rows become one vector: 0 not at all, 1 mean, 2 the first, 3 the last."""
        return self._embedder.pooling()

    def embed(self, input: Union[Text, Sequence[Text], Sequence[Sequence[int]]], normalize: bool = False, truncate: bool = True,
              return_count: bool = False) -> Any:
        """The embedding of a text (bytes: UTF-8), or a list of those of several (texts or token ids), in double-nested lists of floats.

        A vector of n_embd numbers per text, or with pooling_type 0 (the default of models that generate) one per token.
        normalize: to length 1. truncate: to n_ctx tokens, where an n_ctx was given; otherwise no length is too much.
        return_count: (embeddings, tokens read). LlamaError: not loaded with embedding=True. ValueError: an empty text.
        """
        normalize, truncate = flag("embed: normalize", normalize), flag("embed: truncate", truncate)
        return_count = flag("embed: return_count", return_count)
        single = isinstance(input, TEXT)
        if not single and not isinstance(input, (list, tuple)):
            raise TypeError(f"embed: input: got {type(input).__name__}, expected a text or a list of them")
        vectors, n_read = self._embedder.embed([input] if single else input, normalize, truncate, current_token())
        answer = vectors[0] if single else vectors
        return (answer, n_read) if return_count else answer

    def create_embedding(self, input: Union[Text, Sequence[Text]], model: Optional[str] = None) -> dict[str, Any]:
        """embed, in OpenAI's shape. Errors: see embed."""
        texts = [input] if isinstance(input, TEXT) else input
        vectors, n = self.embed(list(texts), return_count=True)
        return {"object": "list", "model": model or self.model_path, "usage": {"prompt_tokens": n, "total_tokens": n},
                "data": [{"object": "embedding", "embedding": v, "index": i} for i, v in enumerate(vectors)]}

    # --- from elsewhere, and for an event loop ---------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, repo_id: str, filename: Optional[str] = None, additional_files: Optional[Sequence[str]] = None,
                        local_dir: Optional[str] = None, local_dir_use_symlinks: Any = "auto", cache_dir: Optional[str] = None,
                        revision: Optional[str] = None, **options: Any) -> Self:
        """Download a GGUF file of the Hugging Face hub (once: it is kept in its cache) and load it.

        filename: its name or a pattern ("*Q4_0.gguf") that fits one file or the parts of one; additional_files: names or patterns of
        others to download beside it; options: the constructor's. local_dir_use_symlinks: the hub has no such choice any more. Needs the
        extra: pip install "spikingbrain-cpp[hub]". ImportError: without it. ModelNotFoundError: no file, or several, fit.
        """
        path = download(repo_id, filename, additional_files, local_dir_use_symlinks, local_dir=local_dir, cache_dir=cache_dir, revision=revision)
        return cls(str(path), **options)

    def agenerate(self, tokens: Any, **options: Any) -> AsyncIterator[int]:
        """generate(tokens, **options) as an asynchronous iterator."""
        return iterate(lambda: self.generate(tokens, **options))

    async def acreate_completion(self, prompt: Any, *, stream: bool = False, **options: Any) -> Any:
        """create_completion(prompt, **options); stream=True: an asynchronous iterator of its chunks (`async for c in await ...`).

        Cancelling the task cancels the computation, inside prompt processing too.
        """
        return await self._acall("create_completion", prompt, stream, options)

    async def acreate_chat_completion(self, messages: Any, *, stream: bool = False, **options: Any) -> Any:
        """create_chat_completion(messages, **options), as acreate_completion does it."""
        return await self._acall("create_chat_completion", messages, stream, options)

    async def _acall(self, name: str, first: Any, stream: bool, options: dict[str, Any]) -> Any:
        call = getattr(self, name)
        if stream:
            return iterate(lambda: call(first, stream=True, **options))
        async for answer in iterate(lambda: iter([call(first, **options)])):
            return answer
