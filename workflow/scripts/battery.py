"""The utility battery of one model at one precision, reloaded from disk as for inference, through lm-eval."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from palimpsest.artefacts import MANIFEST, provenance, read_json, verify_files, write_json
from palimpsest.battery import require_lm_eval
from palimpsest.quantizers import make_quantizer
from palimpsest.runtime.jobs import key_of, start_job
from palimpsest.runtime.startup import import_transformers

if __name__ == "__main__":
    start_job(snakemake)
    require_lm_eval()
    import_transformers()

import torch

from palimpsest.battery.harness import measure
from palimpsest.models.checkpoint import current_device, load_tokenizer

PACKAGES = ("lm_eval", "nltk", "torch", "transformers")


def battery(
    key: dict[str, Any],
    quantizer: dict[str, Any],
    compute: str,
    tasks: dict[str, Any],
    batch_size: int,
    questions: Path,
    source: Path,
    output: str,
    code: list[str],
) -> None:
    """key: model, seed and precision; source: the folder of the model."""
    verify_files(source)
    asked = read_json(questions)["questions"]
    device = current_device()
    network = make_quantizer(quantizer).load(source, device, compute)
    record = {
        "settings": {"quantizer": quantizer, "compute": compute, "tasks": tasks, "batch_size": batch_size},
        "versions": {package: version(package) for package in PACKAGES},
        "device": device,
        "tasks": measure(network, load_tokenizer(source), asked, tasks, batch_size),
    }
    write_json(output, key | record | provenance([questions, source / MANIFEST], code))


if __name__ == "__main__":
    torch.set_num_threads(snakemake.threads)
    battery(
        key_of(snakemake.wildcards),
        snakemake.params.quantizer,
        snakemake.params.compute,
        snakemake.params.tasks,
        snakemake.params.batch_size,
        Path(snakemake.input.questions),
        Path(snakemake.input.model).parent,
        snakemake.output[0],
        list(snakemake.input.code),
    )
