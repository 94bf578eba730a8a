"""Write results/corpus: the documents, questions, prompts and passages of the study, checked."""

from palimpsest.runtime.jobs import start_job

if __name__ == "__main__":
    job = start_job(snakemake)

from pathlib import Path
from typing import Any

from palimpsest.artefacts import Origin, hash_sources
from palimpsest.corpus.checks import check_answers, check_corpus
from palimpsest.corpus.layout import write_corpus
from palimpsest.corpus.sources import load_corpus


def prepare(origin: Origin, settings: dict[str, Any], tokenizers: dict[str, str], folder: Path) -> None:
    """settings: the block `corpus`; tokenizers: ROUGE's, by metric."""
    corpus = load_corpus(settings["source"], settings["settings"], settings["subset"])
    counts = check_corpus(corpus, **settings["checks"])
    check_answers(corpus, tokenizers)
    write_corpus(corpus, folder, origin, counts=counts, **hash_sources(settings["settings"].get("path")))


if __name__ == "__main__":
    prepare(job.origin, job.settings["corpus"], snakemake.params.tokenizers, Path(snakemake.output[0]).parent)
