"""The sides as data: what an engine is built from, how its driver is compiled, and which of its settings are tried. The next engine is
one more row here, with a lock file, and with words in cpp/engine.h where its C interface differs from llama.cpp's at the pin."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PIN = HERE.parent / "cpp_backend" / "llama.lock"


@dataclass(frozen=True)
class Side:
    """`lock`: the archive of the engine's source, which is built here with -march=native; with `installed` only its headers are used,
    beside the libraries of the package. `dialect`: of cpp/engine.h. `options`: of the engine's CMake. `settings`: by label, "" the
    plain one; a figure of a side is that of its fastest setting."""
    name: str
    engine: str
    lock: Path
    installed: bool = False
    dialect: str = ""
    options: dict[str, str] = field(default_factory=dict)
    settings: dict[str, dict[str, Any]] = field(default_factory=lambda: {"": {}})
    openmp: bool = False

    def environment(self, cpus: list[int]) -> dict[str, str]:
        """Of its driver: thread i runs on the i-th of these CPUs."""
        out = {"SPIKINGBRAIN_BENCH_CPUS": ",".join(map(str, cpus))}
        return out | {"OMP_PLACES": ",".join(f"{{{c}}}" for c in cpus), "OMP_PROC_BIND": "true"} if self.openmp else out


_IK = {"flash_attn": True, "rope_cache": True}
_RTR = _IK | {"repack": True, "merge_qkv": True}

SIDES = {s.name: s for s in (
    Side("ours", "SpikingBrain", PIN, installed=True, dialect="SPIKINGBRAIN"),
    Side("upstream", "llama.cpp", PIN, options={"GGML_OPENMP": "OFF"},
         settings={"": {"flash_attn": False}, "fa": {"flash_attn": True}, "fa q8": {"flash_attn": True, "kv": "q8_0"}}),
    # rtr: weights repacked when loaded, else mapped, in huge pages. Fewer cache types for flash attention only shorten the build
    Side("ik", "ik_llama.cpp", HERE / "engines" / "ik_llama.lock", dialect="IK", options={"GGML_IQK_FA_ALL_QUANTS": "OFF"}, openmp=True,
         settings={"ik": _IK | {"huge_pages": True}, "ik q8": _IK | {"huge_pages": True, "kv": "q8_0"}, "ik rtr": _RTR, "ik rtr q8": _RTR | {"kv": "q8_0"},
                   "ik rtr nofa": _RTR | {"flash_attn": False}}),
)}
