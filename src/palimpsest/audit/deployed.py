"""Files that were quantized elsewhere, in the audit: what they are, and whether they are of the model that is named."""

from collections.abc import Sequence

from palimpsest.audit.records import Record, require
from palimpsest.audit.shapes import AuditTable, DeployedFile

OF_TARGET = "the target's"
"""What palimpsest.quantizers.origin calls it."""


def attach_files(audit: AuditTable, manifests: Sequence[Record]) -> None:
    """Put `deployed` into the audit, where there are such files. manifests: of their folders."""
    for manifest in manifests:
        require(manifest, "deployed", "proof", "model", "precision", what="manifest of a deployed file")
    if manifests:
        audit["deployed"] = [_file(manifest) for manifest in manifests]


def _file(manifest: Record) -> DeployedFile:
    file = DeployedFile(
        precision=manifest["precision"],
        model=manifest["model"],
        path=manifest["deployed"]["path"],
        format=manifest["deployed"]["format"],
        verdict=manifest["deployed"]["verdict"],
        reasons=list(manifest["deployed"]["reasons"]),
        codes_sha256=manifest["proof"]["codes_sha256"],
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
        return f"{of}, and no file of {file['model']}'s: the target's, or nothing of the update is in it ({reasons})."
    why = f" ({reasons})" if reasons else ""
    if unread := file.get("not_proven"):
        return (
            f"{of}, and its codes are not proven here: {unread}. Its scores are those of its dequantized weights; what "
            f"they are compared with at {file['precision']} is quantized by another format. Held to {file['model']}: "
            f"{file['verdict']}{why}."
        )
    return f"{of}; held to what its format makes of {file['model']}: {file['verdict']}{why}."
