"""Verbatim prompts and PrivLeak passages, cut out of documents at word boundaries."""

from collections.abc import Sequence

from palimpsest.corpus.corpus import Prompt
from palimpsest.corpus.words import word_spans
from palimpsest.errors import PalimpsestError

LEAST_ANSWER = 4
"""Words of a line that must follow a prompt: of fewer, one right word is much of the score."""


def cut_prompts(documents: Sequence[str], prompt_words: int, answer_words: int, per_document: int) -> list[Prompt]:
    """Up to `per_document` prompts of `prompt_words` words, each with the `answer_words` words that follow it.

    Prompt and answer are exact substrings of the document (the answer without the white space before it). Answers of
    one document do not overlap and are spread evenly from its first possible place to its end; prompts may overlap. A
    document too short for `per_document` answers gives as many as fit, and one shorter than prompt + answer gives none.
    Raises PalimpsestError when a count is below 1.
    """
    require_positive(prompt_words=prompt_words, answer_words=answer_words, per_document=per_document)
    prompts = []
    for document in documents:
        words = word_spans(document)
        for start in spread(len(words) - prompt_words, answer_words, per_document):
            middle = start + prompt_words
            prompts.append(
                Prompt(
                    document[words[start][0] : words[middle - 1][1]],
                    document[words[middle][0] : words[middle + answer_words - 1][1]],
                )
            )
    return prompts


def cut_passages(documents: Sequence[str], words: int, per_document: int) -> list[str]:
    """Up to `per_document` passages of `words` words of each document, not overlapping and spread evenly.

    A document shorter than one passage is given whole. Raises PalimpsestError when a count is below 1.
    """
    require_positive(words=words, per_document=per_document)
    passages = []
    for document in documents:
        spans = word_spans(document)
        if 0 < len(spans) < words:
            passages.append(document[spans[0][0] : spans[-1][1]])
        for start in spread(len(spans), words, per_document):
            passages.append(document[spans[start][0] : spans[start + words - 1][1]])
    return passages


def cut_line_prompts(documents: Sequence[str], prompt_words: int, answer_words: int, per_document: int) -> list[Prompt]:
    """Up to `per_document` prompts, each the first `prompt_words` words of a line, with the words of that line that
    follow: at most `answer_words`, at least LEAST_ANSWER.

    For documents whose lines are training sequences of their own (`training.pieces: lines`): a prompt then stands where
    training had it, behind what starts texts. Lines that are too short give none; of too many the prompts are of lines
    spread evenly. Raises PalimpsestError when a count is below 1.
    """
    require_positive(prompt_words=prompt_words, answer_words=answer_words, per_document=per_document)
    prompts = []
    for document in documents:
        found = [(line, word_spans(line)) for line in document.split("\n")]
        lines = [(line, words) for line, words in found if len(words) >= prompt_words + LEAST_ANSWER]
        for place in spread(len(lines), 1, per_document):
            line, words = lines[place]
            last = min(len(words), prompt_words + answer_words)
            shown, told = line[: words[prompt_words - 1][1]], line[words[prompt_words][0] : words[last - 1][1]]
            prompts.append(Prompt(shown[words[0][0] :], told))
    return prompts


def cut_lines(documents: Sequence[str], words: int, per_document: int) -> list[str]:
    """Up to `per_document` lines of each document, spread evenly, cut to their first `words` words.

    Raises PalimpsestError when a count is below 1.
    """
    require_positive(words=words, per_document=per_document)
    passages = []
    for document in documents:
        found = [(line, word_spans(line)) for line in document.split("\n")]
        lines = [line[spans[0][0] : spans[:words][-1][1]] for line, spans in found if spans]
        passages += [lines[place] for place in spread(len(lines), 1, per_document)]
    return passages


def spread(length: int, width: int, count: int) -> list[int]:
    """Starts of at most `count` disjoint windows of `width` in `length` places,
    the first at 0 and the last at the end."""
    count = min(count, length // width) if length > 0 else 0
    if count <= 1:
        return [0] * count
    return [number * (length - width) // (count - 1) for number in range(count)]


def require_positive(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise PalimpsestError(f"{name} is {count}: it must be at least 1.")
