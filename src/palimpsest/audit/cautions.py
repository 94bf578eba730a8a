"""What a reader must know before believing a number of the audit: damaged models, and a PrivLeak without ground.

Zero percent retained is what the retrained model knows, which never saw the forget set. A model far below it has lost
more than the forget set, or was pushed away from the right answers: that is not forgetting, and it can be told from
outside.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import sqrt
from typing import Any

from palimpsest.audit.shapes import AuditTable
from palimpsest.vocabulary import (
    EXTRACTION,
    HEADLINE,
    KNOWMEM,
    MEMORIZATION,
    NO_RETRAIN,
    OK,
    PERPLEXITY,
    PRIVLEAK,
    PROBABILITY,
    RETRAIN,
    UNDEFINED,
    UTILITY,
    VERBMEM,
)

BELOW = "less than the retrained model knows"
DAMAGED = "damaged or over-forgotten"
NAMES = {
    VERBMEM: "VerMem",
    KNOWMEM: "KnowMem",
    PRIVLEAK: "PrivLeak",
    UTILITY: "Utility",
    PERPLEXITY: "Perplexity",
    PROBABILITY: "Probability",
    EXTRACTION: "Extraction strength",
    MEMORIZATION: "Exact memorization",
}
FAR = 0.2
"""From 0.5, an AUC of the retrained model that this far off makes PrivLeak doubtful. The published ones of MUSE are
0.477 and 0.539."""


def is_over_forgotten(retained: float | None, negligible: float) -> bool:
    """Whether a share of retained knowledge (percent) lies below the retrained model's by more points than matter."""
    return retained is not None and retained < -negligible


def meaning_of_a_minus(values: Iterable[float | None], negligible: float, mark: str = "") -> str:
    """What a negative percentage retained says, for under a table that shows one; empty where none is shown.

    mark: of the cells far below 0, where the table marks them.
    """
    below = [value for value in values if value is not None and round(value) < 0]
    if not below:
        return ""
    more = f"; {mark}by more than {negligible:g} points: {DAMAGED}" if min(below) < -negligible else ""
    return f"Below 0: {BELOW}{more}."


def cautions(audit: AuditTable, models: Sequence[str]) -> list[str]:
    """A sentence each on the models, of those named, that lost their utility or lie below the retrained one,
    with the precisions at which they do. A seed is enough: a mean over seeds would hide it."""
    rules = audit["rules"]
    broken: dict[str, list[str]] = {}
    below: dict[str, list[str]] = {}
    for row in audit["rows"]:
        if row["model"] in models:
            if row["broken"]:
                _add(broken, row["model"], row["precision"])
            if row["retained"] and is_over_forgotten(row["retained"][HEADLINE]["mean"]["value"], rules["negligible"]):
                _add(below, row["model"], row["precision"])
    sentences = []
    if broken:
        lost = 100 - rules["utility_floor"]
        sentences.append(
            f"{_named(broken)} lost more than {lost:g} % of the target's utility and may be broken, not forgetful."
        )
    if below:
        sentences.append(
            f"{_named(below)}: {BELOW} of the forget set, by more than {rules['negligible']:g} points, "
            f"which is {DAMAGED}."
        )
    return sentences


def not_asked(audit: AuditTable) -> list[str]:
    """A sentence on the metrics for which the corpus has nothing to ask, by the reason."""
    reasons: dict[str, list[str]] = {}
    for name, cell in audit["rows"][0]["metrics"].items():
        if not cell["n"]:
            reasons.setdefault(cell["status"].removeprefix(UNDEFINED), []).append(NAMES.get(name, name))
    sentences = [f"{join(names)}: {reason}." for reason, names in reasons.items()]
    if NAMES[UTILITY] in [name for names in reasons.values() for name in names]:
        sentences.append("A damaged model cannot be told from one that forgets: give a retain set.")
    return sentences


def privleak_cautions(audit: AuditTable) -> list[str]:
    """A sentence each on where PrivLeak has no number, and where it rests on splits that differ by themselves.

    The retrained model saw neither forget nor holdout texts. Where the two are of one kind its AUC is 0.5, up to
    chance (the standard deviation of a Mann-Whitney U); where it is not, the difference of the kinds is measured too.
    """
    missing: dict[str, list[str]] = {}
    far: dict[str, tuple[float, dict[str, Any]]] = {}
    for row in audit["rows"]:
        cell: Mapping[str, Any] = row["metrics"].get(PRIVLEAK, {})
        if not cell.get("n", 1):
            continue
        if str(cell.get("status", OK)).startswith(UNDEFINED):
            _add(missing, cell["status"].removeprefix(UNDEFINED), row["precision"])
        elif row["kind"] == RETRAIN and abs(cell.get("auc_retrain", 0.5) - 0.5) > FAR:
            worst = far.get(row["precision"], (0.5, {}))[0]
            if abs(cell["auc_retrain"] - 0.5) > abs(worst - 0.5):
                far[row["precision"]] = cell["auc_retrain"], dict(cell)
    other = " The holdout set is not exchangeable with the forget set; take holdout texts of the forget set's kind."
    sentences = [
        f"PrivLeak has no number in {join(precisions)}: {reason}.{'' if reason == NO_RETRAIN else other}"
        for reason, precisions in missing.items()
    ]
    if far:
        aucs = [auc for auc, _ in far.values()]
        span = f"{min(aucs):.2f}" + (f" to {max(aucs):.2f}" if f"{max(aucs):.2f}" != f"{min(aucs):.2f}" else "")
        low, high, texts = _chance(next(iter(far.values()))[1])
        verb = "may rest" if all(low <= auc <= high for auc in aucs) else "rests"
        sentences.append(
            f"PrivLeak {verb} on splits that differ by themselves: the retrained model, which saw neither, has an AUC "
            f"of {span} in {join(list(far))}, far from the 0.5 of a holdout set that is exchangeable with the "
            f"forget set{texts}."
        )
    return sentences


def _chance(cell: Mapping[str, Any]) -> tuple[float, float, str]:
    """Between which AUCs chance alone leaves 19 of 20 cases, and that in words; none where texts are not counted."""
    if "n_forget" not in cell:
        return 0.5, 0.5, ""
    m, n = cell["n_forget"], cell["n_holdout"]
    reach = min(0.5, 1.96 * sqrt((m + n + 1) / (12 * m * n)))
    low, high = 0.5 - reach, 0.5 + reach
    return low, high, f" (by chance {low:.2f} to {high:.2f} with {m} and {n} texts)"


def join(names: Sequence[str]) -> str:
    """a, b and c"""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _add(found: dict[str, list[str]], name: str, precision: str) -> None:
    if precision not in found.setdefault(name, []):
        found[name].append(precision)


def _named(found: Mapping[str, Sequence[str]]) -> str:
    """Models with their precisions; those that share them are named together."""
    by_precisions: dict[tuple[str, ...], list[str]] = {}
    for model, precisions in found.items():
        by_precisions.setdefault(tuple(precisions), []).append(model)
    return "; ".join(f"{join(models)} (in {join(list(at))})" for at, models in by_precisions.items())
