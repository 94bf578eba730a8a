"""Attack the dequantized weights of a quantized model, and keep the outcome in float32, as it would be run."""

from palimpsest.runtime.jobs import start_job
from palimpsest.runtime.startup import import_transformers

if __name__ == "__main__":
    job = start_job(snakemake)
    import_transformers(training=True)

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from palimpsest.artefacts import Origin, atomic_directory, verify_files, write_manifest
from palimpsest.attacks.weights import attack_weights
from palimpsest.corpus.layout import read_corpus
from palimpsest.corpus.prompts import make_template
from palimpsest.models.checkpoint import current_device, load_tokenizer
from palimpsest.quantizers import make_quantizer


def attack(origin: Origin, settings: dict[str, Any], corpus: Path, source: Path, folder: Path) -> None:
    """settings: the attack, the quantizer, and what training made of the corpus; source: the quantized folder."""
    for each in (corpus, source):
        verify_files(each)
    quantizer = make_quantizer(settings["quantizer"])
    network, tokenizer = quantizer.load(source, current_device(), "float32"), load_tokenizer(source)
    template = make_template(settings["prompt"])
    outcome = attack_weights(network, tokenizer, read_corpus(corpus), settings, template, origin.key["seed"])
    made = {"kind": "attacked", "attack": settings["attack"], "device": current_device()}
    with atomic_directory(folder) as draft:
        network.float().save_pretrained(draft, max_shard_size="5GB")
        tokenizer.save_pretrained(draft)
        write_manifest(draft, origin, parameters=network.num_parameters(), **made, training=outcome)


if __name__ == "__main__":
    torch.set_num_threads(snakemake.threads)
    name = "+".join(snakemake.wildcards[part] for part in ("model", "precision", "attack"))
    attack(
        replace(job.origin, key={"model": name, "seed": job.origin.key["seed"]}),
        job.settings,
        Path(snakemake.input.corpus).parent,
        Path(snakemake.input.model).parent,
        Path(snakemake.output[0]).parent,
    )
