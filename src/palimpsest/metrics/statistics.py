"""Bootstrap intervals: scipy.stats.bootstrap draws the resamples, the interval is their central percentiles.

scipy.stats is imported where it is used, because its import takes longer than most of what imports this module.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from palimpsest.errors import PalimpsestError
from palimpsest.metrics.records import Score
from palimpsest.vocabulary import OK

Float64 = NDArray[np.float64]


class Interval(NamedTuple):
    """A bootstrap interval in the unit of its data; `note` is empty unless the interval must be read with care."""

    low: float
    high: float
    note: str


def bootstrap_distribution(
    samples: Sequence[ArrayLike], statistic: Callable[..., Any], resamples: int, seed: int
) -> Float64:
    """`statistic` of bootstrap resamples, [..., resamples].

    samples: arrays [..., n] that are resampled independently of each other along their last axis, n at least 2; rows of
    one array keep their pairing. statistic: takes as many arrays and `axis`, and reduces that axis.
    """
    import scipy.stats

    for sample in samples:
        check_bootstrap(np.shape(sample)[-1], resamples)
    drawn = scipy.stats.bootstrap(
        samples, statistic, axis=-1, vectorized=True, n_resamples=resamples, method="percentile", rng=seed
    )
    return np.asarray(drawn.bootstrap_distribution)


def resample_counts(n: int, resamples: int, seed: int) -> Float64:
    """How often each of n examples occurs in each resample, [resamples, n]:
    `counts @ values / n` are resampled means."""
    check_bootstrap(n, resamples)
    indices = np.random.default_rng(seed).integers(0, n, (resamples, n))
    offsets = np.arange(resamples)[:, None] * n
    return np.bincount((indices + offsets).ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float64)


def percentile_interval(distribution: Float64, confidence: float) -> tuple[float, float]:
    """The central `confidence` share of a bootstrap distribution."""
    if not 0 < confidence < 1:
        raise PalimpsestError(f"confidence is {confidence}: give a share between 0 and 1, such as 0.95.")
    tail = (1 - confidence) / 2
    low, high = np.quantile(distribution, [tail, 1 - tail])
    return float(low), float(high)


def mean_interval(values: ArrayLike, resamples: int, confidence: float, seed: int) -> Interval:
    """Percentile bootstrap interval of the mean of `values` [n];
    values that are all equal give that value twice, with a note."""
    array = np.asarray(values, dtype=np.float64)
    check_bootstrap(array.size, resamples)
    if np.all(array == array[0]):
        return Interval(float(array[0]), float(array[0]), f"all {array.size} examples have the same value")
    means = bootstrap_distribution([array], np.mean, resamples, seed)
    return Interval(*percentile_interval(means, confidence), "")


def mean_score(ids: list[int], values: list[float], resamples: int, confidence: float, seed: int) -> Score:
    """The mean of `values`, shares of 1 [n], in percent, with its interval; ids: of the examples, in the same order."""
    interval = mean_interval(values, resamples, confidence, seed)
    return {
        "n": len(values),
        "score": 100 * sum(values) / len(values),
        "status": OK,
        "ci": [100 * interval.low, 100 * interval.high],
        "ci_note": interval.note,
        "ids": ids,
        "per_example": values,
    }


def check_bootstrap(n: int, resamples: int) -> None:
    """Raise PalimpsestError unless there is something to resample."""
    if n < 1:
        raise PalimpsestError("there are no examples to resample: the score file or the corpus behind it is empty.")
    if resamples < 1:
        raise PalimpsestError(f"resamples is {resamples}: give at least 1 (1000 or more for a usable interval).")
