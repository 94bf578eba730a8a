"""verdict.html: one file that a person without the tool can read, offline, sort and filter, and print."""

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import PurePath
from typing import Any

import jinja2
from markupsafe import Markup, escape

from palimpsest.verdict.records import MEANINGS, VERDICTS, Measured
from palimpsest.verdict.text import NEXT, outcome, share
from palimpsest.vocabulary import FULL

SIGNS = {
    "FORGETS": "\u2714",
    "RELAPSES": "\u2716",
    "NEVER FORGOT": "\u2716",
    "COLLAPSED": "\u2716",
    "INCONCLUSIVE": "?",
    "NO VERDICT": "?",
}
"""Beside the colour, for who does not see it."""
COLOURS = dict(zip(VERDICTS, ("doubt", "fail", "fail", "fail", "doubt", "pass"), strict=True))
ANSWER = 300
"""Characters of an answer that the table shows."""
LINES = 4000
"""Lines of the table; what rises least is in records.csv alone."""
ANSWERS = 2_000_000
"""Bytes of all answers, of those that rise most: the page stays under 5 MB, however many records there are."""


def page(record: Mapping[str, Any], measured: Mapping[str, Measured]) -> str:
    """The page of a verdict.json. measured: by metric.

    What models said and what records are called is text, never markup: jinja escapes it, and the policy of the page
    (Content-Security-Policy) lets no script run but the one whose hash it names.
    """
    room = files("palimpsest.verdict")
    script = (room / "verdict.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"share": share, "outcome": outcome, "name_of": lambda path: PurePath(path).name}
    rows = _rows(record, measured)
    source = (room / "verdict.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        record=record,
        rows=_affordable(rows[:LINES]),
        lines=len(rows),
        judged=record["deployed"].get(record["worst"]["format"], {}),
        next=NEXT,
        signs=SIGNS,
        colours=COLOURS,
        meanings=MEANINGS,
        full=FULL,
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _rows(record: Mapping[str, Any], measured: Mapping[str, Measured]) -> list[dict[str, Any]]:
    """A line of the table for each record in each format and metric: those that came back first, the largest rise
    first."""
    rows = []
    for one in record["formats"]:
        each = measured[one["metric"]]
        back = {found["id"] for found in one["relapsed"]}
        before, after = each.before_and_after(one["format"])
        floor = each.retrain[FULL].mean(0) if FULL in each.retrain else None
        said = [each.answers.get(at, [""] * len(each.ids)) for at in (FULL, one["format"])]
        for index, name in enumerate(each.ids):
            rows.append(
                {
                    "format": one["format"],
                    "metric": one["metric"],
                    "id": str(name),
                    "subject": "" if each.subjects is None else str(each.subjects[index]),
                    "before": float(before[index]),
                    "after": float(after[index]),
                    "rise": float(after[index] - before[index]),
                    "floor": None if floor is None else float(floor[index]),
                    "back": str(name) in back,
                    "said": [text[index][:ANSWER] for text in said],
                }
            )
    return sorted(rows, key=lambda row: (not row["back"], -row["rise"]))


def _affordable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines, without answers from where their bytes, as they stand in the page, are spent."""
    left, found = ANSWERS, []
    for row in rows:
        left -= sum(len(str(escape(text)).encode()) for text in row["said"])
        found.append(row if left >= 0 else row | {"said": ["", ""]})
    return found
