"""The utility battery in the audit: what was measured for each model, at each precision, by task."""

from collections.abc import Iterable, Mapping
from typing import Any

from palimpsest.audit.records import Record, require
from palimpsest.audit.shapes import Audit, BatteryCell, Row, SeedsRow
from palimpsest.battery import TITLES
from palimpsest.errors import PalimpsestError


def attach(audit: Audit, records: Iterable[Record]) -> None:
    """Give every row of the audit, and every row over seeds, a "battery": a cell by task.
    Without records nothing changes.

    Over seeds: the mean, and the mean of the standard errors; every seed answered the same questions, so that more
    seeds do not make it smaller.
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
    for over in audit["over_seeds"]:
        mine = [row["battery"] for row in audit["rows"] if _same(row, over)]
        over["battery"] = {name: _mean([cells[name] for cells in mine]) for name in names}


def texts(audit: Audit) -> tuple[list[str], list[list[str]]]:
    """Head and lines of a table: model, precision, and `score ± standard error (n = questions)` of each task;
    only where there is one."""
    rows = [row for row in audit["over_seeds"] if any(row.get("battery", {}).values())]
    head = ["model", "precision", *(TITLES[task] for task in (rows[0]["battery"] if rows else ()))]
    return head, [[row["model"], row["precision"], *map(_text, row["battery"].values())] for row in rows]


def columns(row: Row) -> dict[str, float | None]:
    """The cells of a row as columns of audit.csv."""
    found: dict[str, float | None] = {}
    for task, cell in row.get("battery", {}).items():
        score, stderr, n = (cell["score"], cell["stderr"], cell["n"]) if cell else (None, None, None)
        found |= {task: score, f"{task}_stderr": stderr, f"{task}_n": n}
    return found


def _cell(record: Mapping[str, Any] | None) -> BatteryCell | None:
    return {"score": record["score"], "stderr": record["stderr"], "n": record["n"]} if record else None


def _mean(cells: list[BatteryCell | None]) -> BatteryCell | None:
    """None as soon as one seed has none."""
    there = [cell for cell in cells if cell]
    if len(there) < len(cells):
        return None
    return {
        "score": sum(cell["score"] for cell in there) / len(there),
        "stderr": sum(cell["stderr"] for cell in there) / len(there),
        "n": there[0]["n"],
    }


def _same(row: Row, other: SeedsRow) -> bool:
    return (row["model"], row["precision"]) == (other["model"], other["precision"])


def _text(cell: BatteryCell | None) -> str:
    return f"{cell['score']:z.1f} ± {cell['stderr']:.1f} (n = {cell['n']})" if cell else "–"
