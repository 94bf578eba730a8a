"""The metrics of TOFU (Maini et al. 2024, arXiv 2401.06121), of per-record numbers, as OpenUnlearning computes them.

Every record is a question with its true answer, a paraphrase of that and several wrong answers. A loss is the mean
negative log-probability of an answer's tokens, in nats; what it is exp(-) of is the geometric mean of the tokens'
probabilities, which TOFU calls the probability. EPSILON stands where OpenUnlearning has it, so that aggregates agree to
the last stored digit.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from palimpsest.errors import PalimpsestError

Floats = NDArray[np.float64]
EPSILON = 1e-10

SPLITS = ("retain", "real_authors", "world_facts")
"""Of model utility; the forget split is scored apart."""


def probability(losses: ArrayLike) -> Floats:
    """[records] of losses [records] in nats per token: 0 to 1."""
    return np.exp(-_finite(losses, "losses"))


def normalised_probability(true: ArrayLike, wrong: Sequence[ArrayLike]) -> Floats:
    """[records] the true answer's probability among it and the wrong ones; true: [records], wrong: for each record the
    probabilities of its wrong answers."""
    values = _finite(true, "probabilities")
    _same_length(values, wrong, "wrong answers")
    sums = np.array([float(np.sum(_finite(each, "probabilities"))) for each in wrong])
    return np.asarray(values / (values + sums + EPSILON))


def truth_ratio(paraphrased: ArrayLike, wrong: Sequence[ArrayLike]) -> Floats:
    """[records] how probable the wrong answers are beside the paraphrased right one (equation 1 of the paper): 0 for a
    model that knows, about 1 for one that does not. paraphrased: losses [records]; wrong: losses of each record's wrong
    answers."""
    values = _finite(paraphrased, "losses")
    _same_length(values, wrong, "wrong answers")
    if any(np.size(each) == 0 for each in wrong):
        raise PalimpsestError("a record has no wrong answers: the truth ratio compares with them.")
    means = np.array([float(np.mean(_finite(each, "losses"))) for each in wrong])
    return np.asarray(np.exp(-means) / (np.exp(-values) + EPSILON))


def forget_truth_ratio(ratios: ArrayLike) -> float:
    """The mean of min(t, 1 / t): 1 where a model prefers neither, as one that never saw the records."""
    values = _finite(ratios, "truth ratios")
    return float(np.mean(np.minimum(values, 1 / (values + EPSILON))))


def utility_truth_ratio(ratios: ArrayLike) -> float:
    """The mean of max(0, 1 - t): 1 for a model that knows; of the retain, real-author and world-fact splits."""
    return float(np.mean(np.maximum(0.0, 1 - _finite(ratios, "truth ratios"))))


def forget_quality(ratios: ArrayLike, retain: ArrayLike) -> float:
    """The p-value of the two-sample Kolmogorov-Smirnov test of a model's truth ratios on the forget split against those
    of a model that never saw it: small where they differ. Raises PalimpsestError with fewer than two records."""
    from scipy.stats import ks_2samp

    model, control = _finite(ratios, "truth ratios"), _finite(retain, "truth ratios")
    if min(model.size, control.size) < 2:
        raise PalimpsestError("forget quality compares two distributions: give at least two records of each model.")
    return float(ks_2samp(model, control).pvalue)


def model_utility(values: Mapping[str, Mapping[str, float]]) -> float:
    """The harmonic mean of nine numbers: for each of SPLITS its "probability" (normalised but for retain), "rouge" (the
    recall of ROUGE-L) and "truth_ratio" (`utility_truth_ratio`). 0 as soon as one of them is."""
    from scipy.stats import hmean

    nine = [values[split][name] for split in SPLITS for name in ("probability", "rouge", "truth_ratio")]
    if min(nine) < 0:
        raise PalimpsestError("model utility is a harmonic mean of shares, and one of them is negative.")
    return float(hmean(nine)) if min(nine) > 0 else 0.0


def extraction_strength(predicted: Sequence[int], true: Sequence[int]) -> float:
    """1 - k / T for the smallest k so that, given the first k of T answer tokens, a model goes on with all the rest
    (Carlini et al. 2021): 1 for a model that needs none, 0 for one that needs all.

    predicted: [T] the token that the model would choose at each place, given all true ones before it.
    """
    length = _token_count(predicted, true)
    wrong = [place for place in range(length) if predicted[place] != true[place]]
    return 1 - (wrong[-1] + 1) / length if wrong else 1.0


def exact_memorization(predicted: Sequence[int], true: Sequence[int]) -> float:
    """The share of the answer's tokens that a model chooses, given all true ones before each (Tirumala et al. 2022)."""
    length = _token_count(predicted, true)
    return sum(one == other for one, other in zip(predicted, true, strict=True)) / length


def _token_count(predicted: Sequence[int], true: Sequence[int]) -> int:
    if len(predicted) != len(true) or not len(true):
        raise PalimpsestError(
            f"{len(predicted)} predicted tokens for {len(true)} true ones: give as many, and at least one."
        )
    return len(true)


def _finite(values: ArrayLike, what: str) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise PalimpsestError(f"there are no {what}: the split is empty.")
    if not np.isfinite(array).all():
        raise PalimpsestError(f"{what} have a value that is not finite: the model's logits overflowed.")
    return array


def _same_length(values: Floats, others: Sequence[Any], what: str) -> None:
    if len(values) != len(others):
        raise PalimpsestError(f"{len(values)} records and {what} for {len(others)}: score both on the same records.")
