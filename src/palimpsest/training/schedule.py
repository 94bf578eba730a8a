"""How a model is trained: rates, sizes, storage and when to stop."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.vocabulary import FLOAT32


@dataclass(frozen=True)
class Schedule:
    """How to train. `batch_size` None: every sequence in each step. `stop_at_loss`: nats per token, mean over an epoch.

    storage: of the weights while training, a name of storage.WEIGHT_STORAGE; optimizer: of those that it has.
    gradient_checkpointing: compute activations again in the backward pass instead of keeping them: a third more work, a
    small part of the memory; on a GPU that trains alone in as few layers as its memory asks for, anywhere else in all.
    None: True on such a GPU, False anywhere else. autocast: multiply float32 weights in bfloat16. processes: over how
    many the model is sharded, each with a GPU of its own.
    """

    learning_rate: float
    epochs: int
    batch_size: int | None = None
    gradient_accumulation: int = 1
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0
    storage: str = FLOAT32
    stop_at_loss: float | None = None
    seed: int = 0
    optimizer: str = "adamw"
    gradient_checkpointing: bool | None = None
    autocast: bool = True
    processes: int = 1

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], seed: int, processes: int = 1) -> "Schedule":
        """From a block of params.yaml that may hold more."""
        known = {key: settings[key] for key in cls.__dataclass_fields__ if key in settings}
        return cls(**known, seed=seed, processes=processes)
