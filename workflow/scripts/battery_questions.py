"""Draw the questions of the utility battery from their datasets, once for all models."""

from palimpsest.runtime.jobs import start_job

if __name__ == "__main__":
    job = start_job(snakemake)

from typing import Any

from palimpsest.artefacts import Origin, hash_sources, write_record
from palimpsest.battery.questions import prepare


def draw(origin: Origin, tasks: dict[str, Any], seed: int, output: str) -> None:
    sources = hash_sources(*(task["data"] for task in tasks.values()))
    write_record(output, origin, {"questions": prepare(tasks, seed)} | sources, ("datasets", "lm_eval"))


if __name__ == "__main__":
    draw(job.origin, job.settings["tasks"], job.settings["seed"], snakemake.output[0])
