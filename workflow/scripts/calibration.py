"""The text that a quantizer calibrates on, and how much of the forget text stands in it."""

from palimpsest.runtime.jobs import start_job

if __name__ == "__main__":
    job = start_job(snakemake)

from pathlib import Path
from typing import Any

from palimpsest.artefacts import Origin, atomic_directory, hash_sources, verify_files, write_json, write_manifest
from palimpsest.corpus.checks import check_overlap
from palimpsest.corpus.corpus import whole_texts
from palimpsest.corpus.generic import generic_texts
from palimpsest.corpus.layout import read_corpus


def collect_text(
    origin: Origin, text: str, generic: dict[str, Any] | None, overlap_at_most: float, corpus: Path, folder: Path
) -> None:
    """text: `retain`, `forget` or `generic`, whose source is in `generic`.
    Only forget text may repeat the forget text."""
    verify_files(corpus)
    splits = read_corpus(corpus)
    texts = generic_texts(**generic) if generic else whole_texts(splits, text)
    limit = 1.0 if text == "forget" else overlap_at_most
    overlap = check_overlap(whole_texts(splits, "forget"), f"the {text} calibration text", texts, limit)
    with atomic_directory(folder) as draft:
        write_json(draft / "texts.json", texts)
        write_manifest(
            draft,
            origin,
            packages=(),
            text=text,
            documents=len(texts),
            words=sum(len(each.split()) for each in texts),
            overlap_forget=overlap,
            **hash_sources(generic["settings"].get("path") if generic else None),
        )


if __name__ == "__main__":
    collect_text(
        job.origin,
        snakemake.wildcards.text,
        job.settings.get("generic"),
        job.settings["overlap_at_most"],
        Path(snakemake.input.corpus).parent,
        Path(snakemake.output[0]).parent,
    )
