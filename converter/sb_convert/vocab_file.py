"""What a GGUF holds beside its tensors, and one without any: enough to split a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf

from .config import ModelConfig
from .metadata import add_general, add_hparams
from .output import Output, opened
from .spike import SpikeKeys, add_sink_keys
from .tokenizer import load_vocab
from .vocab import Vocab


def add_keys(writer: gguf.GGUFWriter, folder: Path, config: ModelConfig, vocab: Vocab, file_type: gguf.LlamaFileType, override: dict[str, Any] | None = None,
             model_name: str | None = None, n_params: int = 0, spike: SpikeKeys | None = None, experts: tuple[int, int] = (0, 0)) -> None:
    """Every key: general ones (with those to override), hyperparameters, spikes, vocabulary."""
    add_general(writer, folder, override or {}, model_name, n_params, file_type, experts)
    add_hparams(writer, config)
    if config.n_sinks:
        add_sink_keys(writer, spike)
    if spike is not None:
        spike.add_to(writer)
    vocab.add_to(writer)


def write_vocab(folder: Path, out: Path) -> None:
    """A checkpoint's keys alone."""
    config = ModelConfig.load(folder)
    output = Output(out, False, 0, [folder])
    add_keys(output.writer, folder, config, load_vocab(folder, config), gguf.LlamaFileType.ALL_F32)
    with opened(output, 0):
        pass
