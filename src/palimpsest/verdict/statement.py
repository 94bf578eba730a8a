"""A verdict as an in-toto Statement (v1) in a DSSE envelope: bound to the deployed file, signed, checked offline.

The statement names the file, the policy, the results that were read and the records that were asked, each by SHA-256,
so that it holds no text. What is signed is exactly that. It is no proof that the numbers were measured as said: for
that the run has to be repeated.
"""

import csv
import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from palimpsest.artefacts import hash_files, read_json, write_json
from palimpsest.errors import PalimpsestError
from palimpsest.files import sha256_file

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:palimpsest:verdict:v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
SALT = "records.salt"
PACKAGES = ("palimpsest", "numpy", "scipy")


def make_statement(verdict: Path, deployed: Sequence[Path]) -> dict[str, Any]:
    """The statement on the deployed files (folders stand for all files in them), from a folder that `palimpsest
    verdict --out` wrote. Raises PalimpsestError where one of them is missing."""
    record = read_json(verdict / "verdict.json")
    if not isinstance(record, dict) or "verdict" not in record:
        raise PalimpsestError(
            f"{verdict / 'verdict.json'} is no verdict: give the --out folder of `palimpsest verdict`."
        )
    predicate = {key: record[key] for key in ("verdict", "reason", "worst", "policy", "controls", "notes")}
    predicate |= {
        "formats": [{**one, "relapsed": len(one["relapsed"])} for one in record["formats"]],
        "inputs": {name: file["sha256"] for name, file in record["files"].items()},
        "records": {"count": len(_rows(verdict)), "salted_sha256": records_hash(verdict)},
        "environment": {
            "python": platform.python_version(),
            "system": platform.system(),
            "machine": platform.machine(),
            **{name: version(name) for name in PACKAGES},
        },
    }
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in digests(deployed).items()],
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }


def records_hash(verdict: Path) -> str:
    """SHA-256 over the rows of records.csv, each hashed with the folder's salt first, in whatever order they stand.

    The salt is drawn once and stays in the folder: without it nobody can find out by guessing which records were asked.
    """
    path = verdict / SALT
    if not path.is_file():
        path.write_text(os.urandom(32).hex(), encoding="ascii")
    salt = bytes.fromhex(path.read_text(encoding="ascii").strip())
    leaves = sorted(hashlib.sha256(salt + json.dumps(row).encode()).hexdigest() for row in _rows(verdict))
    return hashlib.sha256("".join(leaves).encode()).hexdigest()


def digests(files: Sequence[Path]) -> dict[str, str]:
    """SHA-256 by name: of a file, or of every file in a folder by its path in it."""
    found: dict[str, str] = {}
    for given in files:
        if given.is_file():
            parts = {given.name: sha256_file(given)}
        elif given.is_dir():
            parts = {f"{given.name}/{name}": digest for name, digest in hash_files(given, skip=()).items()}
        else:
            raise PalimpsestError(f"{given} does not exist: give the file or folder that is deployed.")
        if not parts or found.keys() & parts.keys():
            raise PalimpsestError(f"{given} is empty, or another file has its name: give each deployed file once.")
        found |= parts
    return found


def sign(statement: Mapping[str, Any], key: Path, path: Path) -> None:
    """Write the DSSE envelope. key: a private key in PEM (Ed25519, ECDSA or RSA), not encrypted."""
    dsse, signer = _library()
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = load_pem_private_key(key.read_bytes(), None)
        signs = signer.CryptoSigner(private)  # type: ignore[arg-type]
    except (ValueError, TypeError) as error:
        raise PalimpsestError(
            f"{key} is no private key in PEM without a passphrase: make one, openssl genpkey -algorithm ed25519."
        ) from error
    envelope = dsse.Envelope(json.dumps(statement, sort_keys=True).encode(), PAYLOAD_TYPE, {})
    envelope.sign(signs)
    write_json(path, envelope.to_dict())


def check(path: Path, deployed: Sequence[Path], key: Path) -> list[str]:
    """What differs between a statement and the deployed files, a line each; empty where all is as it was signed.

    key: the signer's public key in PEM. Raises PalimpsestError for a file that is no envelope or no key.
    """
    statement, problem = _verified(path, key)
    if problem:
        return [problem]
    stated = {subject["name"]: subject["digest"]["sha256"] for subject in statement["subject"]}
    found = digests(deployed)
    lines = [
        f"{name} is not the file that the statement is about (its SHA-256 differs)."
        for name in stated
        if name in found and found[name] != stated[name]
    ]
    lines += [f"{name}, which the statement is about, was not given." for name in stated if name not in found]
    lines += [f"{name} is not in the statement." for name in found if name not in stated]
    return lines


def stated(path: Path) -> dict[str, Any]:
    """The statement in an envelope, whoever signed it: for display only, after `check`."""
    payload = json.loads(_envelope(path).payload)
    if not isinstance(payload, dict) or payload.get("_type") != STATEMENT_TYPE:
        raise PalimpsestError(f"{path} holds no in-toto Statement (v1): give the file that `palimpsest sign` wrote.")
    return payload


def _verified(path: Path, key: Path) -> tuple[dict[str, Any], str]:
    _, signer = _library()
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.exceptions import VerificationError

    try:
        public = signer.SSlibKey.from_crypto(load_pem_public_key(key.read_bytes()))  # type: ignore[arg-type]
    except (ValueError, TypeError) as error:
        raise PalimpsestError(f"{key} is no public key in PEM: openssl pkey -in KEY -pubout makes it.") from error
    envelope = _envelope(path)
    # an envelope names keys by an id that anyone can write; what counts is that this key made one of the signatures
    for signature in envelope.signatures.values():
        envelope.signatures = {public.keyid: signer.Signature(public.keyid, signature.signature)}
        try:
            envelope.verify([public], 1)
            return stated(path), ""
        except VerificationError:
            continue
    return {}, f"{path} was altered, or signed with another key than {key}."


def _envelope(path: Path) -> Any:
    dsse, _ = _library()
    content = read_json(path)
    try:
        envelope = dsse.Envelope.from_dict(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PalimpsestError(f"{path} is no DSSE envelope: give the file that `palimpsest sign` wrote.") from error
    if envelope.payload_type != PAYLOAD_TYPE:
        raise PalimpsestError(f"{path} holds {envelope.payload_type}, no in-toto Statement.")
    return envelope


def _library() -> tuple[Any, Any]:
    try:
        from securesystemslib import dsse, signer
    except ImportError as error:
        raise PalimpsestError("signing needs securesystemslib: pip install 'palimpsest[sign]'.") from error
    return dsse, signer


def _rows(verdict: Path) -> list[list[str]]:
    with open(verdict / "records.csv", newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]
