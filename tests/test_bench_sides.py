"""Sides of the benchmark suite: settings that engines have, caches of either type, ik_llama.cpp's own driver where it was built here."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from test_bench_driver import driver, models, player  # noqa: F401 (fixtures)

from bench import shapes
from bench.cases import Player
from bench.errors import BenchError
from bench.measure import build, machine, session
from bench.measure.driver import Driver
from bench.shapes import LLAMA_1B, SPIKING_1B, tiny
from bench.sides import SIDES


def test_outliers_lie_in_the_norms_of_layers_and_models_with_them_decode(models: session.Models, driver: Driver) -> None:
    import gguf

    p = Player(dataclasses.replace(tiny(SPIKING_1B), name="outliers", outliers=8), spikes=True)
    path, _ = models.get(p)
    norms = {t.name: t.data for t in gguf.GGUFReader(path).tensors if t.name.endswith("norm.weight")}
    assert {name: int((data > 1).sum()) for name, data in norms.items() if "attn_norm" in name or "ffn_norm" in name} == {
        f"blk.{i}.{n}_norm.weight": 8 for i in range(2) for n in ("attn", "ffn")} and norms["output_norm.weight"].max() == 1
    driver.ask("load", path=str(path))
    driver.ask("context", n_ctx=64, n_threads=1, n_batch=32)
    assert len(driver.ask("decode", n=2)["seconds"]) == 2


@pytest.mark.parametrize("kv", ["f16", "q8_0"])
def test_a_cache_of_either_type_is_filled_and_counted(models: session.Models, driver: Driver, kv: str) -> None:
    driver.ask("load", path=str(models.get(player("Llama-3.2-1B"))[0]), settings={"flash_attn": True, "kv": kv})
    opened = driver.ask("context", n_ctx=512, n_threads=1, unified=True)
    shape = tiny(LLAMA_1B)
    assert opened["state_bytes"] == shapes.state_bytes_per_token(shape, opened["n_ctx"], kv=kv)
    driver.ask("fill", depth=300)
    assert driver.ask("decode", n=2)["seconds"] and driver.ask("position")["next"] == 302


@pytest.mark.parametrize("settings, message", [({"repack": True}, "repack"), ({"kv": "q2_k"}, "q2_k"), ({"nonsense": 1}, "nonsense")])
def test_settings_that_an_engine_has_not_are_refused(models: session.Models, driver: Driver, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchError, match=f"settings.*{message}"):
        driver.ask("load", path=str(models.get(player("Llama-3.2-1B"))[0]), settings=settings)


@pytest.mark.parametrize("huge", [False, True])
def test_reads_go_on_for_as_long_as_decoding_is_timed(driver: Driver, huge: bool) -> None:
    read = driver.ask("read", threads=1, bytes=1 << 20, seconds=0.2, huge=huge)
    assert read["bytes"] == 1 << 20 and len(read["seconds"]) > 1 and sum(read["seconds"]) > 0.2 > sum(read["seconds"][:-1])


@pytest.mark.parametrize("setting", SIDES["ik"].settings)
@pytest.mark.parametrize("type_", ["q4_0", "q8_0"])
def test_ik_decodes_after_a_filled_context_at_every_setting(models: session.Models, setting: str, type_: str) -> None:
    program = build.WORK / "ik" / "build" / "sb-bench-driver"
    if not program.is_file():
        pytest.skip("ik_llama.cpp has not been built here (python -m bench build ik)")
    side = SIDES["ik"]
    with Driver(program, "ik", env=side.environment(machine.cpus())) as d:
        d.ask("load", path=str(models.get(player("Llama-3.2-1B", type_))[0]), settings=side.settings[setting])
        d.ask("context", n_ctx=2048, n_threads=1, n_batch=64, unified=True)
        d.ask("fill", depth=1000, piece=400)
        assert len(d.ask("decode", n=2, back=True)["seconds"]) == 2 and d.ask("position")["next"] == 1000
        assert len(d.ask("prefill", n=100)["seconds"]) == 2 and d.ask("position")["next"] == 100


def test_every_side_names_a_pinned_source_and_threads_for_its_driver() -> None:
    for side in SIDES.values():
        assert "==" in build.pin(side.lock) and "--hash=sha256:" in side.lock.read_text()
        assert side.environment([2, 0])["SPIKINGBRAIN_BENCH_CPUS"] == "2,0"
    assert SIDES["ik"].environment([2, 0])["OMP_PLACES"] == "{2},{0}"
