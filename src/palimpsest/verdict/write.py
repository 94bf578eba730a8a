"""A verdict on disk: verdict.json, records.csv and verdict.html."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from palimpsest.artefacts import read_json, write_json
from palimpsest.errors import PalimpsestError
from palimpsest.files import sha256_file
from palimpsest.verdict.controls import Control, judge
from palimpsest.verdict.decide import worst
from palimpsest.verdict.page import page
from palimpsest.verdict.policy import Policy
from palimpsest.verdict.records import FormatVerdict, Measured
from palimpsest.verdict.text import records_csv


@dataclass(frozen=True)
class Judgement:
    """A verdict on one model and what it rests on.

    measured: by metric. files: those that were read, by what they are of. deployed: by format the SHA-256 of each file
    of weights that is judged, where that is known. notes: what a reader must know beside the notes of what was
    measured. model: its name, where it has one.
    """

    verdicts: Sequence[FormatVerdict]
    controls: Sequence[Control]
    measured: Mapping[str, Measured]
    policy: Policy
    files: Mapping[str, Path]
    deployed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    model: str = ""


def judged(
    measured: Sequence[Measured],
    policy: Policy,
    files: Mapping[str, Path],
    deployed: Mapping[str, Mapping[str, str]],
    notes: Sequence[str],
    model: str,
) -> Judgement:
    """The verdict by a policy on what was measured of one model; see `Judgement`."""
    verdicts, controls = judge(measured, policy)
    return Judgement(
        verdicts, controls, {each.metric: each for each in measured}, policy, files, deployed, notes, model
    )


def write_verdict(folder: Path, made: Judgement) -> None:
    """Write the three files. Raises PalimpsestError where the folder holds a verdict by another policy: a policy is
    written before the run, not after it."""
    path = folder / "verdict.json"
    if path.is_file():
        before = read_json(path)
        known = before.get("policy", {}).get("hash") if isinstance(before, dict) else None
        if known != made.policy.hash:
            raise PalimpsestError(
                f"{path} was decided by another policy (sha256 {known}): take that policy, or give another --out for a "
                "new question."
            )
    decisive = worst(made.verdicts)
    record: dict[str, Any] = {
        "verdict": decisive["verdict"],
        "reason": decisive["reason"],
        "worst": {"format": decisive["format"], "metric": decisive["metric"]},
        "policy": asdict(made.policy),
        "model": made.model,
        "deployed": {name: dict(files) for name, files in made.deployed.items()},
        "files": _hashes(made.files),
        "notes": list(dict.fromkeys([*made.notes, *(note for each in made.measured.values() for note in each.notes)])),
        "controls": list(made.controls),
        "formats": list(made.verdicts),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, record)
    (folder / "records.csv").write_text(records_csv(made.verdicts, made.measured), encoding="utf-8")
    (folder / "verdict.html").write_text(page(record, made.measured), encoding="utf-8")


def _hashes(files: Mapping[str, Path]) -> dict[str, dict[str, str]]:
    """Of every file that was read: its path and SHA-256."""
    return {name: {"path": str(path), "sha256": sha256_file(path)} for name, path in files.items()}
