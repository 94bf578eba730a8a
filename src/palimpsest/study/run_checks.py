"""What the options of a run ask of its steps, checked before any step starts."""

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from logging import Logger
from pathlib import Path
from typing import Any

from palimpsest.errors import PalimpsestError
from palimpsest.quantizers import Quantizer, make_quantizer
from palimpsest.runtime.devices import visible_gpus
from palimpsest.verdict.fixed import RECORD, check_policy
from palimpsest.verdict.gate import leave as leave

LONGEST_PATH = 4095
"""Bytes of a path in Linux."""
REST = 300
"""Of a path: `results/quantized/`, the seed, a draft's name and the names that backends give their files."""


def check_gpus_of_steps(whole: Mapping[str, Any], by_rule: Mapping[str, Mapping[str, Any]], log: Logger) -> None:
    """Raise PalimpsestError for a rule that is to have more GPUs than the run:
    Snakemake lowers its `gpu` without a word.

    whole: --resources of the run; by_rule: --set-resources. Expressions (`gpu=attempt`) are not compared.
    """
    most = _gpus(whole)
    if most == 0:
        log.warning("--resources gpu=0: no step sees a GPU, all run on the CPU.")
        return
    for rule, resources in by_rule.items():
        wanted = _gpus(resources)
        if isinstance(wanted, int) and most is not None and wanted > most:
            raise PalimpsestError(
                f"{rule} is to have {wanted} GPUs (--set-resources {rule}:gpu={wanted}), and the whole run has {most} "
                f"(--resources gpu={most}, on the command line or in a profile): say --resources gpu={wanted} or more."
            )


def uncounted(value: Any) -> Callable[[Any, Any], Any]:
    """A value for a rule's `params` whose change does not rerun the rule: what a function makes of `input` Snakemake
    leaves to the input."""

    def given(wildcards: Any, input: Any) -> Any:
        return value

    return given


def refusals_of(quantizers: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """By the name of each quantizer of params.yaml, which model types it refuses, and why."""
    return {name: dict(make_quantizer(settings).refuses) for name, settings in quantizers.items()}


def check_gpu(quantizer: Quantizer, wildcards: Any, run: Any) -> None:
    """Raise PalimpsestError for a format that is made on a GPU alone, where this machine shows none and is to make it.

    run: Snakemake's `workflow`. A dry run says so and goes on: it may be a look at what another machine is to do. Where
    other machines do the steps (--jobs), and in a process that does one of them, the step itself looks.
    """
    made = Path("results/quantized", wildcards.model, f"seed{wildcards.seed}", wildcards.precision, "manifest.json")
    elsewhere = not run.is_main_process or run.resource_settings.nodes is not None
    if not quantizer.needs_cuda or elsewhere or made.exists():
        return
    if _gpus(run.global_resources) == 0 or not _visible():
        message = (
            f"quantizers.{wildcards.precision} is made on a CUDA GPU alone, and there is none in sight here: run it "
            "where there is one, take the format out of params.yaml, or ask for what needs no GPU (snakemake models)."
        )
        if not run.dryrun:
            raise PalimpsestError(message)
        _warn_once(message)


@cache
def _warn_once(message: str) -> None:
    print(f"Warning: {message}", file=sys.stderr)


@cache
def _visible() -> list[str]:
    return visible_gpus()


def check_paths(folder: Path, names: Iterable[str]) -> None:
    """Raise PalimpsestError where the names of models and formats make paths that the system refuses, in the middle of
    a step.

    folder: that the run works in; names: of models and of formats.
    """
    longest = sorted(map(len, names))[-2:]
    length = len(os.fsencode(folder)) + sum(longest) + REST
    if length > LONGEST_PATH:
        raise PalimpsestError(
            f"{folder} makes paths of up to {length} letters with the names in params.yaml, more than the "
            f"{LONGEST_PATH} that the system takes: move the study to a folder with a shorter path."
        )


def check_verdict(params: Mapping[str, Any], results: Path) -> None:
    """Raise PalimpsestError where the policy of the verdict cannot judge this study, or is another than the one that
    the run began with."""
    if asked := params.get("verdict"):
        policy, formats = Path(asked["policy"]), list(params["quantizers"])
        check_policy("verdict.policy", policy, formats, params["metrics"], results / RECORD)


def one_of(names: Iterable[object]) -> str:
    """The pattern of a wildcard that is one of these names, whose dots stand for dots; without names it matches
    nothing, where Snakemake would take an empty pattern for any."""
    return "|".join(re.escape(str(name)) for name in names) or "(?!)"


def one_of_pairs(pairs: Iterable[tuple[str, str]]) -> str:
    """The pattern of the wildcard `model` where `precision` is a file of that model: it looks ahead in the path."""
    return "|".join(rf"{re.escape(model)}(?=/seed\d+/{re.escape(name)}[/.])" for model, name in pairs) or "(?!)"


def _gpus(resources: Mapping[str, Any]) -> Any:
    """A number, an expression's text, or None;
    older versions of Snakemake have the bare value, and an expression for each number."""
    gpu = resources.get("gpu")
    return getattr(gpu, "raw", gpu)
