"""What is given to others: the release folder is whole or absent, the container file is one that its check can run, missing tools are named.

The wheels themselves are tried by make test-wheel and make test-release.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RELEASE = ROOT / "release"
sys.path.insert(0, str(RELEASE))
import chroot  # noqa: E402
import collect  # noqa: E402
import containerfile  # noqa: E402
import kernels  # noqa: E402
import python_headers  # noqa: E402


def sentence(error: pytest.ExceptionInfo[SystemExit]) -> str:
    said = str(error.value)
    assert said.count("\n") == 0 and re.match(r"\w+: .+: got .+, expected .+; do .+", said), said
    return said


# --- the release folder ---------------------------------------------------------------------------------------

BILL = {"components": [{"name": "llama.cpp", "version": "1", "description": "all of it", "licenses": [{"license": {"id": "MIT"}}]},
                       {"name": "stb", "description": "pictures", "licenses": [{"expression": "MIT OR Unlicense"}]}]}


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "spikingbrain_cpp-1-cp311-cp311-manylinux_2_28_x86_64.whl"
    with zipfile.ZipFile(path, "w") as archive:
        info = "spikingbrain_cpp-1.dist-info"
        archive.writestr(f"{info}/sboms/spikingbrain_cpp.cdx.json", json.dumps(BILL))
        for part in BILL["components"]:
            archive.writestr(f"{info}/licenses/LICENSE-{part['name']}", f"licence of {part['name']}")
    return path


@pytest.fixture
def no_schema(monkeypatch):
    """Without the validator, which make release installs."""
    monkeypatch.setattr(collect, "bill_of", lambda wheel: collect.metadata(wheel)["sboms/spikingbrain_cpp.cdx.json"])


def test_the_folder_holds_all_and_sums_of_all(wheel, tmp_path, monkeypatch, no_schema):
    monkeypatch.setattr(collect, "source_distribution", lambda folder: (folder / "spikingbrain_cpp-1.tar.gz").write_text("source"))
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "of-an-older-one.whl").write_text("")
    collect.main([str(folder), str(wheel)])
    names = {p.name for p in folder.iterdir()}
    assert names == {wheel.name, f"{wheel.stem}.cdx.json", "spikingbrain_cpp-1.tar.gz", "LICENSES.txt", "Containerfile", "SHA256SUMS"}
    sums = dict(reversed(line.split("  ")) for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert sums == {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names - {"SHA256SUMS"}}
    text = (folder / "LICENSES.txt").read_text()
    assert re.search(r"^stb +MIT OR Unlicense +pictures$", text, re.M) and "licence of llama.cpp" in text and "MIT License" in text


def test_what_fails_leaves_the_folder_as_it_was(wheel, tmp_path, monkeypatch, no_schema):
    def broken(folder: Path) -> None:
        raise SystemExit("no source distribution")
    monkeypatch.setattr(collect, "source_distribution", broken)
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "kept").write_text("")
    with pytest.raises(SystemExit):
        collect.main([str(folder), str(wheel)])
    assert [p.name for p in folder.iterdir()] == ["kept"]


def test_a_missing_wheel_is_named(tmp_path):
    with pytest.raises(SystemExit) as error:
        collect.main([str(tmp_path / "release"), str(tmp_path / "none.whl")])
    assert "none.whl: got no such file, expected a wheel; do make wheel arm64" in sentence(error)


# --- the container file ---------------------------------------------------------------------------------------

def test_every_instruction_of_the_container_file_is_one_the_check_runs(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(chroot.Root, "run", lambda self, *words, **kw: ran.append((words[-1], self.user, self.binds)))
    image = containerfile.build(RELEASE / "Containerfile", chroot.Root(tmp_path), {})
    assert [user for _, user, _ in ran] == ["", ""] and ran[1][2] == {RELEASE: "/wheels"}  # as root; the wheels are there for one step
    assert image.base == "debian:bookworm-slim" and image.entrypoint == ["sb-server"] and image.volumes == ["/models"]
    assert not image.user.startswith("0") and image.user.split(":")[0] in ran[0][0]
    assert image.health[0] == "python3" and image.env["LLAMA_ARG_HOST"] == "0.0.0.0" and image.env["LLAMA_ARG_PORT"] in image.ports


@pytest.mark.parametrize("text, said", [
    ("FROM a\nADD b c\n", "Containerfile: ADD: got an instruction that is not known here"),
    ("FROM a\nENTRYPOINT sb-server\n", "ENTRYPOINT: got sb-server, expected the list form"),
])
def test_a_container_file_that_the_check_does_not_understand_is_refused(text, said, tmp_path):
    (tmp_path / "Containerfile").write_text(text)
    with pytest.raises(SystemExit) as error:
        containerfile.build(tmp_path / "Containerfile", chroot.Root(tmp_path), {})
    assert said in sentence(error)


@pytest.mark.parametrize("uid, tool, said", [(1000, "/bin/true", "sudo make test-release"), (0, None, "apt-get install -y mmdebstrap (as root)")])
def test_what_chroots_need_is_named(uid, tool, said, monkeypatch):
    monkeypatch.setattr(chroot.os, "geteuid", lambda: uid)
    monkeypatch.setattr(chroot.shutil, "which", lambda name: tool)
    with pytest.raises(SystemExit) as error:
        chroot.need_tools()
    assert said in sentence(error)


# --- zig as a compiler ----------------------------------------------------------------------------------------

@pytest.fixture
def zig(tmp_path):
    """A venv whose zig says how it was called."""
    venv = tmp_path / "venv" / "bin"
    venv.mkdir(parents=True)
    (tmp_path / "zig").write_text('#!/bin/sh\necho "$@"\n')
    (venv / "python").write_text(f"#!/bin/sh\necho {tmp_path}\n")
    for program in (tmp_path / "zig", venv / "python"):
        program.chmod(0o755)
    return venv.parent


def tool(zig: Path, name: str, *words: str) -> str:
    folder = zig.parent / "tools"
    subprocess.run(["sh", RELEASE / "zig.sh", zig, "x86_64-linux-gnu.2.28", folder, "-nostdlib++"], check=True)
    assert sorted(p.name for p in folder.iterdir()) == ["ar", "clang", "clang++", "ranlib"]
    return subprocess.run([folder / name, *words], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("name, words, called", [
    ("clang", ("-c", "a b.c"), "cc -target x86_64-linux-gnu.2.28 -c a b.c"),
    ("clang++", ("-c", "a.cpp", "-march=armv8-a"), "c++ -target x86_64-linux-gnu.2.28 -c a.cpp -mcpu=generic+v8a"),
    ("clang++", ("-march=armv8.2-a+dotprod+fp16+sve", "-c"), "c++ -target x86_64-linux-gnu.2.28 -mcpu=generic+v8_2a+dotprod+fullfp16+sve -c"),
    ("clang++", ("-march=armv8.6-a+dotprod+fp16+sve+i8mm+sve2", "-c"), "c++ -target x86_64-linux-gnu.2.28 -mcpu=generic+v8_6a+dotprod+fullfp16+sve+i8mm+sve2 -c"),
    ("clang++", ("a.o", "-o", "a"), "c++ -target x86_64-linux-gnu.2.28 -nostdlib++ a.o -o a"),  # links: our C++ runtime, not zig's
    ("ar", ("qc", "a.a"), "ar qc a.a"),
])
def test_zig_is_called_as_it_wants(zig, name, words, called):
    assert tool(zig, name, *words) == called


def test_a_missing_ziglang_is_named(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text("#!/bin/sh\necho\n")
    (tmp_path / "bin" / "python").chmod(0o755)
    done = subprocess.run(["sh", RELEASE / "zig.sh", tmp_path, "aarch64-linux-musl", tmp_path / "tools"], capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "got no such package" in done.stderr and "pip install ziglang" in done.stderr and not (tmp_path / "tools").exists()


# --- the tag, the headers ------------------------------------------------------------------------------------

@pytest.mark.parametrize("tag, machine", [("manylinux_2_28_aarch64", "aarch64"), ("manylinux_2_28_x86_64", "x86_64")])
def test_auditwheel_is_asked_for_the_wheels_architecture_not_this_machines(tag, machine, tmp_path):
    (tmp_path / "auditwheel").mkdir()
    (tmp_path / "auditwheel" / "__init__.py").write_text("")
    (tmp_path / "auditwheel" / "main.py").write_text("import platform, sys\ndef main():\n    print(platform.machine(), *sys.argv[1:])\n    return 3\n")
    done = subprocess.run([sys.executable, RELEASE / "tag.py", "a.whl", tag, "out"], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.stdout.split() == [machine, "repair", "--plat", tag, "--only-plat", "-w", "out", "a.whl"] and done.returncode == 3


def test_pythons_headers_stand_alone(tmp_path):
    """Debian's pyconfig.h leads to one beside the folder, per architecture: the copy is that one."""
    headers = tmp_path / "include" / "python3.13"
    for name, text in {"python3.13/Python.h": "", "python3.13/pyconfig.h": "# include <x86_64-linux-gnu/python3.13/pyconfig.h>\n# include <aarch64-linux-gnu/python3.13/pyconfig.h>\n",
                       "x86_64-linux-gnu/python3.13/pyconfig.h": "x86", "aarch64-linux-gnu/python3.13/pyconfig.h": "arm"}.items():
        (tmp_path / "include" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "include" / name).write_text(text)
    for architecture, text in (("x86_64", "x86"), ("aarch64", "arm")):
        python_headers.copy(headers, tmp_path / "copy", architecture)
        assert (tmp_path / "copy" / "pyconfig.h").read_text() == text and (tmp_path / "copy" / "Python.h").exists()


@pytest.mark.parametrize("words, said", [(["3.12", "x86_64"], "SPIKINGBRAIN_PYTHONS: got 3.12, expected some of 3.11 3.13"), ([], "got no Python.h")])
def test_headers_that_are_not_to_be_had_are_named(words, said, tmp_path, monkeypatch):
    monkeypatch.setattr(python_headers.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(SystemExit) as error:
        python_headers.main(str(tmp_path / "copy"), *words)
    assert said in sentence(error) and not (tmp_path / "copy").exists()


# --- kernels --------------------------------------------------------------------------------------------------

FULL = "avx avx2 fma f16c avx512f avx512dq avx512bw avx512vl avx512_vnni"


@pytest.mark.parametrize("cpuinfo, name", [
    (f"vendor_id\t: AuthenticAMD\nflags\t\t: {FULL}\n", "zen4"),
    (f"vendor_id\t: GenuineIntel\nflags\t\t: {FULL}\n", "avx512"),
    (f"vendor_id\t: GenuineIntel\nflags\t\t: {FULL.replace('avx512_vnni', '')}\n", "avx2"),  # Skylake-X
    ("vendor_id\t: GenuineIntel\nflags\t\t: avx avx2 fma f16c avx_vnni\n", "avxvnni"),  # Alder Lake
    ("vendor_id\t: GenuineIntel\nflags\t\t: avx avx2 fma f16c\nvmx flags\t: avx512f\n", "avx2"),
    ("vendor_id\t: GenuineIntel\nflags\t\t: avx f16c\n", "generic"),
    ("Features\t: fp asimd asimddp i8mm\n", "i8mm"),
    ("Features\t: fp asimd asimddp\n", "dotprod"),
    ("Features\t: fp asimd\n", "generic"),
])
def test_the_kernels_a_wheel_must_take_on_a_cpu(cpuinfo, name):
    assert kernels.expected(cpuinfo) == name and kernels.usable(cpuinfo)[-1] == "generic"


def test_this_build_takes_the_best_kernels_of_this_cpu():
    env = {name: value for name, value in os.environ.items() if name != "SPIKINGBRAIN_ISA"}
    assert subprocess.run([sys.executable, "-c", kernels.PRINT], env=env, capture_output=True, text=True, check=True).stdout.strip() == kernels.expected()
