"""A verdict as an in-toto Statement (v1) in a DSSE envelope: bound to the deployed file, signed, checked offline.

The statement names the file, the policy, the results that were read and the records that were asked, each by SHA-256,
so that it holds no text. What is signed is exactly that. It is no proof that the numbers were measured as said: for
that the run has to be repeated.
"""

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

from palimpsest.artefacts import (
    MANIFEST,
    REPOSITORY,
    hash_files,
    read_json,
    read_manifest,
    read_provenance,
    read_record,
    verify_files,
    write_json,
)
from palimpsest.errors import PalimpsestError
from palimpsest.files import sha256_file
from palimpsest.verdict.fixed import RECORD
from palimpsest.verdict.salted import corpus_hash, records_hash
from palimpsest.yaml_files import read_yaml

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:palimpsest:verdict:v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
PACKAGES = ("palimpsest", "numpy", "scipy")


def make_statement(verdict: Path, deployed: Sequence[Path], salt: bytes) -> dict[str, Any]:
    """The statement on the deployed files (folders stand for all files in them), from a folder that `palimpsest
    verdict --out` or `snakemake verdict` wrote. Raises PalimpsestError where one of them is missing, or where the
    verdict is on other files."""
    predicate = predicate_of(verdict)
    subjects = digests(deployed)
    judged = {digest for files in predicate["deployed"].values() for digest in files.values()}
    if judged and not judged & set(subjects.values()):
        raise PalimpsestError(
            f"{', '.join(map(str, deployed))} is none of the files that {verdict} is about (their SHA-256 are in its "
            "verdict.json, under `deployed`): sign the file that was judged."
        )
    predicate["records"] = records_hash(verdict, salt)
    if (verdict / MANIFEST).is_file():
        predicate |= {"corpus": corpus_hash(_results(verdict) / "corpus", salt), "study": _study(verdict)}
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in subjects.items()],
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }


def predicate_of(verdict: Path) -> dict[str, Any]:
    """What a statement says of a verdict, but for its records: no text, and of every file that was read the hash."""
    if (verdict / MANIFEST).is_file():
        verify_files(verdict)
    record = read_json(verdict / "verdict.json")
    if not isinstance(record, dict) or "verdict" not in record:
        raise PalimpsestError(
            f"{verdict / 'verdict.json'} is no verdict: give the --out folder of `palimpsest verdict`."
        )
    packages = sorted(f"{each.metadata['Name'].lower()}=={each.version}" for each in distributions())
    return {
        **{key: record[key] for key in ("verdict", "reason", "worst", "policy", "controls", "notes")},
        "deployed": record["deployed"],
        "formats": [{**one, "relapsed": len(one["relapsed"])} for one in record["formats"]],
        "inputs": {name: file["sha256"] for name, file in record["files"].items()},
        "environment": {
            "python": platform.python_version(),
            "system": platform.system(),
            "machine": platform.machine(),
            **{name: version(name) for name in PACKAGES},
            "packages_sha256": hashlib.sha256("\n".join(packages).encode()).hexdigest(),
        },
    }


def _study(verdict: Path) -> dict[str, Any]:
    """What it takes to run the study again: its settings, the policy that it fixed, and the code; and on what machines
    its models were made, for others may give other bits. verdict: the model's folder in `results/verdict`."""
    results = _results(verdict)
    return {
        "model": read_manifest(verdict)["model"],  # type: ignore[typeddict-item]  # what every manifest is about
        "params": read_yaml(results.parent / "params.yaml"),
        "policy": read_record(results / RECORD)["policy"],
        "code": commit_of(REPOSITORY),
        "machines": machines_of(results),
    }


def _results(verdict: Path) -> Path:
    """Of the study in whose results/verdict a folder lies."""
    return verdict.resolve().parents[1]


def commit_of(repository: Path) -> dict[str, Any]:
    """commit: of the code that is there, None outside git; changed: whether it differs from that commit."""

    def git(*arguments: str) -> str:
        return subprocess.check_output(["git", "-C", str(repository), *arguments], stderr=subprocess.DEVNULL, text=True)

    try:
        changed = git("status", "--porcelain", "--", "src", "workflow", "Snakefile", "profiles")
        return {"commit": git("rev-parse", "HEAD").strip(), "changed": bool(changed.strip())}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "changed": True}


def machines_of(results: Path) -> list[str]:
    """What computed the models of a study, each kind once: GPUs where they were used, else what torch used of the
    processor's instructions."""
    found = set()
    for noted in read_provenance(sorted((results / "models").rglob(MANIFEST))):
        torch = noted["machine"].get("torch", {})
        gpus = sorted(set(torch.get("gpus", [])))
        found.add(", ".join(gpus) or f"CPU, {noted['machine']['architecture']}, {torch.get('capability', 'unknown')}")
    return sorted(found)


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
    # in their order: that of methods, formats and metrics in params.yaml decides bits of what they make
    envelope = dsse.Envelope(json.dumps(statement).encode(), PAYLOAD_TYPE, {})
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


def other_records(predicate: Mapping[str, Any], verdict: Path, salt: bytes) -> list[str]:
    """A line where the records of a verdict, or the corpus of its study, are not those of a statement."""
    found = [] if records_hash(verdict, salt) == predicate["records"] else [f"the records of {verdict} are others."]
    if "corpus" in predicate and corpus_hash(_results(verdict) / "corpus", salt) != predicate["corpus"]:
        found.append(f"the corpus beside {verdict} is another.")
    return found


def verified(path: Path, key: Path) -> dict[str, Any]:
    """The statement in an envelope that was signed with this key; raises PalimpsestError for any other."""
    statement, problem = _verified(path, key)
    if problem:
        raise PalimpsestError(problem)
    return statement


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
