"""PyTorch's fused AdamW at the speed of the memory: each tensor is read and written once, in one kernel.

PyTorch's own reaches a little more than half of that speed on bfloat16 weights: a twelfth of a step of a 7B model on an
H100. The arithmetic is the same: float32 in between, one rounding of the weight and of each moment.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class KernelAdamW(torch.optim.AdamW):
    """Of contiguous weights on a GPU. grad_scale: what the gradient is divided by, as PyTorch's has it, or None."""

    grad_scale: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = closure() if closure else None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._step_one(weight, group)
        return loss

    def _step_one(self, weight: Any, group: dict[str, Any]) -> None:
        from palimpsest.training import adamw_kernel

        state = self.state[weight]
        if not state:
            state |= {"step": 0, "exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.zeros_like(weight)}
        state["step"] += 1
        rate, (mean_decay, square_decay) = group["lr"], group["betas"]
        adamw_kernel.step(
            (weight, weight.grad.contiguous(), state["exp_avg"], state["exp_avg_sq"]),
            self.grad_scale,
            {
                "shrink": rate * group["weight_decay"],
                "mean_decay": mean_decay,
                "mean_share": 1 - mean_decay,
                "square_decay": square_decay,
                "square_share": 1 - square_decay,
                "rate": rate / (1 - mean_decay ** state["step"]),
                "root": (1 - square_decay ** state["step"]) ** 0.5,
                "eps": group["eps"],
            },
        )
