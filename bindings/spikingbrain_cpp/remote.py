"""Layers on other machines: the arguments rpc_servers and n_gpu_layers, --rpc and -ngl (see sb-rpc-server)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from .arguments import integer

_NO_ROOM = re.compile(r"failed to allocate RPC\d+\[(.+?)\] buffer of size (\d+)")  # llama.cpp's words
_SERVER = re.compile(r"[^\s:/,]+:[1-9][0-9]{0,4}")


def check_servers(value: Any) -> list[str]:
    """"HOST:PORT,HOST:PORT" as a list; None: none."""
    if value is None:
        return []
    if not isinstance(value, str):
        raise TypeError(f"llama: rpc_servers: got {type(value).__name__}, expected text as 'HOST:PORT,HOST:PORT'")
    servers = value.split(",")
    for server in servers:
        if not _SERVER.fullmatch(server) or int(server.rpartition(":")[2]) > 65535:
            raise ValueError(f"llama: rpc_servers: got {server!r}, expected HOST:PORT, such as 192.168.0.2:50052, several separated by commas")
    if len(set(servers)) < len(servers):
        raise ValueError(f"llama: rpc_servers: got {value}, expected each server once")
    return servers


def check_layers(value: Any, servers: list[str]) -> int:
    """How many of the last layers, the output among them, lie there; -1: all. None: all where there are servers, else none."""
    if value is None:
        return -1 if servers else 0
    n = integer("llama: n_gpu_layers", value)
    if not servers and n not in (0, -1):
        raise ValueError(f"llama: n_gpu_layers: got {n}, expected 0 or -1 without rpc_servers; this build computes on CPUs")
    if servers and (n == 0 or not -1 <= n < 2**31):
        raise ValueError(f"llama: n_gpu_layers: got {n}, expected -1 (all) or at least 1 with rpc_servers, which have no layers else")
    return n if servers else 0


def without_effect(tool: str, arguments: Sequence[str], environ: Mapping[str, str]) -> Optional[str]:
    """What to say of a tool's -ngl without --rpc; habit has it on many command lines, so that it is no error."""
    here = {*arguments, *environ}
    layers = {"-ngl", "--gpu-layers", "--n-gpu-layers", "LLAMA_ARG_N_GPU_LAYERS"} & here
    if layers and not {"-rpc", "--rpc", "LLAMA_ARG_RPC"} & here:
        return f"{tool}: {layers.pop()}: got it without --rpc, expected both: it has no effect, this build computes on CPUs"
    return None


def load_failed(path: str, error: Exception) -> str:
    """The sentence of a ModelLoadError: a server is no fault of the file."""
    _, rpc, reason = str(error).partition("rpc: ")
    if rpc:
        return f"llama: rpc_servers: {reason}"
    if full := _NO_ROOM.search(str(error)):
        return f"llama: rpc_servers: {full[1]}: got no room for {int(full[2])/2**20:.0f} MiB, expected some; lower n_gpu_layers or name more servers"
    return f"llama: {path}: got a file that llama.cpp cannot load: {error}; convert or copy it again"
