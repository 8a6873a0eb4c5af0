"""The real lm_eval: its command line on tasks made here gives what the model says; sb-server gives the same to local-completions.

`make test-eval` runs it; nothing is downloaded.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SMALL = ROOT / "examples" / "small"
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import local_tasks  # noqa: E402
from running_server import Server  # noqa: E402

from bench import quality as command  # noqa: E402
from bench.measure import quality  # noqa: E402
from spikingbrain_cpp import Llama  # noqa: E402

pytest.importorskip("lm_eval")
TASKS = ",".join(local_tasks.NAMES)
LENGTH = 512


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eval")
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_HOME=str(folder / "hub"))
    return folder


@pytest.fixture(scope="module")
def model(work):
    return quality.converted(SMALL, work / "small.gguf", "--outtype", "f32")


@pytest.fixture(scope="module")
def spiking(work):
    return quality.converted(SMALL, work / "spiking.gguf", "--outtype", "int8", "--spike")


@pytest.fixture(scope="module")
def text(model):
    """Two windows, to the token."""
    with Llama(model, vocab_only=True) as llm:
        ids = llm.tokenize((ROOT / "README.md").read_text(), special=True)[:2 * LENGTH]
        found = llm.detokenize(ids).decode("utf-8")
        assert llm.tokenize(found, special=True) == ids
    return found


@pytest.fixture(scope="module")
def tasks(work, text):
    return local_tasks.write(work / "tasks", text, "\n\n".join(path.read_text() for path in sorted(ROOT.glob("*/README.md"))))


def sb_eval(work: Path, tasks: Path, name: str, *arguments: object, program: str = "sb-eval") -> tuple[dict, dict[str, list[dict]], str]:
    """(results, samples of each task, log) of one run."""
    out = work / name
    done = subprocess.run([BIN / program, *map(str, arguments), "--include_path", tasks, "--output_path", out, "--log_samples"],
                          capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(next(out.rglob("results_*.json")).read_text())["results"]
    samples = {task: [json.loads(line) for line in next(out.rglob(f"samples_{task}_*.jsonl")).read_text().splitlines()] for task in results}
    return results, samples, done.stdout + done.stderr


def model_args(path: Path, **more: object) -> str:
    return ",".join(f"{k}={v}" for k, v in {"pretrained": path, "n_threads": 1, "n_threads_batch": 1, **more}.items())


@pytest.fixture(scope="module")
def run(work, tasks, model):
    return sb_eval(work, tasks, "own", "--model_args", model_args(model, max_length=LENGTH), "--tasks", TASKS, "--use_cache", work / "cache")


def test_the_perplexity_is_our_own(run, model, text):
    """To 0.01%: the harness's of the text, and bench/measure/quality.py's of the same rows."""
    with Llama(model, vocab_only=True) as llm:
        ids = np.array([llm.token_eos(), *llm.tokenize(text, special=True)])
    loss, _ = quality.predictions(model, *quality.rows_of(ids), 1, "own")
    mine = math.exp(loss * 2 * LENGTH / len(text.encode()))
    assert run[0]["local_text"]["byte_perplexity,none"] == pytest.approx(mine, rel=1e-4)


def test_cloze_choice_and_answer_are_the_models(run, model):
    results, samples, _ = run
    with Llama(model, logits_all=True, n_threads=1, n_threads_batch=1) as llm:
        def score(context: str, continuation: str) -> tuple[float, bool]:
            before, ids = (llm.tokenize(t, special=True) for t in (context, context + continuation))
            llm.reset()
            llm.eval(ids[:-1])
            rows = llm.scores[len(before) - 1:].astype(np.float64)
            best, own = rows.argmax(1), np.array(ids[len(before):])
            return float((rows[np.arange(len(own)), own] - np.log(np.exp(rows - rows.max(1, keepdims=True)).sum(1)) - rows.max(1)).sum()), bool((best == own).all())

        cloze = [score(s["doc"]["context"], " " + s["doc"]["word"]) for s in samples["local_cloze"]]
        assert [float(s["resps"][0][0][0]) for s in samples["local_cloze"]] == pytest.approx([p for p, _ in cloze], abs=1e-3)
        assert results["local_cloze"]["acc,none"] == pytest.approx(np.mean([greedy for _, greedy in cloze]))
        for sample in samples["local_choice"][:3]:
            for i, (reply,) in enumerate(sample["resps"]):
                context, continuation = (sample["arguments"][f"gen_args_{i}"][f"arg_{j}"] for j in (0, 1))
                assert context.count("\n\n") == 2  # two examples before it
                assert float(reply[0]) == pytest.approx(score(context, continuation)[0], abs=1e-3)
        for sample in samples["local_answer"]:
            want = llm(sample["doc"]["context"], temperature=0, max_tokens=8, stop=["\n", "."])["choices"][0]["text"]
            assert sample["resps"][0][0] == want


def test_a_second_run_computes_nothing(run, work, tasks, model):
    again = sb_eval(work, tasks, "again", "--model_args", model_args(model, max_length=LENGTH), "--tasks", TASKS, "--use_cache", work / "cache")
    assert again[0] == run[0] and again[2].count("Requests remaining: 0") == 3


def test_a_chat_template_is_applied(work, tasks, model):
    _, samples, _ = sb_eval(work, tasks, "chat", "--model_args", model_args(model), "--tasks", "local_answer,local_choice", "--apply_chat_template", "--limit", 2)
    for task, n in (("local_answer", 1), ("local_choice", 3)):
        prompt = samples[task][0]["arguments"]["gen_args_0"]["arg_0"]
        assert prompt.count("<|im_start|>user") == n and prompt.endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize("arguments, words", [
    (("--model_args", "pretrained=none.gguf"), "sb-eval: llama: model_path: got none.gguf"),
    (("--model_args", "pretrained=none.gguf,dtype=bf16"), "sb-eval: eval: model_args: dtype: got an argument that does not exist"),
    ((), "sb-eval: eval: model_args: pretrained"),
])
def test_what_the_model_does_not_know_is_one_sentence(tasks, arguments, words):
    done = subprocess.run([BIN / "sb-eval", "--tasks", "local_cloze", "--include_path", tasks, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(words), done.stderr[-2000:]


@pytest.mark.parametrize("tokens", [True, False], ids=["token ids", "text"])
def test_sb_server_gives_local_completions_the_same(run, work, tasks, model, tokens):
    pytest.importorskip("transformers")
    pytest.importorskip("tenacity")
    with Server(model, work / "server.log", "-c", 4096, "-np", 2) as server:
        args = f"model=small,base_url={server.url}/v1/completions,tokenizer_backend=huggingface,tokenizer={SMALL},tokenized_requests={tokens},max_length=2048,num_concurrent=1"
        results, samples, _ = sb_eval(work, tasks, f"server-{tokens}", "--model", "local-completions", "--model_args", args, "--batch_size", 3, "--tasks", TASKS,
                                      program="lm_eval")
    for task in ("local_cloze", "local_choice"):
        for own, other in zip(run[1][task], samples[task]):
            for (a,), (b,) in zip(own["resps"], other["resps"]):
                assert float(b[0]) == pytest.approx(float(a[0]), abs=2e-3) and a[1] == b[1]
        assert results[task]["acc,none"] == run[0][task]["acc,none"]
    assert [s["resps"] for s in samples["local_answer"]] == [s["resps"] for s in run[1]["local_answer"]]
    longer = sb_eval(work, tasks, "longer", "--model_args", model_args(model, max_length=2048), "--tasks", "local_text")
    assert results["local_text"]["byte_perplexity,none"] == pytest.approx(longer[0]["local_text"]["byte_perplexity,none"], rel=1e-4)


def test_tasks_over_k_are_rows(work, tasks, spiking, capsys):
    out = work / "rows.jsonl"
    call = [str(spiking), "--tasks", "local_choice:acc_norm,local_cloze", "--k", "off,1,4", "--include-path", str(tasks), "--out", str(out), "-t", "1"]
    command.main(call)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["k"] for row in rows] == [None, 1.0, 4.0]
    assert all(row["average"] == pytest.approx((row["scores"]["local_choice:acc_norm"] + row["scores"]["local_cloze"]) / 2) for row in rows)
    assert rows[1]["sparsity"] > rows[2]["sparsity"] > 0 and "sparsity" not in rows[0]
    before = out.read_text()
    command.main(call)
    assert out.read_text() == before and "| k = 4 |" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="tasks: got"):
        command.main([*call[:2], "local_cloze", *call[3:]])
    with pytest.raises(SystemExit, match="got local_text, expected a metric of local_text: word_perplexity, .*; write local_text:METRIC"):
        command.main([*call[:2], "local_text", *call[3:-4], "--out", str(work / "other.jsonl")])
    assert not (work / "other.jsonl").exists()
