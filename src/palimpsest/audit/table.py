"""The audit table: every model at every precision, what it retains, and the answer in one sentence."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict
from pathlib import Path
from typing import Any, cast

from palimpsest.artefacts import atomic_file
from palimpsest.audit.answer import answer
from palimpsest.audit.battery import columns
from palimpsest.audit.groups import groups_of
from palimpsest.audit.reach import reach
from palimpsest.audit.records import Key, Record, Study, has_retrain, index_study
from palimpsest.audit.retained import DENOMINATORS, Retained, Rules
from palimpsest.audit.shapes import (
    Audit,
    AuditTable,
    Cell,
    Correlation,
    Group,
    GroupRow,
    MetricCell,
    ModelEntry,
    Point,
    Row,
    SeedsRow,
    SurvivalCell,
)
from palimpsest.errors import PalimpsestError, choose
from palimpsest.metrics.records import PrivLeakScore, ScoreRecord
from palimpsest.survival.records import Survival
from palimpsest.vocabulary import (
    BFLOAT16,
    BOTH,
    CHECKPOINT,
    FORGET_METRICS,
    FULL,
    OK,
    PRIVLEAK,
    TARGET,
    UNLEARNED,
    UTILITY,
    undefined,
)

SURVIVAL = tuple(SurvivalCell.__annotations__)
CURES = {"saliency", "adapter", "sharpness"}
"""Keys of a method that make it more than a plain composition of losses:
what is tried against the return of the text."""


def headline_methods(methods: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Those that the headline averages over, the paper's utility-constrained: a retain loss, bfloat16 weights, no cure,
    trained here.

    methods: the block of params.yaml, a method for each name.
    """
    return [
        name
        for name, method in methods.items()
        if CHECKPOINT not in method
        and method["retain_loss"]
        and method["storage"] == BFLOAT16
        and not CURES & set(method)
    ]


def collect(
    scores: Iterable[Record],
    survival: Iterable[Record],
    manifests: Iterable[Record],
    constrained: Sequence[str],
    rules: Mapping[str, Any],
    settings: Mapping[str, Any],
    *,
    survival_gaps: bool = False,
) -> Audit:
    """The audit of a study.

    scores: records of palimpsest.metrics.score with "model", "seed", "precision" added; survival: records of
    palimpsest.survival.measure.measure_survival with the same three keys; manifests: of every model folder.
    constrained: the models that the headline averages over (with a retain loss, bfloat16 weights during unlearning).
    rules: the fields of Rules. settings: the study's parameters, shown as they are. survival_gaps: whether survival
    records may be missing, as of a run that was stopped; what needs one is then empty. Raises PalimpsestError for a
    missing key, an incomplete study or an unknown model.
    """
    known = Rules.__dataclass_fields__
    for name in rules:
        choose(known, name, "audit rule")
    missing = [name for name, rule in known.items() if name not in rules and rule.default is MISSING]
    if missing:
        raise PalimpsestError(f"audit lacks the rule {missing[0]!r}: add it (it has no default).")
    study = index_study(scores, survival, manifests, has_retrain(settings), survival_gaps)
    for model in constrained:
        choose(dict.fromkeys(study.unlearned), model, "unlearned model")
    retained = Retained(study, Rules(**rules))
    groups = groups_of(study, constrained)
    rows = [_row(study, retained, (m, s, p)) for m in study.models for s in study.seeds for p in study.precisions]
    averages = {name: _average(study, retained, models) for name, models in groups.items() if models}
    table: AuditTable = {
        "rules": asdict(retained.rules),
        "denominators": {name: rule.label for name, rule in DENOMINATORS.items()} | {"headline": retained.headline},
        "seeds": study.seeds,
        "precisions": study.precisions,
        "models": [_model(study, model) for model in study.models],
        "rows": rows,
        "over_seeds": [_over_seeds(study, retained, rows, m, p) for m in study.models for p in study.precisions],
        "averages": averages,
        "survival_against_recovery": _rank_correlation(rows),
        "reach": reach(study, retained.rules.target_floor),
    }
    return {**table, "answer": answer(table, retained), "settings": dict(settings)}


def write_csv(audit: AuditTable, path: Path | str) -> None:
    """One line per model, seed and precision; an undefined number is an empty cell."""
    lines = [_flat(row) for row in audit["rows"]]
    with atomic_file(path) as draft, open(draft, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def _storage(study: Study, model: str) -> str:
    return study.manifests[model, study.seeds[0]]["storage"]


def _model(study: Study, model: str) -> ModelEntry:
    first = study.manifests[model, study.seeds[0]]
    by_seed = [study.manifests[model, seed] for seed in study.seeds]
    entry: ModelEntry = {
        "model": model,
        "kind": first["kind"],
        "method": first["method"],
        "storage": first["storage"],
        "parameters": first["parameters"],
        "training": [manifest.get("training") for manifest in by_seed],
        "versions": first.get("versions", {}),
        "files": {str(manifest["seed"]): manifest.get("files", {}) for manifest in by_seed},
    }
    if "brought" in first:
        digest = first.get("given", {}).get(f"methods/{model}/{CHECKPOINT}")
        entry["brought"] = {**first["brought"], "sha256": digest}
    return entry


def _row(study: Study, retained: Retained, key: Key) -> Row:
    model, seed, precision = key
    kind = study.kind(model)
    utility, reference = (_utility(study, (each, seed, precision)) for each in (model, study.one(TARGET)))
    row: Row = {
        "model": model,
        "kind": kind,
        "storage": _storage(study, model),
        "seed": seed,
        "precision": precision,
        "metrics": {name: _metric(record) for name, record in study.scores[key].items()},
        "survival": None,
        "retained": None,
        "recovery": None,
        # without questions on the retain set nobody can tell
        "broken": None not in (utility, reference)
        and cast(float, utility) < retained.rules.utility_floor / 100 * cast(float, reference),
    }
    if kind != UNLEARNED:
        return row
    if precision != FULL:
        row["survival"] = _survival(study.survival[key]["all"]) if key in study.survival else None
        row["recovery"] = retained.cell(
            retained.recovery([model], [seed], precision), retained.why_no_recovery([seed], precision)
        )
    row["retained"] = {name: _retained_cells(retained, key, name) for name in DENOMINATORS}
    return row


def _metric(record: ScoreRecord) -> MetricCell:
    """What a row shows of a score, and what tells whether PrivLeak and ROUGE have ground to stand on."""
    cell: MetricCell = {"score": record["score"], "status": record["status"], "ci": record["ci"], "n": record["n"]}
    if record["metric"] == PRIVLEAK and "auc_retrain" in record:
        leak = cast(PrivLeakScore, record)
        if leak["auc_retrain"] is not None:
            cell["auc_retrain"] = leak["auc_retrain"]
            cell["n_forget"], cell["n_holdout"] = leak["n_forget"], leak["n_holdout"]
    if (shuffled := record.get("shuffled")) is not None:
        cell["shuffled"] = cast(float, shuffled)
    return cell


def _utility(study: Study, key: Key) -> float | None:
    """None where the study asks no questions on the retain set."""
    record = study.scores[key][UTILITY]
    if record["score"] is None and record["n"]:
        raise PalimpsestError(f"{UTILITY} of {key} has no score: score it again.")
    return record["score"]


def _survival(numbers: Survival) -> SurvivalCell:
    return {
        "rho": numbers["rho"],
        "rho_status": numbers["rho_status"],
        "same_code_share": numbers["same_code_share"],
        "changed_share": numbers.get("changed_share"),
        "relative_update_norm": numbers.get("relative_update_norm"),
        "scale_drift": numbers.get("scale_drift"),
    }


def _retained_cells(retained: Retained, key: Key, denominator: str) -> dict[str, Cell]:
    why = retained.why_undefined([key[1]], key[2], denominator)
    cells = {
        metric: retained.cell(
            retained.of(metric, key, denominator), retained.why_no_part(metric, [key[1]], key[2], denominator)
        )
        for metric in FORGET_METRICS
    }
    return cells | {BOTH: retained.cell(retained.mean(key, denominator), why)}


def _over_seeds(study: Study, retained: Retained, rows: list[Row], model: str, precision: str) -> SeedsRow:
    """Means over the seeds: the scores, retained by denominator, recovery and rho."""
    mine = [row for row in rows if (row["model"], row["precision"]) == (model, precision)]
    names = mine[0]["metrics"]
    record: SeedsRow = {
        "model": model,
        "kind": study.kind(model),
        "storage": _storage(study, model),
        "precision": precision,
        "seeds": study.seeds,
        "broken": any(row["broken"] for row in mine),
        "metrics": {name: _plain_mean([row["metrics"][name]["score"] for row in mine]) for name in names},
        "retained": None,
        "recovery": None,
        "rho": None,
    }
    if study.kind(model) == UNLEARNED:
        record["retained"] = {
            name: retained.cell(
                retained.average([model], precision, name), retained.why_undefined(study.seeds, precision, name)
            )
            for name in DENOMINATORS
        }
        if precision != FULL:
            why = retained.why_no_recovery(study.seeds, precision)
            record["recovery"] = retained.cell(retained.recovery([model], study.seeds, precision), why)
            record["rho"] = _plain_mean([row["survival"]["rho"] if row["survival"] else None for row in mine])
    return record


def _plain_mean(values: list[float | None]) -> float | None:
    """None as soon as one seed has no number: a mean over the others would hide it."""
    return None if any(value is None for value in values) else sum(v for v in values if v is not None) / len(values)


def _average(study: Study, retained: Retained, models: list[str]) -> Group:
    """Averages over a group of models: retained under every denominator, and recovery, with intervals over examples."""
    rows: list[GroupRow] = []
    for precision in study.precisions:
        row: GroupRow = {"precision": precision, "retained": {}, "recovery": None}
        for name in DENOMINATORS:
            why = retained.why_undefined(study.seeds, precision, name)
            cell = retained.cell(retained.average(models, precision, name), why)
            by_seed = {str(s): _by_seed(study, retained, models, s, precision, name) for s in study.seeds}
            row["retained"][name] = {**cell, "by_seed": by_seed}
        if precision != FULL:
            why = retained.why_no_recovery(study.seeds, precision)
            row["recovery"] = retained.cell(retained.recovery(models, study.seeds, precision), why)
        rows.append(row)
    return {"models": models, "n": len(models) * len(study.seeds), "rows": rows}


def _by_seed(study: Study, retained: Retained, models: list[str], seed: int, precision: str, name: str) -> float | None:
    values = [float(retained.mean((model, seed, precision), name)[0]) for model in models]
    mean = sum(values) / len(values)
    return None if mean != mean else mean


def _rank_correlation(rows: list[Row]) -> Correlation:
    """Spearman's correlation of rho with measured recovery over all unlearned models, seeds and quantizers."""
    from scipy.stats import spearmanr

    points = [point for row in rows if (point := _point(row))]
    rho, recovery = [point["rho"] for point in points], [point["recovery"] for point in points]
    spearman = p_value = None
    if len(points) < 3:
        status = undefined("fewer than 3 points have both numbers")
    elif len(set(rho)) == 1 or len(set(recovery)) == 1:
        status = undefined("one of the two is the same everywhere")
    else:
        result = spearmanr(rho, recovery)
        spearman, p_value, status = float(result.statistic), float(result.pvalue), OK
    return {"spearman": spearman, "p_value": p_value, "n": len(points), "points": points, "status": status}


def _point(row: Row) -> Point | None:
    """None where one of the two numbers cannot be had."""
    if row["survival"] is None or row["recovery"] is None:
        return None
    rho, recovery = row["survival"]["rho"], row["recovery"]["value"]
    if rho is None or recovery is None:
        return None
    return {
        "model": row["model"],
        "storage": row["storage"],
        "seed": row["seed"],
        "precision": row["precision"],
        "rho": rho,
        "recovery": recovery,
    }


def _flat(row: Row) -> dict[str, object]:
    line: dict[str, object] = {
        "model": row["model"],
        "kind": row["kind"],
        "weights": row["storage"],  # what published tables call it
        "seed": row["seed"],
        "precision": row["precision"],
        "broken": row["broken"],
    }
    for metric, record in row["metrics"].items():
        low, high = record["ci"] or (None, None)
        line |= {f"{metric}": record["score"], f"{metric}_low": low, f"{metric}_high": high, f"{metric}_n": record["n"]}
    line |= row["survival"] or dict.fromkeys(SURVIVAL)
    for denominator in DENOMINATORS:
        for part in (*FORGET_METRICS, BOTH):
            cell = row["retained"][denominator][part] if row["retained"] else None
            line[f"retained_{denominator}_{part}"] = cell["value"] if cell else None
    return line | {"recovery": row["recovery"]["value"] if row["recovery"] else None} | columns(row)
