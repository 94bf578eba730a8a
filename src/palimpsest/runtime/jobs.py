"""How a job of the workflow begins: where it runs, where its messages go, which GPU it has,
and what its rule hands it."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palimpsest.artefacts import Origin, check_record, read_json
from palimpsest.runtime import curves
from palimpsest.runtime.devices import take_gpus, visible_gpus
from palimpsest.runtime.logs import start_logging
from palimpsest.runtime.run_end import end_with_run
from palimpsest.runtime.warm import hand_over

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What a rule says of one step. settings: the values of params.yaml by the name that the rule gives each;
    origin: for its record."""

    settings: dict[str, Any]
    origin: Origin


def start_job(job: Any) -> Job:
    """From Snakemake's `snakemake`: the step's settings and origin.

    The step goes on in a process forked from the warm one (palimpsest.runtime.warm) where there is one, and ends with
    its run, however that ends (palimpsest.runtime.run_end). Its messages go to the rule's log. It takes as many GPUs as
    the rule's resource `gpu` says, and no other is in sight; the log names them. To be called before heavy imports.

    Raises PalimpsestError for a record among the inputs that was edited, or is another artefact's (`records_of`).
    """
    end_with_run()
    said = job.resources.get("gpu")
    wanted = said or 0
    if job.threads == 1 and not (wanted and visible_gpus()):
        hand_over(early=said is not None)  # a rule that says so computes with a model
    start_logging(job.log[0])
    if gpus := take_gpus(wanted):
        log.info("GPUs: %s", " ".join(gpus))
    elif said == 0:
        log.info("no GPU in sight: the step's gpu is 0, by its rule, --set-resources or --resources gpu=0")
    settings = job.params.get("settings", {})
    origin = Origin(
        key=key_of(job.wildcards),
        settings={path: value for path, value in settings.values()},
        inputs=records_of(job.input),
        code=list(job.input.get("code", [])),
    )
    curves.name_run(job.rule, origin.key)
    return Job({name: value for name, (_, value) in settings.items()}, origin)


def records_of(files: Iterable[str]) -> list[str]:
    """The manifests and records among a job's input files; raises PalimpsestError for one that is not what its step
    wrote, or not of the model, seed and precision that its path says."""
    records = [file for file in files if Path(file).parts[0] == "results" and file.endswith(".json")]
    for file in records:
        check_record(file, read_json(file))
    return records


def key_of(wildcards: Any) -> dict[str, Any]:
    """What a job's artefact is known by, from Snakemake's wildcards:
    model, seed (a number) and precision, of those that its rule has."""
    key = {name: wildcards.get(name) for name in ("model", "seed", "precision") if wildcards.get(name)}
    return key | {"seed": int(key["seed"])} if "seed" in key else key
