"""What a verdict is made from, and what it holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from palimpsest.errors import PalimpsestError
from palimpsest.vocabulary import FULL

Values = NDArray[np.float64]
"""[seeds, records] what a model shows of each record, 0 (nothing) to 1 (all), such as the probability of the answer."""

FORGETS, RELAPSES, NEVER_FORGOT = "FORGETS", "RELAPSES", "NEVER FORGOT"
COLLAPSED, INCONCLUSIVE, NO_VERDICT = "COLLAPSED", "INCONCLUSIVE", "NO VERDICT"
VERDICTS = (NO_VERDICT, COLLAPSED, NEVER_FORGOT, RELAPSES, INCONCLUSIVE, FORGETS)
"""The worst first."""

MEANINGS = {
    FORGETS: "what was forgotten stays forgotten in this format, within the margin of the policy",
    RELAPSES: "it had forgotten at full precision, and this format brings knowledge back",
    NEVER_FORGOT: "it did not forget at full precision, so no format can keep it forgotten",
    COLLAPSED: "the model is too damaged to be of use, which is no way to pass",
    INCONCLUSIVE: "the records do not decide; more of them would",
    NO_VERDICT: "the test itself failed, so it says nothing about the model",
}
BEYOND = 1000.0
"""Percent: an interval that reaches so far has no bound on that side."""
EXIT_CODES = {FORGETS: 0, RELAPSES: 2, NEVER_FORGOT: 2, COLLAPSED: 2, INCONCLUSIVE: 3, NO_VERDICT: 4}


@dataclass(frozen=True)
class Measured:
    """One metric of an unlearned model, of the models it is compared with, and of the formats it is deployed in.

    ids: [records], unique. subjects: [records] whom or what each is about, or None where that is not known.
    unlearned, retrain, target: by precision (`bf16` is the unquantized one), [seeds, records] each; retrain and target
    may lack any precision. utility: by precision, percent of the utility of `utility_of`. answers: by precision, what
    the unlearned model said, [records] (of its first seed), where that is known.
    notes: what a reader must know of where the numbers come from. kept: by precision, what the unlearned model shows of
    records that it was to keep, on the same scale, [seeds, their number] each, where they were asked.
    """

    metric: str
    ids: Sequence[str]
    unlearned: Mapping[str, Values]
    retrain: Mapping[str, Values] = field(default_factory=dict)
    target: Mapping[str, Values] = field(default_factory=dict)
    subjects: Sequence[str] | None = None
    utility: Mapping[str, float] = field(default_factory=dict)
    utility_of: str = ""
    answers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    kept: Mapping[str, Values] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if FULL not in self.unlearned:
            raise PalimpsestError(f"{self.metric}: no values at full precision ({FULL}), which formats are held to.")
        if len(set(self.ids)) != len(self.ids):
            twice = next(name for name in self.ids if list(self.ids).count(name) > 1)
            raise PalimpsestError(f"{self.metric}: record {twice} occurs twice: every record needs an id of its own.")
        for name, values in self._arrays():
            if values.ndim != 2 or values.shape[1] != len(self.ids):
                raise PalimpsestError(
                    f"{self.metric} of {name}: {values.shape[-1]} records where there are {len(self.ids)} ids: "
                    "score all models on the same records."
                )
            if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
                bad = self.ids[int(np.argmax((~np.isfinite(values) | (values < 0) | (values > 1)).any(0)))]
                raise PalimpsestError(f"{self.metric} of {name}: record {bad} is no number from 0 to 1.")

        shapes = {values.shape for values in self.kept.values()}
        whole = all(np.isfinite(each).all() and each.min() >= 0 and each.max() <= 1 for each in self.kept.values())
        if len(shapes) > 1 or not whole:
            raise PalimpsestError(
                f"{self.metric} of the retain records: other records in another format, or one that is no number "
                "from 0 to 1: score them again."
            )

    @property
    def units(self) -> tuple[int, str]:
        """What the statistics resample, and how many there are: subjects where they are known, else records."""
        return (len(self.ids), "records") if self.subjects is None else (len(set(self.subjects)), "subjects")

    def _arrays(self) -> list[tuple[str, Values]]:
        kinds = {"the unlearned model": self.unlearned, "retrain": self.retrain, "target": self.target}
        return [(f"{kind} at {at}", values) for kind, by in kinds.items() for at, values in by.items()]

    def before_and_after(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """[records] each: what the unlearned model shows at full precision and in format `name`, over the seeds."""
        return self.unlearned[FULL].mean(0), self.unlearned[name].mean(0)

    def rises_of_retrain(self, name: str) -> NDArray[np.float64] | None:
        """[records] by how much the retrained model rises in format `name`, which never saw the records; None where it
        was not asked."""
        if FULL not in self.retrain or name not in self.retrain:
            return None
        return np.asarray(self.retrain[name].mean(0) - self.retrain[FULL].mean(0))

    @property
    def formats(self) -> list[str]:
        """The precisions that a verdict is asked for: all but the full one."""
        return [name for name in self.unlearned if name != FULL]


class Share(TypedDict):
    """A percentage of what the target knows above the retrained model, both at full precision.

    value, ci ([low, high], at the policy's confidence): percent; ci is None where there are too few records.
    """

    value: float
    ci: list[float] | None


class Relapse(TypedDict):
    """A record that came back: its place in the records, what the model showed of it in full precision and in the
    format (0 to 1), the retrained model's own rise (None where it was not asked), and p, how probable a rise as large
    is in the retrained model (None likewise)."""

    id: str
    subject: str | None
    before: float
    after: float
    rise: float
    retrain_rise: float | None
    p: float | None


class FormatVerdict(TypedDict):
    """The verdict on one format by one metric.

    reason: one sentence. retained_full, retained: at full precision and in the format. rise: points of retained
    knowledge by which the format exceeds full precision. detectable: points of rise that the test would have found with
    a probability of 80 %. p_relapses, p_forgets: after Holm's correction over formats. records_needed: about how many
    records would decide, None where the verdict stands or none would. relapsed: the records that came back.
    """

    format: str
    metric: str
    verdict: str
    reason: str
    retained_full: Share
    retained: Share
    rise: Share
    detectable: float | None
    p_relapses: float | None
    p_forgets: float | None
    utility: float | None
    records: int
    subjects: int | None
    records_needed: int | None
    relapsed: list[Relapse]
