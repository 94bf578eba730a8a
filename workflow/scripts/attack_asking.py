"""Ask a model at one precision under an attack that changes the question or the decoding, and score its answers."""

from palimpsest.runtime.jobs import start_job
from palimpsest.runtime.startup import import_transformers

if __name__ == "__main__":
    job = start_job(snakemake)
    import_transformers()

from pathlib import Path
from typing import Any

import torch

from palimpsest.artefacts import Origin, atomic_directory, verify_files, write_manifest
from palimpsest.attacks.asking import ask_attacked
from palimpsest.corpus.layout import read_corpus
from palimpsest.corpus.prompts import make_template
from palimpsest.inference.files import write_responses
from palimpsest.models.checkpoint import current_device, load_tokenizer
from palimpsest.quantizers import make_quantizer


def ask(origin: Origin, settings: dict[str, Any], corpus: Path, source: Path, folder: Path) -> None:
    """settings: the attack, the quantizer, inference, prompt and KnowMem's block; source: the folder of the model."""
    for each in (corpus, source):
        verify_files(each)
    device, tokenizer = current_device(), load_tokenizer(source)
    network = make_quantizer(settings["quantizer"]).load(source, device, settings["inference"]["compute"])
    template = make_template(settings["prompt"])
    responses, facts = ask_attacked(network, tokenizer, read_corpus(corpus), settings, template)
    with atomic_directory(folder) as draft:
        write_responses(responses, draft / "responses.jsonl")
        write_manifest(draft, origin, device=device, attack=settings["attack"], **facts)


if __name__ == "__main__":
    torch.set_num_threads(snakemake.threads)
    ask(
        job.origin,
        job.settings,
        Path(snakemake.input.corpus).parent,
        Path(snakemake.input.model).parent,
        Path(snakemake.output[0]).parent,
    )
