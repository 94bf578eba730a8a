"""The audit by unlearned model and precision, over the seeds,
and as Markdown tables that mark what must not be read as forgetting."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from statistics import mean
from typing import Any

from palimpsest.audit.cautions import meaning_of_a_minus
from palimpsest.survival.prediction import forgotten_and_returned
from palimpsest.tables.markdown import MISSING, number, table
from palimpsest.vocabulary import BOTH, FORGET_METRICS, FULL, HEADLINE, KNOWMEM, NOT_STATED, UNLEARNED, UTILITY, VERBMEM

MARKS = {BOTH: "", VERBMEM: "v", KNOWMEM: "k"}
"""Of the metric that a number of retained knowledge rests on, where it is not the mean of both."""
BROKEN = "†"
Seeds = list[float | None]


@dataclass(frozen=True)
class Outcome:
    """An unlearned model at a quantized precision; every list has a number for each seed.

    basis: `mean` of VerMem and KnowMem, or the one of the two that is defined at the precision; basis_bf16: of
    retained_bf16. broken: Utility in bf16 below the audit's floor, in any seed. recovered: the share of what was
    forgotten that came back, of the means over the seeds and over those metrics of the basis that had been forgotten in
    bf16 by the audit's rule, as in palimpsest.survival.prediction; None where none had. saved: of each seed, what
    rounding to bfloat16 left when the model was saved (updates.saved_share), if the manifests say so. Of a model that
    was unlearned elsewhere nothing is known of the training: learning_rate and steps are None.
    """

    model: str
    precision: str
    storage: str
    learning_rate: float | None
    broken: bool
    steps: Seeds
    forget_nats: Seeds
    utility_bf16: Seeds
    retained_bf16: Seeds
    basis_bf16: str
    retained: Seeds
    basis: str
    rho: Seeds
    recovered: float | None
    saved: list[Mapping[str, Any]]


def outcomes(audit: Mapping[str, Any]) -> list[Outcome]:
    """Every unlearned model at every quantized precision, in the audit's order."""
    rows: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in audit["rows"]:
        rows.setdefault((row["model"], row["precision"]), []).append(row)
    models = [model for model in audit["models"] if model["kind"] == UNLEARNED]
    precisions = [precision for precision in audit["precisions"] if precision != FULL]
    limit = audit["rules"]["forgotten_below"]
    return [
        _outcome(model, precision, rows[model["model"], FULL], rows[model["model"], precision], limit)
        for model in models
        for precision in precisions
    ]


def _outcome(
    model: Mapping[str, Any],
    precision: str,
    full: Sequence[Mapping[str, Any]],
    here: Sequence[Mapping[str, Any]],
    forgotten_below: float,
) -> Outcome:
    basis = _basis(here)
    metrics = FORGET_METRICS if basis == BOTH else (basis,)
    there, before = ({metric: average(_retained(rows, metric)) for metric in metrics} for rows in (here, full))
    compared = forgotten_and_returned(there, before, forgotten_below)
    return Outcome(
        model["model"],
        precision,
        model["method"].get("storage", NOT_STATED),
        model["method"].get("learning_rate"),
        any(row["broken"] for row in full),
        [run and run["steps"] for run in model["training"]],
        [run and run["forget_nats"] for run in model["training"]],
        [row["metrics"][UTILITY]["score"] for row in full],
        _retained(full, _basis(full)),
        _basis(full),
        _retained(here, basis),
        basis,
        [row["survival"]["rho"] for row in here],
        (compared[1] - compared[2]) / (100 - compared[2]) if compared else None,
        [run["saved"] for run in model["training"] if run and "saved" in run],
    )


def _retained(rows: Iterable[Mapping[str, Any]], basis: str) -> Seeds:
    return [row["retained"][HEADLINE][basis]["value"] for row in rows]


def _basis(rows: Sequence[Mapping[str, Any]]) -> str:
    """The mean of both metrics where it is defined for every seed, else the metric that is;
    the mean where neither is."""
    choices = (BOTH, *reversed(FORGET_METRICS))
    return next((basis for basis in choices if None not in _retained(rows, basis)), BOTH)


def average(values: Seeds) -> float | None:
    """None as soon as one seed has no number."""
    known = [value for value in values if value is not None]
    return mean(known) if known and len(known) == len(values) else None


def spread(values: Seeds, digits: int = 0) -> str:
    """The mean, and the least and the greatest where the seeds differ in the digits shown."""
    middle = average(values)
    if middle is None or len(values) == 1:
        return number(middle, digits)
    low, high = (number(end(value for value in values if value is not None), digits) for end in (min, max))
    return number(middle, digits) + (f" [{low} to {high}]" if low != high else "")


Column = tuple[str, Callable[[Outcome], str]]
METHOD: Column = ("method", lambda outcome: outcome.model)
WEIGHTS: Column = ("weights", lambda outcome: outcome.storage)
RATE: Column = (
    "learning rate",
    lambda outcome: MISSING if outcome.learning_rate is None else f"{outcome.learning_rate:g}",
)
STEPS: Column = ("steps", lambda outcome: spread(outcome.steps))
NATS: Column = ("forget nats", lambda outcome: spread(outcome.forget_nats, 1))
RETAINED: Column = (
    "retained bf16 (%)",
    lambda outcome: _marked(spread(outcome.retained_bf16), MARKS[outcome.basis_bf16]),
)
KEPT_UTILITY: Column = (
    "utility bf16 (%)",
    lambda outcome: _marked(spread(outcome.utility_bf16), BROKEN if outcome.broken else ""),
)
SAVED_MEANS = (
    "saved: rho of the one rounding to bfloat16 in which a model, or a merged adapter, is saved, and the share of "
    "weights that differ from the target's before and after it"
)
SAVED: Column = ("saved: rho (moved, left %)", lambda outcome: _saved(outcome))


def outcomes_table(found: Sequence[Outcome], columns: Sequence[Column], rules: Mapping[str, Any]) -> str:
    """A line per model: the columns, then retained % (rho) at each precision; below it what the marks in it mean."""
    by_model: dict[str, list[Outcome]] = {}
    for outcome in found:
        by_model.setdefault(outcome.model, []).append(outcome)
    precisions = list(dict.fromkeys(outcome.precision for outcome in found))
    shown = [*columns, RETAINED, KEPT_UTILITY, *([SAVED] if any(outcome.saved for outcome in found) else [])]
    lines = [
        [value(group[0]) for _, value in shown]
        + [f"{_marked(spread(outcome.retained), MARKS[outcome.basis])} ({spread(outcome.rho, 2)})" for outcome in group]
        for group in by_model.values()
    ]
    head = [*(name for name, _ in shown), *(f"{name}: retained % (rho)" for name in precisions)]
    return "\n\n".join([table(head, lines), *legend(found, rules)])


def legend(found: Sequence[Outcome], rules: Mapping[str, Any]) -> list[str]:
    """One line on the marks that the outcomes need, or none."""
    bases = {basis for outcome in found for basis in (outcome.basis, outcome.basis_bf16)}
    below = f"is undefined (target and retrain less than {rules['minimum_gap']:g} points apart)"
    floor = rules["utility_floor"]
    notes = [
        (
            any(outcome.broken for outcome in found),
            f"{BROKEN}: broken, Utility in {FULL} is below {floor:g} % of the target's",
        ),
        (KNOWMEM in bases, f"k: KnowMem alone, where VerMem {below}"),
        (VERBMEM in bases, f"v: VerMem alone, where KnowMem {below}"),
        (
            any(len(outcome.rho) > 1 for outcome in found),
            "[a to b]: least and greatest of the seeds, after their mean, where they differ",
        ),
        (any(outcome.saved for outcome in found), SAVED_MEANS),
    ]
    shown = [value for cell in found for value in (*cell.retained, *cell.retained_bf16)]
    minus = meaning_of_a_minus(shown, rules.get("negligible", inf)).rstrip(".")
    texts = [*(text for needed, text in notes if needed), *([minus] if minus else [])]
    return ["; ".join(texts)] if texts else []


def _marked(text: str, mark: str) -> str:
    return f"{text} {mark}" if mark and text != MISSING else text


def _saved(outcome: Outcome) -> str:
    if not outcome.saved:
        return MISSING
    rho, moved, left = (average([run[key] for run in outcome.saved]) for key in ("rho", "moved_share", "saved_share"))
    percent = [number(None if share is None else 100 * share) for share in (moved, left)]
    return f"{number(rho, 3)} ({', '.join(percent)})"
