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
    folders: dict[str, tuple[Path, Path]],
    outputs: list[str],
) -> None:
    """folders: by precision, what inference wrote for the model, and for the retrained model."""
    for (precision, (mine, retrain)), output in zip(folders.items(), outputs, strict=True):
        for folder in (mine, retrain):
            verify_files(folder)
        files = mine / "responses.jsonl", mine / "logprobs.parquet", retrain / "logprobs.parquet"
        made_by = origin.of([mine / MANIFEST, retrain / MANIFEST], precision=precision)
        asked = read_json(mine / MANIFEST)
        found = score(metric, settings, *files, absent=asked.get("absent", ())) | {"template": asked["template"]}
        write_record(output, made_by, found, ("numpy", "pyarrow", "rouge-score"))


if __name__ == "__main__":
    pairs = zip(snakemake.input.model, snakemake.input.retrain, strict=True)
    score_precisions(
        job.origin,
        snakemake.wildcards.metric,
        job.settings["metric"],
        {Path(mine).parts[-2]: (Path(mine).parent, Path(retrain).parent) for mine, retrain in pairs},
        list(snakemake.output),
    )
