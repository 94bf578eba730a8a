"""Take a quantized file that exists into a study, as it is, with what proves it and of which checkpoint it is."""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from palimpsest.artefacts import MANIFEST, LocalSource
from palimpsest.errors import PalimpsestError
from palimpsest.files import content_hash, files_below, sha256_file
from palimpsest.quantizers.as_it_is import AsItIs
from palimpsest.quantizers.base import TOKENIZER_FILES, Quantizer, copy_tokenizer, fingerprint
from palimpsest.quantizers.deployed import recognise
from palimpsest.quantizers.gguf.backend import MODEL
from palimpsest.quantizers.origin import NOT_OF_IT, NOT_PROVEN, OF_TARGET, OriginRecord, compare_origin
from palimpsest.quantizers.proof import prove

log = logging.getLogger(__name__)

TOLD = ("format", "verdict", "reasons", "maybe_erased", "relative_error", "own_error", "values", "unquantized", "held")
"""Of what `compare_origin` finds, what a manifest says."""


def copy_file(source: Path | str, checkpoint: Path, folder: Path) -> None:
    """A GGUF file gets the checkpoint's configuration and tokenizer beside it, a folder its tokenizer if it lacks one.

    Raises PalimpsestError where the source changed since the run was planned, or while it was copied.
    """
    path = Path(source)
    file = recognise(path).path
    if file.suffix == ".gguf":
        shutil.copy(file, folder / MODEL)
        for name in ("config.json", "generation_config.json"):
            if (checkpoint / name).exists():
                shutil.copy(checkpoint / name, folder / name)
    else:
        shutil.copytree(path, folder, ignore=shutil.ignore_patterns(MANIFEST), dirs_exist_ok=True)
    if not any(any(folder.glob(pattern)) for pattern in TOKENIZER_FILES):
        copy_tokenizer(checkpoint, folder)
    if isinstance(source, LocalSource):
        now = content_hash({each.relative_to(path).as_posix(): sha256_file(each) for each in files_below(path)})
        if now != source.digest:
            raise PalimpsestError(f"{source} changed after the run was planned: leave it alone, and run again.")


def examine_file(
    quantizer: Quantizer, folder: Path, checkpoint: Path, target: Path | None, key: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(proof, what is told of its origin) of a copied file; key: of params.yaml, for messages.

    Raises PalimpsestError for a file that is not of the checkpoint. That of the target is let through, for an audit is
    to show what it knows; its proof is then that it is the target's.
    """
    file = recognise(folder)
    if not isinstance(quantizer, AsItIs):
        file = replace(file, quantizer=quantizer)
    found = compare_origin(file, checkpoint, target)
    if found["verdict"] == NOT_OF_IT:
        raise PalimpsestError(f"{key}.path is not of {key}.of: {'; '.join(found['reasons'])}. Correct one of the two.")
    if found["verdict"] == OF_TARGET:
        log.warning("%s.path is the target's file: %s", key, "; ".join(found["reasons"]))
    told: Mapping[str, Any] = found
    origin = {name: told[name] for name in TOLD}
    if isinstance(quantizer, AsItIs):
        return _unproven(found, folder), origin
    base = target if found["verdict"] == OF_TARGET and target else checkpoint
    held = {matrix.name: fingerprint(matrix.dequantized) for matrix in quantizer.read(folder)}
    return prove(quantizer, base, folder, held), origin


def _unproven(found: OriginRecord, folder: Path) -> dict[str, Any]:
    """What stands in the place of a proof: the keys of one, and why there is none."""
    return {
        "status": NOT_PROVEN,
        "why": found["not_proven"],
        "backend": found["format"],
        "backend_version": "",
        "bits_per_weight": None,
        "skipped_layers": [],
        "codes_sha256": None,
        "bytes": sum(path.stat().st_size for path in files_below(folder)),
    }
