"""Write results/report.html from the audit, the charts and a few responses, and note what was written."""

from palimpsest.runtime.jobs import start_job

if __name__ == "__main__":
    job = start_job(snakemake)

from itertools import product
from pathlib import Path
from typing import Any

from palimpsest.artefacts import Origin, check_files, files_of, read_record, verify_files, write_json
from palimpsest.report.known_answers import compare
from palimpsest.report.page import render
from palimpsest.report.samples import select_samples
from palimpsest.tables.formats import files as rows_of_files


def page(
    origin: Origin,
    show: dict[str, Any],
    inputs: dict[str, str],
    inferred: dict[tuple[str, str], Path],
    files: list[list[str]],
    outputs: dict[str, str],
) -> None:
    """show: the block `report`, and "tokenizers", ROUGE's by metric; inputs: the audit, and record and path of each
    chart; inferred: the folder of what each (model, precision) answered; files: manifests and costs of each quantized
    file, in the same order; outputs: the page and its record."""
    method, precision = show["method"], show["precision"]
    voices = {
        "target, bf16": ("target", "bf16"),
        f"{method}, bf16": (method, "bf16"),
        f"{method}, {precision}": (method, precision),
        "retrain, bf16": ("retrain", "bf16"),
    }
    for voice in voices.values():
        verify_files(inferred[voice])
    check_files(inputs["figures"])
    answers = {label: inferred[voice] / "responses.jsonl" for label, voice in voices.items()}
    samples = [
        sample
        for task, metric in (("verbmem", "verbmem"), ("knowmem_forget", "knowmem"))
        for sample in select_samples(answers, "target, bf16", task, show["samples"], show["tokenizers"][metric])
    ]
    table = read_record(inputs["audit"])
    known = compare(table, show["known_answers"]) if "known_answers" in show else None
    quantized = rows_of_files(*([read_record(path) for path in paths] for paths in files))
    charts = {name: inputs[name] for name in ("retained", "survival")}
    render(table, charts, samples, outputs["page"], known, quantized)
    write_json(outputs["record"], origin.record() | {"files": files_of(outputs["record"], [outputs["page"]])})


if __name__ == "__main__":
    voices = product(snakemake.params.models, snakemake.params.precisions)
    page(
        job.origin,
        job.settings["show"] | {"tokenizers": snakemake.params.tokenizers},
        {name: snakemake.input[name] for name in ("audit", "figures", "retained", "survival")},
        dict(zip(voices, (Path(manifest).parent for manifest in snakemake.input.inferred), strict=True)),
        [list(snakemake.input.manifests), list(snakemake.input.costs)],
        dict(snakemake.output.items()),
    )
