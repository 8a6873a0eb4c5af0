"""Session: a model file and the one sequence it reads; what Llama is made of, below the choosing of tokens."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

import numpy as np
import numpy.typing as npt

from . import _core, spiking
from .arguments import (check_batch, check_cache_type, check_calls, check_neutral, check_path, check_pooling, check_range, check_scale, flag,
                        check_seed)
from .batch import Batch
from .chat_request import check_chat_format
from .errors import Cancelled, LlamaError, ModelLoadError, ModelNotFoundError
from .history import History
from .loaded import LoadedModel, Tokens
from .spikes.stats import SpikeStats, from_core
from .tokenizer import NORMALIZER_KEY, Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Self

_STATS_STEP = 64  # tokens per call while spikes are counted: each then has a row of logits in llama.cpp's buffer


Progress = Callable[[int, int], object]  # tokens done, tokens in all


def _cpus() -> int:
    """CPUs this process may use."""
    return min(len(os.sched_getaffinity(0)), 512)


def _load(cls: type[Session], args: tuple[Any, ...], options: dict[str, Any]) -> Session:
    return cls(*args, **options)


class Session(LoadedModel):
    """A loaded model and the one sequence it is reading.

    Calls from several threads wait for one another. A call in a forked child, or after close(), raises LlamaError.
    What the sequence holds is decided by llama.cpp's memory alone: n_tokens is asked of it, so that an interrupted
    call (Ctrl-C, no memory) leaves exactly the tokens that were finished.
    """

    _given: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **options: Any) -> Self:
        self = super().__new__(cls)
        self._given = (args, options)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickle says what to load and how; snapshot() and save_state() hold the sequence."""
        return _load, (type(self), *self._given)

    def __init__(
        self,
        model_path: Union[str, os.PathLike[str]],
        *,
        n_ctx: Optional[int] = None,
        n_batch: int = 512,
        n_ubatch: int = 512,
        n_threads: Optional[int] = None,
        n_threads_batch: Optional[int] = None,
        seed: int = _core.DEFAULT_SEED,
        n_gpu_layers: int = 0,
        vocab_only: bool = False,
        use_mmap: bool = True,
        use_mlock: bool = False,
        check_tensors: bool = False,
        kv_overrides: Optional[Mapping[str, Union[bool, int, float, str]]] = None,
        type_k: Optional[int] = None,
        type_v: Optional[int] = None,
        logits_all: bool = False,
        last_n_tokens_size: int = 64,
        flash_attn: Optional[bool] = None,
        embedding: bool = False,
        pooling_type: int = -1,
        lora_path: Optional[Union[str, os.PathLike[str]]] = None,
        lora_scale: float = 1.0,
        spike: Optional[bool] = None,
        spike_k: Optional[float] = None,
        spike_stats: bool = False,
        spike_keep: Optional[tuple[int, int]] = None,
        chat_format: Optional[str] = None,
        chat_handler: Optional[Callable[..., Any]] = None,
        verbose: bool = False,
        **neutral: Any,
    ) -> None:
        """Load a GGUF file (the first part of a split one).

        n_ctx: bound on prompt plus generation, in tokens; None or 0: the model's own, which for `spikingbrain` is none
            (2^30, near the end of 32-bit positions).
        n_batch, n_ubatch: tokens handed to llama.cpp at once, and computed at once.
        n_threads, n_threads_batch: for single tokens and for prompts; None: every CPU this process may use.
        seed: of sampling; the default draws a new one each time.
        n_gpu_layers: 0 or -1; the build computes on CPUs.
        vocab_only: tokenizer and metadata, no weights.
        check_tensors: read all weights once and refuse values that are no numbers.
        kv_overrides: metadata to replace, {key: value}.
        type_k, type_v: ggml types of the window's keys and values (0: F32, 1: F16); None: the model's own.
        logits_all: keep every token's logits (see scores); 4 * n_vocab bytes a token.
        last_n_tokens_size: tokens the penalties look back.
        flash_attn: None: the architecture's own. The window operator of `spikingbrain` is fused, so that False is refused there.
        embedding: embed() and create_embedding() are wanted; they take a second state. pooling_type: see pooling_type().
        lora_path, lora_scale: a LoRA adapter (GGUF) to apply, and how much of it.
        spike: integer spike counts as inputs of the projections; None: as the file says.
        spike_k: threshold of a row = mean |x| / spike_k; larger: more spikes, more accurate. None: the file's, else 3.
        spike_stats: count the spikes (see spike_stats()); slower. Off: costs nothing.
        spike_keep: (tokens, neurons): keep the counts of the first tokens, and the first neurons of each input.
        chat_format: one of llama.cpp's built-in chat templates, by its name; None: the model's own.
        chat_handler: called by create_chat_completion in its place, with llama= and its arguments by name.
        verbose: llama.cpp's log on stderr.
        neutral: further arguments of llama-cpp-python's, at values that change nothing; see arguments.py.

        ModelNotFoundError, ModelLoadError: no such file, or not loadable. ValueError, TypeError: an argument.
        """
        self._model: Optional[_core.Model] = None
        self._ctx: Optional[_core.Context] = None
        self._pid = os.getpid()
        self._lock = threading.RLock()

        check_neutral(neutral)
        self.model_path = check_path("llama: model_path", model_path)
        self.verbose = flag("llama: verbose", verbose)
        self.last_n_tokens_size = check_range("llama: last_n_tokens_size", last_n_tokens_size, low=0)
        self.n_batch = check_range("llama: n_batch", n_batch)
        self.n_threads = check_range("llama: n_threads", n_threads or _cpus(), high=512)
        self.n_threads_batch = check_range("llama: n_threads_batch", n_threads_batch or _cpus(), high=512)
        if n_gpu_layers not in (0, -1):
            raise ValueError(f"llama: n_gpu_layers: got {n_gpu_layers}, expected 0 or -1; this build computes on CPUs")
        self._n_ctx_given = check_range("llama: n_ctx", n_ctx or 0, low=0, high=2**30) or None
        n_ubatch = check_range("llama: n_ubatch", n_ubatch)
        check_batch("llama", self.n_batch, n_ubatch)
        if not Path(self.model_path).is_file():
            raise ModelNotFoundError(f"llama: model_path: got {self.model_path}, expected a GGUF file; check the path")

        self.chat_format = check_chat_format(chat_format)
        if chat_handler is not None and not callable(chat_handler):
            raise TypeError(f"llama: chat_handler: got {type(chat_handler).__name__}, expected a function")
        self.chat_handler = chat_handler
        self._kv_overrides = spiking.with_arguments(kv_overrides or {}, spike, spike_k)
        vocab_only, use_mmap = flag("llama: vocab_only", vocab_only), flag("llama: use_mmap", use_mmap)
        use_mlock, check_tensors = flag("llama: use_mlock", use_mlock), flag("llama: check_tensors", check_tensors)
        self._spike_stats = flag("llama: spike_stats", spike_stats)
        self._spike_keep = spiking.keep_shape(self._spike_stats, spike_keep)
        if vocab_only and spike_stats:
            raise ValueError("llama: spike_stats: got True with vocab_only, expected weights to run; leave one of the two out")
        self._logits_all = flag("llama: logits_all", logits_all)
        if flash_attn not in (None, True, False):
            raise ValueError(f"llama: flash_attn: got {flash_attn!r}, expected True, False or None")
        self._flash_attn = flash_attn
        self._type_k, self._type_v = check_cache_type("llama: type_k", type_k), check_cache_type("llama: type_v", type_v)
        self._embedding = flag("llama: embedding", embedding)
        self._pooling = check_pooling(pooling_type)
        self._batches: weakref.WeakSet[Batch] = weakref.WeakSet()
        lora_scale = check_scale("llama: lora_scale", lora_scale)
        self._lora = None if lora_path is None else (check_path("llama: lora_path", lora_path), lora_scale)
        self._embedding_ctx: Optional[_core.Context] = None  # embed()'s
        self._adapters: list[tuple[_core.Adapter, float]] = []
        self._print: Optional[str] = None
        self._epoch = 0                                     # changes whenever the sequence does
        self._history = History()                           # tokens, valid up to n_tokens
        self._running: set[_core.CancelToken] = set()       # of the evaluations and streams that cancel() ends
        self._rows = np.empty((0, 0), np.float32)           # logits_all: their logits, NaN where not known
        self._chain: Optional[tuple[object, _core.Sampler, int]] = None  # of sample(): its arguments, and tokens it has seen
        self.n_evaluated = 0                                # tokens evaluated since the file was loaded
        self.set_seed(seed)

        try:
            self._model = _core.Model(self.model_path, vocab_only=vocab_only, use_mmap=use_mmap,
                                     use_mlock=use_mlock, check_tensors=check_tensors,
                                     kv_overrides=self._kv_overrides, verbose=self.verbose)
            self.metadata: dict[str, str] = self._model.metadata()
            self._spiking = spiking.Spiking.of(self.metadata, self._kv_overrides)
            spiking.check_arguments(self._spiking, self.metadata.get("general.architecture"), spike, spike_k, self._spike_stats)
            self._rows = np.empty((0, self._model.n_vocab()), np.float32)
            self._tokenizer = Tokenizer(self._model, self.metadata.get(NORMALIZER_KEY))
        except RuntimeError as error:
            self.close()
            raise ModelLoadError(f"llama: {self.model_path}: got a file that llama.cpp cannot load: {error}; "
                                 "convert or copy it again") from error
        except BaseException:
            self.close()
            raise
        if not vocab_only:
            self._open_context(n_ubatch)

    def _open_context(self, n_ubatch: int) -> None:
        assert self._model is not None
        try:
            self._check_window_types()
            self._load_adapter()
            n_rows = min(self.n_batch, n_ubatch) if self._logits_all else 1
            if self._spike_stats:
                n_rows = min(self.n_batch, n_ubatch, _STATS_STEP)
            self._n_ubatch = n_ubatch
            self._ctx = self._new_context(
                n_batch=self.n_batch, n_outputs_max=n_rows, spike_stats=self._spike_stats, spike_keep_tokens=self._spike_keep[0],
                spike_keep_neurons=self._spike_keep[1])
            self.n_batch = self._ctx.n_batch()
            self._step = min(n_rows if self._logits_all or self._spike_stats else n_ubatch, self.n_batch)  # tokens per call
        except LlamaError:
            self.close()
            raise
        except BaseException:
            self.close()
            raise

    def _new_context(self, **options: Any) -> _core.Context:
        """Another context of the model; options: see _core.Context. LlamaError: llama.cpp refuses them."""
        assert self._model is not None
        if self._flash_attn is False and self.metadata.get("general.architecture") == "spikingbrain":
            raise ValueError("llama: flash_attn: got False, expected True or None: the window operator of spikingbrain is fused; leave it out")
        try:
            ctx = _core.Context(self._model, **{
                "n_ctx": self._n_ctx_given or 0, "n_ubatch": self._n_ubatch, "n_threads": self.n_threads,
                "n_threads_batch": self.n_threads_batch, "type_k": self._type_k, "type_v": self._type_v, "stop_inside": self._can_stop_inside(),
                "flash_attn": -1 if self._flash_attn is None else int(self._flash_attn), **options})
            if self._adapters:
                ctx.set_adapters(self._adapters)
            return ctx
        except RuntimeError as error:
            raise LlamaError(f"llama: context: got a refusal from llama.cpp: {error}; change the arguments") from error

    def _others(self) -> list[Any]:
        contexts, self._embedding_ctx = [self._embedding_ctx], None
        return [*self._batches, *(c for c in contexts if c is not None)]

    def _load_adapter(self) -> None:
        if self._lora is None:
            return
        path, scale = self._lora
        if not Path(path).is_file():
            raise ModelNotFoundError(f"llama: lora_path: got {path}, expected a GGUF file; check the path")
        try:
            assert self._model is not None
            self._adapters = [(_core.Adapter(self._model, path), scale)]
        except RuntimeError as error:
            raise ModelLoadError(f"llama: lora_path: {error}; convert it again") from error

    def _can_stop_inside(self) -> bool:
        """llama.cpp's recurrent memories are left half updated by a graph that stops; `spikingbrain`'s undoes the micro-batch."""
        assert self._model is not None
        own = self.metadata.get("general.architecture") == "spikingbrain"
        return own or not (self._model.is_recurrent() or self._model.is_hybrid())

    def _check_window_types(self) -> None:
        """llama.cpp's F16 means "as the matrices" to `spikingbrain`: asked for in so many words, it cannot be had."""
        f32 = self.metadata.get("general.architecture") == "spikingbrain" and self.metadata.get("general.file_type") == "0"
        for name, value in (("type_k", self._type_k), ("type_v", self._type_v)):
            if f32 and value == 1:
                raise ValueError(f"llama: {name}: got 1 (F16), expected 0 (F32) or None with F32 matrices; leave it out")

    def set_seed(self, seed: int) -> None:
        """Seed of what follows: equal seeds, equal draws. -1 and 2^32 - 1: a new one each time."""
        self._seed = check_seed("llama: seed", seed)
        self._seeds = random.Random(None if self._seed == _core.DEFAULT_SEED else self._seed)
        self._chain = None

    def _next_seed(self, seed: Optional[int]) -> int:
        """The seed of one generation: the given one, else the next that the object's own seed yields."""
        if seed is not None and (given := check_seed("llama: seed", seed)) != _core.DEFAULT_SEED:
            return given
        return self._seeds.randrange(_core.DEFAULT_SEED)

    # --- evaluation --------------------------------------------------------------------------------------------

    @property
    def n_tokens(self) -> int:
        """Tokens the sequence holds."""
        with self._use() as ctx:
            return ctx.seq_pos_max(0) + 1

    @property
    def input_ids(self) -> npt.NDArray[np.int32]:
        """int32 [n_tokens]: the tokens the sequence holds, a copy; -1 for those that a snapshot did not bring (see restore)."""
        with self._use():
            return self._history.all(self.n_tokens)

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """float32 [n_tokens, n_vocab]: every token's logits, a view. Needs logits_all=True, else LlamaError; rows that
        came with a loaded state are NaN except its last."""
        with self._use():
            if not self._logits_all:
                raise LlamaError("llama: scores: got logits_all=False, expected True; use logits for the last row")
            self._grow(self.n_tokens)
            return self._rows[:self.n_tokens]

    @property
    def logits(self) -> npt.NDArray[np.float32]:
        """float32 [n_vocab]: the last token's logits, a copy. LlamaError when nothing was evaluated."""
        with self._use() as ctx:
            return self._row(ctx).copy()

    def _row(self, ctx: _core.Context) -> npt.NDArray[np.float32]:
        last = ctx.seq_pos_max(0)
        if last < 0 or ctx.logits_pos() != last:
            raise LlamaError(f"llama: logits: got none for the last of {last + 1} tokens, expected a row; eval a token")
        return ctx.logits()

    def eval(self, tokens: Tokens, *, progress: Optional[Progress] = None, cancel: Optional[_core.CancelToken] = None) -> None:
        """Append tokens to the sequence. ValueError: none, unknown ones, or more than n_ctx has room for.

        progress(done, total) is called after every n_ubatch tokens. cancel: a token; once cancelled, in whatever thread,
        Cancelled is raised before the micro-batch under way is finished. The sequence then holds those that were.
        """
        check_calls("eval", progress, cancel)
        with self._use() as ctx:
            ids = self._token_array("eval", tokens)
            if ids.size == 0:
                raise ValueError("eval: tokens: got none, expected at least one")
            self._check_room("eval", ctx.seq_pos_max(0) + 1 + ids.size)
            with self._cancellable(cancel) as token:
                self._append(ctx, ids, progress, token)

    def _append(self, ctx: _core.Context, ids: npt.NDArray[np.int32], progress: Optional[Progress], token: _core.CancelToken) -> None:
        """eval of tokens that are known to be some, and to have room."""
        n_past = ctx.seq_pos_max(0) + 1
        self._grow(n_past + ids.size)
        self._history.write(n_past, ids)
        self._epoch += 1
        for i in range(0, ids.size, self._step):
            piece = ids[i:i + self._step]
            at = n_past + i
            try:
                ctx.decode(piece, at, 0, self._rows[at:at + piece.size] if self._logits_all else None, token)
            except _core.Cancelled:
                raise
            except RuntimeError as error:
                raise LlamaError(f"llama: {error}") from error
            self.n_evaluated += piece.size
            if progress is not None:
                progress(i + piece.size, ids.size)

    @contextlib.contextmanager
    def _cancellable(self, given: Optional[_core.CancelToken]) -> Iterator[_core.CancelToken]:
        """A token that cancel() sets while the block runs."""
        token = given or _core.CancelToken()
        new = token not in self._running
        self._running.add(token)
        try:
            yield token
        except _core.Cancelled as error:
            raise Cancelled(f"llama: {error}") from None
        finally:
            if new:
                self._running.discard(token)

    def cancel(self) -> None:
        """End what is under way, from any thread: an evaluation stops inside its micro-batch, a generation at its next token;
        they raise Cancelled. The sequence keeps the micro-batches that were finished and can go on. Nothing under way: no effect."""
        for token in list(self._running):
            token.cancel()

    def _check_room(self, where: str, n: int) -> None:
        if n > self.n_ctx():
            raise ValueError(f"{where}: requested tokens: got {n}, expected at most n_ctx={self.n_ctx()}; "
                             "reset, shorten the prompt or raise n_ctx")

    def _grow(self, n: int) -> None:
        if self._logits_all and n > len(self._rows):
            rows = np.full((max(n, len(self._rows) * 3 // 2), self.n_vocab()), np.nan, np.float32)
            rows[:len(self._rows)] = self._rows
            self._rows = rows

    def reset(self) -> None:
        """Forget the sequence."""
        with self._use() as ctx:
            self._epoch += 1
            self._chain = None
            ctx.clear()

    # --- spikes ------------------------------------------------------------------------------------------------

    @property
    def spiking(self) -> bool:
        """Whether the projections read integer spike counts."""
        return self._spiking.enabled

    @property
    def spike_k(self) -> Optional[float]:
        """Threshold = mean |x| / spike_k; None when the model does not spike."""
        return self._spiking.k if self._spiking.enabled else None

    @property
    def spike_scope(self) -> Optional[str]:
        """"paper": every projection spikes; "released": not the MLP's down projection; None: none does."""
        return self._spiking.scope if self._spiking.enabled else None

    def spike_stats(self) -> SpikeStats:
        """Counts of every token evaluated since loading or reset_spike_stats(). LlamaError: not loaded with spike_stats."""
        with self._use_stats() as ctx:
            return from_core(self._spiking.k, self._spiking.scope, ctx.spike_stats())

    def reset_spike_stats(self) -> None:
        """Count from zero again; the sequence stays."""
        with self._use_stats() as ctx:
            ctx.reset_spike_stats()

    @contextlib.contextmanager
    def _use_stats(self) -> Iterator[_core.Context]:
        with self._use() as ctx:
            if not self._spike_stats:
                raise LlamaError("llama: spike_stats: got a model loaded without them, expected spike_stats=True; load it so")
            yield ctx
