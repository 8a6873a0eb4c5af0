"""OpenModel: a model file held open: its handle and vocabulary, its lock, and the contexts that are made of it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, Optional, Protocol, TypeVar, Union

import numpy as np
import numpy.typing as npt
from sb_convert.constants import ARCH

from . import _core, remote, spiking
from .errors import Cancelled, LlamaError, ModelLoadError, ModelNotFoundError
from .settings import Settings
from .tokenizer import NORMALIZER_KEY, TEXT, Text, Tokenizer

Handle = TypeVar("Handle")
Tokens = Union[Sequence[int], npt.NDArray[np.integer[Any]]]
Ids = npt.NDArray[np.int32]


class Locked(Generic[Handle]):
    """`with` on a handle, in the process that loaded it. A class, since a generator costs several times as much and each token takes some."""

    __slots__ = ("_model", "_handle")

    def __init__(self, model: OpenModel, handle: Callable[[], Handle]) -> None:
        self._model, self._handle = model, handle

    def __enter__(self) -> Handle:
        model = self._model
        if os.getpid() != model.pid:
            raise LlamaError(f"llama: got process {os.getpid()}, expected {model.pid}, which loaded the model; load it in each process, after os.fork")
        model.lock.acquire()
        try:
            return self._handle()
        except BaseException:
            model.lock.release()
            raise

    def __exit__(self, *_: object) -> None:
        self._model.lock.release()


class Cancels:
    """The tokens of what is under way: cancel() sets them, from any thread. What runs below another is reached through it, too."""

    def __init__(self, above: Optional[Cancels] = None) -> None:
        self._above = above
        self._running: list[_core.CancelToken] = []

    @contextlib.contextmanager
    def running(self, given: Optional[_core.CancelToken] = None) -> Iterator[_core.CancelToken]:
        """The given token, or a new one, which cancel() reaches while the block runs."""
        token = given or _core.CancelToken()
        self._running.append(token)  # once for each call that it was given to
        try:
            with contextlib.nullcontext() if self._above is None else self._above.running(token):
                yield token
        finally:
            self._running.remove(token)

    def cancel(self) -> None:
        """End what is under way; nothing under way: no effect."""
        for token in list(self._running):
            token.cancel()


def refuse_cancelled(where: str, token: _core.CancelToken) -> None:
    """Cancelled: the token is."""
    if token.cancelled:
        raise Cancelled(f"llama: {where}: got a cancel, expected none; call again to go on")


class Held(Protocol):
    """What must be closed before its model."""

    @property
    def busy(self) -> str:
        """The call that is under way, empty: none."""

    def release(self) -> None:
        """Frees what it holds of the model."""


class OpenModel:
    """One model, used by one thread at a time, in the process that loaded it.

    Holders (contexts) are known weakly: what nobody uses any more is freed at once, the rest by close().
    """

    def __init__(self, settings: Settings) -> None:
        """ModelNotFoundError, ModelLoadError: no such file, or not loadable. ValueError: an argument that means nothing to this model."""
        self.settings = settings
        self.pid = os.getpid()
        self.lock = threading.RLock()
        self.cancels = Cancels()
        self.n_evaluated = 0  # tokens, since the file was loaded
        self.holders: weakref.WeakSet[Held] = weakref.WeakSet()
        self._adapters: list[tuple[_core.Adapter, float]] = []
        self._vocab_print: Optional[str] = None
        self._handle: Optional[_core.Model] = None
        try:
            self._load(settings)
        except RuntimeError as error:
            self.close()
            if isinstance(error, LlamaError):
                raise
            raise ModelLoadError(remote.load_failed(settings.path, error)) from error
        except BaseException:
            self.close()
            raise

    def _load(self, s: Settings) -> None:
        self._handle = _core.Model(s.path, vocab_only=s.vocab_only, use_mmap=s.use_mmap, use_mlock=s.use_mlock,
                                   check_tensors=s.check_tensors, kv_overrides=s.kv_overrides, verbose=s.verbose,
                                   rpc_servers=s.rpc_servers, n_gpu_layers=s.n_gpu_layers)
        self.metadata: dict[str, str] = self._handle.metadata()
        self.architecture = self.metadata.get("general.architecture")
        self.spiking = spiking.Spiking.of(self.metadata, s.kv_overrides)
        spiking.check_arguments(self.spiking, self.architecture, s.spike, s.spike_k, s.spike_stats)
        self.tokenizer = Tokenizer(self._handle, self.metadata.get(NORMALIZER_KEY))
        if not s.vocab_only:
            self._check_window_types()
            self._load_adapter()

    def _load_adapter(self) -> None:
        if self.settings.lora is None:
            return
        path, scale = self.settings.lora
        if not Path(path).is_file():
            raise ModelNotFoundError(f"llama: lora_path: got {path}, expected a GGUF file; check the path")
        try:
            self._adapters = [(_core.Adapter(self.handle(), path), scale)]
        except RuntimeError as error:
            raise ModelLoadError(f"llama: lora_path: {error}; convert it again") from error
        if int(self.metadata.get("spikingbrain.sink_count", 0)) > 0:
            warnings.warn("llama: lora_path: the constants of the sinks were computed without this adapter; its results are approximate", stacklevel=4)

    def _check_window_types(self) -> None:
        """llama.cpp's F16 means "as the matrices" to `spikingbrain`: asked for in so many words, it cannot be had."""
        f32 = self.architecture == ARCH and self.metadata.get("general.file_type") == "0"
        for name, value in (("type_k", self.settings.type_k), ("type_v", self.settings.type_v)):
            if f32 and value == 1:
                raise ValueError(f"llama: {name}: got 1 (F16), expected 0 (F32) or None with F32 matrices; leave it out")

    # --- life ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Free the model and its contexts. LlamaError: called from inside one of their calls."""
        with contextlib.nullcontext() if os.getpid() != self.pid else self.lock:
            holders = list(self.holders)
            for holder in holders:  # this thread's own, since it has the lock
                if holder.busy:
                    raise LlamaError(f"llama: close: got a call from inside {holder.busy}, expected one after it; close it when that has ended")
            for holder in holders:
                holder.release()
            if self._handle is not None:
                self._handle.close()
            self._handle = None

    def handle(self) -> _core.Model:
        """For who has the lock. LlamaError: closed."""
        if self._handle is None:
            raise LlamaError("llama: got a closed Llama, expected an open one; load the model again")
        return self._handle

    def use(self) -> Locked[_core.Model]:
        """The model, for one thread at a time."""
        return Locked(self, self.handle)

    def new_context(self, **options: Any) -> _core.Context:
        """Another context of the model; options: see _core.Context. LlamaError: llama.cpp refuses them."""
        s = self.settings
        if s.flash_attn is False and self.architecture == ARCH:
            raise ValueError("llama: flash_attn: got False, expected True or None: the window operator of spikingbrain is fused; leave it out")
        try:
            ctx = _core.Context(self.handle(), **{
                "n_ctx": s.n_ctx or 0, "n_rs_seq": s.n_rs_seq, "n_ubatch": s.n_ubatch, "n_threads": s.n_threads, "n_threads_batch": s.n_threads_batch,
                "type_k": s.type_k, "type_v": s.type_v, "stop_inside": self._can_stop_inside(),
                "flash_attn": -1 if s.flash_attn is None else int(s.flash_attn), **options})
            if self._adapters:
                ctx.set_adapters(self._adapters)
            return ctx
        except _core.Lost:
            raise
        except RuntimeError as error:
            raise LlamaError(f"llama: context: got a refusal from llama.cpp: {error}; change the arguments") from error

    def _can_stop_inside(self) -> bool:
        """llama.cpp's recurrent memories are left half updated by a graph that stops; `spikingbrain`'s undoes the micro-batch."""
        return self.architecture == ARCH or not (self.is_recurrent() or self.is_hybrid())

    def is_recurrent(self) -> bool:
        """Whether all layers keep a state."""
        with self.use() as model:
            return model.is_recurrent()

    def is_hybrid(self) -> bool:
        """Whether some do."""
        with self.use() as model:
            return model.is_hybrid()

    # --- vocabulary ----------------------------------------------------------------------------------------------

    def n_vocab(self) -> int:
        """Entries of the vocabulary."""
        with self.use() as model:
            return model.n_vocab()

    def is_eog(self, token: int) -> bool:
        """Whether generation ends on it."""
        with self.use() as model:
            return model.is_eog(token)

    def piece(self, token: int) -> bytes:
        """Bytes of one token inside a text."""
        with self.use():
            return self.tokenizer.piece(token)

    def tokenize(self, text: Text, add_bos: bool, special: bool) -> list[int]:
        """Token ids of a text."""
        with self.use():
            return self.tokenizer.encode(text, add_bos, special)

    def detokenize(self, tokens: Sequence[int], special: bool) -> bytes:
        """Bytes of tokens."""
        with self.use():
            return self.tokenizer.decode(tokens, special)

    def prompt(self, where: str, prompt: Union[Text, Tokens]) -> Ids:
        """Token ids of a prompt: a text, in which control tokens count, or ids."""
        if isinstance(prompt, TEXT):
            prompt = self.tokenize(prompt, add_bos=True, special=True)
        return self.ids(where, prompt)

    def ids(self, where: str, tokens: Tokens) -> Ids:
        """Tokens as an array. TypeError, ValueError: they are none of this model's."""
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

    def vocab_print(self) -> str:
        """Hash of the vocabulary and of how a text is split into it."""
        if self._vocab_print is None:
            with self.use() as model:
                more = repr(sorted((k, v) for k, v in self.metadata.items() if k in ("tokenizer.ggml.pre", NORMALIZER_KEY)))
                self._vocab_print = hashlib.sha256(_core.vocab_digest_input(model) + more.encode()).hexdigest()
        return self._vocab_print
