"""check_macos.py refuses each kind of file that would not work on a Mac. make macos-check runs it on what it built (arm64), by pytest --noconftest."""

from __future__ import annotations

import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

lief = pytest.importorskip("lief")
ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "desktop"))
import check_macos  # noqa: E402

BUILT = ROOT / "build" / "desktop" / "macos" / "arm64" / "wheel" / "spikingbrain_cpp"
OLDEST = "13.3"


@pytest.fixture()
def wheel(tmp_path: Path) -> Path:
    if not BUILT.is_dir():
        pytest.skip("nothing is built for macOS: make macos-check")
    return Path(shutil.copytree(BUILT, tmp_path / "wheel"))


def replaced(name: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    """Changes bytes of a file of the wheel's lib/ to as many others."""
    def change(folder: Path) -> None:
        path = folder / "lib" / name
        content = path.read_bytes()
        assert len(old) == len(new) and old in content
        path.write_bytes(content.replace(old, new))
    return change


def removed(pattern: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for path in list((folder / "lib").glob(pattern)):
            path.unlink()
    return change


def without_smmla(folder: Path) -> None:
    path = folder / "lib" / "libggml-cpu-apple_m1.so"
    content = bytearray(path.read_bytes())
    for at in range(0, len(content) - 3, 4):
        if struct.unpack_from("<I", content, at)[0] & 0xFFE0FC00 == 0x4E80A400:
            struct.pack_into("<I", content, at, 0xD503201F)  # nop
    path.write_bytes(content)


WRONG = {
    "a library of the build folder": (replaced("libllama.dylib", b"@rpath/libggml-base.dylib", b"/build/libggml-base.dylib"), "libllama.dylib: library: got /build/libggml-base.dylib"),
    "a library that is not there": (removed("libggml.dylib"), "library: got @rpath/libggml.dylib"),
    "an install name of the build folder": (replaced("libmtmd.dylib", b"@rpath/libmtmd.dylib", b"/build/libmtmd.dylib"), "libmtmd.dylib: install name: got ['/build/libmtmd.dylib']"),
    "a run path of the build folder": (replaced("llama-server", b"@loader_path\0", b"/build/x/bin\0"), "llama-server: run path: got ['/build/x/bin']"),
    "a symbol that its library does not show": (replaced("libllama.dylib", b"_llama_model_free\0", b"_llama_model_frei\0"), "symbol _llama_model_free: got @rpath/libllama.dylib, which"),
    "kernels without their instructions": (without_smmla, "libggml-cpu-apple_m1.so: kernels i8mm: got 0 smmla, expected some"),
    "no kernels of a kind": (replaced("libggml-cpu-apple_m1.so", b"17dotprod", b"17dotprox"), "kernels dotprod: got no function"),
    "no CPU libraries": (removed("libggml-cpu-*"), "CPU libraries: got none"),
}


def test_what_was_built_is_accepted(wheel: Path) -> None:
    assert check_macos.check("arm64", OLDEST, [wheel]).startswith("arm64: ")


@pytest.mark.parametrize("kind", WRONG)
def test_what_would_not_work_is_refused(wheel: Path, kind: str) -> None:
    change, said = WRONG[kind]
    change(wheel)
    with pytest.raises(check_macos.Wrong) as error:
        check_macos.check("arm64", OLDEST, [wheel])
    assert said in str(error.value)


@pytest.mark.parametrize("arch, oldest, said", [("x86_64", OLDEST, "architecture: got ARM64"), ("arm64", "11.0", "oldest system: got MACOS [13, 3, 0]")])
def test_another_machine_or_an_older_macos_is_refused(wheel: Path, arch: str, oldest: str, said: str) -> None:
    with pytest.raises(check_macos.Wrong) as error:
        check_macos.check(arch, oldest, [wheel])
    assert said in str(error.value)


def test_a_damaged_file_is_refused(wheel: Path) -> None:
    (wheel / "lib" / "libggml-rpc.so").write_bytes(b"\xcf\xfa\xed\xfe")
    with pytest.raises(check_macos.Wrong, match="libggml-rpc.so: got a damaged file"):
        check_macos.check("arm64", OLDEST, [wheel])
