"""How a job of the workflow that uses a GPU begins."""

from typing import Any

from palimpsest.devices import take_gpus
from palimpsest.logs import start_logging


def start_job(job: Any) -> None:
    """From Snakemake's `snakemake`: logging to the job's file, and as many GPUs as the rule's resource `gpu` says."""
    start_logging(job.log[0])
    take_gpus(job.resources.get("gpu", 0))
