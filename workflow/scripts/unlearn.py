"""Unlearn the forget set from the target with one method."""

from palimpsest.runtime.jobs import start_job
from palimpsest.runtime.startup import import_transformers

if __name__ == "__main__":
    job = start_job(snakemake)
    import_transformers(training=True)

from pathlib import Path
from typing import Any

import torch

from palimpsest.artefacts import Origin, verify_files
from palimpsest.corpus.layout import read_corpus
from palimpsest.corpus.prompts import make_template
from palimpsest.models.checkpoint import check_savable, current_device, load_model, load_tokenizer, write_model
from palimpsest.models.encoding import padding_token
from palimpsest.models.sequences import corpus_sequences
from palimpsest.training.processes import processes_of
from palimpsest.training.storage import check_comparable, saved_share
from palimpsest.unlearning.alternatives import alternative_sequences
from palimpsest.unlearning.unlearn import settings_of, unlearn, with_processes
from palimpsest.vocabulary import JOINED


def unlearn_model(
    origin: Origin, settings: dict[str, Any], corpus: Path, target: Path, folder: Path, processes: int
) -> None:
    """settings: the method, and the prompt, max_length, questions and pieces of the target's training."""
    method = settings["method"]
    arguments = with_processes(settings_of(method, origin.key["seed"]), processes)
    verify_files(corpus)
    verify_files(target)
    texts, tokenizer = read_corpus(corpus), load_tokenizer(target)
    network = load_model(target, torch.bfloat16)
    check_savable(network, tokenizer, target)
    check_comparable(network, target)
    layout = (
        settings["max_length"],
        settings["questions"],
        make_template(settings.get("prompt")),
        settings.get("pieces", JOINED),
    )
    forget, retain = (corpus_sequences(texts, split, tokenizer, *layout) for split in ("forget", "retain"))
    alternatives = None
    if (kind := arguments["method"].forget_loss().alternatives) and settings["questions"]:
        seed = origin.key["seed"]
        alternatives = alternative_sequences(texts, kind, tokenizer, layout[0], layout[2], seed)
    outcome = unlearn(network, forget, retain, padding_token(tokenizer), alternatives=alternatives, **arguments)
    if processes > 1:
        outcome["processes"] = arguments["schedule"].processes
    outcome["saved"] = saved_share(network, target)
    made = {"kind": "unlearned", "method": method, "storage": method["storage"], "device": current_device()}
    write_model(folder, network, tokenizer, origin, **made, training=outcome)


if __name__ == "__main__":
    torch.set_num_threads(snakemake.threads)
    unlearn_model(
        job.origin,
        job.settings,
        Path(snakemake.input.corpus).parent,
        Path(snakemake.input.target).parent,
        Path(snakemake.output[0]).parent,
        processes_of(snakemake.resources.get("gpu", 1)),
    )
