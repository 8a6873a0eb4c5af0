"""The baseline: an interpolated Kneser-Ney n-gram model over token ids, in sorted numpy arrays."""

from __future__ import annotations

import numpy as np


class KneserNey:
    """Level n - 1 keeps every n-gram of the text as one integer, `bits` per token, last token lowest, with its count:
    the plain count for the longest, for shorter ones the number of distinct tokens before them."""

    def __init__(self, tokens: np.ndarray, vocab_size: int, order: int = 5):
        self.vocab_size, self.bits = vocab_size, int(vocab_size - 1).bit_length()
        self.order = min(order, 63 // self.bits)
        grams, counts = np.unique(self.keys(tokens, self.order), return_counts=True)
        self.levels = [self.level(grams, counts)]
        for n in range(self.order - 1, 0, -1):
            grams, counts = np.unique(grams & ((1 << n * self.bits) - 1), return_counts=True)
            self.levels.insert(0, self.level(grams, counts))

    def keys(self, tokens: np.ndarray, n: int) -> np.ndarray:
        """The n-gram that ends at each token from the n-th on."""
        t, m = tokens.astype(np.int64), len(tokens) - n + 1
        return sum((t[i:i + m] << (n - 1 - i) * self.bits for i in range(n)), np.zeros(m, np.int64))

    def level(self, grams: np.ndarray, counts: np.ndarray) -> tuple:
        """grams, counts, discount; contexts, the sum of counts after each and how many different tokens follow."""
        once, twice = (counts == 1).sum(), (counts == 2).sum()
        contexts, first, follow = np.unique(grams >> self.bits, return_index=True, return_counts=True)
        return grams, counts, once / max(1, once + 2 * twice), contexts, np.add.reduceat(counts, first), follow

    def logprobs(self, tokens: np.ndarray) -> np.ndarray:
        """log p of every token but the first order - 1, each given those before it."""
        p = np.full(len(tokens), 1 / self.vocab_size)
        for n, (grams, counts, discount, contexts, total, follow) in enumerate(self.levels, 1):
            keys = self.keys(tokens, n)
            c, seen = lookup(grams, counts, keys), lookup(contexts, total, keys >> self.bits)
            weight = discount * lookup(contexts, follow, keys >> self.bits) / np.maximum(seen, 1)
            lower = p[n - 1:]
            p[n - 1:] = np.where(seen > 0, np.maximum(c - discount, 0) / np.maximum(seen, 1) + weight * lower, lower)
        return np.log(p[self.order - 1:])

    def perplexity(self, tokens: np.ndarray) -> float:
        return float(np.exp(-self.logprobs(tokens).mean()))


def lookup(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """values at the places of wanted in the sorted keys, 0 where absent."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)
