"""What a step made before comes back where the step fails.

Before Snakemake starts a step it deletes what the step made before. A step that then refuses its settings, or is
killed, has cost a result that was right, and all that was made from it has to be made again, although the folder
beside the deleted manifest is whole: a step replaces it when it is done. So a run keeps, of each step that it plans,
the files that are there (as second names of theirs, which cost no space, next to Snakemake's records), and Snakemake's
record of what made them; of a step that failed both are put back when the run ends. With the old settings there is then
nothing to do, and with the refused ones the step runs, and refuses, again.
"""

import copy
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from logging import Logger
from pathlib import Path
from typing import Any

from palimpsest.artefacts import MANIFEST, read_record, wrong_files, wrong_files_of
from palimpsest.errors import PalimpsestError

FOLDER = Path(".snakemake/kept")


@dataclass(frozen=True)
class Kept:
    """Of one step. files: what it puts out, with the second name of each; records: what Snakemake knows of each."""

    files: dict[Path, Path]
    records: dict[str, Any]


def keep(jobs: Iterable[Any], persistence: Any, folder: Path = FOLDER) -> list[Kept]:
    """Of Snakemake's `jobs` that are about to run, those all of whose files are there.

    persistence: Snakemake's, of the workflow; folder: for the second names, emptied first.
    """
    drop(folder)
    kept: list[Kept] = []
    if not hasattr(persistence, "_write_record"):  # a Snakemake that was never tried: as before
        return kept
    for number, job in enumerate(jobs):
        paths = [Path(output) for output in job.output]
        if not paths or not all(path.is_file() for path in paths):
            continue
        files = {path: folder / str(number) / str(place) for place, path in enumerate(paths)}
        (folder / str(number)).mkdir(parents=True)
        for path, second in files.items():
            _link(path, second)
        kept.append(Kept(files, {output: copy.deepcopy(persistence.metadata(output)) for output in job.output}))
    return kept


def put_back(kept: Sequence[Kept], persistence: Any, log: Logger, folder: Path = FOLDER) -> None:
    """Put back what is gone, where the files that it tells of are still those that it tells of."""
    for step in kept:
        if any(path.exists() for path in step.files):  # it ran, or was never started
            continue
        for path, second in step.files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(second, path)
        if not _is_whole(step.files):
            for path in step.files:
                path.unlink()
            continue
        for output, record in step.records.items():
            _restore(persistence, output, record)
        log.warning(f"What the failed step made before is back: {' '.join(map(str, step.files))}")
    drop(folder)


def drop(folder: Path = FOLDER) -> None:
    """Remove what was kept: nothing failed."""
    shutil.rmtree(folder, ignore_errors=True)


def _link(path: Path, second: Path) -> None:
    try:
        os.link(path, second)
    except OSError:  # a file system without links, or another one
        shutil.copy2(path, second)


def _is_whole(paths: Iterable[Path]) -> bool:
    """Whether the records among the paths are, and the files that they list."""
    try:
        for path in paths:
            if path.suffix == ".json":
                record = read_record(path)
                wrong = wrong_files(path.parent, record) if path.name == MANIFEST else wrong_files_of(path, record)
                if any(wrong):
                    return False
    except PalimpsestError:
        return False
    return True


def _restore(persistence: Any, output: Any, record: Any) -> None:
    """Snakemake notes the settings of a failed step, too: a run with the refused settings would find nothing to do."""
    persistence.cleanup_metadata(output)
    if record is not None:
        persistence._write_record(persistence._get_key(output), record)
