"""Greedy responses and token log-probabilities of one model at one precision, reloaded from disk."""

from pathlib import Path
from typing import Any

from palimpsest.artefacts import atomic_directory, verify_files, write_manifest
from palimpsest.jobs import start_job
from palimpsest.lean import import_transformers
from palimpsest.quantizers import make_quantizer

if __name__ == "__main__":
    start_job(snakemake)
    import_transformers()

import torch

from palimpsest.corpus.layout import read_corpus
from palimpsest.inference import corpus_requests, generate, split_log_probs, write_log_probs, write_responses
from palimpsest.metrics.inference_files import SPLITS
from palimpsest.models import load_tokenizer


def infer(
    model: str,
    precision: str,
    seed: int,
    quantizer: dict[str, Any],
    settings: dict[str, Any],
    corpus: Path,
    source: Path,
    folder: Path,
) -> None:
    verify_files(source)
    texts, tokenizer = read_corpus(corpus), load_tokenizer(source)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = make_quantizer(quantizer).load(source, device, settings["compute"])
    requests = corpus_requests(
        texts, tokenizer, settings["verbmem_tokens"], settings["knowmem_tokens"], settings["in_context_examples"]
    )
    with atomic_directory(folder) as draft:
        write_responses(generate(network, tokenizer, requests, settings["batch_size"]), draft / "responses.jsonl")
        splits = {split: getattr(texts, f"privleak_{split}") for split in settings.get("logprob_splits", SPLITS)}
        limits = settings["logprob_tokens"], settings["batch_size"]
        write_log_probs(split_log_probs(network, tokenizer, splits, *limits), draft / "logprobs.parquet")
        write_manifest(
            draft,
            inputs=[corpus, source],
            model=model,
            precision=precision,
            seed=seed,
            device=device,
            settings={"quantizer": quantizer, "inference": settings},
        )


if __name__ == "__main__":
    torch.set_num_threads(snakemake.threads)
    infer(
        snakemake.wildcards.model,
        snakemake.wildcards.get("precision", "bf16"),
        int(snakemake.wildcards.seed),
        snakemake.params.quantizer,
        snakemake.params.settings,
        Path(snakemake.input.corpus).parent,
        Path(snakemake.input.model).parent,
        Path(snakemake.output.manifest).parent,
    )
