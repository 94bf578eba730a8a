"""What each attack brings back: a model's score under it, above that of the retrained model under the same attack."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from palimpsest.errors import PalimpsestError
from palimpsest.metrics.statistics import Float64, percentile_interval, resample_counts
from palimpsest.vocabulary import NO_RETRAIN, OK, RETRAIN, TARGET

ONE_SEED = "one seed: the interval is over records alone"


class Row(TypedDict):
    """An attack on a model at a precision, by one metric; scores in percent, mean over records and seeds.

    when: of an attack on the weights, before or after quantization; None for one in asking. plain: without the attack,
    at the same precision; None where that is not the same question. floor, ceiling: of the retrained model and the
    target, under the same attack. excess: attacked less floor, points, with its interval. share: the excess in percent
    of the ceiling's; status says why there is none. n: records.
    """

    attack: str
    family: str
    kind: str
    strength: float | None
    when: str | None
    model: str
    precision: str
    metric: str
    n: int
    seeds: int
    plain: float | None
    attacked: float
    floor: float | None
    ceiling: float
    excess: float | None
    ci: list[float] | None
    ci_note: str
    share: float | None
    status: str
    leak_at: dict[str, float] | None


Values = Mapping[int, tuple[Sequence[int], Sequence[float]]]
"""By seed, ids and shares of 1."""


def matrix(values: Values, ids: Sequence[int]) -> Float64:
    """[seeds, records] percent, in the order of the seeds and of `ids`; raises PalimpsestError where a record lacks."""
    rows = []
    for seed in sorted(values):
        known = dict(zip(*values[seed], strict=True))
        if missing := [each for each in ids if each not in known]:
            raise PalimpsestError(f"record {missing[0]} of seed {seed} has no score: run its step again.")
        rows.append([100 * known[each] for each in ids])
    return np.asarray(rows, dtype=np.float64)


def interval(differences: Float64, resamples: int, confidence: float, seed: int) -> tuple[list[float], str]:
    """Of the mean of [seeds, records] differences: seeds and records are drawn anew, each by itself, records alike for
    all seeds. The central `confidence` share, and a note."""
    seeds, records = differences.shape
    by_record = resample_counts(records, resamples, seed) / records
    by_seed = resample_counts(seeds, resamples, seed + 1) / seeds
    means = np.einsum("rs,sn,rn->r", by_seed, differences, by_record)
    return list(percentile_interval(means, confidence)), "" if seeds > 1 else ONE_SEED


def compare(
    about: Mapping[str, Any],
    scores: Mapping[str, Values],
    plain: Values | None,
    rules: Mapping[str, Any],
) -> Row:
    """One row. about: attack, family, kind, strength, when, model, precision, metric and leak_at; scores: under the
    attack, of this model, the target and, if there is one, the retrained model; plain: of this model without it.

    rules: minimum_gap (points between target and retrained model, below which a share is undefined), resamples,
    confidence and seed, of the block `audit`.
    """
    mine, target = scores[about["model"]], scores[TARGET]
    ids = sorted(set(next(iter(mine.values()))[0]))
    attacked, ceiling = matrix(mine, ids), matrix(target, ids)
    row: dict[str, Any] = {**about, "n": len(ids), "seeds": len(mine)}
    row |= {"attacked": float(attacked.mean()), "ceiling": float(ceiling.mean())}
    row["plain"] = None if plain is None else float(matrix(plain, ids).mean())
    nothing = {"floor": None, "excess": None, "ci": None, "ci_note": "", "share": None}
    if RETRAIN not in scores:
        return Row(**row, **nothing, status=NO_RETRAIN)  # type: ignore[typeddict-item]
    floor = matrix(scores[RETRAIN], ids)
    drawn = (rules["resamples"], rules["confidence"], rules["seed"])
    ends, note = interval(attacked - floor, *drawn)
    gap, excess = float((ceiling - floor).mean()), float((attacked - floor).mean())
    defined = gap >= rules["minimum_gap"]
    row |= {"floor": float(floor.mean()), "excess": excess, "ci": ends, "ci_note": note}
    row["share"] = 100 * excess / gap if defined else None
    row["status"] = OK if defined else f"target and retrained model are {gap:.1f} points apart under this attack"
    return Row(**row)  # type: ignore[typeddict-item]


def steps_to_recovery(rows: Sequence[Row], at: float) -> list[dict[str, Any]]:
    """For each family of relearning, model, precision and metric the fewest steps after which the share is at least
    `at` percent; None where no number of steps that was tried is enough, or no share is defined."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["kind"] == "relearn":
            key = tuple(row[name] for name in ("family", "when", "model", "precision", "metric"))  # type: ignore[literal-required]
            groups.setdefault(key, []).append(row)
    found = []
    for key, mine in groups.items():
        reached = [r["strength"] for r in mine if r["share"] is not None and r["share"] >= at]
        tried = sorted(r["strength"] for r in mine if r["strength"] is not None)
        names = ("family", "when", "model", "precision", "metric")
        steps = min(reached) if reached else None  # type: ignore[type-var]
        found.append({**dict(zip(names, key, strict=True)), "at": at, "steps": steps, "tried": tried})
    return found


def texts(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Head and lines of the table for readers, methods alone."""
    head = ["attack", "when", "model", "precision", "metric", "without", "attacked", "retrained", "excess", "share"]
    lines = []
    for row in rows:
        if row["model"] in (TARGET, RETRAIN):
            continue
        excess = "–"
        if row["excess"] is not None and row["ci"] is not None:
            excess = f"{row['excess']:+.1f} ({row['ci'][0]:+.1f} to {row['ci'][1]:+.1f})"
        numbers = [
            _number(row["plain"]),
            _number(row["attacked"]),
            _number(row["floor"]),
            excess,
            _number(row["share"]),
        ]
        lines.append(
            [row["attack"], row["when"] or "in asking", row["model"], row["precision"], row["metric"], *numbers]
        )
    return head, lines


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
