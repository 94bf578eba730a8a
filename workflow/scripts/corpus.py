"""Write results/corpus: the documents, questions, prompts and passages of the study, checked."""

from palimpsest.runtime.jobs import start_job

if __name__ == "__main__":
    job = start_job(snakemake)

from pathlib import Path
from typing import Any

from palimpsest.artefacts import Origin, hash_sources
from palimpsest.corpus.layout import write_corpus
from palimpsest.corpus.sources import PATHS, checked_corpus


def prepare(origin: Origin, settings: dict[str, Any], tokenizers: dict[str, str], folder: Path) -> None:
    """settings: the block `corpus`; tokenizers: ROUGE's, by metric."""
    corpus, counted = checked_corpus(settings, tokenizers)
    given = [settings["settings"].get(key) for key in PATHS]
    write_corpus(corpus, folder, origin, **counted, **hash_sources(*given))


if __name__ == "__main__":
    prepare(job.origin, job.settings["corpus"], snakemake.params.tokenizers, Path(snakemake.output[0]).parent)
