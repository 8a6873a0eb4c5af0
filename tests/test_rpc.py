"""Layers on another machine (sb-rpc-server) compute what they compute here; a server that is lost, foreign or refused is one sentence."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import gguf
import numpy as np
import pytest
from binding_models import ONE, convert, write_adapter
from moe_checkpoints import write_moe
from rpc_peers import BIN, LIB, PROGRAM, Between, RpcServer, free_port
from running_server import Server

from spikingbrain_cpp import Llama, LlamaError, ModelLoadError, _core

SMALL = Path(__file__).resolve().parent.parent / "examples" / "small"
KINDS = {"float": ("--outtype", "f32"), "spikes": ("--outtype", "q4_0", "--spike"), "int8": ("--outtype", "int8"),
         "experts-float": ("--outtype", "f32"), "experts-spikes": ("--outtype", "q8_0", "--spike")}  # of the 76B's layout: experts, sinks
TEXT = b"def keep(self, ship):\n    return self.ships"
SENTENCE = r"rpc(_servers)?: 127\.0\.0\.1:\d+: got .+, expected .+; "
SECONDS = 1  # without a sign of life, see SPIKINGBRAIN_RPC_TIMEOUT


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("rpc")
    of = {False: SMALL, True: write_moe(folder / "experts")}
    return {kind: convert(of["experts" in kind], folder / f"{kind}.gguf", *options) for kind, options in KINDS.items()}


@pytest.fixture(scope="module")
def server():
    with RpcServer() as one:
        yield one


@pytest.fixture
def short_wait(monkeypatch):
    monkeypatch.setenv("SPIKINGBRAIN_RPC_TIMEOUT", str(SECONDS))


def greedy(llm: Llama, n: int) -> tuple[list[int], np.ndarray]:
    """n tokens and all rows of logits."""
    ids, rows = [], []
    llm.eval(llm.tokenize(TEXT))
    for _ in range(n):
        rows.append(np.array(llm.logits))
        ids.append(int(rows[-1].argmax()))
        llm.eval(ids[-1:])
    return ids, np.array(rows)


def close(kind: str, a: np.ndarray, b: np.ndarray) -> bool:
    """With spikes: weights are interleaved here only, sums have another order, and after it a count may round otherwise."""
    return float(np.abs(a - b).max()) <= (1e-5 if kind.endswith("float") else 2e-2)*float(np.abs(a).max())


# --- the same as alone ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_layers", [None, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_greedy_tokens_are_those_of_one_process(models, server, kind, n_layers):
    """All layers there, or the last ones only."""
    with Llama(models[kind], **ONE) as alone, Llama(models[kind], rpc_servers=server.endpoint, n_gpu_layers=n_layers, **ONE) as remote:
        (ids, rows), (ids_remote, rows_remote) = greedy(alone, 24), greedy(remote, 24)
    assert ids == ids_remote
    assert close(kind, rows, rows_remote)


def test_two_servers_share_the_layers(models, server):
    with RpcServer() as second, Llama(models["spikes"], **ONE) as alone, \
            Llama(models["spikes"], rpc_servers=f"{server.endpoint},{second.endpoint}", **ONE) as remote:
        assert greedy(alone, 12)[0] == greedy(remote, 12)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_sequences_are_copied_removed_saved_and_restored_there(models, server, kind):
    with contextlib.ExitStack() as open_ones:
        contexts, states, rows = [], [], []
        for more in ({}, {"rpc_servers": [server.endpoint], "n_gpu_layers": -1}):
            model = open_ones.enter_context(contextlib.closing(_core.Model(str(models[kind]), **more)))
            contexts.append(open_ones.enter_context(contextlib.closing(_core.Context(model, n_seq_max=3, n_outputs_max=3))))
        ids = np.array(model.tokenize(TEXT, False, False), np.int32)
        for ctx in contexts:
            ctx.decode(ids, 0, 0)
            ctx.seq_cp(0, 1)
            ctx.decode(ids[:3], ids.size, 0)           # the copy goes its own way
            assert ctx.seq_rm(0, ids.size, -1)          # and the tail of the first is taken back
            assert (ctx.seq_pos_max(0), ctx.seq_pos_max(1)) == (ids.size - 1, ids.size - 1)
            states.append(ctx.state_get(1))
        assert len(states[0]) == len(states[1])
        for ctx, state in zip(contexts, reversed(states)):  # each goes on from the other's, too
            ctx.state_set(state, 2)
            for seq in range(3):
                ctx.decode(ids[5:9], ids.size, seq)
                ctx.decode(ids[9:10], ids.size + 4, seq)
                rows.append(np.array(ctx.logits()))
    assert all(close(kind, rows[0], row) for row in rows[1:])


def test_a_second_context_comes_and_goes(models, server):
    """The server keeps the graph of the other one, which goes on."""
    with Llama(models["spikes"], **ONE) as alone, Llama(models["spikes"], rpc_servers=server.endpoint, **ONE) as remote:
        expected = greedy(alone, 6)[0]
        got = greedy(remote, 3)[0]
        with remote.batch(2) as batch:
            batch.eval({0: remote.tokenize(b"a ship"), 1: remote.tokenize(b"two ships")})
        for _ in range(3):
            got.append(int(np.array(remote.logits).argmax()))
            remote.eval(got[-1:])
    assert got == expected


def control_vector(path: Path, width: int) -> Path:
    w = gguf.GGUFWriter(path, "controlvector")
    for i in (1, 2, 4):
        w.add_tensor(f"direction.{i}", np.random.default_rng(i).standard_normal(width, np.float32)/8)
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()
    return path


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_adapters_and_control_vectors_go_along(models, server, tmp_path, kind):
    """The same perplexity, digit for digit, as with weights that lie as in the file."""
    (text := tmp_path / "text").write_bytes(TEXT*40)
    write_adapter(adapter := tmp_path / "lora.gguf", models["float"])
    with Llama(models[kind], **ONE) as llm:
        control = control_vector(tmp_path / "control.gguf", llm.n_embd())

    def run(*options: object) -> str:
        done = subprocess.run([LIB / "llama-perplexity", "-m", models[kind], "-f", text, "-c", "64", "--chunks", "3", "-t", "1", *options],
                              capture_output=True, text=True, timeout=60)
        found = re.search(r"Final estimate: (.*)", done.stdout + done.stderr)
        assert found, done
        return found[1]

    there = run("--rpc", server.endpoint, "--lora", adapter, "--control-vector", control)
    assert there == run("--no-repack", "--lora", adapter, "--control-vector", control) != run("--no-repack")


def test_spikes_are_counted_and_embeddings_read_from_there(models, server):
    options = {"spike_stats": True, "embedding": True, **ONE}
    with Llama(models["spikes"], **options) as alone, Llama(models["spikes"], rpc_servers=server.endpoint, **options) as remote:
        for llm in (alone, remote):
            llm.eval(llm.tokenize(TEXT))
        assert alone.spike_stats().to_dict() == remote.spike_stats().to_dict()
        assert close("float", np.array(alone.embed(TEXT.decode())), np.array(remote.embed(TEXT.decode())))


# --- a server that is lost -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_server_ends_every_call_with_its_name(models, short_wait, how):
    with RpcServer() as server, Llama(models["spikes"], rpc_servers=server.endpoint, **ONE) as llm:
        llm.eval(llm.tokenize(TEXT))
        kept = llm.snapshot()
        server.send(how)
        began = time.monotonic()
        for call in (lambda: llm.eval([5]), lambda: llm.snapshot(), lambda: llm.restore(kept), lambda: llm(TEXT, max_tokens=2),
                     lambda: llm.batch(2), lambda: Llama(models["spikes"], rpc_servers=server.endpoint, **ONE)):  # the last: it is held
            with pytest.raises(LlamaError, match=SENTENCE):
                call()
        assert time.monotonic() - began < SECONDS + 2


@pytest.mark.parametrize("how, n_bytes", [("dies", 0), ("dies", 20), ("dies", 60), ("dies", 1_000_000), ("stops", 0), ("stops", 60), ("stops", 1_000_000)])
def test_a_server_lost_while_a_model_is_loaded(models, server, short_wait, how, n_bytes):
    """At the greeting (16 bytes), the first request, the first command, between the tensors."""
    with Between(server.port, n_bytes, how) as between, pytest.raises(ModelLoadError, match=SENTENCE):
        Llama(models["spikes"], rpc_servers=between.endpoint, **ONE)


def test_a_long_computation_is_not_taken_for_a_lost_server(models, short_wait):
    """A micro-batch that takes longer than the limit: the server's heart beats."""
    with RpcServer() as server:
        for n in (3072, 5120, 8192, 14336):
            with Llama(models["float"], rpc_servers=server.endpoint, n_batch=n, n_ubatch=n, **ONE) as llm:
                began = time.monotonic()
                llm.eval(np.arange(n) % 500 + 1)
                if time.monotonic() - began > SECONDS:
                    return
    pytest.fail("this machine computes too fast to show anything: add a longer one")


def test_a_model_can_be_loaded_again_when_its_server_is_back(models):
    with RpcServer() as server:
        with Llama(models["spikes"], rpc_servers=server.endpoint, **ONE) as llm:
            before = greedy(llm, 4)[0]
            server.send(signal.SIGKILL)
            server.process.wait(20)
            with pytest.raises(LlamaError, match=SENTENCE):
                llm.eval([5])
        again = subprocess.Popen([PROGRAM, "-p", str(server.port), "-t", "1"], stdout=subprocess.PIPE, text=True)
        try:
            assert any(line.startswith("listening") for line in again.stdout)
            with Llama(models["spikes"], rpc_servers=server.endpoint, **ONE) as llm:
                assert greedy(llm, 4)[0] == before
        finally:
            again.kill()
            again.communicate()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_sb_server_says_which_server_was_lost_and_stays(models, tmp_path, how):
    with RpcServer() as rpc, Server(models["spikes"], tmp_path / "log", "--rpc", rpc.endpoint, "-np", "1", "--slot-save-path", tmp_path,
                                    env={"SPIKINGBRAIN_RPC_TIMEOUT": str(SECONDS)}) as http:
        assert http.complete(TEXT.decode(), 4)["tokens_predicted"] == 4
        http.post("/slots/0?action=save", filename="kept")
        rpc.send(how)
        began = time.monotonic()
        for path, body in (("/completion", {"prompt": "other", "n_predict": 4}), ("/completion", {"prompt": "third", "n_predict": 4}),
                           ("/slots/0?action=save", {"filename": "half"}), ("/slots/0?action=restore", {"filename": "kept"})):
            status, message = http.refused(path, json.dumps(body).encode())
            assert status >= 400 and re.search(SENTENCE, message), (path, status, message)
        assert time.monotonic() - began < SECONDS + 3
        assert not (tmp_path / "half").exists()
        assert http.get("/health") == {"status": "ok"}


@pytest.mark.parametrize("tool", ["sb-completion", "sb-cli"])
def test_a_tool_ends_with_an_exit_code_when_its_server_is_lost(models, tmp_path, tool):
    options = ["-no-cnv"] if tool == "sb-completion" else ["-st"]
    with RpcServer() as rpc, (tmp_path / "errors").open("w+") as errors:
        process = subprocess.Popen([BIN / tool, "-m", models["spikes"], "--rpc", rpc.endpoint, "-p", TEXT, "-n", "100000", "--ignore-eos",
                                    "-t", "1", *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True)
        seen = ""
        while len(seen.partition("return self.ships")[2]) < 40:  # it is writing
            seen += process.stdout.read(1)
        rpc.send(signal.SIGKILL)
        output = seen + process.communicate(timeout=20)[0] + errors.seek(0)*"" + errors.read()
    assert process.returncode == 1 and re.search(SENTENCE, output), (process.returncode, output[-2000:])


def test_a_session_file_that_could_not_be_finished_is_none(models, server, tmp_path):
    """The connection ends while the state is saved, after the last token."""
    session = tmp_path / "session"

    def run(*options: object, limit: int = 2**40) -> tuple[int, str, int]:
        """Exit code, what it said and how many bytes it sent."""
        with Between(server.port, limit) as between:
            done = subprocess.run([LIB / "llama-completion", "-m", models["spikes"], "--rpc", between.endpoint, "-p", TEXT, "-n", "4", "-t", "1", "--temp", "0", "-no-cnv",
                                   "--no-warmup", "--ignore-eos", *options], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
            return done.returncode, done.stderr, limit - between.left

    keep = ("--prompt-cache", session, "--prompt-cache-all")
    without, whole = run()[2], run(*keep)[2]
    assert session.exists()
    session.unlink()
    code, said, _ = run(*keep, limit=whole - (whole - without)//10)
    assert code == 1 and re.search(SENTENCE, said) and not session.exists(), (code, said[-2000:])


# --- what is refused ---------------------------------------------------------------------------------------------------


def build_of_this() -> bytes:
    """The greeting of a server of this build."""
    with RpcServer() as server, socket.create_connection(("127.0.0.1", server.port), 5) as s:
        s.sendall(b"x"*16)  # no greeting: it answers with its own and closes
        return s.recv(16)


@pytest.mark.parametrize("servers", ["", "host", "host:", ":5", "host:0", "host:70000", "host:5x", "host:-5", "a:70000", "a:5,", "a:5,,b:5", "a:5,a:5", "a b:5", "a:05",
                                     "a/b:5"])
def test_malformed_servers_are_refused(models, servers):
    with pytest.raises(ValueError, match="llama: rpc_servers: got .*, expected"):
        Llama(models["spikes"], rpc_servers=servers, **ONE)
    if servers in ("host", "a:5,,b:5", "a:70000"):
        done = subprocess.run([LIB / "llama-bench", "-m", models["spikes"], "--rpc", servers], capture_output=True, text=True, timeout=20)
        assert done.returncode == 1 and re.search("error: rpc: .*, expected ", done.stderr), done


def test_rpc_servers_is_text(models):
    with pytest.raises(TypeError, match="llama: rpc_servers: got list, expected text"):
        Llama(models["spikes"], rpc_servers=["a:5"], **ONE)


@pytest.mark.parametrize("options, said", [(("-ngl", "5"), "-ngl: got it without --rpc"), (("--rpc", "127.0.0.1:1", "-ngl", "5"), "got 'Connection refused'")])
def test_layers_without_a_server_are_no_error_to_a_tool_but_said(models, options, said):
    done = subprocess.run([BIN / "sb-bench", "-m", models["spikes"], "-p", "1", "-n", "0", "-r", "1", "-t", "1", *options], capture_output=True, text=True,
                          timeout=60)
    assert said in done.stderr and (done.returncode == 0) == ("--rpc" not in options), done


@pytest.mark.parametrize("n, servers", [(0, True), (-2, True), (1, False), (99, False)])
def test_layers_without_effect_are_refused(models, server, n, servers):
    with pytest.raises(ValueError, match=f"llama: n_gpu_layers: got {n}, expected .* rpc_servers"):
        Llama(models["spikes"], n_gpu_layers=n, rpc_servers=server.endpoint if servers else None, **ONE)


@pytest.mark.parametrize("tool", ["sb-completion", "sb-bench", "sb-server", "sb-perplexity"])
def test_every_tool_says_that_a_server_is_not_there(models, tool):
    done = subprocess.run([BIN / tool, "-m", models["spikes"], "--rpc", f"127.0.0.1:{free_port()}"], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=20)
    assert done.returncode == 1 and re.search(SENTENCE, done.stdout + done.stderr), done


@pytest.mark.parametrize("what, answer, said", [
    ("another build", b"sb-rpc1\n" + b"\1"*8, "got operators of build 0101010101010101, expected [0-9a-f]{16}; install the same version"),
    ("a web server", b"HTTP/1.1 400 Bad Request\r\n\r\n", "got a peer of another kind")])
def test_a_foreign_server_is_refused(models, short_wait, what, answer, said):
    with Between(answer=answer) as peer, pytest.raises(ModelLoadError, match=f"llama: rpc_servers: 127.0.0.1:\\d+: {said}"):
        Llama(models["spikes"], rpc_servers=peer.endpoint, **ONE)


def test_a_server_that_answers_nonsense_is_refused(models, short_wait):
    with Between(answer=build_of_this() + b"\2"*64) as peer, pytest.raises(ModelLoadError, match=SENTENCE):
        Llama(models["spikes"], rpc_servers=peer.endpoint, **ONE)


def test_a_server_without_room_is_named(models):
    with RpcServer() as server:
        server.leave_room(14 << 20)  # for the thread of its heart, not for the 18 MB of the model
        with pytest.raises(ModelLoadError, match=r"llama: rpc_servers: 127.0.0.1:\d+: got no room for \d+ MiB, expected some; lower n_gpu_layers"):
            Llama(models["float"], rpc_servers=server.endpoint, **ONE)


def test_a_server_with_another_client_is_waited_for_and_then_named(models, server, short_wait):
    program = f"from spikingbrain_cpp import Llama; Llama({str(models['spikes'])!r}, rpc_servers={server.endpoint!r}, n_threads=1)"
    with Llama(models["spikes"], rpc_servers=server.endpoint, **ONE):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert "serves another client" in done.stderr, done.stderr
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30).returncode == 0


@pytest.mark.parametrize("what", [b"", b"GET / HTTP/1.0\r\n\r\n", b"\x0e" + (24).to_bytes(8, "little") + b"\0"*24, b"sb-rpc1\n" + b"\7"*8])
def test_a_server_survives_other_callers(models, server, what):
    """A look at the port, a browser, llama.cpp's own client, another version's."""
    with socket.create_connection(("127.0.0.1", server.port), 5) as s:
        s.sendall(what)
    with Llama(models["spikes"], rpc_servers=server.endpoint, **ONE) as llm:
        llm.eval([5])


@pytest.mark.parametrize("options, said", [
    (("-p", "abc"), "-p: got 'abc', expected 1 to 65535"), (("-p", "0"), "got '0'"), (("-t", "1.5"), "-t: got '1.5'"), (("-t",), "-t: got no value"),
    (("-d", "CUDA0"), "--device: got 'CUDA0', expected one of .*CPU"), (("-c",), "option: got '-c'"), (("-H", "::1"), "--host: got '::1'"),
    (("-H", "192.0.2.1"), "192.0.2.1:50052: got 'Cannot assign")])
def test_options_of_the_server(options, said):
    done = subprocess.run([PROGRAM, *options], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1 and re.search(f"sb-rpc-server: .*{said}", done.stderr), done


def test_a_port_that_is_taken_is_refused(server):
    done = subprocess.run([PROGRAM, "-p", str(server.port)], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1 and "got 'Address already in use'" in done.stderr, done
