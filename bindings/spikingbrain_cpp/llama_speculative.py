"""Draft models, under llama-cpp-python's names: what guesses the tokens that come next, for Llama(draft_model=...)."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np
import numpy.typing as npt

from .arguments import check_range

Ids = npt.NDArray[np.intc]


class LlamaDraftModel(abc.ABC):
    """Called with the tokens so far; returns those that it expects next, as many as it likes, or none.

    A wrong guess costs time and nothing else. It may ask the Llama that it drafts for, and change nothing of it.
    """

    @abc.abstractmethod
    def __call__(self, input_ids: Ids, /, **kwargs: Any) -> Ids:
        raise NotImplementedError


class LlamaPromptLookupDecoding(LlamaDraftModel):
    """Expects what stood behind the same last tokens before: for answers that repeat their prompt or themselves (code, quotations, JSON)."""

    def __init__(self, max_ngram_size: int = 2, num_pred_tokens: int = 10) -> None:
        """max_ngram_size: how many last tokens must be the same, or else fewer, down to one. num_pred_tokens: most to expect."""
        self.max_ngram_size = check_range("draft_model: max_ngram_size", max_ngram_size)
        self.num_pred_tokens = check_range("draft_model: num_pred_tokens", num_pred_tokens)

    @staticmethod
    def find_candidate_pred_tokens(input_ids: Ids, max_ngram_size: int, num_pred_tokens: int) -> Ids:
        """The tokens behind the first place where the longest ending stands."""
        n = input_ids.shape[0]
        ends = np.arange(0)  # where the last `size` tokens stand, too: positions behind them
        for size in range(1, min(max_ngram_size, n - 1) + 1):
            longer = np.flatnonzero(input_ids[:n - 1] == input_ids[n - 1]) + 1 if size == 1 else \
                ends[(ends >= size) & (input_ids[ends - size] == input_ids[n - size])]
            if not longer.size:
                break
            ends = longer
        return input_ids[ends[0]:ends[0] + num_pred_tokens] if ends.size else np.array([], np.intc)

    def __call__(self, input_ids: Ids, /, **kwargs: Any) -> Ids:
        return self.find_candidate_pred_tokens(input_ids, self.max_ngram_size, self.num_pred_tokens)
