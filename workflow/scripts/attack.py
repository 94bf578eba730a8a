"""Attack the weights of a model, or those of a quantized one, dequantized: relearn, or set the smallest to zero.

What is attacked before quantization is kept in bfloat16, as every model that is quantized; after it in float32, as it
would be run.
"""

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
from palimpsest.models.checkpoint import current_device, load_model, load_tokenizer, store_weights
from palimpsest.quantizers import make_quantizer


def attack(origin: Origin, settings: dict[str, Any], corpus: Path, source: Path, folder: Path) -> None:
    """settings: the attack, what training made of the corpus, and the quantizer of a quantized model; source: the
    folder of the model."""
    for each in (corpus, source):
        verify_files(each)
    tokenizer, device = load_tokenizer(source), current_device()
    if "quantizer" in settings:
        network, kept = make_quantizer(settings["quantizer"]).load(source, device, "float32"), torch.float32
    else:
        network, kept = load_model(source, torch.bfloat16), torch.bfloat16
    template = make_template(settings["prompt"])
    outcome = attack_weights(network, tokenizer, read_corpus(corpus), settings, template, origin.key["seed"])
    made = {"kind": "attacked", "attack": settings["attack"], "device": device}
    with atomic_directory(folder) as draft:
        store_weights(network, kept)
        network.save_pretrained(draft, max_shard_size="5GB")
        tokenizer.save_pretrained(draft)
        write_manifest(draft, origin, parameters=network.num_parameters(), **made, training=outcome)


if __name__ == "__main__":
    torch.set_num_threads(snakemake.threads)
    parts = (snakemake.wildcards.get(part) for part in ("model", "precision", "attack"))
    attack(
        replace(job.origin, key={"model": "+".join(filter(None, parts)), "seed": job.origin.key["seed"]}),
        job.settings,
        Path(snakemake.input.corpus).parent,
        Path(snakemake.input.model).parent,
        Path(snakemake.output[0]).parent,
    )
