"""Quantize a checkpoint with the real backend, prove that it happened, and note what it cost."""

import os
from pathlib import Path
from typing import Any

from palimpsest.artefacts import atomic_directory, read_json, read_manifest, verify_files, write_json, write_manifest
from palimpsest.quantizers import make_quantizer, prove
from palimpsest.quantizers.cost import Cost
from palimpsest.quantizers.environments import VARIABLE
from palimpsest.runtime.jobs import key_of, start_job
from palimpsest.runtime.startup import import_transformers


def quantize(
    key: dict[str, Any],
    settings: dict[str, Any],
    checkpoint: Path,
    calibration: Path | None,
    folder: Path,
    cost: str,
    code: list[str],
) -> None:
    """key: model, seed and precision; calibration: the folder of the text, if any; cost: the file for what two equal runs differ in."""
    quantizer = make_quantizer(settings)
    inputs = [checkpoint] + ([calibration] if calibration else [])
    for each in inputs:
        verify_files(each)
    import_transformers(quantizer.packages)
    measured = Cost()
    with atomic_directory(folder) as draft:
        with measured:
            held = quantizer.quantize(checkpoint, draft, read_json(calibration / "texts.json") if calibration else [])
        facts = read_manifest(calibration) if calibration else None
        write_manifest(
            draft,
            inputs=inputs,
            code=code,
            packages=(),
            versions=quantizer.versions(),
            device=measured.device,
            cost="/".join(Path(cost).parts[-4:]),
            settings={"quantizer": settings},
            calibration=facts and {key: facts[key] for key in ("text", "documents", "words", "overlap_forget")},
            proof=prove(quantizer, checkpoint, draft, held),
            **key,
        )
    write_json(cost, measured.record())


if __name__ == "__main__":
    start_job(snakemake)
    os.environ["OMP_NUM_THREADS"] = str(snakemake.threads)
    if snakemake.input.environment:
        os.environ[VARIABLE] = str(Path(snakemake.input.environment[0]).resolve().parents[1])
    quantize(
        key_of(snakemake.wildcards),
        snakemake.params.quantizer,
        Path(snakemake.input.checkpoint).parent,
        Path(snakemake.input.calibration[0]).parent if snakemake.input.calibration else None,
        Path(snakemake.output.manifest).parent,
        snakemake.output.cost,
        list(snakemake.input.code),
    )
