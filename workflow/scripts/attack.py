"""Attack the weights of a model before quantization: relearn for a few steps, or set the smallest weights to zero."""

from palimpsest.runtime.jobs import start_job
from palimpsest.runtime.startup import import_transformers

if __name__ == "__main__":
    job = start_job(snakemake)
    import_transformers(training=True)

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from palimpsest.artefacts import Origin, verify_files
from palimpsest.attacks.weights import attack_weights
from palimpsest.corpus.layout import read_corpus
from palimpsest.corpus.prompts import make_template
from palimpsest.models.checkpoint import current_device, load_model, load_tokenizer, write_model


def attack(origin: Origin, settings: dict[str, Any], corpus: Path, source: Path, folder: Path) -> None:
    """settings: the attack, and what training made of the corpus; source: the folder of the model."""
    for each in (corpus, source):
        verify_files(each)
    network, tokenizer = load_model(source, torch.bfloat16), load_tokenizer(source)
    template = make_template(settings["prompt"])
    outcome = attack_weights(network, tokenizer, read_corpus(corpus), settings, template, origin.key["seed"])
    made = {"kind": "attacked", "attack": settings["attack"], "device": current_device()}
    write_model(folder, network, tokenizer, origin, **made, training=outcome)


if __name__ == "__main__":
    torch.set_num_threads(snakemake.threads)
    name = "+".join(snakemake.wildcards[part] for part in ("model", "attack"))
    attack(
        replace(job.origin, key={"model": name, "seed": job.origin.key["seed"]}),
        job.settings,
        Path(snakemake.input.corpus).parent,
        Path(snakemake.input.model).parent,
        Path(snakemake.output[0]).parent,
    )
