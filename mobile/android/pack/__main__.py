"""python3 mobile/android/pack check FILE.aar|FILE.apk ...: is all in it that a phone needs? One sentence for each thing that is not, exit code 1.
ask BUILD: before CMake runs there, ask it what the Android Gradle plugin asks. targets BUILD: after it ran, the targets that the plugin builds.
Standard library only: Gradle runs the first after packing."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import plugin_rule  # noqa: E402
from check import check, said  # noqa: E402


def check_all(paths: list[Path]) -> int:
    wrong = []
    for path in paths:
        try:
            wrong += check(path)
        except (OSError, zipfile.BadZipFile) as e:
            wrong.append(said(str(path), e, "an AAR or APK", "build it anew"))
    print("\n".join(wrong), file=sys.stderr, end="\n" if wrong else "")
    return 1 if wrong else 0


def main(words: list[str]) -> int:
    command, paths = words[:1], [Path(w) for w in words[1:]]
    if command == ["check"] and paths and all(p.suffix in (".aar", ".apk") for p in paths):
        return check_all(paths)
    if command == ["ask"] and len(paths) == 1:
        plugin_rule.ask(paths[0])
    elif command == ["targets"] and len(paths) == 1:
        found = plugin_rule.targets(paths[0])
        files = plugin_rule.packed(found)
        print("\n".join(sorted(t.name for t in found if t.output in files)))
    else:
        print("usage: python3 mobile/android/pack check FILE.aar|FILE.apk ... | ask BUILD | targets BUILD", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
