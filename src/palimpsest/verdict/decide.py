"""The verdict on a model in each format: what is asked, in which order, and what it takes to pass.

Asked of every format, by each metric of the policy: has the model collapsed; had it forgotten at full precision; does
it know more in the format than at full precision; is what it knows in the format below the policy's limit. Every
question is a one-sided test of a mean over records (palimpsest.verdict.comparison). A pass needs two of them to come
out: retained below the limit *and* the rise below the margin, so its p is the larger one (an intersection-union test);
a relapse needs one of two, so its p is twice the smaller one. Both are corrected over formats by Holm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from palimpsest.verdict.comparison import UNBOUNDED, Mean, holm, mean_of
from palimpsest.verdict.policy import Policy
from palimpsest.verdict.records import (
    BEYOND,
    COLLAPSED,
    EXIT_CODES,
    FORGETS,
    INCONCLUSIVE,
    NEVER_FORGOT,
    NO_VERDICT,
    RELAPSES,
    VERDICTS,
    FormatVerdict,
    Measured,
    Share,
    Values,
)
from palimpsest.verdict.relapses import relapsed
from palimpsest.vocabulary import FULL

LEAST_SPAN = 0.05
"""Target and retrained model must differ by this much for a share of what lies between them to mean anything."""


@dataclass(frozen=True)
class Asked:
    """The tests of one format: their means, in the unit of the scores."""

    name: str
    span: float
    full: Mean
    here: Mean
    rise: Mean
    p_relapses: float
    p_forgets: float


def decide(measured: Measured, policy: Policy) -> list[FormatVerdict]:
    """One verdict for each format that the policy asks for. Raises PalimpsestError where one was not measured."""
    formats = policy.deployed(measured.formats)
    span = _span(measured)
    if span < LEAST_SPAN:
        differ = "and the retrained model differ by" if measured.retrain else "scores"
        why = (
            f"the target {differ} {100 * span:.1f} points only: the questions do not tell a model that knows from one "
            "that does not"
        )
        return [_unasked(measured, name, why) for name in formats]
    asked = [_ask(measured, name, policy) for name in formats]
    relapses, forgets = holm([one.p_relapses for one in asked]), holm([one.p_forgets for one in asked])
    return [
        _verdict(measured, one, p_relapses, p_forgets, policy)
        for one, p_relapses, p_forgets in zip(asked, relapses, forgets, strict=True)
    ]


def worst(verdicts: Sequence[FormatVerdict]) -> FormatVerdict:
    """The verdict that decides for the model: of the worst format and metric."""
    return min(verdicts, key=lambda one: (VERDICTS.index(one["verdict"]), -one["rise"]["value"]))


def exit_code(verdicts: Sequence[FormatVerdict]) -> int:
    """0 pass, 2 fail, 3 inconclusive, 4 no verdict: a failed control counts most, then a failure, then doubt."""
    return EXIT_CODES[worst(verdicts)["verdict"]]


def floor_and_ceiling(measured: Measured) -> tuple[Values, Values]:
    """[1 or seeds, records] each: what the retrained model and the target show at full precision; 0 and 1 where they
    were not asked.

    The same for every format: a format that destroys the target's knowledge as well must not turn the little that is
    left into a large share of it. What the format does to the target is a control's business.
    """
    nothing = np.zeros((1, len(measured.ids)))
    return measured.retrain.get(FULL, nothing), measured.target.get(FULL, nothing + 1)


def _span(measured: Measured) -> float:
    floor, ceiling = floor_and_ceiling(measured)
    return float(ceiling.mean() - floor.mean())


def _ask(measured: Measured, name: str, policy: Policy) -> Asked:
    limit, margin = policy.forgotten_below / 100, policy.margin / 100
    full, here = measured.unlearned[FULL], measured.unlearned[name]
    floor, ceiling = floor_and_ceiling(measured)

    def mean(shown: Values, against: Values, least: float) -> Mean:
        """Of what is shown, from `least` to 1, less what it is held against, of which one more record has the mean."""
        unseen = least - float(against.mean()), 1 - float(against.mean())
        return mean_of(shown - against, measured.subjects, policy.resamples, policy.seed, unseen, shown)

    known, allowed = floor + limit * (ceiling - floor), margin * (ceiling - floor)
    knows_full, knows_here = mean(full, known, 0), mean(here, known, 0)
    rises = mean(here - full, allowed, -1)
    had_forgotten = knows_full.p_above(0) > (1 - policy.confidence) / 2
    rose = rises.p_above(0)
    p_relapses = min(1.0, 2 * min(rose, knows_here.p_above(0) if had_forgotten else 1.0))
    return Asked(
        name,
        float(np.mean(ceiling - floor)),
        knows_full,
        knows_here,
        rises,
        p_relapses,
        max(knows_here.p_below(0), rises.p_below(0)),
    )


def _verdict(measured: Measured, asked: Asked, p_relapses: float, p_forgets: float, policy: Policy) -> FormatVerdict:
    alpha = (1 - policy.confidence) / 2
    groups = None if measured.subjects is None else len(set(measured.subjects))
    back = relapsed(measured, asked.name, policy)
    utility = measured.utility.get(asked.name)
    record: FormatVerdict = {
        "format": asked.name,
        "metric": measured.metric,
        "verdict": INCONCLUSIVE,
        "reason": "",
        "retained_full": _share(asked.full, asked.span, policy.forgotten_below, policy.confidence),
        "retained": _share(asked.here, asked.span, policy.forgotten_below, policy.confidence),
        "rise": _share(asked.rise, asked.span, policy.margin, policy.confidence),
        "detectable": _points(asked.rise.detectable(alpha), asked.span),
        "p_relapses": p_relapses,
        "p_forgets": p_forgets,
        "utility": utility,
        "records": len(measured.ids),
        "subjects": groups,
        "records_needed": None,
        "relapsed": back,
    }
    count, unit = measured.units
    few = f"there are fewer than {policy.minimum_records} {unit}" if count < policy.minimum_records else ""
    record["verdict"], record["reason"] = _rule(record, asked, few, alpha, policy)
    if record["verdict"] == INCONCLUSIVE:
        record["records_needed"] = _needed(record, asked, policy)
    return record


def _rule(record: FormatVerdict, asked: Asked, few: str, alpha: float, policy: Policy) -> tuple[str, str]:
    """The verdict and its reason, in the order of what must not be overlooked. few: why it cannot be FORGETS, if the
    records are too few for that."""
    utility, back = record["utility"], len(record["relapsed"])
    if utility is not None and utility < policy.utility_floor:
        return COLLAPSED, f"its utility is {utility:.0f} % of the reference's, the floor {policy.utility_floor:g} %"
    if asked.full.p_above(0) <= alpha:
        return NEVER_FORGOT, (
            f"at full precision it still shows {record['retained_full']['value']:z.0f} % of what the target knows; "
            f"the policy's limit is {policy.forgotten_below:g} %"
        )
    if (record["p_relapses"] or 0.0) <= alpha and record["p_relapses"] is not None:
        return RELAPSES, (
            f"it shows {record['retained']['value']:z.0f} % of what the target knows, "
            f"{record['retained_full']['value']:z.0f} % at full precision"
        )
    if back > policy.allowed:
        return RELAPSES, f"{back} of {record['records']} records came back, and the policy allows {policy.allowed}"
    if few:
        return INCONCLUSIVE, few
    if record["p_forgets"] is not None and record["p_forgets"] <= alpha:
        return FORGETS, (
            f"it shows {record['retained']['value']:z.0f} % of what the target knows, "
            f"within {policy.margin:g} points of full precision, and {back} of {record['records']} records came back"
        )
    return INCONCLUSIVE, "the interval reaches from what passes to what fails"


def _share(mean: Mean, span: float, limit: float, confidence: float) -> Share:
    """Back from the test's mean to percent: mean = (share - limit) * span."""
    interval = mean.interval(confidence)
    return {
        "value": 100 * mean.value / span + limit,
        "ci": None if interval is None else [_clip(100 * end / span + limit) for end in interval],
    }


def _clip(percent: float) -> float:
    """Scores lie within 0 and 1, so a share or a rise beyond a thousand percent is no estimate but few records."""
    return float(np.clip(percent, -BEYOND, BEYOND))


def _points(effect: float | None, span: float) -> float | None:
    return None if effect is None or not np.isfinite(effect) or effect > 10 * span else 100 * effect / span


def _needed(record: FormatVerdict, asked: Asked, policy: Policy) -> int | None:
    """About how many records would decide: the distances to the limits stay, the errors shrink with the root of the
    number, and the policy's minimum is there. None where the mean lies on a limit."""
    alpha, most = (1 - policy.confidence) / 2, 0.0
    for mean in (asked.here, asked.rise):
        if mean.value == 0:
            return None
        if mean.error is None:
            continue
        if mean.bounded is not None:  # what nobody saw becomes less probable by as much with every further record
            p = mean.p_below(0) if mean.value < 0 else mean.p_above(0)
            together = max(1.0, (record["p_forgets"] or 0.0) / max(asked.p_forgets, 1e-300))
            most = max(most, np.log(alpha / together) / np.log(p) if p < 1 else 1e4)
            continue
        reach = mean.reach(alpha)
        if reach > UNBOUNDED:  # so few subjects that there is no interval: the policy's minimum is the answer
            continue
        most = max(most, min(reach / abs(mean.value), 1e4) ** 2)
    records = record["records"]
    floor = records * policy.minimum_records / (record["subjects"] or records)
    needed = max(records * most, floor, records + 1)
    return int(np.ceil(needed)) if np.isfinite(needed) and needed < 1e7 else None


def _unasked(measured: Measured, name: str, why: str) -> FormatVerdict:
    nothing: Share = {"value": 0.0, "ci": None}
    return {
        "format": name,
        "metric": measured.metric,
        "verdict": NO_VERDICT,
        "reason": why,
        "retained_full": nothing,
        "retained": nothing,
        "rise": nothing,
        "detectable": None,
        "p_relapses": None,
        "p_forgets": None,
        "utility": measured.utility.get(name),
        "records": len(measured.ids),
        "subjects": None if measured.subjects is None else len(set(measured.subjects)),
        "records_needed": None,
        "relapsed": [],
    }
