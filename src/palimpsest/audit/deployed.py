"""Files that were quantized elsewhere, in the audit: what they are, and whether they are of the model that is named."""

from collections.abc import Sequence

from palimpsest.audit.answer import answer_without
from palimpsest.audit.records import Record, require
from palimpsest.audit.shapes import Audit, AuditTable, DeployedFile

OF_TARGET = "the target's"
"""What palimpsest.quantizers.origin calls it."""


def attach_files(audit: Audit, manifests: Sequence[Record]) -> None:
    """Put `deployed` into the audit, where there are such files. manifests: of their folders.

    A target's file under another model's name brings nothing back: the answer leaves it out. Its caution begins with
    such a file, and with one from which rounding may have taken the update away.
    """
    for manifest in manifests:
        require(manifest, "deployed", "proof", "model", "precision", what="manifest of a deployed file")
    if not manifests:
        return
    audit["deployed"] = [_file(manifest) for manifest in manifests]
    flagged = [file for file in audit["deployed"] if file["verdict"] == OF_TARGET]
    if flagged:
        wrong = [file["precision"] for file in flagged if is_another_models(file)]
        said = answer_without(audit, wrong) if wrong else audit["answer"]
        audit["answer"] = {**said, "caution": " ".join([*map(passed_off, flagged), said["caution"]]).strip()}


def is_another_models(file: DeployedFile) -> bool:
    """Whether it is the target's for sure: not what rounding leaves of the model itself."""
    return file["verdict"] == OF_TARGET and not file["maybe_erased"]


def passed_off(file: DeployedFile) -> str:
    """What must be known first of a file that is the target's."""
    told, model = f"{file['precision']} ({file['path']})", file["model"]
    if is_another_models(file):
        return (
            f"{told} is no file of {model}'s but the target's. What it knows was not brought back by quantization: "
            f"ship a file made from {model}."
        )
    return (
        f"{told} is the target's file, or rounding took the whole update of {model} away: its codes do not tell which."
    )


def _file(manifest: Record) -> DeployedFile:
    file = DeployedFile(
        precision=manifest["precision"],
        model=manifest["model"],
        path=manifest["deployed"]["path"],
        format=manifest["deployed"]["format"],
        verdict=manifest["deployed"]["verdict"],
        reasons=list(manifest["deployed"]["reasons"]),
        codes_sha256=manifest["proof"]["codes_sha256"],
        maybe_erased=manifest["deployed"].get("maybe_erased", True),
    )
    if why := manifest["proof"].get("why"):
        file["not_proven"] = why
    return file


def about_files(audit: AuditTable) -> list[str]:
    """A sentence for each, for the page; that of a target under another model's name first."""
    files = sorted(audit.get("deployed", []), key=lambda file: file["verdict"] != OF_TARGET)
    return [_sentence(file) for file in files]


def _sentence(file: DeployedFile) -> str:
    reasons = "; ".join(file["reasons"])
    of = f"{file['precision']} is {file['path']} ({file['format']}), brought as it is"
    if file["verdict"] == OF_TARGET:
        whose = "the target's" if is_another_models(file) else "the target's, or nothing of the update is in it"
        return f"{of}, and no file of {file['model']}'s: {whose} ({reasons})."
    why = f" ({reasons})" if reasons else ""
    if unread := file.get("not_proven"):
        return (
            f"{of}, and its codes are not proven here: {unread}. Its scores are those of its dequantized weights; what "
            f"they are compared with at {file['precision']} is quantized by another format. Held to {file['model']}: "
            f"{file['verdict']}{why}."
        )
    return f"{of}; held to what its format makes of {file['model']}: {file['verdict']}{why}."
