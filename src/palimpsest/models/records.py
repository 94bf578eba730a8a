"""The manifest of a model."""

from typing import Any

from palimpsest.artefacts import Manifest


class ModelManifest(Manifest):
    """results/models/{model}/seed{seed}/manifest.json.

    kind: target, retrain or unlearned. method: the block of params.yaml that unlearned it, None for the others.
    storage: how weights were stored while it was trained. parameters: their number. training: what training reports
    (steps, losses in nats per token), None for a checkpoint that was not trained here. device: where.
    """

    model: str
    seed: int
    kind: str
    method: dict[str, Any] | None
    storage: str
    parameters: int
    training: dict[str, Any] | None
    device: str
