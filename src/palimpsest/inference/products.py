"""Float32 products of matrices in half the time, bit for bit the same.

MKL, with which torch multiplies float32 on a CPU, leaves the AVX-512 of processors that are not Intel's unused; oneDNN,
which torch has too, does not. MKL adds up BLOCK columns at a time, and the blocks one after another. oneDNN, asked for
one block at a time, adds up a block in the same order. Whether that is so is tried before it is relied on.
"""

import logging
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

BLOCK = 192
"""Columns that MKL adds up before it adds them to the sum."""
LEAST = 16
"""Rows from which on MKL multiplies in this way."""
TRIED = (LEAST, 31, 48, 257)
"""Rows of the trial."""
MEMORY = 1 << 30
"""Bytes of weights that may be held a second time, cut in blocks."""


def multiply_by_blocks(model: nn.Module) -> int:
    """Let the model's float32 linear layers multiply so, where no gradient is asked for; says how many do.

    None do on a GPU, with several threads, where the weights take more than MEMORY, and where the bits are others.
    """
    layers = [
        module
        for module in model.modules()
        if type(module) is nn.Linear
        and "forward" not in vars(module)
        and module.weight.device.type == "cpu"
        and module.weight.dtype == torch.float32
    ]
    weights = {id(layer.weight): layer.weight.detach() for layer in layers}
    if not is_worth_it() or sum(weight.nbytes for weight in weights.values()) > MEMORY:
        return 0
    shapes = {tuple(weight.shape): weight for weight in weights.values()}
    fit = {shape for shape, weight in shapes.items() if has_the_same_bits(weight)}
    blocks = {key: as_multiplied(weight) for key, weight in weights.items() if tuple(weight.shape) in fit}
    taken = [layer for layer in layers if id(layer.weight) in blocks]
    for layer in taken:
        layer.forward = MethodType(_linear(blocks[id(layer.weight)]), layer)  # type: ignore[method-assign]
    log.info("%d of %d linear layers multiply by oneDNN, in blocks of %d columns", len(taken), len(layers), BLOCK)
    return len(taken)


def is_worth_it() -> bool:
    """Whether the processor has AVX-512, oneDNN is there, and one thread multiplies."""
    fast = torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.backends.mkldnn.is_available()
    return fast and torch.get_num_threads() == 1


@torch.no_grad()
def has_the_same_bits(weight: Tensor) -> bool:
    """Whether products with a weight [outputs, columns] do, tried with few rows and with many. MKL's blocks are others
    for some numbers of columns, and on some processors."""
    drawn = torch.Generator().manual_seed(0)
    trials = (torch.randn(rows, weight.shape[1], generator=drawn) for rows in TRIED)
    blocks = as_multiplied(weight)
    return all(torch.equal(multiplied(each, blocks), nn.functional.linear(each, weight)) for each in trials)


def multiplied(inputs: Tensor, blocks: list[Tensor]) -> Tensor:
    """inputs [rows, columns] times the transposed weight [outputs, columns], which is given `as_multiplied`."""
    product: Any = torch.ops.mkldnn._linear_pointwise
    first, *others = zip(in_blocks(inputs), blocks, strict=True)
    total: Tensor = product(*first, None, "none", [], "")
    for part, weight in others:
        total += product(part, weight, None, "none", [], "")
    return total


def in_blocks(matrix: Tensor) -> list[Tensor]:
    return [part.contiguous() for part in matrix.split(BLOCK, 1)]


def as_multiplied(weight: Tensor) -> list[Tensor]:
    """A weight [outputs, columns] in blocks of columns, each as oneDNN has it in memory, which would put it there anew
    for each product: a sixth of the time of generation's small ones."""
    order: Any = torch.ops.mkldnn._reorder_linear_weight
    return [order(block, None) for block in in_blocks(weight)]


def _linear(blocks: list[Tensor]) -> Any:
    def forward(layer: nn.Linear, inputs: Tensor) -> Tensor:
        rows = inputs.numel() // inputs.shape[-1]
        if torch.is_grad_enabled() or rows < LEAST or inputs.dtype != torch.float32:
            return nn.functional.linear(inputs, layer.weight, layer.bias)
        with torch.no_grad():
            found = multiplied(inputs.reshape(rows, -1), blocks)
        if layer.bias is not None:
            found += layer.bias
        return found.view(*inputs.shape[:-1], -1)

    return forward
