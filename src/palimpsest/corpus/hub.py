"""Datasets of the Hugging Face hub, and local folders that `datasets` loads alike:
one way in, for corpora and for the battery."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from palimpsest.corpus.files import wrong_in
from palimpsest.errors import PalimpsestError, first_line

Load = Callable[[str, str], Any]
"""Maps (config, split) to a `datasets.Dataset`."""


@contextmanager
def opened(path: str, key: str) -> Iterator[Load]:
    """Within it, what loads the splits of a dataset: a hub dataset through the cache, a local folder as it is now.

    `datasets` knows a folder in its cache by last name and README alone, so it would give rows of another,
    or those before an edit.
    key: where `path` comes from. Raises PalimpsestError that names it for an empty path and, on loading, for files that
    cannot be read; loading raises OSError when there is no such dataset, no network or offline mode, ValueError for an
    unknown config or split.
    """
    import datasets  # slow to import, and most studies do not need it
    import pyarrow

    if not path.strip("/"):
        raise PalimpsestError(f"{key} is {path!r}: give the name of a hub dataset or a local folder.")
    unreadable = (
        datasets.exceptions.DatasetsError,
        pyarrow.ArrowException,
        yaml.YAMLError,  # in the header of README.md
        UnicodeError,
        RuntimeError,  # a loading script
        StopIteration,  # a file without rows
    )
    with TemporaryDirectory(prefix="palimpsest-") as cache:
        fresh: dict[str, Any] = {"cache_dir": cache, "keep_in_memory": True} if Path(path).is_dir() else {}
        name = str(Path(path).resolve()) if fresh else path  # a folder called json is not the loader of that name

        def load(config: str, split: str) -> Any:
            start = f"{key}: the files of dataset {path!r} (config {config!r}) cannot be read: "
            try:
                wrong = wrong_in(local_files(path, config, split, cache))
                if wrong:
                    raise PalimpsestError(start + wrong + " Correct them, or get them anew.")
                rows = datasets.load_dataset(name, config, split=split, **fresh)
                wrong = _undecodable(rows.data.table)  # such a text would fail only when it is looked at
                if wrong:
                    raise PalimpsestError(f"{start}{wrong} Correct them, or get them anew.")
                rows.data.validate(full=True)
                return rows
            except OSError:  # some of them are DatasetsErrors too
                raise
            except unreadable as error:
                reason = " ".join(str(error.__cause__ or error).split()) or "a file is empty"
                raise PalimpsestError(f"{start}{reason.rstrip('.')}. Correct them, or get them anew.") from error

        yield load


def _undecodable(table: Any) -> str:
    """The first text in a column of texts that is not UTF-8; empty where all are."""
    import pyarrow

    for name in table.column_names:
        if not (pyarrow.types.is_string(table[name].type) or pyarrow.types.is_large_string(table[name].type)):
            continue
        try:
            table[name].validate(full=True)
        except pyarrow.ArrowInvalid:
            for row, text in enumerate(table[name].cast(pyarrow.large_binary())):
                try:
                    (text.as_py() or b"").decode("utf-8")
                except UnicodeDecodeError as error:
                    return f"row {row} has Invalid UTF8 in its {name} ({error.reason})."
    return ""


def local_files(path: str, config: str | None, split: str, cache: str | None = None) -> list[str]:
    """The files that `datasets` would read for a split of a local folder; none of a hub dataset."""
    import datasets

    if not Path(path).is_dir():
        return []
    builder = datasets.load_dataset_builder(str(Path(path).resolve()), config, cache_dir=cache)
    return list(map(str, (builder.config.data_files or {}).get(split, [])))


def cannot_load(what: str, path: str, error: Exception, otherwise: str) -> PalimpsestError:
    """No such dataset, no network, offline mode: where to ask for it, and what to do otherwise."""
    advice = "Correct the path or the files in it"
    if re.fullmatch(r"(\w[\w.-]*/)?\w[\w.-]*", path) and not Path(path).is_dir():
        advice = f"Request {path!r} at https://huggingface.co/datasets/{path} and log in with `hf auth login`"
    return PalimpsestError(f"{what} cannot be loaded: {first_line(error)}. {advice}, or {otherwise}.")
