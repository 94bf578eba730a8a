"""How much of an unlearned model's update survives a quantizer, from the four folders of weights."""

from palimpsest.runtime.jobs import start_job

if __name__ == "__main__":
    job = start_job(snakemake)

from pathlib import Path
from typing import Any

from palimpsest.artefacts import Origin, verify_files, write_record
from palimpsest.quantizers import make_quantizer
from palimpsest.survival.measure import measure_survival, without_reader


def measure(origin: Origin, quantizer: dict[str, Any], folders: list[Path], output: str) -> None:
    """folders: target, unlearned, quantized target, quantized unlearned."""
    for folder in folders:
        verify_files(folder)
    made = make_quantizer(quantizer)
    unread = [why for folder in folders[2:] if (why := made.why_not_proven(folder))]
    found = without_reader(unread[0]) if unread else measure_survival(*folders, made)
    write_record(output, origin, found, ("numpy",))


if __name__ == "__main__":
    names = ("target", "unlearned", "quantized_target", "quantized_unlearned")
    folders = [Path(snakemake.input[name]).parent for name in names]
    measure(job.origin, job.settings["quantizer"], folders, snakemake.output[0])
