"""The manifest of a model."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NotRequired

from palimpsest.artefacts import Manifest
from palimpsest.errors import PalimpsestError
from palimpsest.vocabulary import CHECKPOINT


class ModelManifest(Manifest):
    """results/models/{model}/seed{seed}/manifest.json.

    kind: target, retrain, unlearned, or base, which lies in results/base/model and has no model and seed. method: the
    block of params.yaml that unlearned it, None for the others. storage: how weights were stored while it was trained.
    parameters: their number. training: what training reports (steps, losses in nats per token), None for a checkpoint
    that was not trained here. device: where. brought: of a model that was unlearned elsewhere, from where and how it
    was taken (palimpsest.models.brought); method then says no more than params.yaml does.
    """

    model: str
    seed: int
    kind: str
    method: dict[str, Any] | None
    storage: str
    parameters: int
    training: dict[str, Any] | None
    device: str
    brought: NotRequired[dict[str, Any]]


def refuse_other_versions(models: Iterable[Mapping[str, Any]], path: Path | str) -> None:
    """Raises PalimpsestError where methods have no `storage`, as those in results of version 0.1.0.

    models: entries or manifests with "model" and "method" (None or {} of target and retrain); path: of their file.
    """
    for model in models:
        if model.get("method") and not {"storage", CHECKPOINT} & set(model["method"]):
            raise PalimpsestError(
                f"{path} was written by another version of palimpsest (methods.{model['model']} has no 'storage'): "
                "run the study again with this one, or read it with that one."
            )
