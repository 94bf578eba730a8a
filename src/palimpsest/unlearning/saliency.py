"""SURE's saliency mask (arXiv 2410.16454, section 5):
only the parts of a model that the forget loss depends on most may move.

A part is a unit of some granularity: a whole matrix, a row of one (a neuron), or a module (a group of attention heads
that share keys and values, an MLP block). Its saliency is the L2 norm of the forget loss's gradient over its weights,
at the target's weights; the mask keeps the units at or above a percentile of all of them, once and for all. Only the
decoder layers' matrices take part: embeddings, norms and the output head stay as they are.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from palimpsest.errors import PalimpsestError, choose
from palimpsest.models.layers import (
    BY_HEAD,
    HEADS_TOGETHER,
    IN_RUNS,
    MLP,
    decoder_matrices,
    ends_with,
    key_value_heads,
    turned_matrices,
)


@dataclass(frozen=True)
class Saliency:
    """granularity: module, row or matrix; percentile: 0 to 100, the share of units that may not move."""

    granularity: str
    percentile: float

    def __post_init__(self) -> None:
        choose(GRANULARITIES, self.granularity, "saliency granularity")
        if not 0 <= self.percentile <= 100:
            raise PalimpsestError(f"saliency percentile is {self.percentile}: give 0 to 100.")


@dataclass(frozen=True)
class Units:
    """Which unit each row (dim 0) or column (dim 1) of a parameter belongs to: `ids` [rows or columns]."""

    dim: int
    ids: Tensor


Shapes = Mapping[str, tuple[int, ...]]


def rows(shapes: Shapes, groups: int) -> dict[str, Units]:
    """Each row of a matrix, and each entry of a vector, is a unit."""
    starts, units = 0, {}
    for name, shape in shapes.items():
        units[name] = Units(0, torch.arange(starts, starts + shape[0]))
        starts += shape[0]
    return units


def matrices(shapes: Shapes, groups: int) -> dict[str, Units]:
    """Each parameter is a unit."""
    return {name: Units(0, torch.full(shape[:1], number)) for number, (name, shape) in enumerate(shapes.items())}


def modules(shapes: Shapes, groups: int) -> dict[str, Units]:
    """Each MLP block is a unit, and so is each of the `groups` of heads of an attention block
    that share keys and values.

    A group of heads has its rows of the query, key and value matrices, in one matrix or three, and its columns of the
    output matrix.
    """
    names: dict[str, int] = {}
    units = {}
    for name, shape in shapes.items():
        module = name.removesuffix(".weight")
        attention = ends_with(module, (*BY_HEAD, *IN_RUNS, *HEADS_TOGETHER))
        block = module.rpartition(".")[0]
        runs = _runs(shapes, block, shape) if ends_with(module, IN_RUNS) else shape[:1]
        if not runs or not (attention or ends_with(module, MLP)):
            known = ", ".join((*BY_HEAD, *IN_RUNS, *HEADS_TOGETHER, *MLP))
            raise PalimpsestError(f"granularity module knows the matrices {known}, not {name}: use row or matrix.")
        dim = 1 if ends_with(module, HEADS_TOGETHER) else 0
        parts = groups if attention else 1
        numbers = torch.tensor([names.setdefault(f"{block}.{part}", len(names)) for part in range(parts)])
        lengths = runs if dim == 0 else shape[1:]
        units[name] = Units(dim, torch.cat([numbers.repeat_interleave(length // parts) for length in lengths]))
    return units


def _runs(shapes: Shapes, block: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The rows that are queries, keys and values, of a matrix that has them one after the other: the queries are as
    many as the inputs of the block's output matrix; () where there is none."""
    for name, each in shapes.items():
        if name.startswith(f"{block}.") and ends_with(name.removesuffix(".weight"), HEADS_TOGETHER):
            shared = (shape[0] - each[1]) // 2
            return each[1], shared, shared
    return ()


GRANULARITIES: dict[str, Callable[[Shapes, int], dict[str, Units]]] = {
    "module": modules,
    "row": rows,
    "matrix": matrices,
}


def units_of(model: nn.Module, granularity: str) -> dict[str, Units]:
    """Which unit each part of the decoder's matrices belongs to, along the axis that each has for it in memory."""
    turned = turned_matrices(model)
    shapes = {
        name: tuple(weight.shape[::-1] if name in turned else weight.shape)
        for name, weight in decoder_matrices(model).items()
    }
    units = GRANULARITIES[granularity](shapes, key_value_heads(model.config))
    return {name: Units(1 - part.dim, part.ids) if name in turned else part for name, part in units.items()}


def unit_saliency(gradients: Mapping[str, Tensor], units: Mapping[str, Units]) -> Tensor:
    """[units] L2 norm of the gradient over each unit's weights."""
    first = next(iter(gradients.values()))
    squares = torch.zeros(
        1 + int(max(part.ids.max() for part in units.values())), device=first.device, dtype=first.dtype
    )
    for name, part in units.items():
        square = gradients[name].square()
        along = square if square.dim() == 1 else square.sum(1 - part.dim)
        squares.index_add_(0, part.ids.to(first.device), along)
    return squares.sqrt()


def threshold(saliency: Tensor, percentile: float) -> float:
    """The percentile of all units' saliency, linear between ranks."""
    ranks = saliency.sort().values
    place = percentile / 100 * (len(ranks) - 1)
    low = int(place)
    return torch.lerp(ranks[low], ranks[min(low + 1, len(ranks) - 1)], place - low).item()


def kept_units(saliency: Tensor, percentile: float) -> Tensor:
    """[units] bool: at or above the percentile and not zero."""
    return (saliency >= threshold(saliency, percentile)) & (saliency > 0)


class Mask:
    """Keeps everything outside the kept units bit for bit as it is, whatever the optimizer does.

    Parameters without a kept unit stop being trained (no gradient, no moments). Of the others the gradient is zeroed
    outside the mask, so that gradient clipping sees what moves and no more, and the weights there are put back after
    every step, so that momentum and weight decay cannot move them.
    """

    def __init__(self, model: nn.Module, gradients: Mapping[str, Tensor], saliency: Saliency) -> None:
        trained = decoder_matrices(model)
        units = units_of(model, saliency.granularity)
        scores = unit_saliency(gradients, units)
        kept = kept_units(scores, saliency.percentile)
        self.units, self.kept_units = len(kept), int(kept.sum())
        self.threshold = threshold(scores, saliency.percentile)
        self.weights = self.kept_weights = 0
        self._frozen: list[tuple[nn.Parameter, int, Tensor, Tensor]] = []
        for name, weight in model.named_parameters():
            self.weights += weight.numel()
            keep = kept[units[name].ids.to(kept.device)] if name in trained else torch.zeros(1, dtype=torch.bool)
            self.kept_weights += round(weight.numel() * keep.float().mean().item())
            if not keep.any():
                weight.requires_grad_(False)
            elif not keep.all():
                dim, frozen = units[name].dim, (~keep).nonzero().flatten().to(weight.device)
                self._frozen.append((weight, dim, frozen, weight.detach().index_select(dim, frozen)))
                weight.register_post_accumulate_grad_hook(_zero_gradient(dim, frozen))

    @torch.no_grad()
    def restore(self, *_: object) -> None:
        """Put the weights outside the mask back; an optimizer calls it after each step."""
        for weight, dim, frozen, original in self._frozen:
            weight.index_copy_(dim, frozen, original)

    def summary(self) -> dict[str, float | int]:
        """Units and weights in all and kept, and the saliency at the threshold."""
        return {
            "units": self.units,
            "kept_units": self.kept_units,
            "weights": self.weights,
            "kept_weights": self.kept_weights,
            "threshold": self.threshold,
        }


def _zero_gradient(dim: int, frozen: Tensor) -> Callable[[Tensor], None]:
    def zero(weight: Tensor) -> None:
        if weight.grad is not None:
            weight.grad.index_fill_(dim, frozen, 0)

    return zero


def mean_gradients(weights: Mapping[str, nn.Parameter], batches: Iterable[tuple[Tensor, float]]) -> dict[str, Tensor]:
    """Float32 gradients of a loss over a whole data set,
    from (loss of a batch, its share of the data) one after another.

    Zero for weights that the loss does not reach: RMU's stops at a layer.
    """
    total = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()}
    for loss, share in batches:
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        for name, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                total[name].add_(gradient, alpha=share)
    return total
