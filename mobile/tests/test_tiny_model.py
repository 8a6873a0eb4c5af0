"""The Android project's own test on a device (library/src/androidTest), as far as that goes here: its body runs on a desktop JVM, the rest compiles."""

from __future__ import annotations

import re
from pathlib import Path

from jvm import ANDROID_TEST, ANNOTATIONS, JAVA, jvm, llama, tiny  # noqa: F401
from jvm_app import javac, need, part

RAN = {"androidTest": "its body, with the tiny model, on a desktop JVM; the rest compiled only"}
TINY = (ANDROID_TEST / "org" / "spikingbrain" / "TinyModel.java").read_text()
STUBS = Path(__file__).with_name("java") / "androidx-stubs"


def test_the_tiny_model_answers_as_on_a_device(jvm, tiny, tmp_path):
    assert jvm("Tiny", "check", tiny, tmp_path)["checked"] is True
    prompt = re.search(r'PROMPT = "(.*)"', TINY)[1]
    answer = [int(n) for n in re.search(r"ANSWER = \{ (.*) \}", TINY)[1].split(", ")]
    with llama(tiny) as llm:
        tokens = llm.tokenize(prompt.encode(), special=True)
        said = []
        for _ in answer:
            llm.eval(tokens if not said else said[-1:])
            best = sorted(llm.logits)[-2:]
            assert best[1] - best[0] > 1e-3  # no rounding of another CPU turns it
            said.append(int(llm.logits.argmax()))
    assert said == answer


def test_the_test_compiles(tmp_path):
    jar, junit = part("android.jar"), need(Path("/usr/share/java/junit4.jar"), "junit4")
    sources = [p for folder in (JAVA, ANDROID_TEST, STUBS, ANNOTATIONS) for p in sorted(folder.rglob("*.java"))]
    assert (javac(tmp_path, sources, jar, junit, release=8) / "org/spikingbrain/TinyModelTest.class").exists()
