"""Likelihoods straight from what enters the output head: [tokens, vocab] logits exist for a part of the tokens at a
time, and never in float32.

The numbers are those of the usual way: logits in the type in which the head multiplies, log-softmax of them in float32,
their gradient rounded to that type again. On a GPU the passes over the logits are kernels of `head_kernels`; anywhere
else, and in the tests that hold the kernels to it, plain torch.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from palimpsest.models.tokens import IGNORED

LIMIT = 1 << 29
"""Logits that exist at a time; as many as these are kept for the backward pass, beyond they are computed again."""


@dataclass(frozen=True)
class Unprojected:
    """Logits that are not computed: `states` [tokens, width] in front of a head with `weight` [vocab, width], in the
    type in which it multiplies. into_grad: the weight's gradient is added to where it is kept, not handed on."""

    states: Tensor
    weight: Tensor
    into_grad: bool = False
    known: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, states: Tensor, weight: Tensor, into_grad: bool = False) -> "Unprojected":
        """In the type of autocast, where it is on."""
        device = states.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        return cls(states.to(dtype), weight.to(dtype), into_grad and weight.dtype == dtype)

    @property
    def device(self) -> torch.device:
        return self.states.device

    def __getitem__(self, places: Any) -> "Unprojected":
        return Unprojected(self.states[places], self.weight, self.into_grad)

    def float(self) -> Tensor:
        """[tokens, vocab] the logits after all."""
        return (self.states @ self.weight.T).float()

    def nll(self, targets: Tensor) -> Tensor:
        """[tokens] minus the log-probability of each target, nats; 0 where it is IGNORED. The targets of a batch are
        always the same, so that who asks again gets what is known."""
        if "nll" not in self.known:
            self.known["nll"] = cast(Tensor, _Nll.apply(self.states, self.weight, targets, self.into_grad))
        return self.known["nll"]

    def first_choices(self) -> Tensor:
        """[tokens] the likeliest next token of each, without a gradient."""
        with torch.no_grad():
            parts = _chunks(len(self.states), len(self.weight))
            return torch.cat([(self.states[part] @ self.weight.T).argmax(-1) for part in parts])

    def kl(self, reference: "Unprojected | Tensor") -> Tensor:
        """[tokens] KL(reference || these), nats; the reference has no gradient."""
        given = reference if isinstance(reference, Tensor) else (reference.states, reference.weight)
        return cast(Tensor, _Kl.apply(self.states, self.weight, given, self.into_grad))


def add_product(weight: Tensor, gradient: Tensor, inputs: Tensor) -> None:
    """weight.grad += gradient.T @ inputs, in one product that adds up in float32 and rounds once."""
    if weight.grad is None:
        weight.grad = gradient.T @ inputs
    else:
        weight.grad.addmm_(gradient.T, inputs)


def _chunks(tokens: int, vocab: int) -> Iterator[slice]:
    size = max(1, LIMIT // vocab)
    for start in range(0, tokens, size):
        yield slice(start, min(start + size, tokens))


def _kernels(tensor: Tensor) -> Any:
    """The passes over rows of logits for the device of the tensor."""
    if tensor.is_cuda:
        from palimpsest.models import head_kernels

        return head_kernels
    return _Plain


class _Plain:
    """What the kernels compute, in torch. The gradients are written over `logits`, which may be kept no longer."""

    @staticmethod
    def nll(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """[tokens] nll, 0 where the target is IGNORED, and log-sum-exp."""
        lse = logits.float().logsumexp(-1)
        picked = logits.gather(1, targets.clamp_min(0).unsqueeze(1)).squeeze(1).float()
        return torch.where(targets == IGNORED, 0.0, lse - picked), lse

    @staticmethod
    def nll_gradient(logits: Tensor, targets: Tensor, lse: Tensor, factor: Tensor) -> Tensor:
        gradient = (logits.float() - lse.unsqueeze(1)).exp()
        gradient.scatter_add_(1, targets.clamp_min(0).unsqueeze(1), -torch.ones_like(gradient[:, :1]))
        factor = torch.where(targets == IGNORED, 0.0, factor)
        return logits.copy_(gradient * factor.unsqueeze(1))

    @staticmethod
    def kl(logits: Tensor, reference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[tokens] KL(reference || logits), and the log-sum-exp of both."""
        lse, lse_before = logits.float().logsumexp(-1), reference.float().logsumexp(-1)
        before = reference.float() - lse_before.unsqueeze(1)
        now = logits.float() - lse.unsqueeze(1)
        return (before.exp() * (before - now)).sum(-1), lse, lse_before

    @staticmethod
    def kl_gradient(logits: Tensor, reference: Tensor, lses: tuple[Tensor, Tensor], factor: Tensor) -> Tensor:
        now, before = (
            (each.float() - lse.unsqueeze(1)).exp() for each, lse in zip((logits, reference), lses, strict=True)
        )
        return logits.copy_((now - before) * factor.unsqueeze(1))


class _Head(torch.autograd.Function):
    """Gradients of the states and the weight, chunk by chunk, from that of the logits."""

    @staticmethod
    def products(ctx: Any, gradients: Iterator[tuple[slice, Tensor]]) -> tuple[Tensor | None, Tensor | None]:
        states, weight = ctx.saved_tensors[:2]
        of_states = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        of_weight = None
        for part, gradient in gradients:
            if of_states is not None:
                torch.mm(gradient, weight, out=of_states[part])
            if ctx.into_grad:
                add_product(ctx.weight, gradient, states[part])
            elif ctx.needs_input_grad[1]:
                if of_weight is None:
                    of_weight = gradient.T @ states[part]
                else:
                    of_weight.addmm_(gradient.T, states[part])
        return of_states, of_weight

    @staticmethod
    def remember(ctx: Any, weight: Tensor, into_grad: bool) -> None:
        ctx.into_grad = into_grad and weight.requires_grad
        ctx.weight = weight if ctx.into_grad else None  # a saved tensor would be another object, without its gradient


class _Nll(_Head):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, targets: Tensor, into_grad: bool) -> Tensor:  # type: ignore[override]
        nll, lse = (torch.empty(len(states), device=states.device) for _ in range(2))
        parts = list(_chunks(len(states), len(weight)))
        logits = None
        for part in parts:
            logits = states[part] @ weight.T
            nll[part], lse[part] = _kernels(states).nll(logits, targets[part])
        _Head.remember(ctx, weight, into_grad)
        ctx.kept = logits if len(parts) == 1 else None
        ctx.save_for_backward(states, weight, targets, lse)
        return nll

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> Any:  # type: ignore[override]
        states, weight, targets, lse = ctx.saved_tensors

        def gradients() -> Iterator[tuple[slice, Tensor]]:
            for part in _chunks(len(states), len(weight)):
                logits = states[part] @ weight.T if ctx.kept is None else ctx.kept
                ctx.kept = None
                yield (
                    part,
                    _kernels(states).nll_gradient(logits, targets[part], lse[part], factor[part].contiguous()),
                )

        return *_Head.products(ctx, gradients()), None, None


class _Kl(_Head):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, reference: Any, into_grad: bool) -> Tensor:  # type: ignore[override]
        kl, lse, lse_before = (torch.empty(len(states), device=states.device) for _ in range(3))
        parts = list(_chunks(len(states), 2 * len(weight)))
        kept = None
        for part in parts:
            kept = states[part] @ weight.T, _rows(reference, part)
            kl[part], lse[part], lse_before[part] = _kernels(states).kl(*kept)
        _Head.remember(ctx, weight, into_grad)
        ctx.kept = kept if len(parts) == 1 else None
        ctx.reference = reference
        ctx.save_for_backward(states, weight, lse, lse_before)
        return kl

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> Any:  # type: ignore[override]
        states, weight, *lses = ctx.saved_tensors

        def gradients() -> Iterator[tuple[slice, Tensor]]:
            for part in _chunks(len(states), 2 * len(weight)):
                logits, before = ctx.kept or (states[part] @ weight.T, _rows(ctx.reference, part))
                ctx.kept = None
                of_part = tuple(lse[part] for lse in lses)
                yield part, _kernels(states).kl_gradient(logits, before, of_part, factor[part].contiguous())

        return *_Head.products(ctx, gradients()), None, None


def _rows(reference: Tensor | tuple[Tensor, Tensor], part: slice) -> Tensor:
    if isinstance(reference, Tensor):
        return reference[part]
    states, weight = reference
    return states[part] @ weight.T
