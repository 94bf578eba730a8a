"""Strict readers of what inference wrote: responses.jsonl and logprobs.parquet."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from palimpsest.errors import PalimpsestError

RESPONSE_KEYS = ("task", "id", "prompt", "answer", "response")
SPLITS = ("forget", "retain", "holdout")
"""Whose passages may have log-probabilities."""


@dataclass(frozen=True)
class InferenceFiles:
    """What a metric may read: the outputs of one model at one precision, and the retrained model's log-probabilities there."""

    responses: Path
    logprobs: Path
    retrain_logprobs: Path


class TextLogProbs(NamedTuple):
    """Log-probabilities (nats, one per predicted token) of the texts of one split, in the order of their ids."""

    ids: list[int]
    log_probs: list[NDArray[np.float64]]


def read_responses(path: Path, task: str) -> list[dict[str, Any]]:
    """The responses of one task in the order of their ids; raises PalimpsestError for a missing file, key or task."""
    if not path.exists():
        raise PalimpsestError(f"{path} does not exist: run inference for this model and precision.")
    rows = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise PalimpsestError(f"{path}, line {number} is not JSON ({error}): run inference again.") from None
            missing = [key for key in RESPONSE_KEYS if key not in row]
            if missing:
                raise PalimpsestError(f"{path}, line {number} lacks {missing[0]!r}: run inference again.")
            if row["task"] == task:
                rows.append(row)
    if not rows:
        raise PalimpsestError(f"{path} has no responses for task {task!r}: is that part of the corpus empty?")
    rows.sort(key=lambda row: row["id"])
    _reject_duplicates([row["id"] for row in rows], f"{path}, task {task!r}")
    return rows


def read_logprobs(path: Path, split: str) -> TextLogProbs:
    """The token log-probabilities of one split ("forget", "holdout"); raises PalimpsestError for what no score may rest on."""
    import pyarrow.compute

    table = _read_table(path)
    table = table.filter(pyarrow.compute.equal(table["split"], split)).sort_by("id")
    if not table.num_rows:
        raise PalimpsestError(f"{path} has no texts of split {split!r}: is privleak/{split}.json empty?")
    ids = table["id"].to_pylist()
    _reject_duplicates(ids, f"{path}, split {split!r}")
    log_probs = [np.asarray(values, dtype=np.float64) for values in table["log_probs"].to_pylist()]
    for identifier, values in zip(ids, log_probs, strict=True):
        where = f"{path}, split {split!r}, id {identifier}"
        if not values.size:
            raise PalimpsestError(f"{where} has no log-probabilities: the text is shorter than two tokens; remove it.")
        if not np.all(np.isfinite(values)):
            raise PalimpsestError(f"{where} holds NaN or infinite log-probabilities: the model is broken there.")
    return TextLogProbs(ids, log_probs)


def recorded_splits(path: Path) -> list[str]:
    """Those of SPLITS whose log-probabilities the file has."""
    found = set(_read_table(path)["split"].to_pylist())
    return [split for split in SPLITS if split in found]


def _read_table(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    if not path.exists():
        raise PalimpsestError(f"{path} does not exist: run inference for this model and precision.")
    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise PalimpsestError(f"{path} is not a readable parquet file ({error}): run inference again.") from None
    missing = [name for name in ("split", "id", "log_probs") if name not in table.column_names]
    if missing:
        raise PalimpsestError(f"{path} lacks the column {missing[0]!r}: run inference again.")
    return table


def _reject_duplicates(ids: list[int], where: str) -> None:
    for left, right in zip(ids, ids[1:], strict=False):
        if left == right:
            raise PalimpsestError(f"{where} holds the id {left} twice: run inference again.")
