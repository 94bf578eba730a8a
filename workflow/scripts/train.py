"""Train the target (forget + retain text) or the retrained model (retain text alone), or bring in a published checkpoint."""

from pathlib import Path
from typing import Any

from palimpsest.artefacts import verify_files
from palimpsest.jobs import start_job
from palimpsest.lean import import_transformers

if __name__ == "__main__":
    start_job(snakemake)
    import_transformers(training=True)

import torch

from palimpsest.corpus.layout import read_corpus
from palimpsest.models import load_published, make_base, write_model
from palimpsest.ranks import processes_of
from palimpsest.sequences import corpus_sequences
from palimpsest.training import Schedule, train


def make_model(
    model: str,
    seed: int,
    source: str | dict[str, str],
    base: str,
    scratch: dict[str, Any],
    training: dict[str, Any],
    corpus: Path,
    folder: Path,
    processes: int,
) -> None:
    verify_files(corpus)
    texts = read_corpus(corpus)
    outcome = None
    if source == "train":
        network, tokenizer = make_base(base, scratch, texts, seed)
        splits = ("forget", "retain") if model == "target" else ("retain",)
        settings = dict(training)
        layout = settings.pop("max_length"), settings.pop("questions")
        sequences = [s for split in splits for s in corpus_sequences(texts, split, tokenizer, *layout)]
        schedule = Schedule(**settings, seed=seed)
        outcome = train(network, sequences, tokenizer.pad_token_id, schedule, processes)
    else:
        network, tokenizer = load_published(source, f"models.{model}")
    write_model(
        folder,
        network,
        tokenizer,
        inputs=[corpus],
        model=model,
        kind=model,
        seed=seed,
        method=None,
        weights=training["weights"] if outcome else "bfloat16",
        settings={"source": source, "base": base, "scratch": scratch, "training": training},
        training=outcome,
    )


if __name__ == "__main__":
    torch.set_num_threads(snakemake.threads)
    make_model(
        snakemake.wildcards.model,
        int(snakemake.wildcards.seed),
        snakemake.params.source,
        snakemake.params.base,
        snakemake.params.scratch,
        snakemake.params.training,
        Path(snakemake.input.corpus).parent,
        Path(snakemake.output[0]).parent,
        processes_of(snakemake.resources.get("gpu", 1)),
    )
