"""The pretrained models: what they keep of the forget knowledge, by model, format and denominator, and their bases."""

import json
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import pandas as pd

from evidence import places
from evidence.studies import scores, spread
from evidence.words import whole
from palimpsest.vocabulary import FULL, RETRAIN, TARGET

CALLED_MODELS = {
    TARGET: "target",
    RETRAIN: "retrained",
    "npo_gdr": "NPO_GDR, bfloat16",
    "npo_gdr_stochastic": "NPO_GDR, stochastic rounding",
    "npo_gdr_float32": "NPO_GDR, float32",
    "npo_klr": "NPO_KLR, bfloat16",
    "ga_gdr": "GA_GDR, bfloat16",
    "ga_klr": "GA_KLR, bfloat16",
}
CALLED_FORMATS = {
    FULL: FULL,
    "bnb-fp4": "FP4",
    "bnb-nf4": "NF4",
    "rtn-int4": "int4",
    "rtn-int4-g128": "int4, groups of 128",
    "gptq": "GPTQ",
    "awq": "AWQ",
}
DENOMINATORS = {
    "ratio_bf16": "score / target in bf16, as the paper prints it",
    "ratio_same_precision": "score / target in the same format",
    "bf16": "above the retrained model, target in bf16",
    "same_precision": "above the retrained model, target in the same format",
}
"""Models, formats and `denominator` of STUDY-shares.csv, as the pages of PRETRAINED_STUDIES call them."""


@cache
def _shares(study: str) -> pd.DataFrame:
    """docs/evidence/STUDY-shares.csv, which `python docs/tools/shares.py` prints."""
    return pd.read_csv(places.FOLDER / f"{study}-shares.csv")


def kept_share(study: str, models: str, denominator: str, precision: str) -> str:
    """What some models, joined by ", ", keep of the forget knowledge by a denominator: mean over them and their seeds,
    percent, with the interval over prompts and questions in brackets. Raises LookupError where there is no such row."""
    rows = _shares(study).query("models == @models and denominator == @denominator and precision == @precision")
    if len(rows) != 1:
        raise LookupError(f"docs/evidence/{study}-shares.csv has no {denominator} of {models} in {precision}")
    row = rows.iloc[0]
    return f"{whole(row.share)} ({whole(row.low)} to {whole(row.high)})"


def scores_by_format(study: str, column: str, *left_out: str, formats: Sequence[str] = tuple(CALLED_FORMATS)) -> str:
    """`spread` of a study's models by format, as Markdown, but for some models; what is retained has none of the target
    and the retrained model, which define it."""
    defining = {TARGET, RETRAIN} if column.startswith("retained_") else set()
    models = [model for model in _models(study) if model not in {*defining, *left_out}]
    rows = {CALLED_MODELS[model]: partial(spread, study, column, model) for model in models}
    return _by_format(study, "", rows, formats)


def shares_by_format(
    study: str, means: dict[str, str] | None = None, formats: Sequence[str] = tuple(CALLED_FORMATS)
) -> str:
    """`kept_share` of a study's unlearned models, and of the means that are given (by what they are called), above the
    retrained model and against the target in the same format, as Markdown."""
    rows = {CALLED_MODELS[model]: model for model in _models(study) if model not in (TARGET, RETRAIN)} | (means or {})
    said = {name: partial(kept_share, study, models, "same_precision") for name, models in rows.items()}
    return _by_format(study, "", said, formats)


def shares_by_denominator(study: str, models: str) -> str:
    """`kept_share` of some models by each denominator and format, as Markdown."""
    rows = {said: partial(kept_share, study, models, name) for name, said in DENOMINATORS.items()}
    return _by_format(study, "share that is kept, percent", rows, tuple(CALLED_FORMATS))


def _by_format(study: str, head: str, rows: dict[str, Callable[[str], str]], wanted: Sequence[str]) -> str:
    """A row for each name, of what its function says of a format, in those formats of a study, as Markdown."""
    known = set(scores(study).precision)
    formats = [name for name in wanted if name in known]
    lines = [f"| {head} | {' | '.join(CALLED_FORMATS[name] for name in formats)} |", "|---|" + "---:|" * len(formats)]
    lines += [f"| {name} | {' | '.join(said(at) for at in formats)} |" for name, said in rows.items()]
    return "\n".join(lines)


def _models(study: str) -> list[str]:
    known = set(scores(study).model)
    return [model for model in CALLED_MODELS if model in known]


def pretrained_base(study: str) -> dict[str, Any]:
    """What docs/evidence/pretrained-base.json has of the base of docs/evidence/STUDY.csv."""
    bases = json.loads((places.FOLDER / "pretrained-base.json").read_text(encoding="utf-8"))["bases"]
    return next(base for base in bases if base["study"] == study)
