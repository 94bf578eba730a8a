"""VerMem, KnowMem and Utility: mean ROUGE of greedy responses against the answers
(MUSE, arXiv 2407.06460, section 3)."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from palimpsest.errors import choose
from palimpsest.inference.files import InferenceFiles, read_responses
from palimpsest.metrics.records import Score
from palimpsest.metrics.statistics import mean_interval
from palimpsest.runtime.startup import hidden
from palimpsest.vocabulary import OK


class Rouge(NamedTuple):
    """Shares of 1."""

    precision: float
    recall: float
    f1: float


@cache
def _scorer(rouge_type: str) -> Any:
    with hidden(["sklearn"]):  # nltk would import it wherever it is installed, half a second for nothing
        from rouge_score.rouge_scorer import RougeScorer  # imports nltk, which PrivLeak need not wait for

    return RougeScorer([rouge_type], use_stemmer=False)


def _rouge(rouge_type: str, answer: str, response: str) -> Rouge:
    return Rouge(*map(float, _scorer(rouge_type).score(answer, response)[rouge_type]))


def rouge_l(answer: str, response: str) -> Rouge:
    """ROUGE-L (Lin 2004): longest common subsequence. Text without letters or digits scores 0."""
    return _rouge("rougeL", answer, response)


def rouge_1(answer: str, response: str) -> Rouge:
    """ROUGE-1 (Lin 2004): common words. Text without letters or digits scores 0."""
    return _rouge("rouge1", answer, response)


VARIANTS: dict[str, Callable[[str, str], float]] = {
    "rougeL_f1": lambda answer, response: rouge_l(answer, response).f1,
    "rougeL_recall": lambda answer, response: rouge_l(answer, response).recall,
    "rouge1_f1": lambda answer, response: rouge_1(answer, response).f1,
    "rouge1_recall": lambda answer, response: rouge_1(answer, response).recall,
}


def mean_rouge(files: InferenceFiles, *, task: str, rouge: str, resamples: int, confidence: float, seed: int) -> Score:
    """Mean ROUGE of one task in percent; `per_example` are shares of 1 in the order of `ids`."""
    variant = choose(VARIANTS, rouge, "setting rouge")
    rows = read_responses(files.responses, task)
    values = [variant(row["answer"], row["response"]) for row in rows]
    interval = mean_interval(values, resamples, confidence, seed)
    return {
        "n": len(values),
        "score": 100 * sum(values) / len(values),
        "status": OK,
        "ci": [100 * interval.low, 100 * interval.high],
        "ci_note": interval.note,
        "ids": [row["id"] for row in rows],
        "per_example": values,
    }
