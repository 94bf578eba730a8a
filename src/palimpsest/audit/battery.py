"""The utility battery in the audit: what was measured for each model, at each precision, by task."""

from collections.abc import Iterable, Mapping
from typing import Any

from palimpsest.audit.records import Record, require
from palimpsest.battery import TITLES
from palimpsest.errors import PalimpsestError

Cell = Mapping[str, Any] | None
""""score" and "stderr" (percent), "n"; None where the task was not run."""


def attach(audit: dict[str, Any], records: Iterable[Record]) -> None:
    """Give every row of the audit, and every row over seeds, a "battery": a cell by task. Without records nothing changes.

    Over seeds: the mean, and the mean of the standard errors; every seed answered the same questions, so that more seeds do
    not make it smaller.
    """
    found: dict[tuple[str, int, str], Mapping[str, Any]] = {}
    for record in records:
        require(record, "model", "seed", "precision", "tasks", what="battery record")
        found[record["model"], record["seed"], record["precision"]] = record["tasks"]
    if not found:
        return
    measured = {task for tasks in found.values() for task in tasks}
    names = [task for task in TITLES if task in measured]
    known = {(row["model"], row["seed"], row["precision"]) for row in audit["rows"]}
    if found.keys() - known:
        raise PalimpsestError(f"{min(found.keys() - known)} has a battery record but no scores: run its scoring step.")
    for row in audit["rows"]:
        tasks = found.get((row["model"], row["seed"], row["precision"]), {})
        row["battery"] = {name: _cell(tasks.get(name)) for name in names}
    for row in audit["over_seeds"]:
        mine = [each["battery"] for each in audit["rows"] if _same(each, row)]
        row["battery"] = {name: _mean([cells[name] for cells in mine]) for name in names}


def texts(audit: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and lines of a table: model, precision, and `score ± standard error (n = questions)` of each task; only where there is one."""
    rows = [row for row in audit["over_seeds"] if any(row.get("battery", {}).values())]
    head = ["model", "precision", *(TITLES[task] for task in (rows[0]["battery"] if rows else ()))]
    return head, [[row["model"], row["precision"], *map(_text, row["battery"].values())] for row in rows]


def columns(row: Mapping[str, Any]) -> dict[str, float | None]:
    """The cells of a row as columns of audit.csv."""
    return {
        f"{task}{end}": cell[key] if cell else None
        for task, cell in row.get("battery", {}).items()
        for end, key in (("", "score"), ("_stderr", "stderr"), ("_n", "n"))
    }


def _cell(record: Mapping[str, Any] | None) -> Cell:
    return record and {key: record[key] for key in ("score", "stderr", "n")}


def _mean(cells: list[Cell]) -> Cell:
    """None as soon as one seed has none."""
    there = [cell for cell in cells if cell]
    if len(there) < len(cells):
        return None
    return {key: sum(cell[key] for cell in there) / len(there) for key in ("score", "stderr")} | {"n": there[0]["n"]}


def _same(row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return (row["model"], row["precision"]) == (other["model"], other["precision"])


def _text(cell: Cell) -> str:
    return f"{cell['score']:z.1f} ± {cell['stderr']:.1f} (n = {cell['n']})" if cell else "–"
