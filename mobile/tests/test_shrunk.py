"""An app's shrinker may rename and remove all that the library's consumer rules do not keep: what JNI finds by name is kept. ProGuard reads the
same rules as R8, which is not to be had here; what it leaves runs on the desktop JVM."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from jvm import ROOT, Jvm, jvm, tiny  # noqa: F401
from jvm_app import need, part

RAN = {"consumer rules": "applied by Debian's ProGuard 6.2, what it leaves run on a desktop JVM"}
RULES = ROOT / "mobile" / "android" / "library" / "consumer-rules.pro"
CASE = """-dontoptimize
-dontnote
-ignorewarnings
-keep class org.spikingbrain.Run { public static void main(java.lang.String[]); }
-keep class org.spikingbrain.Cancelling { static void prefill(java.lang.String[]); }
"""


def shrunk(jvm: Jvm, folder: Path, rules: str) -> Jvm:
    """The library and one case, as ProGuard leaves them with these rules."""
    (folder / "rules.pro").write_text(CASE + rules)
    run = subprocess.run([str(need(Path("/usr/bin/proguard"), "proguard-cli")), "-injars", str(jvm.classes), "-outjars", str(folder / "shrunk.jar"),
                          "-libraryjars", str(part("android.jar")), "-printmapping", str(folder / "mapping.txt"), f"@{folder}/rules.pro"], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    return Jvm(folder / "shrunk.jar", jvm.library)


def test_what_jni_finds_by_name_is_kept(jvm, tiny, tmp_path):
    small = shrunk(jvm, tmp_path, RULES.read_text())
    said = small("Cancelling", "prefill", tiny)  # a native exception, a callback, an answer
    assert said["failure"].startswith("CancelledException: ") and said["exact"] is True
    mapping = (tmp_path / "mapping.txt").read_text()
    assert "org.spikingbrain.Native -> org.spikingbrain.Native:" in mapping and "org.spikingbrain.Session -> org.spikingbrain.Session:" not in mapping


@pytest.mark.parametrize("line, said", [("-keepclasseswithmembers", "UnsatisfiedLinkError"), ("-keep class org.spikingbrain.CancelledException", "")])
def test_each_rule_is_needed(jvm, tiny, tmp_path, line, said):
    lines = RULES.read_text().splitlines()
    kept = [text for text in lines if not text.startswith(line)]
    assert len(kept) == len(lines) - 1
    run = subprocess.run(shrunk(jvm, tmp_path, "\n".join(kept)).command("Cancelling", "prefill", tiny), capture_output=True, text=True, timeout=300)
    assert said in run.stdout + run.stderr and "CancelledException: " not in run.stdout
