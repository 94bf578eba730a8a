"""Collect every score, survival record and manifest of the study into results/audit.json and results/audit.csv."""

from typing import Any

from palimpsest.artefacts import provenance, write_json
from palimpsest.audit.battery import attach
from palimpsest.audit.records import read_records
from palimpsest.audit.table import collect, headline_methods, write_csv
from palimpsest.runtime.logs import start_logging


def audit(
    scores: list[str],
    weights: list[str],
    models: list[str],
    battery: list[str],
    rules: dict[str, Any],
    study: dict[str, Any],
    json: str,
    csv: str,
    code: list[str],
) -> None:
    constrained = headline_methods(study["methods"])
    table = collect(read_records(scores), read_records(weights), read_records(models), constrained, rules, dict(study))
    attach(table, read_records(battery))
    made_by = provenance([*scores, *weights, *models, *battery], code)
    # as pairs: DVC shows every entry of a mapping as a metric
    write_json(json, table | {name: list(hashes.items()) for name, hashes in made_by.items()})
    write_csv(table, csv)


if __name__ == "__main__":
    start_logging(snakemake.log[0])
    inputs = snakemake.input
    audit(
        list(inputs.scores),
        list(inputs.weights),
        list(inputs.models),
        list(inputs.battery),
        snakemake.params.rules,
        snakemake.params.study,
        snakemake.output.json,
        snakemake.output.csv,
        list(inputs.code),
    )
