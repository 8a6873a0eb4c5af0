"""Handles on llama.cpp. Thin: arguments are checked so that llama.cpp does not abort; the policy is in Llama.

Errors: ValueError for an argument, RuntimeError with llama.cpp's own words for a failure, and for a closed handle, a
forked child or a second thread. Token arrays are int32 in row order. Long calls release the GIL.
"""

from typing import Any, Mapping, Optional

import numpy as np
import numpy.typing as npt

from .errors import LlamaError

DEFAULT_SEED: int
STATE_PARTIAL_ONLY: int

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

def init(backends_dir: str) -> None:
    """Before anything else; "" when a CPU library is linked."""

def render_template(source: str, variables_json: str) -> str:
    """Upstream's Jinja engine on a JSON object of variables."""

def check_grammar(text: str, root: str) -> None:
    """ValueError: no GBNF, or a rule is missing. Left recursion and tokens by name are only seen by set_grammar."""

def grammar_matches(text: str, root: str, answer: str) -> bool:
    """Whether the answer is a whole one that the grammar allows. ValueError: as check_grammar, and left recursion."""
def json_schema_to_grammar(schema_json: str, lenient: bool = False) -> tuple[str, list[str]]:
    """GBNF that keeps the schema, and what lenient left out. ValueError: a keyword that no grammar holds, or no schema."""
def builtin_templates() -> list[str]: ...

def gguf_tensor_types(path: str) -> list[str]:
    """Names of the types that the tensors of a GGUF file have, as "f32"."""

def measure(path: str, *, kv_overrides: dict[str, Any] = {}, n_ctx: int = 0, n_batch: int = 512, n_ubatch: int = 512, n_seq_max: int = 1, n_rs_seq: int = 0,
            n_outputs_max: int = 1, type_k: int = -1, type_v: int = -1) -> dict[str, int]:
    """Bytes that llama.cpp would allocate for model, state and compute; cache: those of the state that are taken only as texts grow to n_ctx;
    n_vocab. Nothing is allocated."""
def missing_bytes(path: str) -> int:
    """By which a GGUF file is shorter than its header says, 0 for a whole one."""
def spike_isa() -> str:
    """Which integer kernels run ("avx512", "avx2", "i8mm", "dotprod", "generic"), "" when the CPU library does not say."""
def vocab_digest_input(model: Model) -> bytes: ...
def constants() -> dict[str, int]:
    """llama.cpp's public constants by their names, of llama.h, ggml.h and ggml-cpu.h."""
def log_to(call: int, data: int = 0) -> None:
    """The address of a ggml_log_callback that gets every line of llama.cpp's log instead of stderr; 0: none."""
def numa_init(strategy: int) -> bool:
    """For the whole process, once, before its first model. False: no such strategy."""
def system_info() -> str: ...
def ggml_type_name(type: int) -> str: ...

class Model:
    def __init__(
        self,
        path: str,
        *,
        vocab_only: bool = False,
        use_mmap: bool = True,
        use_mlock: bool = False,
        check_tensors: bool = False,
        kv_overrides: Mapping[str, Any] = {},
        verbose: bool = False,
        rpc_servers: list[str] = [],
        n_gpu_layers: int = 0,
    ) -> None: ...
    def close(self) -> None: ...
    @property
    def closed(self) -> bool: ...
    @property
    def vocab_only(self) -> bool: ...
    def metadata(self) -> dict[str, str]: ...
    def desc(self) -> str: ...
    def chat_template(self, name: Optional[str] = None) -> Optional[str]: ...
    def token_text(self, token: int) -> bytes: ...
    def token_to_piece(self, token: int, special: bool) -> bytes: ...
    def tokenize(self, text: bytes, add_special: bool, parse_special: bool) -> list[int]: ...
    def detokenize(self, tokens: Ints, remove_special: bool, unparse_special: bool) -> bytes: ...
    def added_tokens(self) -> list[tuple[int, str, bool]]:
        """(id, text, is a control token) of all that are taken out of a text before it is split."""
    def is_eog(self, token: int) -> bool: ...
    def is_control(self, token: int) -> bool: ...
    def n_vocab(self) -> int: ...
    def token_bos(self) -> int: ...
    def token_eos(self) -> int: ...
    def token_eot(self) -> int: ...
    def token_nl(self) -> int: ...
    def add_bos(self) -> bool: ...
    def add_eos(self) -> bool: ...
    def n_embd(self) -> int: ...
    def n_layer(self) -> int: ...
    def n_ctx_train(self) -> int: ...
    def default_limit(self, n_prompt: int) -> int:
        """New tokens after a prompt of so many, where no limit is named (llama-spikingbrain.h)."""
    def n_params(self) -> int: ...
    def size(self) -> int: ...
    def is_hybrid(self) -> bool: ...
    def is_recurrent(self) -> bool: ...

class CancelToken:
    """Ends the calls that it was given to: call cancel() from any thread."""

    def __init__(self) -> None: ...
    def cancel(self) -> None:
        """For good: a token is used once."""
    @property
    def cancelled(self) -> bool: ...

class Cancelled(RuntimeError): ...

class Lost(LlamaError):
    """An RPC server that has layers of the model answers no more."""

class Adapter:
    """A LoRA adapter of a model."""

    def __init__(self, model: Model, path: str) -> None: ...

class Context:
    def __init__(
        self,
        model: Model,
        *,
        n_ctx: int = 0,
        n_batch: int = 512,
        n_ubatch: int = 512,
        n_seq_max: int = 1,
        n_rs_seq: int = 0,
        n_outputs_max: int = 1,
        n_threads: int = 1,
        n_threads_batch: int = 1,
        kv_unified: bool = False,
        type_k: int = -1,
        type_v: int = -1,
        spike_stats: bool = False,
        spike_keep_tokens: int = 0,
        spike_keep_neurons: int = 0,
        embeddings: bool = False,
        flash_attn: int = -1,
        stop_inside: bool = False,
    ) -> None:
        """n_rs_seq: how many of a sequence's last tokens can be taken back, 0: the memory's own choice. n_outputs_max: most rows of logits one call may ask for, at least n_seq_max.

        spike_stats: count the spikes of every token decoded; decode() then takes at most n_outputs_max tokens.
        embeddings: for embed() alone. flash_attn: -1 llama.cpp's choice, 0 off, 1 on. stop_inside: a cancel may stop a graph half
        way, for memories that can undo a micro-batch; without it a cancel only keeps a call from beginning.
        """
    def close(self) -> None: ...
    @property
    def closed(self) -> bool: ...
    def n_ctx(self) -> int: ...
    def n_batch(self) -> int: ...
    def n_ubatch(self) -> int: ...
    def n_seq_max(self) -> int: ...
    def n_rs_seq(self) -> int:
        """How many of a sequence's last tokens can be taken back; 0: the memory sets no such bound."""
    def decode(self, tokens: Ints, pos: int, seq: int = 0, rows: Optional[Floats] = None,
               cancel: Optional[CancelToken] = None) -> None:
        """Tokens of one sequence at pos, pos + 1, ...; rows [n, n_vocab] receives all their logits. Raises Cancelled."""
    def decode_batch(self, tokens: Ints, pos: Ints, seq: Ints, want: npt.NDArray[np.int8],
                     cancel: Optional[CancelToken] = None) -> Floats:
        """Tokens of any sequences; logits of those with want != 0, [n_want, n_vocab]."""
    def score(self, tokens: Ints, pos: Ints, seq: Ints, rows: Ints, targets: Ints,
              cancel: Optional[CancelToken] = None) -> tuple[npt.NDArray[np.float64], Ints]:
        """Tokens of any sequences; of each target its log probability after the token rows[i] of the batch, and the likeliest token
        there: ([n_targets], [n_targets]). No row of logits is copied."""
    def embed(self, tokens: Ints, pos: int, cancel: Optional[CancelToken] = None) -> Floats:
        """Tokens of sequence 0 -> [n, n_embd]: the last norm's output. Raises Cancelled."""
    def set_adapters(self, adapters: list[tuple[Adapter, float]]) -> None:
        """These and no others, each with its scale."""
    def logits(self) -> Floats:
        """[n_vocab], a read-only view that the next decode overwrites: the last decoded token's, NaN when there are none."""
    def logits_pos(self) -> int:
        """Position of the token that logits() is of, -1 when there are none: after whatever changed the memory other than decode()."""
    def set_logits(self, row: Floats, pos: int) -> None: ...
    def clear(self) -> None: ...
    def seq_rm(self, seq: int, p0: int = -1, p1: int = -1) -> bool:
        """False when the memory cannot remove that part; nothing is changed then."""
    def seq_cp(self, src: int, dst: int) -> None: ...
    def seq_keep(self, seq: int) -> None: ...
    def seq_pos_min(self, seq: int) -> int:
        """Whatever lies behind this position can be removed."""
    def seq_pos_max(self, seq: int) -> int:
        """-1 when the sequence is empty."""
    def spike_stats(self) -> list[dict[str, Any]]:
        """Per encoded input: name ("spike_attn-0"), n (channels), n_tokens, n_refused (rows that could not be encoded, in
        no histogram), bins int64 [4096] of |s|, n_over and over_spikes (of counts above), largest, weights (names of those
        that read it), kept int32 [tokens, neurons]."""
    def expert_stats(self) -> list[dict[str, Any]]:
        """Of a context with spike_stats, whether the model spikes or not, per layer with experts: name ("ffn_moe_topk-3"), n int64 [experts], how many
        tokens chose each, kept int32, the choices of the first spike_keep_tokens tokens, silent and channels int64 [experts], of the encoded
        inputs of each expert's down projection: counts of 0, and all of them (0 where it does not spike)."""
    def reset_spike_stats(self) -> None: ...
    def fingerprint(self) -> str:
        """64 hex digits, what a state of it belongs to: 16 each of weights, settings, adapters, types of keys and values."""
    def state_bytes(self) -> int:
        """Allocated for the memory of all sequences."""
    def state_size(self, seq: int = 0, flags: int = 0) -> int: ...
    def state_get(self, seq: int = 0, flags: int = 0) -> bytes: ...
    def state_set(self, data: bytes, seq: int = 0, flags: int = 0) -> int: ...

class Sampler:
    """Upstream's sampler chain."""

    def __init__(self, model: Model) -> None: ...
    def add_logit_bias(self, bias: list[tuple[int, float]]) -> None: ...
    def add_penalties(self, last_n: int, repeat: float, freq: float, present: float) -> None: ...
    def add_top_k(self, k: int) -> None: ...
    def add_top_p(self, p: float) -> None: ...
    def add_min_p(self, p: float) -> None: ...
    def add_typical(self, p: float) -> None: ...
    def add_temp(self, t: float) -> None: ...
    def add_greedy(self) -> None: ...
    def add_dist(self, seed: int) -> None: ...
    def add_mirostat(self, seed: int, tau: float, eta: float, m: int = 100) -> None: ...
    def add_mirostat_v2(self, seed: int, tau: float, eta: float) -> None: ...
    def set_grammar(
        self,
        text: str,
        root: str = "root",
        *,
        lazy: bool = False,
        trigger_patterns: list[str] = [],
        trigger_tokens: list[int] = [],
        preserved: list[int] = [],
        prefill: list[int] = [],
    ) -> None:
        """lazy: constrains from a trigger on. preserved: control tokens that may be chosen; others only where the text
        names them. prefill: tokens of the prompt that the grammar describes, too."""
    def accept_grammar(self, token: int) -> None:
        """A token that was chosen. RuntimeError: the grammar does not allow it."""
    def names(self) -> list[str]: ...
    def accept(self, tokens: Ints) -> None: ...
    def reset(self) -> None: ...
    def sample(self, logits: Floats) -> int:
        """Applies the chain to one row [n_vocab]; accepts nothing."""

class ChatTemplates:
    """A chat template in upstream's chat layer. ValueError: no template, or a request that it or upstream refuses."""

    def __init__(self, model: Model, source: str = "", jinja: bool = True) -> None:
        """source: Jinja; "": the model's own; with jinja=False the name of a built-in one."""
    def apply(self, request_json: str, lenient: bool = False) -> dict[str, Any]:
        """Of {messages, tools, tool_choice, json_schema, parallel_tool_calls, add_generation_prompt, pure}: prompt,
        grammar, lazy, generation_prompt, stops, format, parser, preserved, trigger_tokens, trigger_patterns, warnings.
        lenient: what no grammar holds of the tools' parameters is left out, and said in warnings, instead of a ValueError."""

class ChatParser:
    """Upstream's parser for the answers to one request."""

    def __init__(self, format: int, parser: bytes, generation_prompt: str) -> None: ...
    def push(self, text: str, last: bool) -> list[dict[str, Any]]:
        """What more text adds: dicts of reasoning_content, content, index (of a call, -1: none), name, arguments."""
    def content(self) -> str: ...
