"""Validation, vocabularies, wildcard constraints and the small helpers of the other rule files."""

import gc
import os
import sys
from functools import cache
from pathlib import Path

import snakemake.benchmark
from snakemake.logging import logger

from palimpsest.study import step_code as imports
from palimpsest.quantizers.environments import check_interpreter, check_python
from palimpsest.errors import PalimpsestError, one_line
from palimpsest.study.params import check_params, expanded
from palimpsest.quantizers import make_quantizer
from palimpsest.quantizers.calibration import TEXTS

ROOT = Path(workflow.basedir)

# A graph of thousands of steps holds no garbage: looking for it less often is a tenth of the planning.
gc.set_threshold(200_000, 50, 1000)

# Twice a second, as Snakemake has it, adding up the pages of two processes takes a tenth of a core.
snakemake.benchmark.BENCHMARK_INTERVAL_SHORT = 3


def gpus_said(resources):
    """A number, an expression's text, or None; older versions of Snakemake have the bare value, and an expression for each number."""
    gpu = resources.get("gpu")
    return getattr(gpu, "raw", gpu)


def refuse_lowered_gpus():
    """Snakemake lowers each step's `gpu` to that of the whole run without a word; expressions (`gpu=attempt`) are not compared."""
    whole = gpus_said(workflow.global_resources)
    if whole == 0:
        logger.warning("--resources gpu=0: no step sees a GPU, all run on the CPU.")
        return
    for rule, resources in workflow.resource_settings.overwrite_resources.items():
        wanted = gpus_said(resources)
        if isinstance(wanted, int) and whole is not None and wanted > whole:
            raise PalimpsestError(
                f"{rule} is to have {wanted} GPUs (--set-resources {rule}:gpu={wanted}), and the whole run has {whole} (--resources "
                f"gpu={whole}, on the command line or in a profile): say --resources gpu={wanted} or more."
            )


with one_line():
    check_interpreter(sys.executable)
    check_params(config, ROOT / "workflow/schemas/params.schema.yaml", "params.yaml")
    # an isolated environment that this Python cannot build is told here, not after hours of training
    for settings in config["quantizers"].values():
        if needed := make_quantizer(settings).environment:
            check_python(ROOT / f"workflow/envs/{needed}.txt")
    # a process that Snakemake starts for one step is told what that step has, not what the run has
    if workflow.is_main_process:
        refuse_lowered_gpus()
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


@cache
def code_of(script, *modules):
    """A script and the library files it uses, so that an edit of one reruns just the steps that it concerns."""
    return list(map(repository, imports.code_of(ROOT, script, *modules)))


@cache
def quantizer_named(precision):
    return make_quantizer(config["quantizers"][precision])


def quantizer_of(wildcards):
    return quantizer_named(wildcards.precision)


def code_and_backend_of(script):
    """The same with the backend of the precision's quantizer, and none of the others."""
    return lambda wildcards: code_of(script, type(quantizer_of(wildcards)).__module__)


def calibration_of(wildcards):
    """The calibration text that a quantizer needs, or nothing."""
    text = quantizer_of(wildcards).calibration_text
    return [f"results/calibration/{text}/manifest.json"] if text else []


def gpus_of(wildcards):
    """How many GPUs quantizing takes: most formats are made on the CPU."""
    return int(quantizer_of(wildcards).uses_gpu)


def environment_of(wildcards):
    """What says that the isolated environment of a quantizer is built, or nothing."""
    name = quantizer_of(wildcards).environment
    return [repository(f".environments/{name}/ready.json")] if name else []


localrules:
    all,
    models,
    deploy,
