"""The native part compiles and links for arm64 with Debian's cross compiler, without the NDK. Needs what `make jni-host` built. AARs and APKs for
arm64-v8a, x86_64 and both (packed.py: of which libraries) hold what a phone needs: aligned, stripped, nothing exported but what is looked up."""

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
from conftest import FULL
from jvm import CPP, JAVA, ROOT, Jvm, built, jvm, tiny, tool  # noqa: F401
from jvm_app import PARTS, app_classes, need, part, resources  # noqa: F401
from packed import ABIS, WHEEL, libraries, wanted

sys.path.insert(0, str(ROOT / "mobile" / "android" / "pack"))
import archive  # noqa: E402
import check  # noqa: E402
import elf  # noqa: E402

RAN = {"native part for arm64": "compiled against Android's JNI header and linked, by Debian's `aarch64-linux-gnu-g++`",
       "an AAR and an APK": "assembled for arm64-v8a, x86_64 and both, and looked into, with Debian's aapt, dx, zipalign and apksigner: "
                            "of the arm64 wheel's libraries and the host's, linked anew; `SPIKINGBRAIN_MOBILE=full`: of builds as for Android. "
                            "The AAR's libraries for x86_64 answer on a desktop JVM",
       "classes.dex": "made by Debian's dexer (dx 10)"}
RUNTIME = ROOT / "cpp_backend" / "runtime"
ABI, EMULATOR = ABIS


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
    wheel = [str(p) for name in check.INTERFACES if (p := WHEEL / name).exists()]
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
def parts(library, tmp_path_factory) -> dict[str, list[Path]]:
    """ABI -> stripped libraries."""
    return {abi: libraries(abi, tmp_path_factory.mktemp(abi), library) for abi in ABIS}


@pytest.fixture(scope="module")
def phone(parts) -> dict[str, list[Path]]:
    return {ABI: parts[ABI]}


@pytest.fixture(scope="module")
def licences(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("licences")
    subprocess.run([sys.executable, str(ROOT / "cpp_backend" / "licenses.py"), str(built() / "llama.cpp"), str(folder), str(ROOT / "LICENSE")], check=True)
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.fixture(scope="module")
def make_aar(licences, app_classes, tmp_path_factory) -> Callable[[dict[str, list[Path]]], Path]:
    jar = io.BytesIO()
    with zipfile.ZipFile(jar, "w") as classes:
        for path in sorted((app_classes / "org" / "spikingbrain").glob("*.class")):
            classes.write(path, path.relative_to(app_classes))
    manifest = b'<manifest xmlns:android="http://schemas.android.com/apk/res/android" package="org.spikingbrain"><uses-sdk android:minSdkVersion="29" /></manifest>'
    rules = (ROOT / "mobile" / "android" / "library" / "consumer-rules.pro").read_bytes()
    return lambda parts: archive.aar(tmp_path_factory.mktemp("aar") / "library-release.aar", manifest, jar.getvalue(), rules, licences, parts)


@pytest.fixture(scope="module")
def aar(make_aar, phone) -> Path:
    return make_aar(phone)


@pytest.fixture(scope="module")
def both(make_aar, parts) -> Path:
    return make_aar(parts)


def test_an_aar_holds_what_an_app_needs(aar, phone):
    assert check.check(aar, wanted(phone)) == []
    assert any("missing" in s for s in check.check(aar))  # the NDK's CPU libraries are others, and x86_64's are not there


def test_an_aar_for_both_abis_holds_what_an_app_needs(both, parts):
    assert check.check(both, wanted(parts)) == []
    with zipfile.ZipFile(both) as a:
        assert {n.split("/")[1] for n in a.namelist() if n.startswith("jni/")} == set(ABIS)


def test_an_aar_for_x86_64_holds_what_an_emulator_needs(make_aar, parts):
    made = make_aar({EMULATOR: parts[EMULATOR]})
    assert check.check(made, wanted({EMULATOR: parts[EMULATOR]})) == []
    assert any(f"jni/{EMULATOR}" in s for s in check.check(made, wanted({ABI: parts[ABI]})))


def test_what_the_aar_holds_for_x86_64_answers_here(both, jvm, tiny, tmp_path, monkeypatch):
    """The CPU library is looked for in the folder of the libraries, as on a device, where the loader has that folder; for Android, CMake writes no rpath."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    with zipfile.ZipFile(both) as a:
        for name in a.namelist():
            if name.startswith(f"jni/{EMULATOR}/"):
                (tmp_path / name.rpartition("/")[2]).write_bytes(a.read(name))
    assert Jvm(jvm.classes, tmp_path)("Tiny", "check", tiny, tmp_path, tmp_path)["checked"] is True


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


JNI, BASE, CPU = f"jni/{ABI}/libspikingbrain_jni.so", f"jni/{ABI}/libggml-base.so", f"libggml-cpu-{'android_' if FULL else ''}armv8.2_2.so"


@pytest.mark.parametrize("change, said", [
    (without(f"jni/{ABI}/{CPU}"), f"got {CPU} missing, none over"),
    (without(BASE), "got a need of libggml-base.so, expected libraries of the package or of Android"),
    (other(JNI, small_pages), "got LOAD segments aligned to [4096, "),
    (other(JNI, lambda data: data[:100]), "got a damaged ELF file"),
    (other(JNI, lambda data: b"none"), "got no 64-bit little-endian ELF file"),
    (lambda entries: entries.update({JNI: entries[BASE]}), "expected what is looked up by name alone"),
    (other(BASE, lambda data: (built() / "bin" / "libggml-base.so").read_bytes()), "got sections .symtab .strtab, expected a stripped library"),
    (other(JNI, lambda data: (built() / "bin" / "libggml-base.so").read_bytes()), f"got code for x86_64, expected {ABI}"),
    (lambda entries: entries.update({"jni/armeabi-v7a/liba.so": b""}), "jni/armeabi-v7a: got libraries, expected none of this ABI"),
    (without("assets/licenses/spikingbrain/LICENSE-llama.cpp"), "got no assets/licenses/spikingbrain/LICENSE-llama.cpp"),
    (without("R.txt"), "got no R.txt"),
    (other("proguard.txt", lambda data: b""), "proguard.txt: got other rules"),
    (other("classes.jar", lambda data: b"PK\5\6" + bytes(18)), "got no org.spikingbrain.SpikingBrain"),
], ids=["a CPU library", "a library that others need", "page size", "half a library", "no library", "exports", "stripping", "machine", "ABI", "licence", "R.txt", "rules",
        "classes"])
def test_what_an_aar_lacks_is_named(aar, phone, tmp_path, change, said):
    wrong = of_changed(aar, phone, tmp_path, change)
    assert any(said in sentence for sentence in wrong), wrong


def of_changed(aar: Path, parts: dict[str, list[Path]], folder: Path, change: Change) -> list[str]:
    """What is wrong with it then."""
    with zipfile.ZipFile(aar) as a:
        entries = {name: a.read(name) for name in a.namelist()}
    change(entries)
    wrong = check.check(archive.write(folder / "changed.aar", entries, dict.fromkeys(entries, 1)), wanted(parts))  # stored: soon written
    assert all(re.match(r"package: .*: got .*, expected .*; do ", sentence) for sentence in wrong)
    return wrong


def all_without(part: str) -> Change:
    return lambda entries: [entries.pop(name) for name in list(entries) if part in name] and None


@pytest.mark.parametrize("change, said", [
    (all_without(f"{EMULATOR}/libggml-cpu-"), r"jni/x86_64: got libggml-cpu-\w+\.so(, libggml-cpu-\w+\.so)* missing, none over"),
    (all_without(f"{EMULATOR}/libllama-common.so"), "jni/x86_64: got libllama-common.so missing, none over"),
    (all_without(f"{EMULATOR}/"), "jni/x86_64: got libggml-base.so, .* missing, none over"),
    (lambda entries: entries.update({f"jni/{EMULATOR}/{CPU}": entries[f"jni/{ABI}/{CPU}"]}), f"jni/x86_64: got none missing, {CPU} over"),
    (lambda entries: entries.update({JNI.replace(ABI, EMULATOR): entries[JNI]}), "jni/x86_64/libspikingbrain_jni.so: got code for arm64-v8a, expected x86_64"),
    (other(JNI.replace(ABI, EMULATOR), small_pages), "jni/x86_64/libspikingbrain_jni.so: got LOAD segments aligned to .4096, "),
    (other(BASE.replace(ABI, EMULATOR), lambda data: (built() / "bin" / "libggml-base.so").read_bytes()), "jni/x86_64/libggml-base.so: got sections .symtab .strtab"),
], ids=["no CPU library", "a library that others need", "the whole ABI", "a CPU library of the other ABI", "machine", "page size", "stripping"])
def test_what_one_abi_alone_lacks_is_named(both, parts, tmp_path, change, said):
    wrong = of_changed(both, parts, tmp_path, change)
    assert any(re.search(said, sentence) for sentence in wrong), wrong
    assert all(sentence.startswith(f"package: jni/{EMULATOR}") for sentence in wrong)  # nothing is said of the other


def test_each_abi_is_asked_for_its_own_list(both, parts):
    """cpu-libraries.txt decides, unless a test says otherwise: what one ABI has is no excuse for the other."""
    wrong = check.check(both)
    for abi in ABIS:
        absent = set(check.Wanted().libraries(abi)) - {p.name for p in parts[abi]}
        said = [s for s in wrong if s.startswith(f"package: jni/{abi}: got")]
        assert len(said) == 1 and absent and all(name in said[0].partition(" missing")[0] for name in absent)


@pytest.fixture(scope="module")
def dex(app_classes, tmp_path_factory) -> bytes:
    """Debian's dexer reads all classes, Java 8's, for Android 8 and newer."""
    out = tmp_path_factory.mktemp("dex") / "classes.dex"
    run = subprocess.run([tool("java"), "-cp", str(part("dx.jar")), "com.android.dx.command.Main", "--dex", "--min-sdk-version=26", f"--output={out}", str(app_classes)],
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return out.read_bytes()


def zip_is_aligned(made: Path) -> None:
    run = subprocess.run([str(need(Path("/usr/bin/zipalign"), "zipalign")), "-c", "-v", "4", str(made)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-500:]


def badging(made: Path) -> str:
    return subprocess.run([tool("aapt"), "dump", "badging", str(made)], capture_output=True, text=True).stdout


@pytest.mark.parametrize("legacy", [True, False], ids=["libraries outside once installed", "libraries mapped from the archive"])
def test_an_apk_holds_what_a_phone_needs(resources, dex, licences, phone, tmp_path, legacy):
    made = archive.apk(tmp_path / "app-unsigned.apk", resources / "resources.apk", dex, licences, phone, legacy)
    assert check.check(made, wanted(phone)) == []
    zip_is_aligned(made)
    said = badging(made)
    assert "package: name='org.spikingbrain.app'" in said and f"native-code: '{ABI}'" in said and "launchable-activity: name='org.spikingbrain.app.MainActivity'" in said


@pytest.mark.parametrize("abis", [[EMULATOR], ABIS], ids=["x86_64", "both"])
def test_an_apk_for_an_emulator_is_signed_and_stays_aligned(resources, dex, licences, parts, keys, tmp_path, abis):
    chosen = {abi: parts[abi] for abi in abis}
    made = archive.apk(tmp_path / "app.apk", resources / "resources.apk", dex, licences, chosen, legacy=False)
    assert check.check(made, wanted(chosen)) == []
    said = badging(made).splitlines()
    assert next(line for line in said if line.startswith("native-code:")).split()[1:] == [f"'{abi}'" for abi in abis]
    sign(made, keys)
    zip_is_aligned(made)
    assert check.check(made, wanted(chosen)) == []


def test_libraries_that_android_cannot_map_are_named(resources, dex, licences, phone, tmp_path):
    made = archive.apk(tmp_path / "app.apk", resources / "resources.apk", dex, licences, phone, legacy=False)
    with zipfile.ZipFile(made) as a, zipfile.ZipFile(tmp_path / "moved.apk", "w") as b:  # stored as they come
        for name in a.namelist():
            b.writestr(name, a.read(name))
    wrong = check.check(tmp_path / "moved.apk", wanted(phone))
    assert any(re.search(r"libllama.so: got offset \d+ in the archive, expected a multiple of 16384", sentence) for sentence in wrong), wrong


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("keys") / "keys"
    subprocess.run([tool("keytool"), "-genkeypair", "-keystore", str(out), "-storepass", "android", "-alias", "a", "-keyalg", "EC", "-dname", "CN=Test"], check=True, capture_output=True)
    return out


def sign(made: Path, keys: Path) -> None:
    """In place; the signature is verified."""
    signer = str(need(Path("/usr/bin/apksigner"), "apksigner"))
    run = subprocess.run([signer, "sign", "--ks", str(keys), "--ks-pass", "pass:android", "--min-sdk-version", "29", str(made)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    said = subprocess.run([signer, "verify", "-v", "--min-sdk-version", "29", str(made)], capture_output=True, text=True).stdout
    assert said.startswith("Verifies\n") and "Verified using v3 scheme (APK Signature Scheme v3): true" in said


def test_an_apk_is_signed_and_stays_aligned(resources, dex, licences, phone, keys, tmp_path):
    made = archive.apk(tmp_path / "app.apk", resources / "resources.apk", dex, licences, phone, legacy=False)
    sign(made, keys)
    assert check.check(made, wanted(phone)) == []
