"""Controls: other models passed off as the one that is judged, to show that the test can fail.

What must come out of each is known. They need no further inference, only the target and the retrained model in the same
formats. A control that comes out otherwise means NO VERDICT: the test did not see what is there, or saw what is not.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypedDict

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
)
from palimpsest.vocabulary import FULL

TARGET_PASSED_OFF = "the target passed off as the unlearned model"
QUANTIZED_TARGET_PASSED_OFF = "the quantized target passed off as the quantized unlearned model"
RETRAINED = "the retrained model in the unlearned model's place"
UNCHANGED = "the unquantized model in the format's place"


class Control(TypedDict):
    """passed: None where it could not be run, and found then says why."""

    control: str
    metric: str
    expected: str
    found: str
    passed: bool | None


def judge(measured: Sequence[Measured], policy: Policy) -> tuple[list[FormatVerdict], list[Control]]:
    """The verdicts on one model by every metric, and the controls they rest on.

    A metric with a failed control gives NO VERDICT in every format.
    """
    verdicts: list[FormatVerdict] = []
    controls: list[Control] = []
    for each in measured:
        of_metric = run_controls(each, policy)
        controls += of_metric
        failed = [control for control in of_metric if control["passed"] is False]
        for verdict in decide(each, policy):
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
    few = min(len(measured.ids), len(set(measured.subjects or measured.ids))) < policy.minimum_records

    def control(name: str, expected: Sequence[str], lacks: str, models: Callable[[], Measured]) -> Control:
        if lacks and lacking[lacks]:
            found = f"not run: the {lacks} was not asked in {', '.join(lacking[lacks])}"
            return _record(measured, name, expected, found, None)
        verdicts = decide(models(), replace(policy, formats="all"))
        wrong = [one["verdict"] for one in verdicts if one["verdict"] not in expected]
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
            (FORGETS, INCONCLUSIVE) if few else (FORGETS,),
            "retrained model",
            lambda: replace(plain, unlearned={name: retrain[name] for name in (FULL, *asked)}),
        ),
        _unchanged(plain, policy),
    ]


def _unchanged(measured: Measured, policy: Policy) -> Control:
    """Quantizing to bf16 changes nothing: the rise is exactly zero and no record comes back."""
    same = replace(measured, unlearned={FULL: measured.unlearned[FULL], UNCHANGED: measured.unlearned[FULL]})
    retrain, target = ({FULL: by[FULL]} if FULL in by else {} for by in (measured.retrain, measured.target))
    same = replace(same, retrain=retrain, target=target)
    (one,) = decide(same, replace(policy, formats="all"))
    exact = abs(one["rise"]["value"]) < 1e-9 and not one["relapsed"] and one["verdict"] != RELAPSES
    if one["verdict"] == NO_VERDICT:
        return _record(measured, UNCHANGED, ("a rise of 0",), f"not run: {one['reason']}", None)
    return _record(measured, UNCHANGED, ("a rise of 0",), f"a rise of {one['rise']['value']:.3g}", exact)


def _record(measured: Measured, name: str, expected: Iterable[str], found: str, passed: bool | None) -> Control:
    return {"control": name, "metric": measured.metric, "expected": _listed(expected), "found": found, "passed": passed}


def _listed(words: Iterable[str]) -> str:
    return " or ".join(dict.fromkeys(words))
