"""Quantize a checkpoint with the real backend and prove that it happened."""

import os
from pathlib import Path
from typing import Any

from palimpsest.artefacts import atomic_directory, read_json, verify_files, write_manifest
from palimpsest.logs import start_logging
from palimpsest.quantizers import make_quantizer, prove


def quantize(
    model: str, precision: str, seed: int, settings: dict[str, Any], corpus: Path, checkpoint: Path, folder: Path
) -> None:
    quantizer = make_quantizer(settings)
    verify_files(checkpoint)
    with atomic_directory(folder) as draft:
        quantizer.quantize(checkpoint, draft, read_json(corpus / "raw/retain.json"))
        write_manifest(
            draft,
            inputs=[corpus, checkpoint],
            packages=quantizer.packages,
            model=model,
            precision=precision,
            seed=seed,
            settings={"quantizer": settings},
            proof=prove(quantizer, checkpoint, draft),
        )


if __name__ == "__main__":
    start_logging(snakemake.log[0])
    os.environ["OMP_NUM_THREADS"] = str(snakemake.threads)
    quantize(
        snakemake.wildcards.model,
        snakemake.wildcards.precision,
        int(snakemake.wildcards.seed),
        snakemake.params.quantizer,
        Path(snakemake.input.corpus).parent,
        Path(snakemake.input.checkpoint).parent,
        Path(snakemake.output[0]).parent,
    )
