"""Spikes seen and measured: codings, statistics, energy estimate, pictures (see README.md beside this file).

    from spikingbrain_cpp.spikes import encode, decode

    with Llama("model.gguf", spike=True, spike_stats=True) as llm:
        llm.eval(llm.tokenize(text))
        print(llm.spike_stats().model().sparsity)
"""

from .codings import CODINGS, count, decode, encode, firing_rate, n_steps, shift_to_zero
from .energy import Energy, energy
from .stats import CountHistogram, ExpertChoices, SpikeInput, SpikeStats

__all__ = [
    "CODINGS",
    "CountHistogram",
    "Energy",
    "ExpertChoices",
    "SpikeInput",
    "SpikeStats",
    "count",
    "decode",
    "encode",
    "energy",
    "firing_rate",
    "n_steps",
    "shift_to_zero",
]
