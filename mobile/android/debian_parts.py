"""What Debian has of an Android SDK and this machine's Debian 12 has not, in a folder: `python3 mobile/android/debian_parts.py FOLDER`
(make test-mobile runs it). android.jar: API 23, Debian 11's, the last; dx.jar: the dexer that went with it; jni.h: Android's, Debian 13's.

apt works in a folder beside it, from the mirror that /etc/apt names; nothing is installed.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "arm64"))
from sysroot import Apt, fail, unpack  # noqa: E402

SUITES = ("bullseye", "trixie")
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
PACKAGES = ("libandroid-23-java", "dalvik-exchange", "android-libnativehelper-dev")
FILES = {"android.jar": "usr/share/java/com.android.android-23.jar", "dx.jar": "usr/share/java/com.android.dx.jar", "jni.h": "usr/include/android/jni.h"}


def mirror(etc: Path) -> str:
    """The first address of Debian's main archive that apt's lists in `etc` name."""
    text = "\n".join(p.read_text() for p in sorted([*etc.glob("sources.list"), *etc.glob("sources.list.d/*.list"), *etc.glob("sources.list.d/*.sources")]))
    for address in re.findall(r"^(?:URIs:|deb(?: \[.*?\])?) *(\w+://\S+/debian/?)(?:\s|$)", text, re.M):
        return str(address)
    fail(str(etc), "no Debian archive", "one", "add Debian's line to /etc/apt/sources.list")


def main(target: str) -> None:
    folder = Path(target).resolve()
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    lines = "".join(f"deb [signed-by={KEYS}] {mirror(Path('/etc/apt'))} {suite} main\n" for suite in SUITES)
    apt = Apt(folder.with_name(folder.name + "-apt"), "amd64", lines)
    apt.get("update")
    apt.get("download", *PACKAGES, cwd=part)
    unpack(sorted(part.glob("*.deb")), part / "all")
    out = part / "parts"
    out.mkdir()
    for name, path in FILES.items():
        shutil.copy(part / "all" / path, out / name)
    shutil.rmtree(folder, ignore_errors=True)
    out.rename(folder)
    shutil.rmtree(part)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python3 mobile/android/debian_parts.py FOLDER")
    main(sys.argv[1])
