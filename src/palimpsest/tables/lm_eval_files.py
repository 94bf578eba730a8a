"""A study's scores as lm-eval writes its own, results_DATE.json and samples_TASK_DATE.jsonl."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from palimpsest.artefacts import read_record, verify_files
from palimpsest.audit.records import read_audit
from palimpsest.errors import PalimpsestError, choose
from palimpsest.inference.files import read_responses
from palimpsest.tables.names import REPORTED
from palimpsest.vocabulary import KNOWMEM, UTILITY, VERBMEM

ASKED = (VERBMEM, KNOWMEM, UTILITY)
"""Metrics that are means over responses."""
FILTER = "none"
VERSION = 1
"""Of the tasks, as lm-eval counts them."""


def write_lm_eval(results: Path, model: str, precision: str, out: Path, seed: int | None = None) -> list[Path]:
    """Write the files of a model at a precision into OUT/MODEL; returns their paths, the results' first.

    A score is a share of 1, its error the standard error of the mean over examples. Raises PalimpsestError for a model,
    precision or seed that the study does not have, and for a record or response that was edited.
    """
    audit = read_audit(results / "audit.json")
    choose({entry["model"]: None for entry in audit["models"]}, model, "model")
    choose(dict.fromkeys(audit["precisions"]), precision, "precision")
    seed = (
        audit["seeds"][0] if seed is None else choose({str(each): each for each in audit["seeds"]}, str(seed), "seed")
    )
    place = f"{model}/seed{seed}/{precision}"
    verify_files(results / "infer" / place)
    now = datetime.now(UTC)
    date = now.replace(tzinfo=None).isoformat().replace(":", "-")
    folder = out / f"{model}__{precision}__seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    found, samples, files = {}, {}, [folder / f"results_{date}.json"]
    for metric in ASKED:
        record = read_record(results / f"scores/{place}/{metric}.json")
        if not record["n"]:
            continue
        rouge = audit["settings"]["metrics"][metric]["rouge"]
        task = f"palimpsest_{metric}"
        rows = read_responses(results / f"infer/{place}/responses.jsonl", REPORTED[metric].task)
        samples[task] = _samples(rows, record, rouge)
        found[task] = _result(task, record["per_example"], rouge)
    if not found:
        raise PalimpsestError(f"{results} asks nothing of {model}: there is no score that lm-eval has a form for.")
    sizes = {task: {"original": len(rows), "effective": len(rows)} for task, rows in samples.items()}
    content = {
        "results": found,
        "group_subtasks": {task: [] for task in found},
        "configs": {task: {"task": task, "output_type": "generate_until", "num_fewshot": 0} for task in found},
        "versions": dict.fromkeys(found, VERSION),
        "n-shot": dict.fromkeys(found, 0),
        "higher_is_better": {task: {_metric(each): True} for task, each in found.items()},
        "n-samples": sizes,
        "config": {"model": "palimpsest", "model_args": f"precision={precision}", "seed": seed},
        "date": now.timestamp(),
        "palimpsest_version": metadata.version("palimpsest"),
        "model_name": f"{model}, {precision}, seed {seed}",
        "model_name_sanitized": folder.name,
    }
    files[0].write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for task, rows in samples.items():
        files.append(folder / f"samples_{task}_{date}.jsonl")
        files[-1].write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return files


def _metric(result: Mapping[str, Any]) -> str:
    return next(key.partition(",")[0] for key in result if key.endswith(f",{FILTER}"))


def _result(task: str, values: Sequence[float], rouge: str) -> dict[str, Any]:
    error = stdev(values) / sqrt(len(values)) if len(values) > 1 else "N/A"
    return {"alias": task, f"{rouge},{FILTER}": mean(values), f"{rouge}_stderr,{FILTER}": error}


def _samples(rows: Sequence[Mapping[str, Any]], record: Mapping[str, Any], rouge: str) -> list[dict[str, Any]]:
    asked = {row["id"]: row for row in rows}
    if missing := [str(each) for each in record["ids"] if each not in asked]:
        raise PalimpsestError(f"the responses lack {', '.join(missing[:3])}, which the score rests on: score again.")
    return [
        {
            "doc_id": each,
            "doc": {"question": asked[each]["prompt"], "answer": asked[each]["answer"]},
            "target": asked[each]["answer"],
            "arguments": {"gen_args_0": {"arg_0": asked[each]["prompt"], "arg_1": {"do_sample": False}}},
            "resps": [[asked[each]["response"]]],
            "filtered_resps": [asked[each]["response"]],
            "filter": FILTER,
            "metrics": [rouge],
            "doc_hash": _hash(asked[each]["prompt"] + asked[each]["answer"]),
            "prompt_hash": _hash(asked[each]["prompt"]),
            "target_hash": _hash(asked[each]["answer"]),
            rouge: value,
        }
        for each, value in zip(record["ids"], record["per_example"], strict=True)
    ]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
