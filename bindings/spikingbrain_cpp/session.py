"""Session: a model and the one sequence it reads; what Llama is made of, below the choosing of tokens."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Optional, Union

import numpy as np
import numpy.typing as npt

from . import _core, saving
from .arguments import check_calls, check_neutral, check_range
from .batch import Batch
from .chat_request import check_chat_format
from .drafts import DEFAULT_BACK, FunctionGuesser, Guesser, ModelGuesser, check_draft_model
from .errors import LlamaError
from .loaded import LoadedModel
from .model import OpenModel, Tokens
from .sampling import Row, Seeds
from .sequence import Context, Progress, Sequence
from .settings import Settings
from .spikes.stats import SpikeStats, from_core
from .state import AnyPath, LlamaState, Snapshot

if TYPE_CHECKING:
    from typing_extensions import Self

_STATS_STEP = 64  # tokens per call while spikes are counted: each then has a row of logits in llama.cpp's buffer
_NO_WEIGHTS = "llama: got a model loaded with vocab_only=True, expected one with weights; load it without vocab_only"


def _load(cls: type[Session], args: tuple[Any, ...], options: dict[str, Any]) -> Session:
    return cls(*args, **options)


class Session(LoadedModel):
    """A loaded model and the one sequence it is reading.

    Calls from several threads wait for one another. A call in a forked child, or after close(), raises LlamaError.
    What the sequence holds is decided by llama.cpp's memory alone: n_tokens is asked of it, so that an interrupted
    call (Ctrl-C, no memory) leaves exactly the tokens that were finished.
    """

    _given: tuple[tuple[Any, ...], dict[str, Any]]
    _opens: type[OpenModel] = OpenModel

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
        n_gpu_layers: Optional[int] = None,
        rpc_servers: Optional[str] = None,
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
        draft_model: Union[None, Callable[..., Any], Session] = None,
        n_rs_seq: Optional[int] = None,
        verbose: bool = False,
        **neutral: Any,
    ) -> None:
        """Load a GGUF file (the first part of a split one).

        n_ctx: bound on prompt plus generation, in tokens; None or 0: the model's own, which for `spikingbrain` is none
            (2^30, near the end of 32-bit positions), or the trained length where a layer sees all of the text (76B).
        n_batch, n_ubatch: tokens handed to llama.cpp at once, and computed at once.
        n_threads, n_threads_batch: for single tokens and for prompts; None: every CPU this process may use.
        seed: of sampling; the default draws a new one each time.
        rpc_servers: "HOST:PORT,HOST:PORT" of sb-rpc-server on other machines, which then hold layers and their state.
        n_gpu_layers: how many of the last layers lie there, the output among them; -1: all, None: all with rpc_servers. Without: 0 or -1.
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
        draft_model: guesses the tokens that come next, which are then computed together: LlamaPromptLookupDecoding(), another
            LlamaDraftModel, or a smaller Llama of the same vocabulary. What is generated is the same with it and without; see draft_counts.
        n_rs_seq: tokens at the sequence's end that can be taken back, so that a prompt that differs in them evaluates only what is new; the
            most that is drafted at a time. None or 0: the memory's own, 32 for `spikingbrain` (the environment's SPIKINGBRAIN_N_RS_SEQ).
        verbose: llama.cpp's log on stderr.
        neutral: further arguments of llama-cpp-python's, at values that change nothing; see arguments.py.

        ModelNotFoundError, ModelLoadError: no such file, or not loadable. ValueError, TypeError: an argument.
        """
        given = dict(locals())
        check_neutral(neutral)
        check_draft_model(draft_model)
        self.last_n_tokens_size = check_range("llama: last_n_tokens_size", last_n_tokens_size, low=0)
        settings = Settings.from_call(given)
        self.chat_format = check_chat_format(chat_format)
        if chat_handler is not None and not callable(chat_handler):
            raise TypeError(f"llama: chat_handler: got {type(chat_handler).__name__}, expected a function")
        self.chat_handler = chat_handler
        self._draft_model = draft_model
        self.set_seed(seed)
        self.model_path, self.verbose = settings.path, settings.verbose
        self.n_threads, self.n_threads_batch = settings.n_threads, settings.n_threads_batch
        self._model = self._opens(settings)
        self.metadata = self._model.metadata
        try:
            self._sequence = self._own_sequence(settings)
            self._guesser = self._read_draft_model()
            self.n_batch = settings.n_batch
            if not settings.vocab_only:
                with self._sequence.context.use() as ctx:
                    self.n_batch = ctx.n_batch()
        except BaseException:
            self.close()
            raise

    def _own_sequence(self, s: Settings) -> Sequence:
        """Its context has room for the rows that one decode may give."""
        n_rows = min(s.n_batch, s.n_ubatch) if s.logits_all else 1
        if s.spike_stats:
            n_rows = min(s.n_batch, s.n_ubatch, _STATS_STEP)
        step = n_rows if s.logits_all or s.spike_stats else s.n_ubatch
        if self._draft_model is not None:
            n_rows = max(n_rows, min(1 + (s.n_rs_seq or DEFAULT_BACK), s.n_batch, s.n_ubatch))
        context = Context(self._model, "llama", _NO_WEIGHTS, step=step, n_batch=s.n_batch, n_outputs_max=n_rows, spike_stats=s.spike_stats,
                          spike_keep_tokens=s.spike_keep[0], spike_keep_neurons=s.spike_keep[1])
        return Sequence(context, all_rows=s.logits_all)

    def _read_draft_model(self) -> Optional[Guesser]:
        given, model = self._draft_model, self._model
        if given is None:
            return None
        with self._sequence.context.use() as handle:
            if not handle.n_rs_seq() and (model.is_recurrent() or model.is_hybrid()):
                raise ValueError("llama: draft_model: got one for a model whose memory takes back no tokens, expected n_rs_seq=; leave it out")
        if not isinstance(given, Session):
            return FunctionGuesser(given, model.n_vocab())
        with given._sequence.context.use():
            if given._model.vocab_print() != model.vocab_print():
                raise ValueError(f"llama: draft_model: got {given.model_path} of {given.n_vocab()} tokens, expected one of the same vocabulary "
                                 f"({model.n_vocab()} tokens); take one that was trained with this tokenizer")
        return ModelGuesser(given._sequence)

    @property
    def draft_model(self) -> Union[None, Callable[..., Any], Session]:
        """What the constructor was given."""
        return self._draft_model

    def set_seed(self, seed: int) -> None:
        """Seed of what follows: equal seeds, equal draws. -1 and 2^32 - 1: a new one each time."""
        self._seeds = Seeds(seed)
        self._chain: Optional[tuple[object, _core.Sampler, int]] = None  # of sample(): its arguments, and tokens it has seen

    @property
    def n_evaluated(self) -> int:
        """Tokens evaluated since the file was loaded, by all calls."""
        return self._model.n_evaluated

    def n_ctx(self) -> int:
        """Most tokens the sequence may hold: the n_ctx given, else the model's own (2^30 for `spikingbrain` without layers that see all of the text)."""
        return self._sequence.context.n_ctx()

    def default_max_tokens(self, n_prompt: int = 0) -> int:
        """The max_tokens of a completion that names none, after a prompt of n_prompt tokens.

        Up to n_ctx, where one was given. Else prompt and answer end together at max(trained length, 32768) tokens, but not
        before 4096 new ones.
        """
        with self._model.use() as model:
            n_prompt = check_range("llama: n_prompt", n_prompt, low=0)
            room = self.n_ctx() - n_prompt
            return max(0, room if self._model.settings.n_ctx else min(room, model.default_limit(n_prompt)))

    def state_bytes(self) -> int:
        """Bytes allocated for the sequence's state: fixed when loaded, whatever is read."""
        with self._sequence.context.use() as ctx:
            return ctx.state_bytes()

    # --- evaluation --------------------------------------------------------------------------------------------

    @property
    def n_tokens(self) -> int:
        """Tokens the sequence holds."""
        with self._sequence.context.use():
            return self._sequence.n()

    @property
    def input_ids(self) -> npt.NDArray[np.int32]:
        """int32 [n_tokens]: the tokens the sequence holds, a copy; -1 for those that a snapshot did not bring (see restore)."""
        return self._sequence.tokens()

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """float32 [n_tokens, n_vocab]: every token's logits, a view. Needs logits_all=True, else LlamaError; rows that
        came with a loaded state are NaN except its last."""
        return self._sequence.rows()

    @property
    def logits(self) -> Row:
        """float32 [n_vocab]: the last token's logits, a copy. LlamaError when nothing was evaluated."""
        with self._sequence.context.use():
            return self._sequence.last_row().copy()

    def eval(self, tokens: Tokens, *, progress: Optional[Progress] = None, cancel: Optional[_core.CancelToken] = None) -> None:
        """Append tokens to the sequence. ValueError: none, unknown ones, or more than n_ctx has room for.

        progress(done, total) is called after every n_ubatch tokens. cancel: a token; once cancelled, in whatever thread,
        Cancelled is raised before the micro-batch under way is finished. The sequence then holds those that were.
        """
        check_calls("eval", progress, cancel)
        sequence = self._sequence
        with sequence.context.changing("eval"):
            ids = self._model.ids("eval", tokens)
            if ids.size == 0:
                raise ValueError("eval: tokens: got none, expected at least one")
            sequence.check_room("eval", sequence.n() + ids.size)
            with sequence.context.cancels.running(cancel) as token:
                sequence.append(ids, token, progress)

    def cancel(self) -> None:
        """End what is under way, from any thread: an evaluation stops inside its micro-batch, a generation at its next token;
        they raise Cancelled. The sequence keeps the micro-batches that were finished and can go on. Nothing under way: no effect."""
        self._model.cancels.cancel()

    def reset(self) -> None:
        """Forget the sequence."""
        with self._sequence.context.changing("reset"):
            self._chain = None
            self._sequence.clear()

    def batch(self, n_seq: int) -> Batch:
        """n_seq empty sequences beside this one's, to be evaluated together; close it, or use it in `with`."""
        with self._sequence.context.use():
            return Batch(self._model, n_seq)

    # --- snapshots -----------------------------------------------------------------------------------------------

    def snapshot(self, path: Optional[AnyPath] = None) -> Snapshot:
        """The sequence as an object of constant size, and as a file, too, when a path is given (whole or not at all).

        It holds the state (a fixed part plus at most one window of rows), the last row of logits, the last 1024 to 2047 tokens
        and a hash of those before them. OSError: the file may not be written (a device, a folder, the model) or could not be.
        """
        return saving.take(self._sequence, path)

    def restore(self, source: Union[Snapshot, bytes, AnyPath]) -> None:
        """Replace the sequence by a snapshot's: the object, its bytes, or the path of its file. Nothing is evaluated.

        A prompt that extends the one the snapshot was made after evaluates its new tokens only: the hash tells. Of the tokens before
        the snapshot's tail nothing else is known: input_ids shows them as -1, and a prompt that differs from them is read anew.
        ValueError: a snapshot of another model, of other overrides, adapters, scales, types of keys and values, of another tokenizer or
        version, a damaged one, or one longer than n_ctx; the sequence stays as it was. OSError: no such file. LlamaError: llama.cpp
        refuses the data; the sequence is then empty.
        """
        made = saving.read(source)
        with self._sequence.context.changing("restore"):
            saving.put(self._sequence, "restore", made)
            self._chain = None

    def save_state(self) -> LlamaState:
        """The sequence as an object: a snapshot and its tokens (4 bytes each)."""
        return saving.take_state(self._sequence)

    def load_state(self, state: LlamaState) -> None:
        """Replace the sequence by a saved one; nothing is evaluated again, and the next token's logits are there. Errors: see restore."""
        with self._sequence.context.changing("load_state"):
            saving.put_state(self._sequence, state)
            self._chain = None

    # --- spikes ------------------------------------------------------------------------------------------------

    @property
    def spiking(self) -> bool:
        """Whether the projections read integer spike counts."""
        return self._model.spiking.enabled

    @property
    def spike_k(self) -> Optional[float]:
        """Threshold = mean |x| / spike_k; None when the model does not spike."""
        return self._model.spiking.k if self._model.spiking.enabled else None

    @property
    def spike_scope(self) -> Optional[str]:
        """"paper": every projection spikes; "released": not the MLP's down projection; None: none does."""
        return self._model.spiking.scope if self._model.spiking.enabled else None

    def spike_stats(self) -> SpikeStats:
        """Counts of every token evaluated since loading or reset_spike_stats(). LlamaError: not loaded with spike_stats."""
        with self._sequence.context.use() as ctx:
            self._check_stats()
            return from_core(self._model.spiking.k, self._model.spiking.scope, ctx.spike_stats(), ctx.expert_stats())

    def reset_spike_stats(self) -> None:
        """Count from zero again; the sequence stays."""
        with self._sequence.context.changing("reset_spike_stats") as ctx:
            self._check_stats()
            ctx.reset_spike_stats()

    def _check_stats(self) -> None:
        if not self._model.settings.spike_stats:
            raise LlamaError("llama: spike_stats: got a model loaded without them, expected spike_stats=True; load it so")
