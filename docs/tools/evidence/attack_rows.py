"""Attacks on the models of a study: docs/evidence/STUDY-attacks.csv."""

from functools import cache
from typing import Any

import pandas as pd

from evidence import places
from evidence.studies import RULES
from palimpsest.vocabulary import RETRAIN, TARGET

NO_ATTACK = "none"


@cache
def attacks(study: str) -> pd.DataFrame:
    """The rows of docs/evidence/STUDY-attacks.csv, which `palimpsest tables attacks` prints, and for each model and
    precision one of the attack "none": what the models show without one. Its interval is not computed."""
    rows = pd.read_csv(places.FOLDER / f"{study}-attacks.csv")
    plain = rows.dropna(subset="plain").drop_duplicates(["model", "precision", "metric"]).copy()
    known = plain.set_index(["model", "precision", "metric"]).plain
    plain["attack"] = plain["kind"] = NO_ATTACK
    plain["strength"] = plain["low"] = plain["high"] = float("nan")
    plain["attacked"] = plain.plain
    for column, model in (("floor", RETRAIN), ("ceiling", TARGET)):
        plain[column] = [known[model, row.precision, row.metric] for row in plain.itertuples()]
    plain["excess"] = plain.attacked - plain.floor
    gap = plain.ceiling - plain.floor
    plain["share"] = (100 * plain.excess / gap).where(gap >= RULES["minimum_gap"])
    return pd.concat([plain, rows], ignore_index=True)


def attack(study: str, column: str, name: str, model: str, precision: str) -> float:
    """A column of an attack on a model at a precision, by KnowMem. Raises LookupError where it has no value."""
    rows = attacks(study).query(
        "attack == @name and model == @model and precision == @precision and metric == 'knowmem'"
    )
    if len(rows) != 1 or rows[column].isna().all():
        raise LookupError(f"docs/evidence/{study}-attacks.csv has no {column} of {name} on {model} in {precision}")
    return float(rows[column].iloc[0])


def attack_table(study: str, column: str, models: list[str], precisions: list[str], digits: int = 0) -> str:
    """A column of every attack on some models at some precisions, by KnowMem, as Markdown; `excess` with its interval,
    and "–" where there is no value, as for a share where target and retrained model are alike."""
    rows = attacks(study).query("metric == 'knowmem'")
    cells = {(row.attack, row.model, row.precision): row for row in rows.itertuples()}
    heads = [f"{model}, {precision}" for model in models for precision in precisions]
    lines = [f"| attack | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for row in rows.drop_duplicates("attack").itertuples():
        said = [
            _attack_cell(cells.get((row.attack, model, precision)), column, digits)
            for model in models
            for precision in precisions
        ]
        lines.append(f"| {_attack_name(row)} | {' | '.join(said)} |")
    return "\n".join(lines)


def _attack_cell(row: Any, column: str, digits: int) -> str:
    value = float("nan") if row is None else getattr(row, column)
    if pd.isna(value):
        return "–"
    text = f"{value:.{digits}f}"
    ends = "" if column != "excess" or pd.isna(row.low) else f" ({row.low:.{digits}f} to {row.high:.{digits}f})"
    return text.replace("-0", "0", 1) + ends if float(text) == 0 else text + ends


def _attack_name(row: Any) -> str:
    said = {
        "relearn": f"relearning, {row.strength:g} steps",
        "prune": f"pruning, {row.strength:g} %",
        "prefix": f"the first {row.strength:g} words of the answer",
        "sample": "the best of several samples",
        "paraphrase": "the question in other words",
    }
    return said.get(row.kind, row.attack)


def most_of_attacks(study: str, column: str, model: str, precision: str, kinds: list[str] | None = None) -> float:
    """The largest value of a column over the attacks, or those of some kinds, on a model at a precision."""
    rows = attacks(study).query(
        "attack != @NO_ATTACK and model == @model and precision == @precision and metric == 'knowmem'"
    )
    rows = rows if kinds is None else rows[rows.kind.isin(kinds)]
    if rows[column].isna().all():
        raise LookupError(f"docs/evidence/{study}-attacks.csv has no {column} of {model} in {precision}")
    return float(rows[column].max())
