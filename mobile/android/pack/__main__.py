"""python3 mobile/android/pack check FILE.aar|FILE.apk ...: is all in it that a phone needs? One sentence for each thing that is not, exit code 1.
Standard library only: Gradle runs it after packing."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from check import check, said  # noqa: E402


def main(words: list[str]) -> int:
    if len(words) < 2 or words[0] != "check" or any(Path(w).suffix not in (".aar", ".apk") for w in words[1:]):
        print("usage: python3 mobile/android/pack check FILE.aar|FILE.apk ...", file=sys.stderr)
        return 2
    wrong = []
    for word in words[1:]:
        try:
            wrong += check(Path(word))
        except (OSError, zipfile.BadZipFile) as e:
            wrong.append(said(word, e, "an AAR or APK", "build it anew"))
    print("\n".join(wrong), file=sys.stderr, end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
