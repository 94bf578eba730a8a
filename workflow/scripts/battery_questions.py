"""Draw the questions of the utility battery from their datasets, once for all models."""

from typing import Any

from palimpsest.artefacts import hash_sources, provenance, write_json
from palimpsest.battery.questions import prepare
from palimpsest.runtime.logs import start_logging


def draw(tasks: dict[str, Any], seed: int, output: str, code: list[str]) -> None:
    record = {"settings": {"tasks": tasks, "seed": seed}, "questions": prepare(tasks, seed)}
    sources = hash_sources(*(task["data"] for task in tasks.values()))
    write_json(output, record | sources | provenance([], code))


if __name__ == "__main__":
    start_logging(snakemake.log[0])
    draw(snakemake.params.tasks, snakemake.params.seed, snakemake.output[0], list(snakemake.input.code))
