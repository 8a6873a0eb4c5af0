"""From sampling arguments to upstream's sampler chain."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, fields
from typing import Any, Callable, List, Mapping, Optional, Sequence, Union

import numpy as np
import numpy.typing as npt
from sb_convert.numerics import log_softmax

from . import _core
from .arguments import check_seed, integer
from .grammar import LlamaGrammar

MAX_BIAS = float(np.finfo(np.float32).max)
Ids = npt.NDArray[np.int32]      # [n_tokens]
Row = npt.NDArray[np.float32]    # [n_vocab]
LogitsProcessor = Callable[[Ids, Row], Row]
StoppingCriterion = Callable[[Ids, Row], bool]
Processors = Optional[Union[LogitsProcessor, Sequence[LogitsProcessor]]]
Criteria = Optional[Union[StoppingCriterion, Sequence[StoppingCriterion]]]


def as_list(functions: Any, name: str = "functions") -> List[Any]:
    """One function, a list of them, or None, as a list."""
    if functions is None:
        return []
    found = list(functions) if isinstance(functions, (list, tuple)) else [functions]
    for function in found:
        if not callable(function):
            raise TypeError(f"llama: {name}: got {type(function).__name__}, expected a function or a list of them")
    return found


class LogitsProcessorList(List[LogitsProcessor]):
    """Processors applied one after the other to a copy of the last token's logits."""

    def __call__(self, input_ids: Ids, scores: Row) -> Row:
        for processor in self:
            scores = processor(input_ids, scores)
        return scores


class StoppingCriteriaList(List[StoppingCriterion]):
    """Generation stops when one of them is true for (tokens so far, the last token's logits)."""

    def __call__(self, input_ids: Ids, logits: Row) -> bool:
        return any(criterion(input_ids, logits) for criterion in self)


@dataclass(frozen=True)
class SamplingParams:
    """The arguments that Llama.sample, generate and create_completion share, under llama-cpp-python's names."""

    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    temp: float = 0.80
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    mirostat_mode: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    logit_bias: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        for name, low, high in (("top_p", 0.0, 1.0), ("min_p", 0.0, 1.0), ("typical_p", 0.0, 1.0),
                                ("frequency_penalty", -math.inf, math.inf), ("presence_penalty", -math.inf, math.inf),
                                ("temp", -math.inf, math.inf), ("mirostat_tau", 0.0, math.inf),
                                ("mirostat_eta", 0.0, math.inf)):
            value = getattr(self, name)
            _number(name, value)
            if not (low <= value <= high and math.isfinite(value)):
                raise ValueError(f"llama: {name}: got {value}, expected a number from {low:g} to {high:g}")
        _number("repeat_penalty", self.repeat_penalty)
        if not (self.repeat_penalty > 0 and math.isfinite(self.repeat_penalty)):
            raise ValueError(f"llama: repeat_penalty: got {self.repeat_penalty}, expected a number above 0; 1 is none")
        if self.mirostat_mode not in (0, 1, 2):
            raise ValueError(f"llama: mirostat_mode: got {self.mirostat_mode}, expected 0, 1 or 2")
        if not -2**31 <= integer("llama: top_k", self.top_k) < 2**31:
            raise ValueError(f"llama: top_k: got {self.top_k}, expected a 32-bit integer; 0 is all")


def _number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"llama: {name}: got {type(value).__name__}, expected a number")


def refuse_removed(tfs_z: float, penalize_nl: bool) -> None:
    """Arguments of llama-cpp-python that llama.cpp has no sampler for any more: their neutral values only."""
    if tfs_z != 1.0:
        raise ValueError(f"llama: tfs_z: got {tfs_z}, expected 1.0; llama.cpp has no tail-free sampling any more")
    if penalize_nl is not True:
        raise ValueError(f"llama: penalize_nl: got {penalize_nl}, expected True; llama.cpp's penalties make no exceptions")


def read_logit_bias(bias: Optional[Mapping[int, float]]) -> tuple[tuple[int, float], ...]:
    """{token id: addend} as a tuple that SamplingParams can hold. Ids may be strings, as in JSON."""
    if bias is not None and not isinstance(bias, Mapping):
        raise TypeError(f"llama: logit_bias: got {type(bias).__name__}, expected a dict of token ids and numbers")
    try:
        read = tuple(sorted((int(k), float(v)) for k, v in (bias or {}).items()))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"llama: logit_bias: got {error}, expected token ids and numbers") from error
    for token, value in read:
        if not -2**31 <= token < 2**31 or math.isnan(value) or value > MAX_BIAS:
            raise ValueError(f"llama: logit_bias: got {token}: {value}, expected a token id and a number or -inf")
    return read


@dataclass(frozen=True)
class Sampling:
    """What a call says about the choosing of tokens."""

    params: SamplingParams
    grammar: Optional[LlamaGrammar]
    processors: List[LogitsProcessor]
    criteria: List[StoppingCriterion]

    @classmethod
    def from_call(cls, given: Mapping[str, Any]) -> Sampling:
        """Of the arguments of sample, generate, create_completion, create_chat_completion or generate_many, by their names.

        ValueError, TypeError: one of them.
        """
        refuse_removed(given.get("tfs_z", 1.0), given.get("penalize_nl", True))
        named = {"temp": given["temperature"], **given} if "temperature" in given else given
        values = {f.name: named[f.name] for f in fields(SamplingParams) if f.name in named}
        params = SamplingParams(**{**values, "logit_bias": read_logit_bias(given.get("logit_bias"))})
        return cls(params, given.get("grammar"), as_list(given.get("logits_processor"), "logits_processor"),
                   as_list(given.get("stopping_criteria"), "stopping_criteria"))


class Seeds:
    """The seeds of generations, one after another, from the object's own."""

    def __init__(self, seed: int) -> None:
        own = check_seed("llama: seed", seed)
        self._random = random.Random(None if own == _core.DEFAULT_SEED else own)

    def next(self, given: Optional[int]) -> int:
        """The given one, else the next that the object's own seed yields."""
        if given is not None and (seed := check_seed("llama: seed", given)) != _core.DEFAULT_SEED:
            return seed
        return self._random.randrange(_core.DEFAULT_SEED)


def build_chain(model: _core.Model, p: SamplingParams, seed: int, last_n: int,
                grammar: Optional[LlamaGrammar] = None) -> _core.Sampler:
    """Upstream's samplers in llama-cpp-python's order; last_n: tokens the penalties look back."""
    chain = _core.Sampler(model)
    if grammar is not None:
        if not isinstance(grammar, LlamaGrammar):
            raise TypeError(f"llama: grammar: got {type(grammar).__name__}, expected LlamaGrammar; use LlamaGrammar.from_string")
        grammar.constrain(chain)
    if p.logit_bias:
        chain.add_logit_bias(list(p.logit_bias))
    chain.add_penalties(last_n, p.repeat_penalty, p.frequency_penalty, p.presence_penalty)
    if p.temp < 0:  # the field's meaning of a negative temperature: the untouched distribution
        chain.add_dist(seed)
    elif p.temp == 0:
        chain.add_greedy()
    elif p.mirostat_mode == 1:
        chain.add_temp(p.temp)
        chain.add_mirostat(seed, p.mirostat_tau, p.mirostat_eta)
    elif p.mirostat_mode == 2:
        chain.add_temp(p.temp)
        chain.add_mirostat_v2(seed, p.mirostat_tau, p.mirostat_eta)
    else:
        chain.add_top_k(p.top_k)
        chain.add_typical(p.typical_p)
        chain.add_top_p(p.top_p)
        chain.add_min_p(p.min_p)
        chain.add_temp(p.temp)
        chain.add_dist(seed)
    return chain


def logprobs_of(row: Row) -> Row:
    """Logs of the probabilities, in nats, of one row of logits [n_vocab]."""
    return np.asarray(log_softmax(row), np.float32)
