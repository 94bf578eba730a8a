"""How far the seeds of a study lie apart, from its audit.csv: what a number of one seed may be read to."""

from collections.abc import Mapping, Sequence
from math import sqrt
from pathlib import Path
from statistics import mean, variance

from palimpsest.errors import PalimpsestError
from palimpsest.tables.markdown import number, table
from palimpsest.tables.recovery import Row, read_rows
from palimpsest.vocabulary import BOTH, HEADLINE, KNOWMEM, PRIVLEAK, UTILITY, VERBMEM

COLUMNS = {
    "retained": f"retained_{HEADLINE}_{BOTH}",
    "recovery": "recovery",
    VERBMEM: VERBMEM,
    KNOWMEM: KNOWMEM,
    PRIVLEAK: PRIVLEAK,
    UTILITY: UTILITY,
}


def spread_over_seeds(rows: Mapping[tuple[str, str, str], Row]) -> dict[str, list[list[float]]]:
    """Of each score the values of the seeds, for each model and format that has two seeds or more."""
    found: dict[str, dict[tuple[str, str], list[float]]] = {name: {} for name in COLUMNS}
    for (model, _, precision), row in rows.items():
        for name, column in COLUMNS.items():
            if row.get(column):
                found[name].setdefault((model, precision), []).append(float(row[column]))
    return {name: [values for values in cells.values() if len(values) > 1] for name, cells in found.items()}


def seeds_table(files: Sequence[Path]) -> str:
    """A Markdown table in points: the standard deviation of one seed, pooled over the models and formats, and the
    greatest difference of two seeds. Raises PalimpsestError for files of one seed."""
    cells = spread_over_seeds(read_rows(files))
    if not any(cells.values()):
        raise PalimpsestError(f"{', '.join(map(str, files))}: no model has two seeds, so there is nothing to compare.")
    lines = [
        [
            name,
            str(len(values)),
            number(sqrt(mean(map(variance, values))), 1),
            number(max(max(each) - min(each) for each in values)),
        ]
        for name, values in cells.items()
        if values
    ]
    return table(["score", "models and formats", "standard deviation of a seed", "greatest difference"], lines)
