"""TOFU (Maini et al., arXiv 2401.06121), of a local folder or of the hub: questions on invented authors, with
paraphrased and wrong answers, and questions on real authors and the world.

Every author has 20 questions, in a row. A record's id is its number in its file, its subject the author's there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from palimpsest.corpus.corpus import Corpus, RecordQuestion
from palimpsest.corpus.files import cleaned
from palimpsest.corpus.hub import Load, cannot_load, opened
from palimpsest.corpus.records import rows_of_file
from palimpsest.corpus.words import is_blank
from palimpsest.errors import PalimpsestError, first_line
from palimpsest.vocabulary import HOLDOUT, REAL_AUTHORS, SPLITS, WORLD_FACTS

KEY = "corpus.settings"
EACH = 20
"""Questions on an author."""

WORLD = {REAL_AUTHORS: "real_authors_perturbed", WORLD_FACTS: "world_facts_perturbed"}
"""Sets of questions on the world by our name: theirs."""

WRONG = ("retain_perturbed", "forget10_perturbed", "forget10", "forget05_perturbed", "forget05")
"""Files and configs that may have wrong answers to questions of a retain set. What is forgotten by a small forget set
is in the larger ones, too."""

SUFFIXES = (".json", ".jsonl")
NO_TEXTS = (*SPLITS, "forget_icl", "retain_icl", "verbmem", *(f"privleak_{split}" for split in SPLITS))
"""What a corpus of questions has nothing of."""
LOCAL = f"set {KEY}.path to a folder with its files (data/README.md)"

Rows = list[tuple[str, Any]]
"""Place and value of each."""
Read = Callable[[str], Rows | None]
"""Of the name of a file or config; None where there is none of the name."""


def load_tofu(
    path: str,
    forget_split: str,
    retain_split: str,
    wrong_answers: bool,
    world: bool,
    holdout_split: str | None = None,
    retain_authors: int | None = None,
    holdout_authors: int | None = None,
) -> Corpus:
    """The corpus of a folder with TOFU's files, or of locuslab/TOFU on the hub.

    forget_split, retain_split, holdout_split: names such as forget10, retain90, holdout10. wrong_answers: whether the
    paraphrased and the wrong answers are taken, which truth ratio and model utility need. world: whether the questions
    on real authors and the world are. retain_authors: how many authors of the retain set are taken, first those whose
    questions have wrong answers, then others, evenly spread; None: all. holdout_authors: so many of the others are
    never trained on and stand for a holdout set, in place of holdout_split.

    Of a retain set in which some questions have wrong answers, only those are asked; all are trained on. Raises
    PalimpsestError for what is not there, or not as TOFU has it.
    """
    _check(holdout_split, retain_authors, holdout_authors)
    with _reader(path) as read:
        forget = _forget(read, path, forget_split, wrong_answers)
        known = _answers(read) if wrong_answers else {}
        retain = [_with(known, each) for each in _authors(_needed(read, path, retain_split), retain_split)]
        _check_apart(forget, retain)
        kept, held = _choose(retain, retain_authors, holdout_authors)
        if holdout_split is not None:
            held = _authors(_needed(read, path, holdout_split), holdout_split)
            _check_apart(held, [*forget, *kept])
        others = {HOLDOUT: held} if held else {}
        if world:
            others |= {name: _world(read, path, theirs, wrong_answers) for name, theirs in WORLD.items()}
    if any(each.wrong for each in kept):
        kept = [replace(each, asked=bool(each.wrong)) for each in kept]
    none: dict[str, Any] = {name: [] for name in NO_TEXTS}
    return Corpus(forget_qa=list(forget), retain_qa=list(kept), others=others, **none)


def _check(holdout_split: str | None, retain_authors: int | None, holdout_authors: int | None) -> None:
    if holdout_authors is None:
        return
    if holdout_split is not None:
        raise PalimpsestError(f"{KEY} has holdout_split and holdout_authors: give the one or the other.")
    if retain_authors is None:
        raise PalimpsestError(
            f"{KEY}.holdout_authors is {holdout_authors}, and without retain_authors all of the retain set is trained "
            "on: give both, or a holdout_split."
        )


@contextmanager
def _reader(path: str) -> Iterator[Read]:
    folder = Path(path)
    if folder.is_dir():

        def read_file(name: str) -> Rows | None:
            file = next((folder / f"{name}{each}" for each in SUFFIXES if (folder / f"{name}{each}").is_file()), None)
            return None if file is None else list(rows_of_file(file))

        yield read_file
        return
    with opened(path, f"{KEY}.path") as load:
        yield config_reader(path, load)


def config_reader(path: str, load: Load) -> Read:
    """Of a dataset whose configs have the names of TOFU's files, each with the one split `train`."""

    def read(name: str) -> Rows | None:
        try:
            rows = load(name, "train").to_list()
        except OSError as error:
            raise cannot_load(f"dataset {path!r} (config {name!r})", path, error, LOCAL) from error
        except ValueError as error:
            if name in WRONG or name.endswith("_perturbed"):
                return None
            raise PalimpsestError(f"dataset {path!r} has no config {name!r} ({first_line(error)}).") from error
        return [(f"{path}, {name}, row {number}", row) for number, row in enumerate(rows, start=1)]

    return read


def _needed(read: Read, path: str, name: str) -> Rows:
    rows = read(name)
    if rows is None:
        raise PalimpsestError(f"{path} has no {name}.json: get TOFU's file of that name, or name another.")
    return rows


def _forget(read: Read, path: str, name: str, wrong_answers: bool) -> list[RecordQuestion]:
    rows = (read(f"{name}_perturbed") if wrong_answers else None) or _needed(read, path, name)
    found = _authors(rows, name)
    if not wrong_answers:
        return [replace(each, paraphrased=None, wrong=()) for each in found]
    for each in found:
        if each.paraphrased is None or not each.wrong:
            raise PalimpsestError(
                f"{each.place} has no paraphrased and wrong answers: get TOFU's {name}_perturbed, or set "
                f"{KEY}.wrong_answers to false."
            )
    return found


def _answers(read: Read) -> dict[tuple[str, str], RecordQuestion]:
    """The questions that have wrong answers, in all that is there, by question and answer."""
    found: dict[tuple[str, str], RecordQuestion] = {}
    for name in WRONG:
        for number, (place, row) in enumerate(read(name) or ()):
            each = _question(place, row, number, None)
            if each.wrong and each.paraphrased is not None:
                found.setdefault((each.question, each.answer), each)
    return found


def _with(known: Mapping[tuple[str, str], RecordQuestion], each: RecordQuestion) -> RecordQuestion:
    twin = known.get((each.question, each.answer))
    return each if twin is None else replace(each, paraphrased=twin.paraphrased, wrong=twin.wrong)


def _world(read: Read, path: str, name: str, wrong_answers: bool) -> list[RecordQuestion]:
    found = [_question(place, row, number, None) for number, (place, row) in enumerate(_needed(read, path, name))]
    return found if wrong_answers else [replace(each, paraphrased=None, wrong=()) for each in found]


def _authors(rows: Rows, name: str) -> list[RecordQuestion]:
    if not rows or len(rows) % EACH:
        raise PalimpsestError(
            f"{KEY}: {name} has {len(rows)} records, and TOFU has {EACH} of every author: get the whole file, or use "
            "corpus.source: records."
        )
    return [_question(place, row, number, str(number // EACH)) for number, (place, row) in enumerate(rows)]


def _question(place: str, row: Any, number: int, subject: str | None) -> RecordQuestion:
    if not isinstance(row, Mapping):
        raise PalimpsestError(f"{place} is a {type(row).__name__}, and TOFU's rows are objects: get the file anew.")
    question, answer = (_text(place, row, name) for name in ("question", "answer"))
    paraphrased = row.get("paraphrased_answer")
    wrong = row.get("perturbed_answer") or ()
    if isinstance(wrong, str) or not isinstance(wrong, Sequence):
        raise PalimpsestError(f"{place}: perturbed_answer is no list of wrong answers: get the file anew.")
    given = {f"wrong answer {i}": each for i, each in enumerate(wrong)}
    return RecordQuestion(
        question,
        answer,
        id=str(number),
        subject=subject,
        place=place,
        paraphrased=None if paraphrased is None else _text(place, row, "paraphrased_answer"),
        wrong=tuple(_text(place, given, name) for name in given),
    )


def _text(place: str, row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or is_blank(value):
        raise PalimpsestError(f"{place} has no {name}, or an empty one: get the file anew, or mend the record.")
    return cleaned(value, f"{place}: {name}")


def _check_apart(one: Sequence[RecordQuestion], other: Sequence[RecordQuestion]) -> None:
    places = {(each.question, each.answer): each.place for each in other}
    for each in one:
        if twin := places.get((each.question, each.answer)):
            raise PalimpsestError(
                f"{each.place} is also {twin}: forget, retain and holdout must be apart; forget10 goes with retain90, "
                "forget05 with retain95, forget01 with retain99."
            )


def _choose(
    retain: list[RecordQuestion], authors: int | None, held: int | None
) -> tuple[list[RecordQuestion], list[RecordQuestion]]:
    """What is trained on, and what stands for a holdout set."""
    if authors is None:
        return retain, []
    by_author = [retain[start : start + EACH] for start in range(0, len(retain), EACH)]
    if authors + (held or 0) > len(by_author):
        raise PalimpsestError(
            f"{KEY} asks for {authors} retain and {held or 0} holdout authors, and the file has {len(by_author)}: "
            "lower retain_authors or holdout_authors."
        )
    with_wrong = [i for i, rows in enumerate(by_author) if any(each.wrong for each in rows)][:authors]
    others = [i for i in range(len(by_author)) if i not in with_wrong]
    chosen = [*with_wrong, *_spread(others, authors - len(with_wrong))]
    rest = _spread([i for i in range(len(by_author)) if i not in chosen], held or 0)
    return [row for i in sorted(chosen) for row in by_author[i]], [row for i in rest for row in by_author[i]]


def _spread(places: Sequence[int], count: int) -> list[int]:
    """So many of them, evenly spread."""
    return [places[i * len(places) // count] for i in range(count)] if count else []
