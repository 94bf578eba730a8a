"""VerMem, KnowMem and Utility: mean ROUGE of greedy responses against the answers
(MUSE, arXiv 2407.06460, section 3)."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from palimpsest.corpus.words import DROPPED_AT_MOST, PUBLISHED, STEMMED, TOKENIZERS, UNICODE, reading, unicode_words
from palimpsest.errors import PalimpsestError, choose
from palimpsest.inference.files import InferenceFiles, read_responses
from palimpsest.metrics.records import RougeScore
from palimpsest.metrics.statistics import mean_score
from palimpsest.runtime.startup import hidden


class Rouge(NamedTuple):
    """Shares of 1."""

    precision: float
    recall: float
    f1: float


@cache
def _scorer(rouge_type: str, tokenizer: str) -> Any:
    with hidden(["sklearn"]):  # nltk would import it wherever it is installed, half a second for nothing
        from rouge_score.rouge_scorer import RougeScorer  # imports nltk, which PrivLeak need not wait for
        from rouge_score.tokenizers import Tokenizer

    class UnicodeTokenizer(Tokenizer):  # type: ignore[misc]
        def tokenize(self, text: str) -> list[str]:
            return unicode_words(text)

    choose(dict.fromkeys(TOKENIZERS), tokenizer, "setting tokenizer")
    own = UnicodeTokenizer() if tokenizer == UNICODE else None
    return RougeScorer([rouge_type], use_stemmer=tokenizer == STEMMED, tokenizer=own)


def _rouge(rouge_type: str, answer: str, response: str, tokenizer: str) -> Rouge:
    return Rouge(*map(float, _scorer(rouge_type, tokenizer).score(answer, response)[rouge_type]))


def rouge_l(answer: str, response: str, tokenizer: str = PUBLISHED) -> Rouge:
    """ROUGE-L (Lin 2004): longest common subsequence of the words that a tokenizer (of corpus.words) finds.
    Text in which it finds none scores 0."""
    return _rouge("rougeL", answer, response, tokenizer)


def rouge_1(answer: str, response: str, tokenizer: str = PUBLISHED) -> Rouge:
    """ROUGE-1 (Lin 2004): common words, as a tokenizer (of corpus.words) finds them.
    Text in which it finds none scores 0."""
    return _rouge("rouge1", answer, response, tokenizer)


VARIANTS: dict[str, Callable[..., float]] = {
    "rougeL_f1": lambda *texts: rouge_l(*texts).f1,
    "rougeL_recall": lambda *texts: rouge_l(*texts).recall,
    "rouge1_f1": lambda *texts: rouge_1(*texts).f1,
    "rouge1_recall": lambda *texts: rouge_1(*texts).recall,
}
"""By name, what makes a share of 1 of an answer, a response and the name of a tokenizer."""


def mean_rouge(
    files: InferenceFiles,
    *,
    task: str,
    rouge: str,
    resamples: int,
    confidence: float,
    seed: int,
    tokenizer: str = PUBLISHED,
) -> RougeScore:
    """Mean ROUGE of one task in percent; `per_example` are shares of 1 in the order of `ids`.

    tokenizer: of corpus.words; the one setting that may be left out, for studies from before there was a choice. Raises
    PalimpsestError when it drops more than DROPPED_AT_MOST of the answers' letters: what it does not read, no model
    could be seen to know, and two answers with the same number in them would be the same.
    """
    variant = choose(VARIANTS, rouge, "setting rouge")
    choose(dict.fromkeys(TOKENIZERS), tokenizer, "setting tokenizer")
    rows = read_responses(files.responses, task)
    read = reading([row["answer"] for row in rows], tokenizer)
    if read.share > DROPPED_AT_MOST:
        raise PalimpsestError(
            f"{files.responses}, task {task}: the tokenizer {tokenizer!r} drops {read.share:.0%} of the letters of the "
            f"true answers: set tokenizer to {UNICODE} in this metric's block of params.yaml."
        )
    values = [variant(row["answer"], row["response"], tokenizer) for row in rows]
    # half the list away, where another subject's answers stand; those of one share its name
    away = len(rows) // 2
    others = [variant(rows[i - away]["answer"], row["response"], tokenizer) for i, row in enumerate(rows)]
    return {
        **mean_score([row["id"] for row in rows], values, resamples, confidence, seed),
        "tokenizer": tokenizer,
        "shuffled": 100 * sum(others) / len(others) if away else None,
    }
