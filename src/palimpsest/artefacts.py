"""How artefacts reach the disk: whole or not at all, each with a manifest that says what made it."""

import glob
import hashlib
import json
import os
import platform
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from palimpsest.errors import PalimpsestError

MANIFEST = "manifest.json"
REPOSITORY = Path(__file__).resolve().parents[2]
"""Where the library lies: it is installed from a clone, in place."""


def read_json(path: Path | str) -> Any:
    """The parsed file; raises PalimpsestError when it is missing or is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PalimpsestError(f"{path} does not exist: run the step that writes it, or correct the path.") from None
    except json.JSONDecodeError as error:
        raise PalimpsestError(
            f"{path} is not valid JSON ({error}): delete it and run the step that writes it."
        ) from None


def write_json(path: Path | str, content: Any) -> None:
    """Write atomically."""
    with atomic_file(path) as draft:
        draft.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on success it replaces `path`, on any error it is removed.

    A reader sees the old file or the new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path | str) -> Iterator[Path]:
    """Yield an empty folder beside `path`; on success it replaces `path`, on any error it is removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    drafts = f".{glob.escape(path.name)}.{32 * '[0-9a-f]'}"  # none of NAME.g32: another step may be writing it
    for abandoned in path.parent.glob(drafts):  # by a killed run: one step at a time writes `path`
        shutil.rmtree(abandoned)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    draft.mkdir()
    try:
        yield draft
        if path.exists():
            shutil.rmtree(path)
        os.replace(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(folder: Path, skip: Iterable[str] = (MANIFEST,)) -> dict[str, str]:
    """SHA-256 of every file below `folder` by relative path, the manifest left out."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in set(skip))
    return {str(path.relative_to(folder)): sha256_file(path) for path in files}


def hash_sources(*sources: str | Mapping[str, str] | None) -> dict[str, dict[str, str]]:
    """{"sources": SHA-256 of every file of those that lie here, by its path}, hidden ones left out; {} where none does.

    sources: values of params.yaml that may be paths;
    of a mapping its values, of the keyword `scratch` and of None nothing.
    """
    hashes: dict[str, str] = {}
    names = [name for each in sources for name in (each.values() if isinstance(each, Mapping) else [each])]
    for source in (Path(name) for name in names if name not in (None, "", "scratch")):
        files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
        shown = (file for file in files if not any(part.startswith(".") for part in file.relative_to(source).parts))
        hashes |= {str(file): sha256_file(file) for file in shown}
    return {"sources": hashes} if hashes else {}


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
        """The key, the settings, and the SHA-256 of each input
        (by its path below `results`) and file of code (in the repository).

        The hashes of inputs chain the artefacts together.
        """
        return {
            **self.key,
            "settings": dict(self.settings),
            "inputs": {str(_below_results(Path(path))): sha256_file(path) for path in self.inputs},
            "code": {_in_repository(path): sha256_file(path) for path in self.code},
        }


def write_manifest(folder: Path, origin: Origin, **fields: Any) -> None:
    """Write `folder/manifest.json`: the given fields, the hash of every file in the folder and what made it.

    packages: their versions are noted; versions: of packages that are installed elsewhere.

    No time stamps and no host names: two runs of the same step give the same manifest,
    and a reproducibility audit compares them.
    """
    packages = fields.pop("packages", ("torch", "transformers"))
    versions = {"python": platform.python_version(), "palimpsest": version("palimpsest")}
    versions |= {package: version(package) for package in packages} | fields.pop("versions", {})
    write_json(folder / MANIFEST, fields | origin.record() | {"versions": versions, "files": hash_files(folder)})


def _below_results(path: Path) -> Path:
    parts = path.parts
    return Path(*parts[parts.index("results") + 1 :]) if "results" in parts else path


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
    path; sources: of the user's own files. files: SHA-256 of each file in the folder, by its path there. versions: of
    packages. proof: of a quantized file, that it holds what it should.
    """

    settings: dict[str, Any]
    inputs: dict[str, str]
    code: dict[str, str]
    versions: dict[str, str]
    files: dict[str, str]
    sources: NotRequired[dict[str, str]]
    proof: NotRequired[dict[str, Any]]


def read_manifest(folder: Path | str) -> Manifest:
    manifest: Manifest = read_json(Path(folder) / MANIFEST)
    return manifest


def verify_files(folder: Path | str) -> None:
    """Compare every file with the hash in the manifest;
    raises PalimpsestError that names the file that is missing or altered."""
    folder = Path(folder)
    remedy = f"run the step that writes it again, snakemake --cores all --forcerun {folder / MANIFEST}"
    for name, expected in read_manifest(folder)["files"].items():
        path = folder / name
        if not path.exists():
            raise PalimpsestError(f"{path} is listed in {folder / MANIFEST} but missing: {remedy}")
        if sha256_file(path) != expected:
            raise PalimpsestError(f"{path} is not the file its manifest names (truncated or altered): {remedy}")
