"""The scores of a study: docs/evidence/STUDY.csv, which is the audit.csv of its run."""

from functools import cache

import pandas as pd

from evidence import places
from evidence.words import mean_and_range, whole
from palimpsest.vocabulary import FULL, HEADLINE, TARGET, UNLEARNED

RULES = {"forgotten_below": 50.0, "negligible": 10.0, "minimum_gap": 5.0}
"""`rules` of every study's params.yaml: what counts as forgotten in bf16, percent; what counts as nothing, points; how
far target and retrained model must be apart for a share, points."""


@cache
def scores(study: str) -> pd.DataFrame:
    """The rows of docs/evidence/STUDY.csv: a model, seed and precision each."""
    return pd.read_csv(places.FOLDER / f"{study}.csv")


def score(study: str, column: str, model: str, precision: str, seed: int | None = None) -> float:
    """One column of a model at a precision, mean over seeds. Raises LookupError where there is no such row."""
    rows = scores(study).query("model == @model and precision == @precision")
    rows = rows if seed is None else rows[rows.seed == seed]
    if rows.empty or rows[column].isna().all():
        raise LookupError(f"docs/evidence/{study}.csv has no {column} of {model} in {precision}")
    return float(rows[column].mean())


def retained(study: str, model: str, precision: str, seed: int | None = None) -> float:
    """Percent of what the equally quantized target knows above the retrained model, mean of VerMem and KnowMem."""
    return score(study, f"retained_{HEADLINE}_mean", model, precision, seed)


def mean_retained(study: str, models: list[str], precision: str) -> str:
    """Retained knowledge of some models of a study at a precision, mean over models and seeds, percent."""
    return f"{sum(retained(study, model, precision) for model in models) / len(models):.0f}"


def spread(study: str, column: str, model: str, precision: str) -> str:
    """One column of a model at a precision: the mean over its seeds and, in brackets, the least and the greatest seed
    where they differ once rounded."""
    score(study, column, model, precision)  # there is such a row
    return mean_and_range(scores(study).query("model == @model and precision == @precision")[column])


def target_keeps(study: str, metric: str, precision: str) -> str:
    """Of a score of the target in bf16: what it has at a precision, percent, in the seed that keeps least."""
    rows = scores(study)
    known = rows[rows.kind == TARGET].set_index(["precision", "seed"])[metric]
    return whole(100 * (known[precision] / known[FULL]).min())


def retained_table(study: str, *columns: str) -> str:
    """Retained knowledge of every unlearned model of a study, mean over its seeds, at some precisions, as Markdown."""
    rows = scores(study)
    rows = rows[rows.kind == UNLEARNED]
    means = rows.groupby(["model", "precision"], sort=False)[f"retained_{HEADLINE}_mean"].mean()
    storage = rows.groupby("model").weights.first()
    lines = [f"| method | weights | {' | '.join(columns)} |", "|---|---|" + "---:|" * len(columns)]
    for model in dict.fromkeys(rows.model):
        cells = [whole(means[model, name]) for name in columns]
        lines.append(f"| {model} | {storage[model]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def metric_table(study: str, column: str, *precisions: str, digits: int = 1) -> str:
    """A column of every model of a study, mean over its seeds, at some precisions, as Markdown."""
    rows = scores(study)
    lines = [f"| model | weights | {' | '.join(precisions)} |", "|---|---|" + "---:|" * len(precisions)]
    for model, weights in dict(zip(rows.model, rows.weights, strict=True)).items():
        cells = [f"{score(study, column, model, precision):.{digits}f}" for precision in precisions]
        lines.append(f"| {model} | {weights} | {' | '.join(cells)} |")
    return "\n".join(lines)
