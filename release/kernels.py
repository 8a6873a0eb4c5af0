"""Which of our kernels a CPU should get, by what Linux says of it: a wheel whose compiler asks the CPU wrongly runs, only slowly."""

from __future__ import annotations

from pathlib import Path

AVX2 = {"avx2", "fma", "f16c"}
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni"}
PRINT = "import spikingbrain_cpp; print(spikingbrain_cpp.system_info()['spike_kernels'])"


def expected(cpuinfo: str | None = None) -> str:
    """Their name in system_info(), for the text of /proc/cpuinfo of an x86-64 or aarch64 machine (this one's by default)."""
    text = Path("/proc/cpuinfo").read_text() if cpuinfo is None else cpuinfo
    lines = [line.partition(":")[::2] for line in text.splitlines()]
    said = {name.strip(): value.split() for name, value in reversed(lines)}
    flags = set(said.get("flags", [])) | set(said.get("Features", []))
    if flags >= AVX512:
        return "zen4" if said["vendor_id"] == ["AuthenticAMD"] else "avx512"
    if flags >= AVX2:
        return "avx2"
    return "i8mm" if flags >= {"asimddp", "i8mm"} else "dotprod" if "asimddp" in flags else "generic"
