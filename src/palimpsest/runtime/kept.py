"""What a step made before comes back where the step fails.

Before Snakemake starts a step it deletes what the step made before. A step that then refuses its settings, or is
killed, has cost a result that was right, and all that was made from it has to be made again, although the folder
beside the deleted manifest is whole: a step replaces it when it is done. So a run keeps, of each step that it plans,
the files that are there (as second names of theirs, which cost no space, next to Snakemake's records), and Snakemake's
record of what made them; of a step that failed both are put back when the run ends. With the old settings there is then
nothing to do, and with the refused ones the step runs, and refuses, again.

A run that is killed cannot put anything back. So what it keeps is written down beside the second names, and the run
holds a lock there, which the system takes from it; the next run looks there before it plans anything. It does so for
steps on this machine alone: one that a cluster runs outlives its run, and what it makes would take the place of what
was put back.
"""

import copy
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from logging import Logger
from pathlib import Path
from typing import IO, Any

from palimpsest.artefacts import MANIFEST, read_record, wrong_files, wrong_files_of
from palimpsest.errors import PalimpsestError

FOLDER = Path(".snakemake/kept")
RUN = "run"
"""In the folder: what the run holds for as long as it lives. It comes last, so where it is, the rest is whole."""
STEP = "step.json"
"""In the folder of a step: what was kept of it."""


@dataclass(frozen=True)
class Kept:
    """Of one step. files: what it puts out, with the second name of each; records: what Snakemake knows of each, by
    Snakemake's name of it, None where it knows nothing."""

    files: dict[Path, Path]
    records: dict[str, Any]


def keep(jobs: Iterable[Any], persistence: Any, folder: Path = FOLDER) -> list[Kept]:
    """Of Snakemake's `jobs` that are about to run, those all of whose files are there.

    persistence: Snakemake's, of the workflow; folder: for the second names, emptied first.
    """
    drop(folder)
    kept: list[Kept] = []
    if not hasattr(persistence, "_unmark_incomplete"):  # a Snakemake that was never tried: as before
        return kept
    for number, job in enumerate(jobs):
        paths = [Path(output) for output in job.output]
        if not paths or not all(path.is_file() for path in paths):
            continue
        files = {path: folder / str(number) / str(place) for place, path in enumerate(paths)}
        (folder / str(number)).mkdir(parents=True)
        for path, second in files.items():
            _link(path, second)
        known = {persistence._get_key(output): persistence.metadata(output) for output in job.output}
        kept.append(Kept(files, copy.deepcopy(known)))
    return kept


def outlast(kept: Sequence[Kept], locks: Iterable[str], folder: Path = FOLDER) -> IO[bytes] | None:
    """Write down what `keep` kept, for the run after this one if this one is killed. Returns what the run has to hold
    open for as long as it lives; None where the file system has no locks.

    locks: Snakemake's own lock files of this run, which a killed run leaves behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for step in kept:
        files = {str(path): str(second) for path, second in step.files.items()}
        place = next(iter(step.files.values())).parent / STEP
        records = {key: record and dict(record.items()) for key, record in step.records.items()}
        place.write_text(json.dumps({"files": files, "records": records}))
    draft = folder / f"{RUN}.draft"
    held = open(draft, "wb")  # noqa: SIM115 - held while the run lives
    held.write(json.dumps({"locks": [os.path.relpath(lock) for lock in locks]}).encode())
    held.flush()
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
    except OSError:
        held.close()
        return None
    os.replace(draft, folder / RUN)
    return held


def put_back_after_a_kill(persistence: Callable[[], Any], log: Logger, folder: Path = FOLDER) -> None:
    """Where a run was killed, put back what its unfinished steps made before, and take its locks away; where one is at
    work, leave it alone.

    persistence: makes Snakemake's, of this folder; the workflow has none before it is planned.
    """
    try:
        held = open(folder / RUN, "rb")  # noqa: SIM115 - closed below
    except OSError:  # the last run ended by itself
        return
    with held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        for lock in json.loads(held.read())["locks"]:
            Path(lock).unlink(missing_ok=True)
        written = [json.loads(place.read_text()) for place in sorted(folder.glob(f"*/{STEP}"))]
        kept = [
            Kept({Path(path): Path(second) for path, second in step["files"].items()}, step["records"])
            for step in written
        ]
        put_back(kept, persistence(), log, folder)


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
        for key, record in step.records.items():
            _restore(persistence, key, record)
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


def _restore(persistence: Any, key: str, record: Any) -> None:
    """Snakemake notes the settings of a failed step, too: a run with the refused settings would find nothing to do. And
    it has a mark for a step that it began, by which the next run would do it again."""
    persistence._clear_cache()
    persistence._unmark_incomplete(key)
    persistence._delete_record(key)
    if record is not None:
        persistence._write_record(key, record)
