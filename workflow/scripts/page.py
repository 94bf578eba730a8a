"""Write results/report.html from the audit, the charts and a few responses, and note what was written."""

from palimpsest.runtime.jobs import start_job

if __name__ == "__main__":
    job = start_job(snakemake)

from itertools import product
from pathlib import Path
from typing import Any

from palimpsest.artefacts import Origin, check_files, files_of, read_provenance, read_record, verify_files, write_record
from palimpsest.report.known_answers import compare
from palimpsest.report.page import render
from palimpsest.report.samples import select_samples
from palimpsest.tables.formats import files as rows_of_files
from palimpsest.verdict.gate import read_verdicts


def page(
    origin: Origin,
    show: dict[str, Any],
    inputs: dict[str, str],
    inferred: dict[tuple[str, str], Path],
    files: dict[str, list[str]],
    outputs: dict[str, str],
) -> None:
    """show: the block `report`, and "tokenizers", ROUGE's by metric; inputs: the audit, and record and path of each
    chart; inferred: the folder of what each (model, precision) answered; files: manifests and costs of each quantized
    file, in the same order, manifests of models and of verdicts, the record of attacks; outputs: page and record."""
    method, precision = show["method"], show["precision"]
    voices = {
        "target, bf16": ("target", "bf16"),
        f"{method}, bf16": (method, "bf16"),
        f"{method}, {precision}": (method, precision),
        "retrain, bf16": ("retrain", "bf16"),
    }
    voices = {label: voice for label, voice in voices.items() if voice in inferred}  # there may be no retrained model
    for voice in voices.values():
        verify_files(inferred[voice])
    check_files(inputs["figures"])
    answers = {label: inferred[voice] / "responses.jsonl" for label, voice in voices.items()}
    table = read_record(inputs["audit"])
    samples = [
        sample
        for task, metric in (("verbmem", "verbmem"), ("knowmem_forget", "knowmem"))
        if table["rows"][0]["metrics"][metric]["n"]
        for sample in select_samples(answers, "target, bf16", task, show["samples"], show["tokenizers"][metric])
    ]
    known = compare(table, show["known_answers"]) if "known_answers" in show else None
    quantized = rows_of_files(*([read_record(path) for path in files[kind]] for kind in ("manifests", "costs")))
    charts = {name: inputs[name] for name in ("retained", "survival")}
    table["settings"] |= {"report": {key: show[key] for key in show if key != "tokenizers"}}
    verdicts = read_verdicts([Path(manifest).parent for manifest in files["verdicts"]])
    attacks = read_record(files["attacks"][0]) if files["attacks"] else None
    made_with = read_provenance(files["models"])
    render(table, charts, samples, outputs["page"], known, quantized, made_with, verdicts, attacks)
    write_record(outputs["record"], origin, {"files": files_of(outputs["record"], [outputs["page"]])}, ("jinja2",))


if __name__ == "__main__":
    voices = product(snakemake.params.models, snakemake.params.precisions)
    page(
        job.origin,
        job.settings["show"] | {"tokenizers": snakemake.params.tokenizers},
        {name: snakemake.input[name] for name in ("audit", "figures", "retained", "survival")},
        dict(zip(voices, (Path(manifest).parent for manifest in snakemake.input.inferred), strict=True)),
        {kind: list(snakemake.input.get(kind, [])) for kind in ("manifests", "costs", "models", "verdicts", "attacks")},
        dict(snakemake.output.items()),
    )
