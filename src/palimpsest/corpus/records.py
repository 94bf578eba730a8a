"""Records of the user's own: JSON lines, or a JSON list, of objects with a question and its answer, a text, or both.

Every mistake is one line that names file and row. TOFU's files are read as they are.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from palimpsest.corpus.files import cleaned, json_lines, read_text, reason_of
from palimpsest.corpus.words import is_blank
from palimpsest.errors import PalimpsestError
from palimpsest.vocabulary import SPLITS

QUESTION, ANSWER, TEXT = "question", "answer", "text"
KEYS = (QUESTION, ANSWER, TEXT, "id", "subject", "split")
SUFFIXES = (".jsonl", ".ndjson", ".json")
SWAPPED = "perturbed_subject"
"""TOFU's files have it: what `subject` there is replaced by in a question. Beside it `subject` is a phrase of the
question, a town as often as a person, and not whom the record is about."""
SHOWN = 60


@dataclass(frozen=True)
class Record:
    """A record as the user has it. split: where the record itself names one. place: file and row, for messages.
    of_tofu: it is from a file of TOFU that has wrong answers too."""

    place: str
    question: str | None
    answer: str | None
    text: str | None
    id: str | None
    subject: str | None
    split: str | None
    of_tofu: bool = False


def read_records(path: Path, key: str) -> list[Record]:
    """The records of a file, or of the files of a folder in the order of their names.

    key: of params.yaml, for the message. Raises PalimpsestError, which names file and row, for a file that is missing,
    empty, not UTF-8 or not JSON, and for a row that is no record.
    """
    found = [record for file in record_files(path, key) for record in _read_file(file)]
    if not found:
        raise PalimpsestError(f"{key}: {path} has no records: give at least one.")
    return found


def record_files(path: Path, key: str) -> list[Path]:
    """The file itself, or those of a folder that end in one of SUFFIXES."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
        if not files:
            raise PalimpsestError(f"{key}: the folder {path} has no file that ends in {', '.join(SUFFIXES)}.")
        return files
    if not path.is_file():
        raise PalimpsestError(f"{key}: {path} does not exist: give a file of records (JSON lines or a JSON list).")
    return [path]


def _read_file(file: Path) -> Iterator[Record]:
    rows = list(rows_of_file(file))
    if not rows:
        raise PalimpsestError(f"{file} is empty: give at least one record.")
    for place, row in rows:
        yield _record(place, row)


def rows_of_file(file: Path) -> Iterator[tuple[str, Any]]:
    """Place and value of each row: of a JSON list by number, of JSON lines by line; both count from 1."""
    text = read_text(file)
    if text.lstrip().startswith("["):
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PalimpsestError(
                f"{file} begins as a JSON list and is none ({reason_of(error)}): correct it."
            ) from None
        yield from ((f"{file}, record {number}", value) for number, value in enumerate(values, start=1))
        return
    yield from json_lines(file, "write one record on each line, or a JSON list", text)


def _record(place: str, row: Any) -> Record:
    if not isinstance(row, dict):
        raise PalimpsestError(
            f"{place} is a {type(row).__name__}: write an object with {QUESTION} and {ANSWER}, or {TEXT}."
        )
    question, answer, text = (_text(place, row, name) for name in (QUESTION, ANSWER, TEXT))
    if question is not None and answer is None:
        raise PalimpsestError(f"{place} has a question and no answer: add it, or remove the record.")
    if answer is not None and question is None:
        raise PalimpsestError(f"{place} has an answer and no question: add it, or remove the record.")
    if question is None and text is None:
        raise PalimpsestError(
            f"{place} has neither {QUESTION} and {ANSWER} nor {TEXT}: add them, or remove the record."
        )
    _reject_misspelt(place, row)
    split = row.get("split")
    if split is not None and split not in SPLITS:
        raise PalimpsestError(f"{place} has the split {_shown(split)}: write {', '.join(SPLITS)}, or leave it out.")
    of_tofu = SWAPPED in row
    subject = None if of_tofu else _label(place, row, "subject")
    return Record(place, question, answer, text, _label(place, row, "id"), subject, split, of_tofu)


def _reject_misspelt(place: str, row: dict[str, Any]) -> None:
    """Keys of other tools may stand in a record; one that is nearly ours would be left out without a word."""
    for key in row:
        near = get_close_matches(str(key).lower(), KEYS, 1, 0.8) if key not in KEYS else []
        if near and near[0] not in row:
            raise PalimpsestError(f"{place} has the key {_shown(key)}: did you mean {near[0]}?")


def _text(place: str, row: dict[str, Any], name: str) -> str | None:
    value = row.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise PalimpsestError(f"{place}: {name} is {_shown(value)}, which is no text: put it in quotes.")
    text = cleaned(value, f"{place}: {name}")
    if is_blank(text):
        raise PalimpsestError(f"{place} has an empty {name}: fill it, or remove the record.")
    return text


def _label(place: str, row: dict[str, Any], name: str) -> str | None:
    """An id or a subject: a text on one line, or a whole number."""
    value = row.get(name)
    if value is None:
        return None
    if type(value) is int:
        return str(value)
    if not isinstance(value, str) or not value.strip() or not cleaned(value, f"{place}: {name}").isprintable():
        raise PalimpsestError(f"{place}: {name} is {_shown(value)}: give a text on one line, or a whole number.")
    return value.strip()


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def with_ids(records: Sequence[Record]) -> list[tuple[str, Record]]:
    """Each record with its id; without one, its number in the split, from 0. Raises PalimpsestError for an id that two
    records have."""
    places: dict[str, str] = {}
    named = []
    for number, record in enumerate(records):
        name = str(number) if record.id is None else record.id
        if name in places:
            said = f"the id {name!r}" if record.id is not None else f"no id, and its number {name}"
            raise PalimpsestError(
                f"{record.place} has {said}, which {places[name]} has too: give every record an id of its own."
            )
        places[name] = record.place
        named.append((name, record))
    return named
