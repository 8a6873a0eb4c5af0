"""The sample app's screens, manifest and resources, as far as that goes without an SDK: compiled against Android 6's own classes and, in
Newer.java, declarations that are those of Android's API 36; resources by aapt. Nothing of it is run."""

from __future__ import annotations

import re
import subprocess
import xml.etree.ElementTree as ET
from importlib import metadata
from pathlib import Path

import pytest
from jvm import tool
from jvm_app import MANIFEST, RES, SOURCES, STUBS, app_classes, javac, part, resources  # noqa: F401

RAN = {"AndroidFiles.java": "compiled only, against Android 6's own `android.jar`",
       "screens, service, application": "compiled only, against Android 6's own `android.jar`",
       "what is newer than Android 6 (Newer.java)": "compiled only, against hand-written declarations, each checked against Android's API 36",
       "manifest, layouts, strings, icon": "compiled by aapt against Android 10's resources, the service type as `dataSync`, as 10 does not know `specialUse`"}
ANDROID = "{http://schemas.android.com/apk/res/android}"
API = "chaquopy-stubs-android"  # Android's classes and methods, as Python stubs generated from its android.jar
PRIMITIVES = {"int": "java.jint", "long": "java.jlong", "float": "java.jfloat", "boolean": "java.jboolean"}
RETURNS = {"int": "int", "long": "int", "float": "float", "boolean": "bool", "void": "None", "String": "str"}


@pytest.fixture(scope="session")
def stubs(tmp_path_factory) -> Path:
    return javac(tmp_path_factory.mktemp("stubs"), sorted(STUBS.rglob("*.java")), part("android.jar"))


def test_the_screens_compile(app_classes):
    classes = app_classes
    assert (classes / "org/spikingbrain/app/MainActivity.class").exists() and (classes / "org/spikingbrain/AndroidFiles.class").exists()
    newer = (classes / "org/spikingbrain/app/Newer.class").read_bytes()
    assert int.from_bytes(newer[6:8], "big") == 52  # Java 8's, which the dexer reads


# --- the declarations are Android's

def api_classes() -> dict[str, tuple[list[str], dict[str, list[str]], set[str]]]:
    """Of each class of Android: its bases, the declarations of each method, its fields."""
    try:
        files = [f for f in metadata.files(API) or () if f.name.endswith(".pyi")]
    except metadata.PackageNotFoundError:
        pytest.skip(f"{API} is not installed; .venv/bin/python -m pip install {API}==36.20260406")
    out: dict[str, tuple[list[str], dict[str, list[str]], set[str]]] = {}
    for file in files:
        package = ".".join(file.parts[:-1]).replace("-stubs", "")
        if package.startswith("android"):
            read_classes(package, Path(str(file.locate())).read_text(), out)
    return out


def read_classes(package: str, text: str, out: dict[str, tuple[list[str], dict[str, list[str]], set[str]]]) -> None:
    stack: list[tuple[int, str]] = []
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        while stack and line.strip() and indent <= stack[-1][0]:
            stack.pop()
        if m := re.match(r"\s*class (\w+)(?:\((.*)\))?:", line):
            name = f"{stack[-1][1]}.{m[1]}" if stack else f"{package}.{m[1]}"
            out[name] = ([b.split("[")[0].strip() for b in (m[2] or "").split(",")], {}, set())
            stack.append((indent, name))
        elif stack and (m := re.match(r"\s*def (\w+)\((.*)\) -> (.*): \.\.\.", line)):
            out[stack[-1][1]][1].setdefault(m[1], []).append(f"{m[2]} -> {m[3]}")
        elif stack and (m := re.match(r"\s*(\w+): ", line)):
            out[stack[-1][1]][2].add(m[1])


def same(java: str, python: str) -> bool:
    """Whether a Java type is the one that a Python annotation names."""
    if java in PRIMITIVES:
        return PRIMITIVES[java] in python
    simple = re.sub(r"<.*>|\[\]|\.\.\.", "", java).split(".")[-1].split("$")[-1]
    if simple == "Class":
        return "typing.Type" in python
    return len(simple) == 1 or re.search(rf"\b{simple}\b", python) is not None or (simple == "Object" and "Any" in python)


def matches(arguments: list[str], returned: str | None, declaration: str) -> bool:
    given, _, gives = declaration.rpartition(" -> ")
    given = re.sub(r"^(self|cls)\b,? ?|, /$|^/$", "", given)
    parts = [p for p in re.split(r", (?=\*?\w+:)", given) if p]
    if len(parts) != len(arguments) or not all(same(a, p.split(":", 1)[1]) for a, p in zip(arguments, parts)):
        return False
    if returned is None:
        return True
    return RETURNS.get(returned.split(".")[-1]) == gives.replace(" | None", "") if returned.split(".")[-1] in RETURNS else same(returned, gives)


def wrong_members(javap: str, api: dict[str, tuple[list[str], dict[str, list[str]], set[str]]]) -> list[str]:
    wrong, name, methods, fields = [], "", {}, set()
    seen: set[str] = set()
    for line in javap.splitlines():
        if line.endswith("{"):
            line = re.sub(r"<.*>", "", line)
        if m := re.match(r".*?(?:class|interface|enum) ([\w.$]+).*\{", line):
            name = m[1].replace("$", ".")
            if name not in api:
                wrong.append(name)
            bases, methods, fields = api.get(name, ([], {}, set()))
            seen = set()
            super_ = re.search(r" extends ([\w.]+)", line)
            if super_ and " interface " not in line and super_[1].startswith("android") and super_[1].split(".")[-1] not in (b.split(".")[-1] for b in bases):
                wrong.append(f"{name} extends {super_[1]}")
        elif m := re.match(r"\s+((?:\w+ )*)(?:<.*> )?([\w.$<>\[\]]+) ([\w$]+)\((.*)\)", line):
            arguments = [a for a in m[4].split(", ") if a]
            if "$" in m[3] or (m[3] in ("values", "valueOf") and "static" in m[1]) or m[3] + m[4] in seen:  # javac's own, and bridges
                continue
            seen.add(m[3] + m[4])
            if not any(matches(arguments, m[2], d) for d in methods.get(m[3], [])):
                wrong.append(f"{name}.{m[3]}({m[4]}) -> {m[2]}")
        elif m := re.match(r"\s+(?:\w+ )*([\w.$]+)\((.*)\);", line):
            arguments = [a for a in m[2].split(", ") if a]
            arguments = arguments[1:] if arguments and name.startswith(arguments[0] + ".") else arguments  # an inner class's outer object
            if arguments and not any(matches(arguments, None, d) for d in methods.get("__init__", [])):
                wrong.append(f"{name}({m[2]})")
        elif m := re.match(r"\s+.*\b(\w+);", line):
            if m[1] not in fields:
                wrong.append(f"{name}.{m[1]}")
    return wrong


def test_the_declarations_are_androids(stubs):
    api = api_classes()
    classes = [str(p) for p in sorted(stubs.rglob("*.class")) if "Manifest" not in p.name]
    javap = subprocess.run([tool("javap"), "-protected", *classes], capture_output=True, text=True, check=True).stdout
    assert javap.count("{") == len(classes) > 12
    assert wrong_members(javap, api) == []
    made_up = "public class android.app.Activity extends android.view.ContextThemeWrapper {\n  public void fly(int);\n  public void setContentView(long);\n}\n"
    assert wrong_members(made_up, api) == ["android.app.Activity.fly(int) -> void", "android.app.Activity.setContentView(long) -> void"]


# --- what Gradle and Android would find

def test_every_component_of_the_manifest_is_a_class():
    root = ET.parse(MANIFEST).getroot()
    application = root.find("application")
    names = [c.get(ANDROID + "name") for kind in ("activity", "service") for c in application.findall(kind)] + [application.get(ANDROID + "name")]
    assert sorted(n.removeprefix(".") for n in names) == sorted(
        p.stem for p in (SOURCES / "org/spikingbrain/app").glob("*.java") if re.search(r"public final class \w+ extends (Screen|Service|Application)\b", p.read_text()))
    asked = {p.get(ANDROID + "name") for p in root.findall("uses-permission")}
    assert {"FOREGROUND_SERVICE", "FOREGROUND_SERVICE_SPECIAL_USE", "POST_NOTIFICATIONS", "WAKE_LOCK"} == {a.removeprefix("android.permission.") for a in asked}


def test_no_string_is_left_out_or_over():
    strings = {e.get("name") for e in ET.parse(RES / "values" / "strings.xml").getroot()}
    text = "\n".join(p.read_text() for folder in (SOURCES, RES) for p in folder.rglob("*.*") if p.name != "strings.xml") + MANIFEST.read_text()
    assert strings == {a or b for a, b in re.findall(r"R\.string\.(\w+)|@(?:string|array)/(\w+)", text)}


def test_no_screen_hands_itself_to_the_engine():
    """What the engine finds out goes to the application, which outlives the screens; it holds of them a weak reference alone."""
    app = SOURCES / "org/spikingbrain/app"
    screens = [p for p in app.glob("*.java") if re.search(r"extends (Screen|Activity)\b", p.read_text())]
    assert len(screens) == 5 and not [p for p in screens if re.search(r"engine\(\)\s*\.(spikes|measure|load)\(|\.show\(\);", p.read_text())]
    assert re.findall(r"\bScreen\b.*;", (app / "SampleApp.java").read_text())[0].startswith("Screen> shown = new WeakReference<>(null);")


def test_classes_are_short_and_the_core_is_plain_java():
    for path in SOURCES.rglob("*.java"):
        text = path.read_text()
        assert text.count("\n") < 300, path
        assert path.parent.name != "core" or not re.search(r"^import android", text, re.M), path
