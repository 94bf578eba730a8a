"""Methods of a study in two storages: what a format brings back of each."""

from functools import cache
from typing import Any

import pandas as pd

from evidence.measured_pairs import pairs_of
from evidence.studies import scores
from evidence.words import mean_and_range, whole
from palimpsest.vocabulary import BFLOAT16, FLOAT32, UNLEARNED

FINER = "_float32"
"""How the twin of a method is named whose weights were stored in float32 while it unlearned."""
CALLED = {"verbmem": "VerMem", "knowmem": "KnowMem"}


@cache
def twins(study: str, precision: str = "rtn-int4") -> pd.DataFrame:
    """The methods of a study that have a twin with float32 weights: the percent that a format brings back of what each
    had forgotten (`pairs_of`, mean over the seeds in which it had), with bfloat16 weights (`coarse`) and with float32
    ones (`fine`), none where it had forgotten nothing; by what measures it had, and in how many seeds (`coarse_by`,
    `coarse_seeds`, likewise `fine`); and the mean with the least and the greatest seed (`coarse_said`, `fine_said`)."""
    all_rows = scores(study)
    known = list(dict.fromkeys(all_rows[all_rows.kind == UNLEARNED].model))
    columns = ["model", "precision", "recovered_share", "forgotten"]
    found = pd.DataFrame(pairs_of(study), columns=columns).query("precision == @precision")
    rows = []
    for model in known:
        if model + FINER not in known:
            continue
        row: dict[str, Any] = {"method": model}
        for name, suffix in (("coarse", ""), ("fine", FINER)):
            mine = found[found.model == model + suffix]
            row[name] = 100 * mine.recovered_share.mean()
            measures = {measure for each in mine.forgotten for measure in each}
            row[f"{name}_by"] = ", ".join(said for measure, said in CALLED.items() if measure in measures)
            row[f"{name}_seeds"] = len(mine)
            row[f"{name}_said"] = mean_and_range(100 * mine.recovered_share) if len(mine) else "–"
        rows.append(row)
    return pd.DataFrame(rows)


def twins_table(study: str, precision: str = "rtn-int4") -> str:
    """`twins` as Markdown."""
    seeds = scores(study).seed.nunique()
    heads = ["method"]
    for storage in (BFLOAT16, FLOAT32):
        heads += [f"{storage}: forgotten by", "brought back, %"]
    lines = [f"| {' | '.join(heads)} |", "|---|---|---:|---|---:|"]
    for row in twins(study, precision).to_dict("records"):
        cells = []
        for name in ("coarse", "fine"):
            partly = f" in {row[f'{name}_seeds']} of {seeds} seeds" if 0 < row[f"{name}_seeds"] < seeds else ""
            cells += [(row[f"{name}_by"] or "neither") + partly, row[f"{name}_said"]]
        lines.append(f"| {row['method']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def twins_count(study: str, query: str = "index >= 0", precision: str = "rtn-int4") -> int:
    """How many methods of `twins` a pandas query leaves."""
    return len(twins(study, precision).query(query))


def twins_value(study: str, method: str, column: str, precision: str = "rtn-int4") -> str:
    """A number of `twins`. Raises LookupError where there is none."""
    rows = twins(study, precision).query("method == @method")
    if rows[column].isna().all():
        raise LookupError(f"docs/evidence/{study}.csv has no {column} of {method} in {precision}")
    return whole(rows[column].iloc[0])
