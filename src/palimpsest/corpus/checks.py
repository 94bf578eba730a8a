"""Promises of a corpus that everything later relies on:
what was retained or held out must not contain what is forgotten."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence

from palimpsest.corpus.corpus import Corpus, Prompt, Question, stored
from palimpsest.corpus.repeats import as_words, check_repeats, long_answer, place_of
from palimpsest.corpus.words import DROPPED_AT_MOST, UNICODE, is_blank, normalised, reading, units
from palimpsest.errors import PalimpsestError
from palimpsest.vocabulary import FORGET, HOLDOUT, KNOWMEM, RETAIN, SPLITS, UTILITY, VERBMEM

log = logging.getLogger(__name__)

GRAM = 13
"""Length of the sequences of words whose repetition counts as overlap, the usual length in contamination checks (GPT-3,
appendix C). A shorter document is one sequence as a whole. Words are `units` of palimpsest.corpus.words."""

SHORTEST = 5
"""Words of a document that is looked for within longer ones; shorter ones, such as a name, may stand anywhere."""


def check_corpus(
    corpus: Corpus,
    overlap_at_most: float = 0.05,
    prompts_found_at_least: float = 1.0,
    scored_examples_at_most: int = 0,
    repeats_at_most: int = 0,
) -> dict[str, int | float]:
    """Counts of `corpus` for its manifest, after these checks, each with its own PalimpsestError:

    no split is empty; no answer, prompt or continuation is empty; forget, retain and holdout share no document; at most
    the share `overlap_at_most` of the forget text's 13-grams of words (characters, where a script has no spaces;
    shorter documents whole) occurs in retain, and likewise in holdout; the passages of privleak_holdout, which sources
    keep apart from holdout, are no document of forget or retain, and at most that share of their 13-grams occurs there;
    at most `scored_examples_at_most` in-context examples of both splits
    together are questions that are scored (above 0 only for a published benchmark that is to be taken as it is); at
    least the share `prompts_found_at_least` of verbatim prompts with their continuation stands in the forget text,
    white space ignored and documents in a row (below 1.0 only for corpora whose prompts were decoded from tokens).
    """
    counts: dict[str, int | float] = {}
    for split, rows in corpus.parts():
        if not rows:
            raise PalimpsestError(f"corpus split {split} is empty: every split needs at least one entry.")
        counts[split] = len(rows)
    check_texts_filled(corpus)
    for split in SPLITS:
        counts[f"{split}_words"] = sum(len(units(document)) for document in getattr(corpus, split))
    check_disjoint(FORGET, corpus.forget, RETAIN, corpus.retain)
    check_disjoint(FORGET, corpus.forget, HOLDOUT, corpus.holdout)
    check_disjoint(RETAIN, corpus.retain, HOLDOUT, corpus.holdout)
    for split in (RETAIN, HOLDOUT):
        counts[f"overlap_forget_{split}"] = check_overlap(corpus.forget, split, getattr(corpus, split), overlap_at_most)
    for split in (FORGET, RETAIN):
        documents = getattr(corpus, split)
        check_disjoint("privleak_holdout", corpus.privleak_holdout, split, documents)
        unseen = "the models were trained on text that PrivLeak takes for unseen; remove those passages"
        counts[f"overlap_privleak_holdout_{split}"] = _share_repeated(
            "privleak_holdout", corpus.privleak_holdout, split, documents, overlap_at_most, unseen
        )
    counts["privleak_forget_found"] = check_membership(corpus)
    between = (RETAIN, corpus.retain), ("privleak_holdout", corpus.privleak_holdout)
    for split, documents in between:
        seen = f"PrivLeak takes those passages for forgotten ones; remove what also stands in {split}"
        counts[f"overlap_privleak_forget_{split}"] = _share_repeated(
            "privleak_forget", corpus.privleak_forget, split, documents, overlap_at_most, seen
        )
    counts["repeats"] = check_repeats(corpus, repeats_at_most)
    counts["scored_examples"] = check_examples(corpus, scored_examples_at_most)
    counts["prompts_found"] = check_prompts(corpus, prompts_found_at_least)
    return counts


def check_records(
    corpus: Corpus,
    overlap_at_most: float,
    prompts_found_at_least: float = 1.0,
    scored_examples_at_most: int = 0,
    repeats_at_most: int = 0,
) -> dict[str, int | float]:
    """As `check_corpus`, of a corpus of records, which may lack texts, a retain and a holdout set.

    What is compared is what there is: documents of forget with those of retain and holdout, and scored rows with each
    other. Prompts and passages are cut from the texts, and there are no in-context examples, so two limits have nothing
    to hold to.
    """
    counts: dict[str, int | float] = {split: len(rows) for split, rows in corpus.parts()}
    counts |= {name: len(rows) for name, rows in corpus.others.items()}
    for split in SPLITS:
        counts[f"{split}_words"] = sum(len(units(document)) for document in getattr(corpus, split))
    for first, second in ((FORGET, RETAIN), (FORGET, HOLDOUT), (RETAIN, HOLDOUT)):
        check_disjoint(first, getattr(corpus, first), second, getattr(corpus, second))
    for split in (RETAIN, HOLDOUT):
        documents = getattr(corpus, split)
        if corpus.forget and documents:
            counts[f"overlap_forget_{split}"] = check_overlap(corpus.forget, split, documents, overlap_at_most)
    counts["repeats"] = check_repeats(corpus, repeats_at_most)
    return counts


def check_texts_filled(corpus: Corpus) -> None:
    """Raise PalimpsestError at the first empty text."""
    for split, rows in corpus.parts():
        for number, row in enumerate(rows):
            for field, text in {"text": row}.items() if isinstance(row, str) else stored(row).items():
                if is_blank(text):
                    raise PalimpsestError(
                        f"entry {number} of corpus split {split} has an empty {field}: fill or remove it."
                    )


def check_disjoint(name: str, documents: Sequence[str], other: str, others: Sequence[str]) -> None:
    """Raise PalimpsestError when a document, white space normalised, is in both splits."""
    seen = {" ".join(document.split()): number for number, document in enumerate(others)}
    for number, document in enumerate(documents):
        twin = seen.get(" ".join(document.split()))
        if twin is not None:
            raise PalimpsestError(
                f"{name} document {number} is also {other} document {twin}: the splits must be disjoint, remove one."
            )


def check_overlap(forget: Sequence[str], split: str, documents: Sequence[str], limit: float) -> float:
    """The share of distinct 13-grams of forget that occur in `documents`;
    raises PalimpsestError when it exceeds `limit`."""
    reason = f"unlearning and {split} would contradict each other; remove the repeated text"
    return _share_repeated("the forget text", forget, split, documents, limit, reason)


def _share_repeated(
    name: str, texts: Sequence[str], split: str, documents: Sequence[str], limit: float, reason: str
) -> float:
    mine, others = _words_of(name, texts), _words_of(split, documents)
    wanted = word_grams(mine)
    there = {gram for length in {*map(len, wanted)} for gram in _sequences(others, length)}
    short = {tuple(words) for words in others if SHORTEST <= len(words) < GRAM}
    lengths = {*map(len, short)}
    shared = sum(gram in there or not short.isdisjoint(_within(gram, lengths)) for gram in wanted)
    share = shared / len(wanted)
    if share > limit:
        raise PalimpsestError(
            f"{shared} of {len(wanted)} {GRAM}-grams of {name} ({share:.2%}) also occur in {split}, "
            f"more than the limit {limit:.2%}: {reason}."
        )
    return share


def _words_of(name: str, texts: Sequence[str]) -> list[list[str]]:
    found = [units(text) for text in texts]
    for number, words in enumerate(found):
        if not words:
            raise PalimpsestError(f"text {number} of {name} is empty: remove it.")
    if not found:
        raise PalimpsestError(f"{name} has no text: it needs at least one.")
    return found


def check_membership(corpus: Corpus) -> float:
    """The share of 13-grams of privleak_forget that occur in the forget text;
    raises PalimpsestError when none does."""
    share = _share_repeated("privleak_forget", corpus.privleak_forget, FORGET, corpus.forget, 1.0, "")
    if not share:
        raise PalimpsestError(
            f"no {GRAM}-gram of privleak_forget occurs in the forget text: PrivLeak asks whether its passages were "
            "forgotten; cut them from the forget documents."
        )
    return share


def check_examples(corpus: Corpus, at_most: int) -> int:
    """How many in-context examples are scored questions, or have the answer of one in them, which shows it;
    raises PalimpsestError above `at_most`."""
    twins = [*_scored_examples(corpus)]
    if len(twins) > at_most:
        raise PalimpsestError(
            f"{twins[0]}: an in-context example shows its answer, so it must not be scored; remove one, or raise "
            f"corpus.checks.scored_examples_at_most ({at_most}) to take a benchmark as it is "
            f"({len(twins)} of its examples are scored)."
        )
    return len(twins)


def _scored_examples(corpus: Corpus) -> Iterator[str]:
    asked, answered = {}, {}
    for name in ("retain_qa", "forget_qa"):
        for number, each in enumerate(getattr(corpus, name)):
            asked[normalised(each.question)] = f"entry {number} of {name}"
            if long := long_answer(each.answer):
                answered[long] = f"entry {number} of {name}"
    for name in ("forget_icl", "retain_icl"):
        for number, example in enumerate(getattr(corpus, name)):
            twin = asked.get(normalised(example.question))
            text = as_words(f"{example.question} {example.answer}")
            shown = next((entry for answer, entry in answered.items() if answer in text), None)
            if twin:
                yield f"entry {number} of {name} is also {twin}"
            elif shown:
                yield f"entry {number} of {name} has the answer of {shown} in it"


def word_grams(documents: Iterable[Sequence[str]]) -> set[tuple[str, ...]]:
    """Distinct 13-grams of the words of documents, none across documents; a shorter one whole."""
    return {gram for words in documents for gram in _sequences([words], min(GRAM, len(words)))}


def _sequences(documents: Iterable[Sequence[str]], length: int) -> Iterator[tuple[str, ...]]:
    for words in documents:
        yield from (tuple(words[start : start + length]) for start in range(len(words) - length + 1))


def _within(gram: tuple[str, ...], lengths: Iterable[int]) -> Iterator[tuple[str, ...]]:
    """The parts of a sequence that have one of the lengths."""
    for length in lengths:
        yield from _sequences([gram], length)


def check_prompts(corpus: Corpus, at_least: float) -> float:
    """The share of verbatim prompts found with their continuation in the forget text;
    PalimpsestError below `at_least`."""
    text = "".join("".join(document.split()) for document in corpus.forget)
    missing = [
        number for number, entry in enumerate(corpus.verbmem) if "".join((entry.prompt + entry.gt).split()) not in text
    ]
    share = 1 - len(missing) / len(corpus.verbmem)
    if share < at_least:
        raise PalimpsestError(
            f"{len(missing)} of {len(corpus.verbmem)} verbatim prompts are not in the forget text with their "
            f"continuation (first: entry {missing[0]} of verbmem/forget): cut them from the forget documents, or lower "
            f"prompts_found_at_least ({at_least})."
        )
    return share


def check_answers(corpus: Corpus, tokenizers: Mapping[str, str]) -> None:
    """Raise PalimpsestError where ROUGE would not see what is answered: where a metric's tokenizer drops more than
    DROPPED_AT_MOST of the letters of its true answers, or all letters of one of them.

    tokenizers: by metric, those of VerMem, KnowMem and Utility, of palimpsest.corpus.words.
    """
    answers: dict[str, tuple[str, Sequence[Prompt | Question]]] = {
        VERBMEM: ("verbmem/forget", corpus.verbmem),
        KNOWMEM: ("knowmem/forget_qa", corpus.forget_qa),
        UTILITY: ("knowmem/retain_qa", corpus.retain_qa),
    }
    for metric, (part, rows) in answers.items():
        tokenizer = tokenizers[metric]
        read = reading([row.gt if isinstance(row, Prompt) else row.answer for row in rows], tokenizer)
        remedy = f"set metrics.{metric}.tokenizer to {UNICODE}"
        if read.share > DROPPED_AT_MOST:
            raise PalimpsestError(
                f"{read.share:.0%} of the letters of the true answers of {part} are none to ROUGE's tokenizer "
                f"{tokenizer!r}, which reads a-z and 0-9 alone: its scores would be wrong; {remedy}."
            )
        if read.unread:
            place = place_of(rows, read.unread[0], part)
            raise PalimpsestError(
                f"{place} has an answer of which ROUGE's tokenizer {tokenizer!r} reads nothing "
                f"({len(read.unread)} such rows): every model would score 0 there; {remedy}, or remove the row."
            )
        if read.dropped:
            log.info("ROUGE's tokenizer %r drops %.2f %% of the letters of %s", tokenizer, 100 * read.share, part)
