"""LoadedModel: what can be asked of an open model file: its life, its figures, its vocabulary, its chat template."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Optional, TypeVar, Union

import numpy as np
import numpy.typing as npt

from . import _core, chat
from .arguments import check_range, flag
from .errors import LlamaError
from .tokenizer import TEXT, Text, Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Self

Handle = TypeVar("Handle")
Tokens = Union[Sequence[int], npt.NDArray[np.integer[Any]]]


class _Locked(Generic[Handle]):
    """`with` on a handle, in the process that loaded it. A class, since a generator costs several times as much and each token takes some."""

    __slots__ = ("_owner", "_handle")

    def __init__(self, owner: LoadedModel, handle: Callable[[LoadedModel], Handle]) -> None:
        self._owner, self._handle = owner, handle

    def __enter__(self) -> Handle:
        owner = self._owner
        if os.getpid() != owner._pid:
            raise LlamaError(f"llama: got process {os.getpid()}, expected {owner._pid}, which loaded the model; load it after the fork")
        owner._lock.acquire()
        try:
            return self._handle(owner)
        except BaseException:
            owner._lock.release()
            raise

    def __exit__(self, *_: object) -> None:
        self._owner._lock.release()


class LoadedModel:
    """The handles of one model, used by one thread at a time, in the process that made them. Session makes them."""

    metadata: dict[str, str]
    _model: Optional[_core.Model]
    _ctx: Optional[_core.Context]
    _tokenizer: Tokenizer
    _lock: threading.RLock
    _pid: int
    _n_ctx_given: Optional[int]

    # --- life ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Free the model. Calling it again is harmless; any other call afterwards raises LlamaError."""
        with contextlib.nullcontext() if os.getpid() != self._pid else self._lock:
            for other in self._others():
                other.close()
            if self._ctx is not None:
                self._ctx.close()
            if self._model is not None:
                self._model.close()
            self._ctx = self._model = None

    def _others(self) -> list[Any]:
        """What else must be closed before the model."""
        return []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def _use(self) -> _Locked[_core.Context]:
        """The context, for one thread at a time."""
        return _Locked(self, LoadedModel._open_context_handle)

    def _locked_model(self) -> _Locked[_core.Model]:
        """The model, for one thread at a time."""
        return _Locked(self, LoadedModel._open_model_handle)

    def _open_model_handle(self) -> _core.Model:
        if self._model is None:
            raise LlamaError("llama: got a closed Llama, expected an open one; load the model again")
        return self._model

    def _open_context_handle(self) -> _core.Context:
        self._open_model_handle()
        if self._ctx is None:
            raise LlamaError("llama: got a model loaded with vocab_only=True, expected one with weights; "
                             "load it without vocab_only")
        return self._ctx

    # --- the model ---------------------------------------------------------------------------------------------

    def n_vocab(self) -> int:
        """Entries of the vocabulary; width of a row of logits."""
        with self._locked_model() as model:
            return model.n_vocab()

    def n_embd(self) -> int:
        """Width of the residual stream."""
        with self._locked_model() as model:
            width = self.metadata.get(f"{self.metadata.get('general.architecture')}.embedding_length")
            return int(width) if model.vocab_only and width else model.n_embd()

    def n_ctx(self) -> int:
        """Most tokens the sequence may hold: the n_ctx given, else the model's own (2^30 for `spikingbrain`)."""
        with self._use() as ctx:
            return self._n_ctx_given or ctx.n_ctx()

    def default_max_tokens(self, n_prompt: int = 0) -> int:
        """The max_tokens of a completion that names none, after a prompt of n_prompt tokens.

        Up to n_ctx, where one was given. Else prompt and answer end together at max(trained length, 32768) tokens, but not
        before 4096 new ones.
        """
        with self._locked_model() as model:
            n_prompt = check_range("llama: n_prompt", n_prompt, low=0)
            room = self.n_ctx() - n_prompt
            return max(0, room if self._n_ctx_given else min(room, model.default_limit(n_prompt)))

    def token_bos(self) -> int:
        """Beginning-of-sequence token, -1 when there is none."""
        with self._locked_model() as model:
            return model.token_bos()

    def token_eos(self) -> int:
        """End-of-sequence token, -1 when there is none. Generation ends on any end-of-generation token, not only it."""
        with self._locked_model() as model:
            return model.token_eos()

    def token_nl(self) -> int:
        """Newline token, -1 when there is none."""
        with self._locked_model() as model:
            return model.token_nl()

    def _is_eog(self, token: int) -> bool:
        with self._locked_model() as model:
            return model.is_eog(token)

    def model_size(self) -> int:
        """Bytes of all weights."""
        with self._locked_model() as model:
            return model.size()

    def state_bytes(self) -> int:
        """Bytes allocated for the sequence's state: fixed when loaded, whatever is read."""
        with self._use() as ctx:
            return ctx.state_bytes()

    # --- text and tokens --------------------------------------------------------------------------------------

    def tokenize(self, text: Text, add_bos: bool = True, special: bool = False) -> list[int]:
        """Token ids of a text (bytes: UTF-8; what is not, counts as U+FFFD).

        add_bos: add the tokens that the model's add_bos_token / add_eos_token keys ask for; they ask for none in
        SpikingBrain's. special: recognise control tokens such as <|im_end|> in the text.
        """
        with self._locked_model():
            return self._tokenizer.encode(text, flag("tokenize: add_bos", add_bos), flag("tokenize: special", special))

    def detokenize(self, tokens: Tokens, prev_tokens: Optional[Tokens] = None, special: bool = False) -> bytes:
        """Bytes of the tokens (maybe a part of a character); special: show control tokens. ValueError: no such token."""
        with self._locked_model():
            ids = self._token_array("detokenize", tokens)
            before = None if prev_tokens is None else self._token_array("detokenize", prev_tokens).tolist()
            return self._tokenizer.decode(ids.tolist(), flag("detokenize: special", special), before)

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True,
                            tools: Optional[Sequence[Mapping[str, Any]]] = None, template: Optional[str] = None,
                            **variables: Any) -> str:
        """The prompt for a chat, as transformers' apply_chat_template(..., tokenize=False) renders it.

        template: Jinja source instead of the model's own. ValueError: the template fails or refuses the messages.
        """
        with self._locked_model() as model:
            bos, eos = (model.token_text(t).decode("utf-8", "replace") if t >= 0 else ""
                        for t in (model.token_bos(), model.token_eos()))
            if tools is not None:
                variables["tools"] = list(tools)
            return chat.render(model.chat_template() if template is None else template, messages,
                               add_generation_prompt=add_generation_prompt,
                               **{"bos_token": bos, "eos_token": eos, **variables})

    def _prompt_tokens(self, where: str, prompt: Union[Text, Tokens]) -> npt.NDArray[np.int32]:
        """Token ids of a prompt: a text, in which control tokens count, or ids."""
        if isinstance(prompt, TEXT):
            prompt = self.tokenize(prompt, add_bos=True, special=True)
        return self._token_array(where, prompt)

    def _token_array(self, where: str, tokens: Tokens) -> npt.NDArray[np.int32]:
        if isinstance(tokens, TEXT):  # bytes would be 0 to 255
            raise TypeError(f"{where}: tokens: got {type(tokens).__name__}, expected integers in a list; tokenize it")
        if not isinstance(tokens, Iterable) or isinstance(tokens, np.ndarray) and tokens.ndim == 0:
            raise TypeError(f"{where}: tokens: got {type(tokens).__name__}, expected integers in a list")
        ids = np.asarray(tokens if isinstance(tokens, np.ndarray) else list(tokens))
        if ids.size == 0:
            return np.empty(0, np.int32)
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise TypeError(f"{where}: tokens: got {ids.dtype} of {ids.ndim} dimensions, expected integers in a list")
        n_vocab = self.n_vocab()
        wrong = ids[(ids < 0) | (ids >= n_vocab)]
        if wrong.size:
            raise ValueError(f"{where}: tokens: got {wrong[0]}, expected 0 to {n_vocab - 1}; use this model's tokens")
        return np.ascontiguousarray(ids, np.int32)
