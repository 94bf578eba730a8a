"""Rows of a table of docs/evidence that several runs make, each of them some."""

import csv
from pathlib import Path


def replace_row(table: Path, row: dict[str, str], *keys: str) -> None:
    """Write a row in the place of the one that is equal to it in the columns `keys`, else behind the others. A table
    that does not exist begins with it. Raises ValueError where the table has other columns."""
    rows: list[dict[str, str]] = []
    if table.exists():
        with open(table, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
        if reader.fieldnames != list(row):
            raise ValueError(f"{table} has the columns {reader.fieldnames}, the new row {list(row)}: name another file")
    places = [place for place, old in enumerate(rows) if all(old[key] == row[key] for key in keys)]
    if places:
        rows[places[0]] = row
    else:
        rows.append(row)
    with open(table, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
