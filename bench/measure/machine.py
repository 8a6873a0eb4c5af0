"""What a row says of the machine, what is free on it, and how quiet it is."""

from __future__ import annotations

import os
import platform
import shutil
import time
from pathlib import Path
from typing import Any

FEATURES = ("sse3", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_int8",
            "asimd", "asimddp", "i8mm", "sve")
QUIET = {"others": 0.05, "steal": 0.02, "loop_spread": 0.10}  # above: noisy


def cpuinfo(key: str) -> str:
    """First value of a key of /proc/cpuinfo, or empty."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == key), "")


def cpu_features() -> list[str]:
    flags = set((cpuinfo("flags") or cpuinfo("Features")).split())
    return [f for f in FEATURES if f in flags]


def meminfo(key: str) -> int:
    """Bytes of a line of /proc/meminfo."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/meminfo: no {key}")


def siblings(cpu: int) -> list[int]:
    """CPUs of the same core, this one among them; this one alone where the kernel does not say."""
    try:
        text = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return [cpu]
    out = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        out += range(int(first), int(last or first) + 1)
    return out


def cpus() -> list[int]:
    """Those that this process may use: one of each core, then the cores' second threads."""
    allowed = sorted(os.sched_getaffinity(0))
    return sorted(allowed, key=lambda c: ([s for s in siblings(c) if s in allowed].index(c), c))


def cores() -> int:
    """Cores of which this process may use a CPU: the default number of threads."""
    return len({tuple(siblings(c)) for c in os.sched_getaffinity(0)})


def told(path: str) -> str:
    """Of a file of the kernel, the choice in brackets where it lists some; empty where there is none."""
    try:
        text = Path(path).read_text().strip()
    except OSError:
        return ""
    return text.split("[", 1)[1].split("]", 1)[0] if "[" in text else text


def describe() -> dict[str, Any]:
    """What figures depend on. `smt`: some core gives this process two CPUs; `pinned`: it may not use all that are there."""
    allowed = os.sched_getaffinity(0)
    return {"cpu": cpuinfo("model name") or platform.processor() or platform.machine(), "arch": platform.machine(), "cpus": len(allowed),
            "cores": cores(), "smt": cores() < len(allowed), "pinned": len(allowed) < (os.cpu_count() or 1),
            "governor": told("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            "huge_pages": told("/sys/kernel/mm/transparent_hugepage/enabled"),
            "memory_bytes": meminfo("MemTotal"), "system": f"{platform.system()} {platform.release()}"}


def slug() -> str:
    """Name of this machine for a file of results. Where virtual machines give several generations one name, the instruction set tells them apart."""
    flags = cpuinfo("flags").split()
    level = "-avx2" if "avx2" in flags and "avx512f" not in flags else ""
    text = f"{cpuinfo('model name') or platform.machine()}-{len(os.sched_getaffinity(0))}{level}"
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def free_memory() -> int:
    return meminfo("MemAvailable")


def free_disk(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def cpu_times() -> tuple[float, float, float]:
    """(busy, steal, all) of all CPUs since boot, in ticks."""
    v = [float(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, idle, iowait, irq, softirq, steal = v
    return user + nice + system + irq + softirq + steal, steal, sum(v)


def noise(spin_seconds: list[float], idle: float = 0.5) -> dict[str, Any]:
    """How much others use the CPUs while this process sleeps for `idle` seconds, how much the hypervisor took meanwhile
    (both as shares of all CPUs), and (slowest - fastest) / median of a loop of fixed work. `noisy`: one is above QUIET."""
    before = cpu_times()
    time.sleep(idle)
    busy, steal, total = (b - a for a, b in zip(before, cpu_times()))
    spin = sorted(spin_seconds)
    out: dict[str, Any] = {"others": busy / max(total, 1), "steal": steal / max(total, 1),
                           "loop_spread": (spin[-1] - spin[0]) / spin[len(spin) // 2], "load": os.getloadavg()[0]}
    out = {k: round(v, 4) for k, v in out.items()}
    out["noisy"] = any(out[k] > limit for k, limit in QUIET.items())
    return out
