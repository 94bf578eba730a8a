"""Bootstrap intervals with NumPy alone: scoring runs as many small processes, and importing scipy.stats costs each a second.

A test holds the numbers equal to scipy.stats.bootstrap(method="percentile").
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from palimpsest.errors import PalimpsestError

Float64 = NDArray[np.float64]


class Interval(NamedTuple):
    """A bootstrap interval in the unit of its data; `note` is empty unless the interval must be read with care."""

    low: float
    high: float
    note: str


def resampled_indices(n: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """Indices [resamples, n] of a bootstrap with replacement."""
    check_bootstrap(n, resamples)
    return np.random.default_rng(seed).integers(0, n, (resamples, n))


def resample_counts(n: int, resamples: int, seed: int) -> Float64:
    """How often each of n examples occurs in each resample, [resamples, n]: `counts @ values / n` are resampled means."""
    indices = resampled_indices(n, resamples, seed)
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
    """Percentile bootstrap interval of the mean of `values` [n]; values that are all equal give that value twice, with a note."""
    array = np.asarray(values, dtype=np.float64)
    check_bootstrap(array.size, resamples)
    if np.all(array == array[0]):
        return Interval(float(array[0]), float(array[0]), f"all {array.size} examples have the same value")
    means = array[resampled_indices(array.size, resamples, seed)].mean(axis=1)
    return Interval(*percentile_interval(means, confidence), "")


def check_bootstrap(n: int, resamples: int) -> None:
    """Raise PalimpsestError unless there is something to resample."""
    if n < 1:
        raise PalimpsestError("there are no examples to resample: the score file or the corpus behind it is empty.")
    if resamples < 1:
        raise PalimpsestError(f"resamples is {resamples}: give at least 1 (1000 or more for a usable interval).")
