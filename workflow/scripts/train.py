"""Train the target (forget + retain text) or the retrained model (retain text alone), or bring in a published checkpoint."""

from pathlib import Path
from typing import Any

from palimpsest.artefacts import hash_sources, verify_files
from palimpsest.runtime.jobs import key_of, start_job
from palimpsest.runtime.startup import import_transformers

if __name__ == "__main__":
    start_job(snakemake)
    import_transformers(training=True)

import torch

from palimpsest.corpus.layout import read_corpus
from palimpsest.models.checkpoint import current_device, load_published, write_model
from palimpsest.models.scratch import make_base
from palimpsest.models.sequences import corpus_sequences
from palimpsest.training.processes import processes_of
from palimpsest.training.schedule import Schedule
from palimpsest.training.trainer import train


def make_model(
    key: dict[str, Any], settings: dict[str, Any], corpus: Path, folder: Path, processes: int, code: list[str]
) -> None:
    """key: model and seed; settings: source, base, scratch and training. A published checkpoint is not computed on."""
    verify_files(corpus)
    texts, model, outcome, device = read_corpus(corpus), key["model"], None, "cpu"
    if settings["source"] == "train":
        network, tokenizer = make_base(settings["base"], settings["scratch"], texts, key["seed"])
        splits = ("forget", "retain") if model == "target" else ("retain",)
        training = dict(settings["training"])
        layout = training.pop("max_length"), training.pop("questions")
        sequences = [s for split in splits for s in corpus_sequences(texts, split, tokenizer, *layout)]
        schedule = Schedule(**training, seed=key["seed"])
        outcome, device = train(network, sequences, tokenizer.pad_token_id, schedule, processes), current_device()
    else:
        network, tokenizer = load_published(settings["source"], f"models.{model}")
    write_model(
        folder,
        network,
        tokenizer,
        inputs=[corpus],
        code=code,
        kind=model,
        method=None,
        weights=settings["training"]["weights"] if outcome else "bfloat16",
        device=device,
        settings=settings,
        training=outcome,
        **hash_sources(settings["base"] if settings["source"] == "train" else settings["source"]),
        **key,
    )


if __name__ == "__main__":
    torch.set_num_threads(snakemake.threads)
    make_model(
        key_of(snakemake.wildcards),
        {name: snakemake.params[name] for name in ("source", "base", "scratch", "training")},
        Path(snakemake.input.corpus).parent,
        Path(snakemake.output[0]).parent,
        processes_of(snakemake.resources.get("gpu", 1)),
        list(snakemake.input.code),
    )
