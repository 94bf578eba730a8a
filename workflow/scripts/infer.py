"""Greedy responses and token log-probabilities of one model at one precision, reloaded from disk."""

from palimpsest.runtime.jobs import start_job
from palimpsest.runtime.startup import import_transformers

if __name__ == "__main__":
    job = start_job(snakemake)
    import_transformers()

from pathlib import Path
from typing import Any

import torch

from palimpsest.artefacts import Origin, atomic_directory, verify_files, write_manifest
from palimpsest.corpus.corpus import absent_parts
from palimpsest.corpus.layout import read_corpus
from palimpsest.corpus.prompts import make_template, prompts_record
from palimpsest.inference.answers import answer_tokens, true_answers, with_gradients
from palimpsest.inference.files import ANSWERS, write_answers, write_log_probs, write_responses
from palimpsest.inference.generation import generate
from palimpsest.inference.likelihood import split_log_probs
from palimpsest.inference.products import multiply_by_blocks
from palimpsest.inference.requests import corpus_requests
from palimpsest.models.checkpoint import current_device, load_tokenizer
from palimpsest.quantizers import make_quantizer
from palimpsest.vocabulary import SPLITS


def infer(
    origin: Origin, quantizer: dict[str, Any], settings: dict[str, Any], corpus: Path, source: Path, folder: Path
) -> None:
    """settings: the block `inference`, and under "prompt" that block; source: the folder of the model."""
    for each in (corpus, source):
        verify_files(each)
    texts, tokenizer, device = read_corpus(corpus), load_tokenizer(source), current_device()
    network = make_quantizer(quantizer).load(source, device, settings["compute"])
    multiply_by_blocks(network)
    template = make_template(settings.get("prompt"))
    lengths = settings["verbmem_tokens"], settings["knowmem_tokens"], settings["in_context_examples"]
    requests = corpus_requests(texts, tokenizer, *lengths, template)
    with atomic_directory(folder) as draft:
        write_responses(generate(network, tokenizer, requests, settings["batch_size"]), draft / "responses.jsonl")
        truths = true_answers(texts, tokenizer, *lengths[1:], template)
        spread = settings.get("answer_spread", False)
        answers = answer_tokens(network, tokenizer, truths, settings["batch_size"], spread)
        if settings.get("answer_gradients", False):
            answers = with_gradients(network, truths, answers)
        write_answers(answers, draft / ANSWERS)
        splits = {split: getattr(texts, f"privleak_{split}") for split in settings.get("logprob_splits", SPLITS)}
        limits = settings["logprob_tokens"], settings["batch_size"]
        write_log_probs(split_log_probs(network, tokenizer, splits, *limits), draft / "logprobs.parquet")
        absent = {"absent": parts} if (parts := absent_parts(texts)) else {}
        asked = template.record() | prompts_record(template, [request.prompt for request in requests])
        write_manifest(draft, origin, device=device, template=asked, **absent)


if __name__ == "__main__":
    torch.set_num_threads(snakemake.threads)
    infer(
        job.origin,
        job.settings["quantizer"],
        job.settings["inference"] | {"prompt": job.settings["prompt"]},
        Path(snakemake.input.corpus).parent,
        Path(snakemake.input.model).parent,
        Path(snakemake.output.manifest).parent,
    )
