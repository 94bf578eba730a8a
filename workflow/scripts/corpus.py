"""Write results/corpus: the documents, questions, prompts and passages of the study, checked."""

from pathlib import Path
from typing import Any

from palimpsest.artefacts import hash_sources
from palimpsest.corpus.checks import check_corpus
from palimpsest.corpus.layout import write_corpus
from palimpsest.corpus.sources import load_corpus
from palimpsest.runtime.logs import start_logging


def prepare(settings: dict[str, Any], folder: Path, code: list[str]) -> None:
    corpus = load_corpus(settings["source"], settings["settings"], settings["subset"])
    counts = check_corpus(corpus, **settings["checks"])
    sources = hash_sources(settings["settings"].get("path"))
    write_corpus(corpus, folder, code=code, settings=settings, counts=counts, **sources)


if __name__ == "__main__":
    start_logging(snakemake.log[0])
    prepare(snakemake.params.settings, Path(snakemake.output[0]).parent, list(snakemake.input.code))
