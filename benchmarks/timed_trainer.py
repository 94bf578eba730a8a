"""A trainer that measures, in whichever process it runs."""

from typing import Any

import torch
from random_llama import mark, peak_memory, seconds_between
from torch.optim.optimizer import register_optimizer_step_post_hook

from palimpsest.training.processes import gather_from_all, rank_and_size
from palimpsest.unlearning.trainer import UnlearningTrainer


class TimedTrainer(UnlearningTrainer):
    """Adds to the result: `seconds` [steps - 1] from the end of each optimizer step to the next, `trained` weights with
    a gradient in the last one, and `peak` GB of the GPU that holds most."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.marks: list[Any] = []
        self.trained = 0
        self.handle = register_optimizer_step_post_hook(self._note)

    def _note(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self.marks.append(mark())
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        self.trained = sum(weight.numel() for weight in weights if weight.grad is not None)

    def result(self) -> dict[str, Any]:
        self.handle.remove()
        peaks = gather_from_all(peak_memory()) if rank_and_size()[1] > 1 else [peak_memory()]
        return super().result() | {"seconds": seconds_between(self.marks), "trained": self.trained, "peak": max(peaks)}
