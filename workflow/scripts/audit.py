"""Collect every score, survival record and manifest of the study into results/audit.json and results/audit.csv."""

from palimpsest.runtime.jobs import start_job

if __name__ == "__main__":
    job = start_job(snakemake)

from pathlib import Path

from palimpsest.artefacts import Origin, files_of, forget_provenance_of_gone, write_json, write_provenance
from palimpsest.audit.battery import attach
from palimpsest.audit.deployed import attach_files
from palimpsest.audit.prompts import check_asked_alike
from palimpsest.audit.records import KINDS, read_records
from palimpsest.audit.table import collect, headline_methods, write_csv


def audit(origin: Origin, records: dict[str, list[str]], json: str, csv: str, survival_gaps: bool = False) -> None:
    """origin: of the whole study. records: paths of the scores, survival records, manifests of models, records of
    the battery, and manifests of files that were quantized elsewhere. survival_gaps: whether survival records may be
    missing, which no study of the workflow lacks."""
    study, made_by = dict(origin.settings), origin.record()
    read = {name: read_records(paths) for name, paths in records.items()}
    constrained = headline_methods(study["methods"])
    check_asked_alike(read["scores"])
    made = read["scores"], read["survival"], read["models"]
    table = collect(*made, constrained, study["audit"], study, survival_gaps=survival_gaps)
    attach(table, read["battery"])
    attach_files(table, read["deployed"])
    write_csv(table, csv)
    made_by["files"] = files_of(json, [csv])
    # as pairs: DVC shows every entry of a mapping as a metric
    pairs = {name: list(made_by[name].items()) for name in ("inputs", "code", "files", "given") if name in made_by}
    write_json(json, table | pairs)
    write_provenance(json, ("numpy",))
    forget_provenance_of_gone(Path(json).parent)


if __name__ == "__main__":
    audit(
        job.origin,
        {name: list(snakemake.input.get(name, [])) for name in KINDS},
        snakemake.output.json,
        snakemake.output.csv,
    )
