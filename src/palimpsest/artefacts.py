"""Artefacts: what a step makes, each with a record that says what made it, of which files it is, and with what.

Files and records have modules of their own; what the steps use of them they find here, too.
"""

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NotRequired, TypedDict, cast

from palimpsest.errors import PalimpsestError
from palimpsest.files import atomic_directory as atomic_directory
from palimpsest.files import atomic_file as atomic_file
from palimpsest.files import content_hash as content_hash
from palimpsest.files import files_below as files_below
from palimpsest.files import final_path
from palimpsest.files import sha256_file as sha256_file
from palimpsest.machine import facts
from palimpsest.records import MANIFEST as MANIFEST
from palimpsest.records import ORIGIN as ORIGIN
from palimpsest.records import below_results, place_of, remedy_for, sealed
from palimpsest.records import check_record as check_record
from palimpsest.records import read_json as read_json
from palimpsest.records import read_record as read_record
from palimpsest.records import write_json as write_json
from palimpsest.vocabulary import PRETRAINED, SCRATCH

PROVENANCE = "provenance"
"""The folder of results that says what each record was made with."""
REPOSITORY = Path(__file__).resolve().parents[2]
"""Where the library lies: it is installed from a clone, in place."""


def hash_files(folder: Path, skip: Iterable[str] = (MANIFEST,)) -> dict[str, str]:
    """SHA-256 of every file below `folder` by relative path, the manifest left out."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in set(skip))
    return {str(path.relative_to(folder)): sha256_file(path) for path in files}


class LocalSource(str):
    """A path in params.yaml at which something of the user's own lies, with the hash of that (`content_hash`).

    It is the path wherever it is used; Snakemake, which compares params by their `repr`, sees the content alone.
    """

    digest: str

    def __new__(cls, path: str, digest: str) -> "LocalSource":
        source = super().__new__(cls, path)
        source.digest = digest
        return source

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]  # str's has one
        return str(self), self.digest

    def __repr__(self) -> str:
        return f"<{self.digest}>"


def hash_sources(*sources: str | Mapping[str, str] | None) -> dict[str, dict[str, str]]:
    """{"sources": SHA-256 of every file of those that lie here, by its path}, hidden ones left out; {} where none does.

    sources: values of params.yaml that may be paths;
    of a mapping its values, of the keywords of models.base and of None nothing.
    """
    names = [name for each in sources for name in (each.values() if isinstance(each, Mapping) else [each])]
    files = [file for name in names if name not in (None, "", SCRATCH, PRETRAINED) for file in files_below(Path(name))]
    return {"sources": {str(file): sha256_file(file) for file in files}} if files else {}


def _given(settings: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """(place, hash) of each local source in settings."""
    if isinstance(settings, LocalSource):
        yield place, settings.digest
    elif isinstance(settings, Mapping):
        for key, value in settings.items():
            yield from _given(value, f"{place}/{key}" if place else str(key))


@dataclass(frozen=True)
class Origin:
    """What an artefact comes from, in the terms of the study;
    part of its record, so that `palimpsest verify` can ask for it again.

    key: what the artefact is about: model, seed and precision, as far as there are such. settings: the part of
    params.yaml that decides it, by path: {"methods/ga": {...}, "training/max_length": 128}. inputs: the manifests and
    records that it is made from.
    code: the files of the repository that make it.
    """

    key: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    inputs: Sequence[Path | str] = ()
    code: Sequence[Path | str] = ()

    def of(self, inputs: Sequence[Path | str], **key: Any) -> "Origin":
        """That of one of a step's several artefacts: made from these inputs alone, with the given parts of its key."""
        return replace(self, key={**self.key, **key}, inputs=inputs)

    def record(self) -> dict[str, Any]:
        """The key, the settings, and the SHA-256 of each input (by its path below `results`) and file of code (in the
        repository); under `given` the hash of what lies at each local path in the settings, by its place there.

        The hashes of inputs chain the artefacts together.
        """
        given = dict(_given(self.settings))
        return {
            **self.key,
            **({"given": given} if given else {}),
            "settings": dict(self.settings),
            "inputs": {str(below_results(Path(path))): sha256_file(path) for path in self.inputs},
            "code": {_in_repository(path): sha256_file(path) for path in self.code},
        }


def write_manifest(folder: Path, origin: Origin, **fields: Any) -> None:
    """Write `folder/manifest.json`: the given fields, the hash of every file in the folder and what made it; and what
    it was made with (`write_provenance`).

    packages: their versions are noted; versions: of packages that are installed elsewhere.

    No time stamps, host names or versions: two runs of the same step give the same manifest where they give the same
    files, whatever the machine, and a reproducibility audit compares them.
    """
    packages, versions = fields.pop("packages", ("torch", "transformers")), fields.pop("versions", {})
    write_json(folder / MANIFEST, fields | origin.record() | {"files": hash_files(folder)})
    write_provenance(folder / MANIFEST, packages, versions)


def write_record(path: Path | str, origin: Origin, content: Mapping[str, Any], packages: Sequence[str] = ()) -> None:
    """Write a record of what it says and what made it, and what it was made with (`write_provenance`)."""
    write_json(path, {**content, **origin.record()})
    write_provenance(path, packages)


def write_provenance(
    record: Path | str, packages: Sequence[str] = (), versions: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Note below `results/provenance` what a record was made with: versions and the machine (`machine.facts`).

    Apart from the record, so that what is the same has the same hash, for DVC too, whatever made it. Of a record that
    lies outside `results` nothing is noted.
    """
    file = provenance_of(Path(record))
    if file is None:
        return
    from importlib.metadata import version  # not by each step's process that is over when its fork begins

    made_with = {"python": platform.python_version(), "palimpsest": version("palimpsest")}
    made_with |= {package: version(package) for package in packages} | dict(versions)
    noted = {"record": place_of(Path(record)), "sha256": sha256_file(record), "versions": made_with, "machine": facts()}
    write_json(file, sealed(file, noted))


def provenance_of(record: Path) -> Path | None:
    """Where it is noted what a record was made with; None for one outside `results`."""
    place = Path(place_of(record))
    if not place.parts:
        return None
    below = place.parent if place.name == MANIFEST else place.with_suffix("")
    final = final_path(record)
    return Path(*final.parts[: -len(place.parts)]) / PROVENANCE / f"{below}.json"


def read_provenance(records: Iterable[Path | str]) -> list[dict[str, Any]]:
    """What each record was made with; of one outside `results` nothing. Raises PalimpsestError where it is missing."""
    return [read_record(file) for record in records if (file := provenance_of(Path(record)))]


def forget_provenance_of_gone(results: Path) -> None:
    """Remove the notes of records that are no longer there, such as of a method that was taken out of the study."""
    notes = results / PROVENANCE
    for file in sorted(notes.rglob("*.json")):
        record = results / file.relative_to(notes)
        if not record.exists() and not (record.with_suffix("") / MANIFEST).exists():
            file.unlink()
            for folder in file.relative_to(notes).parents[:-1]:
                if not any((notes / folder).iterdir()):
                    (notes / folder).rmdir()


def _in_repository(path: Path | str) -> str:
    file = Path(path).resolve()
    if not file.is_relative_to(REPOSITORY):
        raise PalimpsestError(
            f"{file} is not of {REPOSITORY}, from where palimpsest is imported: "
            "run `make setup` in the clone whose workflow you run."
        )
    return file.relative_to(REPOSITORY).as_posix()


class Manifest(TypedDict):
    """What made the files of a folder. Beside these it holds what it is about:
    model, seed and precision, as far as there are such.

    settings: the part of params.yaml that decides it, by path. inputs, code: SHA-256 of what it is made from and by, by
    path; sources: of the user's own files; given: of what lies at a path among the settings, by its place there. files:
    SHA-256 of each file in the folder, by its path there. proof: of a quantized file, that it holds what it should.
    versions: of packages, in manifests of before 0.2 (today `provenance_of` says where they are).
    """

    settings: dict[str, Any]
    inputs: dict[str, str]
    code: dict[str, str]
    files: dict[str, str]
    versions: NotRequired[dict[str, str]]
    sources: NotRequired[dict[str, str]]
    given: NotRequired[dict[str, str]]
    proof: NotRequired[dict[str, Any]]


def read_manifest(folder: Path | str) -> Manifest:
    """Raises PalimpsestError where there is none, it was edited, or it is another folder's."""
    return cast(Manifest, read_record(Path(folder) / MANIFEST))


def verify_files(folder: Path | str) -> None:
    """Compare every file with the hash in the manifest; raises PalimpsestError for the first of `wrong_files`.

    Every step hashes what it reads, each time, for a note of an earlier hash may be out of date: of 7 B parameters in
    bfloat16 that is half a minute (0.4 GB a second, measured on a busy core).
    """
    for problem in wrong_files(folder, read_manifest(folder)):
        raise PalimpsestError(problem)


def wrong_files(folder: Path | str, manifest: Manifest | Mapping[str, Any]) -> Iterator[str]:
    """A line for each file that the manifest names and that is missing or another, then for the first that it does
    not name: a loader may take it, such as an index beside a checkpoint."""
    record = Path(folder) / MANIFEST
    yield from _wrong(record, manifest["files"])
    yield from _unlisted(record, Path(folder).rglob("*"), manifest["files"])


def files_of(record: Path | str, paths: Sequence[Path | str]) -> dict[str, str]:
    """SHA-256 of files beside a record or below, by path from there: its `files`."""
    return {Path(path).relative_to(Path(record).parent).as_posix(): sha256_file(path) for path in paths}


def check_files(record: Path | str) -> None:
    """Raise PalimpsestError for the first of `wrong_files_of` a record that is no manifest."""
    for problem in wrong_files_of(record, read_record(record)):
        raise PalimpsestError(problem)


def wrong_files_of(path: Path | str, record: Mapping[str, Any]) -> Iterator[str]:
    """As `wrong_files`, for a record that is no manifest: its files lie beside it, or in folders that are theirs."""
    files = dict(record.get("files", {}))
    yield from _wrong(Path(path), files)
    folders = {(Path(path).parent / name).parent for name in files} - {Path(path).parent}
    yield from _unlisted(Path(path), (file for folder in sorted(folders) for file in folder.rglob("*")), files)


def _wrong(record: Path, files: Mapping[str, str]) -> Iterator[str]:
    for name, expected in files.items():
        path = record.parent / name
        if not path.is_file():
            yield f"{path} is listed in {record} but missing: {remedy_for(record)}."
        elif sha256_file(path) != expected:
            what = "its manifest" if record.name == MANIFEST else str(record)
            yield f"{path} is not the file {what} names (truncated or altered): {remedy_for(record)}."


def _unlisted(record: Path, there: Iterable[Path], files: Mapping[str, str]) -> Iterator[str]:
    listed = {record, *(record.parent / name for name in files)}
    others = sorted(path for path in there if path not in listed and (path.is_symlink() or not path.is_dir()))
    if others:
        yield f"{others[0]} is not listed in {record}, and a loader may take it: remove it."
