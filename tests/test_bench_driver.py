"""The benchmark suite's models and driver: each shape loads, a synthetic context is accepted, a run resumes. Both sides are the
fork's driver here: the baseline's build is not needed, and no speed is looked at."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from test_cpp import built

from bench import rows, shapes
from bench.cases import Case, Player, all_cases, select, tiny_case
from bench.errors import BenchError
from bench.measure import machine, python_share, run, session
from bench.measure.build import Drivers, tool
from bench.measure.driver import Driver
from bench.measure.make_model import make_model
from bench.report import tables
from bench.shapes import LLAMA_1B, LLAMA_DENSE, LLAMA_MOE, QWEN_7B, SHAPES, SPIKING_1B, SPIKING_76B, SPIKING_76B_SMALL, shape_named, tiny
from bench.sides import SIDES

KINDS = [(s, t, k) for s in SHAPES for t in ("q4_0", "q8_0", "int8") for k in (False, True) if SHAPES[s].window or not (k or t == "int8")]
KINDS += [("SpikingBrain-1B", "int8-q8", True), ("SpikingBrain-76B-small", "int8-q8", True)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> session.Models:
    return session.Models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def driver() -> Iterator[Driver]:
    with Driver(built("sb-bench-driver"), "ours") as d:
        yield d


@pytest.fixture
def drivers() -> Drivers:
    path = built("sb-bench-driver")
    return Drivers(dict.fromkeys(SIDES, path), "pin==1", "commit", "build")


def player(name: str, type_: str = "q4_0", spikes: bool = False, flash_attn: bool = False) -> Player:
    return Player(shape_named(name + "-tiny"), type_, spikes, "fa" * flash_attn)


@pytest.mark.parametrize("name, type_, spikes", KINDS)
def test_every_shape_and_type_loads_and_decodes(models: session.Models, driver: Driver, name: str, type_: str, spikes: bool) -> None:
    p = player(name, type_, spikes)
    path, _ = models.get(p)
    answer = driver.ask("load", path=str(path))
    assert answer["n_vocab"] == p.shape.n_vocab and answer["bytes"] == shapes.model_bytes(p.shape, type_)
    driver.ask("context", n_ctx=64, n_threads=1, n_batch=32)
    assert len(driver.ask("decode", n=3)["seconds"]) == 3 and driver.ask("position")["next"] == 3


def test_a_shape_opens_in_llama(models: session.Models) -> None:
    from spikingbrain_cpp import Llama

    path, _ = models.get(player("SpikingBrain-1B", "q4_0"))
    with Llama(model_path=str(path), n_threads=1, verbose=False) as llama:
        assert llama.detokenize(llama.tokenize(b"the two")) == b"the two"
        assert llama("a", max_tokens=2)["usage"]["completion_tokens"] in (1, 2)


def test_the_same_shape_is_the_same_file(tmp_path: Path) -> None:
    shape, found = tiny(SPIKING_1B), []
    for name in ("a", "b"):
        digest = make_model(shape, "int8", tmp_path / name, spikes=True)
        found.append((digest, hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()))
    assert found[0] == found[1] and make_model(shape, "int8", tmp_path / "c") != found[0][0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c"]


@pytest.mark.parametrize("changes, type_, spikes, message", [
    ({"n_embd": 250}, "q4_0", False, "n_embd"), ({"n_ff": 320}, "int8", False, "n_ff"), ({"n_head": 3}, "q4_0", False, "n_head"),
    ({"n_head_kv": 3}, "q4_0", False, "n_head_kv"), ({"n_layer": 0}, "q4_0", False, "layers"), ({"n_vocab": 5}, "q4_0", False, "tokens"),
    ({}, "q3_x", False, "type"), ({"window": 0}, "q4_0", True, "spikes"), ({"window": 0}, "int8", False, "INT8")])
def test_wrong_shapes_are_refused_and_leave_no_file(tmp_path: Path, changes: dict[str, Any], type_: str, spikes: bool, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        make_model(dataclasses.replace(tiny(SPIKING_1B), **changes), type_, tmp_path / "m.gguf", spikes)
    assert not list(tmp_path.iterdir())


def test_real_shapes_have_the_published_sizes() -> None:
    def count(s: shapes.Shape) -> float:
        return sum(_product(t.shape) for t in shapes.tensors(s, "q8_0"))
    assert count(LLAMA_1B) == 1235814400 and count(QWEN_7B) == 7615616512  # as their model cards count them
    assert shapes.weight_bytes_per_token(QWEN_7B, "q4_0") < shapes.model_bytes(QWEN_7B, "q4_0")
    assert SPIKING_1B.kv_bytes_per_token() == 0 and QWEN_7B.kv_bytes_per_token() == 56 << 10


def test_a_token_reads_the_experts_it_chooses() -> None:
    def count(s: shapes.Shape) -> float:
        return sum(_product(t.shape) for t in shapes.tensors(s, "q8_0") if not t.name.endswith((".sinks", ".state")))
    assert round(count(SPIKING_76B) / 1e9, 2) == 76.52  # 16 experts in 21 layers, as the paper counts them: 76B, A12B
    read = {t: shapes.weight_bytes_per_token(SPIKING_76B, t) / 1e9 for t in ("q4_0", "q8_0")}
    assert shapes.model_bytes(SPIKING_76B, "q4_0") / 1e9 == pytest.approx(43.1, abs=0.1) and read == pytest.approx({"q4_0": 6.65, "q8_0": 12.56}, abs=0.01)
    one = dataclasses.replace(SPIKING_76B, experts=dataclasses.replace(SPIKING_76B.experts, n=1))
    router = 4 * 15 * 21 * SPIKING_76B.n_embd  # read whole
    assert shapes.weight_bytes_per_token(SPIKING_76B, "q4_0") == shapes.weight_bytes_per_token(one, "q4_0") + router
    # states of every query head under a bound; sinks beside the window; the growing layers
    assert shapes.state_bytes_per_token(SPIKING_76B, 131072) == 8 * 128**2 * (24 * 28 + 4 * 4) + 4 * 128 * 4 * (24 * (4096 + 128) + 4 * (131072 + 128))
    small, dense = (shapes.weight_bytes_per_token(s, "q4_0") for s in (SPIKING_76B_SMALL, LLAMA_DENSE))
    assert dense == pytest.approx(small, rel=0.01) and LLAMA_MOE.experts and LLAMA_MOE.n_ff == SPIKING_76B_SMALL.n_ff


def test_a_file_of_the_76bs_kind_is_what_the_converter_writes(tmp_path: Path) -> None:
    import gguf

    make_model(tiny(SPIKING_76B), "int8", tmp_path / "m.gguf", spikes=True)
    found = gguf.GGUFReader(tmp_path / "m.gguf")
    golden = tmp_path / "golden.gguf"
    subprocess.run([tool("sb-convert"), str(ROOT.parent / "shared" / "checkpoints" / "golden-moe-spike"), "-o", str(golden), "--outtype", "int8", "--spike-scope", "paper"], check=True)
    wanted = gguf.GGUFReader(golden)

    def kinds(r: gguf.GGUFReader) -> dict[str, tuple[int, str]]:
        return {t.name.split(".", 2)[-1] if t.name.startswith("blk.") else t.name: (len(t.shape), t.tensor_type.name) for t in r.tensors
                if "outlier" not in t.name and t.name != "token_embd.weight"}  # codes of its own; the golden one's embedding is F32
    assert kinds(found) == kinds(wanted)
    keys = [{k for k in r.fields if k.startswith("spikingbrain.")} for r in (found, wanted)]
    assert keys[0] == keys[1]


def _product(shape: tuple[int, ...]) -> int:
    n = 1
    for s in shape:
        n *= s
    return n


@pytest.mark.parametrize("name, type_, spikes, flash_attn", [
    ("Llama-3.2-1B", "q4_0", False, False), ("Llama-3.2-1B", "q4_0", False, True), ("Qwen2.5-7B", "q8_0", False, False),
    ("SpikingBrain-1B", "q4_0", False, False), ("SpikingBrain-7B", "int8", True, False), ("SpikingBrain-76B-small", "q4_0", False, False),
    ("SpikingBrain-76B-small", "int8", True, False), ("Mixtral-like-small", "q4_0", False, True)])
@pytest.mark.parametrize("n_seq", [1, 3])
def test_a_filled_context_has_the_positions_of_its_depth(models: session.Models, drivers: Drivers, name: str, type_: str, spikes: bool,
                                                         flash_attn: bool, n_seq: int) -> None:
    p, bench = player(name, type_, spikes, flash_attn), session.Bench(drivers, models)
    depth = 9000 if n_seq == 1 else 300  # more than one piece of 8192 cells
    with bench.seated((p,), n_seq * (depth + 64), 1, n_seq) as (seat,):
        bench.fill(seat, depth, n_seq)
        assert len(seat.driver.ask("decode", n=2, seqs=n_seq, back=True)["seconds"]) == 2
        after = {seat.driver.ask("position", seq=s)["next"] for s in range(n_seq)}
        assert after == {depth}  # both decoded tokens are taken back


def test_a_filled_context_decodes_like_a_prefilled_one_in_what_it_allocates(models: session.Models, driver: Driver) -> None:
    path, _ = models.get(player("SpikingBrain-1B"))
    driver.ask("load", path=str(path))
    sizes = {n: driver.ask("context", n_ctx=n, n_threads=1)["state_bytes"] for n in (1024, 300000)}
    assert sizes[1024] == sizes[300000] > 0
    path, _ = models.get(player("Llama-3.2-1B"))
    driver.ask("load", path=str(path))
    answers = [driver.ask("context", n_ctx=n, n_threads=1) for n in (1024, 4096)]
    assert [a["state_bytes"] for a in answers] == [tiny(LLAMA_1B).kv_bytes_per_token() * a["n_ctx"] for a in answers]


@pytest.mark.parametrize("request_, message", [
    ({"cmd": "nonsense"}, "nonsense"), ({"cmd": "load", "path": "/nowhere"}, "/nowhere"), ({"cmd": "decode", "n": 1}, "context: got none"),
    ({"cmd": "context", "n_ctx": 9, "n_threads": 1}, "no model"), ({"cmd": "op_time"}, "no operator"), ({"cmd": "load"}, "path"),
    ({"cmd": "op_build", "op": "nonsense", "n_threads": 1}, "nonsense"), ({"cmd": "spin", "threads": 10 ** 6, "repeat": 1}, "threads"),
    ({"cmd": "op_build", "op": "products", "type": "q9", "products": [[32, 32, 1]], "n_threads": 1}, "q9")])
def test_the_driver_refuses_and_lives_on(driver: Driver, request_: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        driver.ask(**request_)
    assert driver.ask("memory")["peak"] > 0


@pytest.mark.parametrize("arguments, message", [({"depth": 0}, "depth"), ({"depth": 256}, "depth"), ({"depth": 8, "seq": 1}, "sequence"),
                                                ({"depth": 8, "layers": [[1, 0]]}, "recurrent")])
def test_a_context_is_not_filled_beyond_what_it_is(models: session.Models, driver: Driver, arguments: dict[str, Any], message: str) -> None:
    p = player("SpikingBrain-1B")
    driver.ask("load", path=str(models.get(p)[0]))
    driver.ask("context", n_ctx=64, n_threads=1)
    with pytest.raises(BenchError, match=message):
        driver.ask("fill", **{"layers": p.shape.layers(8), **arguments})


def test_an_argument_that_nobody_reads_is_refused(driver: Driver) -> None:
    with pytest.raises(BenchError, match="spikes: got an argument that the command does not read"):
        driver.ask("op_build", op="products", type="q4_0", spikes=True, n_threads=1, products=[[64, 32, 1]])
    with pytest.raises(BenchError, match="thread: got"):
        driver.ask("memory", thread=1)


def test_a_driver_that_dies_is_an_error(driver: Driver, tmp_path: Path) -> None:
    driver.process.kill()
    with pytest.raises(BenchError, match="exit code -9"):
        driver.ask("memory")
    with pytest.raises(BenchError, match="absent"):
        Driver(tmp_path / "absent")


def test_it_ends_with_whoever_commands_it() -> None:
    done = subprocess.run([built("sb-bench-driver")], input="", capture_output=True, timeout=30)
    assert done.returncode == 0 and done.stdout == b""


# --- the suite itself, on tiny shapes

@pytest.fixture
def suite(drivers: Drivers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(run.build, "drivers", lambda sides: drivers)
    monkeypatch.setattr(run.build, "WORK", tmp_path / "work")
    common = {label: {k: v for k, v in s.items() if k in ("flash_attn", "kv")} for label, s in SIDES["ik"].settings.items()}
    monkeypatch.setitem(SIDES, "ik", dataclasses.replace(SIDES["ik"], settings=common))  # the fork's driver stands in for ik's
    monkeypatch.setattr(machine, "QUIET", dict.fromkeys(machine.QUIET, 1e9))
    return tmp_path / "rows.jsonl"


def test_a_run_measures_every_kind_of_case_and_cleans_up(suite: Path) -> None:
    wanted = ("decode-1b-d1024", "prefill-1b-n512", "prefill-1b-at16384", "validate", "batch-1b-s4", "shared", "load", "roofline-1b-t1", "operators-1b-t1",
              "products-1b", "products-step", "python")
    assert run.run([tiny_case(c) for c in all_cases(1) if c.id.startswith(wanted)], suite, small=True) == 0
    found = rows.read(suite)
    assert {r["case"].split("-")[0] for r in found} == {"decode", "prefill", "validate", "batch", "shared", "load", "roofline", "operators", "products", "python"}
    for r in found:
        assert not r["skipped"] and r["median"] > 0 and r["repetitions"] == len(r["values"]) and r["machine"]["cpus"] and r["pin"] == "pin==1"
    decode = [r for r in found if r["case"] == "decode-1b-d1024" and r["kind"] == "decode"]
    assert len(decode) == 6 and all(r["model_hash"] and r["state_bytes"] and r["peak_resident_bytes"] and r["depth"] == 1024 for r in decode)
    assert [r["name"] for r in found if r["case"] == "decode-1b-d1024" and r["kind"] == "ratio"][0].startswith("SpikingBrain-1B-tiny q4_0 / Llama-3.2-1B-tiny q4_0")
    both = [r for r in found if r["kind"] == "shared"]
    assert len(both) == 4 and all(r["extra"]["bound"] > 0 for r in both) and tables.shared(found).count("x ±") == 4
    assert not list((suite.parent / "work" / "models").glob("*"))


def test_a_mixture_of_experts_is_measured_by_what_a_token_chooses(suite: Path) -> None:
    wanted = ("decode-moe-d1024", "decode-moe-int8", "prefill-moe")
    cases = [c for c in all_cases(1) if c.id.startswith(wanted)]
    assert not any(c.quick for c in cases) and run.run([tiny_case(c) for c in cases], suite, small=True) == 0
    found = rows.read(suite)
    assert not any(r["skipped"] for r in found)
    for r in found:
        if r["kind"] == "decode":
            shape = shape_named(r["model"])
            state = r["extra"]["bytes_per_step"] - shapes.weight_bytes_per_token(shape, r["type"])
            assert 0 < state < shapes.state_bytes_per_token(shape, 2000, r["spikes"]) and r["extra"]["bound"] > 0
    text = tables.moe(found)
    mine = [line for line in text.splitlines() if "| SpikingBrain-76B-small-tiny" in line]
    assert "over Llama-like-small-tiny | over Mixtral-like-small-tiny" in text and len(mine) >= 5 and all(line.count("x") >= 2 and " - |" not in line for line in mine)
    assert tables.prefill(found) == "_not measured_"


def test_what_taking_back_costs_is_measured(suite: Path, drivers: Drivers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIKINGBRAIN_BENCH_BEFORE", str(drivers.paths["ours"]))
    wanted = ("verify-1b-t1", "rollback-7b", "before-small", "state", "drafts-ngram-simple")
    assert run.run([tiny_case(c) for c in all_cases(1) if c.id.startswith(wanted)], suite, small=True) == 0
    found = rows.read(suite)
    assert not any(r["skipped"] for r in found) and all(r["median"] > 0 for r in found if r["kind"] != "ratio")
    ours = [r for r in found if r["case"] == "verify-1b-t1" and r["name"] == "SpikingBrain-1B-tiny q4_0"]
    assert [r["n_prompt"] for r in ours] == [1, 2, 4, 8, 2, 4, 8] and [r["unit"] for r in ours] == ["s"] * 4 + ["x"] * 3
    back = [r["kind"] for r in found if r["case"] == "rollback-7b"]
    assert back == ["rollback token", *(f"rollback {n} {how}" for how in ("one by one", "draft") for n in (1, 8, 32))]
    assert {r["kind"] for r in found if r["case"] == "state"} == {"state", "state before"}
    refused = [r for r in found if r["kind"] == "ratio" and r["name"].startswith("every draft refused")]
    assert refused and all(r["extra"]["draft_n_accepted"] == 0 for r in refused)
    for table in (tables.verify, tables.rollback, tables.before, tables.state, tables.drafts):
        assert len(table(found).splitlines()) > 2 and " - |" not in table(found)


def test_a_build_before_that_is_not_named_or_not_there_is_said(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = select("full", ["before-1b-t1"], 1, small=True)
    for path, reason in (("", "names the sb-bench-driver"), ("/nowhere/driver", "got /nowhere/driver")):
        monkeypatch.setenv("SPIKINGBRAIN_BENCH_BEFORE", path)
        assert run.run(cases, suite, small=True) == bool(path)
        assert reason in rows.read(suite)[0]["skipped"]


def test_the_time_of_a_token_is_split_between_what_computes_and_python(suite: Path, models: session.Models) -> None:
    assert run.run(select("full", ["python-1b"], 1, small=True), suite, small=True) == 0
    found = rows.read(suite)
    assert {r["kind"] for r in found} == {"python", "python share", "ratio"}
    shares = [r for r in found if r["kind"] == "python share"]
    assert [r["name"].rsplit(" ", 1)[1] for r in shares] == ["generate", "stream"]
    for r in shares:
        us = r["extra"]
        assert all(0 < v < 1 for v in r["values"]) and r["peak_resident_bytes"] and r["state_bytes"] and r["model_hash"]
        assert us["all"] > us["decode"] > 0 and us["sample"] > 0 and us["python"] > 0
    assert "SpikingBrain-1B-tiny q4_0 generate" in tables.python(found) and "%" in tables.python(found)


def test_work_in_python_counts_as_pythons_and_other_work_does_not(models: session.Models, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.measure import python_player
    from spikingbrain_cpp import _core

    play = python_player.PythonPlayer()
    play.load(str(models.get(player("SpikingBrain-1B"))[0]), 1)
    play.prefill(8)
    plain = {name: getattr(cls, name) for cls, name in python_player.COMPUTES}

    def slow(name: str) -> None:
        monkeypatch.setattr(*{"decode": (_core.Context, "decode"), "sample": (_core.Sampler, "sample"), "accept": (_core.Sampler, "accept")}[name],
                            lambda *args, was=getattr({"decode": _core.Context}.get(name, _core.Sampler), name): (time.sleep(0.02), was(*args))[1])
    for name in ("decode", "sample", "accept"):
        with monkeypatch.context() as monkeypatch:
            slow(name)
            answer = play.tokens(how="generate", n=4, seconds=9.0, parts=True)
        parts = python_share.parts_of(answer)
        where = {"accept": "python"}.get(name, name)
        assert answer["tokens"] == 4 and parts[where] > 19000 and sum(parts[k] for k in ("decode", "sample", "python")) == pytest.approx(parts["all"])
        assert all(parts[k] < parts[where] for k in ("decode", "sample", "python") if k != where)
    assert {name: getattr(cls, name) for cls, name in python_player.COMPUTES} == plain


@pytest.mark.parametrize("how", ["generate", "stream"])
def test_the_players_tokens_are_those_asked_for(models: session.Models, how: str) -> None:
    from bench.measure.python_player import PythonPlayer

    play = PythonPlayer()
    play.load(str(models.get(player("SpikingBrain-1B"))[0]), 1)
    play.prefill(8)
    answer = play.tokens(how=how, n=30, seconds=60.0, parts=False)
    assert 30 <= answer["tokens"] < 40 and set(answer) == {"tokens", "seconds"} and play.llama.n_tokens >= 38
    assert play.tokens(how=how, n=10**6, seconds=0.05, parts=True)["tokens"] < 10**5


def test_an_interrupted_run_keeps_its_rows_and_goes_on(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = select("full", ["products-step", "load", "batch-1b-s4"], 1, small=True)
    ran: list[str] = []

    def interrupted(bench: session.Bench, case: Case) -> list[rows.Row]:
        raise KeyboardInterrupt
    monkeypatch.setitem(run.MEASURE, "load", interrupted)
    assert run.run(cases, suite, small=True) == 130
    before = rows.read(suite)
    assert {r["case"] for r in before} == {"batch-1b-s4"} and not list((suite.parent / "work" / "models").glob("*"))

    def quick(bench: session.Bench, case: Case) -> list[rows.Row]:
        ran.append(case.id)
        return [bench.row("x", unit="s", values=[1.0])]
    for kind in ("load", "step", "decode"):
        monkeypatch.setitem(run.MEASURE, kind, quick)
    assert run.run(cases, suite, small=True) == 0
    assert ran == ["load-1b", "products-step-1b"] and rows.read(suite)[:len(before)] == before


def test_a_noisy_case_is_run_again_by_itself_and_marked_where_it_stays_noisy(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    calm = {"others": 0.0, "steal": 0.0, "loop_spread": 0.0, "load": 0.0, "noisy": False}

    def quick(bench: session.Bench, case: Case) -> list[rows.Row]:
        ran.append(case.id)
        return [bench.row("x", unit="s", values=[1.0])]
    for noisy_times in (1, 2):
        looks = iter([calm, calm | {"noisy": True}, calm, calm, *[calm | {"noisy": noisy_times > 1}] * 2])
        monkeypatch.setattr(machine, "noise", lambda spin: next(looks))
        for kind in ("load", "step"):
            monkeypatch.setitem(run.MEASURE, kind, quick)
        ran.clear()
        out = suite.with_name(f"{noisy_times}.jsonl")
        assert run.run(select("full", ["load", "products-step"], 1, small=True), out, small=True) == 0
        assert ran == ["load-1b", "products-step-1b", "load-1b"]
        assert {r["case"]: r["noise"]["noisy"] for r in rows.read(out)} == {"products-step-1b": False, "load-1b": noisy_times > 1}
    monkeypatch.setattr(machine, "noise", lambda spin: calm | {"noisy": True})
    monkeypatch.setitem(run.MEASURE, "decode", quick)
    ran.clear()
    cases = select("full", ["batch-", "load"], 1, small=True)
    assert run.run(cases, suite, small=True) == 0 and ran == [c.id for c in cases]  # all of a noisy machine's are marked at once


def test_what_does_not_fit_is_a_row_with_its_reason(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = select("full", ["batch-1b-s4"], 1, small=True)
    monkeypatch.setattr(machine, "free_memory", lambda: 1 << 20)
    assert run.run(cases, suite, small=True) == 0
    (found,) = rows.read(suite)
    assert "memory" in found["skipped"] and found["median"] is None
    monkeypatch.undo()
    assert len(rows.read(suite)) == 1


def test_a_case_that_fails_is_a_row_and_an_exit_code(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(bench: session.Bench, case: Case) -> list[rows.Row]:
        raise BenchError("bench: broken")
    monkeypatch.setitem(run.MEASURE, "decode", broken)
    assert run.run(select("full", ["batch-1b-s4"], 1, small=True), suite, small=True) == 1
    assert [r["skipped"] for r in rows.read(suite)] == ["failed: bench: broken"]


def test_a_run_without_the_disk_it_needs_is_refused(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_disk", lambda folder: 1 << 20)
    with pytest.raises(BenchError, match="free disk"):
        run.run(select("full", ["batch-1b-s4"], 1), suite)
    assert not suite.exists()


def test_a_second_run_at_once_is_refused(suite: Path) -> None:
    with run.only_run(run.build.WORK), pytest.raises(BenchError, match="another run"):
        run.run(select("full", ["batch-1b-s4"], 1, small=True), suite, small=True)
    assert not suite.exists()


def test_a_conversion_is_measured_without_upstreams_requirements(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIKINGBRAIN_BENCH_PYTHON", "/nowhere/python")
    assert run.run(select("full", ["convert"], 1, small=True), suite, small=True) == 0
    ours, theirs = rows.read(suite)
    assert ours["median"] > 0 and ours["peak_resident_bytes"] > ours["extra"]["anonymous_bytes"] > 0
    assert "SPIKINGBRAIN_BENCH_PYTHON" in theirs["skipped"] and not (suite.parent / "work" / "convert").exists()


def test_both_checkpoints_of_a_conversion_have_one_size(tmp_path: Path) -> None:
    from bench.measure.checkpoints import DIMENSIONS, config, gla_swa_tensors, qwen2_tensors

    sizes = [sum(_product(s) for _, s in f(config(name, DIMENSIONS))) for f, name in ((qwen2_tensors, "qwen2"), (gla_swa_tensors, "gla_swa"))]
    assert sizes[0] == 1543714304 and 1 <= sizes[1] / sizes[0] < 1.001  # as Qwen2.5-1.5B's card counts it


def test_without_the_package_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.measure import build

    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BenchError, match="make build"):
        build.package_libs()
    monkeypatch.setattr(build.shutil, "which", lambda name, path: None)
    with pytest.raises(BenchError, match="cmake"):
        build.tool("cmake")


def test_a_build_folder_of_another_checkout_is_taken_over(tmp_path: Path) -> None:
    from bench.measure import build

    cache = tmp_path / "CMakeCache.txt"
    for home, kept in ((ROOT / "bench" / "cpp", True), (tmp_path, False)):
        cache.write_text(f"CMAKE_HOME_DIRECTORY:INTERNAL={home}\n")
        build.forget_other_checkout(cache)
        assert cache.exists() is kept


def test_the_baseline_is_the_pinned_tree_without_our_files(tmp_path: Path) -> None:
    from bench.measure import build

    if not list((build.WORK / "upstream").glob("llama.cpp")):
        pytest.skip("the baseline's tree has not been made here (python -m bench build)")
    tree = build.WORK / "upstream" / "llama.cpp"
    assert not list(tree.rglob("*spikingbrain*")) and "SPIKINGBRAIN" not in (tree / "src" / "llama-arch.h").read_text()
