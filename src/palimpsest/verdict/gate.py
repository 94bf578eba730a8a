"""The last step of `snakemake verdict`: it fails where the verdict is no pass, and says how the run is to end."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from palimpsest.artefacts import read_json, verify_files
from palimpsest.errors import PalimpsestError
from palimpsest.verdict.records import EXIT_CODES, FORGETS, VERDICTS
from palimpsest.verdict.text import NEXT

RULE = "verdict"
"""The target that is the gate; the block of params.yaml has the same name."""
ASK = (
    "verdict: params.yaml does not say what counts as forgotten: add `verdict: {policy: policy.yaml}`, and write the "
    "file with `palimpsest policy > policy.yaml`."
)


def read_verdicts(folders: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """The verdict.json of each folder, by the model's name; raises PalimpsestError for a folder that was edited."""
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        verify_files(folder)
        found[folder.name] = read_json(folder / "verdict.json")
    return found


def pass_or_fail(folders: Sequence[Path]) -> list[str]:
    """A line for each model where all pass; raises PalimpsestError with the verdict of the worst where one does not."""
    if not folders:
        raise PalimpsestError(ASK)
    verdicts = read_verdicts(folders)
    model, record = worst_model(verdicts)
    if record["verdict"] != FORGETS:
        worst = record["worst"]
        page = next(folder for folder in folders if folder.name == model) / "verdict.html"
        raise PalimpsestError(
            f"{record['verdict']}, by {model} in {worst['format']} ({worst['metric']}): {record['reason']}. "
            f"{NEXT[record['verdict']]} The page: {page}"
        )
    return [f"{name}: {one['verdict']}; {one['reason']}." for name, one in verdicts.items()]


def worst_model(verdicts: dict[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """The model that decides, the first of equals, with its verdict."""
    return min(verdicts.items(), key=lambda each: VERDICTS.index(each[1]["verdict"]))


def leave(unfinished: Collection[str], folders: Sequence[Path]) -> None:
    """End the process with the exit code of the verdict where the gate alone stopped a run; else do nothing.

    unfinished: rules of the steps that failed or never ran. Snakemake has one exit code for all that goes wrong; 1
    stays that of a run in which a step failed.
    """
    if list(unfinished) != [RULE] or not folders:
        return
    try:
        code = EXIT_CODES[worst_model(read_verdicts(folders))[1]["verdict"]]
    except (PalimpsestError, OSError):
        return
    if code:
        raise SystemExit(code)
