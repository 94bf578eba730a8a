"""Records: JSON that says what made it, and that is refused where it is not what its step wrote, or not where.

A record (a manifest, a score, what of an update survives, the audit) ends in a seal: its place below `results`, and the
SHA-256 of the rest. Whoever uses a record asks `read_record`, which refuses one that was edited after its step wrote it
or lies in another's place. That is integrity against slips (an edit by hand, exchanged folders, a broken disk), not
security: who can write the file can write the hash.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palimpsest.errors import PalimpsestError, first_line
from palimpsest.files import atomic_file, final_path

MANIFEST = "manifest.json"
ORIGIN = {"settings", "inputs", "code"}
"""What every record says of its origin."""
HASHES = {"inputs", "code", "files", "sources", "given"}
"""What a record holds as SHA-256 by path: a mapping, or, where DVC reads the file, a list of pairs."""
SEAL = "seal"
"""The key of a record that holds its place below `results` and its hash."""


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
        content = sealed(Path(path), content)
    with atomic_file(path) as draft:
        draft.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_record(path: Path | str) -> dict[str, Any]:
    """A JSON object; raises PalimpsestError when its seal says that it was edited, or belongs elsewhere.

    Without a seal it is taken as it is: `check_record` asks for one.
    """
    record = read_json(path)
    if not isinstance(record, dict):
        raise PalimpsestError(f"{path} is not a JSON object: {remedy_for(path)}.")
    if SEAL in record:
        check_seal(path, record)
    return record


def check_record(path: Path | str, record: Any) -> None:
    """Raise PalimpsestError unless the record that is at `path` says its origin, is whole, and lies where it belongs.

    Steps ask it of all that they are made from before they begin, and `palimpsest verify` of all that there is.
    """
    if not isinstance(record, dict):
        raise PalimpsestError(f"{path} is not a JSON object: {remedy_for(path)}.")
    if lacking := sorted(ORIGIN - record.keys()):
        raise PalimpsestError(f"{path} does not say which {lacking[0]} made it: {remedy_for(path)}.")
    if SEAL not in record:
        raise PalimpsestError(f"{path} has no hash of its own (an earlier version wrote it): {remedy_for(path)}.")
    check_seal(path, record)
    for part in ("settings", *sorted(HASHES & record.keys())):
        if not _is_list_of(record[part], str if part in HASHES else object):
            raise PalimpsestError(f"{path}: {part!r} is no list of what made it: {remedy_for(path)}.")


def check_seal(path: Path | str, record: Mapping[str, Any]) -> None:
    """Raise PalimpsestError where the record is not what its seal says, or not where."""
    seal = record[SEAL]
    if not isinstance(seal, Mapping) or not all(isinstance(seal.get(name), str) for name in ("place", "sha256")):
        raise PalimpsestError(f"{path} has a broken seal: {remedy_for(path)}.")
    found, wrong = _hash_of({name: value for name, value in record.items() if name != SEAL})
    if wrong or found != seal["sha256"]:
        raise PalimpsestError(f"{path} {wrong or 'was altered after its step wrote it'}: {remedy_for(path)}.")
    if another := _belongs_elsewhere(Path(path), record, Path(seal["place"]).parts):
        raise PalimpsestError(
            f"{path} is an artefact of {another}, which belongs elsewhere (were folders exchanged?): move it back to "
            f"results/{seal['place']}, or {remedy_for(path)}."
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


def sealed(path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """The record as it will be read, with its seal. Raises PalimpsestError for what JSON cannot hold."""
    content: dict[str, Any] = json.loads(json.dumps({name: value for name, value in record.items() if name != SEAL}))
    digest, wrong = _hash_of(content)
    if wrong:
        raise PalimpsestError(f"{path} cannot be written: it {wrong}.")
    return content | {SEAL: {"place": place_of(path), "sha256": digest}}


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


def remedy_for(path: Path | str) -> str:
    return f"run its step again, snakemake --cores all --forcerun {path}"


def place_of(path: Path) -> str:
    """Where a file will lie below `results` when all is written; empty for one that lies elsewhere."""
    below = below_results(final_path(path))
    return "" if below == final_path(path) else below.as_posix()


def below_results(path: Path) -> Path:
    parts = path.parts
    if "results" not in parts:
        return path
    # a method may be called results, too
    first = len(parts) - 1 - parts[::-1].index("results") if path.is_absolute() else parts.index("results")
    return Path(*parts[first + 1 :])
