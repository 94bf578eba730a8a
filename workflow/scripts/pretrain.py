"""Pretrain the base that target and retrained model start from, on the tokenized text."""

from palimpsest.runtime.jobs import start_job
from palimpsest.runtime.startup import import_transformers

if __name__ == "__main__":
    job = start_job(snakemake)
    import_transformers(training=True)

from pathlib import Path
from typing import Any

import torch

from palimpsest.artefacts import Origin, verify_files
from palimpsest.models.checkpoint import current_device, load_tokenizer, write_model
from palimpsest.models.pretraining_text import read_tokens
from palimpsest.models.scratch import build_llama
from palimpsest.training.pretraining import Pretraining, pretrain
from palimpsest.vocabulary import FLOAT32


def pretrain_base(origin: Origin, settings: dict[str, Any], text: Path, folder: Path) -> None:
    """settings: scratch and pretraining; text: the folder of the tokenized text."""
    verify_files(text)
    pretraining, tokenizer = Pretraining.from_settings(settings["pretraining"]), load_tokenizer(text)
    network = build_llama(tokenizer, settings["scratch"], pretraining.seed)
    outcome = pretrain(network, read_tokens(text), tokenizer.bos_token_id, pretraining)
    made = {"kind": "base", "method": None, "storage": FLOAT32, "device": current_device()}
    write_model(folder, network, tokenizer, origin, **made, training=outcome)


if __name__ == "__main__":
    torch.set_num_threads(snakemake.threads)
    pretrain_base(job.origin, job.settings, Path(snakemake.input.text).parent, Path(snakemake.output[0]).parent)
