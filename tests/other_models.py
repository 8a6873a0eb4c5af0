"""Tiny random models of other architectures, with the tokenizer of a given GGUF file: what upstream supports works here too."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

N_EMBD, N_FF, N_LAYER, N_HEAD = 64, 96, 2, 4


def write(path: Path, arch: str, tokenizer: Path, keys: dict[str, int | float], tensors: dict[str, np.ndarray]) -> Path:
    writer = gguf.GGUFWriter(path, arch)
    for key, value in keys.items():
        (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(f"{arch}.{key}", value)
    for field in gguf.GGUFReader(tokenizer).fields.values():
        if field.name.startswith("tokenizer."):
            kind, sub = field.types[0], field.types[-1]
            writer.add_key_value(field.name, field.contents(), kind, sub_type=sub if kind == gguf.GGUFValueType.ARRAY else None)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def with_key(source: Path, path: Path, key: str, value: int) -> Path:
    """A copy of a GGUF file with one more key."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(path, reader.fields["general.architecture"].contents())
    writer.add_uint32(key, value)
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            kind, sub = field.types[0], field.types[-1]
            writer.add_key_value(field.name, field.contents(), kind, sub_type=sub if kind == gguf.GGUFValueType.ARRAY else None)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def draw(seed: int, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Tensors of numpy's shapes (the reverse of ggml's), norms around one."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape) * 0.15 + ("norm" in name) for name, shape in shapes.items()}


def head(n_vocab: int) -> dict[str, tuple[int, ...]]:
    return {"token_embd.weight": (n_vocab, N_EMBD), "output_norm.weight": (N_EMBD,), "output.weight": (n_vocab, N_EMBD)}


def write_transformer(path: Path, tokenizer: Path, n_vocab: int = 288) -> Path:
    shapes = head(n_vocab)
    for i in range(N_LAYER):
        shapes |= {f"blk.{i}.{name}.weight": (N_EMBD, N_EMBD) for name in ("attn_q", "attn_k", "attn_v", "attn_output")}
        shapes |= {f"blk.{i}.{name}.weight": (N_EMBD,) for name in ("attn_norm", "ffn_norm")}
        shapes |= {f"blk.{i}.ffn_gate.weight": (N_FF, N_EMBD), f"blk.{i}.ffn_up.weight": (N_FF, N_EMBD), f"blk.{i}.ffn_down.weight": (N_EMBD, N_FF)}
    keys = {"block_count": N_LAYER, "context_length": 512, "embedding_length": N_EMBD, "feed_forward_length": N_FF,
            "attention.head_count": N_HEAD, "attention.layer_norm_rms_epsilon": 1e-6}
    return write(path, "llama", tokenizer, keys, draw(3, shapes))


def write_recurrent(path: Path, tokenizer: Path, n_vocab: int = 288) -> Path:
    inner, state, conv, rank = 2 * N_EMBD, 8, 4, 4
    shapes = head(n_vocab)
    for i in range(N_LAYER):
        part = {"attn_norm.weight": (N_EMBD,), "ssm_in.weight": (2 * inner, N_EMBD), "ssm_conv1d.weight": (inner, conv), "ssm_conv1d.bias": (inner,),
                "ssm_x.weight": (rank + 2 * state, inner), "ssm_dt.weight": (inner, rank), "ssm_dt.bias": (inner,), "ssm_a": (inner, state),
                "ssm_d": (inner,), "ssm_out.weight": (N_EMBD, inner)}
        shapes |= {f"blk.{i}.{name}": shape for name, shape in part.items()}
    tensors = draw(4, shapes)
    for i in range(N_LAYER):
        tensors[f"blk.{i}.ssm_a"] = -np.abs(tensors[f"blk.{i}.ssm_a"]) - 0.1  # a decay
    keys = {"block_count": N_LAYER, "context_length": 512, "embedding_length": N_EMBD, "feed_forward_length": 0, "attention.head_count": 0,
            "attention.layer_norm_rms_epsilon": 1e-6, "ssm.conv_kernel": conv, "ssm.inner_size": inner, "ssm.state_size": state, "ssm.time_step_rank": rank}
    return write(path, "mamba", tokenizer, keys, tensors)
