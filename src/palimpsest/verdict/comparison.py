"""Means over records with intervals and p-values: paired, clustered by subject, and over seeds where there are several.

Records of one subject rise and fall together, so subjects are drawn, not records. One seed: the bootstrap-t (Efron and
Tibshirani 1993, chapter 12): subjects are resampled, and the mean of each resample is studentized by its own standard
error, which corrects for skewed scores and few subjects where plain percentiles cover too little. Several seeds: every
model saw the same records, so seeds and subjects are crossed; the variance is that of seeds plus that of subjects minus
that of their cells (Cameron, Gelbach and Miller 2011), with Student's t at Satterthwaite's degrees of freedom. Three
seeds are too few to be resampled.

Where nearly all records show the same (a target that answers all but two of forty questions, a format that changes
three answers of a hundred), neither holds: four rises that happen to agree look certain to the bootstrap, and where
none was seen it looks as if there could be none. There the records' known range decides, by Gaffke's bound (2005;
Learned-Miller and Thomas 2020): subjects get random shares of one whole, and so does one more, that nobody saw, at the
end of the range. For scores of 0 and 1 this is Clopper and Pearson's exact interval. Otherwise no case is known in
which it covers too little, though that is proven only of some; benchmarks/sparse_rises.py tries many. With several
seeds Student's t must agree as well, for seeds may differ where records do not. Of a kind of seed that none of the few
was, neither says anything.

What is asked of a share of what the target knows is asked of a mean here: retained < limit is the same as
mean(score - floor - limit * (ceiling - floor)) < 0, record by record, so no ratio is bootstrapped.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
"""Subjects below which an endless bootstrap is left so: the range of the scores would say as little."""
MOVED = 20
"""Subjects that must show something of their own, or half of all, for errors to be estimated from them: with ten of a
hundred a test at 2.5 % errs in up to 7 % of studies, with twenty-five of five hundred in up to 5 %
(docs/evidence/sparse-rises.csv)."""
STILL = 1e-9
"""What differs less from the median is the same. It is no tolerance: scores that all move a little, as probabilities
do, show errors of their own."""


@dataclass(frozen=True)
class Bounded:
    """Means of subjects in random shares, one of which goes to a subject that nobody saw.

    lower, upper: [draws], sorted; the unseen subject at the low and at the high end of the range.
    """

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]

    def p_above(self, limit: float) -> float:
        """Of the hypothesis that the mean is at most `limit`."""
        return float((1 + np.searchsorted(self.lower, limit, side="right")) / (1 + self.lower.size))

    def p_below(self, limit: float) -> float:
        """Of the hypothesis that the mean is at least `limit`."""
        return float((1 + self.upper.size - np.searchsorted(self.upper, limit)) / (1 + self.upper.size))

    def least(self, tail: float) -> float:
        """The limit above which the mean lies with an error of `tail`."""
        return float(np.quantile(self.lower, tail))

    def most(self, tail: float) -> float:
        """The limit below which the mean lies with an error of `tail`."""
        return float(np.quantile(self.upper, 1 - tail))


@dataclass(frozen=True)
class Mean:
    """A mean over records with the distribution of its studentized error.

    value: in the unit of the data. error: its standard error, None with fewer than two subjects. studentized: [draws]
    of (resampled mean - mean) / resampled error, sorted, or None where freedom, the degrees of freedom of Student's t,
    stands for it. bounded: what the range of the records says where too few of them show anything of their own; it
    stands alone, or, over several seeds, beside Student's t, and then both must agree.
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
        tail, ends = (1 - confidence) / 2, []
        if self._estimated:
            ends.append([self.value - self._quantile(share) * self.error for share in (1 - tail, tail)])
        if self.bounded is not None:
            ends.append([self.bounded.least(tail), self.bounded.most(tail)])
        return [min(low for low, _ in ends), max(high for _, high in ends)]

    def p_above(self, limit: float) -> float:
        """Of the hypothesis that the mean is at most `limit`: small when it lies above."""
        p = self._tail((self.value - limit), above=True) if self._estimated else 0.0
        return p if self.bounded is None else max(p, self.bounded.p_above(limit))

    def p_below(self, limit: float) -> float:
        """Of the hypothesis that the mean is at least `limit`: small when it lies below."""
        p = self._tail((self.value - limit), above=False) if self._estimated else 0.0
        return p if self.bounded is None else max(p, self.bounded.p_below(limit))

    def detectable(self, alpha: float) -> float | None:
        """The effect beyond a limit that a one-sided test at `alpha` finds with a probability of POWER."""
        if self.error is None:
            return None
        effect = self.error * (self._quantile(1 - alpha) + self._quantile(POWER)) if self._estimated else 0.0
        return effect if self.bounded is None else max(effect, self.bounded.most(1 - POWER) - self.bounded.least(alpha))

    def reach(self, alpha: float) -> float:
        """How far from a limit the mean must lie, on the side where it is, for a one-sided test at `alpha`. It needs an
        error, and no `bounded`."""
        return (self.error or 0.0) * (self._quantile(1 - alpha) if self.value > 0 else -self._quantile(alpha))

    @property
    def _estimated(self) -> bool:
        """Whether an error that the records show has a say."""
        return self.bounded is None or self.freedom is not None

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
    shown: Values | None = None,
) -> Mean:
    """The mean of `values` over seeds and records.

    values: [seeds, records].
    subjects: [records], or None: each record is its own.
    resamples, seed: of the bootstrap, and of the random shares where the range decides.
    bounds: of the value of a record that nobody saw, where they are known; without them the range decides nothing.
    shown: [seeds, records] what records show of themselves, of which `values` is made, on a scale of length 1; None:
        the values. Too few of them that are not the same make the range decide.

    Raises PalimpsestError without records, or with another number of subjects.
    """
    if values.ndim != 2 or values.shape[1] < 1:
        raise PalimpsestError("there are no records to compare: the forget set is empty.")
    groups = np.unique(list(subjects), return_inverse=True)[1] if subjects is not None else np.arange(values.shape[1])
    if len(groups) != values.shape[1]:
        raise PalimpsestError(f"{len(groups)} subjects for {values.shape[1]} records: each record has one subject.")
    sums: NDArray[np.float64] = np.bincount(groups, values.mean(0)).astype(np.float64)
    sizes: NDArray[np.float64] = np.bincount(groups).astype(np.float64)
    known, sparse = bool(np.isfinite(bounds).all()), _sparse(values if shown is None else shown, groups)
    if len(values) > 1:
        mean = _over_seeds(values, groups)
        bounded = (
            _bounded(sums, sizes, bounds, resamples, seed) if known and sparse and mean.error is not None else None
        )
        return replace(mean, bounded=bounded)
    value = float(sums.sum() / sizes.sum())
    if len(sums) < 2:
        return Mean(value, None)
    error = float(_error(sums[None], sizes[None])[0])
    if known and sparse:
        return Mean(value, error, bounded=_bounded(sums, sizes, bounds, resamples, seed))
    studentized = _studentized(sums, sizes, resamples, seed)
    endless = error > 0 and len(sums) >= FEWEST and bool(np.abs(studentized[[0, -1]]).max() > UNBOUNDED)
    if known and endless:
        return Mean(value, error, bounded=_bounded(sums, sizes, bounds, resamples, seed))
    return Mean(value, error, studentized)


def _sparse(shown: Values, groups: NDArray[np.int64]) -> bool:
    """Whether fewer than MOVED subjects, and fewer than half, hold a record that is not as most are."""
    moved = (np.abs(shown - np.median(shown)) > STILL).any(0)
    count = len(np.unique(groups[moved]))
    return count < MOVED and 2 * count < groups.max() + 1


def _bounded(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], bounds: tuple[float, float], draws: int, seed: int
) -> Bounded:
    """Subjects of the same total and size have one share together, which is gamma distributed; the unseen one is as
    large as the largest."""
    random = np.random.default_rng(seed)
    alike, count = np.unique(np.stack([sums, sizes]), axis=1, return_counts=True)
    lower, upper = np.empty(draws), np.empty(draws)
    for start in range(0, draws, max(1, CELLS // len(count))):
        part = slice(start, min(draws, start + max(1, CELLS // len(count))))
        shares = random.standard_gamma(count, (part.stop - part.start, len(count)))
        unseen = random.standard_exponential(len(shares)) * sizes.max()
        total, size = shares @ alike[0], shares @ alike[1] + unseen
        lower[part], upper[part] = (total + unseen * bounds[0]) / size, (total + unseen * bounds[1]) / size
    return Bounded(np.sort(lower), np.sort(upper))


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
