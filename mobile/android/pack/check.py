"""What an AAR or an APK of ours must hold, and must not: a list of sentences, empty if all is well."""

from __future__ import annotations

import io
import re
import struct
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import elf  # noqa: E402

LIBRARY = Path(__file__).resolve().parents[1] / "library"
LIST = LIBRARY / "src" / "main" / "cpp" / "cpu-libraries.txt"
NATIVE = LIBRARY / "src" / "main" / "java" / "org" / "spikingbrain" / "Native.java"
PAGE = 16384
# what the libraries use of one another; all the rest export what is looked up by name, and no more
INTERFACES = ("libggml-base.so", "libggml.so", "libllama.so", "libllama-common.so")
CPU_SYMBOLS = ["ggml_backend_init", "ggml_backend_score"]
ANDROIDS = ("libc.so", "libm.so", "libdl.so", "liblog.so", "libandroid.so")
LICENCES = "assets/licenses/spikingbrain/LICENSE-"
LICENSED = ("llama.cpp", "jsonhpp", "llamafile-sgemm", "spikingbrain_cpp")
AAR = ("AndroidManifest.xml", "classes.jar", "R.txt", "proguard.txt", "META-INF/com/android/build/gradle/aar-metadata.properties")
APK = ("AndroidManifest.xml", "classes.dex", "resources.arsc")
CLASSES = ("SpikingBrain", "Session", "AndroidFiles", "Native", "SpikingBrainException", "CancelledException")


def cpu_libraries(path: Path = LIST) -> dict[str, list[str]]:
    """ABI -> names of its CPU libraries, of cpu-libraries.txt."""
    lines = [line.split() for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {abi: [f"libggml-cpu-{name}.so" for name in names] for abi, *names in lines}


def native_methods() -> list[str]:
    """What JNI finds in libspikingbrain_jni.so."""
    return sorted(f"Java_org_spikingbrain_Native_{name}" for name in re.findall(r"static native [\w\[\]]+ (\w+)\(", NATIVE.read_text()))


@dataclass
class Wanted:
    """cpu: the CPU libraries by ABI; system: libraries that the device has; stl: the C++ library that lies in the package, or none."""

    cpu: dict[str, list[str]] = field(default_factory=cpu_libraries)
    system: tuple[str, ...] = ANDROIDS
    stl: tuple[str, ...] = ("libc++_shared.so",)

    def libraries(self, abi: str) -> list[str]:
        return sorted([*self.cpu[abi], *INTERFACES, "libspikingbrain_jni.so", *self.stl])


def said(where: str, got: object, expected: object, do: str) -> str:
    return f"package: {where}: got {got}, expected {expected}; do {do}"


def check(path: Path, wanted: Wanted | None = None) -> list[str]:
    """Of an AAR or an APK, as its name ends. OSError, zipfile.BadZipFile: no archive."""
    wanted = wanted or Wanted()
    with zipfile.ZipFile(path) as archive:
        folder, entries = ("jni", AAR) if path.suffix == ".aar" else ("lib", APK)
        names = archive.namelist()
        wrong = [said(path.name, f"two entries {n}", "one", "build it anew") for n in sorted({n for n in names if names.count(n) > 1})]
        wrong += [said(path.name, f"no {n}", "it", "see how it was built") for n in entries if n not in names]
        wrong += [said(path.name, f"no {LICENCES}{n}", "the licences of what is bundled", "let licenses.py make them") for n in LICENSED if LICENCES + n not in names]
        wrong += libraries(archive, folder, wanted)
        if path.suffix == ".aar":
            wrong += consumers(archive, names)
        else:
            wrong += alignment(path, archive)
    return wrong


def libraries(archive: zipfile.ZipFile, folder: str, wanted: Wanted) -> list[str]:
    wrong = []
    for abi in wanted.cpu:
        found = sorted(n.rpartition("/")[2] for n in archive.namelist() if n.startswith(f"{folder}/{abi}/"))
        if found != wanted.libraries(abi):
            missing, over = (", ".join(sorted(set(a) - set(b))) or "none" for a, b in ((wanted.libraries(abi), found), (found, wanted.libraries(abi))))
            wrong.append(said(f"{folder}/{abi}", f"{missing} missing, {over} over", "the libraries of cpu-libraries.txt and what they use",
                              "see what CMake built, and that library/build.gradle.kts names no targets"))
        for name in found:
            wrong += library(f"{folder}/{abi}/{name}", archive.read(f"{folder}/{abi}/{name}"), abi, {*found, *wanted.system}, wanted)
    for abi in sorted({n.split("/")[1] for n in archive.namelist() if n.startswith(f"{folder}/")} - set(wanted.cpu)):
        wrong.append(said(f"{folder}/{abi}", "libraries", "none of this ABI", "name it in cpu-libraries.txt"))
    return wrong


def library(where: str, data: bytes, abi: str, there: set[str], wanted: Wanted) -> list[str]:
    name = where.rpartition("/")[2]
    try:
        found = elf.read(data)
    except ValueError as e:
        return [said(where, e, "a library", "build it anew")]
    wrong = []
    if found.abi != abi:
        wrong.append(said(where, f"code for {found.abi}", abi, "build it with the toolchain of that ABI"))
    if any(a % PAGE for a in found.alignments) or not found.alignments:
        wrong.append(said(where, f"LOAD segments aligned to {found.alignments}", f"{PAGE}", "link it with -Wl,-z,max-page-size=16384"))
    if unstripped := [s for s in found.sections if s in (".symtab", ".strtab") or s.startswith(".debug_")]:
        wrong.append(said(where, f"sections {' '.join(unstripped)}", "a stripped library", "set ndkVersion in the module that packs it"))
    if absent := [n for n in found.needed if n not in there]:
        wrong.append(said(where, f"a need of {', '.join(absent)}", "libraries of the package or of Android", "pack them, or link them statically"))
    if name not in INTERFACES and name not in wanted.stl:
        names = CPU_SYMBOLS if name.startswith("libggml-cpu-") else native_methods()
        if found.exported != names:
            over, missing = (sorted(set(a) - set(b))[:5] for a, b in ((found.exported, names), (names, found.exported)))
            wrong.append(said(where, f"exported {over} over, {missing} missing", "what is looked up by name alone", "link it with its version script"))
    return wrong


def consumers(archive: zipfile.ZipFile, names: list[str]) -> list[str]:
    """What an app that uses the AAR gets: classes, and rules that keep what JNI finds by name."""
    wrong = []
    if "classes.jar" in names:
        classes = zipfile.ZipFile(io.BytesIO(archive.read("classes.jar"))).namelist()
        wrong += [said("classes.jar", f"no org.spikingbrain.{n}", "it", "see what was compiled") for n in CLASSES if f"org/spikingbrain/{n}.class" not in classes]
    rules = archive.read("proguard.txt").decode() if "proguard.txt" in names else ""
    if rules != (LIBRARY / "consumer-rules.pro").read_text():
        wrong.append(said("proguard.txt", "other rules", "library/consumer-rules.pro", "name it with consumerProguardFiles"))
    return wrong


def alignment(path: Path, archive: zipfile.ZipFile) -> list[str]:
    """Android maps what is stored: resources.arsc at 4 bytes, libraries at pages."""
    wrong = []
    for info in archive.infolist():
        if info.filename == "resources.arsc" and info.compress_type != zipfile.ZIP_STORED:
            wrong.append(said("resources.arsc", "it compressed", "it stored, as Android 11 and newer ask", "store it"))
        unit = 4 if info.filename == "resources.arsc" else PAGE if info.filename.endswith(".so") else 1
        at = data_offset(path, info)
        if info.compress_type == zipfile.ZIP_STORED and at % unit:
            wrong.append(said(info.filename, f"offset {at} in the archive", f"a multiple of {unit}", "align it (zipalign -P 16)"))
    return wrong


def data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    with path.open("rb") as f:
        f.seek(info.header_offset + 26)
        name, extra = struct.unpack("<HH", f.read(4))
    return info.header_offset + 30 + name + extra
