"""Llama: a model file, one sequence, and text out of it, under llama-cpp-python's names."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, Optional, Union

import numpy as np

from . import _core, completion
from .arguments import check_calls, flag, integer
from .asynchronous import AsyncCalls, current_token
from .chat_completion import ChatCompletion
from .errors import Cancelled, LlamaError
from .caching import Caching
from .embeddings import Embeddings
from .grammar import LlamaGrammar
from .loaded import Tokens
from .parallel import Parallel
from .sampling import (Criteria, Ids, LogitsProcessor, Processors, Row, SamplingParams, StoppingCriterion, as_list, build_chain,
                       read_logit_bias, refuse_removed)
from .session import Progress
from .tokenizer import TEXT, Text, as_str


class Llama(ChatCompletion, AsyncCalls, Caching, Embeddings, Parallel):
    """A loaded model and the one sequence it is reading (see Session for loading, tokens and evaluation, Saving for snapshots)."""

    def _new_chain(self, params: SamplingParams, seed: int, grammar: Optional[LlamaGrammar]) -> _core.Sampler:
        with self._locked_model() as model:
            return build_chain(model, params, seed, self.last_n_tokens_size, grammar)

    def _draw(self, row: Row, chain: _core.Sampler, processors: Sequence[LogitsProcessor]) -> int:
        if processors:
            ids, edited = self.input_ids, row.copy()
            for processor in processors:
                edited = processor(ids, edited)
            row = np.ascontiguousarray(edited, np.float32)
        try:
            return chain.sample(row)
        except RuntimeError as error:
            raise LlamaError(f"llama: {error}") from error

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
        refuse_removed(tfs_z, penalize_nl)
        params = SamplingParams(top_k, top_p, min_p, typical_p, temp, repeat_penalty, frequency_penalty,
                                presence_penalty, mirostat_mode, mirostat_tau, mirostat_eta,
                                read_logit_bias(logit_bias))
        processors = as_list(logits_processor, "logits_processor")
        with self._use() as ctx:
            row = self._row_at(ctx, idx)
            return self._draw(row, self._kept_chain(params, grammar), processors)

    def _row_at(self, ctx: _core.Context, idx: Optional[int]) -> Row:
        last = self._row(ctx)
        n = self.n_tokens
        if idx is None or integer("sample: idx", idx) == n - 1:
            return last
        if not 0 <= idx < n:
            raise ValueError(f"sample: idx: got {idx}, expected 0 to {n - 1}")
        row: Row = self.scores[idx]
        return row

    def _kept_chain(self, params: SamplingParams, grammar: Optional[LlamaGrammar]) -> _core.Sampler:
        """The chain of sample(), the same one as long as its arguments are, told of the tokens read meanwhile."""
        n = self.n_tokens
        kept = self._chain
        if kept is None or kept[0] != (params, grammar) or kept[2] > n:
            chain, n_seen = self._new_chain(params, self._next_seed(None), grammar), 0
        else:
            _, chain, n_seen = kept
            try:
                for token in self._history.last(n, n - n_seen):
                    chain.accept_grammar(int(token))
            except RuntimeError as error:
                self._chain = None
                raise LlamaError(f"sample: {error}; use another grammar") from error
        chain.accept(self._history.last(n, min(n - n_seen, self.last_n_tokens_size)))
        self._chain = ((params, grammar), chain, n)
        return chain

    def _reuse(self, ctx: _core.Context, prompt: Ids) -> Ids:
        """Make the sequence a prefix of the prompt, keeping what can be kept; returns what is left to evaluate."""
        n = ctx.seq_pos_max(0) + 1
        common = self._history.common(n, prompt)
        if common == n and (prompt.size > n or ctx.logits_pos() == n - 1):
            return prompt[n:]
        keep = min(common, prompt.size - 1)  # the last token's logits are needed
        if keep > 0 and ctx.seq_rm(0, keep, -1) and ctx.seq_pos_max(0) == keep - 1:
            return prompt[keep:]
        ctx.clear()  # most memories cannot give back a tail: read it again rather than be wrong
        return prompt

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
        refuse_removed(tfs_z, penalize_nl)
        reset = flag("generate: reset", reset)
        params = SamplingParams(top_k, top_p, min_p, typical_p, temp, repeat_penalty, frequency_penalty,
                                presence_penalty, mirostat_mode, mirostat_tau, mirostat_eta,
                                read_logit_bias(logit_bias))
        check_calls("generate", progress, cancel)
        prompt = self._token_array("generate", tokens)
        if prompt.size == 0 and (reset or self.n_tokens == 0):
            raise ValueError("generate: tokens: got none, expected at least one; start with a token of the prompt")
        self._check_room("generate", prompt.size + 1 + (0 if reset else self.n_tokens))
        chain = self._new_chain(params, self._next_seed(seed), grammar)
        return self._generate(prompt, chain, reset, as_list(logits_processor, "logits_processor"),
                              as_list(stopping_criteria, "stopping_criteria"), progress, cancel or current_token() or _core.CancelToken())

    def _generate(self, todo: Ids, chain: _core.Sampler, reset: bool, processors: list[LogitsProcessor],
                  criteria: list[StoppingCriterion], progress: Optional[Progress], cancel: _core.CancelToken,
                  ) -> Generator[int, Optional[Sequence[int]], None]:
        epoch, n_ctx = None, self.n_ctx()
        with self._cancellable(cancel):
            while True:
                with self._use() as ctx:
                    if cancel.cancelled:
                        raise Cancelled("llama: generate: got a cancel, expected none; call again to go on")
                    if epoch is None and reset:
                        self._from_cache(todo)
                        todo = self._reuse(ctx, todo)
                    elif epoch not in (None, self._epoch):
                        raise LlamaError("generate: got a sequence that another call changed, expected it as it was left; "
                                         "use one Llama per conversation")
                    if ctx.seq_pos_max(0) + 1 + todo.size >= n_ctx:
                        return
                    if todo.size:
                        self._append(ctx, todo, progress if epoch is None else None, cancel)
                    n = ctx.seq_pos_max(0) + 1
                    n_new = min(n if epoch is None else todo.size, self.last_n_tokens_size)
                    chain.accept(self._history.last(n, n_new))
                    if criteria and any(c(self.input_ids, self.logits) for c in criteria):
                        return
                    if epoch is None:
                        self._to_cache()
                    token = self._draw(self._row(ctx), chain, processors)
                    chain.accept_grammar(token)
                    self._epoch = epoch = self._epoch + 1
                more = yield token
                todo = np.array([token, *(self._token_array("generate: send", more) if more else ())], np.int32)

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
        echo, stream = flag("create_completion: echo", echo), flag("create_completion: stream", stream)
        if suffix is not None:
            raise ValueError("create_completion: suffix: got a text, expected None; no model here fills in the middle")
        if logprobs is not None and (integer("create_completion: logprobs", logprobs) < 0 or echo):
            raise ValueError(f"create_completion: logprobs: got {logprobs} and echo={echo}, expected 0 or more without "
                             "echo; read scores for a prompt's own")
        stops = completion.read_stops("create_completion", stop)
        n_most = completion.read_max_tokens("create_completion", max_tokens)
        ids = self._prompt_tokens("create_completion", prompt).tolist()
        if not ids:
            raise ValueError("create_completion: prompt: got no tokens, expected at least one; write a prompt")

        tokens = self.generate(
            ids, top_k=top_k, top_p=top_p, min_p=min_p, typical_p=typical_p, temp=temperature,
            repeat_penalty=repeat_penalty, frequency_penalty=frequency_penalty, presence_penalty=presence_penalty,
            tfs_z=tfs_z, mirostat_mode=mirostat_mode, mirostat_tau=mirostat_tau, mirostat_eta=mirostat_eta, seed=seed,
            logits_processor=logits_processor, stopping_criteria=stopping_criteria, grammar=grammar, logit_bias=logit_bias,
            progress=progress, cancel=cancel)
        job = completion.Job(
            llama=self, tokens=tokens, stops=stops, logprobs=logprobs, n_prompt=len(ids),
            max_tokens=n_most or self.default_max_tokens(len(ids)), criteria=bool(as_list(stopping_criteria)),
            echo=as_str(prompt) if isinstance(prompt, TEXT) else self.detokenize(ids, special=True).decode("utf-8", "ignore"),
            model=model or self.model_path)
        if stream:
            return job.stream(echo)
        with self._lock:  # whole answers of several threads come one after the other
            return job.whole(echo)

    __call__ = create_completion
