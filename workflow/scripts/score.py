"""Score one metric of one model at every precision, from what inference wrote."""

from pathlib import Path
from typing import Any

from palimpsest.artefacts import MANIFEST, provenance, verify_files, write_json
from palimpsest.metrics import score
from palimpsest.runtime.jobs import key_of
from palimpsest.runtime.logs import start_logging


def score_precisions(
    key: dict[str, Any],
    metric: str,
    settings: dict[str, Any],
    precisions: list[str],
    folders: list[tuple[Path, Path]],
    outputs: list[str],
    code: list[str],
) -> None:
    """key: model and seed; folders: what inference wrote for the model, and for the retrained model, at each precision."""
    for precision, (mine, retrain), output in zip(precisions, folders, outputs, strict=True):
        for folder in (mine, retrain):
            verify_files(folder)
        files = mine / "responses.jsonl", mine / "logprobs.parquet", retrain / "logprobs.parquet"
        made_by = provenance([mine / MANIFEST, retrain / MANIFEST], code)
        write_json(output, key | {"precision": precision} | score(metric, settings, *files) | made_by)


if __name__ == "__main__":
    start_logging(snakemake.log[0])
    inputs = snakemake.input
    score_precisions(
        key_of(snakemake.wildcards),
        snakemake.wildcards.metric,
        snakemake.params.settings,
        snakemake.params.precisions,
        [(Path(mine).parent, Path(its).parent) for mine, its in zip(inputs.model, inputs.retrain, strict=True)],
        list(snakemake.output),
        list(inputs.code),
    )
