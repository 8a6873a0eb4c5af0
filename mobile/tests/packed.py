"""The libraries that tests of the package pack. SPIKINGBRAIN_MOBILE=full: those of a build as for Android (mobile/android/build-stand-in.sh). Else
for arm64-v8a the wheel's for arm64, for x86_64 the host's objects, linked anew as for Android: 16 KiB pages, the CPU library a module that nothing
links. What then differs: CPU libraries are Linux's (arm64), or one of this machine's instruction set (x86_64). In both: glibc's, by gcc."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import BUILD, FULL, ROOT
from jvm import built

sys.path.insert(0, str(ROOT / "mobile" / "android" / "pack"))
import check  # noqa: E402
import plugin_rule  # noqa: E402

ABIS = ["arm64-v8a", "x86_64"]
STRIP = {"arm64-v8a": "aarch64-linux-gnu-strip", "x86_64": "strip"}
GLIBC = ("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libstdc++.so.6", "libsb-c++.so", "libgcc_s.so.1",
         "ld-linux-aarch64.so.1", "ld-linux-x86-64.so.2")  # where Android and the NDK have their own
SME = {"libggml-cpu-android_armv9.2_1.so", "libggml-cpu-android_armv9.2_2.so"}  # gcc 12 knows none, the NDK's clang does
WHEEL = BUILD / "site" / "spikingbrain_cpp" / "lib"
HOST_CPU = "libggml-cpu-host.so"
MODULES = {"bin/libggml-cpu.so", "bin/libggml-rpc.so"}  # which the host's libraries link
LOOKED_UP = """extern "C" void * ggml_backend_cpu_reg();
extern "C" void * ggml_backend_init()  { return ggml_backend_cpu_reg(); }
extern "C" int    ggml_backend_score() { return 1; }
"""
NONE_LINKED = """extern "C" __attribute__((visibility("hidden"))) void * ggml_backend_cpu_reg() { return nullptr; }
extern "C" __attribute__((visibility("hidden"))) void * ggml_backend_rpc_reg() { return nullptr; }
"""


def without_sme(build: Path) -> bool:
    return "COMPILER_KNOWS_ggml_cpu_android_armv9_2_1:INTERNAL=\n" in (build / "CMakeCache.txt").read_text()


def stand_in(abi: str) -> Path:
    """The folder of the build as for Android."""
    build = ROOT / "build" / "android" / abi
    if not (build / "libspikingbrain_jni.so").exists():
        pytest.fail(f"build/android/{abi}: got no libspikingbrain_jni.so, expected it of the full set; do SPIKINGBRAIN_MOBILE=full make test-mobile")
    return build


def of_stand_in(abi: str) -> list[Path]:
    """What the plugin packs of it; of the CPU libraries that the list names, the compiler's."""
    build = stand_in(abi)
    files = plugin_rule.packed(plugin_rule.targets(build))
    named = set(check.cpu_libraries()[abi]) - (SME if without_sme(build) else set())
    assert {p.name for p in files if p.name.startswith("libggml-cpu-")} == named
    return files


def of_wheel(jni: Path) -> list[Path]:
    cpu = sorted(WHEEL.glob("libggml-cpu-*.so"))
    if not cpu:
        pytest.fail("build/arm64/site: got no libraries for arm64, expected what make test-mobile builds before the tests; do make test-mobile")
    return [jni, *cpu, *(WHEEL / name for name in check.INTERFACES)]


def of_host(folder: Path) -> list[Path]:
    """Links, compiles nothing but a few lines."""
    looked_up, none_linked = folder / "looked-up.cpp", folder / "none-linked.cpp"
    looked_up.write_text(LOOKED_UP)
    none_linked.write_text(NONE_LINKED)
    cpu = link("libggml-cpu.so", folder / HOST_CPU, str(looked_up), f"-Wl,--version-script={ROOT}/cpp_backend/cpu-library.map")
    return [cpu, *(link(name, folder / name, *([str(none_linked)] if name == "libggml.so" else [])) for name in [*check.INTERFACES, "libspikingbrain_jni.so"])]


def link(name: str, out: Path, *more: str) -> Path:
    """A library of the host's build by its own command, elsewhere, with 16 KiB pages and without the modules."""
    ninja = [str(Path(sys.executable).with_name("ninja")), "-C", str(built()), "-t", "commands", "-s", f"bin/{name}"]
    said = subprocess.run(ninja, capture_output=True, text=True, check=True).stdout
    words = [w.replace("\\$", "$").replace(f"-soname,{name}", f"-soname,{out.name}") for w in shlex.split(said)][2:-2]  # : && ... && :
    at = words.index("-o")
    words = [*words[:at], *(w for w in words[at + 2:] if w not in MODULES)]
    run = subprocess.run([words[0], "-Wl,--as-needed", "-Wl,-z,max-page-size=16384", *words[1:], *more, "-o", str(out)], cwd=built(), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    return out


def stripped(abi: str, files: list[Path], folder: Path) -> list[Path]:
    """By the command that Gradle's plugin gives the NDK's strip."""
    for path in files:
        subprocess.run([STRIP[abi], "--strip-unneeded", "-o", str(folder / path.name), str(path)], check=True)
    return sorted(folder / path.name for path in files)


def libraries(abi: str, folder: Path, jni: Path) -> list[Path]:
    """Stripped libraries for one ABI. folder: an empty one; jni: libspikingbrain_jni.so for arm64."""
    (out := folder / "stripped").mkdir()
    return stripped(abi, of_stand_in(abi) if FULL else of_wheel(jni) if abi == "arm64-v8a" else of_host(folder), out)


def wanted(parts: dict[str, list[Path]]) -> check.Wanted:
    """What a package of them must hold."""
    return check.Wanted({abi: sorted(p.name for p in files if p.name.startswith("libggml-cpu-")) for abi, files in parts.items()}, GLIBC, ())
