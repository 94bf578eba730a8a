"""How a job of the workflow that uses a GPU begins."""

import logging
from typing import Any

from palimpsest.devices import take_gpus
from palimpsest.logs import start_logging

log = logging.getLogger(__name__)


def start_job(job: Any) -> None:
    """From Snakemake's `snakemake`: logging to the job's file, and as many GPUs as the rule's resource `gpu` says; the log names them."""
    start_logging(job.log[0])
    if gpus := take_gpus(job.resources.get("gpu", 0)):
        log.info("GPUs: %s", " ".join(gpus))
