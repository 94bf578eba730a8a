"""What the options of a run ask of its steps, checked before any step starts."""

from collections.abc import Mapping
from logging import Logger
from typing import Any

from palimpsest.errors import PalimpsestError


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


def _gpus(resources: Mapping[str, Any]) -> Any:
    """A number, an expression's text, or None;
    older versions of Snakemake have the bare value, and an expression for each number."""
    gpu = resources.get("gpu")
    return getattr(gpu, "raw", gpu)
