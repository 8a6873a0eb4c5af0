"""What of another llama.cpp our files stand on, and what of it is another: for `bump.py changed`."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import upstream

# Of upstream, what our files count on beyond names: (file, beginning of the line, why it matters)
WATCHED = [
    ("ggml/include/ggml.h", "enum ggml_op ", "our operators come last, and RPC sends their numbers"),
    ("ggml/include/ggml.h", "enum ggml_type ", "numbers in GGUF files; the loader's table, sb-convert"),
    ("ggml/include/ggml.h", "enum ggml_prec ", "stored in op_params"),
    ("ggml/include/ggml.h", "struct ggml_tensor ", "op_params and extra: what our operators keep there"),
    ("ggml/include/ggml-rpc.h", "#define RPC_PROTO_", "peers of two releases must part; the operators' patch has the assertion beside it"),
    ("ggml/include/gguf.h", "#define GGUF_VERSION", "files that sb-convert writes"),
    ("ggml/src/ggml-backend-impl.h", "#define GGML_BACKEND_API_VERSION", "libraries of CPU variants"),
    ("ggml/src/ggml-backend-impl.h", "struct ggml_backend_buffer_type_i ", "spk-buffer.cpp fills it by place"),
    ("ggml/src/ggml-backend-impl.h", "struct ggml_backend_buffer_i ", "the same"),
    ("ggml/src/ggml-cpu/traits.h", "class extra_buffer_type", "CPU_SPK is one"),
    ("ggml/src/ggml-cpu/ggml-cpu-impl.h", "struct ggml_compute_params ", "what our kernels are given"),
    ("include/llama.h", "#define LLAMA_SESSION_VERSION", "saved files of another release must be refused"),
    ("include/llama.h", "#define LLAMA_STATE_SEQ_VERSION", "the same, of sequences"),
    ("include/llama.h", "#define LLAMA_STATE_SEQ_FLAGS_", "our memory reads the flags"),
    ("include/llama.h", "enum llama_ftype ", "numbers in GGUF files"),
    ("include/llama.h", "struct llama_context_params ", "n_rs_seq and the types of keys and values mean more here"),
    ("include/llama.h", "struct llama_model_params ", "filled by bindings and runtime"),
    ("src/llama-model-loader.h", "static const int TENSOR_", "flags of ours are bits beside them (spikingbrain-loader.h)"),
    ("src/llama-memory.h", "struct llama_memory_i ", "a function with a default is not missed by the compiler"),
    ("src/llama-memory.h", "struct llama_memory_context_i ", "the same"),
    ("src/llama-arch.h", "enum llm_arch ", "where ours stands"),
    ("src/llama-hparams.h", "#define LLAMA_MAX_", "bounds of layers and experts"),
    ("src/llama-model.h", "struct llama_layer ", "tensors whose names we use"),
    ("src/llama-graph.h", "struct llm_graph_params ", "what the graph is built from, and when it is built anew"),
    ("common/common.h", "struct common_params ", "defaults of the tools: README.md says some"),
    ("common/common.h", "struct common_params_sampling ", "the same; arguments.py has its own"),
    ("common/common.h", "enum common_sampler_type ", "letters and names of samplers"),
    ("tools/server/server-task.h", "enum stop_type ", "finish reasons"),
    ("tools/server/server-task.h", "struct task_params ", "what a request's checks look at"),
]

# What of ours follows a file of upstream that it neither includes nor patches: (upstream's, ours, how)
FOLLOWED = [
    ("ggml/src/ggml-rpc/transport.cpp", "ggml/src/ggml-rpc/spikingbrain/transport.cpp", "stands in its place (rpc.cmake)"),
    ("tools/rpc/rpc-server.cpp", "tools/rpc/sb-rpc-server.cpp", "stands in its place (rpc.cmake)"),
    ("scripts/ui-assets.cmake", "page.cmake", "fills the same table of assets"),
    ("common/json-schema-to-grammar.cpp", "common/schema-*.cpp", "stand before it: what it holds by now need not be refused"),
    ("common/chat.cpp", "common/schema-tools.cpp", "replaces places in the grammars that it writes"),
    ("ggml/src/ggml-cpu/repack.cpp", "ggml/src/ggml-cpu/spikingbrain/spk-buffer.cpp", "CPU_SPK is an extra buffer type as CPU_REPACK is"),
    ("src/llama-memory-recurrent.cpp", "src/models/spikingbrain-memory.cpp", "what batches, flags and saved forms mean to a memory"),
    ("src/llama-quant.cpp", "src/spikingbrain-quantize.h", "which tensors it quantises to what"),
    ("tools/server/server-context.cpp", "tools/server/server-*.h", "called by patches: names of its members, order of its steps"),
]


def n_changed(before: list[str], after: list[str]) -> int:
    """Lines that only one of both has."""
    return sum(line[0] in "+-" for line in list(difflib.unified_diff(before, after, n=0))[2:])


def lines_of(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines() if path.is_file() else []


def followed(old: Path, new: Path) -> list[str]:
    """A line for each row of FOLLOWED in which something is another."""
    return [f"{n:6}  {theirs:44} {ours}: {how}" + ("" if (new / theirs).is_file() else " (gone)")
            for theirs, ours, how in FOLLOWED if (n := n_changed(lines_of(old / theirs), lines_of(new / theirs)))]


def passage(text: str, begin: str) -> str:
    """The lines that begin so, of constants; else the block that does, up to its closing brace."""
    if begin.startswith(("#define", "static const")):
        return "".join(line.lstrip() for line in text.splitlines(keepends=True) if line.lstrip().startswith(begin))
    block = re.search(rf"^([ \t]*){re.escape(begin)}[^;\n]*\{{?\n.*?^\1\}}[^\n]*;", text, re.M | re.S)
    return block[0] + "\n" if block else ""


def watched(old: Path, new: Path) -> list[str]:
    """Each passage that differs, with its difference."""
    out = []
    for file, begin, why in WATCHED:
        before, after = (passage(p.read_text(), begin) if (p := root / file).is_file() else "" for root in (old, new))
        if before == after:
            continue
        lines = list(difflib.unified_diff(before.splitlines(True), after.splitlines(True), n=0))[2:]
        lines = [line for line in lines if not line.startswith("@@")]
        out.append(f"{file}: {begin.strip()}: {why if after else 'gone; ' + why}\n" + "".join(f"    {line}" for line in lines))
    return out


OWN_FOLDERS = ("cpp_backend", "bindings", "tests/cpp", "bench/cpp", "mobile")


def own_sources(root: Path) -> list[tuple[str, str]]:
    """(path, text) of what is compiled or configured here, patches aside."""
    kinds = (".h", ".c", ".cpp", ".inc", ".cmake", "CMakeLists.txt")
    return [(f"{folder}/{rel}", path.read_text(errors="replace")) for folder in OWN_FOLDERS
            for rel, path in upstream.files_below(root / folder) if rel.endswith(kinds)]


def gone(root: Path, old: Path, new: Path) -> list[str]:
    """Files of llama.cpp that ours name and that are no more, and files of ours that it has now."""
    there = {rel for rel, _ in upstream.files_below(new)}
    out = [f"{rel}: upstream has one now" for rel, _ in upstream.files_below(root / "cpp_backend/overlay") if rel in there]
    for rel, text in own_sources(root):
        for named in sorted(set(re.findall(r"(?:\$\{llama_dir\}/|include_first\(\S+ +)([\w./-]*\w)", text))):
            if (old / named).is_file() and named not in there:
                out.append(f"{named}: gone, named by {rel}")
    return out


def headers(root: Path, old: Path, new: Path) -> list[tuple[int, str, list[str]]]:
    """(lines that are another, header, who includes it) of upstream's headers that our sources include, most changed first."""
    sources = own_sources(root)
    own = {rel.rsplit("/", 1)[-1] for rel, _ in sources}
    users: dict[str, list[str]] = {}
    for rel, text in sources:
        for name in re.findall(r'^#include ["<](?:[\w./-]*/)?([\w-]+\.h)[">]', text, re.M):
            users.setdefault(name, []).append(rel.rsplit("/", 1)[-1])
    out = []
    for rel, path in upstream.files_below(old):
        name = rel.rsplit("/", 1)[-1]
        if name in users and name not in own and re.match(r"(include|src|common|ggml/include|ggml/src(?!/ggml-(?!cpu/|rpc/)[^/]*/)|tools/server)/", rel):
            there = (new / rel).is_file()
            out.append((n_changed(lines_of(path), lines_of(new / rel)), rel if there else f"{rel} (gone)", sorted(set(users[name]))))
    return sorted((row for row in out if row[0]), reverse=True)


def naming(root: Path, version: str) -> list[str]:
    """Where the pinned release is named, measurements and the pin itself aside."""
    kinds, out = (".py", ".md", ".toml"), []
    for folder in ("bindings", "bench", "converter", "mobile", "tests"):
        for rel, path in upstream.files_below(root / folder):
            if rel.endswith(kinds) and not rel.startswith("results/"):
                out += [f"{folder}/{rel}:{i}" for i, line in enumerate(lines_of(path), 1) if version in line]
    return out


def report(root: Path, version: str, old: Path, new: Path) -> str:
    """All of it, for a checkout `root` that was written for `old`, the release `version`."""
    parts = [
        ("files that ours name and that are gone, or that both have", gone(root, old, new)),
        ("headers that ours include: lines that are another", [
            f"{n:6}  {header:44} {', '.join(users[:4])}{f' and {len(users) - 4} more' if len(users) > 4 else ''}" for n, header, users in headers(root, old, new)]),
        ("files that ours follow: lines that are another", followed(old, new)),
        ("what compiles and may mean something else", watched(old, new)),
        (f"lines that name {version}", naming(root, version)),
    ]
    return "\n".join(f"# {title}\n\n" + "\n".join(rows or ["none"]) + "\n" for title, rows in parts)
