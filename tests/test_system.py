"""sb_convert.system on systems that are not this one: CPUs, signals, folders, and commands without exec."""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import stat
import struct
import sys
from pathlib import Path

import pytest

from sb_convert import command, system, whole
from sb_convert.errors import ConvertError
from sb_convert.plan import n_threads


def elsewhere(monkeypatch: pytest.MonkeyPatch, logical: int | None, cores: int | None) -> None:
    """A system without sched_getaffinity."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: logical)
    monkeypatch.setattr(system, "_cores", lambda: cores)


@pytest.mark.parametrize("logical, cores, want", [(16, 8, 8), (8, 8, 8), (4, 8, 4), (16, None, 16), (None, None, 1), (1024, 768, 512)])
def test_threads_are_physical_cores_where_no_affinity_is_told(monkeypatch: pytest.MonkeyPatch, logical: int | None, cores: int | None, want: int) -> None:
    elsewhere(monkeypatch, logical, cores)
    assert system.threads() == want and n_threads() == min(8, want)


# name of a file under /sys/fs/cgroup -> its text; /proc/self/cgroup; CPUs' worth of time
GROUPS = [
    ({}, "0::/\n", None),
    ({"cpu.max": "max 100000\n"}, "0::/\n", None),
    ({"cpu.max": "200000 100000\n"}, "0::/\n", 2),
    ({"cpu.max": "150000 100000\n"}, "0::/\n", 2),
    ({"cpu.max": "5000 100000\n"}, "0::/\n", 1),
    ({"a.slice/cpu.max": "300000 100000\n", "a.slice/b/cpu.max": "max 100000\n"}, "0::/a.slice/b\n", 3),  # the group around counts, too
    ({"a.slice/cpu.max": "300000 100000\n", "a.slice/b/cpu.max": "100000 50000\n", "cpu.max": "max 100000\n"}, "0::/a.slice/b\n", 2),
    ({"cpu.max": "400000 100000\n"}, "0::/named/outside\n", 4),  # a container's root
    ({"cpu,cpuacct/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, "5:cpuset:/\n4:cpu,cpuacct:/docker/f00\n", 3),
    ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "1:cpu:/\n0::/\n", None),
    ({"memory/cpu.max": "100000 100000\n"}, "4:memory:/\n", None),
    ({"cpu.max": "100000 0\n"}, "0::/\n", None), ({"cpu.max": "what\n"}, "0::/\n", None), ({"cpu.max": ""}, "0::/\n", None),
    ({"cpu.max": "100000 100000\n"}, "no colons\n", None), ({"cpu.max": "100000 100000\n"}, "", None), ({"cpu.max": "100000 100000\n"}, None, None),
]


@pytest.mark.parametrize("files, listed, want", GROUPS)
def test_the_time_that_a_container_is_left_counts_as_cpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, str], listed: str | None, want: int | None) -> None:
    for name, text in files.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(text)
    if listed is not None:
        (tmp_path / "listed").write_text(listed)
    monkeypatch.setattr(system, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(system, "OWN_CGROUPS", tmp_path / "listed")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert system._quota() == want and system.cpus() == system.threads() == (want or 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(1024)))
    assert (system.cpus(), system.threads()) == ((want, want) if want else (1024, 512))


@pytest.mark.parametrize("machine, allowed, cores, want", [(8, 8, 8, None), (8, 8, 4, None), (16, 4, 4, 4), (16, 4, 2, 2), (16, 4, None, 4)])
def test_a_program_that_counts_by_itself_is_told_where_that_is_wrong(
        monkeypatch: pytest.MonkeyPatch, machine: int, allowed: int, cores: int | None, want: int | None) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: machine)
    monkeypatch.setattr(system, "cpus", lambda: allowed)
    monkeypatch.setattr(system, "_allowed_cores", lambda: cores)
    assert system.threads_if_limited() == want


@pytest.mark.parametrize("allowed, want", [({0}, 1), ({0, 2}, 1), ({0, 1}, 2), ({0, 1, 2, 3}, 2), ({0, 9}, None)])
def test_cores_are_those_of_the_cpus_it_may_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, allowed: set[int], want: int | None) -> None:
    for cpu, siblings in enumerate(("5", "a", "5", "a")):
        (tmp_path / f"cpu{cpu}" / "topology").mkdir(parents=True)
        (tmp_path / f"cpu{cpu}" / "topology" / "thread_siblings").write_text(f"{siblings}\n")
    monkeypatch.setattr(system, "CPUS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: allowed, raising=False)
    assert system._allowed_cores() == want


def test_cpus_of_windows_are_those_of_its_affinity_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(monkeypatch, 16, 8)
    monkeypatch.setattr(system, "_windows_cpus", lambda: 3)
    assert (system.cpus(), system.threads()) == (3, 3)


def test_cores_are_one_record_each_whatever_its_size() -> None:
    assert system.count_records(b"".join(struct.pack("<II", 0, size) + bytes(size - 8) for size in (48, 48, 64))) == 3
    assert system.count_records(b"") == 0
    with pytest.raises(ValueError, match="without a size"):
        system.count_records(bytes(16))


def test_a_system_that_does_not_tell_its_cores_has_those_that_python_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system.sys, "platform", "darwin")
    monkeypatch.setattr(system, "_sysctl", lambda name: {"hw.physicalcpu": 6}.get(name))
    assert system._cores() == 6  # Intel's, without performance levels
    monkeypatch.setattr(system.ctypes, "CDLL", lambda _: (_ for _ in ()).throw(OSError("no such library")))
    monkeypatch.undo()
    assert system._cores() is None or system.WINDOWS or system.sys.platform == "darwin"


def test_a_folder_marked_read_only_on_windows_takes_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert system.is_locked_away(stat.S_IFDIR | 0o555, tmp_path)
    monkeypatch.setattr(system, "WINDOWS", True)
    assert not system.is_locked_away(stat.S_IFDIR | 0o555, tmp_path)


def test_what_is_open_is_closed_before_it_is_removed_on_windows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(whole, "fcntl", None)
    unlink = Path.unlink
    order: list[str] = []
    with whole.WholeFiles() as files:
        file = files.begin(str(tmp_path / "new"))
        file.write(b"half")
        monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: (order.append(f"closed: {file.closed}"), unlink(path, missing_ok))[1])
    assert order == ["closed: True"] and not list(tmp_path.iterdir())


def test_a_reader_that_went_is_known_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    broken, invalid, of_file = BrokenPipeError(errno.EPIPE, "gone"), OSError(errno.EINVAL, "invalid"), OSError(errno.EINVAL, "invalid", "file")
    assert [system.is_closed_pipe(e) for e in (broken, invalid, of_file)] == [True, False, False]
    monkeypatch.setattr(system, "WINDOWS", True)
    assert [system.is_closed_pipe(e) for e in (broken, invalid, of_file)] == [True, True, False]


def test_a_command_waits_for_its_program_where_exec_would_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran: list[object] = []
    monkeypatch.setattr(system, "WINDOWS", True)
    monkeypatch.setattr(system.signal, "signal", lambda number, handler: ran.append((number.name, handler)))
    monkeypatch.setattr(system, "run", lambda path, argv: ran.append((path.name, argv)) or 7)
    with pytest.raises(SystemExit) as ended:
        system.become(system.program(tmp_path / "llama-cli"), ["sb-cli", "-m", "a b"])
    assert ended.value.code == 7 and ran == [("SIGINT", system.signal.SIG_IGN), ("llama-cli.exe", ["sb-cli", "-m", "a b"])]


def test_no_module_asks_one_system_only() -> None:
    """What Windows or macOS lack is asked for in system.py, or where its absence is looked at."""
    root = Path(__file__).resolve().parents[1]
    for folder in ("converter/sb_convert", "bindings/spikingbrain_cpp"):
        for path in (root / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            for word in ("sched_getaffinity", "/proc/", "signal.SIGHUP", "os.execv", "os.fork(", "os.fsync(part", "os.sysconf", "os.getuid", "import resource"):
                assert word not in text or path.name == "system.py", f"{path.name}: {word}"


def test_no_number_of_ours_is_a_long() -> None:
    """32 bits on Windows, 64 elsewhere."""
    root = Path(__file__).resolve().parents[1]
    for folder in ("cpp_backend/overlay", "cpp_backend/runtime", "bindings"):
        for path in (p for p in (root / folder).rglob("*") if p.suffix in (".c", ".cpp", ".h")):
            code = re.sub(r"//.*|\"[^\"]*\"", "", path.read_text(encoding="utf-8"))
            assert not re.search(r"(?<!long )\blong\b(?! long)|\b[0-9]+U?L\b", code), f"{path.name}: do name a number of a known size, such as int64_t"


def test_what_has_been_run_where_is_what_the_tests_say() -> None:
    root = Path(__file__).resolve().parents[1]
    spec = importlib.util.spec_from_file_location("desktop_run_table", root / "desktop" / "run_table.py")
    assert spec and spec.loader
    table = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = table
    spec.loader.exec_module(table)
    for path, text in table.made().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: do run python desktop/run_table.py --write"


@pytest.mark.parametrize(("raised", "code", "said"), [
    (ConvertError("x: y: got z, expected w; do v"), 1, "sb-any: x: y: got z"), (MemoryError(), 1, "sb-any: out of memory"),
    (FileNotFoundError(2, "No such file", "in"), 1, "sb-any: in: file: got No such file, expected it to be readable"),
    (KeyboardInterrupt(), 130, "sb-any: interrupted; nothing was written"), (KeyboardInterrupt("half"), 130, "sb-any: interrupted; half")])
def test_every_command_ends_alike(capsys: pytest.CaptureFixture[str], raised: BaseException, code: int, said: str) -> None:
    def run() -> int:
        raise raised

    assert command.exit_code("sb-any", run, "where") == code
    assert capsys.readouterr().err.startswith(said)
