"""Whether training still makes numbers: a step at too large a rate leaves weights that no loss has seen."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from palimpsest.errors import PalimpsestError
from palimpsest.training.sharding import local

EVERY = 50
"""Steps between two looks at the weights; the loss and the gradient are looked at in each."""

REMEDY = "lower learning_rate, or check the weights that training started from"


def check_number(what: str, value: float | Tensor, step: int) -> None:
    """Raises PalimpsestError where a value of the step, its loss or the length of its gradient, is no number."""
    if isinstance(value, DTensor):
        value = value.full_tensor()
    if not math.isfinite(value):
        raise PalimpsestError(f"{what} became {float(value)} at step {step}: {REMEDY}.")


@torch.no_grad()
def check_weights(model: nn.Module, learning_rate: float) -> None:
    """Raises PalimpsestError that names the weights that bfloat16, in which models are saved, has no finite value for.
    Of a sharded model each process looks at its part."""
    weights = {name: local(weight) for name, weight in model.named_parameters() if weight.is_floating_point()}
    sound = [weight.to(torch.bfloat16).isfinite().all() for weight in weights.values()]
    broken = [name for name, good in zip(weights, torch.stack(sound).tolist(), strict=True) if not good]
    if broken:
        others = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise PalimpsestError(
            f"training left no finite weights in {broken[0]}{others}, at learning_rate {learning_rate:g}: {REMEDY}. "
            "The model was not saved."
        )


class FiniteWeights(TrainerCallback):
    """Looks at the weights now and then, so that hours of training are not lost to a step of the first minute."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % EVERY == 0:
            check_weights(kwargs["model"], args.learning_rate)
