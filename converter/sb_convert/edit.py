"""An existing spikingbrain GGUF made spiking, or its k changed, without its checkpoint: a copy with other keys."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

from .constants import ARCH
from .errors import bad
from .files import refuse_placeholder
from .output import Output, opened
from .progress import Progress
from .spike import SCOPES, SpikeKeys, SpikeOptions, check_widths, resolve

BLOCK = 8 << 20  # bytes copied at a time
RAW = (T.F32, T.F16, T.BF16, T.Q8_0)  # types of an ordinary down projection
WIDTHS = {"hidden_size": f"{ARCH}.embedding_length", "intermediate_size": f"{ARCH}.feed_forward_length",
          "num_attention_heads": f"{ARCH}.attention.head_count", "head_dim": f"{ARCH}.attention.key_length",
          "shared_intermediate_size": f"{ARCH}.expert_shared_feed_forward_length"}  # the last one where there are experts
HEADS = ("num_attention_heads", "head_dim")  # one width, of both
DOWN = (".ffn_down.weight", ".ffn_down_exps.weight", ".ffn_down_shexp.weight")
SPIKE_KEYS = tuple(f"{ARCH}.spike.{name}" for name in ("enable", "k", "scope"))


def respike(path: Path, outfile: Path | None, options: SpikeOptions, force: bool, say=print) -> str:
    """Copies a GGUF with its spike keys set; returns a line on what was written."""
    reader = read(path)
    refuse_sinks(reader, path, options)
    had = keys_of(reader, path)
    keys = resolve(options, path, had)
    assert keys is not None
    if had is not None and keys.scope != had.scope:
        raise bad(path, "--spike-scope", f"{keys.scope}, and a file of scope {had.scope}", "the scope it was converted with",
                  "its down projections are stored for that scope; convert the checkpoint again")
    check_down(reader, path, keys)
    widths = {name: field.contents() for name, key in WIDTHS.items() if (field := reader.get_field(key)) is not None}
    if all(name in widths for name in HEADS):
        widths[" * ".join(HEADS)] = math.prod(widths.pop(name) for name in HEADS)
    check_widths(keys, {name: n for name, n in widths.items() if name not in HEADS}, path)
    target = outfile or path.with_name(f"{path.stem}-spike.gguf")
    output = Output(target / path.name if target.is_dir() else target, force, inputs=[path])
    copy_keys(reader, output.writer, keys)
    total = sum(int(t.n_bytes) for t in reader.tensors)
    for t in reader.tensors:
        output.add_tensor(t.name, tuple(map(int, reversed(t.shape))), t.tensor_type, int(t.n_bytes))
    output.check_free()
    with opened(output, total), Progress(max(total, 1), say) as progress:
        for t in reader.tensors:
            progress.start(t.name)
            for n in output.write(0, blocks(reader, t), int(t.n_bytes)):
                progress.add(n)
    return f"{output.path.name}: {keys}, {output.path.stat().st_size / 1e6:.1f} MB"


def read(path: Path) -> gguf.GGUFReader:
    """A GGUF of SpikingBrain in one file. ConvertError: anything else."""
    refuse_placeholder(path, "a GGUF file")
    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, IndexError, KeyError, OSError, UnicodeDecodeError) as e:  # gguf raises many kinds for a damaged file
        raise bad(path, "content", str(e).splitlines()[0] if str(e) else type(e).__name__, "a GGUF file", "give a GGUF written by sb-convert") from None
    arch = reader.get_field("general.architecture")
    if arch is None or arch.contents() != ARCH:
        raise bad(path, "general.architecture", repr(arch.contents()) if arch else "nothing", repr(ARCH), "give a GGUF written by sb-convert")
    for key in (WIDTHS["hidden_size"], WIDTHS["intermediate_size"]):
        if reader.get_field(key) is None:
            raise bad(path, key, "nothing", "a number", "give a GGUF written by sb-convert")
    split = reader.get_field("split.count")
    if split is not None and split.contents() > 1:
        raise bad(path, "split.count", split.contents(), "a model in one file", "join its parts first with sb-gguf-split --merge")
    return reader


def refuse_sinks(reader: gguf.GGUFReader, path: Path, options: SpikeOptions) -> None:
    """The constants of sinks were computed with the model's own spikes: others would need them anew, from all weights."""
    sinks = reader.get_field(f"{ARCH}.sink_count")
    if sinks is not None and sinks.contents() != 0:
        raise bad(path, ", ".join(options.given()), f"a model with {sinks.contents()} sinks", "one without",
                  "their stored constants belong to the spikes that it has: convert the checkpoint again with this option")


def keys_of(reader: gguf.GGUFReader, path: Path) -> SpikeKeys | None:
    """The spike keys of a file, None where it has none. ConvertError: only some of them, or values that are no such keys."""
    held = {key: field.contents() for key in SPIKE_KEYS if (field := reader.get_field(key)) is not None}
    if not held:
        return None
    for key in SPIKE_KEYS:
        if key not in held:
            raise bad(path, key, "nothing", f"a value, as the file has {', '.join(held)}", "convert the checkpoint again")
    enable, k, scope = (held[key] for key in SPIKE_KEYS)
    if not isinstance(enable, bool) or not isinstance(k, float) or not 0 < k < np.inf or scope not in SCOPES:
        raise bad(path, "spike keys", f"{enable!r}, {k!r}, {scope!r}", f"a bool, a number above 0, one of {', '.join(SCOPES)}", "convert the checkpoint again")
    return SpikeKeys(enable, k, scope)


def check_down(reader: gguf.GGUFReader, path: Path, keys: SpikeKeys) -> None:
    """ConvertError: scope `released` for a file whose down projections are stored in blocks or codes."""
    for t in reader.tensors:
        if keys.scope == "released" and t.name.endswith(DOWN) and t.tensor_type not in RAW:
            raise bad(path, t.name, f"type {t.tensor_type.name} for scope released", f"one of {', '.join(r.name for r in RAW)}",
                      "it is fed ordinary activations there: convert the checkpoint again, or choose --spike-scope paper")


def copy_keys(reader: gguf.GGUFReader, w: gguf.GGUFWriter, keys: SpikeKeys) -> None:
    """All keys of a file but the spike keys, which are `keys`."""
    w.data_alignment = reader.alignment
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name not in (*SPIKE_KEYS, "general.architecture"):
            w.add_key_value(field.name, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None)
    keys.add_to(w)


def blocks(reader: gguf.GGUFReader, t: gguf.ReaderTensor) -> Iterator[np.ndarray]:
    """A tensor's bytes as they are stored, BLOCK at a time."""
    start = int(t.data_offset)
    for at in range(start, start + int(t.n_bytes), BLOCK):
        yield reader.data[at:min(at + BLOCK, start + int(t.n_bytes))]
