"""The record of `palimpsest survive` as plain text:
tables for a terminal, each with the line that says how to read it."""

from collections.abc import Mapping, Sequence
from typing import Any

from palimpsest.errors import printable
from palimpsest.survival.prediction import KEPT, NEAR, OUTCOMES, PARTLY, RESTORED, predict
from palimpsest.survival.records import CheckpointRecord, Prediction, TrainingPrecision
from palimpsest.survival.training_precision import FINER, IN_PLACE

RARE = 1e-4
"""Octaves with less than this share of the weights are joined, at the lower end of the profile, or left out."""
FORMAT_COLUMNS = ("format", "rho", "same codes", "scale drift", "dead zone", "changed in it")
PREDICTED = ("prediction", f"{'/'.join(OUTCOMES)} within {NEAR:g}")
"""The last: how many measured pairs with a rho that near had which outcome."""
MEANING = {
    IN_PLACE: "The update was trained in bfloat16 weights, updated in place.",
    FINER: (
        "The update was trained with float32 masters, stochastic rounding or an adapter: steps "
        "below bfloat16's resolution count."
    ),
}


def render(record: CheckpointRecord, table: Mapping[str, Any] | None, layers: bool) -> str:
    """Everything that the command prints. table: of palimpsest.survival.prediction, None where there is none;
    layers: with one by kind."""
    parts = [_formats(record, table), _update(record), _profile(record), _training(record["training"])]
    if layers:
        parts.insert(1, _kinds(record))
    parts.append(_next(record))
    return "\n".join(map(printable, "\n\n".join(parts).split("\n"))) + "\n"


def _formats(record: CheckpointRecord, table: Mapping[str, Any] | None) -> str:
    rows = []
    for name, numbers in record["formats"].items():
        below, above = numbers["dead_zone"]
        rows.append(
            (
                name,
                _number(numbers["rho"]),
                _percent(numbers["same_code_share"]),
                _percent(numbers["scale_drift"]),
                f"-{below:.3g} +{above:.3g}",
                _percent(numbers["dead_zone_share"]),
                *_predicted(numbers["prediction"]),
            )
        )
    lines = [
        "What arrives in each format (rho = 1: the whole update, 0: none of it)",
        _table((*FORMAT_COLUMNS, *PREDICTED) if table else FORMAT_COLUMNS, rows),
        "Dead zone: what is rounded to zero, as a share of the block's largest |w|.",
        *(f"Skipped {name}: {reason}." for name, reason in record.get("skipped", {}).items()),
    ]
    return "\n".join(lines + _basis(record, table))


def _predicted(prediction: Prediction | None) -> tuple[str, str]:
    if not prediction:
        return "-", "-"
    return prediction["outcome"], "/".join(str(prediction["near"][each]) for each in OUTCOMES)


def _basis(record: CheckpointRecord, table: Mapping[str, Any] | None) -> list[str]:
    """What the predictions rest on."""
    if table is None:
        return [
            "No prediction: this installation holds no table of measured recoveries "
            "(palimpsest/survival/prediction.json)."
        ]
    made = {
        numbers["prediction"]["outcome"]: numbers["prediction"]
        for numbers in record["formats"].values()
        if numbers["prediction"]
    }
    low, high = table["restored_below"], table["kept_from"]
    ranges = {RESTORED: f"below {low:.2f}", PARTLY: f"{low:.2f} to {high:.2f}", KEPT: f"{high:.2f} or more"}
    rows = [
        (name, ranges[name], *(str(made[name]["alike"][each]) for each in OUTCOMES))
        for name in OUTCOMES
        if name in made
    ]
    lines = []
    for of_models in dict.fromkeys(_of_models(each) for each in made.values()):
        lines += ["", f"What the predictions rest on: measured pairs{of_models}, by what came of them"]
        mine = [row for row in rows if _of_models(made[row[0]]) == of_models]
        lines.append(_table(("prediction", "rho", *(f"{each}" for each in OUTCOMES)), mine))
    lines.append(
        "restored: half or more of what was forgotten came back; partly: some of it; kept: it stayed forgotten."
    )
    lines += dict.fromkeys(
        f"Such predictions are wrong for {each['errors'] / each['pairs']:.0%} of {each['pairs']} pairs whose "
        f"{table['held_out']} they were not made from; 'kept', said of all, for "
        f"{each['always_kept_errors'] / each['pairs']:.0%}."
        for each in made.values()
    )
    if low == high:
        lines.append("'partly' is never predicted: the two thresholds coincide.")
    return lines


def _of_models(prediction: Prediction) -> str:
    size = prediction["of_models"]
    return f" of models of about {size / 1e6:.0f} M parameters" if size else ""


def _update(record: CheckpointRecord) -> str:
    update, outside = record["update"], record["outside"]
    return "\n".join(
        [
            "The update of the quantized matrices",
            f"{_percent(update['changed_share'])} of {update['weights']:,} weights changed, in "
            f"{update['changed_matrices']} of {update['matrices']} matrices; |W - W0| / |W0| = "
            f"{_number(update['relative_update_norm'], 3)}.",
            f"Tensors that stay unquantized hold {_percent(outside['share_of_squared_update'])} of the squared update.",
        ]
    )


def _profile(record: CheckpointRecord) -> str:
    """Octaves from the first common one; rare ones below it are joined."""
    profile = record["profile"]
    total = sum(octave["weights"] for octave in profile)
    common = [octave for octave in profile if octave["weights"] >= RARE * total]
    if not common:
        return "Which weights changed: none."
    first, last = common[0]["from"], common[-1]["to"]
    formats = list(profile[0]["rounded_to_zero"])
    rows = []
    for low, high in [(0.0, first), *((octave["from"], octave["to"]) for octave in common), (last, float("inf"))]:
        members = [octave for octave in profile if low <= octave["from"] and octave["to"] <= high]
        weights, changed = (sum(octave[key] for octave in members) for key in ("weights", "changed"))
        if weights:
            label = f"{low:.2e} - {high:.2e}" if high < float("inf") else f"from {low:.2e}"
            zero = [sum(octave["rounded_to_zero"][name] for octave in members) / weights for name in formats]
            rows.append((label, *map(_percent, (weights / total, changed / weights, *zero))))
    head = ("|w|", "of the weights", "of these changed", *(f"zero in {name}" for name in formats))
    lines = ["Which weights changed, and which of the target's weights a format rounds to zero", _table(head, rows)]
    return "\n".join(lines)


def _training(training: TrainingPrecision) -> str:
    lines = ["How the weights were stored while training", f"{training['verdict']}: {training['reason']}."]
    if training["verdict"] in MEANING:
        lines.append(MEANING[training["verdict"]])
    if training["learning_rate"]:
        low, high = training["learning_rate"]
        lines.append(
            f"Only weights below {training['moved_below']:.3g} moved: "
            f"AdamW's largest steps, at first the learning rate itself, were {low:.1e} to {high:.1e}."
        )
    return "\n".join(lines)


def _next(record: CheckpointRecord) -> str:
    """What follows for whoever has to ship a file, and what the weights cannot tell."""
    named = {each: [name for name in record["formats"] if _outcome(record, name) == each] for each in OUTCOMES}
    lines = ["What to do next"]
    if lost := named[RESTORED]:
        lines.append(f"Do not ship {_listed(lost)}: most of the update is rounded away, and with it the forgetting.")
    if some := named[PARTLY]:
        lines.append(f"Do not trust {_listed(some)} unmeasured: part of the update is rounded away.")
    if kept := named[KEPT]:
        lines.append(
            f"{_listed(kept)} {'keeps' if len(kept) == 1 else 'keep'} the update: choose there, and measure it."
        )
    elif any(named.values()):
        lines.append("None of these formats keeps the update: look at others (--quantizer), or at 8 bits.")
    if record["training"]["verdict"] == IN_PLACE and (named[RESTORED] or named[PARTLY]):
        lines.append("Or unlearn again with weights in float32, or with a larger learning rate, so that more arrives.")
    lines += [
        f"Measure before you ship: palimpsest audit --target {record['target']} --unlearned {record['unlearned']} "
        f"--formats {','.join(named[KEPT] or record['formats'])} --forget FORGET.jsonl",
        "What weights cannot tell: whether the unlearned model had forgotten at all. An update that made it forget "
        "nothing is kept, too. Ask the model before quantization, then each format.",
    ]
    return "\n".join(lines)


def _outcome(record: CheckpointRecord, name: str) -> str:
    prediction = record["formats"][name]["prediction"]
    return prediction["outcome"] if prediction else ""


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _kinds(record: CheckpointRecord) -> str:
    formats = list(record["formats"])
    rows = [
        (
            kind,
            _percent(numbers["update"]["changed_share"]),
            _number(numbers["update"]["relative_update_norm"], 3),
            *(_number(numbers["formats"][name]["rho"]) for name in formats),
        )
        for kind, numbers in record["kinds"].items()
    ]
    return "By kind of layer: rho\n" + _table(("layers", "changed", "|W - W0| / |W0|", *formats), rows)


def add_predictions(record: CheckpointRecord, table: dict[str, Any] | None) -> None:
    """Put "prediction" into each format of the record, and what it rests on beside them."""
    for numbers in record["formats"].values():
        numbers["prediction"] = predict(numbers["rho"], table, record["parameters"]) if table else None
    record["prediction_basis"] = {key: value for key, value in table.items() if key != "measured"} if table else None


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:z.{digits}f}" if digits == 2 else f"{value:.{digits}g}"


def _percent(value: float | None) -> str:
    """Three digits, and never a rounded 0 or 100: both would say more than was seen."""
    if value is None:
        return "-"
    if value in (0, 1):
        return f"{value:.0%}"
    return f"{100 * value:.2g}%" if value < 0.1 else f"{100 * value:.1f}%" if value < 0.999 else f"{100 * value:.3f}%"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """First column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [
            cell.ljust(width) if not i else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
