"""The fork stays a pin, an overlay and a few registering lines; upstream.py stops with cause and cure."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BACKEND = ROOT / "cpp_backend"
sys.path.insert(0, str(BACKEND))
import upstream  # noqa: E402

PATCHES = sorted((BACKEND / "patches").glob("*.patch"))

# The price of a fork is what must be rebased. Raise this only together with the reason in a patch's header.
ADDED_LINES = 167
# Each line of upstream that a patch replaces (a pattern of its beginning), and why it is not shadowed instead.
REPLACED = {
    r"static_assert\(GGML_OP_COUNT == \d+": "the operator count, asserted in ggml.c twice and in ggml-rpc.h",
    r"const size_t max_idx = std::min\(tokens.size\(\), b.tokens.size\(\)\);": "where two texts part, by their adapters, too; nothing shadows it in its scope",
    r'LLAMA_LOG_WARN\("%s: Warning: Bad metadata override': "an override of a wrong type is an error, no warning; a throw above it would leave it unreachable",
    r"__func__, ovrd->key, override_type_to_str": "the second line of that warning",
    r"common_log_set_file\(common_log_main\(\), value": "a log that is opened before all arguments are known may empty an input",
    r"std::ofstream fout = std::ofstream\(split_path": "gguf-split opens a temporary name; a shadowed split_path would be printed",
    r"fout\.open\(split_params\.output": "the same for a merged file; split_params is const",
    r"slot.n_predict_max = ": "the one line that decides where a request ends; shadowed, it would read as if the old rule held",
    r'oai_body\["max_tokens"\] = 4096': "another default for one endpoint",
    r"opt\.handler_int\(params, std::stoi": "another reading of the same text",
    r"int32_t cache_ram_mib ": "a default is a value, which nothing can shadow",
    r"ERROR_TYPE_SERVER\);|error = ERROR_TYPE_SERVER;": "whose mistake it is (server-bad-json)",
    r"#define COMMON_JSON_GET\(": "the one line that reads every number of every request (server-request-values)",
    r"LOG_WRN\(\"Wrong type supplied|return default_value;": "a value of a wrong type is refused instead of replaced (server-request-values)",
    r"->set_limits\(0, INT32_MAX\)|bool is_hard_limit = false;": "a number out of range is refused instead of moved into it (server-request-values)",
    r"auto stream = json_value\(body, \"stream\", false\);": "its only use was to refuse streamed tools with log probabilities (server-token-rows)",
    r"slot\.add_token\(result\);|if \(slot\.task->params\.stream\) \{|send_partial_response\(slot, result, false\);|\}$":
        "what is sent is decided at the end of process_token(), not before the limit is known (server-token-rows)",
    r"if \(!slot\.task->params\.stream && slot\.stop == STOP_TYPE_WORD\) \{|const llama_tokens stop_word_toks|size_t safe_offset":
        "the rows of a stop string are known, not guessed by tokenizing it (server-token-rows)",
    r"for \(const auto & p : probs\) \{|std::string txt\(p\.text_to_send\);|\{\"bytes\", +str_to_bytes\(p\.text_to_send\)\},": "a row names its own token (server-token-rows)",
    r"// note: allow id_slot to be out of bounds|id_slot = id_slot % slots\.size\(\);": "slot 99 of 4 is none, not slot 3 (server-unknown-ids)",
    r"gguf_write_to_file\(|llama_state_save_file\(|return 0;|generate_completion\(content, timings\);": "a failure has an exit code (tools-exit-code)",
    r"LOG\(\" \[end of text\]|LOG\(\"\\n%s: saving final output": "a notice is no text (completion-notices)",
    r"stop_reason = oaicompat_msg\.tool_calls\.empty\(\)": "a stop sequence is a reason of its own (server-messages)",
    r".*= \{?(COMMON_GRAMMAR_TYPE_OUTPUT_FORMAT, )?json_schema_to_grammar\(": "another function of the same argument, at three doors",
    r"RPC_STATUS_ASSERT\(status\);": "a lost server is an error, not an abort (rpc-lost-server)",
    r"sg\.graph = nullptr;": "graphs that do not use the buffer stay (rpc-stored-graphs)",
    r'err = "Compute error\.";': "the reason is known (server-lost-server)",
    r"// a second partial removal while one is pending|ok = ok && !llama_memory_seq_rm\(": "upstream's test of something that is allowed here (test-second-removal)",
    r"auto chat_params = common_chat_templates_apply\(": "the same, of a chat's schemas",
    r"session_tokens\.resize\(n_ctx\)": "as many tokens as the file can hold (completion-session-size)",
    r"tools_parser = p\.trigger_rule\(": "one call or several, in the line that says how many (single-tool-call)",
    r"std::cv_status cr_res = condition_results\.wait_for\(": "a wait has an end, not a length (server-disconnect)",
    r"slot\.prompt\.checkpoints\.size\(\) \+ 1 >= |while \(slot\.prompt\.checkpoints\.size\(\) >= ": "what is full; a shadowed params_base hid it (server-checkpoint-bytes)",
    r"const int32_t n_tokens = std::min\(n_batch, ": "tokens of this sub-batch; n_batch is the next one's, too (server-echo)",
    r"queue_tasks\.yield_to_queue\(\[&\]": "the same call, or none where no draft's model computes (server-draft-threads)",
}


def hunk_lines(patch: Path, sign: str) -> list[str]:
    return [line[1:] for line in patch.read_text().splitlines() if line.startswith(sign) and not line.startswith(sign * 3)]


# --- the budget ---------------------------------------------------------------------------------------------

def test_patches_delete_nothing_but_the_operator_counts():
    """Or what is listed with its reason."""
    deleted = [line.strip() for patch in PATCHES for line in hunk_lines(patch, "-")]
    assert [line for line in deleted if not any(re.match(p, line) for p in REPLACED)] == []
    assert [p for p in REPLACED if not any(re.match(p, line) for line in deleted)] == [], "replaced by no patch any more"


def test_patches_stay_within_the_line_budget():
    added = {patch.name: sum(1 for line in hunk_lines(patch, "+") if line.strip()) for patch in PATCHES}
    assert sum(added.values()) <= ADDED_LINES, added


def test_the_series_has_no_holes_and_no_name_twice():
    """Numbers are the order only, so that they may change; texts name a patch by the rest of its file's name."""
    numbers, names = zip(*(p.stem.split("-", 1) for p in PATCHES))
    assert [int(n) for n in numbers] == list(range(1, len(PATCHES) + 1))
    assert len(set(names)) == len(names)


def test_texts_name_patches_by_names_that_exist():
    tracked = subprocess.run(["git", "ls-files", "*.md", "*.h", "*.cpp", "*.c", "*.cmake", "*.txt", "*.py", "*.patch"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    names = {p.stem.split("-", 1)[1] for p in PATCHES}
    name, wrong = r"[a-z0-9]+(?:-[a-z0-9]+)+", []
    for path in (ROOT / f for f in tracked if (ROOT / f).is_file()):
        for listed in re.findall(rf"\bpatch(?:es)? \(?(\d{{4}}|{name}(?:(?:, | and ){name})*)", path.read_text(errors="replace")):
            wrong += [f"{path.relative_to(ROOT)}: {n}" for n in re.split(", | and ", listed) if n not in names]
    assert wrong == []


@pytest.mark.parametrize("patch", PATCHES, ids=lambda p: p.name)
def test_each_patch_says_why_and_when_it_can_go(patch):
    header = patch.read_text().split("\n--- ", 1)[0]
    assert "Drop when:" in header or "drop" in header.lower(), f"{patch.name}: the header names no upstream change that would let it go"
    assert len(header.strip().splitlines()) >= 3


# --- a small upstream to try upstream.py on -------------------------------------------------------------------

@pytest.fixture
def toy(tmp_path):
    """A pin, an archive of a four-file 'llama.cpp', an overlay file and a patch, all in tmp_path."""
    top, files = "toy-1.0/vendor/llama.cpp", {
        "CMakeLists.txt": "project(toy)\n", "src/llama-arch.h": "enum {\n    A,\n    UNKNOWN,\n};\n",
        "src/b.cpp": "int b;\n", ".git/config": "not ours\n"}
    archive = tmp_path / "toy-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"{top}/{name}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    upstream.unpack(archive, top, tmp_path / "pristine")
    (tmp_path / "lock").write_text(
        f"# subdir: {top}\n# tree-sha256: {upstream.tree_hash(tmp_path / 'pristine')}\n"
        f"toy==1.0 --hash=sha256:{upstream.file_sha256(archive)}\n")
    (tmp_path / "overlay/src").mkdir(parents=True)
    (tmp_path / "overlay/src/spikingbrain.cpp").write_text("int s;\n")
    (tmp_path / "patches").mkdir()
    (tmp_path / "patches/0001-arch.patch").write_text(
        "why\n\n--- a/src/llama-arch.h\n+++ b/src/llama-arch.h\n@@ -1,4 +1,5 @@\n enum {\n     A,\n+    SPIKINGBRAIN,\n     UNKNOWN,\n };\n")
    (tmp_path / "cache/none").mkdir(parents=True)
    shutil.copy(archive, tmp_path / "cache" / archive.name)
    return tmp_path


def run(toy: Path, *extra: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """upstream.py on the toy; pip is given no index, so that a download would fail."""
    command = [sys.executable, str(BACKEND / "upstream.py"), "--dest", str(toy / "tree"), "--lock", str(toy / "lock"),
               "--overlay", str(toy / "overlay"), "--patches", str(toy / "patches"), "--cache", str(toy / "cache"), *extra]
    return subprocess.run(command, capture_output=True, text=True,
                          env={**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", **(env or {})})


def times(root: Path) -> dict[str, int]:
    return {rel: path.stat().st_mtime_ns for rel, path in upstream.files_below(root)}


def fails(result: subprocess.CompletedProcess, *words: str) -> None:
    assert result.returncode == 1 and result.stdout.count("Traceback") == result.stderr.count("Traceback") == 0, result
    assert result.stderr.startswith("upstream: ") and "; do " in result.stderr, result.stderr
    assert all(word in result.stderr for word in words), result.stderr


def test_the_tree_is_upstream_plus_overlay_plus_patches_without_git(toy):
    assert run(toy).returncode == 0
    assert sorted(times(toy / "tree")) == ["CMakeLists.txt", "src/b.cpp", "src/llama-arch.h", "src/spikingbrain.cpp"]
    assert not (toy / "tree/.git").exists()
    assert "SPIKINGBRAIN" in (toy / "tree/src/llama-arch.h").read_text()


def test_a_second_run_touches_nothing_and_needs_nothing(toy):
    run(toy)
    before = times(toy / "tree")
    shutil.rmtree(toy / "cache")
    again = run(toy, env={"PATH": ""})
    assert (again.returncode, again.stdout, times(toy / "tree")) == (0, "", before)


def test_a_changed_overlay_file_rewrites_that_file_only(toy):
    run(toy)
    before = times(toy / "tree")
    (toy / "overlay/src/spikingbrain.cpp").write_text("int changed;\n")
    assert run(toy).returncode == 0
    after = times(toy / "tree")
    assert [rel for rel in after if after[rel] != before[rel]] == ["src/spikingbrain.cpp"]


def test_a_vanished_overlay_file_and_a_changed_patch_are_picked_up(toy):
    run(toy)
    (toy / "overlay/src/spikingbrain.cpp").unlink()
    patch = toy / "patches/0001-arch.patch"
    patch.write_text(patch.read_text().replace("SPIKINGBRAIN", "OTHER"))
    assert run(toy).returncode == 0
    assert not (toy / "tree/src/spikingbrain.cpp").exists()
    assert "OTHER" in (toy / "tree/src/llama-arch.h").read_text()


def test_a_removed_patch_gives_back_the_file_with_a_new_time(toy):
    run(toy)
    before = times(toy / "tree")["src/llama-arch.h"]
    (toy / "patches/0001-arch.patch").unlink()
    assert run(toy).returncode == 0
    assert "SPIKINGBRAIN" not in (toy / "tree/src/llama-arch.h").read_text()
    assert times(toy / "tree")["src/llama-arch.h"] > before


def test_a_wrong_archive_hash_stops_before_anything_is_written(toy):
    lock = toy / "lock"
    lock.write_text(re.sub(r"sha256:[0-9a-f]{64}", "sha256:" + "0" * 64, lock.read_text()))
    fails(run(toy), "got sha256", "expected " + "0" * 64)
    assert not (toy / "tree").exists() and not (toy / "tree.new").exists() and not (toy / "tree.stamp").exists()


def test_a_patch_that_does_not_apply_names_itself_and_leaves_the_old_tree(toy):
    run(toy)
    before = times(toy / "tree")
    patch = toy / "patches/0001-arch.patch"
    good = patch.read_text()
    patch.write_text(good.replace("     A,\n", "     B,\n"))
    fails(run(toy), "0001-arch.patch", "rebase")
    assert times(toy / "tree") == before
    fails(run(toy), "0001-arch.patch")  # and goes on failing: no stamp was written for it
    patch.write_text(good)
    assert run(toy).returncode == 0 and times(toy / "tree") == before


def test_another_llama_cpp_is_asked_which_patches_it_takes(toy):
    asked = lambda folder: run(toy, "--try-patches", str(folder))
    (toy / "patches/0002-c.patch").write_text("why\n\n--- a/src/c.cpp\n+++ b/src/c.cpp\n@@ -1 +1,2 @@\n int c;\n+int d;\n")
    there = asked(toy / "pristine")
    assert there.returncode == 1 and re.search(r"0001-arch.patch +applies\n0002-c.patch +rejected: no src/c.cpp\n1 of 2 patches apply", there.stdout)
    (toy / "pristine/src/c.cpp").write_text("// moved\nint c;\n")
    (toy / "pristine/src/llama-arch.h").write_text("enum {\n    B,\n    UNKNOWN,\n};\n")
    there = asked(toy / "pristine")
    assert there.returncode == 1 and "rejected: src/llama-arch.h:1\n" in there.stdout and re.search(r"0002-c.patch +applies; moved: 1\n", there.stdout)
    assert (toy / "pristine/src/c.cpp").read_text() == "// moved\nint c;\n" and not (toy / "tree").exists()
    (toy / "pristine/src/llama-arch.h").unlink()
    fails(asked(toy / "pristine"), "got no src/llama-arch.h")


def test_an_interrupted_sync_is_done_again(toy):
    run(toy)
    (toy / "tree.stamp").unlink()
    (toy / "tree/src/b.cpp").write_text("half wr")
    assert run(toy).returncode == 0
    assert (toy / "tree/src/b.cpp").read_text() == "int b;\n"


def test_a_missing_patch_program_is_named_with_its_package(toy):
    fails(run(toy, env={"PATH": ""}), "apt-get install patch")


@pytest.mark.parametrize("inside", [False, True], ids=["", "inside another repository"])
def test_git_stands_in_for_a_patch_that_is_not_gnus(toy, inside):
    own = toy / "bin"  # macOS' patch
    own.mkdir()
    (own / "patch").write_text("#!/bin/sh\n[ \"$1\" != --version ] || echo patch 2.0-12u11-Apple\n")
    (own / "patch").chmod(0o755)
    (own / "git").symlink_to(shutil.which("git"))
    if inside:
        subprocess.run(["git", "init", "-q", toy], check=True)
    environment = {"PATH": str(own), "GIT_DIR": str(toy / ".git")}
    assert run(toy, env=environment).returncode == 0
    assert "SPIKINGBRAIN" in (toy / "tree/src/llama-arch.h").read_text()
    (toy / "patches/0002-c.patch").write_text("why\n\n--- a/src/c.cpp\n+++ b/src/c.cpp\n@@ -1 +1,2 @@\n int c;\n+int d;\n")
    there = run(toy, "--try-patches", str(toy / "pristine"), env=environment)
    assert re.search(r"0001-arch.patch +applies\n0002-c.patch +rejected: no src/c.cpp\n", there.stdout)
    (toy / "patches/0001-arch.patch").write_text((toy / "patches/0001-arch.patch").read_text().replace("     A,\n", "     B,\n"))
    fails(run(toy, env=environment), "0001-arch.patch", "rebase")


def test_an_overlay_file_that_exists_upstream_is_refused(toy):
    (toy / "overlay/src/b.cpp").write_text("int mine;\n")
    fails(run(toy), "overlay/src/b.cpp", "exists upstream")


def test_a_failed_download_says_what_to_do(toy):
    (toy / "cache/toy-1.0.tar.gz").unlink()
    fails(run(toy), "pip download toy==1.0", "SPIKINGBRAIN_LLAMA_DIR")


def test_a_named_folder_is_verified_by_its_tree_hash(toy):
    shutil.rmtree(toy / "cache")
    assert run(toy, "--source", str(toy / "pristine")).returncode == 0
    assert "SPIKINGBRAIN" in (toy / "tree/src/llama-arch.h").read_text()
    assert "SPIKINGBRAIN" not in (toy / "pristine/src/llama-arch.h").read_text()
    (toy / "pristine/src/b.cpp").write_text("int changed;\n")
    fails(run(toy, "--source", str(toy / "pristine")), "tree hash", "SPIKINGBRAIN_LLAMA_UNVERIFIED=1")
    asked = run(toy, "--source", str(toy / "pristine"), "--unverified")
    assert asked.returncode == 0 and "UNVERIFIED" in asked.stdout
    assert (toy / "tree/src/b.cpp").read_text() == "int changed;\n"
    fails(run(toy, "--source", str(toy / "pristine")), "tree hash")  # having been accepted once counts for nothing


def test_a_named_archive_is_verified_by_its_hash(toy):
    archive = toy / "cache/toy-1.0.tar.gz"
    moved = toy / "elsewhere.tar.gz"
    shutil.move(archive, moved)
    assert run(toy, "--source", str(moved)).returncode == 0
    moved.write_bytes(moved.read_bytes() + b"x")
    shutil.rmtree(toy / "tree")
    fails(run(toy, "--source", str(moved)), "got sha256")


def test_a_named_thing_that_is_not_llama_cpp_is_refused(toy):
    fails(run(toy, "--source", str(toy / "overlay")), "src/llama-arch.h")
    fails(run(toy, "--source", str(toy / "absent")), "got nothing there")


# --- the real pin -----------------------------------------------------------------------------------------------

def built_tree() -> Path:
    trees = sorted(ROOT.glob("build/*/llama.cpp"))
    if not trees:
        pytest.skip("no built tree: run make build")
    return trees[0]


def test_the_built_tree_carries_the_overlay_and_no_rejects():
    tree = built_tree()
    for rel, path in upstream.files_below(BACKEND / "overlay"):
        assert (tree / rel).read_bytes() == path.read_bytes(), rel
    assert [p for p in tree.rglob("*") if p.suffix in (".rej", ".orig")] == []
    assert not (tree / ".git").exists()


def test_no_line_of_upstream_is_committed(tmp_path):
    """No tracked file has the bytes of an upstream file, and every overlay file is new."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    lock = upstream.read_lock(BACKEND / "llama.lock")
    archive = upstream.cache_dir() / lock.archive_name
    if not archive.is_file():
        pytest.skip("the archive is not in the cache (built from a named folder)")
    upstream.unpack(archive, lock.subdir, tmp_path / "pristine")
    theirs = {upstream.file_sha256(p) for _, p in upstream.files_below(tmp_path / "pristine") if p.stat().st_size > 0}
    paths = [ROOT / name for name in tracked if (ROOT / name).is_file()]
    assert [str(p) for p in paths if p.stat().st_size > 0 and upstream.file_sha256(p) in theirs] == []
    assert [rel for rel, _ in upstream.files_below(BACKEND / "overlay") if (tmp_path / "pristine" / rel).exists()] == []
    assert upstream.tree_hash(tmp_path / "pristine") == lock.tree_sha256
