"""Write results/base/text: a tokenizer trained on the text of the base, and the text as tokens."""

from palimpsest.runtime.jobs import start_job
from palimpsest.runtime.startup import import_transformers

if __name__ == "__main__":
    job = start_job(snakemake)
    import_transformers()

from pathlib import Path
from typing import Any

import numpy as np

from palimpsest.artefacts import Origin, atomic_directory, hash_sources, write_manifest
from palimpsest.corpus.documents import matching_files, read_documents
from palimpsest.models.pretraining_text import TOKENS, check_vocabulary, encode, pieces
from palimpsest.models.scratch import train_tokenizer


def tokenize(origin: Origin, text: dict[str, Any], vocabulary: int, folder: Path) -> None:
    """text: path and files of models.pretraining.text."""
    files = matching_files(text["path"], text["files"])
    documents = list(read_documents(files))
    tokenizer = train_tokenizer([piece for document in documents for piece in pieces(document)], vocabulary)
    check_vocabulary(tokenizer, vocabulary)
    tokens = encode(documents, tokenizer)
    counts = {"documents": len(documents), "characters": sum(map(len, documents)), "tokens": len(tokens)}
    with atomic_directory(folder) as draft:
        tokenizer.save_pretrained(draft)
        np.save(draft / TOKENS, tokens)
        write_manifest(draft, origin, packages=("tokenizers",), counts=counts, **hash_sources(*map(str, files)))


if __name__ == "__main__":
    tokenize(job.origin, job.settings["text"], job.settings["vocabulary"], Path(snakemake.output[0]).parent)
