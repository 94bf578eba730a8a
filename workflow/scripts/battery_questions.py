"""Draw the questions of the utility battery from their datasets, once for all models."""

from typing import Any

from palimpsest.artefacts import write_json
from palimpsest.battery.questions import prepare
from palimpsest.logs import start_logging


def draw(tasks: dict[str, Any], seed: int, output: str) -> None:
    write_json(output, {"settings": {"tasks": tasks, "seed": seed}, "questions": prepare(tasks, seed)})


if __name__ == "__main__":
    start_logging(snakemake.log[0])
    draw(snakemake.params.tasks, snakemake.params.seed, snakemake.output[0])
