"""The native part compiles and links for arm64 with Debian's cross compiler, without the NDK. Needs what `make jni-host` built. An AAR and an
APK with it, and with the libraries of the wheel for arm64, hold what a phone needs: aligned, stripped, nothing exported but what is looked up."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Callable

import pytest
from conftest import BUILD
from jvm import CPP, JAVA, ROOT, built, tool
from jvm_app import PARTS, app_classes, need, part, resources  # noqa: F401

sys.path.insert(0, str(ROOT / "mobile" / "android" / "pack"))
import archive  # noqa: E402
import check  # noqa: E402
import elf  # noqa: E402

RAN = {"native part for arm64": "compiled against Android's JNI header and linked, by Debian's `aarch64-linux-gnu-g++`",
       "an AAR and an APK": "assembled from the arm64 wheel's libraries and looked into, with Debian's aapt, dx, zipalign and apksigner",
       "classes.dex": "made by Debian's dexer (dx 10)"}
RUNTIME = ROOT / "cpp_backend" / "runtime"
GLIBC = ("libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1", "ld-linux-aarch64.so.1")  # where Android has its own
ABI = "arm64-v8a"


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    """libspikingbrain_jni.so for aarch64: all sources of ours, warnings as errors, with 16 KiB pages as on Android, with its version script;
    with Android's own jni.h and linked with the wheel's libraries, where these are."""
    compiler = shutil.which("aarch64-linux-gnu-g++")
    if compiler is None:
        pytest.fail("aarch64-linux-gnu-g++: got none, expected Debian's cross compiler; do apt-get install g++-aarch64-linux-gnu")
    java = Path(tool("javac")).resolve().parents[1] / "include"
    jni = [f"-I{PARTS}"] if (PARTS / "jni.h").exists() else [f"-I{java}", f"-I{java}/linux"]
    upstream = [flag for folder in ("include", "ggml/include", "common", "vendor") for flag in ("-isystem", str(built() / "llama.cpp" / folder))]
    wheel = [str(p) for name in check.INTERFACES if (p := BUILD / "cmake" / "bin" / name).exists()]
    out = tmp_path_factory.mktemp("cross") / "libspikingbrain_jni.so"
    run = subprocess.run([compiler, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-fvisibility=hidden", "-shared", "-Wl,-z,max-page-size=16384",
                          f"-Wl,--version-script={CPP}/jni.map", "-o", str(out), f"-I{RUNTIME}", *upstream, *jni, *map(str, [*CPP.glob("*.cpp"), *RUNTIME.glob("*.cpp")]), *wheel],
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-4000:]
    return out


def symbols(path: Path, *options: str) -> set[str]:
    run = subprocess.run(["nm", "-D", *options, str(path)], capture_output=True, text=True, check=True)
    return {line.split()[-1].split("@")[0] for line in run.stdout.splitlines()}


def test_every_native_method_is_there_and_nothing_else(library):
    declared = re.findall(r"static native [\w\[\]]+ (\w+)\(", (JAVA / "Native.java").read_text())
    assert symbols(library, "--defined-only", "--extern-only") >= {f"Java_org_spikingbrain_Native_{name}" for name in declared}
    exported = symbols(library, "--defined-only", "--extern-only")
    assert len(exported) == len(declared) and sorted(exported) == check.native_methods() == elf.read(library.read_bytes()).exported
    assert all(len(p.read_text().splitlines()) < 300 for p in CPP.glob("*.cpp"))


def test_what_it_needs_is_what_the_other_libraries_have(library):
    needed = {s for s in symbols(library, "--undefined-only") if re.match(r"(llama|ggml|gguf)_|_Z\w*(common|json_schema)", s)}
    offered = set().union(*(symbols(p, "--defined-only") for p in (built() / "bin").glob("*.so")))
    assert len(needed) > 40 and needed <= offered, needed - offered


def test_pages_are_16_kib(library):
    run = subprocess.run(["readelf", "-lW", str(library)], capture_output=True, text=True, check=True)
    loads = [line.split() for line in run.stdout.splitlines() if line.split()[:1] == ["LOAD"]]
    assert loads and all(int(line[-1], 16) == 16384 for line in loads)
    assert "AArch64" in subprocess.run(["readelf", "-h", str(library)], capture_output=True, text=True, check=True).stdout


# --- the package

@pytest.fixture(scope="module")
def wanted() -> check.Wanted:
    """What the package must hold that is made of the wheel's libraries: its CPU libraries, which are Linux's, and glibc's libraries."""
    names = sorted(p.name for p in (BUILD / "cmake" / "bin").glob("libggml-cpu-*.so"))
    if not names:
        pytest.skip("build/arm64 is not here; make arm64, or make test-mobile")
    return check.Wanted({ABI: names}, GLIBC, ())


@pytest.fixture(scope="module")
def libraries(library, wanted, tmp_path_factory) -> dict[str, list[Path]]:
    """ABI -> stripped libraries, by the command that Gradle's plugin gives the NDK's strip."""
    folder = tmp_path_factory.mktemp("stripped")
    for path in [library, *(BUILD / "cmake" / "bin" / name for name in wanted.libraries(ABI) if name != library.name)]:
        subprocess.run(["aarch64-linux-gnu-strip", "--strip-unneeded", "-o", str(folder / path.name), str(path)], check=True)
    return {ABI: sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def licences(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("licences")
    subprocess.run([sys.executable, str(ROOT / "cpp_backend" / "licenses.py"), str(built() / "llama.cpp"), str(folder), str(ROOT / "LICENSE")], check=True)
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.fixture(scope="module")
def aar(libraries, licences, app_classes, tmp_path_factory) -> Path:
    jar = io.BytesIO()
    with zipfile.ZipFile(jar, "w") as classes:
        for path in sorted((app_classes / "org" / "spikingbrain").glob("*.class")):
            classes.write(path, path.relative_to(app_classes))
    manifest = b'<manifest xmlns:android="http://schemas.android.com/apk/res/android" package="org.spikingbrain"><uses-sdk android:minSdkVersion="29" /></manifest>'
    rules = (ROOT / "mobile" / "android" / "library" / "consumer-rules.pro").read_bytes()
    return archive.aar(tmp_path_factory.mktemp("aar") / "library-release.aar", manifest, jar.getvalue(), rules, licences, libraries)


def test_an_aar_holds_what_an_app_needs(aar, wanted):
    assert check.check(aar, wanted) == []
    assert any("missing" in s for s in check.check(aar))  # the NDK's CPU libraries are others


Change = Callable[[dict[str, bytes]], None]


def without(name: str) -> Change:
    return lambda entries: entries.pop(name) and None


def other(name: str, change: Callable[[bytes], bytes]) -> Change:
    return lambda entries: entries.update({name: change(entries[name])})


def small_pages(data: bytes) -> bytes:
    at = int.from_bytes(data[32:40], "little")
    while int.from_bytes(data[at:at + 4], "little") != elf.LOAD:
        at += 56
    return data[:at + 48] + (4096).to_bytes(8, "little") + data[at + 56:]


JNI, BASE = f"jni/{ABI}/libspikingbrain_jni.so", f"jni/{ABI}/libggml-base.so"


@pytest.mark.parametrize("change, said", [
    (without(f"jni/{ABI}/libggml-cpu-armv8.2_2.so"), "got libggml-cpu-armv8.2_2.so missing, none over"),
    (without(BASE), "got a need of libggml-base.so, expected libraries of the package or of Android"),
    (other(JNI, small_pages), "got LOAD segments aligned to [4096, "),
    (other(JNI, lambda data: data[:100]), "got a damaged ELF file"),
    (other(JNI, lambda data: b"none"), "got no 64-bit little-endian ELF file"),
    (lambda entries: entries.update({JNI: entries[BASE]}), "expected what is looked up by name alone"),
    (other(BASE, lambda data: (BUILD / "cmake" / "bin" / "libggml-base.so").read_bytes()), "got sections .symtab .strtab, expected a stripped library"),
    (other(JNI, lambda data: (built() / "bin" / "libggml-base.so").read_bytes()), f"got code for x86_64, expected {ABI}"),
    (lambda entries: entries.update({"jni/armeabi-v7a/liba.so": b""}), "jni/armeabi-v7a: got libraries, expected none of this ABI"),
    (without("assets/licenses/spikingbrain/LICENSE-llama.cpp"), "got no assets/licenses/spikingbrain/LICENSE-llama.cpp"),
    (without("R.txt"), "got no R.txt"),
    (other("proguard.txt", lambda data: b""), "proguard.txt: got other rules"),
    (other("classes.jar", lambda data: b"PK\5\6" + bytes(18)), "got no org.spikingbrain.SpikingBrain"),
], ids=["a CPU library", "a library that others need", "page size", "half a library", "no library", "exports", "stripping", "machine", "ABI", "licence", "R.txt", "rules",
        "classes"])
def test_what_an_aar_lacks_is_named(aar, wanted, tmp_path, change, said):
    with zipfile.ZipFile(aar) as a:
        entries = {name: a.read(name) for name in a.namelist()}
    change(entries)
    wrong = check.check(archive.write(tmp_path / "changed.aar", entries, dict.fromkeys(entries, 1)), wanted)  # stored: soon written
    assert any(said in sentence for sentence in wrong), wrong
    assert all(re.match(r"package: .*: got .*, expected .*; do ", sentence) for sentence in wrong)


@pytest.fixture(scope="module")
def dex(app_classes, tmp_path_factory) -> bytes:
    """Debian's dexer reads all classes, Java 8's, for Android 8 and newer."""
    out = tmp_path_factory.mktemp("dex") / "classes.dex"
    run = subprocess.run([tool("java"), "-cp", str(part("dx.jar")), "com.android.dx.command.Main", "--dex", "--min-sdk-version=26", f"--output={out}", str(app_classes)],
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return out.read_bytes()


@pytest.mark.parametrize("legacy", [True, False], ids=["libraries outside once installed", "libraries mapped from the archive"])
def test_an_apk_holds_what_a_phone_needs(resources, dex, licences, libraries, wanted, tmp_path, legacy):
    made = archive.apk(tmp_path / "app-unsigned.apk", resources / "resources.apk", dex, licences, libraries, legacy)
    assert check.check(made, wanted) == []
    aligned = subprocess.run([str(need(Path("/usr/bin/zipalign"), "zipalign")), "-c", "-v", "4", str(made)], capture_output=True, text=True)
    assert aligned.returncode == 0, aligned.stdout[-500:]
    said = subprocess.run([tool("aapt"), "dump", "badging", str(made)], capture_output=True, text=True).stdout
    assert "package: name='org.spikingbrain.app'" in said and f"native-code: '{ABI}'" in said and "launchable-activity: name='org.spikingbrain.app.MainActivity'" in said


def test_libraries_that_android_cannot_map_are_named(resources, dex, licences, libraries, wanted, tmp_path):
    made = archive.apk(tmp_path / "app.apk", resources / "resources.apk", dex, licences, libraries, legacy=False)
    with zipfile.ZipFile(made) as a, zipfile.ZipFile(tmp_path / "moved.apk", "w") as b:  # stored as they come
        for name in a.namelist():
            b.writestr(name, a.read(name))
    wrong = check.check(tmp_path / "moved.apk", wanted)
    assert any(re.search(r"libllama.so: got offset \d+ in the archive, expected a multiple of 16384", sentence) for sentence in wrong), wrong


def test_an_apk_is_signed_and_stays_aligned(resources, dex, licences, libraries, wanted, tmp_path):
    signer, keys = need(Path("/usr/bin/apksigner"), "apksigner"), tmp_path / "keys"
    made = archive.apk(tmp_path / "app.apk", resources / "resources.apk", dex, licences, libraries, legacy=False)
    subprocess.run([tool("keytool"), "-genkeypair", "-keystore", str(keys), "-storepass", "android", "-alias", "a", "-keyalg", "EC", "-dname", "CN=Test"], check=True, capture_output=True)
    run = subprocess.run([str(signer), "sign", "--ks", str(keys), "--ks-pass", "pass:android", "--min-sdk-version", "29", str(made)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    said = subprocess.run([str(signer), "verify", "-v", "--min-sdk-version", "29", str(made)], capture_output=True, text=True).stdout
    assert said.startswith("Verifies\n") and "Verified using v3 scheme (APK Signature Scheme v3): true" in said
    assert check.check(made, wanted) == []
