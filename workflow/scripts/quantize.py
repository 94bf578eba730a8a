"""Quantize a checkpoint with the real backend, prove that it happened, and note what it cost."""

from palimpsest.runtime.jobs import start_job

if __name__ == "__main__":
    job = start_job(snakemake)

import os
from pathlib import Path
from typing import Any

from palimpsest.artefacts import (
    Origin,
    atomic_directory,
    read_json,
    read_manifest,
    verify_files,
    write_json,
    write_manifest,
)
from palimpsest.quantizers import make_quantizer, prove
from palimpsest.quantizers.cost import Cost
from palimpsest.quantizers.environments import VARIABLE
from palimpsest.runtime.startup import import_transformers


def quantize(
    origin: Origin, settings: dict[str, Any], checkpoint: Path, calibration: Path | None, folder: Path, cost: str
) -> None:
    """calibration: the folder of the text, if any; cost: the file for what two equal runs differ in."""
    quantizer = make_quantizer(settings)
    for each in [checkpoint] + ([calibration] if calibration else []):
        verify_files(each)
    import_transformers(quantizer.packages)
    measured = Cost()
    with atomic_directory(folder) as draft:
        with measured:
            held = quantizer.quantize(checkpoint, draft, read_json(calibration / "texts.json") if calibration else [])
        facts = read_manifest(calibration) if calibration else None
        write_manifest(
            draft,
            origin,
            packages=(),
            versions=quantizer.versions(),
            device=measured.device,
            cost="/".join(Path(cost).parts[-4:]),
            calibration=facts and {key: facts[key] for key in ("text", "documents", "words", "overlap_forget")},
            proof=prove(quantizer, checkpoint, draft, held),
        )
    write_json(cost, measured.record() | origin.record())


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = str(snakemake.threads)
    if snakemake.input.environment:
        os.environ[VARIABLE] = str(Path(snakemake.input.environment[0]).resolve().parents[1])
    quantize(
        job.origin,
        job.settings["quantizer"],
        Path(snakemake.input.checkpoint).parent,
        Path(snakemake.input.calibration[0]).parent if snakemake.input.calibration else None,
        Path(snakemake.output.manifest).parent,
        snakemake.output.cost,
    )
