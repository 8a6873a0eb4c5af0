"""The model card of a trained example, made from what was measured."""

from __future__ import annotations

from typing import Any

from corpus import SOURCES

from sb_convert.config import Config

FRONT = """---
language: en
library_name: spikingbrain_cpp
pipeline_tag: text-generation
tags: [spikingbrain, gla, sliding-window, spiking]
---
"""


def card(c: Config, recipe: dict[str, Any], report: dict[str, Any], sources: dict[str, list[int]], seconds: float) -> str:
    """Markdown. sources: package -> documents, bytes, bytes held out; seconds of training."""
    tokens = recipe["steps"] * recipe["batch"] * recipe["length"]
    windows = "\n".join(f"| {w['from']} to {w['to'] - 1} | {w['intact']:.4f} | {w['reset']:.4f} |" for w in report["beyond_window"])
    texts = "\n".join(f"| {s.package} | {s.licence} | {sources[s.package][1] / 1e6:.2f} |" for s in SOURCES if s.package in sources)
    return f"""{FRONT}
# A small SpikingBrain

{report['parameters'] / 1e6:.2f} million parameters in the published format: {c.num_hidden_layers} layers, gated linear attention and a window of
{c.sliding_window} tokens in turn, hidden size {c.hidden_size}, {c.num_attention_heads} query heads on {c.num_key_value_heads} key/value heads, a byte-level BPE vocabulary of
{c.vocab_size} entries. It writes in the manner of Python's, Debian's and Git's documentation, and knows nothing: an example to convert, run and measure.
`samples.txt` shows what it writes, `loss.png` how it learned, `train.jsonl` and `eval.json` hold the numbers.

## Training

{recipe['steps']} steps of {recipe['batch']} rows of {recipe['length']} tokens ({tokens / 1e6:.1f} million), AdamW, peak learning rate {recipe['lr']:g}, {seconds / 60:.0f} minutes on
{recipe['threads']} threads. From {recipe['spike_from']:.0%} of the steps on, every second micro-batch was read as a spiking model (k = {recipe['spike_k']:g}, scope `paper`,
straight-through gradients; section 3.3.1). Made again by `examples/train.py --steps {recipe['steps']} --batch {recipe['batch']} --lr {recipe['lr']:g} --warmup
{recipe['warmup']} --spike-from {recipe['spike_from']:g} --threads {recipe['threads']}{' --bf16' if recipe['bf16'] else ''} --seed {recipe['seed']}`.

## Measured

On {report['held_out_tokens']:,} held-out tokens, in rows of {recipe['length']} that begin without state, from the bfloat16 weights:

| | perplexity |
| --- | ---: |
| this model | {report['perplexity']:.2f} ({report['bits_per_byte']:.3f} bits per byte) |
| with spikes, k = 3 | {report['perplexity_spikes_k3']:.2f} |
| Kneser-Ney 5-gram model of the same tokens | {report['perplexity_kneser_ney_5']:.2f} |

Mean loss by position in the row (nats per token), with the states of the gla layers as they are, and emptied at each window's edge: what lies
between is carried by them, past the window.

| tokens | intact | emptied |
| --- | ---: | ---: |
{windows}

## Text

From packages of Debian 12, cut and split by `examples/corpus.py`; documents whose SHA-256 divides by 33 are held out. Licences as each package's
copyright file gives them for the documentation; single files can carry another free one.

| package | licence | MB |
| --- | --- | ---: |
{texts}
"""
