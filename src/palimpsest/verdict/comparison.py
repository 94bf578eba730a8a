"""Means over records with intervals and p-values: paired, clustered by subject, and over seeds where there are several.

Records of one subject rise and fall together, so subjects are drawn, not records. One seed: the bootstrap-t (Efron and
Tibshirani 1993, chapter 12): subjects are resampled, and the mean of each resample is studentized by its own standard
error, which corrects for skewed scores and few subjects where plain percentiles cover too little. Several seeds: every
model saw the same records, so seeds and subjects are crossed; the variance is that of seeds plus that of subjects minus
that of their cells (Cameron, Gelbach and Miller 2011), with Student's t at Satterthwaite's degrees of freedom. Three
seeds are too few to be resampled.

Where nearly all records have one value (a model that answers all but two of forty questions), many resamples draw
nothing else, have no error, and leave the bootstrap-t without an end on that side. Scores have a known range, and a bet
on the mean (Waudby-Smith and Ramdas 2024) needs no error: it decides there what it can, whatever the distribution.

What is asked of a share of what the target knows is asked of a mean here: retained < limit is the same as
mean(score - floor - limit * (ceiling - floor)) < 0, record by record, so no ratio is bootstrapped.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palimpsest.errors import PalimpsestError
from palimpsest.verdict.records import Values

POWER = 0.8
"""Probability with which an effect of the `detectable` size is found."""
CELLS = 4_000_000
"""Of a table of resamples by subjects that is held at once."""
UNBOUNDED = 1e100
"""Beyond it an end of an interval is none."""
FEWEST = 10
"""Subjects below which a bet says no more than the range of the scores."""
STAKES = 64
"""Shares of what may be staked that are bet at once, each with as much of the capital."""


@dataclass(frozen=True)
class Bounded:
    """Totals of subjects whose records lie in a known range. sums, sizes: [subjects]; low, high: of a record."""

    sums: NDArray[np.float64]
    sizes: NDArray[np.float64]
    low: float
    high: float

    def p_above(self, limit: float) -> float:
        """Of the hypothesis that the mean is at most `limit`: one over what a gambler has who bet against it.

        The bets are fair or worse under the hypothesis, so that Markov's inequality holds at any number of subjects.
        """
        if limit <= self.low:
            return 0.0 if limit < self.low else 1.0
        gains = (self.sums - limit * self.sizes) / self.sizes.max()
        stakes = np.arange(1, STAKES + 1) / (STAKES + 1) / (limit - self.low)
        capital = np.log1p(stakes[:, None] * np.minimum(gains, self.high - limit)).sum(1)
        return float(min(1.0, np.exp(-(np.logaddexp.reduce(capital) - np.log(STAKES)))))

    def p_below(self, limit: float) -> float:
        """Of the hypothesis that the mean is at least `limit`."""
        return self._mirrored().p_above(-limit)

    def least(self, tail: float) -> float:
        """The limit above which the mean lies with an error of `tail`, found by halving; `low` at the least."""
        low, high = self.low, float(self.sums.sum() / self.sizes.sum())
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if self.p_above(middle) <= tail else (low, middle)
        return low

    def most(self, tail: float) -> float:
        """The limit below which the mean lies with an error of `tail`."""
        return -self._mirrored().least(tail)

    def _mirrored(self) -> "Bounded":
        """The same with the opposite sign: what is above is below."""
        return Bounded(-self.sums, self.sizes, -self.high, -self.low)


@dataclass(frozen=True)
class Mean:
    """A mean over records with the distribution of its studentized error.

    value: in the unit of the data. error: its standard error, None with fewer than two subjects. studentized: [draws]
    of (resampled mean - mean) / resampled error, sorted, or None where freedom, the degrees of freedom of Student's t,
    stands for it. bounded: the records, where resamples of a single value leave the bootstrap without an end.
    """

    value: float
    error: float | None
    studentized: NDArray[np.float64] | None = None
    freedom: float | None = None
    bounded: Bounded | None = None

    def interval(self, confidence: float) -> list[float] | None:
        """[low, high], two-sided; None where there is no error."""
        if self.error is None:
            return None
        tail = (1 - confidence) / 2
        low, high = (self.value - self._quantile(share) * self.error for share in (1 - tail, tail))
        if self.bounded is not None:
            low, high = max(low, self.bounded.least(tail)), min(high, self.bounded.most(tail))
        return [low, high]

    def p_above(self, limit: float) -> float:
        """Of the hypothesis that the mean is at most `limit`: small when it lies above."""
        p = self._tail((self.value - limit), above=True)
        return p if self.bounded is None else min(p, self.bounded.p_above(limit))

    def p_below(self, limit: float) -> float:
        """Of the hypothesis that the mean is at least `limit`: small when it lies below."""
        p = self._tail((self.value - limit), above=False)
        return p if self.bounded is None else min(p, self.bounded.p_below(limit))

    def detectable(self, alpha: float) -> float | None:
        """The effect beyond a limit that a one-sided test at `alpha` finds with a probability of POWER."""
        if self.error is None:
            return None
        return self.error * (self._quantile(1 - alpha) + self._quantile(POWER))

    def _quantile(self, share: float) -> float:
        if self.studentized is not None:
            return float(np.quantile(self.studentized, share))
        from scipy.stats import t

        return float(t.ppf(share, self.freedom))

    def _tail(self, distance: float, above: bool) -> float:
        if self.error is None:
            return 1.0
        least = 1 / (1 + (10_000 if self.studentized is None else self.studentized.size))
        if self.error == 0:
            return least if (distance > 0 if above else distance < 0) else 1.0
        t = distance / self.error
        if self.studentized is not None:
            # the observed t against the errors that the mean makes: t = (value - limit) / error under the limit
            draws = self.studentized
            beyond = draws.size - np.searchsorted(draws, t) if above else np.searchsorted(draws, t, side="right")
            return float((1 + beyond) / (1 + draws.size))
        from scipy.stats import t as student

        return float(max(student.sf(t, self.freedom) if above else student.cdf(t, self.freedom), 0.0))


def mean_of(
    values: Values,
    subjects: Sequence[str] | None,
    resamples: int,
    seed: int,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Mean:
    """The mean of `values` [seeds, records] over both; subjects: [records] or None, each record its own; bounds: of a
    record, where they are known."""
    if values.ndim != 2 or values.shape[1] < 1:
        raise PalimpsestError("there are no records to compare: the forget set is empty.")
    groups = np.unique(list(subjects), return_inverse=True)[1] if subjects is not None else np.arange(values.shape[1])
    if len(groups) != values.shape[1]:
        raise PalimpsestError(f"{len(groups)} subjects for {values.shape[1]} records: each record has one subject.")
    if len(values) > 1:
        return _over_seeds(values, groups)
    sums: NDArray[np.float64] = np.bincount(groups, values[0]).astype(np.float64)
    sizes: NDArray[np.float64] = np.bincount(groups).astype(np.float64)
    mean = float(sums.sum() / sizes.sum())
    if len(sums) < 2:
        return Mean(mean, None)
    error = float(_error(sums[None], sizes[None])[0])
    studentized = _studentized(sums, sizes, resamples, seed)
    endless = error > 0 and len(sums) >= FEWEST and bool(np.abs(studentized[[0, -1]]).max() > UNBOUNDED)
    known = Bounded(sums, sizes, *bounds) if endless and np.isfinite(bounds).all() else None
    return Mean(mean, error, studentized, bounded=known)


def _error(sums: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """[draws] the standard error of sum(sums) / sum(sizes) over subjects, linearized; both [draws, subjects]."""
    total, subjects = sizes.sum(-1), sums.shape[-1]
    residuals = sums - (sums.sum(-1) / total)[:, None] * sizes
    error: NDArray[np.float64] = np.sqrt(subjects / (subjects - 1) * (residuals**2).sum(-1)) / total
    return error


def _studentized(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], resamples: int, seed: int
) -> NDArray[np.float64]:
    """[resamples], sorted: the studentized error of each resample. One that drew a single value has no error of its
    own: it counts as infinitely far, on its side."""
    random, subjects = np.random.default_rng(seed), len(sums)
    mean, parts = sums.sum() / sizes.sum(), []
    for start in range(0, resamples, max(1, CELLS // subjects)):
        drawn = random.integers(0, subjects, (min(max(1, CELLS // subjects), resamples - start), subjects))
        s, n = sums[drawn], sizes[drawn]
        shift, error = s.sum(-1) / n.sum(-1) - mean, _error(s, n)
        flat = error <= 1e-12
        far = np.where(np.abs(shift) <= 1e-12, 0.0, np.sign(shift) * np.finfo(float).max)
        parts.append(np.where(flat, far, shift / np.where(flat, 1.0, error)))
    return np.sort(np.concatenate(parts))


def _over_seeds(values: Values, groups: NDArray[np.int64]) -> Mean:
    """Crossed seeds and subjects."""
    seeds, records = values.shape
    sizes = np.bincount(groups).astype(np.float64)
    subjects, mean = len(sizes), float(values.mean())
    cells = np.stack([np.bincount(groups, row) for row in values - mean]) / (seeds * records)  # [seeds, subjects]
    if subjects < 2:
        return Mean(mean, None)
    of_seeds = seeds / (seeds - 1) * float((cells.sum(1) ** 2).sum())
    of_subjects = subjects / (subjects - 1) * float((cells.sum(0) ** 2).sum())
    of_cells = seeds * subjects / (seeds * subjects - 1) * float((cells**2).sum())
    variance = max(of_seeds + of_subjects - of_cells, of_seeds, of_subjects)
    if variance == 0:
        return Mean(mean, 0.0, None, float(seeds - 1))
    freedom = max(variance**2 / (of_seeds**2 / (seeds - 1) + of_subjects**2 / (subjects - 1)), 1.0)
    return Mean(mean, float(np.sqrt(variance)), None, float(freedom))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values after Holm's step-down correction (Holm 1979), in the order given."""
    order = np.argsort(p_values, kind="stable")
    corrected, worst = np.empty(len(p_values)), 0.0
    for rank, index in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = worst
    return [float(p) for p in corrected]
