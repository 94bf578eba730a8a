"""VerMem, KnowMem and Utility: mean ROUGE of greedy responses against the answers (MUSE, arXiv 2407.06460, section 3).

The tokens are rouge_score's. Its scorer imports nltk, which costs each scoring process two seconds and serves only the stemmer
that is not used here; ROUGE-1 and ROUGE-L (Lin 2004) follow from the tokens in a few lines, and a test holds them equal to
RougeScorer(use_stemmer=False).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rouge_score.tokenize import tokenize

from palimpsest.errors import choose
from palimpsest.metrics.inference_files import InferenceFiles, read_responses
from palimpsest.statistics import mean_interval


class Rouge(NamedTuple):
    """Shares of 1."""

    precision: float
    recall: float
    f1: float


def common_subsequence(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence, one bit per token of `left` (Hyyro 2004, bit-parallel LCS)."""
    positions: dict[str, int] = {}
    for index, token in enumerate(left):
        positions[token] = positions.get(token, 0) | 1 << index
    every = (1 << len(left)) - 1
    unmatched = every
    for token in right:
        matches = unmatched & positions.get(token, 0)
        unmatched = ((unmatched + matches) | (unmatched - matches)) & every
    return len(left) - unmatched.bit_count()


def common_words(left: Sequence[str], right: Sequence[str]) -> int:
    """Number of tokens in common, each as often as it occurs in both."""
    return (Counter(left) & Counter(right)).total()


def _rouge(overlap: Callable[[Sequence[str], Sequence[str]], int], answer: str, response: str) -> Rouge:
    wanted, given = tokenize(answer, None), tokenize(response, None)
    common = overlap(wanted, given) if wanted and given else 0
    if not common:
        return Rouge(0.0, 0.0, 0.0)
    precision, recall = common / len(given), common / len(wanted)
    return Rouge(precision, recall, 2 * precision * recall / (precision + recall))


def rouge_l(answer: str, response: str) -> Rouge:
    """ROUGE-L: longest common subsequence. Text without letters or digits scores 0."""
    return _rouge(common_subsequence, answer, response)


def rouge_1(answer: str, response: str) -> Rouge:
    """ROUGE-1: common words."""
    return _rouge(common_words, answer, response)


VARIANTS: dict[str, Callable[[str, str], float]] = {
    "rougeL_f1": lambda answer, response: rouge_l(answer, response).f1,
    "rougeL_recall": lambda answer, response: rouge_l(answer, response).recall,
    "rouge1_f1": lambda answer, response: rouge_1(answer, response).f1,
    "rouge1_recall": lambda answer, response: rouge_1(answer, response).recall,
}


def mean_rouge(
    files: InferenceFiles, *, task: str, rouge: str, resamples: int, confidence: float, seed: int
) -> dict[str, Any]:
    """Mean ROUGE of one task in percent; `per_example` are shares of 1 in the order of `ids`."""
    variant = choose(VARIANTS, rouge, "setting rouge")
    rows = read_responses(files.responses, task)
    values = [variant(row["answer"], row["response"]) for row in rows]
    interval = mean_interval(values, resamples, confidence, seed)
    return {
        "n": len(values),
        "score": 100 * sum(values) / len(values),
        "status": "ok",
        "ci": [100 * interval.low, 100 * interval.high],
        "ci_note": interval.note,
        "ids": [row["id"] for row in rows],
        "per_example": values,
    }
