"""The Kotlin module says what the Java API says; a coroutine that is cancelled cancels its call, and nothing is left behind."""

from __future__ import annotations

import re
import subprocess

from jvm import JAVA, llama, spiking, tiny, tool  # noqa: F401
from ktx import CASES, java_classes, kotlin, kotlinc  # noqa: F401

WRONG = CASES.with_name("kotlin-wrong") / "Wrong.kt"
SCOPES = {"ModelOptions": "ModelScope", "SessionOptions": "SessionScope", "GenerateOptions": "GenerateScope"}  # all of Java's options have their property
RAN = {"Kotlin module, `ktx/`": "compiled by Kotlin's own compiler (npm's), on a desktop JVM with the host's JNI library"}


def test_a_flow_has_the_pieces_of_the_java_api(kotlin, spiking):
    said = kotlin("text", spiking)
    assert said == {"greedy": True, "again": True, "drawn": True, "tokens": [1, 2, 3]}


def test_a_growing_chat_evaluates_its_new_tokens(kotlin, spiking):
    said = kotlin.all("chat", spiking)
    (n_prompt, n_evaluated, _), (n_then, n_new, _) = [v for k, v in said if k == "counts"]
    assert n_prompt == n_evaluated and n_new < n_then - n_prompt
    assert [v for k, v in said if k == "text"] == [v for k, v in said if k == "pieces"]
    with llama(spiking) as llm:
        first = llm.create_chat_completion([{"role": "user", "content": "say hello"}], max_tokens=24, temperature=0)
        assert first["choices"][0]["message"]["content"] == dict(said[:2])["text"]
    assert dict(said)["restored"] is True


def test_grammars_penalties_and_log_probabilities_are_javas(kotlin, spiking):
    said = kotlin("constrained", spiking)
    assert said["grammar"] in ("yes", "no") and said["logprobs"] is True and said["drawn"] is True
    assert said["tools"].startswith("IllegalArgumentException: generate: tools: ")


def test_a_conversation_keeps_its_answers(kotlin, spiking):
    said = kotlin.all("conversation", spiking)
    first, second = [v for k, v in said if k == "evaluated"]
    assert [v for k, v in said if k == "kept"] == [True, True] and second < first + 10  # not the first answer and question
    assert dict(said)["first"] is True and dict(said)["roles"] == ["user", "assistant"] * 3


def test_parallel_answers_are_those_computed_alone(kotlin, spiking):
    said = kotlin("parallel", spiking)
    assert said["equal"] is True and said["told"] is True and said["again"] is True and said["two"] == [0, 0, 1, 1, 2, 2]
    assert said["cancelled"] == "CancellationException"
    assert said["refused"].startswith("IllegalArgumentException: ") and "logprobs" in said["refused"]
    assert said["closed"].startswith("IllegalStateException: ")


def test_a_cancelled_load_gives_all_back(kotlin, spiking):
    said = kotlin.all("loading", spiking)
    assert dict(said)["mapped"] is True and dict(said)["last"] == 1.0 and dict(said)["rising"] is True
    assert [v for k, v in said if k in ("load", "cancelled")] == ["CancellationException", True] * 2
    assert 0 <= dict(said)["stopped_at"] < 1 and dict(said)["callback"] == "IllegalStateException: not this"
    assert dict(said)["left"] == []


def test_the_sample_of_the_readme_runs(kotlin, spiking, tmp_path):
    said = [value for _, value in kotlin.all("readme", spiking, tmp_path)]
    assert said[0].endswith("%") and any(isinstance(v, float) and v > 0 for v in said) and len(said) > 10
    assert (tmp_path / "chat.snapshot").exists()


def test_kotlin_sees_what_may_be_null(kotlin, tmp_path):
    run = kotlinc(tmp_path, [WRONG], f"{kotlin.classes}:{kotlin.java}")
    wrong = [i for i, line in enumerate(WRONG.read_text().splitlines(), 1) if line.endswith("// wrong")]
    assert len(wrong) > 10 and sorted({int(n) for n in re.findall(r"Wrong\.kt:(\d+):\d+: error: ", run.stderr)}) == wrong, run.stderr


def test_what_may_be_null_says_so_in_words_and_by_annotation():
    for path in JAVA.glob("*.java"):
        for words, signature in re.findall(r"/\*\*((?:(?!\*/).)*)\*/\s*\n +(public (?!(?:static )?(?:final )?class)[^{;]*)", path.read_text(), re.S):
            assert bool(re.search(r"(?<!not )\bnull\b", words)) <= ("@Nullable" in signature), f"{path.name}: {signature}"


def test_callbacks_run_where_the_caller_collects(kotlin, tiny):
    said = kotlin("callbacks", tiny)
    assert said["threads"] == ["main"]
    assert said["native"] == ["spikingbrain session", "spikingbrain model"]
    assert said["last"] == [300, 100] and said["rising"] is True and said["reason"] == "LENGTH"


def test_a_cancelled_prompt_stops_before_its_coroutine_does(kotlin, spiking):
    said = kotlin("prompt", spiking)
    assert said["collector"] == "CancellationException" and said["cancelled"] is True
    assert 64 <= said["held"] < 4000 and said["held"] % 32 == 0
    assert said["still"] is True and said["timeout"] is True and said["exact"] is True


def test_a_cancelled_answer_leaves_a_session_that_goes_on(kotlin, spiking):
    said = kotlin("answer", spiking)
    assert said == {"reason": "CANCELLED", "kept": True, "taken": 3, "taken_reason": "CANCELLED", "exact": True}


def test_a_cancelled_call_ends_no_other(kotlin, spiking):
    said = kotlin("waiting", spiking)
    assert said["waiting"] is True and said["first_runs"] is True and said["first"] == "none" and said["held"] == 4000
    assert said["scope"] == "IllegalStateException: beside"


def test_exceptions_are_those_of_the_java_api(kotlin, spiking, tmp_path):
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"no model")
    said = kotlin("errors", spiking, damaged)
    kinds = {name: str(value).split(":")[0] for name, value in said.items()}
    assert kinds == {"missing": "FileNotFoundException", "damaged": "ModelLoadException", "empty": "IllegalArgumentException",
                     "long": "IllegalArgumentException", "chat": "IllegalArgumentException", "eval": "IllegalArgumentException", "restore": "IOException",
                     "changed": "SpikingBrainException", "downstream": "IllegalStateException", "progress": "IllegalStateException", "usable": "True", "leaked": "[]"}
    assert said["downstream"].endswith(": not this") and said["progress"].endswith(": nor this")


def test_options_are_refused_by_name(kotlin, spiking):
    said = [f"{kind}: {value}" for kind, value in kotlin.all("options", spiking)]
    assert [line.split(", expected")[0] for line in said] == [
        f"{where}: IllegalArgumentException: {what}" for where, what in (
            ("model", "load: spike_k: got -1.0"), ("model", "load: spike_k: got 2.0 for a model told not to spike"),
            ("session", "session: n_ctx: got -1"), ("session", "session: n_threads: got 1000"), ("session", "session: n_ubatch: got 0"), ("session", "session: cpus: got -1"),
            ("generate", "generate: max_tokens: got -1"), ("generate", "generate: temperature: got NaN"), ("generate", "generate: top_p: got 1.1"),
            ("generate", "generate: min_p: got -0.1"), ("generate", "generate: repeat_penalty: got 0.0"), ("generate", "generate: seed: got -2"),
            ("generate", "generate: stop: got []"), ("generate", "generate: typical_p: got 2.0"), ("generate", "generate: frequency_penalty: got NaN"),
            ("generate", "generate: presence_penalty: got Infinity"), ("generate", "generate: logit_bias: got 1: NaN"),
            ("generate", "generate: logprobs: got 21"))]


def test_closing_ends_what_runs_and_leaves_nothing(kotlin, tiny):
    said = kotlin("closing", tiny)
    assert said["collector"].startswith(("CancelledException: ", "IllegalStateException: session: got a closed one"))
    closed = "IllegalStateException: {0}: got a closed one, expected an open one; "
    for name, who in {"session": "session", "flow": "session", "model": "model", "other": "session"}.items():
        assert said[name].startswith(closed.format(who)), said
    assert said["leaked"] == [] and said["forgotten"] == "none"


def test_every_option_of_java_has_its_property(kotlin):
    javap = subprocess.run([tool("javap"), "-cp", f"{kotlin.java}:{kotlin.classes}", *(f"org.spikingbrain.{name}" for name in SCOPES),
                            *(f"org.spikingbrain.ktx.{scope}" for scope in SCOPES.values())], capture_output=True, text=True, check=True).stdout
    members = {part.split("\n")[0].split(" class ")[-1].split(" ")[0].split(".")[-1]: part for part in re.split(r"(?=^public (?:final )?class)", javap, flags=re.M)}
    for name, scope in SCOPES.items():
        setters = set(re.findall(rf"public org\.spikingbrain\.{name} (\w+)\(", members[name]))
        assert len(setters) > 3 and setters == {p[0].lower() + p[1:] for p in re.findall(r"public final void set(\w+)\(", members[scope])}
