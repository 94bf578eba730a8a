"""The answer in one sentence, written from the numbers and from nothing else."""

from collections.abc import Collection
from typing import NamedTuple

from palimpsest.audit.cautions import BELOW, DAMAGED, cautions, is_over_forgotten, join
from palimpsest.audit.groups import headline_group
from palimpsest.audit.reach import sentences
from palimpsest.audit.retained import Retained
from palimpsest.audit.shapes import Answer, AnswerNumbers, Audit, AuditTable, Cell, Group, RecoveryCell
from palimpsest.vocabulary import CONSTRAINED, CONTRAST, FULL, RETRAIN, UNDEFINED

RECOVERS, HOLDS, INCONCLUSIVE = "recovers", "holds", "inconclusive"
NOT_REACHED, NOT_MEMORISED, NOT_FORGOTTEN, DAMAGE = "not-reached", "not-memorised", "not-forgotten", "damaged"
"""Regimes."""


class Words(NamedTuple):
    """How the sentence speaks of what is retained: a share of what."""

    of: str
    holds: str
    recovers: str


ABOVE_RETRAIN = Words("of what they should forget", "Forgetting holds", "Quantization undoes forgetting")
SHARES = Words(
    "of the target's score on the forget set", "Nothing comes back", "Quantization brings back what was gone"
)
UNCONTROLLED = (
    "There is no retrained model: shares count from a score of 0, not from what a model shows that never saw the "
    "forget set, so that they do not say how much was forgotten."
)


def answer(audit: AuditTable, retained: Retained) -> Answer:
    """Does the unlearned model still forget after quantization?

    No answer says that it does where the target's own questions do not reach it: models that are asked so say nothing.
    That text comes back stands, with a caution, as long as one of the two metrics reaches the target.
    """
    found = _measured(audit, retained)
    unreached = sentences(audit["reach"])
    if not unreached:
        return found
    if found["regime"] in (HOLDS, INCONCLUSIVE, NOT_MEMORISED) or len(unreached) == len(audit["reach"]):
        found = {**found, "regime": NOT_REACHED, "text": f"No answer. {' '.join(unreached)}"}
    else:
        found["caution"] = " ".join([*unreached, found["caution"]]).strip()
    return found


def answer_without(audit: Audit, precisions: Collection[str]) -> Answer:
    """The answer that leaves these precisions out, of whose files what was measured is another model's.

    The intervals stay those of all precisions, which are the wider ones.
    """
    found, group = audit["answer"], headline_group(audit["averages"])
    if "worst" not in found or group is None or found["regime"] not in (RECOVERS, HOLDS, INCONCLUSIVE, DAMAGE):
        return found
    measured = {
        name: cell for name, cell in found["recovery"].items() if cell["value"] is not None and name not in precisions
    }
    if not measured:
        text = f"No answer: {join(list(precisions))} is all that was measured, and no file of the unlearned model's."
        return {**found, "regime": INCONCLUSIVE, "text": text}
    full = _kept(audit, group, FULL)
    worst = max(measured, key=lambda name: _value(measured[name]))
    words = ABOVE_RETRAIN if any(model["kind"] == RETRAIN for model in audit["models"]) else SHARES
    regime, text = _said(audit, group["models"], full, measured, worst, words)
    return {**found, "regime": regime, "text": text, "worst": worst}


def _measured(audit: AuditTable, retained: Retained) -> Answer:
    """The answer of the numbers alone.

    The interval of each quantizer's recovery is widened for the number of quantizers (Bonferroni), because the sentence
    speaks of the worst of them.
    """
    rules, study = retained.rules, retained.study
    group = headline_group(audit["averages"])
    if group is None:
        return _record(INCONCLUSIVE, "The study has no method with a retain loss and bfloat16 weights to average over.")
    full = _kept(audit, group, FULL)
    if full["value"] is None:
        reason = full["status"].removeprefix(UNDEFINED)
        text = f"No answer: the target did not memorise the forget set well enough to measure forgetting ({reason})."
        return _record(NOT_MEMORISED, text)
    confidence = 1 - (1 - rules.confidence) / max(1, len(study.quantized))
    cells: dict[str, RecoveryCell] = {}
    for precision in study.quantized:
        vector = retained.recovery(group["models"], study.seeds, precision)
        why = "" if retained.retrain else retained.why_no_recovery(study.seeds, precision)
        cells[precision] = {**retained.cell(vector, why, confidence), "retained": _kept(audit, group, precision)}
    measured = {name: cell for name, cell in cells.items() if cell["value"] is not None}
    numbers: AnswerNumbers = {
        "retained_bf16": full["value"],
        "recovery": cells,
        "confidence_per_quantizer": confidence,
    }
    notes = (
        _contrast(audit, measured),
        _caution(audit, group["models"], cells, "" if retained.retrain else UNCONTROLLED),
    )
    if not measured:
        text = "No answer: no quantized target still knows the forget set, so nothing can come back."
        return _record(INCONCLUSIVE, text, *notes, numbers)
    worst = max(measured, key=lambda name: _value(measured[name]))
    numbers["worst"] = worst
    if full["value"] >= rules.forgotten_below:
        return _record(*_remembers(audit, retained, full), *notes, numbers)
    words = ABOVE_RETRAIN if retained.retrain else SHARES
    return _record(*_said(audit, group["models"], full, measured, worst, words), *notes, numbers)


def _said(
    audit: AuditTable, models: list[str], full: Cell, measured: dict[str, RecoveryCell], worst: str, words: Words
) -> tuple[str, str]:
    """The regime and the sentence where the models had forgotten in full precision."""
    negligible = audit["rules"]["negligible"]
    regime = _regime(full, measured, negligible)
    if regime != RECOVERS and (damage := _damage(audit, models, full, measured)):
        return DAMAGE, damage
    return regime, _sentence(regime, full, measured, worst, negligible, words)


def _remembers(audit: AuditTable, retained: Retained, full: Cell) -> tuple[str, str]:
    """The regime and the sentence where too much is left in full precision. Without a retrained model a large share may
    be what any model shows: answers of one form have words in common."""
    if not retained.retrain:
        return INCONCLUSIVE, (
            f"No answer: unlearned models keep {_percent(full)} {SHARES.of} in {FULL}, and without a retrained model "
            "it is not known how much of that a model shows that never saw the forget set."
        )
    who = "methods" if CONSTRAINED in audit["averages"] else "unlearned models"
    return NOT_FORGOTTEN, (
        f"No answer: the {who} did not forget in the first place; they keep {_percent(full)} of the forget set's "
        f"knowledge in {FULL}."
    )


def _regime(full: Cell, measured: dict[str, RecoveryCell], negligible: float) -> str:
    """Of models below the retrained one nothing comes back before it is reached: from there up the points count."""
    cells = measured.values()
    if is_over_forgotten(full["value"], negligible):
        back = [cell for cell in cells if _value(cell["retained"]) >= negligible]
    else:
        back = [cell for cell in cells if _value(cell) >= negligible]
    if any(cell["ci"] is not None and cell["ci"][0] > 0 for cell in back):
        return RECOVERS
    if all(cell["ci"] is not None and cell["ci"][1] < negligible for cell in cells):
        return HOLDS
    return INCONCLUSIVE


def _damage(audit: AuditTable, models: list[str], full: Cell, measured: dict[str, RecoveryCell]) -> str:
    """Why that nothing comes back says nothing of forgetting: the models lie below the retrained one, or all of them
    are broken; empty where it is not so."""
    rules = audit["rules"]
    kept: dict[str, Cell] = {FULL: full, **{name: cell["retained"] for name, cell in measured.items()}}
    below = [name for name, cell in kept.items() if is_over_forgotten(cell["value"], rules["negligible"])]
    if _decides(below, measured):
        shown = [f"{round(_value(kept[name]))} % in {name}" for name in below]
        return (
            f"No answer: the unlearned models are {DAMAGED}. They keep {join(shown)} of what they should forget, "
            f"{BELOW}, which is 0 %: more is lost than the forget set."
        )
    broken = {(row["model"], row["precision"]) for row in audit["rows"] if row["broken"]}
    ruined = [name for name in kept if all((model, name) in broken for model in models)]
    if _decides(ruined, measured):
        return (
            f"No answer: the unlearned models are {DAMAGED}. All of them lost more than "
            f"{100 - rules['utility_floor']:g} % of the target's utility in {join(ruined)}, so what they no longer say "
            "is not forgetting."
        )
    return ""


def _decides(damaged: list[str], measured: dict[str, RecoveryCell]) -> bool:
    """Whether damage at these precisions leaves no format of which the sentence could speak."""
    return FULL in damaged or set(measured) <= set(damaged)


def _sentence(
    regime: str, full: Cell, measured: dict[str, RecoveryCell], worst: str, negligible: float, words: Words
) -> str:
    top = measured[worst]
    rise = f"{_signed(_value(top))} points"
    if top["ci"]:
        rise += f", interval {_signed(top['ci'][0])} to {_signed(top['ci'][1])}"
    if regime == HOLDS:
        return (
            f"{words.holds}: unlearned models keep {_percent(full)} {words.of} in {FULL}, and at most "
            f"{_percent(top['retained'])} after quantization ({worst}: {rise}; under {negligible:g} points for every "
            "format)."
        )
    if regime == INCONCLUSIVE:
        return (
            f"Inconclusive: unlearned models keep {_percent(full)} {words.of} in {FULL} and "
            f"{_percent(top['retained'])} as {worst} ({rise}), too uncertain to call; "
            "use more examples, methods or seeds."
        )
    # A format counts as harmless only where its whole interval is, the same test that lets a study say "holds".
    calm = [name for name, cell in measured.items() if cell["ci"] and cell["ci"][1] < negligible]
    rest = f", while {join(calm)} do{'es' if len(calm) == 1 else ''} not bring it back" if calm else ""
    return (
        f"{words.recovers}: unlearned models keep {_percent(full)} {words.of} in {FULL}, "
        f"but {_percent(top['retained'])} as {worst} ({rise}){rest}."
    )


def _contrast(audit: AuditTable, measured: dict[str, RecoveryCell]) -> str:
    """What the models that kept more precise weights while unlearning do in the same formats."""
    group = audit["averages"].get(CONTRAST)
    if group is None or not measured:
        return ""
    cells = {name: _kept(audit, group, name) for name in (FULL, *measured)}
    if any(cell["value"] is None for cell in cells.values()):
        return ""
    worst = max(measured, key=lambda name: _value(cells[name]))
    storage = sorted({model["storage"] for model in audit["models"] if model["model"] in group["models"]})
    return (
        f"Unlearned with {join(storage)} weights ({join(group['models'])}), they keep {_percent(cells[FULL])} in "
        f"{FULL} and at most {_percent(cells[worst])} after quantization ({worst})."
    )


def _caution(audit: AuditTable, models: list[str], cells: dict[str, RecoveryCell], first: str) -> str:
    """What the reader must know before believing the sentence."""
    contrast = audit["averages"][CONTRAST]["models"] if CONTRAST in audit["averages"] else []
    parts = [*([first] if first else []), *cautions(audit, [*models, *contrast])]
    gone = [name for name, cell in cells.items() if cell["value"] is None]
    if gone:
        parts.append(
            f"{join(gone)}: the quantized target itself no longer knows the forget set, so no number is given."
        )
    return " ".join(parts)


def _kept(audit: AuditTable, group: Group, precision: str) -> Cell:
    return next(
        row["retained"][audit["denominators"]["headline"]] for row in group["rows"] if row["precision"] == precision
    )


def _value(cell: Cell) -> float:
    """Of a cell that has one."""
    assert cell["value"] is not None, cell["status"]
    return cell["value"]


def _percent(cell: Cell) -> str:
    """No minus without its meaning."""
    percent = round(_value(cell))
    return f"{percent} %" if percent >= 0 else f"{percent} % ({BELOW})"


def _signed(value: float) -> str:
    return f"{round(value):+d}"  # an integer has no negative zero


def _record(
    regime: str, text: str, contrast: str = "", caution: str = "", numbers: AnswerNumbers | None = None
) -> Answer:
    return {"regime": regime, "text": text, "contrast": contrast, "caution": caution, **(numbers or {})}
