"""Validation, vocabularies, wildcard constraints and the small helpers of the other rule files."""

import os
from pathlib import Path

from palimpsest.params import check_params

ROOT = Path(workflow.basedir)

check_params(config, ROOT / "workflow/schemas/params.schema.yaml", "params.yaml")

SEEDS = config["seeds"]
METHODS = list(config["methods"])
MODELS = ["target", "retrain", *METHODS]
QUANTIZERS = list(config["quantizers"])
PRECISIONS = ["bf16", *QUANTIZERS]
METRICS = list(config["metrics"])


wildcard_constraints:
    seed="|".join(map(str, SEEDS)),
    model="|".join(MODELS),
    precision="|".join(PRECISIONS),
    metric="|".join(METRICS),


def library(*modules):
    """The library files that a rule depends on, so that an edit of one reruns just the steps that use it."""
    source = Path(os.path.relpath(ROOT / "src/palimpsest"))
    return [str(source / module) for module in modules]


localrules:
    all,
    models,
    deploy,
