"""Those of llama.cpp's C functions that ask a model something, without pointers: a model, its vocabulary and a context are the objects of views.py.

Buffers are whatever holds bytes or integers that can be written: ctypes arrays, bytearrays, lists. What evaluates (batches, samplers) is not here.
"""

from __future__ import annotations

import atexit
import ctypes
from collections.abc import MutableSequence
from dataclasses import dataclass, fields
from typing import Any, Callable, Optional, Union

from .. import _core
from ..llama import Llama
from . import options
from .views import ContextView, ModelView

llama_token = ctypes.c_int32

Either = Union[ModelView, ContextView]


@dataclass
class llama_model_params:
    """How a model is loaded; see Llama for what each is."""

    n_gpu_layers: int = 0
    split_mode: int = 1
    main_gpu: int = 0
    tensor_split: Any = None
    load_mode: int = -1
    vocab_only: bool = False
    check_tensors: bool = False
    kv_overrides: Any = None


@dataclass
class llama_context_params:
    """How it is read; see Llama for what each is. seed: nothing is drawn here."""

    seed: int = _core.DEFAULT_SEED
    n_ctx: int = 512
    n_batch: int = 2048
    n_ubatch: int = 512
    n_seq_max: int = 1
    n_threads: int = 0
    n_threads_batch: int = 0
    type_k: int = 1
    type_v: int = 1
    embeddings: bool = False
    offload_kqv: bool = True
    flash_attn_type: int = -1


llama_log_callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)  # of (level, text, user_data)
_log: Any = None  # the one in use, which must not be freed


def llama_log_set(callback: Any, user_data: Any = None) -> None:
    """A llama_log_callback gets every line of llama.cpp's log, whatever verbose says; None: none does. TypeError: it is none."""
    global _log
    if callback is not None and not isinstance(callback, llama_log_callback):
        raise TypeError(f"llama_log_set: callback: got {type(callback).__name__}, expected a function under @llama_log_callback, or None")
    kept = callback or None  # an empty one is none
    _core.log_to(0 if kept is None else ctypes.cast(kept, ctypes.c_void_p).value or 0, getattr(user_data, "value", None) or 0)
    _log = kept


atexit.register(llama_log_set, None)  # what is logged while Python ends has nobody to go to


def llama_model_default_params() -> llama_model_params:
    """To be changed and handed on."""
    return llama_model_params()


def llama_context_default_params() -> llama_context_params:
    """To be changed and handed on."""
    return llama_context_params()


def _check(where: str, given: Any, kind: type) -> None:
    if not isinstance(given, kind):
        raise TypeError(f"{where}: params: got {type(given).__name__}, expected {kind.__name__}")
    unknown = set(vars(given)) - {f.name for f in fields(kind)}
    if unknown:
        raise TypeError(f"{where}: params: got {', '.join(sorted(unknown))}, expected {', '.join(f.name for f in fields(kind))}")


def llama_backend_init(numa: Any = None) -> None:
    """Done when the package is imported; numa: see llama_numa_init."""
    options.init_numa(numa)


def llama_backend_free() -> None:
    """Done when the process ends."""


def llama_numa_init(numa: int) -> None:
    """For the process. ValueError: no strategy, or another one than before."""
    options.init_numa(numa)


def llama_model_load_from_file(path_model: Union[bytes, str], params: llama_model_params) -> ModelView:
    """Load it. Errors: see Llama."""
    _check("llama_model_load_from_file", params, llama_model_params)
    mode = {name: _core.constants()[f"LLAMA_LOAD_MODE_{name}"] for name in ("NONE", "MLOCK", "MMAP_MLOCK")}
    path = path_model.decode() if isinstance(path_model, bytes) else path_model
    given = {"n_gpu_layers": params.n_gpu_layers, "split_mode": params.split_mode, "main_gpu": params.main_gpu, "tensor_split": params.tensor_split,
             "vocab_only": params.vocab_only, "check_tensors": params.check_tensors, "kv_overrides": params.kv_overrides,
             "use_mmap": params.load_mode not in (mode["NONE"], mode["MLOCK"]), "use_mlock": params.load_mode in (mode["MLOCK"], mode["MMAP_MLOCK"])}
    return ModelView(Llama(path, **options.translated(given)))


def llama_init_from_model(model: ModelView, params: llama_context_params) -> ContextView:
    """A context of it; to be asked, since what evaluates is not here. ValueError: a size."""
    _check("llama_init_from_model", params, llama_context_params)
    if not isinstance(model.llama, Llama):
        raise TypeError(f"llama_init_from_model: model: got one of {type(model.llama).__name__}, expected one that llama_model_load_from_file returned")
    return ContextView(model.llama, n_ctx=params.n_ctx or model.n_ctx_train(), n_batch=params.n_batch)


def llama_free(ctx: ContextView) -> None:
    """Its Llama goes on."""


def llama_model_free(model: ModelView) -> None:
    """Close its Llama."""
    model.llama.close()


def llama_model_get_vocab(model: ModelView) -> ModelView:
    """The same object."""
    return model.vocab


def llama_get_model(ctx: ContextView) -> ModelView:
    """The model of a context."""
    return ctx.model


def llama_n_ctx(ctx: ContextView) -> int:
    """Most tokens a sequence may hold."""
    return ctx.n_ctx()


def llama_n_batch(ctx: ContextView) -> int:
    """Most tokens handed over at once."""
    return ctx.n_batch()


def _put(found: Any, into: Any, room: int) -> int:
    """Written where it fits; its length, with another sign where it does not."""
    n = len(found)
    if n > room:
        return -n
    if isinstance(found, bytes):
        memoryview(into).cast("B")[:n] = found
    else:
        into[:n] = found
    return n


def llama_tokenize(vocab: ModelView, text: bytes, text_len: int, tokens: MutableSequence[int], n_tokens_max: int, add_special: bool, parse_special: bool) -> int:
    """How many token ids of the text were written; -n where there is room for fewer than n."""
    return _put(vocab.tokenize(bytes(text)[:text_len], add_special, parse_special), tokens, int(n_tokens_max))


def llama_detokenize(vocab: ModelView, tokens: Any, n_tokens: int, text: Any, text_len_max: int, remove_special: bool, unparse_special: bool) -> int:
    """How many bytes of the text were written; -n where there is room for fewer than n."""
    return _put(vocab.detokenize([int(t) for t in tokens[:n_tokens]], unparse_special), text, int(text_len_max))


def llama_token_to_piece(vocab: ModelView, token: Any, buf: Any, length: int, lstrip: int, special: bool) -> int:
    """How many bytes of the token were written, lstrip spaces before them left out; -n where there is room for fewer than n."""
    piece = vocab.token_to_piece(getattr(token, "value", token), bool(special))
    begin = min(int(lstrip), len(piece) - len(piece.lstrip(b" ")))
    return _put(piece[begin:], buf, int(getattr(length, "value", length)))


def llama_print_system_info() -> bytes:
    """What of the CPU is used."""
    return _core.system_info().encode()


def _asks(name: str, *, as_bytes: bool = False) -> Callable[..., Any]:
    """A function of a model or its vocabulary, and maybe a token."""
    def ask(of: Any, token: Optional[Any] = None) -> Any:
        given = () if token is None else (getattr(token, "value", token),)
        found = getattr(of, name)(*given)
        return found.encode() if as_bytes else found
    ask.__doc__ = f"See {ModelView.__name__}.{name}."
    return ask


llama_model_n_ctx_train = llama_n_ctx_train = _asks("n_ctx_train")
llama_model_n_embd = llama_n_embd = _asks("n_embd")
llama_model_n_layer = llama_n_layer = _asks("n_layer")
llama_model_n_params = _asks("n_params")
llama_model_size = _asks("size")
llama_model_is_recurrent = _asks("is_recurrent")
llama_model_is_hybrid = _asks("is_hybrid")
llama_vocab_n_tokens = llama_n_vocab = _asks("n_vocab")
llama_vocab_bos = llama_token_bos = _asks("token_bos")
llama_vocab_eos = llama_token_eos = _asks("token_eos")
llama_vocab_eot = llama_token_eot = _asks("token_eot")
llama_vocab_nl = llama_token_nl = _asks("token_nl")
llama_vocab_get_add_bos = llama_add_bos_token = _asks("add_bos_token")
llama_vocab_get_add_eos = llama_add_eos_token = _asks("add_eos_token")
llama_vocab_is_eog = llama_token_is_eog = _asks("token_is_eog")
llama_vocab_is_control = llama_token_is_control = _asks("token_is_control")
llama_vocab_get_text = llama_token_get_text = _asks("token_get_text", as_bytes=True)


def llama_supports_mmap() -> bool:
    """Files are mapped."""
    return True


def llama_supports_mlock() -> bool:
    """They can be kept in memory."""
    return True


def llama_supports_gpu_offload() -> bool:
    """This build computes on CPUs."""
    return False


def llama_max_devices() -> int:
    """CPUs are one."""
    return 1
