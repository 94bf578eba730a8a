"""Text that has nothing to do with a study, for quantizers that calibrate on whatever is at hand."""

from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from palimpsest.corpus.files import cleaned, read_list, read_text, wrong_in
from palimpsest.corpus.hub import cannot_load, local_files
from palimpsest.corpus.sources import bind
from palimpsest.corpus.words import is_blank
from palimpsest.errors import PalimpsestError, choose


def generic_texts(source: str, settings: Mapping[str, Any]) -> list[str]:
    """The texts of a source: `python-docs` (documents), `file` (path, documents) or `hub`
    (path, name, split, column, documents).

    Raises PalimpsestError for an unknown source, settings that do not fit it, and missing, malformed or too few texts.
    """
    read = choose(SOURCES, source, "source of generic calibration text")
    bind(f"generic calibration text from {source!r}", read, settings)
    where = f"generic calibration text from {source!r}"
    read_texts = [cleaned(text, f"{where}: text {number}") for number, text in enumerate(read(**settings))]
    texts = [text for text in read_texts if not is_blank(text)]
    if len(texts) < settings["documents"]:
        raise PalimpsestError(
            f"generic calibration text from {source!r} has {len(texts)} documents, calibration.generic asks for "
            f"{settings['documents']}: lower documents, or give another source."
        )
    return texts


def python_docs(documents: int) -> list[str]:
    """The first sections, by name, of the language reference that every Python carries: technical English prose."""
    from pydoc_data.topics import topics

    return [topics[name] for name in sorted(topics)[:documents]]


def file_texts(path: str, documents: int) -> list[str]:
    """The first texts of a .json list, or the first paragraphs, split at empty lines, of a text file."""
    file = Path(path)
    if not file.is_file():
        raise PalimpsestError(f"calibration file {path} does not exist: correct calibration.generic.settings.path.")
    if file.suffix != ".json":
        return cleaned(read_text(file), f"calibration file {path}").split("\n\n")[:documents]
    rows = read_list(file)
    if not all(isinstance(row, str) for row in rows):
        raise PalimpsestError(f"calibration file {path} must hold a JSON list of texts.")
    return rows[:documents]


def hub_texts(path: str, name: str | None, split: str, column: str, documents: int) -> list[str]:
    """The first texts of a column of a hub dataset,
    or of a local folder that `datasets` loads alike, read as a stream."""
    import datasets

    wrong = wrong_in(local_files(path, name, split))
    if wrong:
        raise PalimpsestError(f"calibration.generic.settings.path: {wrong}")
    try:
        rows = list(islice(datasets.load_dataset(path, name, split=split, streaming=True), documents))
    except (OSError, ValueError) as error:
        file = "set calibration.generic.source to file and settings.path to a local text, or to python-docs"
        raise cannot_load(f"dataset {path!r} (config {name!r}, split {split!r})", path, error, file) from error
    if rows and column not in rows[0]:
        raise PalimpsestError(f"dataset {path!r} has no column {column!r}; it has {', '.join(sorted(rows[0]))}.")
    for number, row in enumerate(rows):
        if not isinstance(row[column], str):
            raise PalimpsestError(
                f"dataset {path!r}, row {number} of split {split!r} has no text as {column}: correct or remove the row."
            )
    return [row[column] for row in rows]


SOURCES: dict[str, Callable[..., list[str]]] = {"python-docs": python_docs, "file": file_texts, "hub": hub_texts}
