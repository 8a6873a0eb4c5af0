"""Fixtures: the Android library's Java on this machine's JVM, over the JNI library of `make jni-host`, and models for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Iterable

import pytest

ROOT = Path(__file__).resolve().parents[2]
CPP = ROOT / "mobile" / "android" / "library" / "src" / "main" / "cpp"
JAVA = ROOT / "mobile" / "android" / "library" / "src" / "main" / "java" / "org" / "spikingbrain"
CASES = ROOT / "mobile" / "tests" / "java" / "org" / "spikingbrain"
ANNOTATIONS = ROOT / "mobile" / "tests" / "java" / "jspecify"  # as JSpecify declares them, which Gradle fetches
ANDROID_TEST = ROOT / "mobile" / "android" / "library" / "src" / "androidTest" / "java"  # its TinyModel runs here, too
ANDROID_ONLY = {"AndroidFiles.java"}  # the classes that need android.jar
ONE = {"n_threads": 1, "n_threads_batch": 1, "n_ubatch": 32}  # as Setup.small()


def tool(name: str) -> str:
    home = os.environ.get("JAVA_HOME")
    found = shutil.which(f"{home}/bin/{name}" if home else name) or shutil.which(name)
    if found is None:
        pytest.fail(f"{name}: got none, expected a JDK; do apt-get install openjdk-17-jdk-headless")
    return found


class Jvm:
    """Runs cases of mobile/tests/java, each in a JVM of its own that checks every JNI call."""

    def __init__(self, classes: Path, library: Path) -> None:
        self.classes, self.library = classes, library

    def command(self, *args: object, heap: str = "64m") -> list[str]:
        return [tool("java"), f"-Xmx{heap}", "-XX:+UseSerialGC", "-Xcheck:jni", f"-Djava.library.path={self.library}", "-cp", str(self.classes),
                "org.spikingbrain.Run", *map(str, args)]

    def all(self, *args: object, fds: Iterable[int] = (), **options: Any) -> list[tuple[str, Any]]:
        """(name, value) of each line that a case says; it must not end in an exception."""
        run = subprocess.run(self.command(*args, **options), capture_output=True, text=True, timeout=300, pass_fds=tuple(fds))
        assert run.returncode == 0, f"{args}: {run.returncode}\n{run.stdout[-3000:]}\n{run.stderr[-3000:]}"
        assert "WARNING in native method" not in run.stdout, run.stdout[-3000:]
        said = [(name, json.loads(value)) for name, _, value in (line.partition("\t") for line in run.stdout.splitlines())]
        failed = dict(said)
        assert "exception" not in failed, f"{args}: {failed['exception']}: {failed['message']}\n{run.stderr[-3000:]}"
        return said

    def __call__(self, *args: object, **options: Any) -> dict[str, Any]:
        return dict(self.all(*args, **options))

    def list(self, name: str, *args: object, **options: Any) -> list[Any]:
        """All values of one name."""
        return [value for key, value in self.all(*args, **options) if key == name]


@pytest.fixture(scope="session")
def jvm(tmp_path_factory: pytest.TempPathFactory) -> Jvm:
    classes = tmp_path_factory.mktemp("classes")
    sources = sorted(p for folder in (JAVA, CASES, ANDROID_TEST / "org" / "spikingbrain") for p in folder.glob("*.java")
                     if p.name not in ANDROID_ONLY | {"TinyModelTest.java"}) + sorted(ANNOTATIONS.rglob("*.java"))
    run = subprocess.run([tool("javac"), "--release", "11", "-Xlint:all,-try", "-Werror", "-d", str(classes), *map(str, sources)],
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return Jvm(classes, built() / "bin")


def built() -> Path:
    """The CMake folder of `make jni-host`."""
    found = sorted(ROOT.glob("build/cp*-linux_*/bin/libspikingbrain_jni.so"))
    if not found:
        pytest.fail("build/: got no libspikingbrain_jni.so, expected it; do make jni-host")
    return found[-1].parents[1]


def convert(checkpoint: Path, out: Path, *options: str) -> Path:
    run = subprocess.run([str(Path(sys.executable).with_name("sb-convert")), str(checkpoint), "-o", str(out), *options], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return out


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """512 tokens, random weights, F32, does not spike."""
    return convert(ROOT / "examples" / "tiny", tmp_path_factory.mktemp("tiny") / "tiny.gguf", "--outtype", "f32")


@pytest.fixture(scope="session")
def spiking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """examples/small, trained, Q4_0, integer spikes, a chat template or not as the example has it."""
    return convert(ROOT / "examples" / "small", tmp_path_factory.mktemp("small") / "small.gguf", "--outtype", "q4_0", "--spike")


@pytest.fixture
def prompt(tmp_path: Path) -> Path:
    path = tmp_path / "prompt.txt"
    path.write_text("the cat sat on the mat and said hello to all of them, café naïve 日本語 🙂", encoding="utf-8")
    return path


def large_moe(path: Path, spikes: bool) -> Path:
    """SpikingBrain-76B in Q4_0: a header, and room that the disk does not have. Few tokens, so that it is soon read."""
    sys.path.insert(0, str(ROOT / "mobile" / "android"))
    from bench.shapes import SPIKING_76B
    from memory_table import write_model_header

    from spikingbrain_cpp import _core
    write_model_header(path, replace(SPIKING_76B, n_vocab=1024), "q4_0", spikes)
    os.truncate(path, path.stat().st_size + _core.missing_bytes(str(path)))
    return path


def llama(path: Path, **options: Any) -> Any:
    from spikingbrain_cpp import Llama
    return Llama(path, **{**ONE, **options})


def greedy(llm: Any, prompt: str, n: int = 24) -> str:
    return str(llm.create_completion(prompt, max_tokens=n, temperature=0)["choices"][0]["text"])
