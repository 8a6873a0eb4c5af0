"""llama_cpp.llama: Llama for programs that were written for llama-cpp-python."""

from __future__ import annotations

import functools
import inspect
import os
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Optional, TypeVar, Union

import numpy as np
import numpy.typing as npt
from sb_convert.numerics import log_softmax

from .. import _core, llama as strict
from ..caches import BaseLlamaCache
from ..chat_completion import Chats
from ..chat_request import OWN_TEMPLATE
from ..errors import LlamaError
from ..model import Ids
from ..sampling import LogitsProcessor as LogitsProcessor, LogitsProcessorList as LogitsProcessorList, StoppingCriteriaList as StoppingCriteriaList, StoppingCriterion
from ..sequence import Row
from ..state import LlamaState as LlamaState
from . import echo, legacy, options
from .llama_cache import LlamaCache as LlamaCache, LlamaDiskCache as LlamaDiskCache, LlamaRAMCache as LlamaRAMCache, OtherCache
from .llama_chat_format import FormatterHandler, LlamaChatCompletionHandlerNotFoundException, formatter_of, get_chat_completion_handler
from .llama_grammar import LlamaGrammar as LlamaGrammar
from .llama_tokenizer import LlamaTokenizer as LlamaTokenizer, Replaced
from .llama_types import *  # noqa: F403
from .tool_texts import ToolTexts
from .views import AskedModel, ContextView, ModelView, context_params, last_rows

StoppingCriteria = StoppingCriterion
Call = TypeVar("Call", bound=Callable[..., Any])
FUNCTION_CALLING = "chatml-function-calling"
_OURS = ("stopping_criteria", "progress", "cancel", "lenient_schema")  # arguments of a chat that handlers of others do not know
_NO_TEMPLATE = "llama-2"  # llama-cpp-python's format for models without a template


class MinTokensLogitsProcessor:
    """No end of the text before min_tokens new ones."""

    def __init__(self, min_tokens: int, token_eos: int) -> None:
        self.min_tokens, self.token_eos = min_tokens, token_eos
        self.prompt_tokens: Optional[int] = None

    def __call__(self, input_ids: Ids, scores: Row) -> Row:
        if self.prompt_tokens is None:
            self.prompt_tokens = len(input_ids)
        if len(input_ids) < self.prompt_tokens + self.min_tokens:
            scores[self.token_eos] = -np.inf
        return scores


def _like(of: Callable[..., Any]) -> Callable[[Call], Call]:
    """Decorator: has the signature and the words of the strict class's method."""
    def decorate(method: Call) -> Call:
        functools.update_wrapper(method, of, assigned=("__doc__",))
        return method
    return decorate


def _said(method: Callable[..., Any], llama: Llama, args: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """A call's arguments by name; None says nothing, but of max_tokens. TypeError: one that does not exist."""
    signature = inspect.signature(method)
    try:
        given = dict(signature.bind(llama, *args, **named).arguments)
    except TypeError as error:
        raise TypeError(f"{method.__name__}: {error}") from None
    del given["self"]
    return {name: value for name, value in given.items() if value is not None or name == "max_tokens"}


@functools.cache
def _chat_defaults() -> dict[str, Any]:
    """Of create_chat_completion's arguments."""
    parameters = inspect.signature(strict.Llama.create_chat_completion).parameters
    return {name: p.default for name, p in parameters.items() if name not in ("self", "messages")}


class Llama(strict.Llama):
    """spikingbrain_cpp.Llama for programs that were written for llama-cpp-python 0.3.36.

    What those pass out of habit and means nothing here is taken, with one warning; what they look into is there. What stays refused, and why,
    is a table in bindings/README.md.
    """

    _opens = AskedModel

    def __init__(self, model_path: Union[str, os.PathLike[str]], *, chat_format: Optional[str] = None, tokenizer: Any = None, **given: Any) -> None:
        """chat_format: also llama-cpp-python's names, or one that is registered. tokenizer: a BaseLlamaTokenizer in place of the file's own.
        given: see options.py and spikingbrain_cpp.Llama."""
        arguments = options.translated(given)
        builtin = chat_format if chat_format in _core.builtin_templates() else None
        if chat_format is not None and builtin is None and chat_format not in (*OWN_TEMPLATE, FUNCTION_CALLING):
            try:
                get_chat_completion_handler(chat_format)
            except LlamaChatCompletionHandlerNotFoundException as error:
                raise ValueError(f"llama: {error}; or one of llama.cpp's: {', '.join(_core.builtin_templates())}") from None
        super().__init__(model_path, chat_format=builtin, **arguments)
        self.chat_format = self._named_format(chat_format)
        self._formats: dict[Any, Chats] = {}
        self._tokenizer = LlamaTokenizer(self)
        self.tokenizer_ = tokenizer or self._tokenizer
        if tokenizer is not None:
            self._model.tokenizer = Replaced(self._model.tokenizer, tokenizer)

    def _named_format(self, given: Optional[str]) -> Optional[str]:
        if given is not None or self.chat_handler is not None:
            return given
        with self._model.use() as model:
            return "chat_template.default" if model.chat_template() is not None else None

    # --- answers -------------------------------------------------------------------------------------------------

    @_like(strict.Llama.create_completion)
    def create_completion(self, *args: Any, **named: Any) -> Any:
        given = _said(strict.Llama.create_completion, self, args, named)
        if given.get("suffix") == "":
            del given["suffix"]
        if given.get("echo") and "logprobs" in given:
            return echo.completion(self, super().create_completion, given)
        return super().create_completion(**given)

    @_like(strict.Llama.create_completion)
    def __call__(self, *args: Any, **named: Any) -> Any:
        return self.create_completion(*args, **named)

    @_like(strict.Llama.create_chat_completion)
    def create_chat_completion(self, *args: Any, **named: Any) -> Any:
        given = _said(strict.Llama.create_chat_completion, self, args, named)
        handler = self.chat_handler
        if handler is None and not self._is_template(self.chat_format):
            handler = get_chat_completion_handler(str(self.chat_format))
        if handler is None:
            return self._answer_in(self.chat_format, given)
        if isinstance(handler, FormatterHandler):
            return self._answer_in(handler.formatter, given)
        return handler(llama=self, **{**{name: value for name, value in _chat_defaults().items() if name not in _OURS}, **given})

    def answer_by(self, formatter: Callable[..., Any], messages: Any, given: Mapping[str, Any]) -> Any:
        """A chat's answer to the prompt that a ChatFormatter makes of it. given: further arguments of create_chat_completion."""
        return self._answer_in(formatter, _said(strict.Llama.create_chat_completion, self, (), {"messages": messages, **given}))

    @staticmethod
    def _is_template(name: Optional[str]) -> bool:
        """The model's own, or one of llama.cpp's, by which tools are known, too."""
        return name in (*OWN_TEMPLATE, FUNCTION_CALLING) or name in _core.builtin_templates()

    def _answer_in(self, kind: Any, given: dict[str, Any]) -> Any:
        """kind: a name, or a formatter."""
        asked = legacy.as_tools({**_chat_defaults(), "lenient_schema": True, **given})
        if kind not in self._formats:
            self._formats[kind] = Chats(self._model, lambda model: self._format_of(model, kind))
        answer = self._answer(self._formats[kind], asked)
        return legacy.with_function_call(answer) if "functions" in given else answer

    def _format_of(self, model: _core.Model, kind: Any) -> ToolTexts:
        if callable(kind):
            return ToolTexts(model, formatter=kind)
        if kind in OWN_TEMPLATE and model.chat_template() is None:
            warnings.warn(f"llama: chat_format: the file has no template; {_NO_TEMPLATE} is taken, as llama-cpp-python does", UserWarning, stacklevel=2)
            return ToolTexts(model, formatter=formatter_of(_NO_TEMPLATE))
        return ToolTexts(model, "chatml" if kind == FUNCTION_CALLING else kind)

    def eval(self, tokens: Any, **named: Any) -> None:
        """As spikingbrain_cpp.Llama's; no tokens, no effect."""
        if len(tokens):
            super().eval(tokens, **named)

    @_like(strict.Llama.generate)
    def generate(self, *args: Any, **named: Any) -> Any:
        return super().generate(**_said(strict.Llama.generate, self, args, named))

    @_like(strict.Llama.sample)
    def sample(self, *args: Any, **named: Any) -> int:
        return super().sample(**_said(strict.Llama.sample, self, args, named))

    # --- caches ----------------------------------------------------------------------------------------------------

    @property
    def cache(self) -> Any:
        """What set_cache() was given; assigning is set_cache()."""
        return getattr(self._cache, "given", self._cache)

    @cache.setter
    def cache(self, cache: Any) -> None:
        self.set_cache(cache)

    def set_cache(self, cache: Any) -> None:
        """As spikingbrain_cpp.Llama's; any object takes part that has __getitem__, __setitem__ and __contains__. TypeError: it has not."""
        super().set_cache(cache if cache is None or isinstance(cache, BaseLlamaCache) else OtherCache(cache))

    # --- what programs look into -----------------------------------------------------------------------------------

    @property
    def model(self) -> ModelView:
        """The model, to be asked."""
        return ModelView(self)

    @property
    def ctx(self) -> ContextView:
        """The sequence that is read."""
        return ContextView(self, self.cut)

    @property
    def _ctx(self) -> ContextView:
        return ContextView(self, self.cut)

    @property
    def context_params(self) -> SimpleNamespace:
        """What the context was made with."""
        return SimpleNamespace(**context_params(self))

    def tokenizer(self) -> LlamaTokenizer:
        """The model's tokenizer as an object."""
        return self._tokenizer

    @property
    def n_tokens(self) -> int:
        """Tokens the sequence holds. Assigning fewer takes back the others. LlamaError: the memory does not."""
        return super().n_tokens

    @n_tokens.setter
    def n_tokens(self, n: int) -> None:
        held = self.n_tokens
        if not 0 <= n <= held:
            raise ValueError(f"n_tokens: got {n}, expected 0 to {held}, the tokens that are held")
        if n < held and not self.cut(n):
            raise LlamaError(f"n_tokens: got {n}, expected 0 or what the memory can take back of {held} (n_rs_seq); reset and eval again")

    def cut(self, n: int) -> bool:
        """Hold the first n tokens only. False: the memory cannot take back so many; it holds as many as before."""
        if n == 0:
            self.reset()
            return True
        with self._sequence.context.changing("n_tokens"):
            self._chain = None
            return self._sequence.cut(n)

    @property
    def _input_ids(self) -> npt.NDArray[np.int32]:
        return self.input_ids

    @property
    def _scores(self) -> npt.NDArray[np.float32]:
        rows: npt.NDArray[np.float32] = last_rows(self)
        return rows

    @property
    def eval_tokens(self) -> deque[int]:
        """The tokens that are held."""
        return deque(self.input_ids.tolist(), maxlen=self.n_ctx())

    @property
    def eval_logits(self) -> deque[list[float]]:
        """Their logits: with logits_all all of them, else the last one's."""
        all_rows = self._model.settings.logits_all
        return deque(self._scores.tolist(), maxlen=self.n_ctx() if all_rows else 1)

    @property
    def _n_ctx(self) -> int:
        return self.n_ctx()

    @property
    def _n_vocab(self) -> int:
        return self.n_vocab()

    @property
    def _token_eos(self) -> int:
        return self.token_eos()

    @property
    def _token_nl(self) -> int:
        return self.token_nl()

    @property
    def _logits_all(self) -> bool:
        return self._model.settings.logits_all

    @property
    def _is_recurrent(self) -> bool:
        return self._model.is_recurrent()

    @property
    def _is_hybrid(self) -> bool:
        return self._model.is_hybrid()

    @staticmethod
    def logits_to_logprobs(logits: Any, axis: int = -1) -> npt.NDArray[np.float32]:
        """Logs of the probabilities, in nats, along an axis."""
        return np.asarray(log_softmax(np.asarray(logits, np.float32), axis), np.float32)

    @staticmethod
    def longest_token_prefix(a: Sequence[int], b: Sequence[int]) -> int:
        """Tokens that both begin with."""
        n = min(len(a), len(b))
        differ = np.flatnonzero(np.asarray(a[:n]) != np.asarray(b[:n]))
        return int(differ[0]) if differ.size else n
