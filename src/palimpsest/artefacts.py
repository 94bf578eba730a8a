"""How artefacts reach the disk: whole or not at all, each with a record that says what made it and where it belongs.

A record (a manifest, a score, what of an update survives, the audit) ends in a seal: its place below `results`, and the
SHA-256 of the rest. Whoever uses a record asks `read_record`, which refuses one that was edited after its step wrote it
or lies in another's place. That is integrity against slips (an edit by hand, exchanged folders, a broken disk), not
security: who can write the file can write the hash.
"""

import errno
import glob
import hashlib
import json
import os
import platform
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, NotRequired, TypedDict, cast

from safetensors import SafetensorError

from palimpsest.errors import PalimpsestError, first_line
from palimpsest.machine import facts
from palimpsest.vocabulary import PRETRAINED, SCRATCH

MANIFEST = "manifest.json"
PROVENANCE = "provenance"
"""The folder of results that says what each record was made with."""
REPOSITORY = Path(__file__).resolve().parents[2]
"""Where the library lies: it is installed from a clone, in place."""


ORIGIN = {"settings", "inputs", "code"}
"""What every record says of its origin."""
HASHES = {"inputs", "code", "files", "sources", "given"}
"""What a record holds as SHA-256 by path: a mapping, or, where DVC reads the file, a list of pairs."""
SEAL = "seal"
"""The key of a record that holds its place below `results` and its hash."""
DRAFT = re.compile(r"\.(.+)\.[0-9a-f]{32}")
"""The name of a file or folder that is being written, whose own name is the group."""


def read_json(path: Path | str) -> Any:
    """The parsed file; raises PalimpsestError when it is missing, cannot be read, or is not JSON in UTF-8."""
    try:
        return json.loads(Path(path).read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise PalimpsestError(f"{path} does not exist: run the step that writes it, or correct the path.") from None
    except OSError as error:
        raise PalimpsestError(f"{path} cannot be read ({error.strerror}): mend that, or correct the path.") from None
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is not UTF-8"
    except json.JSONDecodeError as error:
        reason = str(error)
    except RecursionError:
        reason = "nested too deeply"
    except ValueError as error:  # a whole number of thousands of digits
        reason = first_line(error)
    raise PalimpsestError(f"{path} is not valid JSON ({reason}): run the step that writes it again, or mend the file.")


def write_json(path: Path | str, content: Any) -> None:
    """Write atomically. A record, which says its origin, is sealed."""
    if isinstance(content, Mapping) and content.keys() >= ORIGIN:
        content = _sealed(Path(path), content)
    with atomic_file(path) as draft:
        draft.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_record(path: Path | str) -> dict[str, Any]:
    """A JSON object; raises PalimpsestError when its seal says that it was edited, or belongs elsewhere.

    Without a seal it is taken as it is: `check_record` asks for one.
    """
    record = read_json(path)
    if not isinstance(record, dict):
        raise PalimpsestError(f"{path} is not a JSON object: {_remedy(path)}.")
    if SEAL in record:
        check_seal(path, record)
    return record


def check_record(path: Path | str, record: Any) -> None:
    """Raise PalimpsestError unless the record that is at `path` says its origin, is whole, and lies where it belongs.

    Steps ask it of all that they are made from before they begin, and `palimpsest verify` of all that there is.
    """
    if not isinstance(record, dict):
        raise PalimpsestError(f"{path} is not a JSON object: {_remedy(path)}.")
    if lacking := sorted(ORIGIN - record.keys()):
        raise PalimpsestError(f"{path} does not say which {lacking[0]} made it: {_remedy(path)}.")
    if SEAL not in record:
        raise PalimpsestError(f"{path} has no hash of its own (an earlier version wrote it): {_remedy(path)}.")
    check_seal(path, record)
    for part in ("settings", *sorted(HASHES & record.keys())):
        if not _is_list_of(record[part], str if part in HASHES else object):
            raise PalimpsestError(f"{path}: {part!r} is no list of what made it: {_remedy(path)}.")


def check_seal(path: Path | str, record: Mapping[str, Any]) -> None:
    """Raise PalimpsestError where the record is not what its seal says, or not where."""
    seal = record[SEAL]
    if not isinstance(seal, Mapping) or not all(isinstance(seal.get(name), str) for name in ("place", "sha256")):
        raise PalimpsestError(f"{path} has a broken seal: {_remedy(path)}.")
    found, wrong = _hash_of({name: value for name, value in record.items() if name != SEAL})
    if wrong or found != seal["sha256"]:
        raise PalimpsestError(f"{path} {wrong or 'was altered after its step wrote it'}: {_remedy(path)}.")
    if another := _belongs_elsewhere(Path(path), record, Path(seal["place"]).parts):
        raise PalimpsestError(
            f"{path} is an artefact of {another}, which belongs elsewhere (were folders exchanged?): move it back to "
            f"results/{seal['place']}, or {_remedy(path)}."
        )


def _belongs_elsewhere(path: Path, record: Mapping[str, Any], place: tuple[str, ...]) -> str:
    """Whose record it is, where the path is another's; empty where all is right. place: of the seal, in parts."""
    if not place:
        return ""
    here = Path(*Path(os.path.abspath(path)).parts[-len(place) :])  # not resolved: DVC may link into its cache
    words = [*here.parts[1:-1], *([] if here.name == MANIFEST else [here.stem]), "", "", ""]
    key = [name for name in ("model", "seed", "precision") if name in record]
    for name, word in zip(key, words, strict=False):
        if word != (f"seed{record[name]}" if name == "seed" else record[name]):
            return f"{name} {record[name]!r}"
    return "" if here.parts == place else Path(*place).as_posix()


def _is_list_of(pairs: Any, kind: type) -> bool:
    """Whether this is a mapping from names, or a list of its pairs, to values of that type."""
    try:
        entries = dict(pairs)
    except (TypeError, ValueError):
        return False
    return all(isinstance(name, str) and "\0" not in name and isinstance(entries[name], kind) for name in entries)


def _sealed(path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """The record as it will be read, with its seal. Raises PalimpsestError for what JSON cannot hold."""
    content: dict[str, Any] = json.loads(json.dumps({name: value for name, value in record.items() if name != SEAL}))
    digest, wrong = _hash_of(content)
    if wrong:
        raise PalimpsestError(f"{path} cannot be written: it {wrong}.")
    return content | {SEAL: {"place": _place(path), "sha256": digest}}


def _hash_of(content: Mapping[str, Any]) -> tuple[str, str]:
    """(SHA-256 of what a record says, whatever the white space and the order of its keys; or why there is none)."""
    try:
        text = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8")).hexdigest(), ""
    except UnicodeEncodeError:
        return "", "holds text that is not Unicode (a lone surrogate)"
    except ValueError:
        return "", "holds a number that is not finite"
    except RecursionError:
        return "", "is nested too deeply"


def _remedy(path: Path | str) -> str:
    return f"run its step again, snakemake --cores all --forcerun {path}"


@contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on success it replaces `path`, on any error it is removed.

    A reader sees the old file or the new one. Drafts of killed runs go: one step at a time writes `path`.
    """
    draft = _new_draft(Path(path))
    try:
        with _naming(path):
            yield draft
            os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path | str) -> Iterator[Path]:
    """Yield an empty folder beside `path`; on success it replaces `path`, on any error it is removed."""
    path = Path(path)
    draft = _new_draft(path)
    try:
        with _naming(path):
            draft.mkdir()
            yield draft
            if path.exists():
                shutil.rmtree(path)
            os.replace(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _new_draft(path: Path) -> Path:
    """A new name beside `path`, whose folder is made and cleared of the drafts of `path` that killed runs left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drafts = f".{glob.escape(path.name)}.{32 * '[0-9a-f]'}"  # none of NAME.g32: another step may be writing it
    for abandoned in path.parent.glob(drafts):
        if abandoned.is_dir() and not abandoned.is_symlink():
            shutil.rmtree(abandoned)
        else:
            abandoned.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}")


FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
SAID_OF_IT = re.compile(r"(?i:os error|errno)\W*(\d+)|\d+ requested and \d+ written|unexpected pos \d+ vs \d+")
"""How libraries that write by themselves say it: Rust's and Arrow's with the number, NumPy's, torch's."""


@contextmanager
def _naming(path: Path | str) -> Iterator[None]:
    """Within it the error of a full disk names what could not be written: the system's says nothing of the file."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        number = error.errno if isinstance(error, OSError) else None
        if number is None and (said := SAID_OF_IT.search(str(error))):
            number = int(said[1]) if said[1] else errno.ENOSPC
        if number not in FULL_DISK:
            raise
        reason = f"{os.strerror(number)}; make room and run it again: what is done is kept"
        raise OSError(number, reason, str(path)) from error


def sha256_file(path: Path | str) -> str:
    """SHA-256 of a file, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def content_hash(hashes: Mapping[str, str]) -> str:
    """Of files by their names below a source, one hash; a single file's name, which is ".", counts as little as its
    place."""
    lines = [f"{hashes[name]} {name}\n" for name in sorted(hashes)]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def files_below(source: Path) -> list[Path]:
    """The file itself, or all files of a folder, links to folders followed, hidden ones left out; none where nothing
    is there."""
    if source.is_file():
        return [source]
    files: list[Path] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(source, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else [name for name in folders if not name.startswith(".")]
        if real not in seen:
            files += [Path(place, name) for name in names if not name.startswith(".")]
        seen.add(real)
    return sorted(path for path in files if path.is_file())


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
            "inputs": {str(_below_results(Path(path))): sha256_file(path) for path in self.inputs},
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
    made_with = {"python": platform.python_version(), "palimpsest": version("palimpsest")}
    made_with |= {package: version(package) for package in packages} | dict(versions)
    noted = {"record": _place(Path(record)), "sha256": sha256_file(record), "versions": made_with, "machine": facts()}
    write_json(file, _sealed(file, noted))


def provenance_of(record: Path) -> Path | None:
    """Where it is noted what a record was made with; None for one outside `results`."""
    place = Path(_place(record))
    if not place.parts:
        return None
    below = place.parent if place.name == MANIFEST else place.with_suffix("")
    final = _final(record)
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


def _final(path: Path) -> Path:
    """The path as it is when all is written."""
    return Path(*(named[1] if (named := DRAFT.fullmatch(part)) else part for part in path.parts))


def _place(path: Path) -> str:
    """Where a file will lie below `results` when all is written; empty for one that lies elsewhere."""
    below = _below_results(_final(path))
    return "" if below == _final(path) else below.as_posix()


def _below_results(path: Path) -> Path:
    parts = path.parts
    if "results" not in parts:
        return path
    # a method may be called results, too
    first = len(parts) - 1 - parts[::-1].index("results") if path.is_absolute() else parts.index("results")
    return Path(*parts[first + 1 :])


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

    Every step hashes what it reads, each time: a tenth of what loading takes, and no note of an earlier hash can be
    out of date.
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
            yield f"{path} is listed in {record} but missing: {_remedy(record)}."
        elif sha256_file(path) != expected:
            what = "its manifest" if record.name == MANIFEST else str(record)
            yield f"{path} is not the file {what} names (truncated or altered): {_remedy(record)}."


def _unlisted(record: Path, there: Iterable[Path], files: Mapping[str, str]) -> Iterator[str]:
    listed = {record, *(record.parent / name for name in files)}
    others = sorted(path for path in there if path not in listed and (path.is_symlink() or not path.is_dir()))
    if others:
        yield f"{others[0]} is not listed in {record}, and a loader may take it: remove it."
