"""The answer in one sentence, written from the numbers and from nothing else."""

from collections.abc import Mapping
from typing import Any

from palimpsest.audit.retained import Retained
from palimpsest.vocabulary import FULL, HEADLINE

GROUP = "utility_constrained"
Cell = dict[str, Any]


def answer(audit: Mapping[str, Any], retained: Retained) -> dict[str, Any]:
    """{"regime", "text", "contrast", "caution", numbers}: does the unlearned model still forget after quantization?

    The interval of each quantizer's recovery is widened for the number of quantizers (Bonferroni), because the sentence speaks of
    the worst of them. Regimes: recovers, holds, not-memorised, not-forgotten, inconclusive.
    """
    rules, study = retained.rules, retained.study
    if GROUP not in audit["averages"]:
        return _record(
            "inconclusive", "The study has no method with a retain loss and bfloat16 weights to average over."
        )
    group = audit["averages"][GROUP]
    full = group["rows"][0]["retained"][HEADLINE]
    if full["value"] is None:
        reason = full["status"].removeprefix("undefined: ")
        text = f"No answer: the target did not memorise the forget set well enough to measure forgetting ({reason})."
        return _record("not-memorised", text)
    confidence = 1 - (1 - rules.confidence) / max(1, len(study.quantized))
    cells = {}
    for precision in study.quantized:
        vector = retained.recovery(group["models"], study.seeds, precision)
        cells[precision] = retained.cell(vector, "", confidence) | {"retained": _kept(group, precision)}
    measured = {name: cell for name, cell in cells.items() if cell["value"] is not None}
    numbers = {"retained_bf16": full["value"], "recovery": cells, "confidence_per_quantizer": confidence}
    notes = {"contrast": _contrast(audit, measured), "caution": _caution(audit, group["models"], cells)}
    if not measured:
        text = "No answer: no quantized target still knows the forget set, so nothing can come back."
        return _record("inconclusive", text, **numbers, **notes)
    worst = max(measured, key=lambda name: measured[name]["value"])
    numbers["worst"] = worst
    if full["value"] >= rules.forgotten_below:
        text = (
            f"No answer: the methods did not forget in the first place; they keep {_percent(full)} of the forget set's "
            f"knowledge in {FULL}."
        )
        return _record("not-forgotten", text, **numbers, **notes)
    regime = _regime(measured, rules.negligible)
    return _record(regime, _sentence(regime, full, measured, worst, rules.negligible), **numbers, **notes)


def _regime(measured: dict[str, Cell], negligible: float) -> str:
    intervals = [(cell["value"], cell["ci"]) for cell in measured.values()]
    if any(ci is not None and ci[0] > 0 and value >= negligible for value, ci in intervals):
        return "recovers"
    if all(ci is not None and ci[1] < negligible for _, ci in intervals):
        return "holds"
    return "inconclusive"


def _sentence(regime: str, full: Cell, measured: dict[str, Cell], worst: str, negligible: float) -> str:
    top = measured[worst]
    rise = f"{_signed(top['value'])} points"
    if top["ci"]:
        rise += f", interval {_signed(top['ci'][0])} to {_signed(top['ci'][1])}"
    if regime == "holds":
        return (
            f"Forgetting holds: unlearned models keep {_percent(full)} of what they should forget in {FULL}, and at most "
            f"{_percent(top['retained'])} after quantization ({worst}: {rise}; under {negligible:g} points for every format)."
        )
    if regime == "inconclusive":
        return (
            f"Inconclusive: unlearned models keep {_percent(full)} of what they should forget in {FULL} and "
            f"{_percent(top['retained'])} as {worst} ({rise}), too uncertain to call; use more examples, methods or seeds."
        )
    # A format counts as harmless only where its whole interval is, the same test that lets a study say "holds".
    calm = [name for name, cell in measured.items() if cell["ci"] and cell["ci"][1] < negligible]
    rest = f", while {_join(calm)} do{'es' if len(calm) == 1 else ''} not bring it back" if calm else ""
    return (
        f"Quantization undoes forgetting: unlearned models keep {_percent(full)} of what they should forget in {FULL}, but "
        f"{_percent(top['retained'])} as {worst} ({rise}){rest}."
    )


def _contrast(audit: Mapping[str, Any], measured: dict[str, Cell]) -> str:
    """What the models that kept more precise weights while unlearning do in the same formats."""
    group = audit["averages"].get("contrast")
    if group is None or not measured:
        return ""
    cells = {name: _kept(group, name) for name in (FULL, *measured)}
    if any(cell["value"] is None for cell in cells.values()):
        return ""
    worst = max(measured, key=lambda name: cells[name]["value"])
    storage = sorted({model["storage"] for model in audit["models"] if model["model"] in group["models"]})
    return (
        f"Unlearned with {_join(storage)} weights ({_join(group['models'])}), they keep {_percent(cells[FULL])} in {FULL} "
        f"and at most {_percent(cells[worst])} after quantization ({worst})."
    )


def _caution(audit: Mapping[str, Any], models: list[str], cells: dict[str, Cell]) -> str:
    """What the reader must know before believing the sentence."""
    broken = [
        row["model"]
        for row in audit["over_seeds"]
        if row["broken"] and row["model"] in models and row["precision"] == FULL
    ]
    gone = [name for name, cell in cells.items() if cell["value"] is None]
    parts = []
    if broken:
        floor = audit["rules"]["utility_floor"]
        parts.append(
            f"{_join(broken)} lost more than {100 - floor:g} % of the target's utility and may be broken, not forgetful."
        )
    if gone:
        parts.append(
            f"{_join(gone)}: the quantized target itself no longer knows the forget set, so no number is given."
        )
    return " ".join(parts)


def _kept(group: Mapping[str, Any], precision: str) -> Cell:
    return next(row["retained"][HEADLINE] for row in group["rows"] if row["precision"] == precision)


def _percent(cell: Cell) -> str:
    return f"{round(cell['value'])} %"


def _signed(value: float) -> str:
    return f"{round(value):+d}"  # an integer has no negative zero


def _join(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _record(regime: str, text: str, **numbers: Any) -> dict[str, Any]:
    return {"regime": regime, "text": text} | {"contrast": "", "caution": ""} | numbers
