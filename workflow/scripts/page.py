"""Write results/report.html from the audit, the charts and a few responses."""

from palimpsest.runtime.jobs import start_job

if __name__ == "__main__":
    start_job(snakemake)

from itertools import product
from pathlib import Path
from typing import Any

from palimpsest.artefacts import read_record, verify_files
from palimpsest.report.known_answers import compare
from palimpsest.report.page import render
from palimpsest.report.samples import select_samples
from palimpsest.tables.formats import files as rows_of_files


def page(
    audit: str,
    figures: list[str],
    inferred: dict[tuple[str, str], Path],
    manifests: list[str],
    costs: list[str],
    show: dict[str, Any],
    output: str,
) -> None:
    """inferred: the folder of what each (model, precision) answered; manifests and costs:
    of each quantized file, in the same order; show: the block `report`, and "tokenizers", ROUGE's by metric."""
    method, precision = show["method"], show["precision"]
    voices = {
        "target, bf16": ("target", "bf16"),
        f"{method}, bf16": (method, "bf16"),
        f"{method}, {precision}": (method, precision),
        "retrain, bf16": ("retrain", "bf16"),
    }
    for voice in voices.values():
        verify_files(inferred[voice])
    files = {label: inferred[voice] / "responses.jsonl" for label, voice in voices.items()}
    samples = [
        sample
        for task, metric in (("verbmem", "verbmem"), ("knowmem_forget", "knowmem"))
        for sample in select_samples(files, "target, bf16", task, show["samples"], show["tokenizers"][metric])
    ]
    table = read_record(audit)
    known = compare(table, show["known_answers"]) if "known_answers" in show else None
    quantized = rows_of_files(*([read_record(path) for path in paths] for paths in (manifests, costs)))
    render(table, dict(zip(("retained", "survival"), figures, strict=True)), samples, output, known, quantized)


if __name__ == "__main__":
    voices = product(snakemake.params.models, snakemake.params.precisions)
    page(
        snakemake.input.audit,
        list(snakemake.input.figures),
        dict(zip(voices, (Path(manifest).parent for manifest in snakemake.input.inferred), strict=True)),
        list(snakemake.input.manifests),
        list(snakemake.input.costs),
        snakemake.params.show,
        snakemake.output[0],
    )
