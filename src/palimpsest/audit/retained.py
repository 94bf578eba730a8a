"""Retained forget knowledge under each denominator, with a paired bootstrap over examples.

Every quantity is a vector [1 + resamples] in percent: entry 0 is the estimate, the rest are its bootstrap replicates. A
resample draws the same examples for every model, seed and precision, so differences between models keep their pairing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from palimpsest.audit.records import Key, Study
from palimpsest.audit.shapes import Cell
from palimpsest.errors import PalimpsestError
from palimpsest.metrics.records import ScoreRecord
from palimpsest.metrics.statistics import percentile_interval, resample_counts
from palimpsest.vocabulary import FORGET_METRICS, FULL, HEADLINE, NO_RETRAIN, OK, SHARE_OF_TARGET, TARGET, undefined

Vector = NDArray[np.float64]

UNDEFINED_RESAMPLES = 0.05
"""Above this share of resamples without a defined value there is no interval."""


@dataclass(frozen=True)
class Rules:
    """Thresholds of the audit, in points or percent; none has a default but target_floor.

    minimum_gap: points that target and retrain (or target and 0) must differ for a ratio to be defined.
    forgotten_below: percent retained at full precision under which the methods count as having forgotten.
    negligible: points of recovery that do not matter. utility_floor: percent of the target's utility under which a
    model counts as broken. target_floor: by metric of the forget set the percent that the target must score on
    its own questions or passages; None: whatever it scores, as before there was the rule.
    resamples, confidence, seed: of the bootstrap.
    """

    minimum_gap: float
    forgotten_below: float
    negligible: float
    utility_floor: float
    resamples: int
    confidence: float
    seed: int
    target_floor: Mapping[str, float] | None = None


class Denominator(NamedTuple):
    """How a score becomes a percentage of what the target knows."""

    above_retrain: bool
    same_precision: bool
    label: str


DENOMINATORS = {
    "same_precision": Denominator(True, True, "(score - retrain) / (target - retrain), all at the same precision"),
    "bf16": Denominator(True, False, "(score - retrain) / (target - retrain), target and retrain in bf16"),
    "ratio_bf16": Denominator(False, False, "score / target, target in bf16"),
    "ratio_same_precision": Denominator(False, True, "score / target at the same precision"),
}


class Retained:
    """Retained forget knowledge of every unlearned model of a study."""

    def __init__(self, study: Study, rules: Rules) -> None:
        self.study, self.rules = study, rules
        self.target, self.retrain = study.one(TARGET), study.retrain
        self.headline = HEADLINE if self.retrain else SHARE_OF_TARGET
        self.metrics = [metric for metric in FORGET_METRICS if not self._why_unasked(metric)]
        """Of the forget set, those that were asked: of a corpus of questions alone there is no VerMem."""
        self._scores = {metric: self._score_vectors(metric) for metric in self.metrics}

    def of(self, metric: str, key: Key, denominator: str) -> Vector:
        """Percent retained of one metric; NaN where the denominator is below the minimum gap, nothing was asked, or
        there is no retrained model above which to measure."""
        rule = DENOMINATORS[denominator]
        if metric not in self._scores or (rule.above_retrain and not self.retrain):
            return np.full(1 + self.rules.resamples, np.nan)
        _, seed, precision = key
        scores = self._scores[metric]
        at = precision if rule.same_precision else FULL
        floor = scores[self.retrain, seed, at] if rule.above_retrain and self.retrain else np.zeros(1)
        gap = scores[self.target, seed, at] - floor
        defined = gap >= self.rules.minimum_gap
        return np.where(defined, 100 * (scores[key] - floor) / np.where(defined, gap, 1.0), np.nan)

    def mean(self, key: Key, denominator: str) -> Vector:
        """The mean of VerMem and KnowMem, or the one of them that was asked: "retained"."""
        return _mean([self.of(metric, key, denominator) for metric in self.metrics])

    def average(self, models: list[str], precision: str, denominator: str) -> Vector:
        """`mean`, averaged over models and seeds."""
        keys = [(model, seed, precision) for model in models for seed in self.study.seeds]
        return _mean([self.mean(key, denominator) for key in keys])

    def recovery(self, models: list[str], seeds: list[int], precision: str) -> Vector:
        """Points by which headline retention at `precision` exceeds that in bf16, averaged over models and seeds.

        Without a retrained model NaN, too, where the format destroys what the target itself shows.
        """
        if self._destroyed(seeds, precision):
            return np.full(1 + self.rules.resamples, np.nan)
        keys = [(model, seed) for model in models for seed in seeds]
        at = self.headline
        return _mean([self.mean((*key, precision), at) - self.mean((*key, FULL), at) for key in keys])

    def why_no_recovery(self, seeds: list[int], precision: str) -> str:
        """Why there is no recovery at a precision, in words; empty where there is one."""
        why = self.why_undefined(seeds, precision, self.headline) or self.why_undefined(seeds, FULL, self.headline)
        return why or self._destroyed(seeds, precision)

    def _destroyed(self, seeds: list[int], precision: str) -> str:
        """Why nothing could come back in a format, in words: the target itself shows too little of what it showed.

        Above a retrained model the gap between both says so, at the same precision (`why_undefined`).
        """
        if self.retrain:
            return ""
        for seed in seeds:
            share = float(self.mean((self.target, seed, precision), SHARE_OF_TARGET)[0])
            if share < self.rules.forgotten_below:
                return undefined(
                    f"at {precision}, seed {seed}, the target itself shows {share:.0f} % of its score in {FULL}, below "
                    f"{self.rules.forgotten_below:g}"
                )
        return ""

    def why_undefined(self, seeds: list[int], precision: str, denominator: str) -> str:
        """Which gap between target and reference is too small, in words; empty where all are wide enough."""
        rule = DENOMINATORS[denominator]
        if rule.above_retrain and not self.retrain:
            return undefined(NO_RETRAIN)
        at = precision if rule.same_precision else FULL
        for metric in self.metrics:
            for seed in seeds:
                scores = self._scores[metric]
                gap = float(scores[self.target, seed, at][0])
                if rule.above_retrain and self.retrain:
                    gap -= float(scores[self.retrain, seed, at][0])
                if gap < self.rules.minimum_gap:
                    what = "target - retrain" if rule.above_retrain else "target"
                    return undefined(
                        f"{metric} {what} at {at}, seed {seed}, is {gap:.1f} points, below {self.rules.minimum_gap:g}"
                    )
        return ""

    def _why_unasked(self, metric: str) -> str:
        """Why nobody was asked for a metric; empty where somebody was."""
        record = next(iter(self.study.scores.values()))[metric]
        return "" if record["n"] else record["status"]

    def why_no_part(self, metric: str, seeds: list[int], precision: str, denominator: str) -> str:
        """`why_undefined` of one metric alone, which may not have been asked."""
        return self._why_unasked(metric) or self.why_undefined(seeds, precision, denominator)

    def cell(self, vector: Vector, why: str, confidence: float | None = None) -> Cell:
        """The cell of a vector: numbers, or None with the reason."""
        if np.isnan(vector[0]):
            return {"value": None, "ci": None, "status": why or "undefined"}
        replicates = vector[1:][~np.isnan(vector[1:])]
        lost = 1 - replicates.size / (vector.size - 1)
        if lost > UNDEFINED_RESAMPLES:
            status = f"{OK}, no interval: undefined in {lost:.0%} of the resamples"
            return {"value": float(vector[0]), "ci": None, "status": status}
        interval = percentile_interval(replicates, self.rules.confidence if confidence is None else confidence)
        return {"value": float(vector[0]), "ci": list(interval), "status": OK}

    def _score_vectors(self, metric: str) -> dict[Key, Vector]:
        records = {key: by_metric[metric] for key, by_metric in self.study.scores.items()}
        first_key, first = next(iter(records.items()))
        n = len(_per_example(first, metric, first_key))
        counts = resample_counts(n, self.rules.resamples, self.rules.seed + FORGET_METRICS.index(metric))
        counts = np.vstack([np.ones((1, n)), counts])
        vectors = {}
        for key, record in records.items():
            values = _per_example(record, metric, key)
            if record.get("ids") != first.get("ids") or len(values) != n:
                raise PalimpsestError(
                    f"{metric} of {key} and of {first_key} rest on different examples: score both on the same corpus."
                )
            vectors[key] = 100 * (counts @ np.asarray(values, dtype=np.float64)) / n
            if record["score"] is None or abs(vectors[key][0] - record["score"]) > 1e-6:
                raise PalimpsestError(
                    f"{metric} of {key}: score {record['score']} is not 100 times the mean "
                    "of per_example: score it again."
                )
        return vectors


def _mean(vectors: Sequence[Vector]) -> Vector:
    mean: Vector = np.mean(vectors, axis=0)
    return mean


def _per_example(record: ScoreRecord, metric: str, key: Key) -> list[float]:
    values = record["per_example"]
    if not isinstance(values, list):
        raise PalimpsestError(f"{metric} of {key} has its examples by split, where one list is needed: score it again.")
    return values
