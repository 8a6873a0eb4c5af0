"""Which of our kernels a CPU should get, by what Linux says of it: a wheel whose compiler asks the CPU wrongly runs, only slowly."""

from __future__ import annotations

from pathlib import Path

AVX2 = {"avx2", "fma", "f16c"}
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni"}
PRINT = "import spikingbrain_cpp; print(spikingbrain_cpp.system_info()['spike_kernels'])"


def usable(cpuinfo: str | None = None) -> list[str]:
    """Their names in system_info(), best first, for the text of /proc/cpuinfo of an x86-64 or aarch64 machine (this one's by default)."""
    text = Path("/proc/cpuinfo").read_text() if cpuinfo is None else cpuinfo
    lines = [line.partition(":")[::2] for line in text.splitlines()]
    said = {name.strip(): value.split() for name, value in reversed(lines)}
    flags = set(said.get("flags", [])) | set(said.get("Features", []))
    has = {
        "zen4": flags >= AVX512 and said["vendor_id"] == ["AuthenticAMD"], "avx512": flags >= AVX512, "avxvnni": flags >= AVX2 | {"avx_vnni"}, "avx2": flags >= AVX2,
        "i8mm": flags >= {"asimddp", "i8mm"}, "dotprod": "asimddp" in flags, "generic": True,
    }
    return [name for name, there in has.items() if there]


def expected(cpuinfo: str | None = None) -> str:
    """The one that is taken."""
    return usable(cpuinfo)[0]
