"""Unlearn the forget set from the target with one method."""

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
from palimpsest.models import load_model, load_tokenizer, write_model
from palimpsest.ranks import processes_of
from palimpsest.sequences import corpus_sequences
from palimpsest.unlearning import settings_of, unlearn, with_processes
from palimpsest.updates import saved_share


def unlearn_model(
    model: str,
    seed: int,
    method: dict[str, Any],
    max_length: int,
    questions: bool,
    corpus: Path,
    target: Path,
    folder: Path,
    processes: int,
) -> None:
    settings = with_processes(settings_of(method, seed), processes)
    verify_files(corpus)
    verify_files(target)
    texts, tokenizer = read_corpus(corpus), load_tokenizer(target)
    network = load_model(target, torch.bfloat16)
    forget, retain = (
        corpus_sequences(texts, split, tokenizer, max_length, questions) for split in ("forget", "retain")
    )
    outcome = unlearn(network, forget, retain, tokenizer.pad_token_id, **settings)
    if processes > 1:
        outcome["processes"] = settings["processes"]
    outcome["saved"] = saved_share(network, target)
    write_model(
        folder,
        network,
        tokenizer,
        inputs=[corpus, target],
        model=model,
        kind="unlearned",
        seed=seed,
        method=method,
        weights=method["weights"],
        settings={"method": method, "max_length": max_length, "questions": questions},
        training=outcome,
    )


if __name__ == "__main__":
    torch.set_num_threads(snakemake.threads)
    unlearn_model(
        snakemake.wildcards.model,
        int(snakemake.wildcards.seed),
        snakemake.params.method,
        snakemake.params.max_length,
        snakemake.params.questions,
        Path(snakemake.input.corpus).parent,
        Path(snakemake.input.target).parent,
        Path(snakemake.output[0]).parent,
        processes_of(snakemake.resources.get("gpu", 1)),
    )
