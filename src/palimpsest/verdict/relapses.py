"""Which single records came back in a format."""

from collections.abc import Sequence

import numpy as np

from palimpsest.verdict.policy import Policy
from palimpsest.verdict.records import Measured, Relapse, Values


def relapsed(measured: Measured, name: str, policy: Policy) -> list[Relapse]:
    """The records that rise by more than the policy's `rise` in format `name`, the largest rise first.

    Quantization moves every record a little. Where the retrained model was asked in the same format, its own rises are
    that noise: a record counts only if its p passes Benjamini and Hochberg's bound (1995) for the policy's
    false-discovery rate over all records. p is the share of the retrained model's rises that are as large; beyond the
    largest of them, where that share can tell no more, it is Student's t of a new draw from them. Several seeds: their
    mean.
    """
    before, after = measured.before_and_after(name)
    rises = after - before
    noise = measured.rises_of_retrain(name)
    p = None if noise is None else _p_values(rises, noise)
    real = np.ones(len(rises), bool) if p is None else _adjusted(p) <= policy.false_discovery_rate
    chosen = [index for index in np.argsort(-rises, kind="stable") if rises[index] > policy.rise and real[index]]
    return [
        {
            "id": str(measured.ids[index]),
            "subject": None if measured.subjects is None else str(measured.subjects[index]),
            "before": float(before[index]),
            "after": float(after[index]),
            "rise": float(rises[index]),
            "retrain_rise": None if noise is None else float(noise[index]),
            "p": None if p is None else float(p[index]),
        }
        for index in chosen
    ]


def _adjusted(p: Values) -> Values:
    from scipy.stats import false_discovery_control

    return np.asarray(false_discovery_control(p))


def _p_values(rises: Values, noise: Values) -> Values:
    """[records] how probable a rise as large is in a model that never saw the records."""
    from scipy.stats import t

    n = len(noise)
    shares = (1 + n - np.searchsorted(np.sort(noise), rises, side="left")) / (1 + n)
    spread = noise.std(ddof=1) * np.sqrt(1 + 1 / n) if n > 1 else 0.0
    beyond = rises > noise.max()
    if spread == 0:
        return np.where(beyond, np.finfo(float).tiny, shares)
    tails = t.sf((rises - noise.mean()) / spread, n - 1)
    return np.where(beyond, np.minimum(tails, shares), shares)


def by_subject(records: Sequence[Relapse]) -> dict[str, int]:
    """How many records of each subject came back, the most first; records without a subject are left out."""
    counts: dict[str, int] = {}
    for record in records:
        if record["subject"] is not None:
            counts[record["subject"]] = counts.get(record["subject"], 0) + 1
    return dict(sorted(counts.items(), key=lambda each: (-each[1], each[0])))
