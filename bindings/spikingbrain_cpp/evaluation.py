"""A model for lm-evaluation-harness (`lm_eval`): log probabilities and answers of many requests together.

Importing this registers it as `spikingbrain`, for lm_eval.simple_evaluate(model="spikingbrain", model_args=...); sb-eval is lm_eval's command
line with that done. Without lm_eval the class works by itself.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Optional, Union

import numpy as np
from sb_convert.constants import ARCH
from tqdm import tqdm

from .arguments import check_range, integer
from .beginnings import Scored
from .completion import read_stops
from .llama import Llama
from .model import Ids
from .parallel import Many
from .sampling import Sampling
from .scoring import MAX_SCORED, Scorer

try:
    import lm_eval.models  # noqa: F401 - its own names, which a registry that already has one is not filled with
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
except ImportError:
    LM = object

    def register_model(*_: str) -> Callable[[type], type]:
        """Nowhere to register it."""
        return lambda cls: cls

LOG = logging.getLogger(__name__)
AUTO_PARALLEL = 8   # texts read together
MAX_OTHERS = 4096   # default max_length of models whose memory grows with the text
AHEAD = 8           # answers are begun in portions of so many times n_parallel

# of Llama's arguments, those that mean something to an evaluation
LLAMA_ARGUMENTS = ("check_tensors", "flash_attn", "lora_path", "lora_scale", "n_batch", "n_gpu_layers", "n_threads", "n_threads_batch", "n_ubatch",
                   "rpc_servers", "spike", "spike_k", "type_k", "type_v", "use_mlock", "use_mmap", "verbose")
OWN_ARGUMENTS = ("pretrained", "batch_size", "max_batch_size", "max_length", "max_gen_toks", "prefix_token_id", "seed", "device", "trust_remote_code")


class NoCache:
    """lm_eval's hook that stores each result as soon as it is there (--use_cache), where there is none."""

    def add_partial(self, attr: str, req: object, res: object) -> None:
        """Nothing is stored."""


@register_model("spikingbrain")
class SpikingBrainLM(LM):  # type: ignore[misc]
    """A GGUF file as lm_eval asks it: loglikelihood, loglikelihood_rolling, generate_until.

    A request is any object whose `args` are its arguments. Texts are read batch_size at a time; what several begin with (few-shot examples, the
    question of a multiple choice) is read once. Rows of logits exist for the tokens to be scored only, in one decode.
    """

    def __init__(self, pretrained: str = "", *, batch_size: Union[int, str] = 1, max_batch_size: Optional[int] = None, max_length: Optional[int] = None,
                 max_gen_toks: int = 256, prefix_token_id: Optional[int] = None, seed: int = 1234, device: Optional[str] = None,
                 trust_remote_code: Optional[bool] = None, **options: Any) -> None:
        """pretrained: path of a GGUF file. options: Llama's arguments that LLAMA_ARGUMENTS names, spike_k among them.

        batch_size: texts read together, "auto": 8, at most max_batch_size; each has a state of its own, as three more have.
        max_length: tokens of the longest text, its beginning is cut. None: the trained length, at most 4096 where the memory grows with the text.
        max_gen_toks: of an answer whose task says nothing. prefix_token_id: read before a text without context; None: the file's BOS, else its EOS.
        seed: of answers that are drawn. device: "cpu" or None. trust_remote_code: lm_eval's own, for data sets.
        ValueError, TypeError: an argument. ModelNotFoundError, ModelLoadError: the file.
        """
        super().__init__()
        _check_arguments(pretrained, device, options)
        self.batch_size = _read_batch_size(batch_size, max_batch_size)
        self.max_gen_toks = check_range("eval: max_gen_toks", max_gen_toks)
        self.seed = integer("eval: seed", seed)
        self.llm = Llama(pretrained, **options)
        self.cache_hook: Any = getattr(self, "cache_hook", NoCache())
        self._template: Optional[str] = None
        self._scorer: Optional[Scorer] = None
        try:
            self.max_length = self._read_max_length(max_length)
            self.prefix_token_id = self._read_prefix(prefix_token_id)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free the model."""
        self.llm.close()

    def _read_max_length(self, given: Optional[int]) -> int:
        arch = self.llm.metadata.get("general.architecture", "")
        trained = int(self.llm.metadata.get(f"{arch}.context_length", 0)) or MAX_OTHERS
        own = trained if arch == ARCH else min(trained, MAX_OTHERS)
        return own if given is None else check_range("eval: max_length", given, low=2, high=2**22)

    def _read_prefix(self, given: Optional[int]) -> int:
        if given is not None:
            return check_range("eval: prefix_token_id", given, low=0, high=self.llm.n_vocab() - 1)
        named = "tokenizer.ggml.bos_token_id" in self.llm.metadata
        return self.llm.token_bos() if named else self.eot_token_id

    # --- what lm_eval asks about the model -----------------------------------------------------------------------------

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text, -1: none."""
        return self.llm.token_eos()

    @property
    def tokenizer_name(self) -> str:
        """Of the vocabulary, for lm_eval's cache of requests."""
        return self.llm._model.vocab_print()

    def get_model_info(self) -> dict[str, Any]:
        """What stands beside the results."""
        with self.llm._model.use() as model:
            n = model.n_params()
        return {"model_num_parameters": n, "model_architecture": self.llm.metadata.get("general.architecture"), "spiking": self.llm.spiking,
                "spike_k": self.llm.spike_k, "spike_scope": self.llm.spike_scope, "max_length": self.max_length}

    def chat_template(self, chat_template: Union[bool, str] = False) -> Optional[str]:
        """The template that apply_chat_template uses from now on: the file's own (True) or the one of a name. ValueError: there is none."""
        if chat_template is False or chat_template is None:
            return None
        name = chat_template if isinstance(chat_template, str) else None
        with self.llm._model.use() as model:
            source = model.chat_template(name)
        if source is None:
            raise ValueError(f"eval: apply_chat_template: got a file without {'a chat template' if name is None else f'the template {name!r}'}, "
                             "expected one; leave --apply_chat_template out, or convert the model again")
        self._template = source
        return source

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """The prompt of a chat; without add_generation_prompt it ends in the last message, which an answer then continues."""
        text = self.llm.apply_chat_template(chat_history, add_generation_prompt=add_generation_prompt, template=self._template)
        if add_generation_prompt:
            return text
        last = str(chat_history[-1]["content"]).strip()
        if last not in text:
            raise ValueError(f"eval: apply_chat_template: got a template that changes the last message {last[:40]!r}, expected its text in the prompt")
        return text[:text.rindex(last) + len(last)]

    def tok_encode(self, string: str, add_special_tokens: Optional[bool] = None) -> list[int]:
        """Token ids; control tokens count. add_special_tokens: None: as the file says, but not where the text begins with them."""
        begins = self.llm.metadata.get("tokenizer.ggml.add_bos_token") == "true" and string.startswith(self._bos_text())
        return self.llm.tokenize(string, add_bos=not begins if add_special_tokens is None else add_special_tokens, special=True)

    def _bos_text(self) -> str:
        return self.llm.detokenize([self.llm.token_bos()], special=True).decode("utf-8", "replace")

    # --- log probabilities ---------------------------------------------------------------------------------------------

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Of each (context, continuation): log probability of the continuation, and whether each of its tokens was the likeliest.

        ValueError: a continuation without tokens, or of more than max_length.
        """
        pairs = [request.args for request in requests]
        items = [self._pair(context, continuation) for context, continuation in tqdm(pairs, desc="Tokenizing", disable=disable_tqdm)]
        self._cut(items)
        results: list[Any] = [None] * len(items)

        def ended(number: int, logprob: float, greedy: bool) -> None:
            results[number] = (logprob, greedy)
            self.cache_hook.add_partial("loglikelihood", pairs[number], results[number])

        self._score(items, ended, "loglikelihood", disable_tqdm)
        return results

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Of each (text,): log probability of all of it, after prefix_token_id, in windows of max_length tokens."""
        texts = [request.args[0] for request in requests]
        items, owners = list[Scored](), list[int]()
        for i, text in enumerate(texts):
            windows = list(self._windows(text))
            items += windows
            owners += [i] * len(windows)
        left, totals = np.bincount(owners, minlength=len(texts)), np.zeros(len(texts))

        def ended(number: int, logprob: float, _: bool) -> None:
            owner = owners[number]
            totals[owner] += logprob
            left[owner] -= 1
            if left[owner] == 0:
                self.cache_hook.add_partial("loglikelihood_rolling", (texts[owner],), float(totals[owner]))

        self._score(items, ended, "loglikelihood_rolling", disable_tqdm)
        return [float(total) for total in totals]

    def _pair(self, context: str, continuation: str) -> Scored:
        """Split as the field does it: spaces at the context's end belong to the continuation; both are tokenized as one text."""
        if context == "":
            more = self.tok_encode(continuation, add_special_tokens=False)
            first = [] if more[:1] == [self.prefix_token_id] else self._prefix()
            return Scored(np.array(first + more, np.int32), 1)
        n_spaces = len(context) - len(context.rstrip())
        if n_spaces:
            context, continuation = context[:-n_spaces], context[-n_spaces:] + continuation
        whole, before = self.tok_encode(context + continuation), self.tok_encode(context)
        if context == "":  # spaces only
            return Scored(np.array(self._prefix() + whole, np.int32), 1)
        return Scored(np.array(whole, np.int32), len(before))

    def _prefix(self) -> list[int]:
        if self.prefix_token_id < 0:
            raise ValueError("eval: prefix_token_id: got a file without BOS and EOS, expected a token to begin texts without context with; give one")
        return [self.prefix_token_id]

    def _cut(self, items: list[Scored]) -> None:
        """Texts of more than max_length tokens lose their beginning."""
        n_cut = 0
        for item in items:
            n_more = item.tokens.size - item.n_context
            if not 1 <= n_more <= self.max_length or item.n_context < 1:
                raise ValueError(f"eval: loglikelihood: got a continuation of {max(0, n_more)} tokens after {item.n_context}, "
                                 f"expected 1 to max_length={self.max_length} after at least 1; change the task, or max_length")
            cut = item.tokens.size - self.max_length - 1
            if cut > 0:
                item.tokens, item.n_context = item.tokens[cut:], item.n_context - cut
                n_cut += 1
        if n_cut:
            LOG.warning("eval: loglikelihood: %d of %d texts have more than max_length=%d tokens and lose their beginning", n_cut, len(items), self.max_length)

    def _windows(self, text: str) -> Iterator[Scored]:
        """Every token scored once: windows of max_length that begin with the last token of the one before; the last one is as long, but scores what is left."""
        tokens, size = np.array(self._prefix() + self.tok_encode(text), np.int32), self.max_length
        for begin in range(1, tokens.size, size):
            end = min(begin + size, tokens.size)
            yield Scored(tokens[max(0, end - size - 1):end], begin - max(0, end - size - 1))

    def _score(self, items: list[Scored], ended: Callable[[int, float, bool], None], name: str, disable_tqdm: bool) -> None:
        longest = max((item.read.size for item in items), default=0)
        if not longest:
            return
        n_tokens = sum(item.read.size for item in items)
        scorer = Scorer(self.llm._model, self.batch_size, int(longest))
        try:
            with tqdm(total=n_tokens, desc=f"Running {name} requests", unit="token", unit_scale=True, disable=disable_tqdm) as bar:
                def counted(number: int, logprob: float, greedy: bool) -> None:
                    bar.update(items[number].read.size)
                    ended(number, logprob, greedy)

                scorer.run(items, counted)
        finally:
            scorer.close()

    # --- answers -------------------------------------------------------------------------------------------------------

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Of each (context, arguments): the answer, up to one of the texts `until`, the model's own end or max_gen_toks.

        ValueError: an argument that the model does not know, or one too long.
        """
        groups: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(i)
        answers: list[str] = [""] * len(requests)
        read = {key: read_gen_kwargs(requests[numbers[0]].args[1], self.max_gen_toks) for key, numbers in groups.items()}
        with tqdm(total=len(requests), desc="Running generate_until requests", disable=disable_tqdm) as bar:
            for key, numbers in groups.items():
                prompts = {i: self._prompt(requests[i].args[0], read[key][2]) for i in numbers}
                order = sorted(numbers, key=lambda i: -prompts[i].size)
                for first in range(0, len(order), AHEAD * self.batch_size):
                    self._answer(order[first:first + AHEAD * self.batch_size], prompts, read[key], requests, answers, bar)
        return answers

    def _answer(self, numbers: list[int], prompts: Mapping[int, Ids], arguments: tuple[Sampling, list[str], int], requests: Sequence[Any],
                answers: list[str], bar: Any) -> None:
        sampling, stops, n_most = arguments

        def ended(answer: dict[str, Any]) -> None:
            i = answer["index"]
            answers[i] = answer["text"]
            self.cache_hook.add_partial("generate_until", requests[i].args, answer["text"])
            bar.update()

        many = Many(self.llm._model, sampling, stops, self.llm.last_n_tokens_size, ended)
        many.run([many.job(i, prompts[i], self.seed + i, n_most) for i in numbers], min(self.batch_size, len(numbers)), None)

    def _prompt(self, context: str, n_most: int) -> Ids:
        room = self.max_length - n_most
        if room < 1:
            raise ValueError(f"eval: generate_until: max_gen_toks: got {n_most}, expected less than max_length={self.max_length}; lower it, or raise max_length")
        return np.array((self.tok_encode(context) or self._prefix())[-room:], np.int32)


def _check_arguments(pretrained: str, device: Optional[str], options: Mapping[str, Any]) -> None:
    for name in options:
        if name not in LLAMA_ARGUMENTS:
            raise ValueError(f"eval: model_args: {name}: got an argument that does not exist, expected one of "
                             f"{', '.join(sorted({*OWN_ARGUMENTS, *LLAMA_ARGUMENTS}))}")
    if not isinstance(pretrained, str) or not pretrained:
        raise ValueError(f"eval: model_args: pretrained: got {pretrained!r}, expected the path of a GGUF file; give pretrained=model.gguf")
    if device not in (None, "cpu"):
        raise ValueError(f"eval: device: got {device!r}, expected cpu: this build computes on CPUs; leave it out")


def _read_batch_size(size: Union[int, str], most: Optional[int]) -> int:
    n = AUTO_PARALLEL if isinstance(size, str) and size.split(":")[0] == "auto" else int(size) if isinstance(size, str) and size.isdecimal() else size
    if isinstance(n, str):
        raise ValueError(f"eval: batch_size: got {n!r}, expected an integer or auto")
    n = check_range("eval: batch_size", n, high=MAX_SCORED)
    return n if most is None else min(n, check_range("eval: max_batch_size", most))


_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # lm_eval's names of one thing; the first that is there holds
_DRAWN = {"temperature": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p", "typical_p": "typical_p"}
_PENALTIES = {"repetition_penalty": "repeat_penalty", "frequency_penalty": "frequency_penalty", "presence_penalty": "presence_penalty"}


def read_gen_kwargs(given: Mapping[str, Any], max_gen_toks: int) -> tuple[Sampling, list[str], int]:
    """(sampling, stop texts, limit) of a task's generation_kwargs. Greedy without do_sample or a temperature, as lm_eval's models are.

    ValueError, TypeError: an argument that is unknown or out of range.
    """
    known = {*_LIMITS, *_DRAWN, *_PENALTIES, "until", "do_sample"}
    for name in given:
        if name not in known:
            raise ValueError(f"eval: gen_kwargs: {name}: got an argument that does not exist, expected one of {', '.join(sorted(known))}")
    temperature = given.get("temperature", 0.0)
    drawn = temperature != 0 if given.get("do_sample") is None else bool(given["do_sample"])
    values: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    values |= {ours: given[name] for name, ours in {**_DRAWN, **_PENALTIES}.items() if name in given}
    until = given.get("until") or []
    stops = read_stops("eval: gen_kwargs: until", [t for t in ([until] if isinstance(until, str) else until) if t])
    limit = next((given[name] for name in _LIMITS if given.get(name) is not None), max_gen_toks)
    return Sampling.from_call(values if drawn else {**values, "temperature": 0.0}), stops, check_range("eval: gen_kwargs: max_gen_toks", limit)
