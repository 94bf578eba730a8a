"""Passes over rows of logits on a GPU, each a kernel that reads them once or twice and holds float32 in registers.

What they compute is `head._Plain`. No atomic additions: the same rows give the same bits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from palimpsest.models.tokens import IGNORED

BLOCK = 4096
WARPS = 8
LOWEST = tl.constexpr(-1e30)
"""Instead of minus infinity, whose difference with itself is no number."""


def nll(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    found, lse = (torch.empty(len(logits), device=logits.device) for _ in range(2))
    _nll[(len(logits),)](logits, targets, found, lse, logits.shape[1], IGNORED, BLOCK, num_warps=WARPS)
    return found, lse


def nll_gradient(logits: Tensor, targets: Tensor, lse: Tensor, factor: Tensor) -> Tensor:
    grid = (len(logits), triton.cdiv(logits.shape[1], BLOCK))
    _nll_gradient[grid](logits, targets, lse, factor, logits.shape[1], IGNORED, BLOCK, num_warps=WARPS)
    return logits


def kl(logits: Tensor, reference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    found, lse, lse_before = (torch.empty(len(logits), device=logits.device) for _ in range(3))
    reference = reference.contiguous()
    _kl[(len(logits),)](logits, reference, found, lse, lse_before, logits.shape[1], BLOCK, num_warps=WARPS)
    return found, lse, lse_before


def kl_gradient(logits: Tensor, reference: Tensor, lses: tuple[Tensor, Tensor], factor: Tensor) -> Tensor:
    grid = (len(logits), triton.cdiv(logits.shape[1], BLOCK))
    _kl_gradient[grid](logits, reference.contiguous(), *lses, factor, logits.shape[1], BLOCK, num_warps=WARPS)
    return logits


@triton.jit
def _read(row, start, vocab, BLOCK: tl.constexpr):
    columns = start + tl.arange(0, BLOCK)
    return tl.load(row + columns, mask=columns < vocab, other=LOWEST).to(tl.float32)


@triton.jit
def _nll(logits, targets, found, lse, vocab, IGNORED: tl.constexpr, BLOCK: tl.constexpr):
    number = tl.program_id(0).to(tl.int64)
    row = logits + number * vocab
    high = tl.full([BLOCK], LOWEST, tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, vocab, BLOCK):
        values = _read(row, start, vocab, BLOCK)
        higher = tl.maximum(high, values)
        total = total * tl.exp(high - higher) + tl.exp(values - higher)
        high = higher
    highest = tl.max(high, 0)
    sum_exp = highest + tl.log(tl.sum(total * tl.exp(high - highest), 0))
    target = tl.load(targets + number)
    picked = tl.load(row + tl.maximum(target, 0)).to(tl.float32)
    tl.store(found + number, tl.where(target == IGNORED, 0.0, sum_exp - picked))
    tl.store(lse + number, sum_exp)


@triton.jit
def _nll_gradient(logits, targets, lse, factor, vocab, IGNORED: tl.constexpr, BLOCK: tl.constexpr):
    number = tl.program_id(0).to(tl.int64)
    start = tl.program_id(1) * BLOCK
    row = logits + number * vocab
    target = tl.load(targets + number)
    scale = tl.where(target == IGNORED, 0.0, tl.load(factor + number))
    columns = start + tl.arange(0, BLOCK)
    values = _read(row, start, vocab, BLOCK)
    gradient = (tl.exp(values - tl.load(lse + number)) - tl.where(columns == target, 1.0, 0.0)) * scale
    tl.store(row + columns, gradient.to(logits.dtype.element_ty), mask=columns < vocab)


@triton.jit
def _kl(logits, reference, found, lse, lse_before, vocab, BLOCK: tl.constexpr):
    number = tl.program_id(0).to(tl.int64)
    row = logits + number * vocab
    row_before = reference + number * vocab
    high = tl.full([BLOCK], LOWEST, tl.float32)
    high_before = tl.full([BLOCK], LOWEST, tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    total_before = tl.zeros([BLOCK], tl.float32)
    for start in range(0, vocab, BLOCK):
        values = _read(row, start, vocab, BLOCK)
        higher = tl.maximum(high, values)
        total = total * tl.exp(high - higher) + tl.exp(values - higher)
        high = higher
        values = _read(row_before, start, vocab, BLOCK)
        higher = tl.maximum(high_before, values)
        total_before = total_before * tl.exp(high_before - higher) + tl.exp(values - higher)
        high_before = higher
    highest = tl.max(high, 0)
    sum_exp = highest + tl.log(tl.sum(total * tl.exp(high - highest), 0))
    highest = tl.max(high_before, 0)
    sum_exp_before = highest + tl.log(tl.sum(total_before * tl.exp(high_before - highest), 0))
    divergence = tl.zeros([BLOCK], tl.float32)
    for start in range(0, vocab, BLOCK):
        now = _read(row, start, vocab, BLOCK) - sum_exp
        before = _read(row_before, start, vocab, BLOCK) - sum_exp_before
        divergence += tl.exp(before) * (before - now)
    tl.store(found + number, tl.sum(divergence, 0))
    tl.store(lse + number, sum_exp)
    tl.store(lse_before + number, sum_exp_before)


@triton.jit
def _kl_gradient(logits, reference, lse, lse_before, factor, vocab, BLOCK: tl.constexpr):
    number = tl.program_id(0).to(tl.int64)
    start = tl.program_id(1) * BLOCK
    row = logits + number * vocab
    columns = start + tl.arange(0, BLOCK)
    now = tl.exp(_read(row, start, vocab, BLOCK) - tl.load(lse + number))
    before = tl.exp(_read(reference + number * vocab, start, vocab, BLOCK) - tl.load(lse_before + number))
    gradient = (now - before) * tl.load(factor + number)
    tl.store(row + columns, gradient.to(logits.dtype.element_ty), mask=columns < vocab)
