"""The manifest of a model."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from palimpsest.artefacts import Manifest
from palimpsest.errors import PalimpsestError


class ModelManifest(Manifest):
    """results/models/{model}/seed{seed}/manifest.json.

    kind: target, retrain, unlearned, or base, which lies in results/base/model and has no model and seed. method: the
    block of params.yaml that unlearned it, None for the others. storage: how weights were stored while it was trained.
    parameters: their number. training: what training reports (steps, losses in nats per token), None for a checkpoint
    that was not trained here. device: where.
    """

    model: str
    seed: int
    kind: str
    method: dict[str, Any] | None
    storage: str
    parameters: int
    training: dict[str, Any] | None
    device: str


def refuse_other_versions(models: Iterable[Mapping[str, Any]], path: Path | str) -> None:
    """Raises PalimpsestError where methods have no `storage`, as those in results of version 0.1.0.

    models: entries or manifests with "model" and "method" (None or {} of target and retrain); path: of their file.
    """
    for model in models:
        if model.get("method") and "storage" not in model["method"]:
            raise PalimpsestError(
                f"{path} was written by another version of palimpsest (methods.{model['model']} has no 'storage'): "
                "run the study again with this one, or read it with that one."
            )
