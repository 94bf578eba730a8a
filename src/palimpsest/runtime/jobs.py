"""How a job of the workflow begins."""

import logging
from typing import Any

from palimpsest.runtime.devices import take_gpus
from palimpsest.runtime.logs import start_logging

log = logging.getLogger(__name__)


def start_job(job: Any) -> None:
    """From Snakemake's `snakemake`: logging to the job's file, and as many GPUs as the rule's resource `gpu` says, and no other in sight; the log names them."""
    start_logging(job.log[0])
    wanted = job.resources.get("gpu", 0)
    if gpus := take_gpus(wanted):
        log.info("GPUs: %s", " ".join(gpus))
    elif not wanted:
        log.info("no GPU in sight: the step's gpu is 0, by its rule, --set-resources or --resources gpu=0")


def key_of(wildcards: Any) -> dict[str, Any]:
    """What a job's artefact is known by, from Snakemake's wildcards: model, seed (a number) and, where its rule has one, precision."""
    key = {"model": wildcards.model, "seed": int(wildcards.seed)}
    precision = wildcards.get("precision")
    return key | {"precision": precision} if precision else key
