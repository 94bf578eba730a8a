"""What unlearning minimises: forget loss + alpha x retain loss, and what is put on top of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from palimpsest.errors import PalimpsestError, choose
from palimpsest.unlearning import losses
from palimpsest.unlearning.losses import Loss


@dataclass(frozen=True)
class Objective:
    """forget loss + alpha x retain loss.

    retain_batch_size None: as many retain as forget sequences in a step. variant: which table of losses.VARIANTS.
    settings: of both losses. sharpness: rho, the length of the step uphill at which the forget gradient is taken
    (SAM); None: at the weights.
    negate: how often the change of the weights is taken off the target instead of added
    (task vectors); None: train as usual.
    forget_until: nats per token on a step's forget sequences at which training ends, so that methods are compared at
    equal forgetting; None: train for all epochs.
    memorized_until: the same by the share of a step's forget tokens that are still the model's first choice (exact
    memorization). A mean of nats may be that of a few tokens which became impossible or of all; this share may not.
    """

    forget: str
    retain: str | None = None
    alpha: float = 1.0
    retain_batch_size: int | None = None
    variant: str = "published"
    settings: Mapping[str, float] = field(default_factory=dict)
    sharpness: float | None = None
    negate: float | None = None
    forget_until: float | None = None
    memorized_until: float | None = None

    def __post_init__(self) -> None:
        """Refuse names and settings that do not fit, before anything is computed."""
        if self.forget_until is not None and self.memorized_until is not None:
            raise PalimpsestError(
                "forget_until and memorized_until both say where unlearning ends: delete one of them."
            )
        taken = set()
        for loss in (self.forget_loss(), self.retain_loss()):
            taken |= set(loss.keys) if loss else set()
        if taken != set(self.settings):
            raise PalimpsestError(
                f"forget loss {self.forget!r} with retain loss {self.retain!r} takes the settings {sorted(taken)}, "
                f"given are {sorted(self.settings)}."
            )
        if self.forget_loss().trained_with and self.retain is None:
            raise PalimpsestError(
                f"forget loss {self.forget!r} steers the weight of a retain loss, and there is none: "
                "set retain_loss to gdr or klr."
            )

    @classmethod
    def from_settings(cls, method: Mapping[str, Any]) -> "Objective":
        """From a method's block in params.yaml."""
        return cls(
            forget=method["forget_loss"],
            retain=method["retain_loss"],
            alpha=method["alpha"],
            retain_batch_size=method["retain_batch_size"],
            variant=method["losses"],
            settings={key: method[key] for key in losses.SETTINGS if key in method},
            sharpness=method.get("sharpness"),
            negate=method.get("negate"),
            forget_until=method.get("forget_until"),
            memorized_until=method.get("memorized_until"),
        )

    def forget_loss(self) -> Loss:
        return choose(self._tables()[0], self.forget, "forget loss")

    def retain_loss(self) -> Loss | None:
        return None if self.retain is None else choose(self._tables()[1], self.retain, "retain loss")

    def _tables(self) -> tuple[dict[str, Loss], dict[str, Loss]]:
        return choose(losses.VARIANTS, self.variant, "variant of the losses (key `losses`)")
