"""Score one metric of one model at every precision, from what inference wrote."""

from palimpsest.runtime.jobs import start_job

if __name__ == "__main__":
    job = start_job(snakemake)

from pathlib import Path
from typing import Any

from palimpsest.artefacts import MANIFEST, Origin, read_json, verify_files, write_record
from palimpsest.metrics import score


def score_precisions(
    origin: Origin,
    metric: str,
    settings: dict[str, Any],
    folders: dict[str, list[Path]],
    outputs: list[str],
) -> None:
    """folders: by precision, what inference wrote for the model, and for the retrained model if there is one."""
    for (precision, (mine, *control)), output in zip(folders.items(), outputs, strict=True):
        for folder in (mine, *control):
            verify_files(folder)
        reference = control[0] / "logprobs.parquet" if control else None
        files = mine / "responses.jsonl", mine / "logprobs.parquet", reference
        made_by = origin.of([folder / MANIFEST for folder in (mine, *control)], precision=precision)
        asked = read_json(mine / MANIFEST)
        found = score(metric, settings, *files, absent=asked.get("absent", ())) | {"template": asked["template"]}
        write_record(output, made_by, found, ("numpy", "pyarrow", "rouge-score"))


if __name__ == "__main__":
    by_precision: dict[str, list[Path]] = {}
    for manifest in map(Path, [*snakemake.input.model, *snakemake.input.retrain]):
        by_precision.setdefault(manifest.parts[-2], []).append(manifest.parent)
    score_precisions(
        job.origin,
        snakemake.wildcards.metric,
        job.settings["metric"],
        by_precision,
        list(snakemake.output),
    )
