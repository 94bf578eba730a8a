"""Validation, vocabularies, wildcard constraints and the small helpers of the other rule files."""

import gc
import os
import sys
from functools import cache
from pathlib import Path

import snakemake.benchmark
from snakemake.logging import logger

from palimpsest.study import attacked, run_checks, sources, step_code
from palimpsest.study.run_checks import one_of
from palimpsest.corpus.words import tokenizers_of
from palimpsest.quantizers.environments import check_interpreter, check_python
from palimpsest.errors import one_line
from palimpsest.runtime.benchmark import count_forks
from palimpsest.runtime.kernels import choose_kernels
from palimpsest.runtime.kept import drop, keep, outlast, put_back, put_back_after_a_kill
from palimpsest.runtime.logs import repeat_errors
from palimpsest.runtime.run_end import hold_run, release_run
from palimpsest.runtime.warm import LIBRARIES, start_for_run, stop
from palimpsest.study.deployed import pairs_of
from palimpsest.study.verify import BESIDE
from palimpsest.study.params import check_params, expanded, setting, with_current_names
from palimpsest.quantizers import make_quantizer
from palimpsest.quantizers.calibration import GENERIC, TEXTS
from palimpsest.vocabulary import CHECKPOINT, FULL, PRETRAINED, RETRAIN, TARGET

ROOT = Path(workflow.basedir)
# A graph of thousands of steps holds no garbage: looking for it less often is a tenth of the planning.
gc.set_threshold(200_000, 50, 1000)

# Twice a second, as Snakemake has it, adding up the pages of two processes takes a tenth of a core.
snakemake.benchmark.BENCHMARK_INTERVAL_SHORT = 3
count_forks(snakemake.benchmark.BenchmarkTimer)


with one_line():
    check_interpreter(sys.executable)
    current, renamed = with_current_names(config)
    config.update(current)
    check_params(config, ROOT / "workflow/schemas/params.schema.yaml", "params.yaml")
    choose_kernels(config.get("kernels"))
    run_checks.check_paths(Path.cwd(), [*config["methods"], *config["quantizers"]])
    # an isolated environment that this Python cannot build is told here, not after hours of training
    for settings in config["quantizers"].values():
        if needed := make_quantizer(settings).environment:
            check_python(ROOT / f"workflow/envs/{needed}.txt")
    # a process that Snakemake starts for one step is told what that step has, not what the run has
    if workflow.is_main_process:
        run_checks.check_gpus_of_steps(
            workflow.global_resources,
            workflow.resource_settings.overwrite_resources,
            logger,
        )
        for line in renamed:
            logger.warning(f"params.yaml: {line}")
    config.update(sources.plan(expanded(config), workflow.is_main_process, logger))

SEEDS = config["seeds"]
METHODS = list(config["methods"])
CONTROLS = [] if config["models"][RETRAIN] is None else [RETRAIN]
MODELS = [TARGET, *CONTROLS, *METHODS]
QUANTIZED = [name for name in config["quantizers"] if name != FULL]
PRECISIONS = [FULL, *QUANTIZED]
PAIRS = pairs_of(config)
METRICS = list(config["metrics"])
TOKENIZERS = tokenizers_of(config["metrics"])
ENVIRONMENTS = sorted(file.stem for file in (ROOT / "workflow/envs").glob("*.txt"))


wildcard_constraints:
    seed=one_of(SEEDS),
    model=one_of(MODELS),
    precision=one_of(PRECISIONS),
    metric=one_of(METRICS),
    text=one_of(TEXTS),
    environment=one_of(ENVIRONMENTS),


def repository(path):
    """A path below the repository, which need not be the folder that Snakemake works in."""
    return os.path.relpath(ROOT / path)


@cache
def code_of(script, *modules):
    """A script and the library files it uses, so that an edit of one reruns just the steps that it concerns."""
    return list(map(repository, step_code.code_of(ROOT, script, *modules)))


@cache
def quantizer_named(precision):
    return make_quantizer(config["quantizers"][precision])


def quantizer_of(wildcards):
    return quantizer_named(wildcards.precision)


def code_and_backend_of(script):
    """The same with the backend of the precision's quantizer, and none of the others."""
    return lambda wildcards: code_of(script, type(quantizer_of(wildcards)).__module__)


def of_params(**paths):
    """A rule's `settings`: {name: (path in params.yaml, value)} for each path, such as methods/{model}, in which wildcards are filled in."""
    return lambda wildcards: {
        name: (path, setting(config, path))
        for name, pattern in paths.items()
        for path in [pattern.format(**wildcards)]
    }


def deployed(wildcards):
    """The manifest of what is deployed at a precision: the model itself where nothing quantizes it."""
    full = wildcards.precision not in QUANTIZED
    kind, precision = ("models", "") if full else ("quantized", "{precision}/")
    attack = "" if wildcards.model in MODELS else "attacked-"
    return f"results/{attack}{kind}/{{model}}/seed{{seed}}/{precision}manifest.json"


def calibration_settings(wildcards):
    """Of the text that calibrates: where generic text comes from concerns that alone."""
    paths = {"overlap_at_most": "corpus/checks/overlap_at_most"}
    if wildcards.text == GENERIC:
        paths["generic"] = "calibration/generic"
    return of_params(**paths)(wildcards)


def calibration_of(wildcards):
    """The calibration text that a quantizer needs, or nothing."""
    text = quantizer_of(wildcards).calibration_text
    return [f"results/calibration/{text}/manifest.json"] if text else []


def gpus_of(wildcards):
    """How many GPUs quantizing takes: most formats are made on the CPU."""
    return int(quantizer_of(wildcards).uses_gpu)


def environment_of(wildcards):
    """What says that the isolated environment of a quantizer is built, or nothing; there must be the GPU that it asks for, too."""
    run_checks.check_gpu(quantizer_of(wildcards), wildcards, workflow)
    name = quantizer_of(wildcards).environment
    return [repository(f".environments/{name}/ready.json")] if name else []
