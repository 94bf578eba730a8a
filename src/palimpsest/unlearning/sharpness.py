"""Sharpness-aware unlearning: the forget gradient is taken a step uphill."""

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn


def uphill(model: nn.Module, loss: Tensor, length: float, more: Iterable[Tensor] = ()) -> Callable[..., Any]:
    """The model at w + rho g / |g|, g the gradient of the forget loss (Foret et al. 2021, equation 2; Fan et al. 2025,
    arXiv 2502.05374, for unlearning). Its gradient counts as that of w.

    That model is in float32 and multiplies in float32, whatever w is stored in:
    in bfloat16 most weights would be rounded back to w. more: further parts of the
    forget loss, of the other batches of a step.
    """
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    total: dict[str, Tensor] = {}
    for part in chain([loss], more):
        gradients = torch.autograd.grad(part, list(weights.values()), allow_unused=True)
        for name, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                total[name] = total[name] + gradient if name in total else gradient.float()
    norm = torch.stack([gradient.norm() for gradient in total.values()]).norm()
    moved = {name: weight.float() for name, weight in model.named_parameters() if weight.is_floating_point()}
    for name, gradient in total.items():
        moved[name] = moved[name] + length / norm * gradient

    def call(**inputs: Tensor) -> Any:
        with torch.autocast(norm.device.type, enabled=False):
            return torch.func.functional_call(
                _Plain(model), {f"model.{name}": w for name, w in moved.items()}, kwargs=inputs
            )

    return call


class _Plain(nn.Module):
    """A model without the autocast that accelerate puts around its forward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Any) -> Any:
        return type(self.model).forward(self.model, **inputs)
