"""Cancelled within a micro-batch, also inside a prompt; afterwards the session is exact."""

from __future__ import annotations

from jvm import jvm, spiking, tiny  # noqa: F401

RAN = {"Java API, JNI, native part": "on a desktop JVM (OpenJDK 17, `-Xcheck:jni`, x86-64 Linux)"}
CANCELLED = "CancelledException: decode: got a cancel, expected none; call again to go on"


def test_a_prompt_stops_and_goes_on_where_it_stopped(jvm, spiking):
    said = jvm("Cancelling", "prefill", spiking)
    assert said["failure"] == CANCELLED
    assert said["held"] == 96 and said["evaluated"] == 600 - 96
    assert said["exact"] is True
    assert said["idle"] > 600


def test_a_cancel_does_not_wait_for_the_micro_batch(jvm, spiking):
    said = jvm("Cancelling", "inside", spiking, 4096)
    assert said["failure"] == CANCELLED
    assert said["held"] == 8 and said["exact"] is True
    assert said["stop_ms"] < said["whole_ms"] / 2, said


def test_an_answer_stops_and_goes_on_exactly(jvm, spiking):
    said = jvm("Cancelling", "generation", spiking)
    assert said["failure"].startswith("CancelledException: ") and said["reason"] == "CANCELLED"
    assert said["after"] == "none" and said["has_next"] is False
    assert 8 <= said["said"] < 60 and said["evaluated"] <= 1
    assert said["exact"] is True


def test_closing_ends_what_runs(jvm, tiny):
    said = jvm("Cancelling", "closing", tiny)
    assert said["worker"].startswith(("CancelledException: ", "IllegalStateException: session: got a closed one"))
    assert said["nested"].startswith("IllegalStateException: session: got a call from its own progress")
    assert said["open"] == "none"
