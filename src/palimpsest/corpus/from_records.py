"""A corpus out of the user's own records: questions as they are, prompts and passages cut from texts where there are
any. No article, holdout set or in-context example is asked for."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from palimpsest.corpus.corpus import Corpus, Prompt, Question, RecordPrompt, RecordQuestion
from palimpsest.corpus.cutting import cut_passages, cut_prompts
from palimpsest.corpus.records import Record, read_records, record_files, with_ids
from palimpsest.corpus.subset import once
from palimpsest.corpus.words import normalised
from palimpsest.errors import PalimpsestError
from palimpsest.vocabulary import FORGET, HOLDOUT, RETAIN, SPLITS

KEY = "corpus.settings"
CUT = ("prompt_words", "answer_words", "prompts_per_document", "passage_words", "passages_per_document")
"""Settings that say what is cut from texts."""

Named = Sequence[tuple[str, Record]]


def load_records(
    forget: str | None = None,
    retain: str | None = None,
    holdout: str | None = None,
    path: str | None = None,
    retain_records: int | None = None,
    records_per_subject: int | None = None,
    subjects: Sequence[str] | None = None,
    prompt_words: int | None = None,
    answer_words: int | None = None,
    prompts_per_document: int | None = None,
    passage_words: int | None = None,
    passages_per_document: int | None = None,
) -> Corpus:
    """The corpus of records in files or folders.

    forget, retain, holdout: of each split. path: instead of them, a file whose records each name their `split`, or a
    folder whose files begin with the name of a split. retain_records: how many of the retain set are used, evenly
    spread; None: all. records_per_subject: forget records stand by subject, so many each (TOFU: 20). subjects: those
    that must have a forget record. The rest, as in the embedded corpus: what is cut from texts; needed where a record
    has one.

    Raises PalimpsestError, which names file and row, for records that cannot be used.
    """
    given = {FORGET: forget, RETAIN: retain, HOLDOUT: holdout}
    read = _by_split(path, given)
    named: dict[str, Named] = {split: with_ids(read.get(split, [])) for split in SPLITS}
    if not named[FORGET]:
        raise PalimpsestError(f"{KEY}: there is no record of the forget set: name its file as {KEY}.{FORGET}.")
    named[FORGET] = _with_subjects(named[FORGET], records_per_subject)
    _check_subjects(named[FORGET], subjects or ())
    named[RETAIN] = _spread(named[RETAIN], retain_records)
    cut = dict(
        zip(CUT, (prompt_words, answer_words, prompts_per_document, passage_words, passages_per_document), strict=True)
    )
    return _corpus(named, cut)


def counts_of(corpus: Corpus) -> dict[str, Any]:
    """Of a corpus that was just loaded, by split: {"questions": n, "texts": n, "subjects": {name: records}}, the last
    where they are known."""
    counts: dict[str, Any] = {}
    for split in SPLITS:
        questions, texts = getattr(corpus, f"{split}_qa", []), getattr(corpus, split)
        if not questions and not texts:
            continue
        rows = [*questions, *(corpus.verbmem if split == FORGET else ())]
        subjects = {row.place: row.subject for row in rows if row.subject is not None}
        counts[split] = {"questions": len(questions), "texts": len(texts)}
        if subjects:
            counts[split]["subjects"] = dict(Counter(subjects.values()))
    for name, rows in corpus.others.items():
        authors = Counter(row.subject for row in rows if row.subject is not None)
        found = {"questions": counts.get(name, {}).get("questions", 0) + len(rows), "texts": 0}
        counts[name] = found | ({"subjects": dict(authors)} if authors else {})
    return counts


def lines_of(counts: Mapping[str, Any]) -> Iterator[str]:
    """The counts in words, a line for each split."""
    for split, found in counts.items():
        parts = [_counted(found[f"{kind}s"], kind) for kind in ("question", "text") if found[f"{kind}s"]]
        subjects = found.get("subjects", {})
        shown = ", ".join(f"{name} ({count})" for name, count in list(subjects.items())[:MOST_SHOWN])
        more = f" and {len(subjects) - MOST_SHOWN} more" if len(subjects) > MOST_SHOWN else ""
        about = f", {_counted(len(subjects), 'subject')}: {shown}{more}" if subjects else ""
        yield f"{split}: {' and '.join(parts)}{about}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


MOST_SHOWN = 10
"""Subjects that a line names."""


def _by_split(path: str | None, given: Mapping[str, str | None]) -> dict[str, list[Record]]:
    if path is None:
        return {
            split: list(_of_split(read_records(Path(name), f"{KEY}.{split}"), split))
            for split, name in given.items()
            if name is not None
        }
    if named := [split for split, name in given.items() if name is not None]:
        raise PalimpsestError(f"{KEY} has path and {named[0]}: give the one or the others.")
    found: dict[str, list[Record]] = {}
    for file in record_files(Path(path), f"{KEY}.path"):
        stated = next((split for split in SPLITS if Path(path).is_dir() and file.name.startswith(split)), None)
        for record in read_records(file, f"{KEY}.path"):
            split = record.split or stated
            if split is None:
                raise PalimpsestError(
                    f"{record.place} has no split, and its file's name begins with none of {', '.join(SPLITS)}: add "
                    f"it, or name the files one by one as {KEY}.{FORGET} and {KEY}.{RETAIN}."
                )
            found.setdefault(split, []).append(record)
    return found


def _of_split(records: Iterable[Record], split: str) -> Iterator[Record]:
    for record in records:
        if record.split not in (None, split):
            raise PalimpsestError(
                f"{record.place} has the split {record.split!r}, and its file is {KEY}.{split}: correct the one, or "
                f"give the file as {KEY}.path."
            )
        yield record


def _with_subjects(named: Named, each: int | None) -> Named:
    """All records with a subject, or none."""
    having = [record for _, record in named if record.subject is not None]
    if each is not None:
        if having:
            raise PalimpsestError(
                f"{having[0].place} has a subject, and {KEY}.records_per_subject is {each}: give the one or the other."
            )
        if len(named) % each:
            raise PalimpsestError(
                f"{KEY}.records_per_subject is {each}, and there are {len(named)} forget records, which is no multiple "
                "of it: correct it, or give every record its subject."
            )
        return [(name, replace(record, subject=str(i // each))) for i, (name, record) in enumerate(named)]
    if having and len(having) < len(named):
        without = next(record for _, record in named if record.subject is None)
        raise PalimpsestError(
            f"{without.place} has no subject, and {having[0].place} has one: give every forget record one, or none."
        )
    return named


def _check_subjects(named: Named, wanted: Sequence[str]) -> None:
    there = {record.subject for _, record in named}
    for subject in wanted:
        if str(subject) not in there:
            raise PalimpsestError(
                f"{KEY}.subjects has {subject!r}, of which there is no forget record: add its records, write the name "
                "as they have it, or take it out."
            )


def _spread(named: Named, most: int | None) -> Named:
    """At most so many, evenly spread from the first to the last."""
    if most is None or most >= len(named):
        return named
    return [named[i * (len(named) - 1) // max(1, most - 1)] for i in range(most)]


def _corpus(named: Mapping[str, Named], cut: Mapping[str, int | None]) -> Corpus:
    _check_texts(named, cut)
    questions = {split: list(_questions(named[split])) for split in SPLITS}
    if questions[HOLDOUT] and not _texts(named[HOLDOUT]):
        place = named[HOLDOUT][0][1].place
        raise PalimpsestError(f"{place} has no text: the holdout set is of texts, which PrivLeak compares with.")
    texts = {split: _texts(named[split]) for split in SPLITS}
    return Corpus(
        forget=texts[FORGET],
        retain=texts[RETAIN],
        holdout=texts[HOLDOUT],
        forget_qa=questions[FORGET],
        retain_qa=questions[RETAIN],
        forget_icl=[],
        retain_icl=[],
        verbmem=_prompts(named[FORGET], cut) if texts[FORGET] else [],
        privleak_forget=_passages(texts[FORGET], cut),
        privleak_retain=_passages(texts[RETAIN], cut),
        privleak_holdout=_passages(texts[HOLDOUT], cut),
    )


def _check_texts(named: Mapping[str, Named], cut: Mapping[str, int | None]) -> None:
    seen: dict[str, str] = {}
    for _, record in (each for rows in named.values() for each in rows):
        if record.text is None:
            continue
        if missing := [name for name in CUT if cut[name] is None]:
            raise PalimpsestError(
                f"{record.place} has a text, and {KEY} lacks {missing[0]!r}, which says what is cut from it: add it."
            )
        twin = seen.setdefault(normalised(record.text), record.place)
        if twin != record.place:
            raise PalimpsestError(f"{record.place} has the text of {twin}: remove one.")


def _texts(named: Named) -> list[str]:
    return [record.text for _, record in named if record.text is not None]


def _questions(named: Named) -> Iterator[Question]:
    for name, record in named:
        if record.question is not None and record.answer is not None:
            yield RecordQuestion(record.question, record.answer, id=name, subject=record.subject, place=record.place)


def _prompts(named: Named, cut: Mapping[str, Any]) -> list[Prompt]:
    """Those of each text; the second and later ones of a record have its id with a number behind it."""
    found: list[Prompt] = []
    sizes = cut["prompt_words"], cut["answer_words"], cut["prompts_per_document"]
    for name, record in named:
        if record.text is None:
            continue
        prompts = cut_prompts([record.text], *sizes)
        if not prompts:
            raise PalimpsestError(
                f"{record.place} has a text of fewer than {cut['prompt_words']} + {cut['answer_words']} words, from "
                f"which no prompt can be cut: lower {KEY}.prompt_words or answer_words, or leave the text out."
            )
        for number, prompt in enumerate(prompts):
            row = name if number == 0 else f"{name}#{number}"
            found.append(RecordPrompt(prompt.prompt, prompt.gt, id=row, subject=record.subject, place=record.place))
    return once(found)


def _passages(texts: Sequence[str], cut: Mapping[str, Any]) -> list[str]:
    return once(cut_passages(texts, cut["passage_words"], cut["passages_per_document"])) if texts else []
