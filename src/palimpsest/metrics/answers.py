"""Metrics of the tokens of true answers: what a model knows of single records, however it would put an answer.

The ROUGE of greedy answers counts words that all answers of one form share. These three do not: they ask how probable
the true answer is, from which of its tokens on the model goes on by itself, and how many of them it would choose. They
are those of TOFU and OpenUnlearning (palimpsest.metrics.tofu has the formulas and their sources).
"""

from collections.abc import Callable
from dataclasses import replace

from palimpsest.inference.files import AnswerTokens, InferenceFiles, read_answers
from palimpsest.metrics import tofu
from palimpsest.metrics.records import AnswerScore
from palimpsest.metrics.statistics import mean_score
from palimpsest.vocabulary import KNOWMEM_FORGET, KNOWMEM_RETAIN

PerAnswer = Callable[[AnswerTokens], float]


def probability(answer: AnswerTokens) -> float:
    """exp(-nats per token): the geometric mean of the tokens' probabilities."""
    return float(tofu.probability([nats_per_token(answer)])[0])


def extraction_strength(answer: AnswerTokens) -> float:
    return tofu.extraction_strength(answer.predicted, answer.true)


def exact_memorization(answer: AnswerTokens) -> float:
    return tofu.exact_memorization(answer.predicted, answer.true)


def nats_per_token(answer: AnswerTokens) -> float:
    return -sum(answer.log_probs) / len(answer.log_probs)


def mean_of_answers(
    files: InferenceFiles, *, value: PerAnswer, ending: bool, resamples: int, confidence: float, seed: int
) -> AnswerScore:
    """The mean of `value` over the questions on the forget set in percent; `per_example` are shares of 1 in the order
    of `ids`.

    ending: whether the token that ends an answer counts as one of it, as in TOFU and OpenUnlearning.
    """
    asked = _answers(files, KNOWMEM_FORGET, ending)
    kept = _answers(files, KNOWMEM_RETAIN, ending)
    values = [value(each) for each in asked]
    return {
        **mean_score([each.id for each in asked], values, resamples, confidence, seed),
        "retain": [value(each) for each in kept],
        "nats_per_token": [nats_per_token(each) for each in asked],
    }


def _answers(files: InferenceFiles, task: str, ending: bool) -> list[AnswerTokens]:
    return [counted(each, ending) for each in read_answers(files.answers, task)]


OF_TOKENS = ("log_probs", "predicted", "true", "means", "variances")
"""Fields of AnswerTokens that hold a number for each token."""


def counted(answer: AnswerTokens, ending: bool) -> AnswerTokens:
    """With the token that ends it, or without."""
    if ending or not answer.ending:
        return answer
    cut = {name: each and each[: -answer.ending] for name in OF_TOKENS for each in [getattr(answer, name)]}
    return replace(answer, **cut, ending=0)
