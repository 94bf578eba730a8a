"""A verdict in words, for a terminal, and as a table of records."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from palimpsest.verdict.controls import Control
from palimpsest.verdict.decide import worst
from palimpsest.verdict.records import (
    BEYOND,
    COLLAPSED,
    FORGETS,
    INCONCLUSIVE,
    NEVER_FORGOT,
    NO_VERDICT,
    RELAPSES,
    FormatVerdict,
    Measured,
    Share,
)
from palimpsest.verdict.relapses import by_subject

COLUMNS = ("metric", "format", "id", "subject", "before", "after", "rise", "retrain_rise", "p", "came_back")
NEXT = {
    FORGETS: "Ship this format, and keep the verdict with the file.",
    RELAPSES: "Do not ship this format: unlearn with float32 or stochastic storage, or ship a format that passes.",
    NEVER_FORGOT: "Do not ship it in any format: unlearn further.",
    COLLAPSED: "Do not ship it: unlearn with a stronger retain loss or a smaller learning rate.",
    INCONCLUSIVE: "Do not ship it yet: ask about more records.",
    NO_VERDICT: "Mend what the reason names, then run the test again.",
}


def render(verdicts: Sequence[FormatVerdict], controls: Sequence[Control], notes: Iterable[str], policy: str) -> str:
    """The answer first, then a line for each format and metric, the records that came back, and what the numbers
    rest on. policy: its SHA-256."""
    decisive = worst(verdicts)
    lines = [
        f"{decisive['verdict']} ({decisive['format']}, {decisive['metric']}): {decisive['reason']}.",
        NEXT[decisive["verdict"]],
        "",
        *(f"{one['format']}, {one['metric']}: {_line(one)}" for one in verdicts),
        "",
    ]
    for one in verdicts:
        lines += _came_back(one)
    lines += [f"Control ({one['metric']}), {one['control']}: {outcome(one)}." for one in controls]
    lines += [*dict.fromkeys(notes), f"Policy: sha256 {policy}."]
    return "\n".join(lines) + "\n"


def share(value: Share) -> str:
    """A percentage, with its interval; of too few records it may have no bound."""
    if value["ci"] is None:
        return f"{value['value']:z.0f}"
    ends = ["no bound" if abs(end) >= BEYOND else f"{end:z.0f}" for end in value["ci"]]
    return f"{value['value']:z.0f} [{ends[0]} to {ends[1]}]"


def outcome(control: Control) -> str:
    """Of a control: as it must be, not run, or failed."""
    if control["passed"] is None:
        return control["found"]
    return f"{control['found']}, as it must be" if control["passed"] else f"FAILED, {control['found']}"


def about_subject(verdicts: Sequence[FormatVerdict], measured: Mapping[str, Measured], subject: str) -> list[str]:
    """One subject's records, a line for each in each format; where subjects are not known, the record of that id.

    measured: by metric.
    """
    lines = []
    for one in verdicts:
        each, back = measured[one["metric"]], {record["id"] for record in one["relapsed"]}
        before, after = each.before_and_after(one["format"])
        for index, name in enumerate(each.ids):
            if subject == str(name if each.subjects is None else each.subjects[index]):
                said = "came back" if str(name) in back else "did not come back"
                moved = f"{before[index]:.3f} to {after[index]:.3f}"
                lines.append(f"{one['format']}, {one['metric']}, record {name}: {moved}; {said}.")
    return lines


def records_csv(verdicts: Sequence[FormatVerdict], measured: Mapping[str, Measured]) -> str:
    """Every record in every format: what the model showed before and after, and whether it came back.

    measured: by metric. A cell that a spreadsheet would take for a formula begins with an apostrophe.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in verdicts:
        each, back = measured[one["metric"]], {record["id"]: record for record in one["relapsed"]}
        before, after = each.before_and_after(one["format"])
        noise = each.rises_of_retrain(one["format"])
        for index, name in enumerate(each.ids):
            record = back.get(str(name))
            p = None if record is None else record["p"]
            numbers = (before[index], after[index], after[index] - before[index])
            subject = "" if each.subjects is None else each.subjects[index]
            writer.writerow(
                [_harmless(word) for word in (one["metric"], one["format"], str(name), str(subject))]
                + [f"{number:.6g}" for number in numbers]
                + ["" if noise is None else f"{noise[index]:.6g}", "" if p is None else f"{p:.3g}"]
                + ["no" if record is None else "yes"]
            )
    return file.getvalue()


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell[:1] in tuple("=+-@\t\r") else cell


def _came_back(one: FormatVerdict) -> list[str]:
    if not one["relapsed"]:
        return []
    names = ", ".join(record["id"] for record in one["relapsed"])
    lines = [f"Came back in {one['format']} ({one['metric']}), the largest rise first: {names}."]
    subjects = by_subject(one["relapsed"])
    if subjects:
        lines += [f"By subject: {', '.join(f'{name} ({count})' for name, count in subjects.items())}."]
    return [*lines, ""]


def _line(one: FormatVerdict) -> str:
    if one["verdict"] == NO_VERDICT:
        return f"{one['verdict']}; {one['reason']}."
    counted = f"{one['records']} records"
    if one["subjects"] is not None:
        counted += f" of {one['subjects']} subjects"
    parts = [
        one["verdict"],
        f"retained {share(one['retained'])} %, {share(one['retained_full'])} % at full precision",
        f"rise {share(one['rise'])} points",
    ]
    if one["detectable"] is not None:
        parts.append(f"a rise of {one['detectable']:.0f} points beyond the margin would have been found")
    if one["utility"] is not None:
        parts.append(f"utility {one['utility']:.0f} %")
    parts.append(f"{len(one['relapsed'])} of {counted} came back")
    if one["records_needed"] is not None:
        parts.append(f"about {one['records_needed']} records would decide")
    return "; ".join(parts) + "."
