"""Does every artefact match its hashes, its inputs, today's params.yaml and today's code?

Snakemake and DVC each keep their own record of what is up to date, and the two can disagree (after a `dvc checkout`,
say). The artefacts' own records are the third witness: each says which settings (by their place in params.yaml), which
inputs and which code made the files beside it. Nothing here knows one step from another: what a step's record says is
held to what is there today.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from palimpsest.artefacts import (
    MANIFEST,
    ORIGIN,
    PROVENANCE,
    REPOSITORY,
    LocalSource,
    check_record,
    provenance_of,
    read_json,
    read_record,
    sha256_file,
    wrong_files,
    wrong_files_of,
)
from palimpsest.audit.records import has_retrain
from palimpsest.errors import PalimpsestError
from palimpsest.study.attacked import Plan
from palimpsest.study.params import LATER, expanded, setting, with_current_names
from palimpsest.study.sources import marked
from palimpsest.vocabulary import RETRAIN, TARGET

AUDIT = "audit.json"
BESIDE = ("attacks", "report", "verdict")
"""The blocks of params.yaml that decide attacks, the page or the verdict, not the audit. Its record has all others."""
LAST = (AUDIT, "figures.json", "report.json")
"""The records that every study ends in: of the audit with its table, of the charts, and of the page."""
WITHOUT_RECORDS = ("logs", "benchmarks", "figures", PROVENANCE)
"""Folders of results in which no record of an artefact lies: that of the charts lies beside theirs, what is in
`provenance` belongs to the records elsewhere, and the others decide nothing."""


def parts_of(results: Path) -> list[str]:
    """What lies in `results` and has records: the folders of the steps, and what every study ends in."""
    folders = sorted(path.name for path in results.glob("*") if path.is_dir() and not path.name.startswith("."))
    return [name for name in folders if name not in WITHOUT_RECORDS] + list(LAST)


def problems(
    results: Path, params: Mapping[str, Any], parts: Sequence[str] | None = None, repository: Path = REPOSITORY
) -> list[str]:
    """One line for each artefact that is altered, out of place, or made with other settings, inputs or code than are
    there now, for each file that belongs to no artefact, and for each part that lacks records.

    parts: names of folders (and files) in `results`, whose records are checked; None: all. An artefact that is missing
    shows in what is made from it, in the end in the audit, which is made from all. repository: where the code lies.
    """
    hashes = _Hashes()
    study = marked(_study_of(params, results.parent), results.parent, hashes.__getitem__)
    found: list[str] = []
    strays: list[Path] = []
    for part in parts_of(results):
        wanted = parts is None or part in parts
        paths, gone = _contents(results / part)
        for path in paths:
            try:
                record = read_json(path)
                if not _is_of(study, record):
                    gone.append(path)
                elif wanted:
                    check_record(path, record)
                    found += _check_record(path, record, results, study, repository, hashes)
            except (PalimpsestError, OSError) as error:
                if wanted:
                    found.append(str(error))
        strays += _topmost(gone, set(paths).difference(gone), results / part)
    for part in parts or LAST:
        if not (results / part).exists():
            found.append(f"{results / part} does not exist: run the step that writes it, snakemake --cores all.")
    if strays:
        listed = " ".join(map(str, strays))
        found.append(f"no artefact of this params.yaml (an earlier study's, or a killed run's): rm -r {listed}")
    return found


def _study_of(params: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The params by today's names, with a method for each model and a quantizer for each file; raises PalimpsestError
    for a key that this needs. folder: of the study."""
    for key in ("methods", "seeds", "quantizers"):
        if key not in params:
            raise PalimpsestError(f"params.yaml lacks the key {key!r}: add it, `snakemake -n` says where it belongs.")
    return expanded(with_current_names(params)[0], folder)


def _contents(part: Path) -> tuple[list[Path], list[Path]]:
    """(manifests and records, what belongs to none of them) of a part of the results.
    A manifest's folder is its own."""
    if part.name in LAST:
        return ([part] if part.is_file() else []), []
    if (part / MANIFEST).is_file():
        return [part / MANIFEST], []
    records: list[Path] = []
    strays: list[Path] = []
    for child in sorted(part.iterdir()) if part.is_dir() else ():
        if child.is_file():
            (records if child.suffix == ".json" and not child.name.startswith(".") else strays).append(child)
            continue
        below = _contents(child)
        if child.name.startswith(".") or not below[0]:  # a killed run's draft, or a folder in which no record is left
            strays.append(child)
        else:
            records += below[0]
            strays += below[1]
    return records, strays


def _check_record(
    path: Path,
    record: Mapping[str, Any],
    results: Path,
    study: Mapping[str, Any],
    repository: Path,
    hashes: Mapping[Path, str],
) -> Iterator[str]:
    yield from _check_settings(path, dict(record["settings"]), study, dict(record.get("given", {})))
    yield from wrong_files(path.parent, record) if path.name == MANIFEST else wrong_files_of(path, record)
    yield from _check_sources(path, record, "inputs", results, hashes)
    yield from _check_sources(path, record, "code", repository, hashes)
    yield from _check_provenance(path, hashes)
    yield from _check_given(path, record, study, results.parent, hashes)


def _is_of(study: Mapping[str, Any], record: Any) -> bool:
    """Whether this is a record, and not of a model, seed or precision that the study lacks.

    A folder whose step failed has lost its manifest: what is left there may be JSON, and tells nothing of its origin.
    """
    if not isinstance(record, dict) or not record.keys() & ORIGIN:
        return False
    known = {
        "model": [TARGET, *([RETRAIN] if has_retrain(study) else []), *study["methods"], *_attacked(study)],
        "seed": study["seeds"],
        "precision": list(study["quantizers"]),
    }
    return all(record[name] in known[name] for name in known if name in record)


def _attacked(study: Mapping[str, Any]) -> list[str]:
    """The names of attacked models."""
    if not study.get("attacks") or "models" not in study:
        return []
    plan = Plan(study)
    return [*plan.before, *plan.after]


def _topmost(gone: Sequence[Path], own: Set[Path], part: Path) -> list[Path]:
    """The folders and files to remove: as far up in the part as nothing of the study's own lies below."""
    holders = {parent for path in own for parent in path.parents}
    places = []
    for path in gone:
        place = path.parent if path.name == MANIFEST else path
        while place.parent != part and place.parent not in holders:
            place = place.parent
        places.append(place)
    return list(dict.fromkeys(places))


def _check_settings(
    path: Path, settings: Mapping[str, Any], study: Mapping[str, Any], given: Mapping[str, str]
) -> Iterator[str]:
    """given: hashes of what lay at the paths among the settings."""
    for key, made in settings.items():
        try:
            wanted = setting(study, key)
        except KeyError:
            yield f"{path} was made with {key}, which this params.yaml lacks: {_remedy(path)}."
            continue
        if differing := _difference(_moved(made, wanted, key, given), wanted, key.replace("/", ".")):
            yield f"{path} was made with {differing}: {_remedy(path)}."
            return
    gained = [key for key in study if key not in {*settings, *BESIDE} and (key not in LATER or study[key] is not None)]
    if path.name == AUDIT and gained:
        yield f"{path} was made without {gained[0]}, which params.yaml has: {_remedy(path)}."


class _Hashes(dict[Path, str]):
    """SHA-256 of each file, computed once; "" where there is none."""

    def __missing__(self, path: Path) -> str:
        self[path] = sha256_file(path) if path.is_file() else ""
        return self[path]


def _remedy(path: Path) -> str:
    return f"run its step again, snakemake --cores all --forcerun {path}"


def _check_sources(
    path: Path, record: Mapping[str, Any], kind: str, folder: Path, hashes: Mapping[Path, str]
) -> Iterator[str]:
    """kind: "inputs" or "code", which the record holds by their path below `folder`, with the hash that each had."""
    for name, digest in dict(record[kind]).items():
        source = folder / name if kind == "inputs" else Path(name)
        if hashes[folder / name] != digest:
            yield f"{path} was made {'from' if kind == 'inputs' else 'by'} another {source}: {_remedy(path)}."


def _check_given(
    path: Path, record: Mapping[str, Any], study: Mapping[str, Any], folder: Path, hashes: Mapping[Path, str]
) -> Iterator[str]:
    """The user's own files, of which those that are no longer there are not missed: the artefact holds what was taken
    from them. folder: of the study."""
    for name, digest in dict(record.get("sources", {})).items():
        if (folder / name).exists() and hashes[folder / name] != digest:
            yield f"{path} was made from another {name}: {_remedy(path)}."
            return
    for place, digest in dict(record.get("given", {})).items():
        source = setting(study, place) if _has(study, place) else None
        if isinstance(source, LocalSource) and source.digest != digest:
            yield f"{path} was made from another content of {source} ({place.replace('/', '.')}): {_remedy(path)}."
            return


def _has(study: Mapping[str, Any], place: str) -> bool:
    try:
        setting(study, place)
    except KeyError:
        return False
    return True


def _check_provenance(path: Path, hashes: Mapping[Path, str]) -> Iterator[str]:
    """What a record was made with can be read, where it is noted; of a folder, which cannot be had again in seconds, it
    is noted, and of no other."""
    file = provenance_of(path)
    if file is None or not (file.exists() or path.name == MANIFEST):
        return
    if not file.exists():
        yield f"{path} does not say what it was made with: {file} is missing, restore it or {_remedy(path)}."
        return
    try:
        noted = read_record(file)
    except PalimpsestError as error:
        yield str(error)
        return
    if path.name == MANIFEST and noted.get("sha256") != hashes[path]:
        yield f"{file} tells of another {path}: {_remedy(path)}."


def _moved(made: Any, wanted: Any, place: str, given: Mapping[str, str]) -> Any:
    """The setting as it was, but with today's path of a source whose content was noted: that is what counts, and
    `_check_given` compares it."""
    if isinstance(made, Mapping) and isinstance(wanted, Mapping):
        return {key: _moved(value, wanted.get(key), f"{place}/{key}", given) for key, value in made.items()}
    return wanted if isinstance(wanted, LocalSource) and place in given else made


def _difference(made: Any, wanted: Any, key: str = "") -> str:
    """The first setting that differs, in words; empty when none does."""
    if isinstance(made, Mapping) and isinstance(wanted, Mapping):
        for name in [*wanted, *(name for name in made if name not in wanted)]:
            found = _difference(made.get(name), wanted.get(name), f"{key}.{name}" if key else name)
            if found:
                return found
        return ""
    said = str(wanted) if isinstance(wanted, LocalSource) else wanted
    return "" if made == wanted else f"{key} = {made!r}, params.yaml says {said!r}"
