"""The demonstration: a plan of runs that goes on where it stopped, and ends in a table and a picture."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")
load_file = pytest.importorskip("safetensors.torch").load_file
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))

import from_transformer as demo  # noqa: E402
from sb_convert import reference  # noqa: E402
from sb_convert.reference import Model  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 32, "vocab_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2,
        "bos_token_id": 509, "eos_token_id": 509}


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    """The same plan with a model that takes no time; a corpus that is there."""
    for name in ("spiked", "rounded_int8"):
        monkeypatch.setattr(reference, name, getattr(reference, name))  # training replaces them for good

    def smaller(start):
        window = {"layers": (1,), "window": 8} if start.layers == demo.HYBRID.layers else {"layers": (0, 1), "window": 16}
        return dataclasses.replace(start, **window)
    small = dataclasses.replace(demo.SMALL, **TINY, attn_layers=(1,), sliding_window=8, head_dim=8, max_position_embeddings=16)
    begins = {"Transformer": dataclasses.replace(small, attn_layers=(0, 1), sliding_window=16), "random": small, "random-half": small}
    begins["Transformer-long"] = begins["Transformer"]
    monkeypatch.setattr(demo, "TRANSFORMER", begins["Transformer"])
    monkeypatch.setattr(demo, "RUNS", tuple(dataclasses.replace(run, start=begins.get(run.name) or smaller(run.start)) for run in demo.RUNS))
    monkeypatch.setattr(demo, "HYBRID", smaller(demo.HYBRID))
    monkeypatch.setattr(demo, "SMALL", small)
    monkeypatch.setattr(demo, "LENGTH", 16)
    monkeypatch.setattr(demo, "EVALUATED", 128)
    tokens = (np.arange(4000) * 7 % 60).astype(np.uint16)
    for name, part in (("train", tokens), ("held_out", tokens[:600])):
        np.save(tmp_path / f"{name}.npy", part)
    (tmp_path / "corpus.json").write_text('{"vocab_size": 512}')
    (tmp_path / "tokenizer").mkdir()
    for path in (ROOT / "examples" / "tiny").iterdir():
        if path.suffix in (".json", ".txt") and path.name != "config.json":
            shutil.copyfile(path, tmp_path / "tokenizer" / path.name)


def test_the_plan_goes_on_where_it_stopped_and_ends_in_table_and_picture(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    options = ["--data", str(tmp_path), "--tokens", str(12 * 4 * 16), "--threads", "1", "--eval-every", "2"]
    with pytest.raises(SystemExit, match="Transformer: the time is over"):
        demo.main([*options, "--minutes", "1e-9"])
    demo.main([*options, "--only", "Transformer"])
    rows = demo.results(tmp_path)
    assert list(rows) == ["Transformer"] and rows["Transformer"]["tokens"] == 12 * 4 * 16
    demo.main(options)
    rows = demo.results(tmp_path)
    assert set(rows) == {run.name for run in demo.RUNS} and len((tmp_path / "results.jsonl").read_text().splitlines()) == len(demo.RUNS)
    assert rows["H"]["tokens"] == 3 * 4 * 16 and rows["H"]["start"]["attention_error"] > 0 and rows["random"]["start"] is None
    first, on = rows["Transformer"], rows["Transformer-long"]
    assert on["tokens_before"] == first["tokens"] and on["curve"][0] == [0, first["curve"][-1][1]]
    assert abs(on["curve"][1][1] / first["curve"][-1][1] - 1) < abs(on["curve"][1][1] / first["curve"][0][1] - 1)  # it begins with those weights
    for made, of in (("H", "Transformer"), ("H-long", "Transformer-long")):
        ours, base = (load_file(tmp_path / folder / "model.safetensors") for folder in (f"{made}/brain", f"{of}/checkpoint"))
        assert torch.equal(ours["model.embeddings.weight"], base["model.embed_tokens.weight"])
    assert (tmp_path / "from_transformer.png").read_bytes()[:4] == b"\x89PNG"
    assert "| H+M+S |" in capsys.readouterr().out
    assert Model.from_pretrained(tmp_path / "H+M+S" / "checkpoint").config.num_local_experts == 4
    assert json.loads((tmp_path / "Transformer" / "checkpoint" / "config.json").read_text())["model_type"] == "qwen2"


def test_the_page_shows_the_rows_that_are_kept():
    rows = demo.results(ROOT / "examples" / "from_transformer")
    assert demo.table(rows) in (ROOT / "examples" / "README.md").read_text()
    assert [*rows] == [run.name for run in demo.RUNS]
    assert rows["random"]["tokens"] / rows["H"]["tokens"] == pytest.approx(4, rel=1e-3)
    assert rows["random"]["tokens"] / rows["random-half"]["tokens"] == pytest.approx(2, rel=1e-3)
    eighth = next(tokens for tokens, ppl in rows["H-long"]["curve"] if ppl < rows["random"]["perplexity"]) / rows["random"]["tokens"]
    assert eighth == pytest.approx(1 / 8, abs=0.01) and rows["H-long"]["perplexity"] < rows["Transformer-long"]["perplexity"]


def test_rows_come_in_the_plans_order_and_none_is_left_out(tmp_path):
    (tmp_path / "results.jsonl").write_text("".join(json.dumps({"run": name}) + "\n" for name in ("of another plan", "random", "H")))
    assert [*demo.results(tmp_path)] == ["H", "random", "of another plan"]


def test_a_run_whose_beginning_is_not_there_is_refused(tmp_path):
    for name, of in (("H", "Transformer"), ("Transformer-long", "Transformer"), ("H-long", "Transformer-long")):
        with pytest.raises(SystemExit, match=f"{name}: it begins with the end of {of}: got no row of that run"):
            demo.main(["--data", str(tmp_path), "--only", name])
    (tmp_path / "results.jsonl").write_text('{"run": "Transformer"}\n')
    with pytest.raises(SystemExit, match="Transformer/checkpoint: base: got no such folder"):
        demo.main(["--data", str(tmp_path), "--only", "H"])


def test_a_device_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="--device: nowhere: got .*, expected a device of this machine; give --device cpu"):
        demo.main(["--data", str(tmp_path), "--device", "nowhere"])


@pytest.mark.parametrize(("options", "words"), [
    (("--tokens", "0"), "--tokens: value: got 0.0, expected 256 to"), (("--tokens", "nan"), "--tokens: value: got nan"), (("--threads", "0"), "--threads: value: got 0"), (("--eval-every", "0"), "--eval-every: value: got 0"),
    (("--minutes", "nan"), "--minutes: value: got nan"), (("--micro", "0"), "--micro: value: got 0"), (("--lr", "-1"), "--lr: value: got -1.0"), (("--match", "2"), "--match: value: got 2.0")])
def test_a_value_that_no_run_can_have_is_refused_before_the_first(tmp_path, options, words):
    with pytest.raises(SystemExit, match=words):
        demo.main(["--data", str(tmp_path), *options])
    assert not (tmp_path / "Transformer").exists()


def test_speed_is_measured_of_a_published_shape(monkeypatch, capsys):
    import train_speed
    tiny = {**train_speed.SHAPES["Qwen2.5-0.5B"], "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 64}
    monkeypatch.setitem(train_speed.SHAPES, "Qwen2.5-0.5B", tiny)
    train_speed.main(["--device", "cpu", "--lengths", "16", "32", "--tokens", "64", "--micro", "32", "--piece", "16", "--steps", "2", "--spikes"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["length"], row["spikes"]) for row in rows] == [(16, False), (16, True), (32, False), (32, True)]
    assert all(row["tokens_per_s"] > 0 and row["device"] == "cpu" for row in rows)
    with pytest.raises(SystemExit, match="--piece: value: got 0"):
        train_speed.main(["--device", "cpu", "--lengths", "16", "--piece", "0"])
    with pytest.raises(SystemExit):
        train_speed.main(["--steps", "1"])
    assert "--steps, --lengths: got 1 and " in capsys.readouterr().err


# --- the page: base checkpoint to text ---------------------------------------------------------------------------

def readme_commands() -> list[str]:
    """Those of examples/README.md that are not marked as not run."""
    page = (ROOT / "examples" / "README.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", page[page.index("## From a Transformer"):], re.S)
    return [line for line in blocks[0].splitlines() if line.startswith("sb-")]


def test_every_command_of_the_page_runs(tmp_path):
    """On a tiny base, with fewer and shorter steps."""
    config = dataclasses.replace(demo.SMALL, **{**TINY, "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}, attn_layers=(0, 1), sliding_window=512,
                                 max_position_embeddings=512, head_dim=32)
    demo.save_transformer(demo.Trainer(config, demo.Recipe(steps=1, threads=1)).model, tmp_path / "base", tmp_path / "tokenizer")
    (tmp_path / "text.txt").write_text("".join(f"line {i * 7 % 97}: the value of item_{i} is {i ** 2}\n" for i in range(300)))
    commands = readme_commands()
    assert [c.split()[0] for c in commands] == ["sb-init", "sb-train", "sb-convert", "sb-cli"]
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    for line in commands:
        line = re.sub(r"--steps \d+ --length \d+ --batch \d+", "--steps 3 --length 64 --batch 2 --threads 1", line)
        line = line.replace(" -n 50", " -n 4 -t 1 --temp 0 --simple-io")
        done = subprocess.run(line, shell=True, cwd=tmp_path, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{line}: {done.stdout[-1000:]}{done.stderr[-1000:]}"
    assert "To install a package" in done.stdout
