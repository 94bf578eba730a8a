"""A small study out of a big corpus: the articles that carry most questions, cut to length,
with everything re-cut from them."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import log
from typing import TypeVar

import regex

from palimpsest.corpus.corpus import Corpus, Prompt, Question
from palimpsest.corpus.cutting import cut_passages, cut_prompts, require_positive
from palimpsest.corpus.words import by_character_if_unspaced, normalised, word_spans
from palimpsest.errors import PalimpsestError
from palimpsest.vocabulary import FORGET, HOLDOUT, RETAIN

SHARE_OF_QUESTION = 0.6
"""A question belongs to a text that holds its answer
and at least this share of its content words, weighted by rarity."""

SENTENCE_END = regex.compile(r"\p{Sentence_Terminal}[\"'”’)\u300d\u300f\uff09]*$")

Row = TypeVar("Row", str, Prompt)

Carried = dict[str, list[Question]]
"""Texts with the questions that each answers."""

STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be been by did do does for from had has have he her his how in into is it its many much of "
        "on or s said say says she that the their them they this to up was were what when where which who whom whose "
        "why will with would according about after before",
    )
)


def choose_subset(
    corpus: Corpus,
    forget_documents: int,
    retain_documents: int,
    holdout_documents: int,
    max_words: int,
    prompt_words: int,
    answer_words: int,
    prompts_per_document: int,
    passage_words: int,
    passages_per_document: int,
) -> Corpus:
    """The forget and retain articles with the most questions, and the first holdout articles; no randomness.

    Every question goes to the document it belongs to (see find_articles). Every document is cut to whole
    sentences, at most `max_words` words: the passage that keeps most of its questions, the first such; those that
    are then too short for one prompt and one passage drop out, and so do repeated texts. Ties go to the document
    that stands first; the order of the corpus is kept. The texts of privleak/retain are retain documents too (in
    MUSE-News most retain questions are about them). Questions that no chosen text answers are dropped; in-context
    examples stay. Verbatim prompts and PrivLeak passages are cut anew, each once. Raises PalimpsestError when a split
    has too few documents or gets no question.
    """
    shortest = max(prompt_words + answer_words, passage_words)
    require_positive(
        max_words=max_words, prompt_words=prompt_words, answer_words=answer_words, passage_words=passage_words
    )

    def usable(split: str, wanted: int, documents: Sequence[str], questions: Sequence[Question] = ()) -> Carried:
        carried = cut_documents(documents, questions, max_words)
        carried = {text: asked for text, asked in carried.items() if len(word_spans(text)) >= shortest}
        if not 1 <= wanted <= len(carried):
            raise PalimpsestError(
                f"subset {split}_documents is {wanted}: choose 1 to {len(carried)}, the {split} documents that have at "
                f"least {shortest} words once cut to whole sentences within max_words = {max_words}."
            )
        return carried

    def most_asked(
        split: str, wanted: int, documents: Sequence[str], questions: Sequence[Question]
    ) -> tuple[list[str], list[Question]]:
        carried = usable(split, wanted, documents, questions)
        favoured = sorted(carried, key=lambda text: -len(carried[text]))[:wanted]  # sorted() keeps the order of equals
        chosen = [text for text in carried if text in set(favoured)]
        asked = [question for text in chosen for question in carried[text]]
        if not asked:
            raise PalimpsestError(
                f"no {split} question is answered by the {wanted} chosen documents: "
                f"raise max_words ({max_words}) in subset."
            )
        return chosen, asked

    forget, forget_qa = most_asked(FORGET, forget_documents, corpus.forget, corpus.forget_qa)
    retain, retain_qa = most_asked(
        RETAIN, retain_documents, [*corpus.retain, *corpus.privleak_retain], corpus.retain_qa
    )
    holdout = list(usable(HOLDOUT, holdout_documents, corpus.holdout))[:holdout_documents]
    return Corpus(
        forget=forget,
        retain=retain,
        holdout=holdout,
        forget_qa=forget_qa,
        retain_qa=retain_qa,
        forget_icl=corpus.forget_icl,
        retain_icl=corpus.retain_icl,
        verbmem=once(cut_prompts(forget, prompt_words, answer_words, prompts_per_document)),
        privleak_forget=once(cut_passages(forget, passage_words, passages_per_document)),
        privleak_retain=once(cut_passages(retain, passage_words, passages_per_document)),
        privleak_holdout=once(cut_passages(holdout, passage_words, passages_per_document)),
    )


def once(rows: Sequence[Row]) -> list[Row]:
    """The rows without those whose text, of a prompt what is shown, an earlier one has: two versions of an article
    begin alike."""
    found: dict[str, Row] = {}
    for row in rows:
        found.setdefault(normalised(row.prompt if isinstance(row, Prompt) else row), row)
    return list(found.values())


def cut_documents(documents: Sequence[str], questions: Sequence[Question], max_words: int) -> Carried:
    """Each document cut to at most `max_words` words, with the questions that the cut text still carries."""
    rarity = word_rarity(documents)
    asked: dict[int, list[Question]] = {}
    for question, home in zip(questions, find_articles(documents, questions), strict=True):
        if home is not None:
            asked.setdefault(home, []).append(question)
    carried: Carried = {}
    for number, document in enumerate(documents):
        best: list[Question] = []
        text = ""
        for window in windows(document, max_words):
            kept = [entry for entry in asked.get(number, []) if belonging(window, entry, rarity) >= SHARE_OF_QUESTION]
            if not text or len(kept) > len(best):
                text, best = window, kept
            if len(best) == len(asked.get(number, [])):
                break
        carried.setdefault(text, best)
    return carried


def windows(text: str, max_words: int) -> Iterator[str]:
    """Every longest run of whole sentences with at most `max_words` words, by first sentence;
    the whole text if it is short."""
    spans = word_spans(text)
    if len(spans) <= max_words:
        yield text.strip()
        return
    ends = [number + 1 for number, (start, end) in enumerate(spans) if SENTENCE_END.search(text[start:end])]
    for start in [0, *ends]:
        fitting = [end for end in ends if start < end <= start + max_words]
        if fitting:
            yield text[spans[start][0] : spans[fitting[-1] - 1][1]]


def find_articles(documents: Sequence[str], questions: Sequence[Question]) -> list[int | None]:
    """For each question the number of the document it belongs to, or None: the one with the highest `belonging`, the
    first of equals, if that is at least SHARE_OF_QUESTION."""
    rarity = word_rarity(documents)
    runs = [f" {' '.join(plain_words(document))} " for document in documents]
    homes: list[int | None] = []
    for question in questions:
        answer = f" {' '.join(plain_words(question.answer))} "
        holders = [number for number, run in enumerate(runs) if answer in run]
        scores = [(belonging(documents[number], question, rarity), -number) for number in holders]
        share, number = max(scores, default=(0.0, 0))
        homes.append(-number if share >= SHARE_OF_QUESTION else None)
    return homes


def belonging(text: str, question: Question, rarity: Mapping[str, float]) -> float:
    """The share of the question's content words that stand in `text`, rare words weighing more; 0 if the answer,
    as whole words, does not."""
    words = plain_words(text)
    answer = " ".join(plain_words(question.answer))
    if not answer or f" {answer} " not in f" {' '.join(words)} ":
        return 0.0
    unknown = max(rarity.values(), default=1.0)
    weights = {word: rarity.get(word, unknown) for word in set(plain_words(question.question)) - STOP_WORDS}
    present = set(words)
    # summed in a fixed order: the iteration order of a set of strings differs from run to run,
    # and so would the last bit
    total = sum(weights[word] for word in sorted(weights))
    return sum(weights[word] for word in sorted(weights) if word in present) / total if total else 0.0


def word_rarity(documents: Sequence[str]) -> dict[str, float]:
    """Inverse document frequency of every word, ln((N + 1) / n)."""
    counts = Counter(word for document in documents for word in set(plain_words(document)))
    return {word: log((len(documents) + 1) / count) for word, count in counts.items()}


def plain_words(text: str) -> list[str]:
    """Lower-case runs of letters and digits, and characters where a script puts no space between words."""
    return [part for run in re.findall(r"[^\W_]+", text.lower()) for part in by_character_if_unspaced(run)]
