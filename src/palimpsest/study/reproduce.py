"""A signed verdict, made again: the stated code in a clean clone, the stated settings, and the results compared.

On a CPU with the same kernels a study gives the same bits, so there its verdict, and the audit with the hash of every
score, must be the same. Another machine rounds in another order: there the verdicts must be the same words, and the
numbers lie within a tolerance.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from palimpsest.artefacts import REPOSITORY
from palimpsest.errors import PalimpsestError
from palimpsest.study.sources import sources_of
from palimpsest.verdict.salted import corpus_hash, read_salt
from palimpsest.verdict.statement import machines_of, predicate_of

POLICY = "policy.yaml"
SHARES = ("retained_full", "retained", "rise")
STATED = ("verdict", "reason", "worst", "policy", "formats", "controls", "deployed", "inputs")
"""What must be the same, to the bit, on the same kind of machine."""


@dataclass(frozen=True)
class Repeat:
    """How a study is made again.

    folder: a new one, for the clone; repository: what is cloned; data: the folder to which paths in params.yaml are
    relative; cores: of Snakemake; tolerance: points, of a machine that rounds otherwise.
    """

    folder: Path
    repository: str = str(REPOSITORY)
    data: Path = Path()
    cores: int = 1
    tolerance: float = 5.0


def reproduce(predicate: Mapping[str, Any], how: Repeat, salt: Path | None = None) -> tuple[list[str], str]:
    """(what differs, a line each; how it was compared) of a statement's predicate and the study made again.

    salt: what `palimpsest sign` kept, for the hash of the corpus.
    """
    stated = predicate.get("study")
    if not stated:
        raise PalimpsestError(
            "the statement is on results of another tool, or of a verdict that `snakemake verdict` did not make: it "
            "names no study that could be run again."
        )
    if stated["code"]["changed"] or not stated["code"]["commit"]:
        raise PalimpsestError(
            "the verdict was signed beside code that no commit holds: commit it, then run and sign again."
        )
    _clone(how, stated["code"]["commit"])
    study = _lay_out(how, stated)
    results, model = study / "results", stated["model"]
    _run(how, study, f"results/verdict/{model}/manifest.json")
    found = predicate_of(results / "verdict" / model)
    machines = machines_of(results)
    exact = machines == stated["machines"] and all(name.startswith("CPU") for name in machines)
    differing = list(differences(predicate, found) if exact else deviations(predicate, found, how.tolerance))
    if salt is not None and corpus_hash(results / "corpus", read_salt(salt)) != predicate["corpus"]:
        differing.append("the corpus is another than the one that was asked.")
    if exact:
        return differing, f"bit by bit, on {', '.join(machines)}"
    ours, theirs = ", ".join(machines), ", ".join(stated["machines"])
    return differing, f"within {how.tolerance:g} points, on {ours} ({theirs} when it was signed)"


def differences(stated: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """What is not the same to the bit. The audit that both rest on has the hash of every score."""
    for key in STATED:
        if stated[key] != found[key]:
            yield f"{key} differs: stated {_short(stated[key])}, found {_short(found[key])}."


def deviations(stated: Mapping[str, Any], found: Mapping[str, Any], tolerance: float) -> Iterator[str]:
    """Verdicts that are other words, and shares that lie more than `tolerance` points apart."""
    if stated["policy"] != found["policy"]:
        yield "the policy differs."
    ours = {(one["format"], one["metric"]): one for one in found["formats"]}
    for one in stated["formats"]:
        key = one["format"], one["metric"]
        if key not in ours:
            yield f"{key[0]}, {key[1]} is missing."
            continue
        other = ours[key]
        if one["verdict"] != other["verdict"]:
            yield f"{key[0]}, {key[1]}: stated {one['verdict']}, found {other['verdict']}."
        for share in SHARES:
            apart = abs(one[share]["value"] - other[share]["value"])
            if apart > tolerance:
                yield f"{key[0]}, {key[1]}: {share} lies {apart:.1f} points apart, more than {tolerance:g}."


def _clone(how: Repeat, commit: str) -> None:
    if how.folder.exists() and any(how.folder.iterdir()):
        raise PalimpsestError(f"{how.folder} is not empty: give a new folder, in which the study is made again.")
    _git("the repository cannot be cloned", "clone", "--quiet", how.repository, str(how.folder))
    _git(
        f"{how.repository} lacks the commit {commit[:12]} that the statement names: give --repository",
        *("-C", str(how.folder), "checkout", "--quiet", commit),
    )


def _git(wrong: str, *arguments: str) -> None:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise PalimpsestError(f"{wrong} ({done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'git'}).")


def _lay_out(how: Repeat, stated: Mapping[str, Any]) -> Path:
    """The folder of the study, with its settings, its policy, and links to what the settings name of the user's own."""
    params, study = dict(stated["params"]), how.folder / "studies/reproduced"
    params["verdict"] = {**params["verdict"], "policy": POLICY}
    study.mkdir(parents=True)
    (study / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False, allow_unicode=True), encoding="utf-8")
    (study / POLICY).write_text(yaml.safe_dump(stated["policy"], sort_keys=False), encoding="utf-8")
    named = [Path(name) for block, names in sources_of(params).items() if block != "verdict" for name in names]
    for path in dict.fromkeys(named):
        place, there = study / path, how.data / path
        if path.is_absolute() or place.exists() or not there.exists():
            continue  # a hub name, or missing: the plan says so
        if not place.resolve().is_relative_to(study.resolve()):
            raise PalimpsestError(f"params.yaml names {path}, outside the study's folder: make the path absolute.")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(there.resolve())
    return study


def _run(how: Repeat, study: Path, target: str) -> None:
    environment = os.environ | {"PYTHONPATH": str((how.folder / "src").resolve())}
    command = [sys.executable, "-m", "snakemake", "--cores", str(how.cores), "--directory", str(study.resolve())]
    done: Sequence[str] = [*command, "--", target]
    if subprocess.run(done, cwd=how.folder, env=environment).returncode:
        raise PalimpsestError(f"the study could not be made again, see above; what is done is in {study}.")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
