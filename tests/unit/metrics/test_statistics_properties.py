"""What holds of every interval, AUC and Min-K% value, whatever the numbers: bounds, symmetries, units."""

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from palimpsest.errors import PalimpsestError
from palimpsest.metrics.privleak import membership_auc, min_k, relative_leak
from palimpsest.metrics.statistics import (
    bootstrap_distribution,
    mean_interval,
    percentile_interval,
    resample_counts,
)

ALWAYS = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate]
)
shares = st.floats(0, 1)
losses = st.integers(0, 400).map(lambda eighths: eighths / 8)  # far enough apart for a logarithm to keep them so
seeds = st.integers(0, 2**32 - 1)
confidences = st.floats(0.01, 0.99)


def samples(values: st.SearchStrategy[float], least: int = 1) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.float64, st.integers(least, 30), elements=values)


@ALWAYS
@given(values=samples(shares), confidence=confidences, seed=seeds)
def test_an_interval_of_a_mean_lies_within_the_values(values: np.ndarray, confidence: float, seed: int) -> None:
    low, high, note = mean_interval(values, 50, confidence, seed)
    assert values.min() - 1e-12 <= low <= high <= values.max() + 1e-12
    assert (low == high == values[0] and note) if np.all(values == values[0]) else not note
    assert mean_interval(values, 50, confidence, seed) == (low, high, note), "the same seed, the same interval"


@ALWAYS
@given(values=samples(shares, 2), seed=seeds, factor=st.floats(0.01, 100), shift=st.floats(-100, 100))
def test_an_interval_moves_with_its_unit(values: np.ndarray, seed: int, factor: float, shift: float) -> None:
    low, high, _ = mean_interval(values, 50, 0.9, seed)
    moved = mean_interval(factor * values + shift, 50, 0.9, seed)
    assert moved[:2] == pytest.approx(
        (factor * low + shift, factor * high + shift), abs=1e-9 * (factor + abs(shift) + 1)
    )


@ALWAYS
@given(distribution=samples(st.floats(-1e6, 1e6)), narrow=confidences, wide=confidences)
def test_more_confidence_is_never_a_narrower_interval(distribution: np.ndarray, narrow: float, wide: float) -> None:
    narrow, wide = sorted((narrow, wide))
    inner, outer = percentile_interval(distribution, narrow), percentile_interval(distribution, wide)
    slack = 1e-9 * (1 + np.abs(distribution).max())
    assert outer[0] <= inner[0] + slack and inner[0] <= inner[1] + slack and inner[1] <= outer[1] + slack
    shuffled = np.random.default_rng(0).permutation(distribution)
    assert percentile_interval(shuffled, wide) == pytest.approx(outer, abs=slack)


@ALWAYS
@given(n=st.integers(1, 40), resamples=st.integers(1, 40), seed=seeds)
def test_a_resample_draws_as_many_as_there_are(n: int, resamples: int, seed: int) -> None:
    counts = resample_counts(n, resamples, seed)
    assert counts.shape == (resamples, n) and np.all(counts >= 0) and np.all(counts.sum(axis=1) == n)
    assert np.array_equal(counts, counts.round()) and np.array_equal(counts, resample_counts(n, resamples, seed))
    ones = counts @ np.ones(n) / n
    assert np.all(ones == 1), "a mean of equal values is that value in every resample"


@ALWAYS
@given(values=samples(shares, 2), seed=seeds)
def test_resamples_of_a_statistic_are_its_values(values: np.ndarray, seed: int) -> None:
    drawn = bootstrap_distribution([values], np.max, 30, seed)
    assert drawn.shape == (30,) and np.isin(drawn, values).all()


@ALWAYS
@given(forget=samples(losses), holdout=samples(losses))
def test_an_auc_is_a_probability_and_turns_with_its_sides(forget: np.ndarray, holdout: np.ndarray) -> None:
    auc = membership_auc(forget, holdout)
    assert 0 <= auc <= 1
    assert membership_auc(holdout, forget) == pytest.approx(1 - auc)
    assert membership_auc(forget, forget) == pytest.approx(0.5)
    assert membership_auc(np.log1p(forget), np.log1p(holdout)) == pytest.approx(auc)
    assert membership_auc(forget[::-1], holdout[::-1]) == pytest.approx(auc)
    pairs = np.mean((holdout[:, None] < forget) + 0.5 * (holdout[:, None] == forget))
    assert auc == pytest.approx(pairs), "P(a holdout text is likelier), ties half"


@ALWAYS
@given(values=samples(st.floats(-50, 0)), ratio=st.floats(0.01, 1), seed=seeds)
def test_min_k_lies_between_the_mean_and_the_worst_and_knows_no_order(
    values: np.ndarray, ratio: float, seed: int
) -> None:
    value = min_k(values, ratio)
    assert -values.mean() - 1e-9 <= value <= -values.min() + 1e-9
    assert min_k(np.random.default_rng(seed).permutation(values), ratio) == pytest.approx(value)
    assert min_k(values, 1) == pytest.approx(-values.mean())
    assert min_k(values, min(1, 2 * ratio)) <= value + 1e-9, "more tokens are likelier ones"


@ALWAYS
@given(auc=shares, retrain=st.floats(1e-6, 1))
def test_a_leak_has_the_sign_of_the_difference(auc: float, retrain: float) -> None:
    leak = relative_leak(auc, retrain)
    assert leak >= -100 and np.sign(leak) == np.sign(auc - retrain)
    assert retrain * (1 + leak / 100) == pytest.approx(auc, abs=1e-9)


@ALWAYS
@given(st.lists(st.sampled_from([float("nan"), float("inf"), float("-inf")]), min_size=1, max_size=3))
def test_what_is_no_number_is_an_error_never_a_score(bad: list[float]) -> None:
    for call in (lambda: min_k(bad, 0.4), lambda: membership_auc(bad, [1.0]), lambda: membership_auc([1.0], bad)):
        with pytest.raises(PalimpsestError):
            call()
