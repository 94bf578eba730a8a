"""What the attacks of studies bring back, as CSV: a line for each attack, model, precision and metric.

The columns are those of `palimpsest.attacks.table.Row`; `low` and `high` are the ends of the interval of the excess.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from palimpsest.artefacts import read_record
from palimpsest.errors import PalimpsestError

COLUMNS: tuple[str, ...] = (
    "attack",
    "kind",
    "strength",
    "when",
    "model",
    "precision",
    "metric",
    "n",
    "seeds",
    "plain",
    "attacked",
)
COLUMNS += ("floor", "ceiling", "excess", "low", "high", "share", "status")


def lines(results: Sequence[Path]) -> str:
    """results: folders of studies, whose rows follow each other. Raises PalimpsestError for one without attacks."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for folder in results:
        writer.writerows(map(_flat, _rows(folder)))
    return text.getvalue().rstrip("\n")


def _rows(folder: Path) -> list[dict[str, Any]]:
    file = folder / "attacks" / "attacks.json"
    rows: Any = read_record(file).get("rows")
    needed = {*COLUMNS, "ci"} - {"low", "high"}
    if not (isinstance(rows, list) and rows and all(isinstance(row, dict) and needed <= row.keys() for row in rows)):
        raise PalimpsestError(f"{file} is no table of attacks: give the results folder of a study that makes some.")
    return rows


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    return row | dict(zip(("low", "high"), row["ci"] or (None, None), strict=True))
