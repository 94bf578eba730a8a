"""Validation, vocabularies, wildcard constraints and the small helpers of the other rule files."""

import os
from pathlib import Path

import snakemake.benchmark

from palimpsest.environments import check_python
from palimpsest.params import check_params, expanded
from palimpsest.quantizers import make_quantizer
from palimpsest.quantizers.calibration import TEXTS

ROOT = Path(workflow.basedir)

# Twice a second, as Snakemake has it, adding up the pages of two processes takes a tenth of a core.
snakemake.benchmark.BENCHMARK_INTERVAL_SHORT = 3

check_params(config, ROOT / "workflow/schemas/params.schema.yaml", "params.yaml")
config.update(expanded(config))

SEEDS = config["seeds"]
METHODS = list(config["methods"])
MODELS = ["target", "retrain", *METHODS]
QUANTIZERS = list(config["quantizers"])
PRECISIONS = ["bf16", *QUANTIZERS]
METRICS = list(config["metrics"])
BATTERY = config.get("battery") or {}
BATTERY_RECORDS = (
    expand(
        "results/battery/{model}/seed{seed}/{precision}.json",
        model=BATTERY["models"] or MODELS,
        seed=SEEDS,
        precision=BATTERY["precisions"] or PRECISIONS,
    )
    if BATTERY
    else []
)
ENVIRONMENTS = sorted(file.stem for file in (ROOT / "workflow/envs").glob("*.txt"))

# An isolated environment that this Python cannot build is told here, not after hours of training.
for settings in config["quantizers"].values():
    if needed := make_quantizer(settings).environment:
        check_python(ROOT / f"workflow/envs/{needed}.txt")


wildcard_constraints:
    seed="|".join(map(str, SEEDS)),
    model="|".join(MODELS),
    precision="|".join(PRECISIONS),
    metric="|".join(METRICS),
    text="|".join(TEXTS),
    environment="|".join(ENVIRONMENTS),


def repository(path):
    """A path below the repository, which need not be the folder that Snakemake works in."""
    return os.path.relpath(ROOT / path)


def library(*modules):
    """The library files that a rule depends on, so that an edit of one reruns just the steps that use it."""
    return [repository(f"src/palimpsest/{module}") for module in modules]


def quantizer_of(wildcards):
    return make_quantizer(config["quantizers"][wildcards.precision])


def backend_code(wildcards):
    """What all quantizers share, and the modules of this one's family, such as gguf.py and gguf_blocks.py."""
    shared = ("base", "calibration", "levels", "packing", "proof")
    family = (
        type(quantizer_of(wildcards)).__module__.rpartition(".")[2].partition("_")[0]
    )
    files = sorted((ROOT / "src/palimpsest/quantizers").glob(f"{family}*.py"))
    return library(
        *(f"quantizers/{name}.py" for name in shared),
        *(f"quantizers/{file.name}" for file in files),
    )


def calibration_of(wildcards):
    """The calibration text that a quantizer needs, or nothing."""
    text = quantizer_of(wildcards).calibration_text
    return [f"results/calibration/{text}/manifest.json"] if text else []


def environment_of(wildcards):
    """What says that the isolated environment of a quantizer is built, or nothing."""
    name = quantizer_of(wildcards).environment
    return [repository(f".environments/{name}/ready.json")] if name else []


localrules:
    all,
    models,
    deploy,
