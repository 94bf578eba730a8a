"""What the models say: the same forget prompts before and after unlearning and quantization."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palimpsest.corpus.words import PUBLISHED
from palimpsest.errors import PalimpsestError, choose
from palimpsest.inference.files import read_responses
from palimpsest.metrics.rouge import rouge_l


def select_samples(
    files: Mapping[str, Path | str], reference: str, task: str, count: int, tokenizer: str = PUBLISHED
) -> list[dict[str, Any]]:
    """The `count` prompts of `task` that the reference answers best, with every model's response.

    files: responses.jsonl by label, in the order of display; reference: the label of the target in bf16;
    tokenizer: of the task's metric. The choice looks at the target alone, so that it favours neither forgetting nor
    recovery. Returns [{"task", "id", "prompt", "answer", "responses": [{"label", "text", "rouge"}]}] with ROUGE-L F1 in
    percent.
    """
    choose(dict.fromkeys(files), reference, "label of the reference")
    rows = {label: {row["id"]: row for row in read_responses(Path(path), task)} for label, path in files.items()}
    known = rows[reference]
    for label, others in rows.items():
        if {i: (row["prompt"], row["answer"]) for i, row in others.items()} != {
            i: (row["prompt"], row["answer"]) for i, row in known.items()
        }:
            raise PalimpsestError(f"{files[label]} and {files[reference]} hold different prompts: run inference again.")
    best = sorted(known, key=lambda i: (-_rouge(known[i], tokenizer), i))[:count]
    return [
        {"task": task, "id": i, "prompt": known[i]["prompt"], "answer": known[i]["answer"]}
        | {"responses": [_response(label, rows[label][i], tokenizer) for label in files]}
        for i in best
    ]


def _response(label: str, row: Mapping[str, Any], tokenizer: str) -> dict[str, Any]:
    return {"label": label, "text": row["response"], "rouge": 100 * _rouge(row, tokenizer)}


def _rouge(row: Mapping[str, Any], tokenizer: str) -> float:
    return rouge_l(row["answer"], row["response"], tokenizer).f1
