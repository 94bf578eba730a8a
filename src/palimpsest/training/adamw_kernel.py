"""The kernel of KernelAdamW."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK, WARPS = 4096, 8


def step(tensors: tuple[Tensor, Tensor, Tensor, Tensor], cut: Tensor | None, numbers: dict[str, float]) -> None:
    """weight, gradient and both moments; what the gradient is divided by; the numbers of the formula."""
    size = tensors[0].numel()
    divisor = tensors[0] if cut is None else cut  # read where there is one
    grid = (triton.cdiv(size, BLOCK),)
    with torch.cuda.device_of(tensors[0]):
        _step[grid](*tensors, divisor, size, **numbers, CUT=cut is not None, BLOCK=BLOCK, num_warps=WARPS)


@triton.jit
def _step(
    weight,
    gradient,
    mean,
    square,
    cut,
    size,
    shrink,
    mean_decay,
    mean_share,
    square_decay,
    square_share,
    rate,
    root,
    eps,
    CUT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    places = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = places < size
    g = tl.load(gradient + places, mask=there).to(tl.float32)
    if CUT:
        g = g / tl.load(cut)
    w = tl.load(weight + places, mask=there).to(tl.float32)
    m = tl.load(mean + places, mask=there).to(tl.float32)
    v = tl.load(square + places, mask=there).to(tl.float32)
    w -= shrink * w
    m = mean_decay * m + mean_share * g
    v = square_decay * v + square_share * g * g
    w -= rate * m / (tl.sqrt_rn(v) / root + eps)
    tl.store(weight + places, w.to(weight.dtype.element_ty), mask=there)
    tl.store(mean + places, m.to(mean.dtype.element_ty), mask=there)
    tl.store(square + places, v.to(square.dtype.element_ty), mask=there)
