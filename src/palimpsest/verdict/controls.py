"""Controls: other models passed off as the one that is judged, to show that the test can fail.

What must come out of each is known. They need no further inference, only the target and the retrained model in the same
formats. A control that comes out otherwise means NO VERDICT: the test did not see what is there, or saw what is not.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypedDict

import numpy as np

from palimpsest.verdict.comparison import Mean, holm, mean_of
from palimpsest.verdict.decide import decide
from palimpsest.verdict.policy import Policy
from palimpsest.verdict.records import (
    FORGETS,
    INCONCLUSIVE,
    NEVER_FORGOT,
    NO_VERDICT,
    RELAPSES,
    FormatVerdict,
    Measured,
    Values,
)
from palimpsest.vocabulary import FULL

TARGET_PASSED_OFF = "the target passed off as the unlearned model"
QUANTIZED_TARGET_PASSED_OFF = "the quantized target passed off as the quantized unlearned model"
RETRAINED = "the retrained model in the unlearned model's place"
UNCHANGED = "the unquantized model in the format's place"
SHUFFLED = "the labels of forget and retain records shuffled"
UNDECIDED = "not decided"
SHUFFLES = 100
DRAWS = 1000
"""Resamples of the bootstrap in each of them."""
RARE = 0.001
"""How often the control fails by chance, of a test that finds twice what its confidence allows."""


class Control(TypedDict):
    """passed: None where it could not be run, and found then says why."""

    control: str
    metric: str
    expected: str
    found: str
    passed: bool | None


def judge(measured: Sequence[Measured], policy: Policy) -> tuple[list[FormatVerdict], list[Control]]:
    """The verdicts on one model by every metric, and the controls they rest on.

    A metric with a failed control gives NO VERDICT in every format. Where the records do not show even of the retrained
    model that it forgets, they show it of none.
    """
    verdicts: list[FormatVerdict] = []
    controls: list[Control] = []
    for each in measured:
        of_metric = run_controls(each, policy)
        controls += of_metric
        failed = [control for control in of_metric if control["passed"] is False]
        weak = any(one["control"] == RETRAINED and one["found"].startswith(UNDECIDED) for one in of_metric)
        needed = max(one["records_needed"] or 0 for one in decide(_retrained(each, policy), policy)) if weak else 0
        for verdict in decide(each, policy):
            if weak and verdict["verdict"] == FORGETS:
                why = f"{each.units[0]} {each.units[1]} do not show even of the retrained model that it forgets"
                verdict["verdict"], verdict["reason"], verdict["records_needed"] = INCONCLUSIVE, why, needed or None
            if failed and verdict["verdict"] != NO_VERDICT:
                why = f"a control failed: {failed[0]['control']} is {failed[0]['found']}, not {failed[0]['expected']}"
                verdict["verdict"], verdict["reason"], verdict["records_needed"] = NO_VERDICT, why, None
            verdicts.append(verdict)
    return verdicts, controls


def run_controls(measured: Measured, policy: Policy) -> list[Control]:
    """All controls of one metric, over the formats of the policy."""
    formats = policy.deployed(measured.formats)
    asked = {name: measured.unlearned[name] for name in formats}
    full = measured.unlearned[FULL]
    target, retrain = measured.target, measured.retrain
    lacking = {
        "target": [name for name in (FULL, *formats) if name not in target],
        "retrained model": [name for name in (FULL, *formats) if name not in retrain],
    }
    count, unit = measured.units

    def control(name: str, expected: Sequence[str], lacks: str, models: Callable[[], Measured]) -> Control:
        if lacks and lacking[lacks]:
            found = f"not run: the {lacks} was not asked in {', '.join(lacking[lacks])}"
            return _record(measured, name, expected, found, None)
        verdicts = decide(models(), replace(policy, formats="all"))
        wrong = [one["verdict"] for one in verdicts if one["verdict"] not in expected]
        if count < policy.minimum_records and set(wrong) == {INCONCLUSIVE}:  # so the judged model cannot pass either
            found = f"{UNDECIDED}: there are fewer than {policy.minimum_records} {unit}"
            return _record(measured, name, expected, found, None)
        if name == RETRAINED and set(wrong) == {INCONCLUSIVE}:  # it is no wrong answer, and nobody passes on it
            return _record(measured, name, expected, f"{UNDECIDED}: {count} {unit} do not show that it forgets", None)
        return _record(measured, name, expected, _listed(wrong or [one["verdict"] for one in verdicts]), not wrong)

    plain = replace(measured, utility={}, answers={})
    return [
        control(
            TARGET_PASSED_OFF,
            (NEVER_FORGOT,),
            "target",
            lambda: replace(plain, unlearned={name: target[name] for name in (FULL, *asked)}),
        ),
        control(
            QUANTIZED_TARGET_PASSED_OFF,
            (RELAPSES, NEVER_FORGOT),
            "target",
            lambda: replace(plain, unlearned={FULL: full, **{name: target[name] for name in asked}}),
        ),
        control(
            RETRAINED,
            (FORGETS,),
            "retrained model",
            lambda: _retrained(plain, policy),
        ),
        _unchanged(plain, policy),
        _shuffled(plain, policy),
    ]


def _retrained(measured: Measured, policy: Policy) -> Measured:
    """The retrained model in the unlearned model's place."""
    formats = (FULL, *policy.deployed(measured.formats))
    return replace(measured, utility={}, answers={}, unlearned={name: measured.retrain[name] for name in formats})


def _unchanged(measured: Measured, policy: Policy) -> Control:
    """Quantizing to bf16 changes nothing: the rise is exactly zero and no record comes back."""
    same = replace(measured, unlearned={FULL: measured.unlearned[FULL], UNCHANGED: measured.unlearned[FULL]})
    retrain, target = ({FULL: by[FULL]} if FULL in by else {} for by in (measured.retrain, measured.target))
    same = replace(same, retrain=retrain, target=target)
    (one,) = decide(same, replace(policy, formats="all"))
    exact = abs(one["rise"]["value"]) < 1e-9 and not one["relapsed"] and one["verdict"] != RELAPSES
    if one["verdict"] == NO_VERDICT:
        return _record(measured, UNCHANGED, ("a rise of 0",), f"not run: {one['reason']}", None)
    rise = one["rise"]["value"] if abs(one["rise"]["value"]) >= 1e-9 else 0.0
    return _record(measured, UNCHANGED, ("a rise of 0",), f"a rise of {rise:.3g}", exact)


def _shuffled(measured: Measured, policy: Policy) -> Control:
    """Which records were to be forgotten is dealt out at random, a hundred times: that those called forgotten rise more
    than the others is then chance, and the test must not find it more often than chance allows.

    It is the test of the verdict (palimpsest.verdict.comparison), by Holm over the formats: of a mean over records,
    over seeds where there are several, and by the records' range where few of them rise or fall at all. The mean is
    that of the rises, each weighed so that it is the difference between both kinds. A permutation test of the two kinds
    would be exact under shuffled labels whatever the verdict's own test does, so it would be a control of nothing. The
    seed is the policy's.
    """
    asked = [FULL, *policy.deployed(measured.formats)]
    lacking = [name for name in asked if name not in measured.kept]
    alpha = (1 - policy.confidence) / 2
    most = _most_by_chance(alpha)
    expected = f"a difference in at most {most} of {SHUFFLES} shuffles"
    if lacking:
        found = f"not run: no retain records were asked in {', '.join(lacking)}"
        return _record(measured, SHUFFLED, (expected,), found, None)
    rises = [
        np.concatenate([by[name] - by[FULL] for by in (measured.unlearned, measured.kept)], axis=1)
        for name in asked[1:]
    ]
    forgotten = len(measured.ids)
    random, hits = np.random.default_rng(policy.seed), 0
    for shuffle in range(SHUFFLES):
        order = random.permutation(rises[0].shape[1])
        differences = [_difference(each[:, order], forgotten, policy.seed + shuffle) for each in rises]
        hits += min(holm([each.p_above(0) for each in differences])) <= alpha
    return _record(measured, SHUFFLED, (expected,), f"a difference in {hits} of {SHUFFLES}", hits <= most)


def _difference(rises: Values, first: int, seed: int) -> Mean:
    """The mean of the first rises less that of the others; rises: [seeds, records], from -1 to 1."""
    means, share = rises.mean(1, keepdims=True), first / rises.shape[1]
    values = (rises - means) * np.where(np.arange(rises.shape[1]) < first, 1 / share, -1 / (1 - share))
    reach = (1 + float(np.abs(means).max())) / min(share, 1 - share)
    return mean_of(values, None, DRAWS, seed, (-reach, reach), rises)


def _most_by_chance(alpha: float) -> int:
    """Of SHUFFLES, each of which finds something in at most 2 alpha of the cases."""
    from scipy.stats import binom

    return int(binom.ppf(1 - RARE, SHUFFLES, min(1.0, 2 * alpha)))


def _record(measured: Measured, name: str, expected: Iterable[str], found: str, passed: bool | None) -> Control:
    return {"control": name, "metric": measured.metric, "expected": _listed(expected), "found": found, "passed": passed}


def _listed(words: Iterable[str]) -> str:
    return " or ".join(dict.fromkeys(words))
