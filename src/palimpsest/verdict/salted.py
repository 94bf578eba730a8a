"""Hashes of records that give none of them away: each is hashed with a salt first, which only its keeper has.

Text of a few words can be found out from its plain hash by guessing. Who is given the salt can recompute the hash and
so check that a statement is about these records.
"""

import csv
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypedDict

from palimpsest.artefacts import MANIFEST, read_json, verify_files
from palimpsest.errors import PalimpsestError

SALT = "records.salt"


class Salted(TypedDict):
    """count: of records; salted_sha256: over the salted hash of each, in whatever order they stand."""

    count: int
    salted_sha256: str


def salt_beside(verdict: Path, statement: Path) -> Path:
    """Where the salt of a statement is kept: in the verdict's folder, or beside the statement where that folder is an
    artefact of a study, in which nothing may be added."""
    return statement.with_suffix(".salt") if (verdict / MANIFEST).is_file() else verdict / SALT


def read_salt(path: Path, draw: bool = False) -> bytes:
    """The salt in a file; draw: make one where there is none. Raises PalimpsestError for a file that is no salt."""
    if draw and not path.exists():
        path.write_text(os.urandom(32).hex(), encoding="ascii")
    try:
        return bytes.fromhex(path.read_text(encoding="ascii").strip())
    except ValueError as error:
        raise PalimpsestError(f"{path} is no salt: give the file that `palimpsest sign` wrote.") from error


def records_hash(verdict: Path, salt: bytes) -> Salted:
    """Of the rows of records.csv."""
    with open(verdict / "records.csv", newline="", encoding="utf-8") as file:
        return _salted(list(csv.reader(file))[1:], salt)


def corpus_hash(corpus: Path, salt: bytes) -> Salted:
    """Of every text, prompt and question of a study's corpus, with the file that it stands in.

    corpus: the folder `results/corpus`, whose files must be those of its manifest.
    """
    verify_files(corpus)
    rows = [
        [path.relative_to(corpus).as_posix(), row]
        for path in sorted(corpus.rglob("*.json"))
        if path.name != MANIFEST
        for row in read_json(path)
    ]
    return _salted(rows, salt)


def _salted(rows: Iterable[Any], salt: bytes) -> Salted:
    leaves = sorted(hashlib.sha256(salt + json.dumps(row).encode()).hexdigest() for row in rows)
    return {"count": len(leaves), "salted_sha256": hashlib.sha256("".join(leaves).encode()).hexdigest()}
