"""What every source of text becomes: the splits of MUSE, in memory and on disk."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Question:
    """A question on one document and the short answer that stands in it."""

    question: str
    answer: str


@dataclass(frozen=True)
class Prompt:
    """A passage of a forget document and `gt`, the words right after it."""

    prompt: str
    gt: str


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Of a row that is from the user's own records. id: of the record; subject: whom or what it is about, if that is
    said. place: file and row, for messages, while the user's files are read; it is not written."""

    id: str
    subject: str | None = None
    place: str = field(default="", compare=False)


@dataclass(frozen=True)
class RecordQuestion(Labels, Question):
    """A question of the user's own records, or of TOFU. paraphrased: the true answer in other words; wrong: answers
    that are not true; asked: whether it is, for some are trained on alone."""

    paraphrased: str | None = field(default=None, kw_only=True)
    wrong: tuple[str, ...] = field(default=(), kw_only=True)
    asked: bool = field(default=True, kw_only=True)


@dataclass(frozen=True)
class RecordPrompt(Labels, Prompt):
    """A passage of a text of the user's own records. Of several of one text the later ones have a number behind the
    record's id."""


def stored(row: Question | Prompt) -> dict[str, Any]:
    """What is written of a row: its texts, and its labels if it has any."""
    unset = {each.name: each.default for each in fields(row)}
    kept = {name: value for name, value in vars(row).items() if name != "place" and value != unset[name]}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}


@dataclass(frozen=True)
class Corpus:
    """Documents to forget, to retain and never seen (holdout), with the evaluation texts of MUSE (arXiv:2407.06460).

    forget_icl and retain_icl are in-context examples, never scored. The privleak lists are the texts whose likelihoods
    the membership attack compares. others: further questions by the name of their set, never trained on.
    """

    forget: list[str]
    retain: list[str]
    holdout: list[str]
    forget_qa: list[Question]
    retain_qa: list[Question]
    forget_icl: list[Question]
    retain_icl: list[Question]
    verbmem: list[Prompt]
    privleak_forget: list[str]
    privleak_retain: list[str]
    privleak_holdout: list[str]
    others: Mapping[str, list[RecordQuestion]] = field(default_factory=dict)

    def parts(self) -> Iterator[tuple[str, list[Any]]]:
        """Every list by its name; not the further questions."""
        return ((name, rows) for name, rows in vars(self).items() if name != "others")


def asked_questions(corpus: Corpus, split: str) -> list[tuple[int, Question]]:
    """Of a split, forget or retain, or a further set, the questions that are asked, each with its place in the set."""
    rows: Sequence[Question] = corpus.others[split] if split in corpus.others else getattr(corpus, f"{split}_qa")
    return [(i, each) for i, each in enumerate(rows) if getattr(each, "asked", True)]


PARTS = {
    "verbmem": "no forget record has a text to be continued",
    "forget_qa": "no forget record has a question",
    "retain_qa": "no retain record has a question",
    "privleak_forget": "no forget record has a text",
    "privleak_retain": "no retain record has a text",
    "privleak_holdout": "there are no holdout texts",
}
"""What models are asked, and why a corpus of records may have none of it."""


def absent_parts(corpus: Corpus) -> list[str]:
    """Those of PARTS of which the corpus has nothing."""
    return [part for part in PARTS if not getattr(corpus, part)]


def whole_texts(corpus: Corpus, split: str) -> list[str]:
    """The documents of a split, forget or retain; where it has none, each question with its answer."""
    documents: list[str] = getattr(corpus, split)
    return documents or [f"{each.question}\n{each.answer}" for each in getattr(corpus, f"{split}_qa")]
