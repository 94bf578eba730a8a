"""Unlearn the forget set from the target with one method."""

from pathlib import Path
from typing import Any

from palimpsest.artefacts import verify_files
from palimpsest.runtime.jobs import key_of, start_job
from palimpsest.runtime.startup import import_transformers

if __name__ == "__main__":
    start_job(snakemake)
    import_transformers(training=True)

import torch

from palimpsest.corpus.layout import read_corpus
from palimpsest.models.checkpoint import current_device, load_model, load_tokenizer, write_model
from palimpsest.models.sequences import corpus_sequences
from palimpsest.training.processes import processes_of
from palimpsest.training.storage import saved_share
from palimpsest.unlearning.unlearn import settings_of, unlearn, with_processes


def unlearn_model(
    key: dict[str, Any],
    settings: dict[str, Any],
    corpus: Path,
    target: Path,
    folder: Path,
    processes: int,
    code: list[str],
) -> None:
    """key: model and seed; settings: the method, and max_length and questions of the target's training."""
    method = settings["method"]
    arguments = with_processes(settings_of(method, key["seed"]), processes)
    verify_files(corpus)
    verify_files(target)
    texts, tokenizer = read_corpus(corpus), load_tokenizer(target)
    network = load_model(target, torch.bfloat16)
    layout = settings["max_length"], settings["questions"]
    forget, retain = (corpus_sequences(texts, split, tokenizer, *layout) for split in ("forget", "retain"))
    outcome = unlearn(network, forget, retain, tokenizer.pad_token_id, **arguments)
    if processes > 1:
        outcome["processes"] = arguments["processes"]
    outcome["saved"] = saved_share(network, target)
    made = {"kind": "unlearned", "method": method, "weights": method["weights"], "device": current_device()}
    made |= {"settings": settings, "training": outcome}
    write_model(folder, network, tokenizer, inputs=[corpus, target], code=code, **key, **made)


if __name__ == "__main__":
    torch.set_num_threads(snakemake.threads)
    unlearn_model(
        key_of(snakemake.wildcards),
        {name: snakemake.params[name] for name in ("method", "max_length", "questions")},
        Path(snakemake.input.corpus).parent,
        Path(snakemake.input.target).parent,
        Path(snakemake.output[0]).parent,
        processes_of(snakemake.resources.get("gpu", 1)),
        list(snakemake.input.code),
    )
