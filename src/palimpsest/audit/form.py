"""Whether ROUGE counts the form of the answers for knowledge.

Answers of one form ("The author's full name is ...") share most of their words. A model that knows none of them gets
these right, so that ROUGE gives it much of what it gives the target.
"""

from palimpsest.audit.cautions import NAMES
from palimpsest.audit.shapes import AuditTable, MetricCell
from palimpsest.vocabulary import FORGET_METRICS, FULL, PROBABILITY, RETRAIN, TARGET

HIGH = 40.0
"""Percent of ROUGE from which on what a model without the knowledge gets is worth a word."""


def form_cautions(audit: AuditTable) -> list[str]:
    """A sentence on each ROUGE of the forget set that gives much to a model that knows nothing of it: the retrained
    one, or, without it, the target's responses held against the answers of other records. Both in full precision, of
    the worst seed."""
    sentences = []
    for metric in FORGET_METRICS:
        control = [cell["score"] for cell in _cells(audit, RETRAIN, metric)]
        shuffled = [cell.get("shuffled") for cell in _cells(audit, TARGET, metric)]
        highest = max((value for value in control or shuffled if value is not None), default=0.0)
        if highest < HIGH:
            continue
        who = (
            "the retrained model, which never saw the forget set"
            if control
            else "the target's responses when they are held against the answers of other records"
        )
        sentences.append(
            f"{NAMES[metric]} gives {highest:.0f} of 100 to {who}: so much is the form of the answers, not knowledge. "
            f"{_probability(audit, bool(control))}"
        )
    return sentences


def _probability(audit: AuditTable, control: bool) -> str:
    """What the probability of the true answers says beside it."""
    target = [cell["score"] for cell in _cells(audit, TARGET, PROBABILITY)]
    if not target or None in target:
        return "Measure the probability of the true answers as well (metrics.probability in params.yaml)."
    retrain = [cell["score"] for cell in _cells(audit, RETRAIN, PROBABILITY)]
    known = min(value for value in target if value is not None)
    said = f"the target {known:.0f} of 100"
    if control and retrain and None not in retrain:
        said += f", and the retrained model {max(value for value in retrain if value is not None):.0f}"
    return f"The probability of the true answers counts no form: it gives {said}."


def _cells(audit: AuditTable, kind: str, metric: str) -> list[MetricCell]:
    rows = [row for row in audit["rows"] if row["kind"] == kind and row["precision"] == FULL]
    return [row["metrics"][metric] for row in rows if metric in row["metrics"] and row["metrics"][metric]["n"]]
