"""The records of metrics, as results/scores holds them."""

from typing import Any, NotRequired, TypedDict


class Outcome(TypedDict):
    """A number and how far to trust it.

    score: percent, but for perplexity, which has no unit; None where it cannot be had. status: "ok", or "undefined: "
    and why. ci: [low, high] of the score; None where there is no interval. ci_note: why there is none, or how to read
    it; often empty.
    """

    score: float | None
    status: str
    ci: list[float] | None
    ci_note: str


class Score(Outcome):
    """What a metric makes of one model at one precision.

    n: examples. ids, per_example: [n], the examples and the value of each in the same order, shares of 1 or nats as the
    metric says; of a metric that compares splits, a list for each split by its name.
    """

    n: int
    ids: list[int] | dict[str, list[int]]
    per_example: list[float] | dict[str, list[float]]


class RougeScore(Score):
    """tokenizer: what found the words, of palimpsest.corpus.words. shuffled: percent, the score of the responses
    against the answers of other records, which is what their form alone earns; None of a single record."""

    tokenizer: str
    shuffled: float | None


class AnswerScore(Score):
    """Of the tokens of true answers. retain: [questions on the retain set], their values, shares of 1. nats_per_token:
    [n], the mean negative log-probability of each answer's tokens."""

    retain: list[float]
    nats_per_token: list[float]


class UtilityScore(Score):
    """parts: by set of questions (palimpsest.metrics.tofu.SPLITS) its probability, rouge and truth_ratio, shares of 1;
    empty where there is no score."""

    parts: dict[str, dict[str, float]]


class MembershipScore(Score):
    """auc, auc_retrain: of the model and of the retrained one, 0 to 1, 0.5 for one that cannot tell the sets apart.
    None where there is no score."""

    auc: float | None
    auc_retrain: float | None


class PerplexityScore(Score):
    """nats_per_token: by split, the mean negative log-probability over all tokens."""

    nats_per_token: dict[str, float]


class PrivLeakScore(Score):
    """What PrivLeak is made of.

    n_forget, n_holdout: texts of the two splits. auc, auc_retrain: of the model and of its reference, 0 to 1, 0.5 for
    one that cannot tell the splits apart; auc_retrain is None where there is no reference. auc_retrain_source: in
    words, what the reference is.
    """

    n_forget: int
    n_holdout: int
    auc: float
    auc_retrain: float | None
    auc_retrain_source: str


class NamedScore(Score):
    """A Score, or one with more as its metric has it, with the metric's name and its settings in params.yaml."""

    metric: str
    settings: dict[str, Any]


class ScoreRecord(NamedScore):
    """A file of results/scores: what was scored. file: its path, added where it is read."""

    model: str
    seed: int
    precision: str
    file: NotRequired[str]
