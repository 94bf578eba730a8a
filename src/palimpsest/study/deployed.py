"""Quantized files that exist, as precisions of a study: the block `deployed` of params.yaml.

A file is one more precision of the model that it is of. What it is compared with at that precision, the target and the
retrained model above all, is quantized here, to the settings that the file states or to those of the format that the
block names.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from palimpsest.artefacts import read_json
from palimpsest.errors import PalimpsestError, choose
from palimpsest.quantizers import make_quantizer
from palimpsest.quantizers.as_it_is import AS_IT_IS
from palimpsest.quantizers.deployed import DEPLOYED, recognise
from palimpsest.vocabulary import RETRAIN, TARGET

Params = Mapping[str, Any]
LIKE = "like"
BY_ITSELF = "`palimpsest deployed` and `palimpsest engine` look at such a file by itself"


def with_files(params: Params, folder: Path = Path()) -> dict[str, Any]:
    """The params with a quantizer for each file. folder: of the study.

    Raises PalimpsestError for a file that is not there or cannot be loaded, and for one whose codes no reader here
    knows, or whose format needs calibration, where no `like` is named.
    """
    quantizers = dict(params["quantizers"])
    for name, entry in (params.get(DEPLOYED) or {}).items():
        settings = _settings(params, name, entry, folder)
        if quantizers.setdefault(name, settings) != settings:
            raise PalimpsestError(f"{DEPLOYED}.{name} has the name of a quantizer: rename one of the two.")
    return {**params, "quantizers": quantizers}


def _settings(params: Params, name: str, entry: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    key = f"{DEPLOYED}.{name}"
    like = entry.get(LIKE)
    stated = dict(choose(params["quantizers"], like, f"quantizer of {key}.{LIKE}")) if like else None
    path, made = folder / entry["path"], folder / _made(params, name, entry)
    if not path.exists() and made.exists():  # what was made of a file stands when that is gone
        return dict(read_json(made)["settings"][f"quantizers/{name}"])
    if stated and not path.exists():
        return stated
    try:
        found = recognise(path)
    except PalimpsestError as wrong:
        raise PalimpsestError(f"{key}.path: {wrong}") from None
    if not found.is_loadable:
        raise PalimpsestError(
            f"{key}.path is {entry['path']} ({found.format}), which cannot be loaded here: {found.why_not}. "
            f"{BY_ITSELF}."
        )
    if found.quantizer is None and stated is None:
        raise PalimpsestError(
            f"{key}.path is {entry['path']} ({found.format}), whose codes cannot be proven here: {found.why_not}. To "
            f"have it measured as it is, and called not proven, name under {key}.{LIKE} the entry of quantizers that "
            "the other models are held to at this precision."
        )
    if found.quantizer is None:
        return {"backend": AS_IT_IS, LIKE: stated}
    if stated is not None:
        return stated
    if found.quantizer.calibration_text is not None:
        raise PalimpsestError(
            f"{key}.path is {entry['path']} ({found.settings['backend']}), whose format needs calibration: add it to "
            f"quantizers, with the text to calibrate on, and name that entry in {key}.{LIKE}."
        )
    return found.settings


def _made(params: Params, name: str, entry: Mapping[str, Any]) -> Path:
    return Path("results/quantized", entry["of"], f"seed{params['seeds'][0]}", name, "manifest.json")


def check_files(params: Params) -> None:
    """Raise PalimpsestError for a file of a model that the study does not have, or of several seeds, and for one that
    the named format's reader does not read."""
    known = dict.fromkeys((TARGET, RETRAIN, *params["methods"]))
    for name, entry in (params.get(DEPLOYED) or {}).items():
        key = f"{DEPLOYED}.{name}"
        choose(known, entry["of"], f"model of {key}.of")
        if len(params["seeds"]) > 1:
            raise PalimpsestError(
                f"{key} is the file of one model, and seeds lists {len(params['seeds'])}: set seeds to one."
            )
        path = Path(entry["path"])
        if not path.exists():
            if not _made(params, name, entry).exists():
                raise PalimpsestError(f"{key}.path is {str(path)!r}, and nothing is there: correct the path.")
        elif entry.get(LIKE) and params["quantizers"][name]["backend"] != AS_IT_IS:
            try:
                if next(make_quantizer(params["quantizers"][name]).read(path), None) is None:
                    raise PalimpsestError("it has no matrix of that format.")
            except PalimpsestError as wrong:
                raise PalimpsestError(f"{key}.path does not hold what {key}.{LIKE} says: {wrong}") from None


def pairs_of(params: Params) -> list[tuple[str, str]]:
    """(model, precision) of each file."""
    return [(entry["of"], name) for name, entry in (params.get(DEPLOYED) or {}).items()]
