"""Published numbers beside ours: `palimpsest tables known-answers studies/paper-news/results`.

known_answers.yaml holds the tables and what is known of how they were made. Each line of a comparison says which
settings of the study differ from those, and what no setting can make alike.
"""

import string
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from palimpsest.artefacts import read_record
from palimpsest.audit.records import read_audit
from palimpsest.errors import PalimpsestError, choose

MISSING = "–"


@cache
def read_packs() -> dict[str, Any]:
    """known_answers.yaml: the precisions of the tables, and the packs by name."""
    return yaml.safe_load(files("palimpsest.report").joinpath("known_answers.yaml").read_text(encoding="utf-8"))


def choose_pack(name: str) -> dict[str, Any]:
    """The tables and the protocol of a pack; raises PalimpsestError with the nearest name when there is none."""
    return choose(read_packs()["packs"], name, "pack of known answers")


def compare(audit: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Every cell of a pack beside the study's mean over its seeds.

    audit: audit.json. Returns {"name", "tables": [{"source", "labels", "lines"}], "copies": {name: text}, "notes":
    {letter: text}, "absent": [text]}; a line has "model", "precision" (of the table), "format" (ours, None where the
    study lacks it), "cells" [{"paper", "ours", "difference"}] in the table's units (percent, but for Flu; None where
    there is no number), "copy" (the name of what the paper's numbers were read from; None without them) and "notes",
    the letters of what differs in protocol.
    """
    pack = choose_pack(name)
    letters: dict[str, str] = {}
    tables = []
    for table in pack["tables"]:
        cells = [
            (model, precision, form, numbers)
            for model, row in table["rows"].items()
            for precision, numbers in row.items()
            for form in _formats(precision, [row["precision"] for row in audit["over_seeds"] if row["model"] == model])
        ]
        lines = [_line(audit, pack["protocol"], table["columns"], letters, *cell) for cell in cells]
        for line, (model, precision, _, numbers) in zip(lines, cells, strict=True):
            line["copy"] = copy_of(table, model, precision) if numbers else None
        labels = [column["label"] for column in table["columns"]]
        tables.append({"source": table["source"], "labels": labels, "lines": lines})
    notes = {letter: note for note, letter in letters.items()}
    named = {line["copy"] for table in tables for line in table["lines"]}
    copies = {copy: text for copy, text in read_packs()["copies"].items() if copy in named}
    return {"name": name, "tables": tables, "copies": copies, "notes": notes, "absent": pack["absent"]}


def copy_of(table: Mapping[str, Any], model: str, precision: str) -> str:
    """The name of what a table's numbers of a model at a precision were read from."""
    return table.get("other_copies", {}).get(model, {}).get(precision, table["copy"])


def _line(
    audit: Mapping[str, Any],
    protocol: Sequence[Mapping[str, Any]],
    columns: Sequence[Mapping[str, Any]],
    letters: dict[str, str],
    model: str,
    precision: str,
    form: str,
    numbers: Sequence[float | None] | None,
) -> dict[str, Any]:
    """One line; `letters` (by note) gains those of notes that no earlier line had."""
    rows = [_measured(row) for row in audit["over_seeds"] if (row["model"], row["precision"]) == (model, form)]
    metrics = rows[0] if rows else {}
    measured = {column["metric"] for column in columns} & set(metrics)
    notes = deviations(protocol, audit["settings"], model, precision, form, measured)
    return {
        "model": model,
        "precision": precision,
        "format": form if rows else None,
        "cells": _cells(columns, numbers, metrics),
        "notes": [letters.setdefault(note, _letter(len(letters))) for note in notes],
    }


def _measured(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row's scores by metric, those of the utility battery that it has included."""
    return row["metrics"] | {task: cell["score"] for task, cell in row.get("battery", {}).items() if cell}


def deviations(
    protocol: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    model: str,
    precision: str,
    form: str,
    metrics: set[str],
) -> Iterator[str]:
    """What of a study's protocol differs from the paper's, for the metrics of one model in one format of ours
    (precision: the table's); nothing where no metric was measured."""
    concerns = {"models": {model}, "precisions": {precision}, "formats": {form}, "metrics": metrics}
    for entry in protocol:
        if any(here.isdisjoint(entry.get(kind, here)) for kind, here in concerns.items()):
            continue
        note = entry.get("note", "")
        if "key" not in entry:
            yield note
            continue
        key = entry["key"].format(model=model)
        value = _setting(settings, key)
        value = entry.get("without") if value is None else value
        if value != entry["paper"]:
            told = f"{key}: {_told(value)} (paper: {_told(entry['paper'])})"
            yield f"{told}; {note}" if note else told


def markdown(comparison: Mapping[str, Any]) -> str:
    """The comparison as Markdown tables, a cell being paper / ours / difference,
    and the list of protocol differences."""
    parts = []
    for table in comparison["tables"]:
        head = ["model", "precision", "ours", *table["labels"], "copy", "protocol"]
        lines = [head, ["---", "---", "---", *["---:"] * len(table["labels"]), "---", "---"]]
        for line in table["lines"]:
            cells = [" / ".join(texts(cell)) for cell in line["cells"]]
            ends = [line["copy"] or MISSING, " ".join(line["notes"])]
            lines.append([line["model"], line["precision"], line["format"] or MISSING, *cells, *ends])
        title = f"{table['source']}: paper / ours / difference"
        parts += [title, "\n".join(f"| {' | '.join(line)} |" for line in lines)]
    copies = "\n".join(f"- {copy}: {text}" for copy, text in comparison["copies"].items())
    notes = [f"- {letter}: {note}" for letter, note in comparison["notes"].items()]
    absent = "\n".join(f"- {text}" for text in comparison["absent"])
    ends = [
        "What the paper's numbers were read from (copy):",
        copies,
        "Differences in protocol:",
        "\n".join(notes) or "- none",
    ]
    return "\n\n".join([*parts, *ends, "Not in the tables:", absent])


def texts(cell: Mapping[str, float | None]) -> tuple[str, str, str]:
    """Paper, ours and the signed difference, the first as printed."""
    paper, ours, difference = cell["paper"], cell["ours"], cell["difference"]
    return (
        MISSING if paper is None else f"{paper}",
        MISSING if ours is None else f"{ours:z.1f}",
        MISSING if difference is None else f"{difference:+z.1f}",
    )


def _formats(precision: str, ours: Sequence[str]) -> list[str]:
    """Which of the formats that a model has a table's precision compares with;
    the first it could have had, where it has none."""
    known = read_packs()["precisions"][precision]
    return [form for form in known if form in ours] or known[:1]


def _cells(
    columns: Sequence[Mapping[str, Any]], numbers: Sequence[float | None] | None, metrics: Mapping[str, Any]
) -> list[dict[str, float | None]]:
    cells = []
    for place, column in enumerate(columns):
        paper = numbers[place] if numbers else None
        ours = metrics.get(column["metric"])
        difference = None if paper is None or ours is None else ours - paper
        cells.append({"paper": paper, "ours": ours, "difference": difference})
    return cells


def _setting(settings: Mapping[str, Any], dotted: str) -> Any:
    """The value at a dotted key, or the one that stands in its place (`models.target: train`);
    None where the study has neither."""
    value: Any = settings
    for name in dotted.split("."):
        value = value.get(name) if isinstance(value, Mapping) else value
    return value


def _told(value: Any) -> str:
    return "none" if value is None else str(value)


def _letter(number: int) -> str:
    """a to z, then aa, ab, ..."""
    more, last = divmod(number, 26)
    return (_letter(more - 1) if more else "") + string.ascii_lowercase[last]


def comparison(results: Path, pack: str | None) -> str:
    """`compare` of a study's results, as Markdown. pack: by name; None: the one that the study's params.yaml names."""
    audit = read_audit(results / "audit.json")
    shown = audit["settings"].get("report") or read_record(results / "report.json")["settings"]["report"]
    name = pack or shown.get("known_answers")
    if name is None:
        raise PalimpsestError(
            f"{results} is of a study without report.known_answers: "
            f"name a pack, one of {', '.join(sorted(read_packs()['packs']))}."
        )
    return markdown(compare(audit, name))
