"""Rows that void a metric, because they stand twice: a text that is to be told apart from itself, a question that is to
be forgotten and kept, a prompt that shows its answer."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from palimpsest.corpus.corpus import Corpus
from palimpsest.corpus.words import normalised, unicode_words
from palimpsest.errors import PalimpsestError

SHOWN = 5
"""Words of an answer from which on it is no chance that it stands in a prompt."""

KINDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "question": ("a question counts once, and cannot be forgotten and kept", ("forget_qa", "retain_qa")),
    "prompt": ("a prompt counts once", ("verbmem",)),
    "text": (
        "PrivLeak would compare a text with itself",
        ("privleak_forget", "privleak_retain", "privleak_holdout"),
    ),
}
"""By the field that is compared: why no two rows may have the same, and the splits whose rows are compared."""

PLACES = {
    "forget_qa": "knowmem/forget_qa",
    "retain_qa": "knowmem/retain_qa",
    "verbmem": "verbmem/forget",
    "privleak_forget": "privleak/forget",
    "privleak_retain": "privleak/retain",
    "privleak_holdout": "privleak/holdout",
}
"""Where a folder in MUSE layout has them."""


def check_repeats(corpus: Corpus, at_most: int) -> int:
    """How many scored rows repeat another or show their own answer; raises PalimpsestError above `at_most`, which names
    the first and its twin.

    Compared, `normalised`: questions of the forget and the retain set, verbatim prompts, and passages of the three
    splits of PrivLeak, within a split and between them. A verbatim prompt shows its continuation where that has at
    least SHOWN words and stands in it.
    """
    found = [*_repeated(corpus), *_shown(corpus)]
    if len(found) > at_most:
        raise PalimpsestError(
            f"{found[0]}; remove one, or raise corpus.checks.repeats_at_most ({at_most}) to take a benchmark as it is "
            f"(it has {len(found)} such rows)."
        )
    return len(found)


def _repeated(corpus: Corpus) -> Iterator[str]:
    for field, (reason, splits) in KINDS.items():
        seen: dict[str, str] = {}
        for split in splits:
            rows = getattr(corpus, split)
            for number, text in enumerate(_texts(rows, field)):
                row, form = place_of(rows, number, PLACES[split]), normalised(text)
                if form in seen:  # one file given for two splits has the same place in both
                    again = f"{row}, in {PLACES[split]}," if seen[form] == row else row
                    yield f"{again} is also {seen[form]}: {reason}"
                else:
                    seen[form] = row


def _texts(rows: Iterable[Any], field: str) -> list[str]:
    return [row if isinstance(row, str) else getattr(row, field) for row in rows]


def place_of(rows: Sequence[Any], number: int, part: str) -> str:
    """Where a row is: in the user's own file, or in a part of MUSE's layout."""
    return getattr(rows[number], "place", "") or f"row {number} of {part}"


def _shown(corpus: Corpus) -> Iterator[str]:
    for number, row in enumerate(corpus.verbmem):
        answer = long_answer(row.gt)
        if answer and answer in as_words(row.prompt):
            place = place_of(corpus.verbmem, number, PLACES["verbmem"])
            yield f"{place} has its continuation in its prompt: whoever copies it is right"


def as_words(text: str) -> str:
    """The words of a text, a blank before and after each."""
    return f" {' '.join(unicode_words(text))} "


def long_answer(text: str) -> str:
    """`as_words` of an answer of at least SHOWN words, of another nothing."""
    words = as_words(text)
    return words if len(words.split()) >= SHOWN else ""
