"""What came back, by weight storage and format, from the audit.csv files of one or more studies, for documents.

`palimpsest tables recovery AUDIT.csv... [--models NAME...]`. The files need not lie in a results folder: those in
docs/evidence are enough.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from statistics import mean
from typing import Any

from palimpsest.audit.cautions import BELOW, DAMAGED, is_over_forgotten, join
from palimpsest.errors import PalimpsestError, printable
from palimpsest.survival.prediction import forgotten_and_returned
from palimpsest.tables.markdown import MISSING, number, table
from palimpsest.vocabulary import FORGET_METRICS, FULL, HEADLINE, UNLEARNED, UTILITY

Row = Mapping[str, str]
Key = tuple[str, str, str]
"""model, seed, precision"""

ALL = "what had been forgotten"
SCORES = (*FORGET_METRICS, UTILITY, "recovery")
"""Columns of numbers, beside those of what is retained."""
COLUMNS = {metric: f"retained_{HEADLINE}_{metric}" for metric in FORGET_METRICS}


def read_rows(files: Iterable[Path]) -> dict[Key, Row]:
    """The rows of unlearned models; raises PalimpsestError for a file that is no audit.csv,
    or scores of one cell that differ."""
    rows: dict[Key, Row] = {}
    for file in files:
        try:
            with file.open(newline="", encoding="utf-8-sig") as lines:
                found = list(csv.DictReader(lines))
        except (OSError, UnicodeDecodeError) as error:
            raise PalimpsestError(f"{file} cannot be read ({error}): give the audit.csv of a study.") from error
        needed = {"model", "seed", "precision", "kind", "weights", *COLUMNS.values()}
        if not found or not needed <= set(found[0]):
            raise PalimpsestError(f"{file} is no audit.csv (it lacks {', '.join(sorted(needed - set(*found[:1])))}).")
        for line, row in enumerate(found, start=2):
            _check_cells(row, f"{file}, line {line}")
            key = row["model"], row["seed"], row["precision"]
            if row["kind"] == UNLEARNED and rows.setdefault(key, row) != row:
                raise PalimpsestError(
                    f"{file} and a file before it have other scores of {', '.join(key)}: give one of them."
                )
    return rows


def _check_cells(row: Mapping[Any, Any], place: str) -> None:
    """Raise PalimpsestError for a line that has other columns than the head, and a score that is no number."""
    if None in row or None in row.values():
        raise PalimpsestError(f"{place} has other columns than the first line: write the file anew.")
    for name, cell in row.items():
        if cell and (name in SCORES or name.startswith("retained_")):
            try:
                sound = isfinite(float(cell))
            except ValueError:
                sound = False
            if not sound:
                raise PalimpsestError(
                    f"{place} has {printable(cell[:40])!r} as {name}: give a number, or leave it empty."
                )


def recovery(rows: Mapping[Key, Row], forgotten_below: float) -> dict[tuple[str, str], dict[str, list[float]]]:
    """By weight storage and format: points of retained knowledge above bf16's,
    of each model and seed that had forgotten.

    Of each metric by itself, where it had been forgotten (below forgotten_below percent in bf16), and of all that had
    (ALL), as in palimpsest.survival.prediction. Retained at the same precision: percent of what the equally quantized
    target knows above the retrained model.
    """
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for (model, seed, precision), row in rows.items():
        if precision == FULL or (model, seed, FULL) not in rows:
            continue
        there, before = ({m: _value(r[c]) for m, c in COLUMNS.items()} for r in (row, rows[model, seed, FULL]))
        points = found.setdefault((row["weights"], precision), {})
        for name, metrics in {ALL: FORGET_METRICS, **{metric: (metric,) for metric in FORGET_METRICS}}.items():
            if compared := forgotten_and_returned(there, {m: before[m] for m in metrics}, forgotten_below):
                points.setdefault(name, []).append(compared[1] - compared[2])
    return found


def _value(cell: str) -> float | None:
    return float(cell) if cell else None


def recovery_table(files: Sequence[Path], models: Sequence[str], forgotten_below: float, negligible: float) -> str:
    rows = read_rows(files)
    if unknown := set(models) - {model for model, _, _ in rows}:
        raise PalimpsestError(
            f"{', '.join(sorted(unknown))}: not among the unlearned models of {', '.join(map(str, files))}."
        )
    chosen = {key: row for key, row in rows.items() if not models or key[0] in models}
    names = (ALL, *FORGET_METRICS)
    lines = [
        [*key, *(text for name in names for text in _cells(points.get(name, []), negligible))]
        for key, points in sorted(recovery(chosen, forgotten_below).items())
    ]
    head = [column for name in names for column in (f"{name}: points back", f"more than {negligible:g}")]
    return "\n\n".join([table(["weights", "format", *head], lines), *_notes(chosen, negligible)])


def _notes(rows: Mapping[Key, Row], negligible: float) -> list[str]:
    """What a reader must know of points that begin, or end, below the retrained model."""
    found: dict[str, list[str]] = {}
    for (model, seed, precision), row in rows.items():
        known = [value for column in COLUMNS.values() if (value := _value(row[column])) is not None]
        if known and is_over_forgotten(mean(known), negligible):
            found.setdefault(f"{model} (seed {seed})", []).append(precision)
    if not found:
        return []
    named = "; ".join(f"{model} in {join(precisions)}" for model, precisions in found.items())
    return [f"{BELOW.capitalize()}, by more than {negligible:g} points ({DAMAGED}): {named}."]


def _cells(points: Sequence[float], negligible: float) -> tuple[str, str]:
    """The mean, least and greatest; how many of how many are above what is negligible."""
    if not points:
        return MISSING, MISSING
    text = f"{number(mean(points))} ({number(min(points))} to {number(max(points))})"
    return text, f"{sum(each > negligible for each in points)} of {len(points)}"
