"""The sample app without its screens, on a desktop JVM: what it keeps, what it tells, and that bench/ reads its rows."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from pathlib import Path

import pytest
from jvm import large_moe, llama, spiking, tiny  # noqa: F401
from jvm_app import app, core, said  # noqa: F401

from bench import rows
from bench.measure import machine
from bench.report import compare, files, tables


# --- what needs no model

RAN = {"core/: chat, engine, settings, store, benchmark, statistics": "on a desktop JVM with the real library and models, a process killed and revived among it"}


def test_settings_are_checked_and_come_back(core):
    got = core.all("Plain", "settings")
    wrong = [v for k, v in got if k == "wrong"]
    assert dict(got)["read"] == {"threads": 3, "spikes": "ON", "k": "2.5", "temperature": "0", "n_ubatch": 128, "max_tokens": 64, "spike_stats": True}
    assert dict(got)["threads"] == 3
    assert [dict(got)[k] for k in ("same", "temperature", "k")] == [True] * 3
    assert all(w.startswith("IllegalArgumentException: ") and "expected" in w for w in wrong) and len(wrong) == 9
    assert 'settings: threads: got "x", expected a whole number' in wrong[0] and "spike_k" in wrong[2] and 'temperature: got "hot"' in wrong[4]


def test_models_and_settings_outlive_the_process(core, tmp_path):
    got = core("Plain", "store", tmp_path)
    assert got["none"] is True and got["names"] == 'a2.gguf|b "é".gguf|2' and got["threads"] == 2 and got["left"] == 'b "é".gguf'
    assert got["damaged"].startswith("IOException: open: app.json: got ") and got["fixed"] == "c.gguf"
    assert got["nowhere"].startswith("IOException: save: app.json: got ")
    assert got["chat"].startswith("IOException: open: chat.json: got message 0 of assistant")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["app.json", "chat.json"]  # nothing half-written


def test_a_question_without_an_answer_is_taken_back(app, spiking, tmp_path):
    got = app("Engines", "conversation", tmp_path, spiking)
    assert got["during"] is True and got["whole"] is True and got["twice"].startswith("IllegalStateException: conversation: got a message, expected")
    assert got["nothing"].startswith("IllegalStateException: conversation: got nothing to answer")
    assert got["killed"] is True              # what was said stays
    assert got["early"] == "draft:two,"       # killed before the first word; handed out once
    assert got["empty"] == "draft:two" and got["prompt"] == 3
    assert got["saved"] == "draft:three" and got["tokens"] is True
    assert got["told"] == "s:be brief draft:five" and got["untold"] == got["nothing"]
    assert got["evaluated"] < got["of"] / 2


def test_a_load_is_stopped_and_nothing_holds_a_screen(app, spiking, tmp_path):
    got = app("Engines", "stopLoading", tmp_path, spiking)
    assert got["stopped"] == "|2" and got["line"].endswith("%") and got["loaded"] == "READY" and got["kept"] is False
    assert got["messages"] == ""  # of close(), twice


def test_the_service_is_never_stopped_before_it_started(core):
    got = core("Plain", "foreground")
    assert got["sequences"] == 128 and got["again"] == "START"


def test_many_changes_become_one_update(core):
    assert core("Plain", "coalescer") == {"posted": 1, "next": 1, "updates": 2, "left": 0, "delay": 50}


def test_median_and_spread_are_benchs(core):
    rng = random.Random(3)
    lists = [[rng.uniform(1, 40) for _ in range(n)] for n in itertools.chain(range(1, 14), (101, 102))] + [[0.0, 0.0], [2.0, 2.0, 2.0, 2.0]]
    got = core.list("both", "Plain", "scatter", json.dumps(lists))
    for values, (median, spread) in zip(lists, got, strict=True):
        row = rows.make_row(values=values)
        assert median == pytest.approx(row["median"], rel=1e-12) and spread == pytest.approx(rows.spread(values), rel=1e-9)


def test_the_machine_is_described_as_bench_does(core, tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nBogoMIPS\t: 38.40\nFeatures\t: fp asimd evtstrm aes asimddp i8mm\n\nprocessor\t: 1\nFeatures\t: fp\n")
    (tmp_path / "meminfo").write_text("MemTotal:        7654321 kB\n")
    got = core("Plain", "machine", tmp_path)
    assert got["describe"] == machine.describe() and got["features"] == machine.cpu_features() and got["peak"] > 1 << 20
    assert got["phone"] == "Phone" and got["arm"] == ["asimd", "asimddp", "i8mm"]
    assert got["none"].startswith("IOException: machine: self/status: VmHWM: got ")


def test_numbers_are_shown_in_units(core):
    got = core.all("Plain", "format")
    assert dict(got)["mib"] == "0.0 MiB|1.5 MiB|10 MiB|1,254 MiB" and dict(got)["rate"] == "12.35 ± 2% tokens/s"
    assert dict(got)["failure"] == "java.lang.RuntimeException|said"
    assert [v for k, v in got if k == "type"] == ["f32", "f16", "q4_0", "q8_0", "int8", "bf16", "file_type 15", "file_type null"]


# --- with a model

def test_a_chat_streams_and_stops(app, spiking, tmp_path):
    got = app("Engines", "chat", tmp_path, spiking)
    with llama(spiking) as llm:
        first = llm.create_chat_completion([{"role": "user", "content": "say hello"}], max_tokens=24, temperature=0)["choices"][0]["message"]["content"]
    assert got["loaded"].startswith("memory: got ") and got["loaded"].endswith("it fits")
    assert got["first"] == ["say hello", first] and got["new"] == got["first"]
    assert got["second"][:3] == ["say hello", first, "again"] and got["second"][3] and "cancelled" in got["stopped"]
    assert got["third"] == got["second"] and got["draft"] is True and "answer 0 tokens" in got["prefill"]
    assert got["early"] == "more" and got["fourth"][:5] == [*got["second"], "more"] and len(got["fourth"]) == 6
    assert "weights: " in got["memory"] and "this process (PSS): 1.0 MiB\navailable now: 5.0 MiB" in got["memory"]
    assert got["messages"] == "" and got["closed"] == "EMPTY"
    assert json.loads((tmp_path / "chat.json").read_text())["messages"][0]["content"] == "say hello"


def test_a_chat_outlives_a_kill_without_prefill(app, spiking, tmp_path):
    run = app.run("Engines", "die", tmp_path, spiking)
    assert run.returncode == 9, run.stdout + run.stderr
    before = dict(said(run.stdout))["before"]
    assert len(before) == 4 and before[3]
    got = app("Engines", "revive", tmp_path, spiking)
    kept = got["restored"]
    assert got["messages"] == "" and kept[:3] == before[:3] and kept[3] and before[3].startswith(kept[3])  # a piece may have come after the save
    assert got["all"][:5] == [*kept, "and then"]
    n_prompt, n_new = (int(got["line"].split()[i]) for i in (1, 3))
    with llama(spiking) as llm:
        new = llm.tokenize("<|im_end|>\n<|im_start|>user\nand then<|im_end|>\n<|im_start|>assistant\n", special=True)
    assert n_new <= len(new) + 1 < n_prompt  # and the last token said, which was not read yet


def test_a_chat_keeps_the_tokens_it_was_written_with(app, spiking):
    got = app("Engines", "tokens", spiking)
    n = len(got["known"])
    assert got["kept"][:n] == got["known"] and len(got["kept"]) > n
    assert got["other"] == got["foreign"] == got["whole"] and got["whole"][:n] != got["known"]


def test_no_answer_however_drawn_is_read_again(app, spiking, tmp_path):
    got = app.all("Engines", "lives", tmp_path, spiking)
    assert [v for k, v in got if k == "messages"] == [""] * 8
    counts = [tuple(int(v.split()[i]) for i in (1, 3)) for k, v in got if k == "line"]
    first = counts[0][0]
    assert all(n_new <= first + 3 for _, n_new in counts) and counts[-1][0] > 4 * first  # <|im_end|>, newline, the last token said


def test_what_cannot_be_done_is_said_and_the_app_goes_on(app, spiking, tiny, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    got = app("Engines", "refusals", folder, spiking, tiny, Path(__file__))
    none = got["none"].split("\n")
    assert none[:3] == ["chat: got no model, expected one; do import a model first", "spikes: got no model, expected one; do import a model first",
                        "benchmark: got no model, expected one; do import a model first"]
    assert "got a file that llama.cpp cannot load" in got["none"] and "missing.gguf, expected a GGUF file" in got["missing"]
    assert got["large"].startswith("refused: memory: got 1 MiB available, expected ") and "close other apps" in got["large"]
    assert got["forced"].startswith("memory: got 1 MiB available")
    assert "spike_k" in got["k"] or "spike" in got["k"]
    assert "spike" in got["uncounted"]                      # counted nothing: made without
    assert "model" in got["other"] and got["other"].endswith("The next message reads the chat again.")
    assert got["writes"].count("save: chat.json: got ") >= 1 and got["writes"].endswith("|6")


def test_the_app_refuses_the_76b_with_its_numbers(app, tmp_path):
    from spikingbrain_cpp import memory_estimate
    path = large_moe(tmp_path / "76b.gguf", True)
    try:
        got = app("Engines", "tooLarge", tmp_path, path, 12 << 30)
        want = memory_estimate(path, n_ubatch=32)
    finally:
        path.unlink()
    needed, cache = (-(-n // 2**20) for n in (want.total + (64 << 20), want.cache))
    assert needed > 40000 and got["said"] == (f"refused: memory: got 12288 MiB available, expected {needed} MiB, {cache} MiB of them for n_ctx tokens of text; "
                                              "close other apps, or take a smaller model, quantisation, n_ctx or n_ubatch")


def test_bench_reads_the_rows(app, spiking, tmp_path, capsys):
    got = app("Engines", "bench", tmp_path, spiking)
    assert got["progress"].split("|")[:3] == ["pp48: 0 of 5", "pp48: 1 of 5", "pp48: 2 of 5"] and got["progress"].endswith("tg6: 5 of 5|sha256")
    assert got["stopped"] == "benchmark: stopped|2" and got["chat"] == 2 and got["wrong"].startswith("IllegalArgumentException: benchmark: ")
    path = tmp_path / "rows.jsonl"
    prompt, single = rows.read(path)
    assert list(prompt) != [] and set(prompt) == set(single) == set(rows.FIELDS)
    for row in (prompt, single):
        again = rows.make_row(**row)
        assert row["median"] == pytest.approx(again["median"]) and row["spread"] == pytest.approx(again["spread"], abs=2e-5) and row["repetitions"] == 5
        assert row["machine"] == machine.describe() and row["cpu_features"] == machine.cpu_features() and row["threads"] == 1
        assert row["model_hash"] == hashlib.sha256(spiking.read_bytes()).hexdigest() and row["type"] == "q4_0" and row["spikes"] is True
        assert row["state_bytes"] > 0 and row["peak_resident_bytes"] > row["state_bytes"] and row["pin"] == "llama-cpp-python==0.0.0"
    assert (prompt["case"], prompt["kind"], prompt["unit"], prompt["n_prompt"], prompt["n_gen"]) == ("pp48", "prefill 48", "s", 48, None)
    assert (single["case"], single["kind"], single["unit"], single["n_prompt"], single["n_gen"]) == ("tg6", "decode", "tokens/s", None, 6)
    assert tables.value(single) in tables.batch([single | {"case": "batch-x"}])
    assert prompt["name"] in tables.prefill([prompt, single]) and "llama-cpp-python==0.0.0, commit 0123456789ab" in tables.machine([prompt, single])
    assert files.main(path, plots=False) == 0 and tables.value(prompt) in path.with_suffix(".md").read_text()
    assert compare.main(path, path) == 0


def test_spikes_are_shown_as_the_library_counts_them(app, spiking, tmp_path):
    got = app.all("Engines", "spikes", tmp_path, spiking)
    empty, counted = ([v for k, v in got if k == "tokens"])
    labels, shares, text = (([v for k, v in got if k == name])[1] for name in ("labels", "shares", "text"))
    assert empty == 0 and counted > 10 and dict(got)["messages"] == ""
    assert labels == "0 1 2 3 4 5 6 7 8-15 16-31 32-63 64-4095 4096-" and sum(shares) == pytest.approx(1) and min(shares) >= 0
    with llama(spiking, spike_stats=True) as llm:
        llm.create_chat_completion([{"role": "user", "content": "say hello"}], max_tokens=24, temperature=0)
        stats = llm.spike_stats()
    assert shares[:8] == pytest.approx([n / stats.model().n for n in stats.model().bins[:8]])
    assert text.startswith("k = ") and "\nall: silent " in text and "\nlayer 0: " in text
