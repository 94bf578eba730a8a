"""Rows of a table of docs/evidence that several runs make, each of them some."""

import csv
from pathlib import Path


def replace_rows(table: Path, new: list[dict[str, str]], *keys: str) -> None:
    """Write rows that are equal in the columns `keys` in the place of those that are equal to them there, else behind
    the others. A table that does not exist begins with them. Raises ValueError where the table has other columns."""
    rows: list[dict[str, str]] = []
    if table.exists():
        with open(table, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
        if reader.fieldnames != list(new[0]):
            raise ValueError(
                f"{table} has the columns {reader.fieldnames}, the new rows {list(new[0])}: name another file"
            )
    places = [place for place, old in enumerate(rows) if all(old[key] == new[0][key] for key in keys)]
    first = places[0] if places else len(rows)
    others = [row for place, row in enumerate(rows) if place not in places]
    with open(table, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(new[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows([*others[:first], *new, *others[first:]])
