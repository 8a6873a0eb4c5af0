"""Files under Wine that Windows treats in its own way: over 4 GiB, left by a killed program, in use elsewhere; and other tools' results."""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path

import pytest
from gguf import GGUFValueType
from gguf_parts import Parts, key, text
from running_server import Server

from conftest import LINUX, PYTHON, ROOT, Models, WindowsServer, Wine, on_linux

RAN = {"programs": "Windows x86-64: Wine 8"}
SMALL = ROOT / "examples" / "small"
SPIKING = ("--outtype", "q4_0", "--spike")
PROMPT = "The file is opened"


def words(model: object) -> list[object]:
    return ["-m", model, "-p", PROMPT, "-n", 16, "--temp", 0, "-no-cnv", "-t", 1, "--no-warmup", "--ignore-eos"]


def lines(said: bytes) -> str:
    return said.decode(errors="replace").replace("\r\n", "\n").strip()


def spread(source: Path, path: Path, alignment: int) -> Path:
    """The same model with each tensor at a multiple of `alignment`, and holes between."""
    parts = Parts(source)
    keys = [*parts.keys.values(), key("general.alignment", GGUFValueType.UINT32, alignment)]
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(parts.tensors), len(keys)) + b"".join(keys)
    offsets, end = [], 0
    for name, (dims, kind, data) in parts.tensors.items():
        offsets.append(end)
        head += text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, end)
        end += -(-len(data) // alignment) * alignment
    begin = -(-len(head) // alignment) * alignment
    with path.open("wb") as file:
        file.write(head)
        for offset, (_, _, data) in zip(offsets, parts.tensors.values()):
            file.seek(begin + offset)
            file.write(data)
        file.truncate(begin + end)
    return path


@pytest.mark.parametrize("mode", ["mmap", "none"])
def test_a_model_file_of_more_than_4_gib_is_read(wine: Wine, programs: Path, models: Models, tmp_path: Path, mode: str) -> None:
    source = models(SMALL, *SPIKING)
    large = spread(source, tmp_path / "large.gguf", 1 << 27)
    assert large.stat().st_size > 1 << 32
    done = wine.run(programs / "sb-completion.exe", *words(wine.path(large)), "--load-mode", mode)
    assert lines(done.stdout) == lines(on_linux("sb-completion", *words(source)))


def test_what_a_killed_program_left_goes(wine: Wine, programs: Path, models: Models, tmp_path: Path) -> None:
    for name in (".out.gguf.0123456789ab.partial", ".other.gguf.0123456789ab.partial"):
        (tmp_path / name).write_bytes(b"half")
    wine.run(programs / "sb-quantize.exe", wine.path(models(SMALL, "--outtype", "f32")), wine.path(tmp_path / "out.gguf"), "Q8_0", 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".other.gguf.0123456789ab.partial", "out.gguf"]


@pytest.mark.parametrize(("output", "what"), [("none/out.gguf", "no such folder"), ("folder", "a folder"), ("in.gguf", "files are the same")])
def test_an_output_that_cannot_be_is_refused(wine: Wine, programs: Path, models: Models, tmp_path: Path, output: str, what: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "in.gguf").write_bytes(models(SMALL, "--outtype", "f32").read_bytes())
    said = wine.run(programs / "sb-quantize.exe", wine.path(tmp_path / "in.gguf"), wine.path(tmp_path / output), "Q8_0", 1, code=1)
    assert what in lines(said.stdout + said.stderr) and sorted(p.name for p in tmp_path.iterdir()) == ["folder", "in.gguf"]


def test_a_mapped_model_is_not_written_over(wine: Wine, programs: Path, models: Models, tmp_path: Path) -> None:
    """By a program, nor by sb-convert: each says which file, and leaves nothing."""
    source, used = models(SMALL, "--outtype", "f32"), tmp_path / "used.gguf"
    used.write_bytes(source.read_bytes())
    before = used.read_bytes()
    body = {"prompt": PROMPT, "n_predict": 8, "temperature": 0, "cache_prompt": False}
    with WindowsServer(wine, programs, used, tmp_path / "log", "-np", 1, "--no-warmup") as server:
        said = server.post("/completion", **body)["content"]
        assert str(used) in Path(f"/proc/{server.process.pid}/maps").read_text()
        quantize = wine.run(programs / "sb-quantize.exe", wine.path(source), wine.path(used), "Q4_0", 1, code=1)
        convert = wine.run(PYTHON, "-m", "sb_convert", wine.path(SMALL), "-o", wine.path(used), "--outtype", "q4_0", "--force", code=1)
        assert b"used.gguf" in quantize.stdout + quantize.stderr
        assert re.fullmatch(r"sb-convert: .*used\.gguf: .*write: got .*, expected success; .*close what has the file open", lines(convert.stderr).split("\n")[-1])
        assert server.post("/completion", **body)["content"] == said
    assert used.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == ["log", "used.gguf"]


# --- other tools ----------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def prose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prose") / "prose.txt"
    path.write_bytes(b"".join(b"The file is opened, line %d.\nAnd read again.\n" % i for i in range(80)))
    return path


def test_perplexity_is_that_of_linux(wine: Wine, programs: Path, models: Models, prose: Path) -> None:
    def given(model: object, text: object) -> list[object]:
        return ["-m", model, "-f", text, "-c", 128, "--chunks", 4, "-t", 1, "--no-warmup"]

    model = models(SMALL, *SPIKING)
    here = subprocess.run([LINUX / "sb-perplexity", *map(str, given(model, prose))], check=True, capture_output=True)
    there = wine.run(programs / "sb-perplexity.exe", *given(wine.path(model), wine.path(prose)))
    values = [re.search(r"Final estimate: PPL = ([0-9.]+)", lines(done.stdout + b"\n" + done.stderr)) for done in (here, there)]
    assert values[0] and values[1] and float(values[1][1]) == pytest.approx(float(values[0][1]), rel=1e-3)


def test_an_importance_matrix_is_used_on_the_other_system(wine: Wine, programs: Path, models: Models, prose: Path, tmp_path: Path) -> None:
    model, matrix = models(SMALL, "--outtype", "f32"), tmp_path / "matrix.gguf"
    wine.run(programs / "sb-imatrix.exe", "-m", wine.path(model), "-f", wine.path(prose), "-o", wine.path(matrix), "-c", 128, "--chunks", 2, "-t", 1, "--no-repack")
    on_linux("sb-quantize", "--imatrix", matrix, model, tmp_path / "linux.gguf", "Q4_0", 1)
    wine.run(programs / "sb-quantize.exe", "--imatrix", wine.path(matrix), wine.path(model), wine.path(tmp_path / "windows.gguf"), "Q4_0", 1)
    reads = [Parts(tmp_path / f"{name}.gguf").tensors for name in ("linux", "windows")]
    assert reads[0] == reads[1]


@pytest.mark.parametrize("name", ["sb-bench", "sb-batched-bench"])
def test_speed_is_measured(wine: Wine, programs: Path, models: Models, name: str) -> None:
    given = ["-p", 16, "-n", 4, "-r", 1] if name == "sb-bench" else ["-npp", 16, "-ntg", 4, "-npl", "1,2", "-c", 512]
    said = wine.run(programs / f"{name}.exe", "-m", wine.path(models(SMALL, *SPIKING)), "-t", 1, *given)
    assert "t/s" in lines(said.stdout + said.stderr).lower()


@pytest.mark.parametrize("computes", ["windows", "linux"])
def test_layers_are_computed_on_the_other_system(wine: Wine, programs: Path, models: Models, tmp_path: Path, computes: str) -> None:
    """sb-rpc-server on one, its client on the other."""
    import time

    from rpc_peers import RpcServer, free_port

    model = models(SMALL, *SPIKING)
    want = lines(on_linux("sb-completion", *words(model)))
    if computes == "linux":
        with RpcServer() as rpc:
            assert lines(wine.run(programs / "sb-completion.exe", *words(wine.path(model)), "--rpc", rpc.endpoint).stdout) == want
        return
    port = free_port()
    with (tmp_path / "log").open("wb") as log:
        server = wine.start(programs / "sb-rpc-server.exe", "-p", port, "-t", 1, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 60
        while b"listening" not in (tmp_path / "log").read_bytes():
            assert time.monotonic() < until and server.poll() is None, (tmp_path / "log").read_text(errors="replace")
            time.sleep(0.1)
        assert lines(on_linux("sb-completion", *words(model), "--rpc", f"127.0.0.1:{port}")) == want
    finally:
        server.kill()
        server.wait(20)


# --- numbers that Windows' long does not hold -----------------------------------------------------------------------------------

SCHEMAS = [{"type": "string", "pattern": "^(([a-c]{1,100000}){1,100000}){1,3}$", "maxLength": 3}, {"type": "string", "pattern": "^[a-b]{2,99999999999999}$", "maxLength": 4},
           {"type": "integer", "minimum": 4000000000, "maximum": 5000000000}, {"type": "number", "minimum": 1e-9, "maximum": 3e-9},
           {"type": "string", "pattern": "^a{5000000000}$"}]


def test_schemas_have_the_meaning_that_they_have_on_linux(wine: Wine, programs: Path, models: Models, tmp_path: Path) -> None:
    import openai

    def said(server: Server) -> list[str]:
        out = []
        with openai.OpenAI(base_url=server.url + "/v1", api_key="none", timeout=60, max_retries=0) as client:
            for schema in SCHEMAS:
                wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
                try:
                    answer = client.chat.completions.create(model="x", messages=[{"role": "user", "content": "x"}], max_tokens=24, temperature=0, response_format=wanted)  # type: ignore[call-overload]
                    out.append(answer.choices[0].message.content or "")
                except openai.APIStatusError as error:
                    out.append(str(error))
        return out

    model = models(SMALL, *SPIKING)
    with WindowsServer(wine, programs, model, tmp_path / "windows.log", "-np", 1, "--no-warmup") as windows, Server(model, tmp_path / "linux.log", "-np", 1, "--no-warmup") as linux:
        got, want = said(windows), said(linux)
    assert got == want and re.fullmatch("[45][0-9]{9}", want[2])
