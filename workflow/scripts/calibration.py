"""The text that a quantizer calibrates on, and how much of the forget text stands in it."""

from pathlib import Path
from typing import Any

from palimpsest.artefacts import atomic_directory, hash_sources, verify_files, write_json, write_manifest
from palimpsest.corpus.checks import check_overlap
from palimpsest.corpus.generic import generic_texts
from palimpsest.corpus.layout import read_corpus
from palimpsest.runtime.logs import start_logging


def collect_text(
    text: str, generic: dict[str, Any], overlap_at_most: float, corpus: Path, folder: Path, code: list[str]
) -> None:
    """text: `retain`, `forget` or `generic`. Only forget text may repeat the forget text."""
    verify_files(corpus)
    splits = read_corpus(corpus)
    texts = generic_texts(**generic) if text == "generic" else getattr(splits, text)
    limit = 1.0 if text == "forget" else overlap_at_most
    overlap = check_overlap(splits.forget, f"the {text} calibration text", texts, limit)
    with atomic_directory(folder) as draft:
        write_json(draft / "texts.json", texts)
        write_manifest(
            draft,
            inputs=[corpus],
            code=code,
            packages=(),
            text=text,
            documents=len(texts),
            words=sum(len(each.split()) for each in texts),
            overlap_forget=overlap,
            settings=generic if text == "generic" else {},
            **hash_sources(generic["settings"].get("path") if text == "generic" else None),
        )


if __name__ == "__main__":
    start_logging(snakemake.log[0])
    collect_text(
        snakemake.wildcards.text,
        snakemake.params.generic,
        snakemake.params.overlap_at_most,
        Path(snakemake.input.corpus).parent,
        Path(snakemake.output[0]).parent,
        list(snakemake.input.code),
    )
