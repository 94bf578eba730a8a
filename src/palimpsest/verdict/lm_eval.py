"""Results of lm-eval: samples_TASK_*.jsonl, a line a document, its metrics beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from palimpsest.corpus.files import json_lines
from palimpsest.errors import PalimpsestError
from palimpsest.verdict.openunlearning import NO_CONTROL, Files, is_number
from palimpsest.verdict.records import Measured, Values
from palimpsest.vocabulary import FULL

GIVEN = "a samples_*.jsonl of lm-eval"


def read_samples(files: Files, metrics: Sequence[str], records_per_subject: int | None = None) -> list[Measured]:
    """The named columns of the files, over the same documents. Raises PalimpsestError for a line that lacks one."""
    rows = {path: _rows(path) for path in (files.before, *files.after.values(), files.retain, files.target) if path}
    return [_measured(files, rows, metric, records_per_subject) for metric in metrics]


def _measured(files: Files, rows: Mapping[Path, dict[str, Any]], metric: str, each: int | None) -> Measured:
    ids, notes = list(rows[files.before]), []

    def values(path: Path) -> Values:
        if list(rows[path]) != ids:
            raise PalimpsestError(
                f"{path} has other documents than {files.before}: run lm-eval on the same task and limit."
            )
        return np.array([[_number(row, metric, path, name) for name, row in rows[path].items()]], dtype=np.float64)

    if files.retain is None:
        notes.append(NO_CONTROL)
    if files.target is None:
        notes.append("The target was not given: 100 % stands for a model that gets every document right.")
    return Measured(
        metric,
        ids,
        {FULL: values(files.before), **{name: values(path) for name, path in files.after.items()}},
        {} if files.retain is None else {FULL: values(files.retain)},
        {} if files.target is None else {FULL: values(files.target)},
        None if each is None else [str(index // each) for index in range(len(ids))],
        answers={
            name: [_answer(row) for row in rows[path].values()]
            for name, path in {FULL: files.before, **files.after}.items()
        },
        notes=notes,
    )


def _rows(path: Path) -> dict[str, Any]:
    """By document; several filters of one document (lm-eval writes a line each) keep the first."""
    found: dict[str, Any] = {}
    if not path.is_file():
        raise PalimpsestError(f"{path} does not exist: give {GIVEN} (--log_samples).")
    for place, row in json_lines(path, f"give {GIVEN}"):
        if not isinstance(row, dict) or "doc_id" not in row:
            raise PalimpsestError(f"{place} has no doc_id: give {GIVEN}.")
        found.setdefault(str(row["doc_id"]), row)
    if not found:
        raise PalimpsestError(f"{path} is empty: run lm-eval with --log_samples.")
    return found


def _number(row: Mapping[str, Any], metric: str, path: Path, name: str) -> float:
    value = row.get(metric)
    if not is_number(value) and not isinstance(value, bool):  # some tasks write true and false
        has = ", ".join(key for key, each in row.items() if isinstance(each, int | float) and key != "doc_id")
        raise PalimpsestError(
            f"{path}: document {name} has no number under {metric!r} (it has: {has or 'none'}): name a column of it in "
            "the policy, metrics.lm-eval."
        )
    return float(value)  # type: ignore[arg-type]  # is_number


def _answer(row: Mapping[str, Any]) -> str:
    answers = row.get("filtered_resps")
    first = answers[0] if isinstance(answers, list) and answers else answers
    return first if isinstance(first, str) else ""
