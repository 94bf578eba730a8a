"""Take a quantized file that exists into the study, as it is, and prove whose it is."""

from palimpsest.runtime.jobs import start_job
from palimpsest.runtime.startup import import_transformers

if __name__ == "__main__":
    job = start_job(snakemake)
    import_transformers()

import os
from pathlib import Path
from typing import Any

from palimpsest.artefacts import Origin, atomic_directory, verify_files, write_json, write_manifest
from palimpsest.quantizers import make_quantizer
from palimpsest.quantizers.cost import Cost
from palimpsest.quantizers.deployed import DEPLOYED
from palimpsest.quantizers.deployed_file import copy_file, examine_file
from palimpsest.vocabulary import TARGET


def take_file(
    origin: Origin, settings: dict[str, Any], checkpoint: Path, target: Path, folder: Path, cost: str
) -> None:
    """settings: of the quantizer, and under "file" the entry of the block `deployed`."""
    quantizer, entry, key = make_quantizer(settings["quantizer"]), settings["file"], origin.key
    for each in (checkpoint, target):
        verify_files(each)
    before = None if key["model"] == TARGET else target
    measured = Cost()
    with atomic_directory(folder) as draft:
        with measured:
            copy_file(entry["path"], checkpoint, draft)
            proof, told = examine_file(quantizer, draft, checkpoint, before, f"{DEPLOYED}.{key['precision']}")
        write_manifest(
            draft,
            origin,
            packages=(),
            versions=quantizer.versions(),
            device=None,
            cost="/".join(Path(cost).parts[-4:]),
            calibration=None,
            proof=proof,
            deployed={"path": str(entry["path"]), **told},
        )
    write_json(cost, measured.record() | origin.record())


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = str(snakemake.threads)
    take_file(
        job.origin,
        job.settings,
        Path(snakemake.input.checkpoint).parent,
        Path(snakemake.input.target).parent,
        Path(snakemake.output.manifest).parent,
        snakemake.output.cost,
    )
