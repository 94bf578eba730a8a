"""Collect every score, survival record and manifest of the study into results/audit.json and results/audit.csv."""

from typing import Any

from palimpsest.artefacts import write_json
from palimpsest.logs import start_logging
from palimpsest.report.audit import collect, write_csv
from palimpsest.report.battery import attach
from palimpsest.report.records import read_records

CURES = {"saliency", "adapter", "sharpness"}


def audit(
    scores: list[str],
    weights: list[str],
    models: list[str],
    battery: list[str],
    rules: dict[str, Any],
    study: dict[str, Any],
    json: str,
    csv: str,
) -> None:
    """The headline averages over the methods that the paper calls utility-constrained: a retain loss, bfloat16 weights, no cure."""
    constrained = [
        name
        for name, method in study["methods"].items()
        if method["retain_loss"] and method["weights"] == "bfloat16" and not CURES & set(method)
    ]
    table = collect(read_records(scores), read_records(weights), read_records(models), constrained, rules, dict(study))
    attach(table, read_records(battery))
    write_json(json, table)
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
    )
