"""What was computed under other weights or settings is never taken for one's own: every door asks, whatever differs."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import numpy as np
import pytest
from binding_models import ONE, make_tiny, tokens_of, write_adapter
from running_server import BIN, Server

from spikingbrain_cpp import Llama, LlamaDiskCache, LlamaRAMCache, LlamaState

EPS = "spikingbrain.attention.layer_norm_rms_epsilon"
SPIKES = {"spike": True}


def other_tensor(model: Path, name: str, at: float, out: Path) -> Path:
    """The model with one bit of one tensor changed."""
    raw = bytearray(model.read_bytes())
    tensor = next(t for t in gguf.GGUFReader(model).tensors if t.name == name)
    raw[tensor.data_offset + int(tensor.n_bytes * at)] ^= 1
    out.write_bytes(raw)
    return out


def split(model: Path, out: Path) -> Path:
    """The first of the parts."""
    subprocess.run([BIN / "sb-gguf-split", "--split-max-tensors", "9", model, out], check=True, capture_output=True)
    return sorted(out.parent.glob(f"{out.name}-00001-of-*.gguf"))[0]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """One F16 model, and what may be confused with it."""
    folder = tmp_path_factory.mktemp("identity")
    base = make_tiny(folder / "f16", "f16")
    out = {"base": base, "q8_0": make_tiny(folder / "q8", "q8_0"), "split": split(base, folder / "part")}
    out["copy"] = Path(shutil.copy(base, folder / "copy.gguf"))
    out["norm"] = other_tensor(base, "blk.1.ffn_norm.weight", 0.5, folder / "norm.gguf")
    out["matrix"] = other_tensor(base, "blk.0.ffn_up.weight", 0.37, folder / "matrix.gguf")
    (folder / "changed").mkdir()
    parts = [Path(shutil.copy(p, folder / "changed")) for p in sorted(folder.glob("part-*.gguf"))]
    name = gguf.GGUFReader(parts[1]).tensors[0].name
    parts[1].write_bytes(other_tensor(parts[1], name, 0.5, folder / "x.gguf").read_bytes())
    out["part"] = parts[0]
    out["control"] = folder / "control.gguf"
    vector = gguf.GGUFWriter(out["control"], "controlvector")
    vector.add_tensor("direction.1", np.ones(64, np.float32))
    vector.write_header_to_file()
    vector.write_kv_data_to_file()
    vector.write_tensors_to_file()
    vector.close()
    for name, seed in (("lora", 5), ("lora2", 6)):
        out[name] = folder / f"{name}.gguf"
        write_adapter(out[name], base, seed=seed)
    return out


def load(files: dict[str, Path], file: str = "base", lora_path: "str | None" = None, **options) -> Llama:
    return Llama(files[file], **({"lora_path": files[lora_path]} if lora_path else {}), **options, **ONE)


# what is different: its part of the fingerprint, how the state was made, how it is used
DIFFERENCES = {
    "quantisation": ("model", {}, {"file": "q8_0"}),
    "one value of a norm": ("model", {}, {"file": "norm"}),
    "one bit of a matrix": ("model", {}, {"file": "matrix"}),
    "one part of a split file": ("model", {"file": "split"}, {"file": "part"}),
    "an adapter": ("adapters", {}, {"lora_path": "lora"}),
    "no adapter": ("adapters", {"lora_path": "lora"}, {}),
    "adapter file": ("adapters", {"lora_path": "lora"}, {"lora_path": "lora2"}),
    "adapter scale": ("adapters", {"lora_path": "lora"}, {"lora_path": "lora", "lora_scale": 0.5}),
    "spikes": ("settings", {}, SPIKES),
    "no spikes": ("settings", SPIKES, {}),
    "spike k": ("settings", SPIKES, {**SPIKES, "spike_k": 2.0}),
    "override": ("settings", {}, {"kv_overrides": {EPS: 1e-3}}),
    "types": ("types", {}, {"type_k": 0, "type_v": 0}),
    "type_v": ("types", {"type_k": 0}, {"type_k": 0, "type_v": 0}),
}
SAME = {
    "copy": ({}, {"file": "copy"}), "split": ({}, {"file": "split"}), "scale 0": ({}, {"lora_path": "lora", "lora_scale": 0.0}),
    "default k": (SPIKES, {**SPIKES, "spike_k": 3.0}), "spikes off": ({}, {"spike": False}),
    "the file's own value": ({}, {"kv_overrides": {EPS: 1e-6}}), "a name": ({}, {"kv_overrides": {"general.name": "x"}}),
    "default types": ({}, {"type_k": 1, "type_v": 1}), "micro-batch": ({}, {"n_ubatch": 32, "n_ctx": 64}),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_state_of_another_computation_is_refused_and_in_a_cache_is_not_found(files, tmp_path, name):
    part, made, used = DIFFERENCES[name]
    prompt = tokens_of(30)
    caches = [LlamaRAMCache(), LlamaDiskCache(tmp_path / "cache")]
    with load(files, **made) as first, load(files, **used) as second:
        first.eval(prompt)
        first.snapshot(tmp_path / "s.snap")
        second.eval([1, 2])
        for door, source in ((second.restore, tmp_path / "s.snap"), (second.load_state, LlamaState.from_bytes(first.save_state().to_bytes()))):
            with pytest.raises(ValueError, match=f"{door.__name__}: {part}: got a state of .*; load the model"):
                door(source)
            assert second.input_ids.tolist() == [1, 2]
        second.reset()
        second.eval(prompt)
        row = second.logits
        for cache in caches:
            for llm in (first, second):
                llm.reset()
                llm.set_cache(cache)
                before = llm.n_evaluated
                next(iter(llm.create_completion(prompt.tolist(), max_tokens=1, temperature=0, stream=True)))
                assert llm.n_evaluated - before >= 30  # the other's was not taken
            assert np.array_equal(second.logits if second.n_tokens == 30 else row, row)
            for llm in (first, second):  # and each finds its own again: neither pushed the other out
                llm.reset()
                before = llm.n_evaluated
                llm.create_completion(prompt.tolist(), max_tokens=1, temperature=0)
                assert llm.n_evaluated - before <= 1, type(cache)


@pytest.mark.parametrize("name", SAME)
def test_what_changes_nothing_of_the_computation_is_the_same_model(files, name):
    made, used = SAME[name]
    with load(files, **made) as first, load(files, **used) as second:
        first.eval(tokens_of(30))
        second.restore(first.snapshot())
        assert second.n_tokens == 30 and np.array_equal(second.logits, first.logits)


def test_the_fingerprint_is_of_the_file_that_was_loaded_not_of_what_lies_there_now(files, tmp_path):
    path = Path(shutil.copy(files["base"], tmp_path / "m.gguf"))
    with load(files) as same, Llama(path, **ONE) as llm:
        path.unlink()
        shutil.copy(files["matrix"], path)
        llm.eval(tokens_of(5))
        same.restore(llm.snapshot())


def test_a_cache_of_ones_own_making_is_asked_for_nothing_of_another_model(files):
    """One that knows llama-cpp-python's two methods alone."""
    from spikingbrain_cpp.caches import BaseLlamaCache

    class One(BaseLlamaCache):
        state = None

        def __getitem__(self, key):
            if self.state is None:
                raise KeyError(key)
            return self.state

        def __setitem__(self, key, value):
            self.state = value

    cache = One()
    with load(files) as first, load(files, **SPIKES) as second:
        first.set_cache(cache)
        first.create_completion(tokens_of(30).tolist(), max_tokens=1)
        second.set_cache(cache)
        second.create_completion(tokens_of(30).tolist(), max_tokens=1)
        assert second.n_evaluated >= 30


# --- session files of sb-completion -------------------------------------------------------------------------------------


def completion(files: dict[str, Path], session: Path, file: str = "base", *args: object) -> subprocess.CompletedProcess:
    command = [BIN / "sb-completion", "-m", files[file], "-no-cnv", "-p", "hello the hello", "-n", "2", "--temp", "0", "-t", "1", "--ignore-eos",
               "--prompt-cache", session, *args]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, timeout=60)


def spike_args(k: float) -> tuple[str, ...]:
    return "--override-kv", f"spikingbrain.spike.enable=bool:true,spikingbrain.spike.k=float:{k}"


SESSIONS = {  # how it was made: what refuses it, how it is then used
    ("base",): [("model", ("q8_0",)), ("model", ("matrix",)), ("adapters", ("base", "--lora", "lora")), ("types", ("base", "-ctk", "f32", "-ctv", "f32")),
                ("settings", ("base", "--rope-freq-base", "5000")), ("settings", ("base", "--control-vector", "control"))],
    ("split",): [("model", ("part",))],
    ("base", "--lora", "lora"): [("adapters", ("base", "--lora-scaled", "lora:0.5"))],
    ("base", *spike_args(3)): [("settings", ("base", *spike_args(2)))],
}


@pytest.mark.parametrize("made", SESSIONS)
def test_a_session_file_of_another_computation_is_refused(files, tmp_path, made):
    def args(given):
        return [str(files.get(a, a)) if a != "lora:0.5" else f"{files['lora']}:0.5" for a in given[1:]]
    session = tmp_path / "s.bin"
    first = completion(files, session, made[0], *args(made))
    assert first.returncode == 0 and session.exists(), first.stderr[-2000:]
    for part, used in SESSIONS[made]:
        second = completion(files, session, used[0], *args(used))
        assert second.returncode == 1 and f"saved state: {part}: got" in second.stderr, second.stderr[-2000:]
    again = completion(files, session, made[0], *args(made))
    assert (again.returncode, again.stdout) == (0, first.stdout)


def test_a_session_file_without_a_fingerprint_is_refused_by_name(files, tmp_path):
    session = tmp_path / "s.bin"
    assert completion(files, session).returncode == 0
    raw = session.read_bytes()
    at = raw.index(b"SBSP")
    session.write_bytes(raw[:at] + raw[at + 40:])
    done = completion(files, session)
    assert done.returncode == 1 and "saved state: version: got one without a fingerprint" in done.stderr


# --- sb-server ----------------------------------------------------------------------------------------------------------

PROMPT = tokens_of(60).tolist()
LETTERS = "root ::= [a-z]+"  # half a character would have no log probabilities


def ask(server: Server, prompt=PROMPT, **more) -> "tuple[int, dict[int, float]]":
    """Tokens of the prompt that were evaluated, log probabilities of the first token."""
    got = server.post("/completion", **{"prompt": prompt, "n_predict": 1, "temperature": 0, "n_probs": 20, "grammar": LETTERS, **more})
    return got["timings"]["prompt_n"], {p["id"]: p["logprob"] for p in got["completion_probabilities"][0]["top_logprobs"]}


def scales(server: Server, *all_: float) -> None:
    body = json.dumps([{"id": i, "scale": s} for i, s in enumerate(all_)]).encode()
    urllib.request.urlopen(urllib.request.Request(server.url + "/lora-adapters", body, {"Content-Type": "application/json"}), timeout=30).read()


@pytest.fixture(scope="module")
def server(files):
    folder = files["base"].parent
    with Server(files["base"], folder / "server.log", "--lora", files["lora"], "--slot-save-path", f"{folder}/", "-np", 2, "-cram", 0) as s:
        yield s


@pytest.fixture(scope="module")
def right(server) -> "dict[float, dict[int, float]]":
    """scale: the log probabilities, nothing taken from anywhere."""
    return {s: ask(server, id_slot=1, cache_prompt=False, lora=[{"id": 0, "scale": s}])[1] for s in (0.0, 0.5, 1.0)}


def test_a_slot_answers_with_the_scale_that_is_asked_for(server, right):
    assert right[0.0] != right[1.0] != right[0.5]
    for scale in (1.0, 0.0, 0.5, 1.0):
        scales(server, scale)
        assert ask(server, id_slot=0) == (60, right[scale])
        assert ask(server, id_slot=0) == (0, right[scale])
        assert ask(server, PROMPT + [1], id_slot=0)[0] == 1  # and goes on from it
        assert ask(server, PROMPT + [1], id_slot=0, lora=[{"id": 0, "scale": 0.25}])[0] == 61
    for scale in (0.5, 0.0, 1.0):
        assert ask(server, id_slot=0, lora=[{"id": 0, "scale": scale}]) == (60, right[scale])
        assert ask(server, id_slot=0, lora=[{"id": 0, "scale": scale}]) == (0, right[scale])


def test_an_empty_list_of_adapters_is_scale_0_and_a_request_reports_what_it_used(server, right):
    scales(server, 1.0)
    for lora, scale in (([], 0.0), (None, 1.0), ([{"id": 0, "scale": 0.5}], 0.5)):
        got = server.post("/completion", prompt=PROMPT, n_predict=1, n_probs=20, temperature=0, grammar=LETTERS, id_slot=0, **({} if lora is None else {"lora": lora}))
        assert {p["id"]: p["logprob"] for p in got["completion_probabilities"][0]["top_logprobs"]} == right[scale]
        assert got["generation_settings"]["lora"] == [{"id": 0, "scale": scale}]


def test_the_prompt_cache_keeps_a_text_of_each_scale(files, right):
    with Server(files["base"], files["base"].parent / "cache.log", "--lora", files["lora"], "-np", 1) as one:
        def lora(s):
            return {"lora": [{"id": 0, "scale": s}]}
        texts = {s: ask(one, **lora(s)) for s in (1.0, 0.0)}  # the second pushes the first out of the slot
        assert texts == {s: (60, right[s]) for s in texts}
        assert ask(one, tokens_of(80, seed=3).tolist(), **lora(0.5))[0] == 80
        for s in (1.0, 0.0, 1.0):
            n, row = ask(one, **lora(s))
            assert (n, row) == (0, right[s])


def test_adapters_that_are_not_applied_are_at_scale_0(files, right):
    with Server(files["base"], files["base"].parent / "init.log", "--lora", files["lora"], "--lora-init-without-apply", "-np", 1) as one:
        assert [a["scale"] for a in one.get("/lora-adapters")] == [0.0]
        assert ask(one) == (60, right[0.0])
        scales(one, 1.0)
        assert ask(one) == (60, right[1.0])


def test_an_adapter_that_is_invoked_within_a_prompt_applies_from_there_on(files):
    """An aLoRA: what stands before its invocation is the plain model's and is kept, what follows is not."""
    folder = files["base"].parent
    write_adapter(folder / "alora.gguf", files["base"], invocation=[7, 8])
    once = PROMPT[:40] + [7, 8] + PROMPT[42:]
    twice = once[:50] + [7, 8] + PROMPT[52:]
    on, off = {"lora": [{"id": 0, "scale": 1.0}]}, {"lora": []}
    with Server(files["base"], folder / "alora.log", "--lora", folder / "alora.gguf", "-np", 2, "-cram", 0) as one:
        cold = {(len(p), i): ask(one, p, id_slot=1, cache_prompt=False, **lora)[1]
                for p in (once, once + [9], twice + [9, 9]) for i, lora in enumerate((on, off))}
        assert cold[60, 0] != cold[60, 1] and one.get("/lora-adapters")[0]["alora_invocation_tokens"] == [7, 8]
        for p, i in ((once, 1), (once, 0), (once + [9], 0), (once, 1), (twice + [9, 9], 0), (once, 0), (twice + [9, 9], 1), (twice + [9, 9], 0)):
            n, row = ask(one, p, id_slot=0, **(on, off)[i])
            assert same(row, cold[len(p), i]), (len(p), i, n)
        with ThreadPoolExecutor(2) as pool:  # one that writes while the other is before its invocation
            for _ in range(4):
                writing = pool.submit(one.post, "/completion", prompt=once, n_predict=40, id_slot=1, ignore_eos=True, cache_prompt=False, **on)
                for p in (once, twice + [9, 9]):
                    assert same(ask(one, p, id_slot=0, cache_prompt=False, **on)[1], cold[len(p), 0])
                writing.result()


def same(row: "dict[int, float]", other: "dict[int, float]") -> bool:
    return row.keys() == other.keys() and max(abs(row[t] - other[t]) for t in row) < 1e-3


@pytest.mark.parametrize("n_ask", [60, 61])
def test_a_slot_file_is_continued_under_its_own_scale_alone(server, right, n_ask):
    scales(server, 1.0)
    ask(server, id_slot=0)
    server.post("/slots/0?action=save", filename="lora.bin")
    prompt = (PROMPT + [1])[:n_ask]
    for scale, n in ((0.0, n_ask), (1.0, n_ask - 60)):
        server.post("/slots/1?action=erase")
        server.post("/slots/1?action=restore", filename="lora.bin")
        got, row = ask(server, prompt, id_slot=1, lora=[{"id": 0, "scale": scale}])
        assert got == n and (row == right[scale]) is (n_ask == 60)


@pytest.mark.parametrize("part, file, args", [
    ("model", "q8_0", ("--lora", "lora")), ("model", "matrix", ("--lora", "lora")), ("adapters", "base", ()), ("adapters", "base", ("--lora", "lora2")),
    ("settings", "base", ("--lora", "lora", "--override-kv", f"{EPS}=float:0.001")), ("settings", "base", ("--lora", "lora", *spike_args(2))),
    ("types", "base", ("--lora", "lora", "-ctk", "f32", "-ctv", "f32")), (None, "split", ("--lora", "lora")),
])
def test_a_slot_file_of_another_computation_is_refused_with_the_reason(server, files, part, file, args):
    scales(server, 1.0)
    ask(server, id_slot=0)
    server.post("/slots/0?action=save", filename="one.bin")
    folder = files["base"].parent
    with Server(files[file], folder / "other.log", *(files.get(a, a) for a in args), "--slot-save-path", f"{folder}/", "-np", 1) as other:
        if part is None:
            other.post("/slots/0?action=restore", filename="one.bin")
            assert ask(other)[0] == 0
            return
        status, message = other.refused("/slots/0?action=restore", b'{"filename": "one.bin"}')
        assert status == 400 and f"slot file: {part}: got" in message, message
        assert ask(other, PROMPT[:9])[0] == 9


def test_a_slot_file_of_an_older_format_is_refused_by_name(server, files):
    ask(server, id_slot=0)
    server.post("/slots/0?action=save", filename="old.bin")
    path = files["base"].parent / "old.bin"
    raw = bytearray(path.read_bytes())
    assert raw[-16:-12] == b"SBSC" and raw[-12] == 3
    raw[-12] = 2
    path.write_bytes(raw)
    status, message = server.refused("/slots/0?action=restore", b'{"filename": "old.bin"}')
    assert status == 400 and "slot file: version: got another one" in message
