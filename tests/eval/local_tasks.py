"""Tasks of lm_eval made from text that is here: a cloze, a multiple choice, a perplexity and an answer. Nothing is downloaded."""

from __future__ import annotations

import json
from pathlib import Path

NAMES = ("local_cloze", "local_choice", "local_text", "local_answer")

# what differs between them, as lm_eval's YAML has it (JSON is YAML)
TASKS = {
    "local_cloze": {"output_type": "loglikelihood", "doc_to_text": "{{context}}", "doc_to_target": " {{word}}", "metric_list": [
        {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False}, {"metric": "acc", "aggregation": "mean", "higher_is_better": True}]},
    "local_choice": {"output_type": "multiple_choice", "doc_to_text": "{{context}}", "doc_to_choice": "{{choices}}", "doc_to_target": "{{answer}}",
                     "num_fewshot": 2, "fewshot_split": "validation", "metric_list": [
                         {"metric": m, "aggregation": "mean", "higher_is_better": True} for m in ("acc", "acc_norm")]},
    "local_text": {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}", "should_decontaminate": False, "metric_list": [
        {"metric": "word_perplexity"}, {"metric": "byte_perplexity"}, {"metric": "bits_per_byte"}]},
    "local_answer": {"output_type": "generate_until", "doc_to_text": "{{context}}", "doc_to_target": " {{word}}",
                     "generation_kwargs": {"until": ["\n", "."], "max_gen_toks": 8, "do_sample": False, "temperature": 0.0},
                     "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]},
}


def sentences(text: str) -> list[list[str]]:
    """Words of the sentences that have enough of them."""
    found = [" ".join(s.split()).split(" ") for s in text.replace("\n\n", ". ").split(". ")]
    return [words for words in found if 8 <= len(words) <= 60]


def documents(text: str, pages: str, n: int) -> dict[str, list[dict]]:
    """n documents of each task, of the sentences of `pages`; of local_text one, the text."""
    words = sentences(pages)[:n + 4]
    assert len(words) == n + 4
    word = [{"context": " ".join(w[:-1]), "word": w[-1]} for w in words]
    choice = [{"context": " ".join(w[:5]), "choices": [" ".join(words[(i + j) % len(words)][5:]) for j in range(4)], "answer": 0} for i, w in enumerate(words)]
    return {"local_cloze": word[:n], "local_choice": choice[:n], "local_answer": word[:n], "local_text": [{"text": text}], "validation": choice[n:]}


def write(folder: Path, text: str, pages: str, n: int = 12) -> Path:
    """The tasks in a folder, which is lm_eval's --include_path."""
    folder.mkdir(parents=True, exist_ok=True)
    docs = documents(text, pages, n)
    for name, rows in docs.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, task in TASKS.items():
        files = {"test": str(folder / f"{name}.jsonl"), "validation": str(folder / ("validation.jsonl" if name == "local_choice" else f"{name}.jsonl"))}
        whole = {"task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": files}, "test_split": "test", "validation_split": "validation", **task}
        (folder / f"{name}.yaml").write_text(json.dumps(whole, indent=1))
    return folder
