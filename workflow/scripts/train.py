"""Train the target (forget + retain text) or the retrained model (retain text alone),
or bring in a published checkpoint."""

from palimpsest.runtime.jobs import start_job
from palimpsest.runtime.startup import import_transformers

if __name__ == "__main__":
    job = start_job(snakemake)
    import_transformers(training=True)

from pathlib import Path
from typing import Any

import torch

from palimpsest.artefacts import Origin, hash_sources, verify_files
from palimpsest.corpus.layout import read_corpus
from palimpsest.models.asking import template_for
from palimpsest.models.checkpoint import check_savable, current_device, load_published, write_model
from palimpsest.models.encoding import padding_token
from palimpsest.models.families import check_taken
from palimpsest.models.scratch import make_base
from palimpsest.models.sequences import corpus_sequences
from palimpsest.training.processes import processes_of
from palimpsest.training.schedule import Schedule
from palimpsest.training.trainer import train
from palimpsest.vocabulary import JOINED


def make_model(
    origin: Origin, settings: dict[str, Any], corpus: Path, base: Path | None, folder: Path, processes: int
) -> None:
    """settings: source, base, scratch, training, prompt and, as refused, what formats do not take; base: the folder of
    the study's own base, if it has one. A published checkpoint is not computed on."""
    verify_files(corpus)
    texts, model, seed, outcome, device = read_corpus(corpus), origin.key["model"], origin.key["seed"], None, "cpu"
    if settings["source"] == "train":
        network, tokenizer = make_base(settings["base"], settings["scratch"], texts, seed, base)
        check_taken(network.config.model_type, settings["refused"], settings["base"])
        check_savable(network, tokenizer, settings["base"])
        splits = ("forget", "retain") if model == "target" else ("retain",)
        training = settings["training"]
        template = template_for(settings, tokenizer, "models.base")
        layout = training["max_length"], training["questions"], template, training.get("pieces", JOINED)
        sequences = [s for split in splits for s in corpus_sequences(texts, split, tokenizer, *layout)]
        schedule = Schedule.from_settings(training, seed, processes)
        outcome, device = train(network, sequences, padding_token(tokenizer), schedule), current_device()
    else:
        network, tokenizer = load_published(settings["source"], f"models.{model}")
        check_taken(network.config.model_type, settings["refused"], settings["source"])
        template_for(settings, tokenizer, f"models.{model}")
    source = settings["base"] if settings["source"] == "train" else settings["source"]
    storage = settings["training"]["storage"] if outcome else "bfloat16"
    made = {"kind": model, "method": None, "storage": storage, "device": device, "training": outcome}
    write_model(folder, network, tokenizer, origin, **made, **hash_sources(source))


if __name__ == "__main__":
    torch.set_num_threads(snakemake.threads)
    make_model(
        job.origin,
        {**job.settings, "refused": snakemake.params.refused},
        Path(snakemake.input.corpus).parent,
        Path(snakemake.input.base[0]).parent if snakemake.input.base else None,
        Path(snakemake.output[0]).parent,
        processes_of(snakemake.resources.get("gpu", 1)),
    )
