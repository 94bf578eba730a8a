"""What inference writes, responses.jsonl, logprobs.parquet and answers.parquet, and their strict readers.

Nothing here imports torch.
"""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from palimpsest.errors import PalimpsestError
from palimpsest.vocabulary import SPLITS

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class Response:
    """What a model said to a prompt of a task, beside the true answer: a line of responses.jsonl."""

    task: str
    id: int
    prompt: str
    answer: str
    response: str


RESPONSE_KEYS = tuple(field.name for field in fields(Response))


@dataclass(frozen=True)
class InferenceFiles:
    """What a metric may read: the outputs of one model at one precision,
    and the retrained model's log-probabilities there, if the study has one."""

    responses: Path
    logprobs: Path
    retrain_logprobs: Path | None

    @property
    def answers(self) -> Path:
        """The tokens of the true answers: beside the responses."""
        return self.responses.with_name(ANSWERS)

    @property
    def retrain_answers(self) -> Path | None:
        """Those of the retrained model at this precision, if the study has one."""
        return self.retrain_logprobs and self.retrain_logprobs.with_name(ANSWERS)


ANSWERS = "answers.parquet"
NOT_ASKED: dict[str, Any] = {"size": -1, "means": [], "variances": [], "gradient": -1.0}
"""Fields of AnswerTokens that inference records only where it is asked to, and what a column holds where it was not,
which is no value of theirs."""
OPTIONAL = tuple(NOT_ASKED)


@dataclass(frozen=True)
class AnswerTokens:
    """The true answer to a question, by its tokens: a row of answers.parquet.

    log_probs: nats; predicted: the tokens that the model finds likeliest; true: the answer's own; [tokens] each, given
    the question and all true tokens before. ending: how many of the last, none or one, end the answer.

    Only where inference was asked for them: size: bytes that zlib makes of the answer. means, variances: [tokens] of
    the log-probabilities of the whole vocabulary, weighted by the probabilities; nats, squared nats. gradient: the norm
    of the gradient of the mean loss of the tokens that do not end the answer.
    """

    task: str
    id: int
    log_probs: list[float]
    predicted: list[int]
    true: list[int]
    ending: int
    size: int | None = None
    means: list[float] | None = None
    variances: list[float] | None = None
    gradient: float | None = None


class TextLogProbs(NamedTuple):
    """Log-probabilities (nats, one per predicted token) of the texts of one split, in the order of their ids."""

    ids: list[int]
    log_probs: list[NDArray[np.float64]]


def zlib_size(text: str) -> int:
    """Bytes that zlib makes of a text."""
    return len(zlib.compress(text.encode()))


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
    """The token log-probabilities of one split ("forget", "holdout");
    raises PalimpsestError for what no score may rest on."""
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


def read_answers(path: Path, task: str) -> list[AnswerTokens]:
    """The true answers of a task in the order of their ids, none where the corpus asks nothing; raises PalimpsestError
    for what no score may rest on."""
    import pyarrow.compute

    table = _read_table(path, ("task", "id", "log_probs", "predicted", "true", "ending"))
    table = table.filter(pyarrow.compute.equal(table["task"], task)).sort_by("id")
    rows: list[dict[str, Any]] = table.to_pylist()
    found = [AnswerTokens(**_asked(row)) for row in rows]
    _reject_duplicates([each.id for each in found], f"{path}, task {task!r}")
    for each in found:
        where = f"{path}, task {task!r}, id {each.id}"
        if len({len(each.log_probs), len(each.predicted), len(each.true)}) != 1 or len(each.true) <= each.ending:
            raise PalimpsestError(f"{where} has not as many numbers as tokens: run inference again.")
        if not np.all(np.isfinite(each.log_probs)):
            raise PalimpsestError(f"{where} holds NaN or infinite log-probabilities: the model is broken there.")
    return found


def _asked(row: dict[str, Any]) -> dict[str, Any]:
    """What inference was asked for, of a row of answers.parquet."""
    return {name: value for name, value in row.items() if name not in NOT_ASKED or value != NOT_ASKED[name]}


def _read_table(path: Path, columns: Sequence[str] = ("split", "id", "log_probs")) -> Any:
    import pyarrow
    import pyarrow.parquet

    if not path.exists():
        raise PalimpsestError(f"{path} does not exist: run inference for this model and precision.")
    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise PalimpsestError(f"{path} is not a readable parquet file ({error}): run inference again.") from None
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise PalimpsestError(f"{path} lacks the column {missing[0]!r}: run inference again.")
    return table


def _reject_duplicates(ids: list[int], where: str) -> None:
    for left, right in pairwise(ids):
        if left == right:
            raise PalimpsestError(f"{where} holds the id {left} twice: run inference again.")


def write_responses(responses: Sequence[Response], path: Path) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(response), ensure_ascii=False) + "\n" for response in responses)


def write_log_probs(splits: dict[str, list[list[float]]], path: Path) -> None:
    """One row a text: split, id, log_probs.

    The columns are laid out by hand: pyarrow.array would import pandas, a second's work,
    to ask whether a list is its Series.
    """
    import pyarrow
    import pyarrow.parquet

    names = [split for split, texts in splits.items() for _ in texts]
    ids = [i for texts in splits.values() for i in range(len(texts))]
    rows = [values for texts in splits.values() for values in texts]
    columns = [_strings(names), _array(ids, pyarrow.int64()), _lists(rows, pyarrow.float32())]
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(columns, names=["split", "id", "log_probs"]), path)


def write_answers(answers: Sequence[AnswerTokens], path: Path) -> None:
    """One row an answer: the fields of AnswerTokens."""
    import pyarrow
    import pyarrow.parquet

    columns = {
        "task": _strings([each.task for each in answers]),
        "id": _array([each.id for each in answers], pyarrow.int64()),
        "log_probs": _lists([each.log_probs for each in answers], pyarrow.float32()),
        "predicted": _lists([each.predicted for each in answers], pyarrow.int32()),
        "true": _lists([each.true for each in answers], pyarrow.int32()),
        "ending": _array([each.ending for each in answers], pyarrow.int64()),
    }
    kinds = {"size": pyarrow.int64(), "gradient": pyarrow.float32()}
    for name in OPTIONAL:
        values = [getattr(each, name) for each in answers]
        if any(value is not None for value in values):
            filled = [NOT_ASKED[name] if value is None else value for value in values]
            columns[name] = _array(filled, kinds[name]) if name in kinds else _lists(filled, pyarrow.float32())
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays([*columns.values()], names=[*columns]), path)


def _strings(names: Sequence[str]) -> pyarrow.Array:
    import pyarrow

    letters = "".join(names).encode("ascii")
    return pyarrow.StringArray.from_buffers(len(names), _offsets(names).buffers()[1], pyarrow.py_buffer(letters))


def _lists(rows: Sequence[Sequence[float]], kind: pyarrow.DataType) -> pyarrow.Array:
    import pyarrow

    return pyarrow.ListArray.from_arrays(_offsets(rows), _array([value for row in rows for value in row], kind))


def _array(values: Sequence[float], kind: pyarrow.DataType) -> pyarrow.Array:
    import pyarrow

    numbers = np.array(values, dtype=kind.to_pandas_dtype())
    return pyarrow.Array.from_buffers(kind, len(values), [None, pyarrow.py_buffer(numbers)])


def _offsets(items: Sequence[Sequence[Any]]) -> pyarrow.Array:
    """Where each item begins when all are laid end to end, and the end."""
    import pyarrow

    return _array([0, *itertools.accumulate(map(len, items))], pyarrow.int32())
