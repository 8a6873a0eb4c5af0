"""Every shipped tool works on a `spikingbrain` GGUF, and none stops where a model with an n_ctx would.

The model is the example checkpoint with a trained length of 64 written into it: whatever goes beyond 64 tokens here
shows that this length stops nothing. Servers listen on localhost only; every wait is bounded.
"""

from __future__ import annotations

import json
import math
import re
import resource
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from running_server import Server

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
TRAINED = 64      # context_length in the GGUF
N_CTX = 1 << 30   # what the fork reports instead: no bound
TEXT = (ROOT / "examples" / "make_example.py").read_text().split('"""')[3] if (ROOT / "examples" / "make_example.py").exists() else ""

pytestmark = pytest.mark.skipif(not (BIN / "sb-server").exists(), reason="the package is not installed: run make build")


def tool(name: str, *args: object, ok: bool = True, timeout: int = 300, **kw) -> subprocess.CompletedProcess:
    result = subprocess.run([str(BIN / name), *map(str, args)], stdin=subprocess.DEVNULL, capture_output=True,
                            timeout=timeout, **kw)
    result.stdout, result.stderr = (s.decode("utf-8", "replace") for s in (result.stdout, result.stderr))
    assert not ok or result.returncode == 0, f"{name}: exit code {result.returncode}\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}"
    return result


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("tools")


@pytest.fixture(scope="session")
def model(folder) -> Path:
    """F32, so that batches of different shapes agree closely enough for greedy text to be compared."""
    checkpoint = folder / "checkpoint"
    shutil.copytree(ROOT / "examples" / "tiny", checkpoint)
    config = json.loads((checkpoint / "config.json").read_text())
    config["max_position_embeddings"] = TRAINED
    (checkpoint / "config.json").write_text(json.dumps(config))
    tool("sb-convert", checkpoint, "-o", folder / "f32.gguf", "--outtype", "f32")
    return folder / "f32.gguf"


@pytest.fixture(scope="session")
def corpus(folder) -> Path:
    path = folder / "corpus.txt"
    path.write_text(TEXT * 2)
    return path


def perplexity(model: Path, corpus: Path, n_ctx: int = 128, *extra: object) -> float:
    out = tool("sb-perplexity", "-m", model, "-f", corpus, "-c", n_ctx, "-t", 1, *extra)
    found = re.search(r"Final estimate: PPL = ([0-9.]+)", out.stdout + out.stderr)
    assert found, out.stdout + out.stderr
    return float(found[1])


# --- the server -----------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def server(model, folder):
    with Server(model, folder / "server.log", "--slot-save-path", str(folder) + "/") as s:
        yield s


def test_server_has_four_slots_without_a_bound(server):
    props = server.get("/props")
    assert props["total_slots"] == 4
    assert props["default_generation_settings"]["n_ctx"] == N_CTX


def test_server_generates_beyond_the_trained_length(server):
    answer = server.complete("the lighthouse", 4 * TRAINED)
    assert len(answer["tokens"]) == 4 * TRAINED and answer["stop_type"] == "limit" and not answer["truncated"]


def test_server_takes_a_prompt_beyond_the_trained_length(server):
    answer = server.complete(TEXT, 4)
    assert answer["timings"]["prompt_n"] + answer["timings"]["cache_n"] > 4 * TRAINED and len(answer["tokens"]) == 4


def test_four_slots_in_parallel_write_what_each_writes_alone(server):
    prompts = ["the lighthouse keeper", "int main(void)", "The model reads one token", "Nobody knows"]
    alone = [server.complete(p, 80, cache_prompt=False)["tokens"] for p in prompts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda p: server.complete(p, 80, cache_prompt=False)["tokens"], prompts))
    assert together == alone


def test_next_turn_evaluates_the_new_tokens_only(server):
    prompt = server.post("/tokenize", content=TEXT[:600])["tokens"]
    new = server.post("/tokenize", content=" And then? The ships came home.")["tokens"]
    first = server.complete(prompt, 30, id_slot=1)
    history = prompt + first["tokens"]
    second = server.complete(history + new, 30, id_slot=1)
    # the last token sampled in the first turn was never evaluated
    assert second["timings"]["cache_n"] == len(history) - 1
    assert second["timings"]["prompt_n"] == len(new) + 1
    cold = server.complete(history + new, 30, cache_prompt=False)
    assert cold["timings"]["cache_n"] == 0 and cold["tokens"] == second["tokens"]


def test_editing_the_last_message_restores_a_checkpoint(server):
    start = [{"role": "user", "content": TEXT[:900]}, {"role": "assistant", "content": TEXT[900:1200]}]
    server.chat([*start, {"role": "user", "content": "What is silent?"}], id_slot=2)
    edited = [*start, {"role": "user", "content": "Who kept the light after him, and what did she write?"}]
    warm = server.chat(edited, id_slot=2)
    assert warm["timings"]["cache_n"] > warm["timings"]["prompt_n"] > 0
    cold = server.chat(edited, cache_prompt=False)
    assert cold["timings"]["cache_n"] == 0
    assert warm["choices"][0]["message"]["content"] == cold["choices"][0]["message"]["content"] != ""


def test_asking_again_evaluates_nothing(server):
    """The prompt is a prefix of what the slot holds: its end was kept, with the logits there."""
    prompt = server.post("/tokenize", content=TEXT[300:1100])["tokens"]
    first = server.complete(prompt, 30, id_slot=0)
    again = server.complete(prompt, 30, id_slot=0)
    assert again["tokens"] == first["tokens"] and again["timings"]["prompt_n"] == 0


def test_a_slot_keeps_its_conversation_while_others_are_served(server):
    """Upstream's default moves idle slots away whenever a request begins; here each has memory of its own."""
    tokens = server.post("/tokenize", content=TEXT)["tokens"]
    prompts = [tokens[i * 90:i * 90 + 300] for i in range(3)]
    for i, prompt in enumerate(prompts):
        server.complete(prompt, 10, id_slot=i)
    for i, prompt in enumerate(prompts):
        assert server.complete(prompt, 10, id_slot=i)["timings"]["prompt_n"] == 0


def test_more_conversations_than_slots_come_back_from_the_prompt_cache(server):
    tokens = server.post("/tokenize", content=TEXT)["tokens"]
    histories = [tokens[i * 90:i * 90 + 80] for i in range(7)]
    for i, history in enumerate(histories):
        histories[i] = history + server.complete(history, 10)["tokens"] + [5, 6, 7]
    for history in histories:
        warm, cold = server.complete(history, 20), server.complete(history, 20, cache_prompt=False)
        assert warm["tokens"] == cold["tokens"]
        assert warm["timings"]["cache_n"] == len(history) - 4  # three new tokens and the last one sampled


def test_a_slot_saved_to_a_file_is_worth_something_in_a_new_process(server, model, folder):
    prompt = server.post("/tokenize", content=TEXT[:800])["tokens"]
    first = server.complete(prompt, 20, id_slot=3)
    saved = server.post("/slots/3?action=save", filename="slot.bin")
    assert saved["n_saved"] == len(prompt) + 19
    history = prompt + first["tokens"]
    warm = server.complete(history + prompt[:5], 20, id_slot=3)
    with Server(model, folder / "second.log", "--slot-save-path", str(folder) + "/", "-np", 1) as second:
        assert second.post("/slots/0?action=restore", filename="slot.bin")["n_restored"] == saved["n_saved"]
        restored = second.complete(history + prompt[:5], 20, id_slot=0)
    assert restored["timings"]["cache_n"] == len(history) - 1
    assert restored["tokens"] == warm["tokens"]


def test_several_answers_to_one_prompt_share_its_evaluation(server):
    answer = server.complete("the weather, the tide", 40, n_cmpl=3)
    assert [a["tokens"] for a in answer] == [answer[0]["tokens"]] * 3


def test_separate_caches_per_slot_have_no_bound_either(model, folder):
    with Server(model, folder / "split.log", "-np", 4, "--no-kv-unified") as s:
        assert s.get("/props")["default_generation_settings"]["n_ctx"] > 1 << 27
        assert len(s.complete("the tide", 2 * TRAINED)["tokens"]) == 2 * TRAINED


def test_a_bound_the_user_gives_is_kept(model, folder):
    with Server(model, folder / "bound.log", "-c", 256, "-np", 1) as s:
        answer = s.complete("the tide", 1000)
        assert answer["stop_type"] == "limit" and answer["truncated"] and len(answer["tokens"]) < 256


# --- one-shot tools ---------------------------------------------------------------------------------------------

def test_cli_answers_once_and_exits(model):
    out = tool("sb-cli", "-m", model, "-p", "What is silent?", "-n", 3 * TRAINED, "-st", "--temp", 0, "--ignore-eos", "-t", 1)
    assert len(out.stdout) > 3 * TRAINED and "context" not in out.stderr.lower()


def complete(model: Path, *args: object, **kw) -> str:
    return tool("sb-completion", "-m", model, "-no-cnv", "--temp", 0, "--ignore-eos", "-t", 1, "--no-display-prompt", *args, **kw).stdout


def test_completion_goes_beyond_the_trained_length_as_the_server_does(model, server):
    text = complete(model, "-p", "the lighthouse", "-n", 3 * TRAINED)
    assert text.strip() == server.complete("the lighthouse", 3 * TRAINED, cache_prompt=False)["content"].strip()


def test_completion_resumes_a_session_in_little_memory(model, folder):
    """Upstream sizes a buffer by n_ctx here: 4 GiB when n_ctx is no bound."""
    command = ["-p", TEXT[:1000], "-n", 20, "--prompt-cache", folder / "session.bin"]
    first = complete(model, *command)
    assert (folder / "session.bin").stat().st_size > 0
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))  # noqa: E731
    assert complete(model, *command, preexec_fn=limit) == first
    log = tool("sb-completion", "-m", model, "-no-cnv", *command, "--temp", 0, "--ignore-eos", "-t", 1).stderr
    assert "loaded a session" in log and "exact match" in log


@pytest.mark.parametrize("kind, most", [("Q8_0", 1.01), ("Q6_K", 1.02), ("Q5_K_M", 1.05), ("Q4_K_M", 1.1), ("Q4_0", 1.1), ("IQ4_NL", 1.1), ("Q3_K_M", 1.3)])
def test_quantize_writes_files_that_load_with_a_sane_perplexity(model, folder, corpus, kind, most):
    import gguf
    out = folder / f"{kind}.gguf"
    tool("sb-quantize", model, out, kind, 2)
    types = {t.name: t.tensor_type.name for t in gguf.GGUFReader(out).tensors}
    assert {v for k, v in types.items() if "time_mix_decay" in k or "norm" in k or k.endswith("bias")} == {"F32"}
    assert types["blk.0.ffn_up.weight"] != "F32"
    ratio = perplexity(out, corpus) / perplexity(model, corpus)
    assert 1 / most < ratio < most


def test_imatrix_covers_the_matrices_and_quantize_takes_it(model, folder, corpus):
    import gguf
    tool("sb-imatrix", "-m", model, "-f", corpus, "-o", folder / "imatrix.gguf", "-c", 128, "--chunks", 4, "-t", 1)
    seen = {t.name for t in gguf.GGUFReader(folder / "imatrix.gguf").tensors}
    wanted = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"}
    assert wanted <= {name.split(".")[2] for name in seen if name.startswith("blk.")}
    for kind, most in (("Q4_K_M", 1.1), ("IQ3_XXS", 1.5)):
        tool("sb-quantize", "--imatrix", folder / "imatrix.gguf", model, folder / "with-imatrix.gguf", kind, 2)
        assert perplexity(folder / "with-imatrix.gguf", corpus) < most * perplexity(model, corpus)


def test_perplexity_is_that_of_the_logits(model, corpus):
    """The definition: chunks of n_ctx from an empty state, the second half of each counts."""
    np = pytest.importorskip("numpy")
    from spikingbrain_cpp import Llama
    n_ctx, total, count = 128, 0.0, 0
    with Llama(model_path=str(model), logits_all=True, verbose=False) as llama:
        tokens = llama.tokenize(corpus.read_bytes())
        for start in range(0, len(tokens) // n_ctx * n_ctx, n_ctx):
            chunk = tokens[start:start + n_ctx]
            llama.reset()
            llama.eval(chunk)
            scores = np.asarray(llama.scores, dtype=np.float64)[n_ctx // 2:n_ctx - 1]
            top = scores.max(axis=1)
            log_z = top + np.log(np.exp(scores - top[:, None]).sum(axis=1))
            total += float((log_z - scores[np.arange(len(scores)), chunk[n_ctx // 2 + 1:]]).sum())
            count += len(scores)
    assert perplexity(model, corpus, n_ctx) == pytest.approx(math.exp(total / count), rel=2e-4)


def test_perplexity_reports_the_divergence_of_a_quantisation(model, folder, corpus):
    tool("sb-quantize", model, folder / "kl.gguf", "Q8_0", 2)
    common = ["-f", corpus, "-c", 128, "-t", 1, "--kl-divergence-base", folder / "base.kld"]
    tool("sb-perplexity", "-m", model, *common)
    out = tool("sb-perplexity", "-m", folder / "kl.gguf", *common, "--kl-divergence")
    found = re.search(r"Mean +KLD: +([0-9.]+)", out.stdout + out.stderr)
    assert found and 0 < float(found[1]) < 0.01, out.stdout + out.stderr


def test_perplexity_beyond_window_and_trained_length(model, corpus):
    assert 1 < perplexity(model, corpus, 8 * TRAINED, "--chunks", 2) < 1e4


def test_perplexity_scores_endings_that_share_a_prefix(model, folder):
    """hellaswag: one token of the shared prefix goes to four sequences at once."""
    tasks = folder / "tasks.txt"
    task = "The keeper wrote down every\n{}\nship that he saw.\nbook in the tower.\ndaughter of the sea.\nstair.\n"
    tasks.write_text("".join(task.format(i % 4) for i in range(6)))
    out = tool("sb-perplexity", "-m", model, "-f", tasks, "--hellaswag", "--hellaswag-tasks", 4, "-t", 1)
    assert re.search(r"^4\s+[0-9.]+%", out.stdout + out.stderr, re.M), out.stdout + out.stderr


def test_bench_measures_at_a_depth_beyond_the_trained_length(model):
    out = tool("sb-bench", "-m", model, "-p", 32, "-n", 8, "-d", 4 * TRAINED, "-r", 2, "-t", 1, "-o", "jsonl")
    rows = [json.loads(line) for line in out.stdout.splitlines() if line.startswith("{")]
    assert [(r["n_prompt"], r["n_gen"], r["n_depth"]) for r in rows] == [(32, 0, 4 * TRAINED), (0, 8, 4 * TRAINED)]
    assert all(r["avg_ts"] > 0 and r["model_type"].startswith("spikingbrain") for r in rows)


@pytest.mark.parametrize("shared", [[], ["-pps"], ["-pps", "-kvu"]], ids=lambda a: " ".join(a) or "own")
def test_batched_bench_runs_with_own_and_shared_prompts(model, shared):
    out = tool("sb-batched-bench", "-m", model, "-npp", 100, "-ntg", 8, "-npl", "1,2,4", "-t", 1, "-c", 4096, *shared)
    assert len(re.findall(r"^\|\s+100 \|", out.stdout + out.stderr, re.M)) == 3, out.stdout + out.stderr


def test_a_split_gguf_is_the_same_model(model, folder):
    tool("sb-gguf-split", "--split", "--split-max-tensors", 20, model, folder / "part")
    parts = sorted(folder.glob("part-*.gguf"))
    assert len(parts) > 1
    prompt = ["-p", "the ships", "-n", 60]
    assert complete(parts[0], *prompt) == complete(model, *prompt)


def test_no_tool_loses_its_last_words(folder):
    """Upstream prints from a thread that exit does not wait for: two of three such messages were lost (patch log-flush-at-exit)."""
    for _ in range(15):
        out = tool("sb-perplexity", "-m", folder / "absent.gguf", "-f", __file__, ok=False)
        assert out.returncode == 1 and "unable to load model" in out.stdout + out.stderr


# --- the wrapper -------------------------------------------------------------------------------------------------

def test_wrapper_passes_defaults_that_the_user_can_override(monkeypatch):
    from spikingbrain_cpp import tools
    executed = {}
    monkeypatch.setattr(tools.os, "execv", lambda path, argv: executed.update(path=path, argv=argv))
    monkeypatch.setattr(tools.os, "environ", env := {"LLAMA_ARG_CACHE_RAM": "7"})
    monkeypatch.setattr(tools.system, "threads_if_limited", lambda: None)
    monkeypatch.setattr(tools.sys, "argv", ["sb-server", "--no-cache-idle-slots", "--ctx-checkpoints", "9"])
    tools.server()
    assert env == {"LLAMA_ARG_CACHE_RAM": "7", "LLAMA_ARG_FIT": "off", "LLAMA_ARG_BATCH": "512"}
    assert Path(executed["path"]).name == "llama-server" and executed["argv"][1:] == tools.sys.argv[1:]


def test_wrapper_names_a_missing_tool(monkeypatch, tmp_path):
    from spikingbrain_cpp import tools
    monkeypatch.setattr(tools, "LIB", tmp_path)
    with pytest.raises(SystemExit, match="sb-cli: .*do make build .*or reinstall"):
        tools.cli()
