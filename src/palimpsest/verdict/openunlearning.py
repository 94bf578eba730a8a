"""Results of OpenUnlearning (TOFU_EVAL.json and its kin): one file a model, its rows under `value_by_index`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from palimpsest.artefacts import read_json
from palimpsest.errors import PalimpsestError, choose
from palimpsest.metrics.tofu import forget_quality
from palimpsest.verdict.records import Measured, Values
from palimpsest.vocabulary import FULL

METRICS = {
    "probability": ("forget_Q_A_Prob", "prob"),
    "rouge": ("forget_Q_A_ROUGE", "rougeL_recall"),
    "extraction_strength": ("extraction_strength", "score"),
    "exact_memorization": ("exact_memorization", "score"),
}
"""By our name: theirs, and the key of a row; all from 0 to 1, higher for what a model knows."""

STAND_IN = {"probability": ("forget_Q_A_PARA_Prob", "prob")}
"""For a retained model whose file holds what forget quality needs and no more, as OpenUnlearning publishes them."""

KEPT = {"probability": ("retain_Q_A_Prob", "prob"), "rouge": ("retain_Q_A_ROUGE", "rougeL_recall")}
"""The same of the retain set, where a file has it."""

UTILITY, RATIO = "model_utility", "forget_truth_ratio"
READ = {UTILITY, RATIO, *(name for names in (METRICS, STAND_IN, KEPT) for name, _ in names.values())}
"""What is taken from a file; others may be of any shape."""
LARGEST = 1e300

NO_CONTROL = "No retained control was given: knowledge is counted from 0, and what any model would guess is in it."


@dataclass(frozen=True)
class Files:
    """before, retain, target: of the models at full precision; after: by format."""

    before: Path
    after: Mapping[str, Path]
    retain: Path | None = None
    target: Path | None = None

    def named(self) -> dict[str, Path]:
        """Every file, by what it is of."""
        others = {"retain": self.retain, "target": self.target}
        return {
            "before": self.before,
            **{f"after, {name}": path for name, path in self.after.items()},
            **{name: path for name, path in others.items() if path},
        }


def read_results(files: Files, metrics: Sequence[str], records_per_subject: int | None = None) -> list[Measured]:
    """The named metrics of all files, over the same records.

    records_per_subject: TOFU's records stand by author, 20 each. Raises PalimpsestError for a file that lacks a metric
    or has other records than `before`.
    """
    evals = {path: _read(path) for path in (files.before, *files.after.values(), files.retain, files.target) if path}
    return [_measured(files, evals, metric, records_per_subject) for metric in metrics]


def _measured(files: Files, evals: Mapping[Path, Any], metric: str, each: int | None) -> Measured:
    theirs = choose(METRICS, metric, "metric of OpenUnlearning")
    before = _rows(evals[files.before], files.before, *theirs)
    ids, notes = list(before), []

    def values(path: Path, names: tuple[str, str] = theirs) -> Values:
        rows = _rows(evals[path], path, *names)
        if list(rows) != ids:
            raise PalimpsestError(
                f"{path} has other records of {names[0]} than {files.before} ({len(rows)} and {len(ids)}): "
                "evaluate both on the same forget set."
            )
        return np.array([list(rows.values())], dtype=np.float64)

    retrain: dict[str, Values] = {}
    if files.retain is None:
        notes.append(NO_CONTROL)
    elif theirs[0] in evals[files.retain]:
        retrain[FULL] = values(files.retain)
    elif metric in STAND_IN and STAND_IN[metric][0] in evals[files.retain]:
        retrain[FULL] = values(files.retain, STAND_IN[metric])
        notes.append(
            f"{files.retain} has no {theirs[0]}: its {STAND_IN[metric][0]} stands in for it. A model gives paraphrases "
            "less, so knowledge is counted from somewhat too low, and the test is stricter."
        )
    else:
        raise PalimpsestError(
            f"{files.retain} has no {theirs[0]}: evaluate the retained model with that metric, or leave it out."
        )
    if files.target is None:
        notes.append("The target was not given: 100 % stands for a model that is sure of every answer.")
    notes += _forget_quality(files, evals)
    utility, of = _utility(files, evals)
    asked = {FULL: files.before, **files.after}
    return Measured(
        metric,
        ids,
        {name: values(path) for name, path in asked.items()},
        retrain,
        {} if files.target is None else {FULL: values(files.target)},
        None if each is None else [str(index // each) for index in range(len(ids))],
        utility,
        of,
        {name: _answers(evals[path], ids) for name, path in asked.items()},
        notes,
        _kept({name: (evals[path], path) for name, path in asked.items()}, metric),
    )


def _kept(asked: Mapping[str, tuple[Any, Path]], metric: str) -> dict[str, Values]:
    """What the model shows of the retain set in each format; empty where a file lacks that, or has other records."""
    names = KEPT.get(metric)
    if names is None or not all((results.get(names[0]) or {}).get("value_by_index") for results, _ in asked.values()):
        return {}
    rows = {name: _rows(results, path, *names) for name, (results, path) in asked.items()}
    if len({tuple(each) for each in rows.values()}) > 1:
        return {}
    return {name: np.array([list(each.values())], dtype=np.float64) for name, each in rows.items()}


def _utility(files: Files, evals: Mapping[Path, Any]) -> tuple[dict[str, float], str]:
    """Percent of the target's utility, or of the unlearned model's at full precision where there is no target's."""
    reference, of = (files.target, "the target") if files.target else (files.before, "the model at full precision")
    whole = evals[reference].get(UTILITY, {}).get("agg_value")
    if not whole:
        return {}, ""
    asked = {FULL: files.before, **files.after}
    found = {name: evals[path].get(UTILITY, {}).get("agg_value") for name, path in asked.items()}
    return {name: 100 * value / whole for name, value in found.items() if value is not None}, of


def _forget_quality(files: Files, evals: Mapping[Path, Any]) -> list[str]:
    """A note, where the model's files and the retained control's have the truth ratios that it compares."""
    ratios = {path: (results.get(RATIO) or {}).get("value_by_index") for path, results in evals.items()}
    asked = {FULL: files.before, **files.after}
    if files.retain is None or not all(ratios[path] for path in (files.retain, *asked.values())):
        return []
    scores = {path: list(_rows(evals[path], path, RATIO, "score").values()) for path in evals if ratios[path]}
    found = {name: forget_quality(scores[path], scores[files.retain]) for name, path in asked.items()}
    listed = ", ".join(f"{value:.2g} at {name}" for name, value in found.items())
    return [f"Forget quality, the p of truth ratios against the retained control's (small: they differ): {listed}."]


def _answers(results: Mapping[str, Any], ids: Sequence[str]) -> list[str]:
    rows = results.get("forget_Q_A_ROUGE", {}).get("value_by_index") or {}
    found = (rows.get(name) for name in ids)
    return [str(row.get("generation", "")) if isinstance(row, dict) else "" for row in found]


def _read(path: Path) -> dict[str, Any]:
    results = read_json(path)
    metrics = results.values() if isinstance(results, dict) else ()
    if not any(isinstance(each, dict) and "agg_value" in each for each in metrics):
        raise PalimpsestError(f"{path} is no result of OpenUnlearning: give its TOFU_EVAL.json.")
    for name in READ & results.keys():
        _check_entry(results[name], name, path)
    return results


def _check_entry(entry: Any, name: str, path: Path) -> None:
    """Raise PalimpsestError for a metric whose rows or mean are not what they are named."""
    rows, mean = (entry.get(key) for key in ("value_by_index", "agg_value")) if isinstance(entry, dict) else (0, 0)
    if not isinstance(rows, dict | None):
        raise PalimpsestError(f"{path}: {name} is no metric with rows by index: evaluate it again.")
    if mean is not None and not is_number(mean):
        raise PalimpsestError(f"{path}: the agg_value of {name} is no finite number: evaluate it again.")


def is_number(value: Any) -> bool:
    """Whether a value from a file of another tool is a number that a score can be."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST < value < LARGEST


def _rows(results: Mapping[str, Any], path: Path, metric: str, key: str) -> dict[str, float]:
    rows = (results.get(metric) or {}).get("value_by_index")
    if not rows:
        has = ", ".join(name for name, (theirs, _) in METRICS.items() if theirs in results) or "none that can decide"
        raise PalimpsestError(
            f"{path} has no rows of {metric} (it has: {has}): evaluate with it, or name another metric in the policy."
        )
    found = {}
    for name, row in rows.items():
        value = row.get(key) if isinstance(row, dict) else None
        if not is_number(value):
            raise PalimpsestError(f"{path}: record {name} of {metric} has no number under {key!r}: evaluate it again.")
        found[str(name)] = float(value)  # type: ignore[arg-type]  # is_number
    return found
