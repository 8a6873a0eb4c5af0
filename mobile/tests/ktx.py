"""Fixtures: the Kotlin module and its cases, compiled once by npm's kotlin-compiler, on this machine's JVM over the JNI library of `make jni-host`."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from jvm import ANDROID_ONLY, ANNOTATIONS, JAVA, ROOT, built, tool
from jvm_app import PARTS

KOTLIN = ROOT / "build" / "kotlin"  # what `make kotlin` unpacks
SOURCES = ROOT / "mobile" / "android" / "ktx" / "src" / "main" / "kotlin" / "org" / "spikingbrain" / "ktx"
CASES = ROOT / "mobile" / "tests" / "kotlin"
ANDROID = [p for p in [PARTS / "android.jar"] if p.exists()]  # the module's Android part is left out without it
LIBRARIES = [KOTLIN / "kotlin-stdlib.jar", KOTLIN / "kotlinx-coroutines-core-jvm.jar"]


def kotlinc(out: Path, sources: list[Path], classes: Path | str, *options: str) -> subprocess.CompletedProcess[str]:
    """The compiler's answer, from a JVM that lives too short to be optimised."""
    path = ":".join(map(str, sorted(KOTLIN.glob("*.jar"))))
    return subprocess.run([tool("java"), "-Xmx700m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", path, "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler",
                           "-no-stdlib", "-no-reflect", "-jvm-target", "11", "-cp", ":".join(map(str, [classes, *LIBRARIES, *ANDROID])), *options, "-d", str(out),
                           *map(str, sources)], capture_output=True, text=True, timeout=500)


class Kotlin:
    """Runs cases of mobile/tests/kotlin, each in a JVM of its own that checks every JNI call."""

    def __init__(self, classes: Path, java: Path, library: Path) -> None:
        self.classes, self.java, self.library = classes, java, library

    def __call__(self, *args: object) -> dict[str, Any]:
        return dict(self.all(*args))

    def all(self, *args: object) -> list[tuple[str, Any]]:
        """(name, value) of each line that a case says; it must not end in an exception."""
        path = ":".join(map(str, [self.classes, self.java, *LIBRARIES]))
        run = subprocess.run([tool("java"), "-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xcheck:jni", f"-Djava.library.path={self.library}", "-cp", path,
                              "org.spikingbrain.ktx.cases.CasesKt", *map(str, args)], capture_output=True, text=True, timeout=120)
        assert run.returncode == 0, f"{args}: {run.returncode}\n{run.stdout[-3000:]}\n{run.stderr[-3000:]}"
        assert "WARNING in native method" not in run.stdout, run.stdout[-3000:]
        return [(name, json.loads(value)) for name, _, value in (line.partition("\t") for line in run.stdout.splitlines())]


README = """package org.spikingbrain.ktx.cases

import java.io.File
import org.spikingbrain.*
import org.spikingbrain.ktx.*

internal suspend fun {0}({1}, filesDir: File, show: (Any) -> Unit) {{
{2}}}
"""


def readme(folder: Path) -> list[Path]:
    """The sample of the README as functions: as it is, where android.jar is; and with a file in the place of Android's Uri and one thread, to be run."""
    code = "".join(re.findall(r"```kotlin\n(.*?)```", (SOURCES.parents[6] / "README.md").read_text(encoding="utf-8"), re.S))
    assert "spikingBrain(context, uri)" in code
    texts = {"readme": README.format("readme", "file: File", code.replace("context, uri", "file").replace("session()", "session(SMALL)"))}
    if ANDROID:
        texts["onAndroid"] = README.format("onAndroid", "context: android.content.Context, uri: android.net.Uri", code)
    for name, text in texts.items():
        (folder / f"{name}.kt").write_text(text, encoding="utf-8")
    return [folder / f"{name}.kt" for name in texts]


@pytest.fixture(scope="session")
def java_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Java API, for who needs no Kotlin: compiled without it."""
    classes = tmp_path_factory.mktemp("java")
    sources = [p for p in JAVA.glob("*.java") if ANDROID or p.name not in ANDROID_ONLY]
    run = subprocess.run([tool("javac"), "--release", "11", "-nowarn", "-d", str(classes), "-cp", ":".join(map(str, ANDROID)),
                          *map(str, [*sources, *ANNOTATIONS.rglob("*.java")])], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return classes


@pytest.fixture(scope="session")
def kotlin(java_classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Kotlin:
    if not all(p.exists() for p in LIBRARIES):
        pytest.skip("build/kotlin: got no Kotlin compiler, expected npm's; do make kotlin")
    classes = tmp_path_factory.mktemp("kotlin")
    sources = [p for p in SOURCES.glob("*.kt") if ANDROID or not p.name.startswith("Android")]
    run = kotlinc(classes, [*sources, *readme(tmp_path_factory.mktemp("readme")), CASES], java_classes, "-Werror", "-Xexplicit-api=strict")
    assert run.returncode == 0, run.stderr
    return Kotlin(classes, java_classes, built() / "bin")
