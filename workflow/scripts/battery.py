"""The utility battery of one model at one precision, reloaded from disk as for inference, through lm-eval."""

from palimpsest.battery import require_lm_eval
from palimpsest.runtime.jobs import start_job
from palimpsest.runtime.startup import import_transformers

if __name__ == "__main__":
    job = start_job(snakemake)
    require_lm_eval()
    import_transformers()

from pathlib import Path
from typing import Any

import torch

from palimpsest.artefacts import Origin, read_record, verify_files, write_record
from palimpsest.battery.harness import measure
from palimpsest.models.checkpoint import current_device, load_tokenizer
from palimpsest.quantizers import make_quantizer

PACKAGES = ("lm_eval", "nltk", "torch", "transformers")


def battery(origin: Origin, settings: dict[str, Any], questions: Path, source: Path, output: str) -> None:
    """settings: quantizer, compute, tasks and batch_size; source: the folder of the model."""
    verify_files(source)
    asked = read_record(questions)["questions"]
    device = current_device()
    network = make_quantizer(settings["quantizer"]).load(source, device, settings["compute"])
    record = {
        "device": device,
        "tasks": measure(network, load_tokenizer(source), asked, settings["tasks"], settings["batch_size"]),
    }
    write_record(output, origin, record, PACKAGES)


if __name__ == "__main__":
    torch.set_num_threads(snakemake.threads)
    battery(
        job.origin,
        job.settings,
        Path(snakemake.input.questions),
        Path(snakemake.input.model).parent,
        snakemake.output[0],
    )
