"""The files of the user's own that a study is made from: a corpus folder, a checkpoint, text for calibration.

Snakemake and DVC see a path in params.yaml, and not that what lies there was edited or replaced. So planning marks each
value that is such a path with the hash of what lies there. A rule's `params` then change when the content does, and
only then: a source that was moved, or touched, is the same.

Hashes of files are noted in the study's `.snakemake`, by inode, size and time stamps down to the change of the inode,
which no program sets: a file of many GB is read once. What was changed within the last seconds is not noted, for it may
change again within one tick of the clock.
"""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from logging import Logger
from pathlib import Path
from typing import Any

from palimpsest.artefacts import LocalSource, content_hash, files_below, sha256_file, write_json
from palimpsest.corpus.sources import PATHS
from palimpsest.study.own_records import announce
from palimpsest.vocabulary import PRETRAINED, SCRATCH

PLACES = (
    *(f"corpus/settings/{key}" for key in PATHS),
    "models/target",
    "models/target/*",
    "models/retrain",
    "models/retrain/*",
    "models/base",
    "models/pretraining/text/path",
    "methods/*/checkpoint",
    "deployed/*/path",
    "calibration/generic/settings/path",
    "battery/tasks/*/data",
    "attacks/each/*/file",
    "verdict/policy",
)
"""Where params.yaml may name a file or a folder."""
KEYWORDS = ("", "train", SCRATCH, PRETRAINED)
"""What stands in these places where no path does."""
NOTES = Path(".snakemake/sources.json")
LARGE = 1 << 30
"""Bytes: of what is larger the log is told before it is hashed."""
SETTLED = 2.0
"""Seconds: the coarsest clock of a file system in use."""


def plan(params: Mapping[str, Any], write: bool, log: Logger) -> dict[str, Any]:
    """The params as `marked` has them, for a study in this folder, with the notes of its last plan: what is gone since
    keeps its mark, for what was made from it stands. write: whether to note, and to read and check records, which one
    process of a run does; log: is told of files that take seconds, and how many records there are."""
    if write:
        announce(params, log, Path("results/corpus/manifest.json"))
    notes = _Notes(log)
    whole = marked(params, Path(), notes.hash_of, notes.remember)
    if write:
        notes.write()
    return whole


def marked(
    params: Mapping[str, Any],
    folder: Path,
    hash_file: Callable[[Path], str] = sha256_file,
    remember: Callable[[str, str | None], str | None] = lambda name, digest: digest,
) -> dict[str, Any]:
    """The params with a LocalSource for each path in PLACES at which something lies.

    folder: of the study, to which paths are relative; remember: what is known of a path in the end, from the path and
    the hash of what lies there now, if anything does.
    """

    def digest(name: str) -> str | None:
        return remember(name, digest_of(folder / name, hash_file))

    return {key: _marked(value, key, digest) for key, value in params.items()}


def sources_of(params: Mapping[str, Any]) -> dict[str, list[str]]:
    """The paths in PLACES by the block of params.yaml that names them, whether anything is there or not."""
    found: dict[str, list[str]] = {}

    def note(name: str) -> None:
        found.setdefault(block, []).append(name)

    for block, value in params.items():
        _marked(value, block, note)
    return found


def digest_of(source: Path, hash_file: Callable[[Path], str] = sha256_file) -> str | None:
    """SHA-256 over what lies at a path, by the names of the files below it; None where nothing does."""
    files = files_below(source)
    return content_hash({path.relative_to(source).as_posix(): hash_file(path) for path in files}) if files else None


def _marked(value: Any, place: str, digest: Callable[[str], str | None]) -> Any:
    if isinstance(value, Mapping):
        return {key: _marked(inner, f"{place}/{key}", digest) for key, inner in value.items()}
    if not isinstance(value, str) or value in KEYWORDS or not _is_place(place):
        return value
    found = digest(value)
    return value if found is None else LocalSource(value, found)


def _is_place(place: str) -> bool:
    return any(len(place.split("/")) == len(form.split("/")) and fnmatchcase(place, form) for form in PLACES)


class _Notes:
    """hashes: of files, by what tells that they are the same as when they were hashed; digests: of paths."""

    def __init__(self, log: Logger, file: Path = NOTES) -> None:
        self.log, self.file = log, file
        self.known: dict[str, dict[str, str]] = {"hashes": {}, "digests": {}}
        with suppress(OSError, ValueError):  # none yet, or a broken one: all is hashed anew
            read = json.loads(file.read_text(encoding="utf-8"))
            if isinstance(read, dict) and all(isinstance(read.get(name), dict) for name in self.known):
                self.known = read
        self.now: dict[str, dict[str, str]] = {"hashes": {}, "digests": {}}

    def remember(self, name: str, digest: str | None) -> str | None:
        if found := digest or self.known["digests"].get(name):
            self.now["digests"][name] = found
        return found

    def hash_of(self, path: Path) -> str:
        stat = path.stat()
        key = f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"
        known = self.known["hashes"].get(key)
        if not known and stat.st_size > LARGE:
            self.log.info(f"Hashing {path} ({stat.st_size / LARGE:.0f} GiB), once.")
        digest = known or sha256_file(path)
        if known or time.time() - max(stat.st_mtime, stat.st_ctime) > SETTLED:
            self.now["hashes"][key] = digest
        return digest

    def write(self) -> None:
        if self.now != self.known:
            write_json(self.file, self.now)
