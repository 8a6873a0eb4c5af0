"""What the Gradle project says, which is not run here: read as text."""

from __future__ import annotations

import re
import subprocess
import tomllib

import pytest
from jvm import ROOT
from jvm_app import MANIFEST, RES, SOURCES

ANDROID = ROOT / "mobile" / "android"
LIBRARY, KTX, APP = ((ANDROID / module / "build.gradle.kts").read_text() for module in ("library", "ktx", "app"))
VERSIONS = tomllib.loads((ANDROID / "gradle" / "libs.versions.toml").read_text())["versions"]


def test_gradle_is_pinned_with_its_hash_and_git_keeps_the_pin():
    path = ANDROID / "gradle" / "wrapper" / "gradle-wrapper.properties"
    pinned = dict(line.split("=", 1) for line in path.read_text().splitlines())
    assert re.fullmatch(r"https\\://services\.gradle\.org/distributions/gradle-[\d.]+-bin\.zip", pinned["distributionUrl"])
    assert re.fullmatch(r"[0-9a-f]{64}", pinned["distributionSha256Sum"]) and pinned["validateDistributionUrl"] == "true"
    assert subprocess.run(["git", "check-ignore", "-q", str(path)], cwd=ROOT).returncode in (1, 128)  # 128: sources without a repository


def test_no_targets_are_named():  # the CPU libraries would stay out: test_package.py
    assert "targets +=" not in LIBRARY and "targets(" not in LIBRARY


@pytest.mark.parametrize("text", [LIBRARY, APP], ids=["library", "app"])
def test_both_modules_name_ndk_and_sdk(text):
    assert "ndkVersion = libs.versions.ndk.get()" in text and "compileSdk = libs.versions.compileSdk" in text


def test_what_the_shop_asks_for():
    assert int(VERSIONS["compileSdk"]) >= 36 and int(VERSIONS["targetSdk"]) >= 36 and int(VERSIONS["ndk"].split(".")[0]) >= 28
    assert "isMinifyEnabled = true" in APP and "useLegacyPackaging = true" in APP and "maven-publish" in LIBRARY
    assert '@mipmap/ic_launcher"' in MANIFEST.read_text() and "<monochrome" in (RES / "mipmap-anydpi-v26" / "ic_launcher.xml").read_text()


def test_kotlin_is_a_module_of_its_own_that_java_does_without():
    assert 'include(":ktx")' in (ANDROID / "settings.gradle.kts").read_text()
    assert 'api(project(":library"))' in KTX and 'artifactId = "spikingbrain-ktx"' in KTX and "explicitApi()" in KTX
    assert "org.jetbrains.kotlin" not in KTX  # the plugin has its own since 9, and refuses a second one
    assert int(VERSIONS["agp"].split(".")[0]) >= 9
    assert "kotlin" not in LIBRARY


def test_one_version_of_all():
    said = dict(re.findall(r"^(\w+)=(.*)$", (ANDROID / "gradle.properties").read_text(), re.M))
    assert said["version"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_every_screen_stays_clear_of_the_bars():
    assert not [p for p in RES.rglob("*.xml") if "fitsSystemWindows" in p.read_text()]  # it would replace the layout's own padding
    screens = [p.read_text() for p in SOURCES.rglob("*Activity.java")]
    assert len(screens) == 4 and all("extends Screen" in text and "setContentView(R.layout." in text for text in screens)
    assert "Newer.keepClear(this" in (SOURCES / "org/spikingbrain/app/Screen.java").read_text()


def test_every_file_that_gradle_names_is_there():
    for path in re.findall(r'(?:sources\.(?:file|dir)|file)\("([^"]+)"\)', LIBRARY):
        assert (ROOT / path).exists() or (ANDROID / "library" / path).exists(), path
