"""What has been run where, in the READMEs: python mobile/android/run_table.py [--write]. From the tests: a test file says in its RAN which part
it runs, and where; a part that no test names has not been run."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
TESTS = ROOT / "mobile" / "tests"
BEGIN, END = "<!-- run table: begin -->", "<!-- run table: end -->"
NOT_RUN = "**not yet run**"
LIBRARY = ("Java API, JNI, native part", "Kotlin module, `ktx/`", "native part for arm64", "kernels for arm64", "which libraries Gradle packs",
           "every library of `cpu-libraries.txt`, built", "an AAR and an APK", "androidTest", "AndroidFiles.java", "consumer rules", "Gradle, R8, the NDK's build", "any device or emulator")
APP = ("core/: chat, engine, settings, store, benchmark, statistics", "screens, service, application", "what is newer than Android 6 (Newer.java)",
       "manifest, layouts, strings, icon", "classes.dex", "build.gradle.kts", "a screen, seen")
READMES = {HERE / "README.md": LIBRARY, HERE / "app" / "README.md": APP}


def ran(path: Path) -> dict[str, str]:
    """Part -> where it runs, of one test file; read, not imported."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "RAN":
            return dict(ast.literal_eval(node.value))
    return {}


def said() -> dict[str, list[tuple[str, str]]]:
    """Part -> (where, test file) of all tests. ValueError: a test names a part that no table has."""
    out: dict[str, list[tuple[str, str]]] = {}
    for path in sorted(TESTS.glob("test_*.py")):
        for part, where in ran(path).items():
            if part not in LIBRARY + APP:
                raise ValueError(f"{path.name}: RAN: got \"{part}\", expected a part of run_table.py; do add it there or correct it")
            out.setdefault(part, []).append((where, path.name))
    return out


def table(parts: tuple[str, ...]) -> str:
    rows = said()
    lines = ["| part | run | by |", "| --- | --- | --- |"]
    for part in parts:
        where = "; ".join(dict.fromkeys(w for w, _ in rows.get(part, []))) or NOT_RUN
        lines.append(f"| {part} | {where} | {', '.join(f'`{name}`' for _, name in rows.get(part, []))} |")
    return "\n".join(lines)


def with_table(text: str, parts: tuple[str, ...]) -> str:
    """A README with its table made anew."""
    return re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n{table(parts)}\n{END}", text, flags=re.DOTALL)


def main() -> None:
    for path, parts in READMES.items():
        if sys.argv[1:] == ["--write"]:
            path.write_text(with_table(path.read_text(), parts))
        else:
            print(table(parts))


if __name__ == "__main__":
    main()
