"""Fixtures: the sample app's sources. Its core runs on this machine's JVM with org.json as Android has it; its screens are compiled
against Android 6's own android.jar (what is newer: Newer.java, against the declarations of android-stubs), its resources by aapt against
Android 10's."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from jvm import ANDROID_ONLY, ANNOTATIONS, JAVA, ROOT, built, tool

APP = ROOT / "mobile" / "android" / "app"
SOURCES = APP / "src" / "main" / "java"
RES = APP / "src" / "main" / "res"
MANIFEST = APP / "src" / "main" / "AndroidManifest.xml"
CASES = ROOT / "mobile" / "tests" / "java" / "org" / "spikingbrain" / "app" / "core"
STUBS = ROOT / "mobile" / "tests" / "java" / "android-stubs"
NEWER = {"Newer.java"}  # all that Android has had since 6.0
PARTS = ROOT / "build" / "android-parts"  # of mobile/android/debian_parts.py
FRAMEWORK = Path("/usr/share/android-framework-res/framework-res.apk")  # Android 10's resources
JSON = Path("/usr/share/java/json-android.jar")
PACKAGE = "org.spikingbrain.app"


def need(path: Path | None, package: str) -> Path:
    if path is None or not path.exists():
        pytest.skip(f"{package} is not installed; apt-get install {package}")
    return path


def javac(out: Path, sources: list[Path], *libraries: Path, release: int = 11) -> Path:
    path = ":".join(map(str, libraries or [need(JSON, "libandroid-json-org-java")]))
    out.mkdir(parents=True, exist_ok=True)
    run = subprocess.run([tool("javac"), "--release", str(release), "-Xlint:all,-try,-serial,-options,-classfile", "-Werror", "-d", str(out), "-cp", path,
                          *map(str, sources)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return out


def part(name: str) -> Path:
    """A file of debian_parts.py."""
    if not (PARTS / name).exists():
        pytest.skip(f"build/android-parts/{name} is not here; python3 mobile/android/debian_parts.py build/android-parts")
    return PARTS / name


def compile_app(folder: Path, resources: Path) -> Path:
    """The library's and the app's classes, which are Java 8's as the dexer wants them. resources: the folder of R.java."""
    jar = part("android.jar")
    sources = [p for place in (resources, JAVA, SOURCES) for p in place.rglob("*.java")]
    stubs = javac(folder / "stubs", sorted(STUBS.rglob("*.java")), jar, release=8)
    annotations = javac(folder / "annotations", sorted(ANNOTATIONS.rglob("*.java")), jar, release=8)
    classes = javac(folder / "classes", [p for p in sources if p.name in NEWER], stubs, jar, release=8)
    return javac(classes, [p for p in sources if p.name not in NEWER], classes, annotations, jar, release=8)


@pytest.fixture(scope="session")
def resources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """aapt's R.java and resources.apk, and Gradle's BuildConfig. Android 10 knows neither of the manifest's newer values: one is replaced."""
    folder = tmp_path_factory.mktemp("resources")
    manifest = folder / "AndroidManifest.xml"
    manifest.write_text(MANIFEST.read_text().replace("<manifest ", f'<manifest package="{PACKAGE}" ', 1).replace('"specialUse"', '"dataSync"'))
    aapt = tool("aapt") if need(FRAMEWORK, "android-framework-res") and need(Path("/usr/bin/aapt"), "aapt") else ""
    run = subprocess.run([aapt, "package", "-f", "-m", "-J", str(folder), "-M", str(manifest), "-S", str(RES), "-I", str(FRAMEWORK), "--min-sdk-version", "29",
                          "--target-sdk-version", "36", "-F", str(folder / "resources.apk")], capture_output=True, text=True)
    assert run.returncode == 0 and "warning" not in run.stderr.lower(), run.stderr
    (folder / "BuildConfig.java").write_text(f'package {PACKAGE}; final class BuildConfig {{ static final String PIN = "", COMMIT = ""; }}\n')
    return folder


@pytest.fixture(scope="session")
def app_classes(resources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the library's and the app's classes."""
    return compile_app(tmp_path_factory.mktemp("app"), resources)


class App:
    """Runs cases of mobile/tests/java/org/spikingbrain/app/core, each in a JVM of its own."""

    def __init__(self, classes: Path, library: Path | None) -> None:
        self.classes, self.library = classes, library

    def run(self, *args: object) -> subprocess.CompletedProcess[str]:
        path = [f"-Djava.library.path={self.library}", "-Xcheck:jni"] if self.library else []
        return subprocess.run([tool("java"), "-ea", "-Xmx64m", "-XX:+UseSerialGC", *path, "-cp", f"{self.classes}:{JSON}", "org.spikingbrain.app.core.Case",
                               *map(str, args)], capture_output=True, text=True, timeout=300)

    def all(self, *args: object) -> list[tuple[str, Any]]:
        """(name, value) of each line that a case says."""
        run = self.run(*args)
        assert run.returncode == 0, f"{args}: {run.returncode}\n{run.stdout[-3000:]}\n{run.stderr[-3000:]}"
        return said(run.stdout)

    def __call__(self, *args: object) -> dict[str, Any]:
        return dict(self.all(*args))

    def list(self, name: str, *args: object) -> list[Any]:
        """All values of one name."""
        return [value for key, value in self.all(*args) if key == name]


def said(out: str) -> list[tuple[str, Any]]:
    return [(name, json.loads(value)) for name, tab, value in (line.partition("\t") for line in out.splitlines()) if tab]


@pytest.fixture(scope="session")
def core(tmp_path_factory: pytest.TempPathFactory) -> App:
    """The app's core without the native library."""
    if shutil.which("javac") is None:
        pytest.skip("no JDK; apt-get install openjdk-17-jdk-headless")
    library = [p for p in JAVA.glob("*.java") if p.name not in ANDROID_ONLY] + [*ANNOTATIONS.rglob("*.java")]
    return App(javac(tmp_path_factory.mktemp("core"), [*library, *(SOURCES / "org/spikingbrain/app/core").glob("*.java"), *CASES.glob("*.java")]), None)


@pytest.fixture(scope="session")
def app(core: App) -> App:
    """The same with the native library."""
    return App(core.classes, built() / "bin")
